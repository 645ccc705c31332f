"""One step: a true mean over the batch, whatever its parts; and nothing from what is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.objectives.losses import Total
from bertjax.objectives.masking import EVALUATION_SEED, MaskingConfig, mask_tokens
from bertjax.objectives.pretraining import make_eval_step
from bertjax.training.batches import evaluation_batches
from bertjax.training.sharding import MeshConfig, make_mesh, place_rows, shardings_of
from bertjax.training.state import TrainState, empty_window
from bertjax.training.steps import lower_step, make_train_step

RATE_1 = jnp.float32(10)  # the clock at which the steps of these tests have a rate of 1


def cross_entropies(logits, labels):
    """-log softmax(logits)[label] in float64, flat."""
    logits = np.asarray(logits, np.float64).reshape(-1, logits.shape[-1])
    labels = np.asarray(labels).ravel()
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -log_probs[np.arange(len(labels)), labels]


def change_of(state, start):
    return jax.tree.map(lambda new, old: np.asarray(new - old), state.params, start.params)


def assert_trees_close(actual, expected, tolerance):
    """Within a share of each leaf's largest value, and ten ulps of the parameters of about 1."""
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        bound = tolerance * float(np.abs(other).max()) + 1e-6
        np.testing.assert_allclose(one, other, rtol=0, atol=bound, err_msg=str(path))


@pytest.fixture(scope="module")
def taken(step, start, rows):
    """The state after one step at rate 1, and its report."""
    return step(start, rows, RATE_1)


# ------------------------------------------------------------------ the loss


def test_loss_is_the_mean_over_all_masked_tokens_plus_that_over_all_examples(
    taken, even_model, even_params, rows, half, vocabulary, seed
):
    mask_key, dropout_key = jax.random.split(jax.random.key(seed))
    masked = mask_tokens(mask_key, jax.tree.map(jnp.asarray, rows), half, vocabulary)
    output = jax.jit(
        lambda params: even_model.apply(
            {"params": params},
            masked.token_ids,
            *map(jnp.asarray, rows[1:5]),
            masked_positions=masked.positions,
            row_ids=jnp.arange(4),
            dropout=True,
            rngs={"dropout": jax.random.fold_in(dropout_key, 0)},
        )
    )(even_params)
    used = np.asarray(masked.weights).ravel() > 0
    assert used.reshape(4, -1).sum(1).tolist() == [2, 2, 2, 1]
    mlm = cross_entropies(output.mlm_logits, masked.labels)[used].mean()
    labels = rows.next_sentence_labels
    nsp = cross_entropies(output.nsp_logits, labels.clip(0))[labels.ravel() >= 0].mean()
    _, report = taken
    assert float(report.loss) == pytest.approx(mlm + nsp, rel=1e-5)


def test_step_is_a_function_of_its_arguments(step, start, rows, taken):
    again, report = step(start, rows, RATE_1)
    assert report == taken[1]
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(taken[0]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_dropout_changes_with_the_step(step, start, rows, taken):
    later = start._replace(step=jnp.int32(1))
    assert abs(float(step(later, rows, RATE_1)[1].loss) - float(taken[1].loss)) > 1e-4


def test_step_goes_against_the_gradient_at_the_rate_of_the_clock(step, start, rows, taken):
    state, report = taken
    assert float(report.learning_rate) == 1
    norm = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(change_of(state, start))))
    assert float(report.gradient_norm) == pytest.approx(norm, rel=1e-4)
    half, slower = step(start, rows, RATE_1 / 2)
    assert float(slower.learning_rate) == 0.5
    halved = jax.tree.map(lambda x: x / 2, change_of(state, start))
    assert_trees_close(change_of(half, start), halved, 1e-4)
    assert float(step(half, rows, RATE_1)[1].loss) < float(report.loss)


@pytest.fixture(scope="module")
def clipping_step(make_step):
    """In two parts, clipped to a norm of 0.25."""
    return make_step(microbatches=2, clip_norm=0.25)


def test_parts_of_a_batch_add_up_to_the_whole(clipping_step, start, rows, taken):
    """Loss, totals and gradients; the parts have unlike numbers of masked tokens and examples."""
    whole, report = taken
    state, of_parts = clipping_step(start, rows, RATE_1)
    assert float(of_parts.loss) == pytest.approx(float(report.loss), rel=1e-5)
    assert float(of_parts.gradient_norm) == pytest.approx(float(report.gradient_norm), rel=1e-5)
    np.testing.assert_allclose(
        jax.tree.leaves(state.window), jax.tree.leaves(whole.window), rtol=1e-5
    )
    assert float(report.gradient_norm) > 0.5
    clipped = 0.25 / float(report.gradient_norm)
    expected = jax.tree.map(lambda x: x * clipped, change_of(whole, start))
    assert_trees_close(change_of(state, start), expected, 1e-5)


