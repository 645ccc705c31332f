"""Turns of phrase that messages share."""

import re
from pathlib import Path

import bertjax
from bertjax.program.wording import counted, nearest, with_article


def test_nearest_names_what_looks_alike_or_nothing():
    assert nearest("hiden_size", ["hidden_size", "vocab_size"]) == "; did you mean 'hidden_size'?"
    assert nearest("zzz", ["hidden_size", "vocab_size"]) == ""


def test_one_of_a_thing_is_no_plural():
    said = [counted(number, "text") for number in (0, 1, 2000)]
    assert said == ["0 texts", "1 text", "2,000 texts"]


def test_article_fits_the_name_of_every_family_and_class():
    said = {with_article(name).removesuffix(f" {name}") for name in ("BertModel", "RobertaModel")}
    assert said == {"a"}
    for name in ("AlbertModel", "electra", "XLMRobertaModel", "answer", "int"):
        assert with_article(name) == f"an {name}"


def test_no_message_writes_the_article_of_a_class_or_family_itself():
    written = re.compile(
        r"\ba (\"\s*f\")?\s*\{[\w.]*(architecture|MODEL_TYPE|prefix|output|family)\}"
    )
    for path in Path(bertjax.__file__).parent.rglob("*.py"):
        assert not written.search(path.read_text(encoding="utf-8")), path
