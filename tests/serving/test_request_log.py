"""The log of requests: what a line has and has not, whole lines within a bound, and drops."""

import os
import stat
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.drift.reference import ask_model
from bertjax.loaded import load
from bertjax.program.errors import UserError
from bertjax.serving import request_log
from bertjax.serving.observation import describe_answer, describe_characters, describe_tokens
from bertjax.serving.programs import Asked, make_program
from bertjax.serving.request_log import FIELDS, RequestLog, read_log
from bertjax.serving.sampling import (
    Observed,
    SampledCall,
    fingerprint_model,
    make_projection,
    sample_call,
)
from bertjax.text.framing import TokenSequence
from tests.serving.running import count, http, running, until
from tests.serving.served_models import save_tiny, tiny_model
from tests.serving.test_programs import RUNNING, draw, on_one, run_all

TEXTS = ["a b c", "The dog 7 sat!", "a", "b c d e f", "so ca\u00f1a", "a dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("logged"), "BertForSequenceClassification")


@pytest.fixture(scope="module")
def logged(folder, tmp_path_factory):
    """The address of a server that logs every request, and its log's folder."""
    log = tmp_path_factory.mktemp("log") / "requests"
    with running({"tiny": load(folder)}, log=str(log), log_sample=1.0) as (address, _):
        yield address, log


def post(address, call, id, route="predict"):
    answer = http.post(f"{address}/{route}", json=call, headers={"x-request-id": id})
    assert answer.status_code == 200
    return answer.json()


def line_of(log, id):
    def find():
        return [line for line in read_log(log) if line["id"] == id]

    until(find)
    [line] = find()
    return line


# -------------------------------------------------------------------- what a line has


def test_line_has_the_answer_and_no_text(logged):
    address, log = logged
    best = post(address, {"inputs": "The dog 7 sat!"}, "one")[0]
    line = line_of(log, "one")
    assert [*line][: len(FIELDS)] == [*FIELDS]
    assert (line["route"], line["model"], line["program"]) == ("/predict", "tiny", "class")
    assert line["labels"] == {best["label"]: 1}
    assert line["confidence"] == pytest.approx(best["score"], abs=1e-5)
    assert (line["characters"], line["digits"]) == (14, round(1 / 14, 6))
    for file in log.iterdir():
        assert b"dog" not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.stat().st_mode) == 0o700


def test_answer_is_logged_as_the_model_gives_it_whatever_the_call_asks_for(logged):
    address, log = logged
    post(address, {"inputs": "a dog", "raw_scores": True}, "raw")
    post(address, {"inputs": "a dog"}, "probable")
    first, second = line_of(log, "raw"), line_of(log, "probable")
    assert (first["confidence"], first["labels"]) == (second["confidence"], second["labels"])
    assert first["text_hash"] == second["text_hash"] != line_of(log, "one")["text_hash"]


def test_one_text_of_a_call_is_logged_the_same_one_for_the_same_id(logged):
    address, log = logged
    lengths = set()
    for number in range(12):
        post(address, {"inputs": [[text] for text in TEXTS]}, f"many-{number}")
        line = line_of(log, f"many-{number}")
        assert line["texts"] == len(TEXTS)
        lengths.add(line["characters"])
    assert len(lengths) > 2
    drawn = [SampledCall("many-3") for _ in range(2)]
    for call in drawn:
        call.observe(None, "class", TEXTS, TEXTS, TEXTS)
    assert drawn[0].observed.asked == drawn[1].observed.asked
    assert len(drawn[0].observed.asked) == line_of(log, "many-3")["characters"]


def test_what_is_no_answer_is_not_logged(logged):
    address, log = logged
    post(address, {"inputs": "a b"}, "tokens", "tokenize")
    headers = {"x-request-id": "refused"}
    assert http.post(f"{address}/predict", json={}, headers=headers).status_code == 422
    assert http.get(f"{address}/health", headers={"x-request-id": "health"}).status_code == 200
    post(address, {"inputs": "a b"}, "last")
    line_of(log, "last")
    assert {"tokens", "refused", "health"}.isdisjoint(line["id"] for line in read_log(log))


