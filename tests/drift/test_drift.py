"""`bertjax drift` on logs: what has moved, what has not, and what cannot be told."""

import asyncio
import errno
import json
import os
import time

import numpy as np
import pytest
from scipy import stats

from bertjax.drift.comparison import compare, least_requests
from bertjax.drift.samples import collect
from bertjax.drift.settings import MOST_REQUESTS
from bertjax.loaded import load
from bertjax.program.errors import UserError
from bertjax.serving.sampling import fingerprint_model
from tests.drift.logged import make_lines, write_log
from tests.serving.served_models import save_tiny


def sample(lines, **options):
    return collect(lines, "some/log", **options)


@pytest.fixture
def drift(bertjax_command):
    """Runs the command on two logs; the exit code, and what it prints as JSON."""

    def run(reference, log, *words):
        line = ["drift", "--reference", reference, "--log", log, "--json", *words]
        code, out, err = bertjax_command(*line)
        return code, json.loads(out) if out else None, err

    return run


def test_nothing_moved_between_requests_of_one_kind(tmp_path, drift):
    earlier = write_log(tmp_path / "earlier", make_lines(200), make_lines(150, 1))
    later = write_log(tmp_path / "later", make_lines(300, 2, first=9000))
    code, told, err = drift(earlier, later)
    assert (code, told["moved"], err) == (0, [], "")
    assert told["reference"]["requests"] == 350
    assert told["log"]["first"] == "2026-11-07T06:00:00+00:00"
    names = [test["name"] for test in told["tests"]]
    assert names == [
        "tokens", "characters", "unknown", "pieces", "digits", "capitals", "punctuation",
        "beyond_ascii", "confidence", "embeddings", "labels",
    ]  # fmt: skip
    assert all(test["p_value"] > 0.05 for test in told["tests"])


def test_what_has_moved_is_named_with_how_far(tmp_path, drift):
    earlier, lines = make_lines(300), make_lines(300, 2, shift=1.0)
    code, told, _ = drift(
        write_log(tmp_path / "earlier", earlier), write_log(tmp_path / "later", lines)
    )
    assert code == 1
    assert told["moved"] == ["tokens", "embeddings", "labels"]
    tests = {test["name"]: test for test in told["tests"]}
    before, after = ([line["tokens"] for line in part] for part in (earlier, lines))
    assert tests["tokens"]["before"] == pytest.approx(np.mean(before))
    assert tests["tokens"]["after"] == pytest.approx(np.mean(after))
    assert tests["tokens"]["effect"] == pytest.approx(stats.ks_2samp(before, after).statistic)
    spam = [np.mean(["spam" in line["labels"] for line in part]) for part in (earlier, lines)]
    assert tests["labels"]["before"] == pytest.approx({"ham": 1 - spam[0], "spam": spam[0]})
    assert tests["labels"]["effect"] == pytest.approx(spam[1] - spam[0])
    assert 0.05 < tests["embeddings"]["effect"] < 0.5
    assert tests["digits"]["p_value"] > 0.05


def test_table_names_what_has_moved(tmp_path, bertjax_command):
    earlier = write_log(tmp_path / "earlier", make_lines(300))
    later = write_log(tmp_path / "later", make_lines(300, 2, shift=1.0))
    code, out, _ = bertjax_command("drift", "--reference", earlier, "--log", later)
    assert code == 1
    assert out.splitlines()[-1] == "moved: tokens, embeddings, labels"
    assert "would be seen 4 times in 5" in " ".join(out.split())
    code, out, _ = bertjax_command("drift", "--reference", earlier, "--log", earlier)
    assert (code, "is --log, too" in out) == (2, False)


