"""A server of exported models answers as one of the models themselves, and refuses the rest."""

import shutil

import jax
import numpy as np
import pytest

from bertjax.inference.exported import load_exported
from bertjax.interop.signature import ONNX_NAME
from bertjax.loaded import load
from bertjax.serving.programs import Asked, make_program
from bertjax.serving.request_log import read_log
from bertjax.serving.sampling import fingerprint_model, make_projection
from bertjax.text.framing import TokenSequence
from tests.serving.running import count, http, running, until
from tests.serving.served_models import export_quickly, save_tiny
from tests.serving.test_programs import NAMES, RUNNING, draw, on_one, run_all

# Every route that answers with what a model computes, and a model that has the answer.
LONG = "the old red dog hears the cat"
CALLS = [
    ("/embed", "vectors", {"inputs": ["a cat sat", LONG], "normalize": False}),
    ("/embed", "vectors", {"inputs": [[2, 11, 12, 3]], "dimensions": 5}),
    ("/embed_all", "vectors", {"inputs": ["a cat sat", "a"]}),
    ("/similarity", "vectors", {"inputs": {"source_sentence": "a cat", "sentences": ["dog", "a"]}}),
    ("/rerank", "vectors", {"query": "a cat", "texts": ["dog", LONG]}),
    ("/v1/embeddings", "vectors", {"input": ["a cat", LONG]}),
    ("/score", "vectors", {"text_1": "a cat", "text_2": ["dog", LONG]}),
    ("/models/vectors", "", {"inputs": {"source_sentence": "a cat", "sentences": ["a dog"]}}),
    ("/predict", "classes", {"inputs": [["a cat"], ["a dog", "it ran"], [LONG]]}),
    ("/predict", "topics", {"inputs": "a cat"}),
    ("/predict", "stars", {"inputs": "a cat"}),
    ("/classify", "classes", {"input": ["a cat", LONG]}),
    ("/rerank", "relevance", {"query": "a cat", "texts": ["dog", LONG], "raw_scores": True}),
    ("/v1/rerank", "relevance", {"query": "a cat", "documents": ["dog", LONG]}),
    ("/zero-shot", "entailment", {"inputs": "a cat", "candidate_labels": ["cat", "dog"]}),
    ("/models/classes", "", {"inputs": "a cat", "parameters": {"top_k": 2}}),
    ("/tags", "entities", {"inputs": ["a cat saw the old dog", LONG * 5]}),
    ("/tags", "speech", {"inputs": LONG, "aggregation_strategy": "none"}),
    ("/answer", "answers", {"question": "who sat", "context": LONG * 3, "top_k": 3}),
    ("/fill-mask", "masks", {"inputs": ["a [MASK] sat", "[MASK] a [MASK]"], "top_k": 3}),
    ("/fill-mask", "masks", {"inputs": " ".join(9 * ["[MASK]"]), "top_k": 1}),
    ("/next-sentence", "masks", {"inputs": ["a cat sat", "it ran"]}),
    ("/next-sentence", "next", {"inputs": [["a cat sat", "it ran"], ["a", LONG]]}),
    ("/multiple-choice", "choices", {"context": "a cat", "choices": ["sat", LONG, "ran"]}),
    ("/tokenize", "classes", {"inputs": ["a cat sat"]}),
    ("/decode", "classes", {"ids": [[2, 11, 12, 3]]}),
]  # fmt: skip


@pytest.fixture(scope="module")
def exported(every_head, tmp_path_factory):
    """The address of a server with what was exported of the models of `every_head`."""
    folder = tmp_path_factory.mktemp("exported")
    models = {
        name: load_exported(export_quickly(served.model, folder / name), threads=1)
        for name, served in every_head[1].models.items()
    }
    settings = {"max_batch_tokens": 16, "max_client_batch_size": 8, "explain": True}
    with running(models, **settings) as (address, _):
        yield address


def flatten(value):
    """The words of an answer, and its numbers; not the time and the number of the call."""
    if isinstance(value, dict):
        kept = sorted(value.keys() - {"id", "created"})
        return [part for key in kept for part in (key, *flatten(value[key]))]
    return (
        [part for item in value for part in flatten(item)] if isinstance(value, list) else [value]
    )


