"""`bertjax fill-mask`: what it reads, prints and refuses."""

import json
from pathlib import Path

import pytest

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"


def test_fill_mask_prints_json_as_documented(bertjax_command):
    texts = ["this is [MASK].", "[MASK] they are [MASK]"]
    code, out, err = bertjax_command("fill-mask", "--model", TINY, "--json", "--top-k", 2, *texts)
    assert (code, err) == (0, "")
    results = json.loads(out)
    assert [result["text"] for result in results] == texts
    assert [result.keys() for result in results] == [{"text", "masks"}] * 2
    assert [[mask["position"] for mask in result["masks"]] for result in results] == [[3], [1, 6]]
    for result in results:
        for mask in result["masks"]:
            assert mask.keys() == {"position", "candidates"}
            first, second = mask["candidates"]
            assert first.keys() == {"token", "token_id", "probability"}
            assert 1 > first["probability"] > second["probability"] > 0


def test_fill_mask_prints_texts_and_candidates(bertjax_command):
    code, out, _ = bertjax_command(
        "fill-mask", "--model", TINY, "--top-k", 2, "this is [MASK].", "[MASK] they are [MASK]"
    )
    _, as_json, _ = bertjax_command(
        "fill-mask", "--json", "--model", TINY, "--top-k", 2, "this is [MASK]."
    )
    [mask] = json.loads(as_json)[0]["masks"]
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "this is [MASK]."
    for line, candidate in zip(lines[2:4], mask["candidates"], strict=True):
        assert line == f"  {candidate['probability']:7.2%}  {candidate['token']}"
    assert lines[4:6] == ["", "[MASK] they are [MASK]"]
    assert [line for line in lines if line.startswith("  mask")] == ["  mask 1", "  mask 2"]


@pytest.mark.parametrize("dash", [(), ("-",)])
def test_fill_mask_reads_standard_input(bertjax_command, dash):
    stdin = b"this is [MASK].\n\n  [MASK] they are [MASK]  \n"
    code, out, _ = bertjax_command(
        "fill-mask", "--model", TINY, "--json", "--top-k", 2, *dash, stdin=stdin
    )
    assert code == 0
    texts = [result["text"] for result in json.loads(out)]
    assert texts == ["this is [MASK].", "[MASK] they are [MASK]"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["here is none"], b"", "text 1, 'here is none': there is no [MASK] in it"),
        (["x " * 20 + "[MASK]"], b"", "23 tokens, the model has positions for 17"),
        (["--top-k", "100", "a [MASK]"], b"", "top_k=100 must be between 1 and"),
        (
            [],
            b"a [MASK]\ncaf\xe9 [MASK]\n",
            "standard input:2: not UTF-8 (byte 0xe9 at column 4); pass --encoding cp1252",
        ),
        ([], b"\n \n", "standard input: no text"),
        (["-", "a [MASK]"], b"a [MASK]", "- reads standard input and stands alone"),
        (["a [MASK]", "-"], b"a [MASK]", "- reads standard input and stands alone"),
    ],
)
def test_fill_mask_tells_of_the_users_mistake(bertjax_command, arguments, stdin, message):
    code, out, err = bertjax_command("fill-mask", "--model", TINY, *arguments, stdin=stdin)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_fill_mask_refuses_a_model_without_the_head(bertjax_command, tmp_path):
    from bertjax.interop.huggingface import load_model_directory, save_model_directory

    config, params, *_ = load_model_directory(TINY, "BertModel")
    save_model_directory(tmp_path / "body", config, params, TINY, "BertModel")
    code, out, err = bertjax_command("fill-mask", "--model", tmp_path / "body", "a [MASK]")
    assert (code, out) == (2, "")
    assert "is a BertModel and has no mlm_head (missing tensor cls.predictions" in err
