"""The house as it is meant to stand: who imports whom, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Part of bertjax -> the parts it may import; those of `ALWAYS` and itself always.
ALWAYS = {"errors", "wording", "strict_json", "program"}
MAY_IMPORT = {
    "errors": set(),
    "wording": set(),
    "strict_json": set(),
    "program": {"huge_pages"},
    "config": set(),
    "config_parser": set(),
    "types": {"config"},
    "placement": set(),
    "pictures": set(),
    "model": {"config", "types", "placement", "kernels"},
    "kernels": {"config", "types", "placement"},
    "objectives": {"config", "types", "placement"},
    "training": {"config", "types", "placement", "pictures", "kernels", "model", "objectives"},
    "text": {"config"},
    "tasks": {"config", "types", "placement", "text", "objectives"},
    "interop": {"config", "types", "text", "model"},
    "analysis": {
        "config",
        "types",
        "kernels",
        "model",
        "interop",
        "text",
        "objectives",
        "tasks",
    },
    "serving": {"config", "types", "model", "interop", "text", "tasks"},
    "directories": {"config", "interop", "text", "tasks", "training"},
    "verification": {"config", "types", "kernels", "model", "objectives", "training", "interop"},
    "pretraining": {"config", "model", "objectives", "training", "analysis"},
    "planning": {
        "config",
        "config_parser",
        "types",
        "placement",
        "text",
        "interop",
        "model",
        "objectives",
        "training",
        "verification",
        "pretraining",
    },
    "commands": {
        "config",
        "pictures",
        "types",
        "model",
        "interop",
        "text",
        "tasks",
        "directories",
        "objectives",
        "training",
        "verification",
        "planning",
        "analysis",
    },
    "huge_pages": set(),
    "compiled_programs": set(),
    "cli": {"commands", "config", "compiled_programs"},
    "__main__": {"cli", "huge_pages"},
    "__init__": set(),
}


def imported_modules(path):
    """The dotted names that a file imports, anywhere in it, with the line of each."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


# What these make of a value is looked up, hashed or shown in a message, and no reader's JSON.
OWN_JSON = {
    "bertjax/config_parser.py",
    "bertjax/strict_json.py",
    "bertjax/tasks/hash_splits.py",
    "bertjax/tasks/label_values.py",
    "bertjax/text/records.py",
    "bertjax/text/surrogates.py",
    "train/sweep_report.py",
    "train/sweep_space.py",
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
        "config_parser",
        "errors",
        "program",
        "wording",
        "cli",
        "commands",
        "__init__",
    )
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in SOURCES
        if part_of(path) in free_of_jax
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
