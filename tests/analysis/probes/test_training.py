import jax.numpy as jnp
import numpy as np

from bertjax.analysis.probes.training import fit


def far_from(params, data, batch):
    """Squared distance of each probe from its own target, one of them out of a probe's reach."""
    return ((params["place"] - data * batch) ** 2).sum(axis=-1), jnp.ones(())


def rising(params, data, batch):
    """Trained towards 1, validated at 0: what training does makes it worse."""
    return ((params["place"] - batch) ** 2).sum(axis=-1), jnp.full((), 2.0)


def test_probes_do_not_disturb_each_other():
    targets = jnp.array([[0.02, -0.01], [5.0, 5.0], [0.0, 0.0]])
    ones = [np.float32(1)] * 30
    together = fit(far_from, {"place": jnp.zeros((3, 2))}, targets, ones, ones[:1], epochs=5)
    for probe in range(3):
        own = slice(probe, probe + 1)
        alone = fit(far_from, {"place": jnp.zeros((1, 2))}, targets[own], ones, ones[:1], epochs=5)
        np.testing.assert_allclose(together.params["place"][own], alone.params["place"], atol=1e-5)
        np.testing.assert_allclose(together.losses[own], alone.losses, atol=1e-7)
    assert together.epochs == 5
    np.testing.assert_allclose(together.params["place"][0], targets[0], atol=1e-3)


def test_the_best_epoch_is_kept_and_training_ends_when_nothing_improves():
    start = {"place": jnp.zeros((1, 2))}
    found = fit(rising, start, None, [np.float32(1)] * 20, [np.float32(0.02)], epochs=40)
    # The first epoch comes nearest to 0.02; each that follows is further off.
    assert found.epochs == 4
    np.testing.assert_allclose(found.params["place"], 0.02, atol=0.005)
    np.testing.assert_allclose(
        found.losses, ((found.params["place"] - 0.02) ** 2).sum() / 2, rtol=1e-5
    )
