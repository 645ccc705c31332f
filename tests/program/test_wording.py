"""Turns of phrase that messages share."""

from bertjax.program.wording import counted, nearest


def test_nearest_names_what_looks_alike_or_nothing():
    assert nearest("hiden_size", ["hidden_size", "vocab_size"]) == "; did you mean 'hidden_size'?"
    assert nearest("zzz", ["hidden_size", "vocab_size"]) == ""


def test_one_of_a_thing_is_no_plural():
    said = [counted(number, "text") for number in (0, 1, 2000)]
    assert said == ["0 texts", "1 text", "2,000 texts"]
