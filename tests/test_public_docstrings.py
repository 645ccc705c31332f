"""What `import bertjax` gives says what it takes, returns and raises, and raises what it says."""

import dataclasses
import inspect

import docstring_parser
import pytest

import bertjax
from tests.interop.test_hub import TINY

FUNCTIONS = {
    name: thing for name in bertjax.__all__ if inspect.isfunction(thing := getattr(bertjax, name))
}
FIELDS = {field.name for field in dataclasses.fields(bertjax.Model)}
METHODS = {
    name: thing
    for name, thing in vars(bertjax.Model).items()
    if name[0] != "_" and name not in FIELDS
}
CALLED = FUNCTIONS | {name: thing for name, thing in METHODS.items() if inspect.isfunction(thing)}
# Those without a mistake that a user could make.
CANNOT_FAIL = {"gate_heads", "replace", "verify"}


def parsed(thing):
    return docstring_parser.parse(inspect.getdoc(thing), docstring_parser.DocstringStyle.GOOGLE)


@pytest.fixture(scope="module")
def model():
    return bertjax.load(TINY)


def test_every_name_is_walked():
    assert FUNCTIONS.keys() == {"adapt", "finetune", "gate_heads", "load", "pretrain"}
    assert {"fill_mask", "save", "trace", "export", "gate", "calibrate", "drift"} < METHODS.keys()
    classes = {name for name in bertjax.__all__ if inspect.isclass(getattr(bertjax, name))}
    assert classes | FUNCTIONS.keys() | {"__version__"} == set(bertjax.__all__)


@pytest.mark.parametrize("name", CALLED)
def test_function_says_what_it_takes_returns_and_raises(name):
    docs, signature = parsed(CALLED[name]), inspect.signature(CALLED[name])
    taken = list(signature.parameters)[name in METHODS :]  # without the model itself
    assert docs.short_description.split()[0].endswith("s"), "begins with no verb"
    said = [part for item in docs.params for part in item.arg_name.split(", ")]
    assert said == taken
    returns = docs.short_description.startswith("Returns") or docs.returns
    assert returns or signature.return_annotation is None or "returns" in docs.short_description
    raised = {item.type_name for item in docs.raises}
    assert ("UserError" in raised) == (name not in CANNOT_FAIL)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in CALLED])
def test_property_says_what_it_is(name):
    thing = METHODS[name]
    got = thing.func if hasattr(thing, "func") else getattr(thing, "fget", thing)
    assert inspect.getdoc(got)


@pytest.mark.parametrize("of", [bertjax.Model, bertjax.Edit], ids=lambda of: of.__name__)
def test_class_says_what_its_fields_are(of):
    named = getattr(of, "_fields", None) or [field.name for field in dataclasses.fields(of)]
    said = [part for item in parsed(of).params for part in item.arg_name.split(", ")]
    assert sorted(said) == sorted(named)


MISTAKES = {
    "adapt": lambda model, folder: bertjax.adapt(TINY, ["a"], run=folder / "run", rows=3),
    "finetune": lambda model, folder: bertjax.finetune(TINY, "classification", None),
    "load": lambda model, folder: bertjax.load(folder / "none"),
    "pretrain": lambda model, folder: bertjax.pretrain(["a"], run=folder / "run"),
    "as_architecture": lambda model, folder: model.as_architecture("BertForEverything"),
    "fill_mask": lambda model, folder: model.fill_mask(["it was"]),
    "embed": lambda model, folder: model.embed(["it was"], pooling="median"),
    "predict": lambda model, folder: model.predict(["it was"]),
    "evaluate": lambda model, folder: model.evaluate(3),
    "compare": lambda model, folder: model.compare("another", ["it was"]),
    "calibrate": lambda model, folder: model.calibrate([{"text": "it was", "label": "a"}]),
    "gate": lambda model, folder: model.gate("another", [{"text": "it was", "label": "a"}]),
    "drift": lambda model, folder: model.drift(["it was"], ["it is"]),
    "trace": lambda model, folder: model.trace(["it was"], without_heads="99-0"),
    "heads": lambda model, folder: model.heads(3),
    "compare_layers": lambda model, folder: model.compare_layers(["it was"]),
    "explain": lambda model, folder: model.explain("it was"),
    "contexts": lambda model, folder: model.contexts("it was", "dog", ["it was"]),
    "what_if": lambda model, folder: model.what_if("it was", "dog"),
    "analyze": lambda model, folder: model.analyze(3, folder / "report"),
    "save": lambda model, folder: model.save(folder / "file" / "model"),
    "export": lambda model, folder: model.export(folder / "exported", "pickle"),
    "prune": lambda model, folder: model.prune("40%"),
    "study_pruning": lambda model, folder: model.study_pruning("1"),
}


def test_every_function_that_says_that_it_raises_is_tried():
    assert MISTAKES.keys() == CALLED.keys() - CANNOT_FAIL


@pytest.mark.parametrize("name", MISTAKES)
def test_function_raises_what_it_says(name, model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(bertjax.UserError):
        MISTAKES[name](model, tmp_path)