def test_one_log_is_compared_with_what_it_had_before(tmp_path, drift):
    parts = make_lines(150), make_lines(150, 1, first=2880, shift=1.0)
    log = write_log(tmp_path / "log", *parts)
    code, _, err = drift(log, log)
    assert (code, "what was logged before --since; pass it" in err) == (2, True)
    code, told, _ = drift(log, log, "--since", "2026-11-02")
    assert (code, told["reference"]["requests"], told["log"]["requests"]) == (1, 150, 150)
    words = ["--since", "2026-11-01T02:15+01:00", "--until", "2026-11-01T02:00"]
    code, _, err = drift(log, log, *words)
    assert (code, "before --since: 75 requests, " in err, "log: 45 requests, " in err) == (
        2, True, True,
    )  # fmt: skip
    code, _, err = drift(log, log, "--since", "2030-01-01")
    assert (code, "none of its 300 requests is of the time" in err) == (2, True)


def test_too_few_requests_are_refused_with_how_many_are_needed(tmp_path, drift):
    earlier = write_log(tmp_path / "earlier", make_lines(1000))
    few = write_log(tmp_path / "few", make_lines(20, 1))
    code, told, err = drift(earlier, few)
    assert (code, told) == (2, None)
    needed = int(err.split(f"{few} needs ")[1].split(",")[0])
    more = write_log(tmp_path / "more", make_lines(needed, 1))
    assert drift(earlier, more)[0] == 0
    fewer = write_log(tmp_path / "fewer", make_lines(needed - 1, 1))
    assert drift(earlier, fewer)[0] == 2
    assert drift(few, earlier)[2].count(f"{few} needs {needed},") == 1
    other = write_log(tmp_path / "other", make_lines(30, 2))
    assert "both need 109," in drift(few, other)[2]


def test_no_more_requests_are_said_to_be_needed_than_are_compared():
    """Beside 55 requests some 4,000 others would be enough, of which 2,000 are drawn."""
    for first, second, told in (
        (55, 30, "both need 109,"),
        (30, 55, "both need 109,"),
        (55, MOST_REQUESTS, "some/log needs 56,"),
    ):
        with pytest.raises(UserError, match=told):
            compare(sample(make_lines(first)), sample(make_lines(second, 1)))
    compare(sample(make_lines(56)), sample(make_lines(MOST_REQUESTS, 1)))


def test_as_many_as_are_needed_see_the_shift_that_is_promised():
    """A two-sided test of means at the adjusted level, by scipy's normal distribution."""
    tests, level = 11, 0.05
    both = 2 * least_requests(tests, level)
    error = np.sqrt(2 / both)
    quantile = stats.norm.isf(level / (2 * tests))
    assert stats.norm.sf(quantile - 0.5 / error) == pytest.approx(0.8)


def test_models_are_not_mixed():
    one, other = make_lines(150), make_lines(150, 1, fingerprint="00bb", first=200)
    with pytest.raises(UserError, match=r"different models have answered as sms \(00aa from 2026"):
        sample(one + other)
    with pytest.raises(UserError, match="fingerprints 00aa and 00bb"):
        compare(sample(one), sample(other))
    vectors = make_lines(150, 2, model="vectors")
    with pytest.raises(UserError, match="requests to 2 models, sms, vectors; pass one of them as"):
        sample(one + vectors)
    with pytest.raises(UserError, match="no requests to the model 'x'; it has sms"):
        sample(one, name="x")
    assert sample(one + vectors, name="vectors").requests == 150
    assert sample(vectors, name="sms", must_have_name=False).model == "vectors"


def test_what_a_model_answered_before_another_took_its_place_is_left_out_and_said(tmp_path, drift):
    before = make_lines(200, 3, fingerprint="00bb", shift=1.0)
    since = make_lines(150, first=1440), make_lines(150, 1, first=2880)
    log = write_log(tmp_path / "log", before, *since)
    code, told, _ = drift(log, log, "--since", "2026-11-03")
    assert (code, told["reference"]["fingerprint"]) == (0, "00aa")
    assert told["reference"]["requests"] == 150
    assert "before --since: 200 requests that other models answered as sms left" in told["notes"][0]
    code, _, err = drift(log, log, "--since", "2026-11-02")
    assert (code, "log before --since and " in err, "fingerprints 00bb and 00aa" in err) == (
        2, True, True,
    )  # fmt: skip