@pytest.mark.parametrize(("route", "model", "call"), CALLS)
def test_answer_is_that_of_the_model(every_head, exported, route, model, call):
    call = {**call, **({"model": model} if model else {})}
    ours, theirs = (
        http.post(f"{address}{route}", json=call) for address in (exported, every_head[0])
    )
    assert (ours.status_code, theirs.status_code) == (200, 200), ours.text
    expected = [
        pytest.approx(part, abs=1e-4) if isinstance(part, float) else part
        for part in flatten(theirs.json())
    ]
    assert flatten(ours.json()) == expected


@pytest.mark.parametrize(
    ("route", "call", "message"),
    [
        ("/explain", {"inputs": "a cat", "model": "classes"}, "run by onnxruntime, which shows"),
        ("/attention", {"inputs": "a cat", "model": "vectors"}, "run by onnxruntime, which shows"),
        ("/embed", {"inputs": "a cat", "model": "masks"}, "exported with --architecture BertModel"),
        ("/embed_all", {"inputs": "a cat", "model": "masks"}, "has no output hidden; it has token"),
        ("/v1/embeddings", {"input": "a cat", "model": "masks"}, "has no output vector"),
    ],
)
def test_what_an_export_does_not_answer_is_refused(exported, route, call, message):
    refused = http.post(f"{exported}{route}", json=call)
    assert refused.status_code == 424
    told = refused.json()
    is_openai = route.startswith("/v1")
    assert {*told} == ({"message", "code", "type"} if is_openai else {"error", "error_type"})
    assert message in told["message" if is_openai else "error"]


