"""Settings of `bertjax serve` that come from environment variables."""

import pytest

from bertjax.cli import make_parser
from bertjax.commands.serve import DEFAULTS
from bertjax.serving.keys import read_keys

OPTIONS = ["--json"]  # is refused for want of --check, after the settings are read


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PORT", "x", "PORT=x in the environment: "),
        ("PORT", "70000", "PORT=70000 in the environment: the value 70000 must be at most 65,535"),
        ("REQUEST_TIMEOUT", "-1", "the value -1.0 must be above 0"),
        ("MAX_BATCH_TOKENS", "1.5", "MAX_BATCH_TOKENS=1.5 in the environment: "),
        ("DTYPE", "int8", "DTYPE=int8 in the environment: it is not one of auto, float32"),
        ("AUTO_TRUNCATE", "perhaps", "it is not one of true, 1, false, 0"),
        ("CORS_ALLOW_ORIGIN", "\udcff", "CORS_ALLOW_ORIGIN="),
    ],
)
def test_wrong_value_is_refused_by_the_name_of_its_variable(
    bertjax_command, monkeypatch, variable, value, message
):
    monkeypatch.setenv(variable, value)
    code, _, err = bertjax_command("serve", "--model", "none", *OPTIONS)
    assert code == 2
    assert f"{variable}=" in err
    assert message in err
    assert "set another, or unset it" in err
    assert "usage:" not in err
    assert bertjax_command("serve", "--help")[0] == 0


def test_option_is_stronger_than_a_wrong_variable(bertjax_command, monkeypatch):
    monkeypatch.setenv("PORT", "x")
    code, _, err = bertjax_command("serve", "--model", "none", "--port", "0", *OPTIONS)
    assert code == 2
    assert "PORT" not in err
    assert "pass both" in err


def test_values_are_read(monkeypatch):
    for name, value in {
        "PORT": "81", "AUTO_TRUNCATE": "False", "DTYPE": "bfloat16", "REQUEST_TIMEOUT": "2.5",
        "CORS_ALLOW_ORIGIN": "https://a.org, https://b.org", "MAX_BATCH_TOKENS": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    options = make_parser().parse_args(["serve", "--model", "none"])
    assert (options.port, options.auto_truncate, options.dtype) == (81, False, "bfloat16")
    assert options.request_timeout == 2.5
    assert options.cors_allow_origin == ["https://a.org", "https://b.org"]
    assert options.max_batch_tokens == DEFAULTS.max_batch_tokens


def test_keys_may_be_any_bytes_and_their_file_of_any_editor(tmp_path):
    file = tmp_path / "keys"
    file.write_bytes("\ufeffone\r\n\r\n  two \r\n".encode())
    keys = read_keys(file, "a\udcffb")
    assert len(keys) == 3
    for key in (b"one", b"two", b"a\xffb"):
        assert keys.allow("POST", "/predict", b"Bearer " + key)