def test_too_few_permutations_are_refused():
    lines = sample(make_lines(150))
    with pytest.raises(
        UserError, match=r"alone has moved may have no p-value as low as --alpha 0.05; .* 220"
    ):
        compare(lines, lines, permutations=99)


def test_what_one_sample_has_not_is_left_out_and_said():
    earlier = sample(make_lines(150, labels=None, confidence=None))
    drift = compare(earlier, sample(make_lines(150, 1)))
    assert {"labels", "confidence"}.isdisjoint(shift.name for shift in drift.shifts)
    assert any("labels: not compared, since 0 requests before" in one for one in drift.notes)


def test_of_many_requests_some_are_drawn_from_all(monkeypatch):
    lines = make_lines(3 * MOST_REQUESTS)
    one = sample(lines)
    assert (one.requests, len(one.lines)) == (3 * MOST_REQUESTS, MOST_REQUESTS)
    places = [(line["time"] - lines[0]["time"]) / 60 / len(lines) for line in one.lines]
    assert stats.kstest(places, "uniform").pvalue > 1e-3
    assert sample(lines, seed=1).lines != one.lines == sample(lines).lines


def test_mistakes_are_told_in_a_paragraph(tmp_path, bertjax_command):
    log = write_log(tmp_path / "log", make_lines(150))
    other = tmp_path / "texts.txt"
    other.write_text("a b\n")
    for words, told in (
        (["--reference", log, "--log", tmp_path], "no log; `bertjax serve --log"),
        (["--reference", other, "--log", log], "with files --model DIR has to name the model"),
        (
            ["--reference", log, "--log", log, "--since", "2026-11-01T01", "--delimiter", ";"],
            "--delimiter is for files as --reference",
        ),
        (
            ["--reference", log, "--log", log, "--since", "yesterday"],
            "--since yesterday: not a time",
        ),
    ):
        code, out, err = bertjax_command("drift", *words)
        assert (code, out, told in err) == (2, "", True), err
    code, _, err = bertjax_command("drift", "--reference", log, "--log", tmp_path / "nowhere")
    assert (code, "no log; `bertjax serve --log" in err) == (2, True), err
    [file] = log.glob("*.jsonl")
    whole = file.read_text()
    file.write_text(whole + '{"time": 1}\n')
    code, _, err = bertjax_command("drift", "--reference", log, "--log", log)
    assert (code, "jsonl:151: no field id" in err) == (2, True)
    file.write_text(whole + '{"time": 1')  # what a power cut leaves
    code, _, _ = bertjax_command(
        "drift", "--reference", write_log(tmp_path / "b", make_lines(200, 5)), "--log", log
    )
    assert code == 0


def test_folder_that_may_not_be_read_is_not_said_to_be_no_log(tmp_path, monkeypatch, drift):
    log = write_log(tmp_path / "log", make_lines(150))

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    code, _, err = drift(log, log)
    assert (code, f"{log}: Permission denied" in err) == (2, True), err


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("pairs.txt", "a b\tthe dog\n", None),
        ("pairs.csv", "a b,the dog\n", None),
        ("texts.txt", "a b\n", "has 1 text, and a BertForNextSentencePrediction takes a pair"),
    ],
)
def test_pairs_of_files_are_asked_of_a_model_of_next_sentences(name, text, told, tmp_path, drift):
    folder = save_tiny(tmp_path / "model", "BertForNextSentencePrediction")
    fingerprint = fingerprint_model(load(folder))
    log = write_log(tmp_path / "log", make_lines(150, fingerprint=fingerprint))
    (tmp_path / name).write_text(text * 150)
    words = ["--columns", "text_a", "text_b"] if name.endswith(".csv") else []
    code, drifted, err = drift(tmp_path / name, log, "--model", folder, *words)
    if told:
        assert (code, told in err) == (2, True), err
    else:
        assert code == 1, err
        assert drifted["reference"]["compared"] == 150
        assert [test["before"] for test in drifted["tests"] if test["name"] == "characters"] == [10]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return load(save_tiny(tmp_path_factory.mktemp("model"), "BertForSequenceClassification"))


