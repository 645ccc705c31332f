"""`bertjax verify` as a user meets it: the table, the JSON, the exit code."""

import json
from pathlib import Path

import pytest

from bertjax.verification import checks
from bertjax.verification.checks import Check

MODEL = Path(__file__).parents[1] / "parity" / "golden" / "classes" / "BertModel"
ROWS = [
    Check("reference", None, 1e-5, "torch not installed"),
    Check("padding", 1.24e-6, 1e-5, "rows with padding, and each alone without"),
]
BROKEN = Check("packing", 2.5e-2, 1e-5, "several examples in a row, and each alone")


@pytest.mark.parametrize(("rows", "code"), [(ROWS, 0), ([*ROWS, BROKEN], 1)])
def test_exit_code_is_1_where_a_check_failed(bertjax_command, monkeypatch, rows, code):
    monkeypatch.setattr(checks, "verify", lambda *arguments: iter(rows))
    actual, out, err = bertjax_command("verify", "--model", MODEL, "--json")
    assert (actual, err) == (code, "")
    assert json.loads(out) == [
        {
            "name": row.name,
            "difference": row.difference,
            "tolerance": 1e-5,
            "detail": row.detail,
            "result": row.result,
        }
        for row in rows
    ]
    actual, out, _ = bertjax_command("verify", "--model", MODEL)
    assert actual == code
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["check", "difference", "allowed", "result", "compared"]
    assert lines[1][:4] == ["reference", "1e-05", "not", "checked"]
    assert ["padding", "1.2e-06", "1e-05", "ok"] in [line[:4] for line in lines]
    failed = [line[:4] for line in lines if "FAILED" in line]
    assert failed == ([["packing", "2.5e-02", "1e-05", "FAILED"]] if code else [])


def test_options_reach_the_checks(bertjax_command, monkeypatch):
    asked = []
    monkeypatch.setattr(checks, "verify", lambda *arguments: asked.append(arguments) or [])
    bertjax_command("verify", "--model", "DIR", "--against", "OTHER", "--tolerance", "1e-3")
    bertjax_command("verify", "--model", "DIR")
    assert asked == [("DIR", "OTHER", 1e-3), ("DIR", None, 1e-5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", MODEL, "--tolerance", "0"], "--tolerance 0.0 must be above 0"),
        (["--model", MODEL, "--tolerance", "nan"], "--tolerance nan must be a finite number"),
        (["--model", "nowhere"], "nowhere: no such directory"),
        ([], "the following arguments are required: --model"),
    ],
)
def test_mistake_of_the_user_is_told(bertjax_command, arguments, message):
    code, out, err = bertjax_command("verify", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
