"""The house as it is meant to stand: who imports whom, and what an import costs."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What imports when it is asked for something, and names what it gives.
FACE = {"__init__", "loaded", "methods"}
# Part of bertjax -> the parts it may import; itself and those of `ALWAYS` always.
ALWAYS = {"program"}
MAY_IMPORT = {
    "program": set(),
    "config": set(),
    "types": {"config"},
    "pictures": set(),
    "statistics": set(),
    "numerics": {"config", "types"},
    "kernels": {"config", "types", "numerics"},
    "model": {"config", "types", "numerics", "kernels"},
    "families": {"config"},
    "objectives": {"config", "types", "numerics"},
    "text": {"config"},
    "tasks": {"config", "types", "numerics", "text", "objectives", "statistics", "architectures"},
    "architectures": {"config", "families", "model"},
    "interop": {"config", "families", "types", "text", "model", "architectures"},
    "methods": {"architectures", "config", "text"},
    "loaded": {"kernels", "config", "families", "architectures", "interop", "methods", "text"},
    "inference": {
        "families",
        "config", "types", "numerics", "text", "objectives", "tasks", "architectures", "loaded",
        "interop",
    },
    "training": {
        "families",
        "loaded",
        "config", "types", "numerics", "pictures", "kernels", "model", "objectives", "text",
        "interop", "tasks", "architectures", "inference",
    },
    "sweeps": {"config", "pictures", "tasks", "training"},
    "analysis": {
        "families",
        "config", "types", "kernels", "numerics", "model", "interop", "text", "objectives",
        "tasks", "statistics", "training", "architectures", "inference", "loaded",
    },
    "directories": {"config", "families", "interop", "text", "tasks", "training"},
    "verification": {
        "families",
        "config", "types", "kernels", "numerics", "model", "objectives", "training", "interop",
        "architectures",
    },
    "exporting": {
        "architectures", "config", "families", "inference", "interop", "kernels", "loaded",
        "numerics", "tasks", "text", "types", "verification",
    },
    "gating": {"analysis", "inference", "interop", "loaded", "statistics", "tasks"},
    "planning": {
        "families",
        "config", "types", "kernels", "numerics", "text", "interop", "model", "objectives",
        "training",
    },
    "benchmarking": {"types", "kernels", "numerics", "training", "planning", "verification"},
    "serving": {
        "families",
        "architectures", "config", "inference", "kernels", "loaded", "numerics", "tasks", "text",
        "analysis", "interop",
    },
    "drift": {"architectures", "loaded", "serving", "statistics"},
    "commands": {
        "families", "drift",
        "config", "pictures", "types", "model", "interop", "text", "tasks", "directories",
        "objectives", "training", "sweeps", "verification", "planning", "benchmarking", "analysis",
        "kernels", "statistics", "architectures", "inference", "loaded", "serving", "exporting",
        "gating",
    },
    "cli": {"commands", "config", "interop"},
    "__main__": {"cli"},
    "__init__": set(),
}  # fmt: skip


def parse(path):
    """The file's syntax tree; of the face without what is imported when it is asked for, or named.

    A `Model` is at the bottom of the house, and its methods are the work that stands above.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if part_of(path) in FACE:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) or (
                isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            ):
                node.body = []
    return tree