def test_engine_is_told_and_nothing_is_compiled_under_traffic(every_head, exported):
    address, before = exported, count(exported, "bertjax_compilations_total")
    told = http.get(f"{address}/info").json()
    assert (told["engine"], told["model_dtype"]) == ("onnxruntime", "float32")
    assert http.get(f"{every_head[0]}/info").json()["engine"] == "jax"
    labels = {"dtype": "float32", "engine": "onnxruntime", "model": "vectors"}
    assert count(address, "bertjax_model", **labels) == 1
    page = {one["name"]: one for one in http.get(f"{address}/page/models").json()}
    own = page["classes"]
    assert (own["engine"], own["explains"], own["attention"]) == ("onnxruntime", False, False)
    for length in range(1, 14):
        words = " ".join(length * ["cat"])
        assert http.post(f"{address}/embed", json={"inputs": words}).status_code == 200
    assert count(address, "bertjax_compilations_total") == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_has_a_name_however_it_was_asked_for(dtype, tmp_path):
    folder = save_tiny(tmp_path, "BertForTokenClassification")
    assert load(folder, dtype=dtype).dtype == dtype


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Loads what was exported of a tiny model of a class, once."""
    folder, known = tmp_path_factory.mktemp("exports"), {}

    def get(architecture):
        if architecture not in known:
            (folder / architecture).mkdir()
            model = load(save_tiny(folder / architecture, architecture))
            known[architecture] = export_quickly(model, folder / architecture / "onnx")
        return load_exported(known[architecture], threads=1)

    return get


@pytest.mark.parametrize("name", ["token", "tag", "vector"])
@pytest.mark.parametrize("in_eight_bits", [False, True])
def test_output_is_that_of_the_text_alone(exports, name, in_eight_bits):
    model = exports("BertModel" if name == "vector" else NAMES[name])
    # Whatever the weights are, the session is then asked about each text alone.
    model.module.session.is_quantized = in_eight_bits
    program = make_program(name, on_one(model), RUNNING, ("mean", "cls"))
    sequences = draw(40, name)
    together, shapes = run_all(program, sequences)
    assert shapes <= set(program.shapes)
    assert (max(shape.rows for shape in shapes) == 1) == in_eight_bits
    for number in (0, 7, 39):
        [alone], _ = run_all(program, [sequences[number]])
        np.testing.assert_allclose(together[number], alone, atol=1e-5)


def test_batch_has_a_row_for_each_text_of_about_the_length_of_the_first(exports):
    program = make_program("class", on_one(exports(NAMES["class"])), RUNNING)
    lengths = (20, 5, 18, 6, 31)
    sequences = [Asked(TokenSequence(np.full(length, 7), length)) for length in lengths]
    batch = program.choose(sequences)
    most = max(shape.rows for shape in program.shapes if shape.length == 32)
    assert batch.numbers == [0, 2, 4][:most]
    assert batch.places.row.tolist() == [*range(len(batch.numbers))]
    chosen = [sequences[number] for number in batch.numbers]
    assert program.count_places(chosen, batch.shape) == most * max(one.length for one in chosen)


def test_directory_is_read_again(tmp_path):
    model = load(save_tiny(tmp_path, "BertForSequenceClassification"))
    folder = export_quickly(model, tmp_path / "onnx")
    params = dict(model.params)
    params["sequence_head"] = jax.tree.map(lambda value: -value, params["sequence_head"])
    other = export_quickly(model.replace(params=params), tmp_path / "other")
    with running({"tiny": load_exported(folder)}, allow_reload=True) as (address, _):
        before = http.post(f"{address}/predict", json={"inputs": "a b"}).json()
        shutil.copy(other / ONNX_NAME, folder / ONNX_NAME)
        again = http.post(f"{address}/models/tiny/reload", timeout=60)
        assert again.json()["notes"] == [f"{folder / ONNX_NAME}: run by onnxruntime"]
        after = http.post(f"{address}/predict", json={"inputs": "a b"}).json()
        assert [one["label"] for one in after] == [one["label"] for one in before[::-1]]
        (folder / ONNX_NAME).write_bytes(b"broken")
        refused = http.post(f"{address}/models/tiny/reload", timeout=60)
        assert (refused.status_code, "stays as it was" in refused.text) == (424, True)
        assert http.post(f"{address}/predict", json={"inputs": "a b"}).json() == after


def test_log_has_no_sketch_of_a_head_and_that_of_a_body(exports, tmp_path):
    models = {"head": exports(NAMES["class"]), "body": exports("BertModel")}
    log = tmp_path / "requests"
    with running(models, log=str(log), log_sample=1.0) as (address, _):
        for route, name in (("predict", "head"), ("embed", "body")):
            call = {"inputs": "a b c", "model": name}
            assert http.post(f"{address}/{route}", json=call).status_code == 200
        until(lambda: len([*read_log(log)]) == 2)
    lines = {line["model"]: line for line in read_log(log)}
    assert lines["head"]["sketch"] is None
    assert sum(lines["head"]["labels"].values()) == 1
    assert isinstance(lines["body"]["sketch"], str)
    assert lines["head"]["fingerprint"] != lines["body"]["fingerprint"]


def test_sketch_is_the_projection_of_the_mean_hidden_state(exports):
    model = exports("BertModel")
    projection = make_projection(fingerprint_model(model), model.config.hidden_size)
    [asked] = draw(1, "vector")
    program = make_program("vector", on_one(model), RUNNING, ("mean",), projection=projection)
    batch = program.choose([asked])
    [device] = program.params
    rows = program.make([asked], batch.places, batch.shape)
    [taken] = program.take(program.run(rows, device), [asked], batch.places)
    np.testing.assert_allclose(taken.sketch, taken.output @ projection, atol=1e-5)


def test_fingerprint_is_that_of_the_file_that_runs(tmp_path):
    model = load(save_tiny(tmp_path, "BertForTokenClassification"))
    folder = export_quickly(model, tmp_path / "onnx")
    same = fingerprint_model(load_exported(folder))
    assert same == fingerprint_model(load_exported(folder))
    params = jax.tree.map(lambda value: value + 1e-6, dict(model.params))
    changed = export_quickly(model.replace(params=params), tmp_path / "changed")
    assert fingerprint_model(load_exported(changed)) != same


def test_export_that_answers_nothing_is_not_served(bertjax_command, tmp_path):
    model = load(save_tiny(tmp_path, "ElectraForPreTraining"))
    folder = export_quickly(model, tmp_path / "onnx")
    code, _, err = bertjax_command("serve", "--model", folder, "--engine", "onnxruntime", "--check")
    told = "ElectraForPreTraining answers nothing that a server is asked; for its vectors export"
    assert (code, told in err) == (2, True), err
