"""Exported directories as optimum, sentence-transformers and transformers.js read them.

    make test-readers

They run in processes of their own, without the network. Skipped where they are not installed.
"""

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

import bertjax
from bertjax.architectures import classes_of
from bertjax.exporting.answers import answering
from bertjax.exporting.export import choose_vectors
from bertjax.inference.exported import load_exported
from bertjax.interop.huggingface import save_model_directory
from bertjax.interop.signature import outputs_of
from bertjax.tasks.task import frame_texts
from tests.families.tiny import tiny_config
from tests.parity.random_models import draw_parameters
from tests.text.tiny_tokenizers import FAMILIES as OWN_TOKENIZERS
from tests.text.tiny_tokenizers import make, make_of

ROOT = Path(__file__).parents[2]
READERS = ROOT / ".venv-readers"
SCRIPTS = Path(__file__).parent / "readers"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (READERS / ".installed").exists() and "REQUIRE_READERS" not in os.environ,
        reason="the other readers are not installed (make test-readers)",
    ),
]

TEXTS = [
    "The café owners believe it.",
    "It's unlikely: a likely story (told).",
    "Cats",
]
PAIRS = [(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[0])]
# Those that optimum has a class for.
KINDS = ("body", "masked-lm", "sequence", "tokens", "spans", "choice")
# All of them in one family, and in the others those that differ in more than a linear layer.
CASES = [("bert", kind) for kind in KINDS] + [
    (family, kind)
    for family in ("roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert",
                   "modernbert")
    for kind in ("body", "masked-lm", "sequence")
]  # fmt: skip


def start(*words, **environment):
    """Runs a reader; its standard output."""
    kept = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", **environment}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, env=kept)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Exported models `FAMILY-KIND`, and what they are of, `FAMILY-KIND-model`."""
    folder = tmp_path_factory.mktemp("readers")
    for family in dict.fromkeys(family for family, _ in CASES):
        tokenizer = make_of(family) if family in OWN_TOKENIZERS else make("wordpiece")
        tokenizer.save(folder / "tokenizers" / family)
        config = tiny_config(
            family,
            vocab_size=tokenizer.vocab_size,
            pad_token_id=tokenizer.pad_id,
            max_position_embeddings=64,
        )
        for kind in [kind for its, kind in CASES if its == family]:
            name = classes_of(config)[kind].name
            labels = {} if kind in ("spans", "choice") else {"id2label": ("sad", "so so", "happy")}
            own = dataclasses.replace(config, **labels)
            directory = folder / f"{family}-{kind}-model"
            params = draw_parameters(own, name)
            save_model_directory(directory, own, params, folder / "tokenizers" / family, name)
            options = {"pooling": ["mean", "max"]} if kind == "body" else {}
            bertjax.load(directory).export(folder / f"{family}-{kind}", **options)
    return folder


# ------------------------------------------------------------------ optimum, sentence-transformers


def texts_of(kind):
    """What a class is asked: lists of one text, or of two."""
    return [list(pair) for pair in PAIRS] if kind in ("spans", "choice") else [[t] for t in TEXTS]


@pytest.fixture(scope="module")
def of_optimum(folder, tmp_path_factory):
    """What optimum answers, by case and name."""
    own = tmp_path_factory.mktemp("optimum")
    job = [
        {"directory": str(folder / f"{family}-{kind}"), "texts": texts_of(kind)}
        for family, kind in CASES
    ]
    (own / "job.json").write_text(json.dumps(job))
    python = READERS / "bin" / "python"
    start(python, SCRIPTS / "read_with_optimum.py", own / "job.json", own / "answers.npz")
    answers = {case: {} for case in CASES}
    with np.load(own / "answers.npz") as kept:
        for key, values in kept.items():
            number, _, name = key.partition("/")
            answers[CASES[int(number)]][name] = values
    return answers


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_optimum_answers_as_the_model(folder, of_optimum, family, kind):
    model, theirs = bertjax.load(folder / f"{family}-{kind}-model"), of_optimum[family, kind]
    given = [(first, *second, None)[:2] for first, *second in texts_of(kind)]
    framed, notes = frame_texts(model.tokenizer, given, model.config.max_length)
    assert not notes
    real = theirs["attention_mask"].reshape(len(framed), -1) == 1
    assert not real.all()
    ids = theirs["input_ids"].reshape(real.shape)
    for row, mask, sequence in zip(ids, real, framed, strict=True):
        np.testing.assert_array_equal(row[mask], sequence.token_ids)
    inputs = {
        name: values.astype(np.int32)
        for name, values in theirs.items()
        if name in ("input_ids", "attention_mask", "token_type_ids")
    }
    expected = jax.device_get(
        jax.jit(answering(model, choose_vectors(model)))(model.params, inputs)
    )
    architecture = classes_of(model.config)[kind]
    axes = outputs_of(architecture, model.config)
    common = [name for name in axes if name in theirs]
    assert common[0] == next(iter(axes))
    for name in common:
        ours, own = expected[name], theirs[name]
        assert own.dtype == np.float32
        if axes[name][1] == "sequence_length":
            ours, own = ours[real], own[real]
        np.testing.assert_allclose(own, ours, atol=5e-5, err_msg=name)