def test_small_gradient_is_not_scaled_up(clipping_step, step, start, rows):
    """Of a model that is nearly sure, and right."""
    sure = jax.tree.map(lambda x: x, start.params)
    sure["mlm_head"]["bias"] = sure["mlm_head"]["bias"].at[31].set(10)
    sure["nsp_head"]["dense"]["bias"] = jnp.array([5.0, 0])
    easy = rows._replace(
        token_ids=np.where(rows.token_ids > 4, 31, rows.token_ids),
        next_sentence_labels=np.minimum(rows.next_sentence_labels, 0),
    )
    before = start._replace(params=sure)
    state, report = clipping_step(before, easy, RATE_1)
    assert 1e-3 < float(report.gradient_norm) < 0.2
    expected = change_of(step(before, easy, RATE_1)[0], before)
    assert_trees_close(change_of(state, before), expected, 1e-4)


def test_eight_devices_give_what_one_gives(step, start, rows, taken):
    """One row a device; tests/training/test_meshes.py has other meshes, and two rows a device."""
    mesh = make_mesh(MeshConfig(1, 4, 2))
    # A copy, as the step takes the state's memory for the new one.
    placed = jax.device_put(jax.tree.map(jnp.copy, start), shardings_of(start, mesh))
    take = lower_step(step, placed, place_rows(rows, mesh), mesh).compile()
    state, report = take(placed, place_rows(rows, mesh), RATE_1)
    assert len(report.loss.sharding.device_set) == 8
    assert float(report.loss) == pytest.approx(float(taken[1].loss), rel=1e-5)
    assert float(report.gradient_norm) == pytest.approx(float(taken[1].gradient_norm), rel=1e-5)
    assert_trees_close(change_of(state, start), change_of(taken[0], start), 1e-5)


# ------------------------------------------------------------------ what is not finite


@pytest.fixture(scope="module")
def spoilt(start):
    """A state whose loss is not finite."""
    params = jax.tree.map(lambda x: x, start.params)
    params["nsp_head"]["dense"]["bias"] = jnp.array([jnp.inf, 0.0])
    return start._replace(params=params, skipped_in_a_row=jnp.int32(2), skipped=jnp.int32(6))


