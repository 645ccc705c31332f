"""Runs that replay other text, and that end when nothing is gained any more."""

import pytest

from bertjax.program.errors import UserError
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from bertjax.training.evaluation import EvaluationConfig
from bertjax.training.pretrain import pretrain
from bertjax.training.pretrain_validation import Patience
from tests.prepared_rows import write_rows
from tests.train.finetune_runs import one_device
from tests.train.pretrain_runs import SPECIAL, WORDS, V, assert_same_run, make_columns

pytestmark = pytest.mark.usefixtures("known_rate")

FIELDS = {
    "model": {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2},
    "intermediate_size": 13,
    "steps": 6,
    "batch_size": 10,
    "log_every": 1,
    "checkpoint.every": 2,
    "learning_rate": 1e-2,
}
EVALUATION = {"every": 3, "batch_size": 8, "at_start": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows of two texts."""
    folder = tmp_path_factory.mktemp("replay")
    Tokenizer(build_wordpiece(SPECIAL + WORDS, True, None)).save(folder / "tokenizer")
    Tokenizer(build_wordpiece([*SPECIAL, *WORDS[1:], "x"], True, None)).save(folder / "other")
    sizes = {"train": 24, "validation": 5, "test": 3}
    for name, shift in (("rows", 0), ("old", 10), ("foreign", 10), ("halved", 10)):
        splits = {
            split: make_columns(rows, shift + seed)
            for seed, (split, rows) in enumerate(sizes.items())
            if (name, split) != ("halved", "test")
        }
        tokenizer = folder / ("other" if name == "foreign" else "tokenizer")
        write_rows(folder / name, splits, V, tokenizer)
    return folder


@pytest.fixture
def run_on(folder, tmp_path):
    def run(name="run", replay=("old", 0.3), evaluation=EVALUATION, **more):
        fields = {**FIELDS, "evaluation": evaluation, "mesh": one_device(), **more}
        given = {"data": folder / replay[0], "share": replay[1]} if replay else {}
        return pretrain(folder / "rows", run=tmp_path / name, replay=given, **fields)

    return run


def splits_of(result):
    return [(line["step"], line["split"]) for line in result.history if line["split"] != "train"]


@pytest.mark.whole
def test_interrupted_run_with_replay_goes_on_to_the_same_bits(run_on, tmp_path):
    def interrupt(line):
        if line.startswith("step 3: replay"):
            raise KeyboardInterrupt

    whole = run_on("whole")
    names = ["test", "replay_test", "validation", "replay_validation"]
    expected = [(0, name) for name in names] + [(3, name) for name in names[2:]]
    assert splits_of(whole) == expected + [(6, name) for name in [*names[2:], *names[:2]]]
    assert set(whole.scores) == {"step", "model", "test", "replay_test"}
    assert run_on("cut", progress=interrupt).stopped == "SIGINT"
    assert run_on("cut").stopped is None
    assert_same_run(tmp_path / "whole", tmp_path / "cut", 6)
    without = run_on("without", ("old", 0.0))
    assert without.history[0]["loss"] == whole.history[0]["loss"]
    assert without.scores["test"] != whole.scores["test"]
    with pytest.raises(UserError, match=r"other settings .*replay_share: 3/10 then, 1/5 now"):
        run_on("cut", ("old", 0.2))
    with pytest.raises(UserError, match=r"settings .*replay: \w+ then, None now; replay_share"):
        run_on("cut", None)


@pytest.mark.whole
def test_run_without_gain_ends_early_and_stays_ended(run_on):
    evaluation = {**EVALUATION, "every": 1, "patience": 2, "min_gain": 5.0}
    told = []
    ended = run_on("ended", None, evaluation, steps=9, progress=told.append)
    reason = "no gain of 5 nats in 2 evaluations (evaluation.patience=2)"
    assert (ended.scores["step"], ended.scores["ended_early"]) == (2, reason)
    assert f"step 2: {reason}: the run ends here" in told
    again = run_on("ended", None, evaluation, steps=9, progress=told.append)
    assert again.scores == ended.scores
    assert "is finished: 2 steps" in told[-1]
    # Who is willing to wait longer goes on from there.
    longer = run_on("ended", None, {**evaluation, "patience": 4}, steps=9)
    assert longer.scores["step"] == 4


@pytest.mark.parametrize(
    ("losses", "min_gain", "patience", "expected"),
    [
        ([3, 2, 2, 2], 0.0, 2, [False, False, False, True]),
        ([3, 2, 1.95, 1.91, 1.85], 0.1, 2, [False, False, False, True, False]),
        ([3, 3, 3, 3], None, 0, [False] * 4),
        ([3, 2.996, 2.994, 2.991], None, 2, [False, False, False, False]),
        ([3, 2.999, 2.996], None, 2, [False, False, True]),
        ([float("nan"), 3, float("nan")], 0.0, 1, [True, False, True]),
    ],
)
def test_gain_is_counted_from_the_last_one(losses, min_gain, patience, expected):
    remembered = {}
    config = EvaluationConfig(patience=patience, min_gain=min_gain)
    ends = []
    for loss in losses:
        Patience(config, remembered).is_best(float(loss))
        ends.append(Patience(config, remembered).reason is not None)
    assert ends == expected


@pytest.mark.parametrize(
    ("replay", "message"),
    [
        (("rows", 0.3), r"replay.data=\S+rows holds the same rows as data="),
        (("foreign", 0.3), r"was made with another tokenizer than .* again with tokenizer \S+"),
        (("halved", 0.0), r"its test split has no rows; prepare it again"),
        (("nowhere", 0.0), r"nowhere: no such directory"),
    ],
)
def test_rows_that_are_no_replay_are_refused(run_on, replay, message):
    with pytest.raises(UserError, match=message):
        run_on("run", replay)


def test_gain_without_patience_is_refused(run_on):
    with pytest.raises(UserError, match=r"min_gain=0.1 has no effect without evaluation.patience"):
        run_on("run", None, {"min_gain": 0.1})