def test_metrics_count_lines_and_their_means(logged):
    address, log = logged
    post(address, {"inputs": "a b c"}, "counted")
    line_of(log, "counted")
    lines = list(read_log(log))
    until(lambda: count(address, "bertjax_log_lines_total") == len(lines))
    assert count(address, "bertjax_log_dropped_total") == 0
    for field, name in (
        ("tokens", "input_tokens"), ("unknown", "unknown_words"), ("confidence", "confidence"),
    ):  # fmt: skip
        mean = np.mean([line[field] for line in lines if line[field] is not None])
        assert count(address, f"bertjax_logged_{name}", model="tiny") == pytest.approx(mean)
    for label in ("sad", "so so", "happy"):
        own = sum(line["labels"] == {label: 1} for line in lines)
        found = count(address, "bertjax_logged_answers_total", label=label, model="tiny")
        assert found == own


def test_file_is_described_as_the_server_describes_its_texts(logged, folder):
    address, log = logged
    for number, text in enumerate(TEXTS):
        post(address, {"inputs": text}, f"texts:{number}")
    lines = {line["id"]: line for line in read_log(log)}
    requests = [(f"texts:{number}", (text,)) for number, text in enumerate(TEXTS)]
    [sample] = ask_model(load(folder), {"texts": requests}, name="tiny", max_length=32)
    line_of(log, f"texts:{len(TEXTS) - 1}")
    lines = {line["text_hash"]: line for line in read_log(log) if line["id"].startswith("texts:")}
    assert sample.fingerprint == next(iter(lines.values()))["fingerprint"]
    own = {(line["characters"], line["tokens"]): line for line in sample.lines}
    assert len(own) == len(TEXTS) == len(lines)
    for line in lines.values():
        its = own[line["characters"], line["tokens"]]
        assert its["labels"] == line["labels"]
        assert its["confidence"] == pytest.approx(line["confidence"], abs=1e-5)
        for field in ("unknown", "pieces", "digits", "capitals", "punctuation", "beyond_ascii"):
            assert its[field] == line[field]


# -------------------------------------------------------------------- how it is described


def test_tokens_are_counted_by_words():
    tokenizer = tiny_model("BertModel").tokenizer
    [ids] = tokenizer.encode_batch(["ab c %"])  # a ##b c [UNK]
    framed = np.array([*tokenizer.frame.before, *ids, *tokenizer.frame.after])
    told = describe_tokens(tokenizer, framed)
    assert told == {"tokens": 6, "unknown": round(1 / 3, 6), "pieces": round(4 / 3, 6)}
    empty = np.array([*tokenizer.frame.before, *tokenizer.frame.after])
    assert describe_tokens(tokenizer, empty) == {"tokens": 2, "unknown": None, "pieces": None}


def test_characters_are_counted_by_kind():
    told = describe_characters(("Ab1\u0662", "\u00e9!$ "))  # an Arabic two is a digit, too
    assert told == {
        "characters": 8, "digits": 0.25, "capitals": 0.125, "punctuation": 0.25,
        "beyond_ascii": 0.25,
    }  # fmt: skip
    assert set(describe_characters(None).values()) == {None}


def config(labels=("a", "b"), **fields):
    return BertConfig(vocab_size=9, id2label=labels, **fields)


LOG_OF = {chance: np.log(chance / (1 - chance)) for chance in (0.9, 0.25)}


