"""`train.sweep`: the study that several processes share, and its lock."""

import subprocess

import pytest

from bertjax.program.errors import UserError
from bertjax.sweeps.space import read_space, sample
from bertjax.sweeps.study import Lock, Study, make_pruner
from bertjax.training.finetune_config import FinetuneConfig


def open_study(directory, **identity):
    return Study(directory, "journal", "maximize", make_pruner("none", 3), identity)


def claim(study, limit=3):
    return study.claim(read_space(SPACE_OF_FINETUNE, FinetuneConfig), "random", 0, limit)


SPACE_OF_FINETUNE = {"batch_size": {"low": 1, "high": 10**6}}


def test_claims_never_overshoot_and_never_share_a_trial(tmp_path):
    one, other = open_study(tmp_path), open_study(tmp_path)
    claims = [claim(study) for study in (one, other, one, other)]
    assert [had and had.trial.number for had in claims] == [0, 1, 2, None]
    claims[1].owner.release()  # as the system does when its process dies
    again = claim(one)
    assert (again.trial.number, again.values) == (1, claims[1].values)
    assert again.continued
    assert claim(other) is None


def test_trial_left_half_entered_gets_the_values_it_was_given(tmp_path):
    whole = open_study(tmp_path)
    expected = [claim(whole).values, claim(whole).values]
    (tmp_path / "killed").mkdir()
    killed = open_study(tmp_path / "killed")
    space = read_space(SPACE_OF_FINETUNE, FinetuneConfig)
    for number in range(2):
        values = sample(space, "random", 0, killed.trials(), "maximize", 3)
        killed.optuna.enqueue_trial(values)
        if number == 0:
            killed.optuna.ask()  # it runs, and no value is noted yet
    assert [claim(killed).values, claim(killed).values] == expected
    assert [trial.params for trial in killed.trials()] == expected


def test_torn_last_line_of_the_journal_is_cut(tmp_path):
    study = open_study(tmp_path)
    claim(study).owner.release()
    with (tmp_path / "study.journal").open("a") as journal:
        journal.write('{"op_code":4,"work')
    again = open_study(tmp_path)
    assert claim(again).trial.number == 0
    assert [trial.number for trial in open_study(tmp_path).trials()] == [0]


def test_sweep_with_other_settings_is_refused(tmp_path):
    open_study(tmp_path, seed=0)
    with pytest.raises(UserError, match=r"begun with other settings \(seed: 0 then, 1 now\)"):
        open_study(tmp_path, seed=1)
    with pytest.raises(UserError, match=r"its study is in study\.journal; give --storage journal"):
        Study(tmp_path, "sqlite", "maximize", make_pruner("none", 3), {})


def test_lock_is_held_until_its_last_holder_is_gone(tmp_path):
    lock = Lock(tmp_path / "lock")
    assert lock.take()
    child = subprocess.Popen(["sleep", "60"], pass_fds=[lock.descriptor])
    lock.release()
    other = Lock(tmp_path / "lock")
    assert not other.take()
    child.kill()
    child.wait()
    assert other.take()
