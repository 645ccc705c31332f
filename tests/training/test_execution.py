"""What a run's words for its execution come to on the devices that are there."""

import jax.numpy as jnp
import pytest

from bertjax.config import BertConfig
from bertjax.program.errors import UserError
from bertjax.training.execution import attention_backend, compute_dtype, remat_policy


def test_training_refuses_what_cannot_drop_probabilities():
    with pytest.raises(UserError, match=r"pass --model\.attention_probs_dropout_prob 0"):
        attention_backend("xla", BertConfig(), "float32", 128)
    still = BertConfig(attention_probs_dropout_prob=0.0)
    assert attention_backend("xla", still, "float32", 128) == "xla"
    with pytest.raises(UserError, match="runs on gpu, not on cpu"):
        attention_backend("cudnn", still, "float32", 128)


@pytest.mark.parametrize(
    ("platform", "dtype", "remat"),
    [("cpu", "float32", "dots"), ("gpu", "bfloat16", "dots"), ("tpu", "bfloat16", "none")],
)
def test_auto_is_what_the_devices_do_best(platform, dtype, remat):
    assert (jnp.dtype(compute_dtype("auto", platform)).name, remat_policy("auto", platform)) == (
        dtype,
        remat,
    )