@pytest.mark.parametrize(
    ("program", "config", "output", "expected"),
    [
        ("class", config(("a", "b")), np.log([0.2, 0.8]), ({"b": 1}, 0.8, None)),
        (
            "class",
            config(("a", "b"), problem_type="multi_label_classification"),
            np.array([LOG_OF[0.9], LOG_OF[0.25]]),
            ({"a": 1}, (0.9 + 0.75) / 2, None),
        ),
        ("class", config(("n",), problem_type="regression"), np.array([2.5]), (None, None, 2.5)),
        ("class", config(("r",)), np.array([LOG_OF[0.9]]), (None, None, 0.9)),
        (
            "class", config(("a", "b"), problem_type="regression"), np.array([2.5, 1]),
            (None, None, None),
        ),
        (
            "tag",
            config(("O", "X")),
            np.log([[0.5, 0.5], [0.1, 0.9], [0.7, 0.3], [0.6, 0.4], [0.5, 0.5]]),
            ({"O": round(2 / 3, 6), "X": round(1 / 3, 6)}, (0.9 + 0.7 + 0.6) / 3, None),
        ),
        ("span", config(), np.log([[0.25, 0.1], [0.75, 0.9]]), (None, 0.75 * 0.9, None)),
        ("next-sentence", config(), np.log([0.3, 0.7]), ({"does not follow": 1}, 0.7, None)),
        ("token", config(), np.array([0.5, 0.7]), (None, 0.6, None)),
        ("choice", config(), np.array([0.6]), (None, 0.6, None)),
        ("vector", config(), None, (None, None, None)),
    ],
)  # fmt: skip
def test_answer_of_every_head(program, config, output, expected):
    told = describe_answer(program, output, config)
    labels, confidence, number = expected
    assert told["labels"] == labels
    assert told["confidence"] == (confidence and pytest.approx(confidence, abs=1e-5))
    assert told["number"] == (number and pytest.approx(number, abs=1e-5))


@pytest.mark.parametrize("name", ["class", "tag", "vector"])
def test_sketch_is_the_projection_of_the_mean_hidden_state(name):
    architectures = {
        "class": "BertForSequenceClassification", "tag": "BertForTokenClassification",
        "vector": "BertForPreTraining",
    }  # fmt: skip
    model = tiny_model(architectures[name])
    projection = make_projection(fingerprint_model(model), model.config.hidden_size)
    sequences = draw(9, name)
    plain, _ = run_all(make_program(name, on_one(model), RUNNING, ("mean",)), sequences)
    body = make_program("vector", on_one(model), RUNNING, ("mean",))
    means, _ = run_all(body, sequences)
    program = make_program(name, on_one(model), RUNNING, ("mean",), projection=projection)
    places = program.choose(sequences)
    chosen = [sequences[number] for number in places.numbers]
    rows = program.make(chosen, places.places, places.shape)
    [device] = program.params
    taken = program.take(program.run(rows, device), chosen, places.places)
    for number, own in zip(places.numbers, taken, strict=True):
        np.testing.assert_allclose(own.output, plain[number], atol=1e-5)
        np.testing.assert_allclose(own.sketch, means[number] @ projection, atol=1e-5)


def test_fingerprint_tells_models_apart():
    model = tiny_model("BertForSequenceClassification")
    same = fingerprint_model(model)
    assert same == fingerprint_model(model)
    head = dict(model.params)
    key = next(iter(head["sequence_head"]))
    leaf = head["sequence_head"][key]
    changed = {name: np.asarray(value) + 1e-6 for name, value in leaf.items()}
    head["sequence_head"] = {**head["sequence_head"], key: changed}
    assert fingerprint_model(model.replace(params=head)) != same
    assert fingerprint_model(tiny_model("BertForTokenClassification")) != same


# -------------------------------------------------------------------- which, and where


def test_share_of_calls_is_chosen_by_their_ids():
    chosen = [id for id in map(str, range(20_000)) if sample_call(id, 0.1)]
    assert 1850 < len(chosen) < 2150
    assert chosen == [id for id in map(str, range(20_000)) if sample_call(id, 0.1)]
    assert {*chosen} < {id for id in map(str, range(20_000)) if sample_call(id, 0.2)}
    assert all(sample_call(id, 1.0) for id in ("", "x", "\ud800"))


def make_call(id, text="a dog"):
    """A call of a model that is none."""
    model = tiny_model("BertForSequenceClassification")
    served = SimpleNamespace(
        name="tiny", fingerprint="00", tokenizer=model.tokenizer, max_length=32, model=model
    )
    asked = Asked(TokenSequence(np.array([2, 11, 12, 3], np.int32), 4), text=(text,))
    call = SampledCall(id)
    call.observed = Observed(served, "class", 1, asked, np.zeros(3), np.zeros(32, np.float32))
    return call