def imported_modules(path):
    """The dotted names that a file imports, anywhere in it, with the line of each."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            # `from bertjax import cli` and `from bertjax.text import rows` import modules, too.
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def part_of(path):
    return path.relative_to(ROOT / "bertjax").parts[0].removesuffix(".py")


SOURCES = sorted((ROOT / "bertjax").rglob("*.py"))
PROGRAMS = sorted((ROOT / "train").rglob("*.py"))


def test_every_part_has_its_place_in_the_order():
    assert len(SOURCES) > 30
    assert {part_of(path) for path in SOURCES} <= MAY_IMPORT.keys()


def test_imports_point_one_way():
    wrong = []
    for path in SOURCES:
        part = part_of(path)
        allowed = MAY_IMPORT[part] | ALWAYS | {part}
        for name, line in imported_modules(path):
            package, inner = (*name.split("."), "")[:2]
            ours = package == "bertjax" and inner in MAY_IMPORT
            if package == "train" or (ours and inner not in allowed):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {part} must not import {name}")
    assert wrong == []


def test_picture_in_contributing_is_the_order():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = page.split("```text\n")[1].split("```")[0]
    lines = [re.split(" {2,}", line)[0].split(", ") for line in picture.splitlines()]
    height = {part: number for number, parts in enumerate(lines) for part in parts}
    assert height.keys() == MAY_IMPORT.keys() - {"__init__", "__main__"}
    wrong = [
        f"{part} must stand below {other}"
        for part in height
        for other in MAY_IMPORT[part]
        if height[other] >= height[part]
    ]
    assert wrong == []


def runtime_imports():
    """Module -> the modules of ours that it imports when it runs, at whatever moment."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in SOURCES}
    imports = {}
    for module, path in modules.items():
        tree = parse(path)
        typed = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in ast.walk(node)
        }
        froms = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and id(node) not in typed
        ]
        named = {(node.module, alias.name) for node in froms for alias in node.names}
        imports[module] = {
            f"{package}.{name}" if f"{package}.{name}" in modules else package
            for package, name in named
        } & modules.keys()
    return imports


def packages_of_analysis(imports):
    """Package of the analysis -> the others that it imports."""
    packages = {}
    for module, others in imports.items():
        if module.startswith("bertjax.analysis."):
            own = ".".join(module.split(".")[:3])
            theirs = {".".join(other.split(".")[:3]) for other in others}
            packages.setdefault(own, set()).update(theirs - {own})
    return {own: theirs & packages.keys() for own, theirs in packages.items()}


@pytest.mark.parametrize(
    "whole", [runtime_imports, lambda: packages_of_analysis(runtime_imports())]
)
def test_nothing_imports_in_a_circle(whole):
    imports = whole()
    assert len(imports) > 6
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


# What these make of a value is looked up, hashed or shown in a message, and no reader's JSON.
OWN_JSON = {
    "bertjax/program/config_help.py",
    "bertjax/program/config_parser.py",
    "bertjax/program/strict_json.py",
    "bertjax/sweeps/report.py",
    "bertjax/sweeps/space.py",
    "bertjax/tasks/hash_splits.py",
    "bertjax/tasks/label_values.py",
    "bertjax/text/record_config.py",
    "bertjax/text/surrogates.py",
}


def test_json_is_written_in_one_place():
    wrong = []
    for path in SOURCES + PROGRAMS:
        if str(path.relative_to(ROOT)) in OWN_JSON:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.dumps", "json.dump"):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: use strict_json.to_json")
    assert wrong == []


def test_text_and_command_never_name_jax():
    free_of_jax = (
        "text",
        "config",
        "program",
        "cli",
        "commands",
        "__init__",
    )
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in SOURCES
        if part_of(path) in free_of_jax and path.stem != "compiled_programs"
        for name, line in imported_modules(path)
        if name.split(".")[0] in ("jax", "flax", "optax", "orbax", "grain")
    ]
    assert wrong == []


@pytest.mark.parametrize("modules", ["bertjax", "bertjax.cli", "every module of bertjax.text"])
def test_import_loads_no_jax(modules):
    if modules.startswith("every"):
        names = [path.stem for path in (ROOT / "bertjax" / "text").glob("[a-z]*.py")]
        assert len(names) > 5
        modules = ", ".join(f"bertjax.text.{name}" for name in names)
    heavy = "{'jax', 'jaxlib', 'flax', 'optax', 'torch'}"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_import_of_the_model_touches_no_device_and_prints_nothing():
    code = (
        "import bertjax.model.bert, bertjax.objectives.masking\n"
        "from jax._src import xla_bridge\n"
        "print(xla_bridge.backends_are_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_files_are_named_after_an_idea():
    banned = {"utils", "util", "common", "helpers", "helper", "misc"}
    paths = [path.relative_to(ROOT).with_suffix("") for path in SOURCES + PROGRAMS]
    assert [str(path) for path in paths if banned & set(path.parts)] == []