@pytest.mark.parametrize("family", [family for family, kind in CASES if kind == "body"])
def test_sentence_transformers_makes_the_vectors_of_embed(folder, of_optimum, family):
    model = bertjax.load(folder / f"{family}-body-model")
    expected = model.embed(TEXTS, pooling=["mean", "max"])
    np.testing.assert_allclose(of_optimum[family, "body"]["vectors"], expected, atol=5e-5)


# ------------------------------------------------------------------ transformers.js


def ask_transformers_js(folder, tmp_path, *models):
    job = {"folder": str(folder), "models": models}
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    reader = SCRIPTS / "read_with_transformers.mjs"
    return json.loads(
        start(READERS / "bin" / "node", reader, READERS / "node", tmp_path / "job.json")
    )


# New tokenizers of the other families have a normalizer that transformers.js does not know, Nmt.
MASKED = {"bert": "[MASK]", "distilbert": "[MASK]", "electra": "[MASK]", "roberta": "<mask>",
          "modernbert": "[MASK]"}  # fmt: skip


def test_transformers_js_restores_the_words_of_families(folder, tmp_path):
    texts = [[f"The {mask} owners believe it.", f"a {mask}"] for mask in MASKED.values()]
    theirs = ask_transformers_js(
        folder,
        tmp_path,
        *(
            {"name": f"{family}-masked-lm", "task": "fill-mask", "texts": own, "dtype": "fp32"}
            for family, own in zip(MASKED, texts, strict=True)
        ),
    )
    for family, own, answers in zip(MASKED, texts, theirs, strict=True):
        filled = bertjax.load(folder / f"{family}-masked-lm-model").fill_mask(own)
        for ours, answer in zip(filled, answers, strict=True):
            [mask] = ours.masks
            for candidate, one in zip(mask.candidates, answer, strict=True):
                assert candidate.token_id == one["token"], family
                assert candidate.probability == pytest.approx(one["score"], abs=1e-5)


def test_transformers_js_classifies_as_the_model(folder, tmp_path):
    [theirs] = ask_transformers_js(
        folder,
        tmp_path,
        {
            "name": "bert-sequence", "task": "text-classification", "texts": TEXTS,
            "dtype": "fp32", "options": {"top_k": None},
        },
    )  # fmt: skip
    ours = bertjax.load(folder / "bert-sequence-model").predict(TEXTS)
    for prediction, answer in zip(ours, theirs, strict=True):
        scores = {one["label"]: one["score"] for one in answer}
        assert scores == pytest.approx(dict(prediction.probabilities), abs=1e-5)


def test_transformers_js_makes_the_vectors_of_minilm(minilm, tmp_path):
    model, folder = bertjax.load(minilm), tmp_path / "models"
    model.export(folder / "minilm", check=TEXTS)
    how = {"name": "minilm", "task": "feature-extraction",
           "options": {"pooling": "mean", "normalize": True}}  # fmt: skip
    whole, alone = ask_transformers_js(
        folder,
        tmp_path,
        {**how, "texts": TEXTS, "dtype": "fp32"},
        {**how, "texts": TEXTS[:1], "dtype": "q8"},  # eight bits depend on the batch
    )
    np.testing.assert_allclose(whole, model.embed(TEXTS, normalize=True), atol=1e-5)
    eight = load_exported(folder / "minilm").embed(TEXTS[:1], normalize=True)
    assert np.dot(alone[0], eight[0]) > 0.999
    assert np.abs(np.subtract(alone, whole[:1])).max() > 1e-4  # it is the other file


def test_transformers_js_restores_the_words_of_a_trained_model(shared_data, tmp_path):
    trained = shared_data / "weights" / "bert_tiny_mlm"
    bertjax.load(trained).export(tmp_path / "models" / "trained")
    text = "The capital of France is [MASK]."
    [[theirs]] = ask_transformers_js(
        tmp_path / "models",
        tmp_path,
        {"name": "trained", "task": "fill-mask", "texts": [text], "dtype": "fp32"},
    )
    [ours] = bertjax.load(trained).fill_mask([text])
    for candidate, one in zip(ours.masks[0].candidates, theirs, strict=True):
        assert candidate.token_id == one["token"]
        assert candidate.probability == pytest.approx(one["score"], abs=1e-5)