def fill(log, ids, text="a dog"):
    told = []
    log.start(told.append)
    for id in ids:
        log.put(make_call(id, text), "/predict")
        until(lambda: log._queue.empty())
    log.close()
    return told


def test_oldest_lines_make_room_within_the_bound(tmp_path):
    folder = tmp_path / "log"
    bound = 16_000
    for start in (0, 40):  # a server that is started again
        log = RequestLog(folder, 1.0, max_bytes=bound)
        told = fill(log, map(str, range(start, start + 40)))
        assert None not in told
        sizes = [file.stat().st_size for file in folder.glob("*.jsonl")]
        assert 0.6 * bound < sum(sizes) <= bound
        assert max(sizes) <= bound / 8
    kept = [int(line["id"]) for line in read_log(folder)]
    assert kept == [*range(80 - len(kept), 80)]
    assert len(kept) > 10


def test_texts_are_there_where_they_are_asked_for(tmp_path):
    fill(RequestLog(tmp_path / "with", 1.0, texts=True, max_bytes=80_000), "1", "the dog")
    [line] = read_log(tmp_path / "with")
    assert line["text"] == ["the dog"]
    fill(RequestLog(tmp_path / "other", 1.0, max_bytes=80_000), "1", "the dog")
    [other] = read_log(tmp_path / "other")
    assert "text" not in other
    assert line["text_hash"] != other["text_hash"], "every folder has its own salt"


def test_line_that_cannot_be_written_is_dropped_whole(tmp_path, monkeypatch, caplog):
    log, told, write = RequestLog(tmp_path / "log", 1.0, max_bytes=80_000), [], os.write

    def write_half(file, line):
        return write(file, line[: len(line) // 2])

    log.start(told.append)
    log.put(make_call("1"), "/predict")
    until(lambda: len(told) == 1)
    monkeypatch.setattr(request_log.os, "write", write_half)
    log.put(make_call("2"), "/predict")
    log.put(make_call("3"), "/predict")
    until(lambda: len(told) == 3)
    monkeypatch.undo()
    log.put(make_call("4"), "/predict")
    log.close()
    assert [line and line["id"] for line in told] == ["1", None, None, "4"]
    assert [line["id"] for line in read_log(tmp_path / "log")] == ["1", "4"]
    assert caplog.text.count("the disk is full") == 1


def test_call_never_waits_for_the_log(tmp_path, monkeypatch):
    log, told, gate = RequestLog(tmp_path / "log", 1.0, max_bytes=80_000), [], threading.Event()
    make_line = RequestLog._make_line

    def wait(self, waiting):
        assert gate.wait(30)
        return make_line(self, waiting)

    monkeypatch.setattr(RequestLog, "_make_line", wait)
    log.start(told.append)
    calls = request_log.MOST_WAITING + 20
    for number in range(calls):
        log.put(make_call(str(number)), "/predict")
    dropped = len(told)
    assert set(told) == {None}
    assert 19 <= dropped <= 20
    gate.set()
    log.close()
    assert len(told) == calls
    assert sum(line is not None for line in told) == calls - dropped


def test_folder_that_others_read_or_write_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(UserError, match=r"open: others may read it \(its mode is 0755\); `chmod"):
        RequestLog(tmp_path / "open", 1.0, max_bytes=80_000)
    log = RequestLog(tmp_path / "log", 1.0, max_bytes=80_000)
    with pytest.raises(UserError, match="log: another server writes to it; name another folder"):
        RequestLog(tmp_path / "log", 1.0, max_bytes=80_000)
    log.close()
    RequestLog(tmp_path / "log", 1.0, max_bytes=80_000).close()
    assert list((tmp_path / "log").glob("*.jsonl")) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--log .*file: "):
        RequestLog(tmp_path / "file", 1.0, max_bytes=80_000)


@pytest.mark.parametrize("words", [["--log-sample", "0.5"], ["--log-texts"]])
def test_options_of_the_log_need_a_log(bertjax_command, words):
    code, _, err = bertjax_command("serve", "--model", "nowhere", *words)
    assert (code, f"{words[0]} has no effect without --log DIR" in err) == (2, True)