@pytest.mark.parametrize("which", ["step", "clipping_step"])
def test_step_that_is_not_finite_changes_only_counts(which, spoilt, rows, request):
    state, report = request.getfixturevalue(which)(spoilt, rows, RATE_1)
    assert not np.isfinite(report.loss)
    for one, other in zip(
        jax.tree.leaves((state.params, state.optimizer_state)),
        jax.tree.leaves((spoilt.params, spoilt.optimizer_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert (int(state.step), int(state.skipped), int(state.skipped_in_a_row)) == (1, 7, 3)
    assert int(report.skipped_in_a_row) == 3
    window = state.window
    assert (window.totals["mlm"].sum, window.totals["mlm"].count, window.totals["nsp"].count) == (
        0,
        0,
        0,
    )
    assert (window.steps, window.tokens) == (1, 22)


def test_good_step_ends_the_row_of_bad_ones(step, start, rows):
    state, _ = step(
        start._replace(skipped_in_a_row=jnp.int32(2), skipped=jnp.int32(6)), rows, RATE_1
    )
    assert (int(state.skipped), int(state.skipped_in_a_row)) == (6, 0)


def test_row_of_bad_steps_that_is_too_long_stays_to_be_seen(step, start, rows):
    state, report = step(start._replace(skipped_in_a_row=jnp.int32(3)), rows, RATE_1)
    assert np.isfinite(report.loss)
    assert int(state.skipped_in_a_row) == int(report.skipped_in_a_row) == 3


# ------------------------------------------------------------------ the window of the log


def test_window_sums_up_and_starts_anew(step, start, rows):
    state, losses = start, []
    for number in range(5):  # log_every is 3
        state, report = step(state, rows, jnp.float32(0))
        losses.append(float(report.loss))
        window, steps = state.window, [1, 2, 3, 1, 2][number]
        assert int(state.step) == number + 1
        assert (window.steps, window.tokens) == (steps, 22 * steps)
        assert (window.totals["mlm"].count, window.totals["nsp"].count) == (7 * steps, 4 * steps)
        mean = float(window.totals["mlm"].mean() + window.totals["nsp"].mean())
        assert mean == pytest.approx(np.mean(losses[-steps:]), rel=1e-5)


# ------------------------------------------------------------------ evaluation


@pytest.fixture(scope="module")
def score(even_model, vocabulary):
    """The evaluation step; for its unigram baseline 31 is the commonest token."""
    counts = np.ones(98)
    counts[31] = 50
    counts[:5] = 0
    with np.errstate(divide="ignore"):
        log_probs = np.log(counts / counts.sum())
    return jax.jit(make_eval_step(even_model, vocabulary, jnp.asarray(log_probs, jnp.float32)))


def test_evaluation_counts_what_is_right(score, even_model, even_params, rows, vocabulary):
    scores = score(even_params, rows)
    # The same tokens every time: 15 % of each row, at least one.
    batch = jax.tree.map(jnp.asarray, rows)
    masked = mask_tokens(
        jax.random.key(EVALUATION_SEED), batch, MaskingConfig(rate=0.15), vocabulary
    )
    assert np.asarray(masked.weights).sum(1).tolist() == [1, 1, 1, 1]
    output = jax.jit(even_model.apply)({"params": even_params}, masked.token_ids, *batch[1:5])
    used = np.asarray(masked.weights) > 0
    logits = np.take_along_axis(
        np.asarray(output.mlm_logits), np.asarray(masked.positions)[:, :, None], axis=1
    )[used]
    labels = np.asarray(masked.labels)[used]
    assert float(scores.mlm.sum) == pytest.approx(cross_entropies(logits, labels).sum(), rel=1e-5)
    assert float(scores.mlm_correct.sum) == (logits.argmax(-1) == labels).sum()
    assert float(scores.mlm.count) == float(scores.mlm_correct.count) == 4
    known = rows.next_sentence_labels >= 0
    labels_of_pairs = rows.next_sentence_labels[known]
    of_pairs = np.asarray(output.nsp_logits)[known]
    assert float(scores.nsp.sum) == pytest.approx(
        cross_entropies(of_pairs, labels_of_pairs).sum(), rel=1e-5
    )
    assert float(scores.nsp_correct.sum) == (of_pairs.argmax(-1) == labels_of_pairs).sum()
    assert float(scores.nsp.count) == float(scores.nsp_correct.count) == 4
    frequency = np.where(labels == 31, 50, 1) / (50 + 92)
    assert float(scores.unigram.sum) == pytest.approx(-np.log(frequency).sum(), rel=1e-5)
    assert float(scores.unigram_correct.sum) == (labels == 31).sum()


def test_empty_rows_of_an_evaluation_count_nowhere(score, even_params, rows):
    class Source:
        def __len__(self):
            return 3

        def __getitem__(self, numbers):
            columns = rows._asdict()
            return {name: columns[name][numbers] for name in list(columns)[:6]}

    (padded,) = evaluation_batches(Source(), 4)
    alone = padded._replace(row_numbers=np.arange(4, dtype=np.uint32))
    assert (padded.sequence_ids[3] == 0).all()
    scores = score(even_params, padded)
    assert float(scores.mlm.count) == 3
    assert float(scores.nsp.count) == 4
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(scores))
    # What stands in an empty row is of no account.
    noisy = alone._replace(token_ids=np.where(padded.sequence_ids == 0, 50, padded.token_ids))
    np.testing.assert_array_equal(
        jax.tree.leaves(score(even_params, noisy)), jax.tree.leaves(scores)
    )


class SmallWeights:
    """One parameter, whose loss is its square, of places that weigh a tenth together."""

    def __init__(self, weight=1.0):
        self.terms = {"task": weight}

    def prepare(self, batch, progress):
        return batch.token_ids, {"task": jnp.float32(0.1)}

    def totals(self, params, statistics, part, row_ids, dropout_key):
        return {"task": Total(0.1 * params["w"] ** 2, jnp.float32(0.1))}, statistics


@pytest.mark.parametrize("weight", [1, 50])
def test_loss_of_small_weights_is_their_mean_times_the_weight_of_the_term(rows, weight):
    optimizer = optax.sgd(1.0)
    params = {"w": jnp.float32(3)}
    state = TrainState(
        params, {}, optimizer.init(params), *jnp.zeros((3,), jnp.int32), empty_window(("task",))
    )
    after, report = make_train_step(SmallWeights(weight), optimizer, lambda now: now, 0)(
        state, rows, jnp.float32(0)
    )
    assert float(after.window.totals["task"].mean()) == pytest.approx(9)
    assert float(report.loss) == float(report.window_loss) == pytest.approx(9 * weight)
    assert float(report.gradient_norm) == pytest.approx(6 * weight)


# ------------------------------------------------------------------ the average of the weights


def test_average_moves_by_its_decay_and_not_by_a_step_that_is_skipped(make_step, start, rows):
    averaging = make_step(average_decay=0.9)
    before = start._replace(average=jax.tree.map(jnp.copy, start.params), step=jnp.int32(500))
    first, _ = averaging(before, rows, RATE_1)
    expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, start.params, first.params)
    assert_trees_close(first.average, expected, 1e-6)
    assert first.model_params is first.average
    early, _ = averaging(before._replace(step=jnp.int32(8)), rows, RATE_1)  # 9 of 18
    expected = jax.tree.map(lambda old, new: 0.5 * (old + new), start.params, early.params)
    assert_trees_close(early.average, expected, 1e-6)
    broken = jax.tree.map(jnp.copy, first.params)
    broken["mlm_head"]["bias"] = broken["mlm_head"]["bias"].at[3].set(jnp.nan)
    skipped, report = averaging(first._replace(params=broken), rows, RATE_1)
    assert int(report.skipped_in_a_row) == 1
    for one, other in zip(
        jax.tree.leaves(skipped.average), jax.tree.leaves(first.average), strict=True
    ):
        np.testing.assert_array_equal(one, other)