@pytest.mark.whole
def test_method_compares_lists_of_texts_as_the_command_does_requests(classifier, tmp_path, drift):
    """In a notebook, too, whose thread has a loop of events already."""
    model, folder = classifier, classifier.directory
    random = np.random.default_rng(0)
    made = [" ".join(random.choice(["dog", "cat", "a", "b"], 5)) for _ in range(360)]
    before, same, longer = made[:120], made[120:240], [f"{text} the dog" for text in made[240:]]
    assert model.drift(before, same).moved == []

    async def cell():
        return model.drift(before, longer)

    moved = asyncio.run(cell())
    assert "tokens" in moved.moved
    told = f"reference: 120 requests; texts: 120 requests; moved: {', '.join(moved.moved)}"
    assert repr(moved) == f"Drift({told})"
    assert "<td>tokens</td><td>7</td><td>9</td><td>1.000</td>" in moved._repr_html_()

    lines = [
        {**line, **own, "fingerprint": moved.log.fingerprint}
        for line, own in zip(make_lines(120), moved.log.lines, strict=True)
    ]
    (tmp_path / "before.txt").write_text("\n".join(before))
    log = write_log(tmp_path / "log", lines)
    _, told, err = drift(tmp_path / "before.txt", log, "--model", folder)
    assert [one["name"] for one in told["tests"]] == [one.name for one in moved.shifts], err
    for theirs, ours in zip(told["tests"], moved.shifts, strict=True):
        assert theirs["effect"] == pytest.approx(ours.effect, abs=1e-6)
        assert theirs["p_value"] == pytest.approx(ours.p_value, abs=0.1)


@pytest.mark.parametrize(
    ("texts", "more", "told"),
    [
        (["a b"] * 20, {}, r"reference: 150 requests; texts: 20 .* needs 85,.*\. Give more texts$"),
        # Before any text is asked, as one here would be refused.
        ([("a", "b", "a")], {"alpha": 0.0}, r"^alpha 0\.0 must be above 0 and below 1$"),
        (["a b"] * 150, {"permutations": 99}, "^permutations 99: with "),
        ([("a", "b", "a")] * 150, {}, "^text 1: has 3 texts, and a BertForSequenceClassif"),
        ([("a", "b"), ()], {}, "^text 2: is empty"),
        ([{"text": "a"}], {}, r"^text 1: .*give the text alone, for instance row\['text'\]"),
        ({"text": ["a"]}, {}, "dict is not a list of texts"),
        ([], {}, "^texts: has no texts"),
    ],
)
def test_lists_that_cannot_be_compared_are_refused(texts, more, told, classifier):
    with pytest.raises(UserError, match=told):
        classifier.drift(["the dog", "a cat", "b"] * 50, texts, **more)


def test_what_few_requests_have_is_left_out():
    lines = make_lines(20) + make_lines(130, 2, first=20, labels=None)
    drift = compare(sample(lines), sample(make_lines(150, 1)))
    assert "labels" not in [shift.name for shift in drift.shifts]
    assert any("since 20 requests before and 150 after have any" in one for one in drift.notes)


def test_time_without_an_offset_is_in_utc_on_every_machine(tmp_path, drift, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        log = write_log(tmp_path / "log", make_lines(300))
        code, told, _ = drift(log, log, "--since", "2026-11-01T02:30")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (code, told["reference"]["requests"]) == (0, 150)
