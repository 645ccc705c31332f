"""The pages of docs/api: whatever they show says what it is, what it takes, and what it raises."""

import ast
import re
from pathlib import Path

import docstring_parser
import pytest

import bertjax

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
DIRECTIVE = re.compile(r"^\.\. auto(\w+):: (\S+)(\n +:members:.*)?", re.M)
# The methods of every task, whose docstrings say their arguments once for all.
INTERFACE = "bertjax.tasks.task.Task"
# Called by flax alone.
HOOKS = {"setup"}


def tree_of(module):
    return ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


def is_function(node):
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def is_class(node):
    return isinstance(node, ast.ClassDef)


def public(nodes):
    """The public functions and classes among syntax trees, by their names."""
    named = {node.name: node for node in nodes if is_function(node) or is_class(node)}
    return {name: node for name, node in named.items() if name[0] != "_" and name not in HOOKS}


def shown_by(page):
    """Yields the dotted name and the syntax tree of everything that a page shows."""
    for kind, name, members in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
        module, own = name, [one for one in re.split(r"[\s,]+|:members:", members) if one]
        if kind != "module":
            module, _, thing = name.removesuffix("()").rpartition(".")
            module = bertjax._PLACES[thing] if module == "bertjax" else module
            own = [thing]
        there = public(tree_of(module).body)
        for thing in own or there:
            yield f"{module}.{thing}", there[thing]
            if members and is_class(there[thing]):
                for method, node in public(there[thing].body).items():
                    yield f"{module}.{thing}.{method}", node


SHOWN = {name: node for page in PAGES for name, node in shown_by(page)}


def taken_by(node):
    """The names of a function's arguments, but for the object itself, or of a class's fields."""
    if is_class(node):
        fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
        own = [one.target.id for one in fields if "ClassVar" not in ast.unparse(one.annotation)]
        return [name for name in own if name[0] != "_"]
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    every += [one for one in (node.args.vararg, node.args.kwarg) if one]
    return [one.arg for one in every if one.arg not in ("self", "cls")]


def said_by(node):
    """The arguments or fields, and the errors, that a docstring has."""
    docs = docstring_parser.parse(
        ast.get_docstring(node) or "", docstring_parser.DocstringStyle.GOOGLE
    )
    return (
        {part for one in docs.params for part in one.arg_name.split(", ")},
        {one.type_name for one in docs.raises},
    )


def lacks(name, node):
    """What the docstring of something does not say."""
    if not ast.get_docstring(node):
        return ["a docstring"]
    named, errors = said_by(node)
    interface = SHOWN.get(f"{INTERFACE}.{node.name}")
    if interface and name.startswith("bertjax.tasks."):
        named |= said_by(interface)[0]
    lacking = [one for one in taken_by(node) if one not in named]
    raised = {
        ast.unparse(one.exc.func)
        for one in ast.walk(node)
        if isinstance(one, ast.Raise) and isinstance(one.exc, ast.Call)
    }
    if is_function(node) and "UserError" in raised - errors:
        lacking.append("UserError")
    return lacking


def test_pages_show_what_is_there():
    assert {"python", "text", "tasks", "inference", "release", "statistics"} < {
        page.stem for page in PAGES
    }
    assert len(SHOWN) > 400
    assert {"bertjax.text.preparation.prepare", "bertjax.loaded.load"} < SHOWN.keys()
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"(api/{page.name})" not in index] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_everything_shown_says_what_it_takes_and_raises(page):
    wrong = {name: lacks(name, node) for name, node in shown_by(page)}
    assert {name: what for name, what in wrong.items() if what} == {}
