"""Makes the golden `flax_model.msgpack`, with a version of transformers that still has Flax.

    python -m venv /tmp/flax
    /tmp/flax/bin/pip install transformers==4.49.0 jax==0.4.38 flax==0.10.2 "numpy<2.2"
    /tmp/flax/bin/python tests/parity/make_golden_flax.py

It writes `golden/flax_bert/`: a `FlaxBertForPreTraining` as `save_pretrained` leaves it, and what
it computes in float64: `outputs.npz`.
"""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from transformers import BertConfig, FlaxBertForPreTraining

GOLDEN = Path(__file__).parent / "golden" / "flax_bert"

# V=29, D=12, L=2, N=3, H=4, F=17, M=7, G=3; rows B=2, length T=5.
CONFIG = {
    "vocab_size": 29,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "max_position_embeddings": 7,
    "type_vocab_size": 3,
}


def main() -> None:
    """Writes the golden files anew."""
    jax.config.update("jax_enable_x64", True)
    shutil.rmtree(GOLDEN, ignore_errors=True)
    random = np.random.default_rng(20181011)
    model = FlaxBertForPreTraining(BertConfig(**CONFIG), dtype=jnp.float64)
    model.params = jax.tree.map(
        lambda x: random.normal(float(np.mean(x) == 1), 0.3, x.shape).astype(np.float32),
        model.params,
    )
    model.save_pretrained(GOLDEN)
    inputs = {
        "token_ids": np.array([[2, 11, 28, 4, 3], [2, 17, 3, 0, 0]]),
        "token_type_ids": np.array([[0, 0, 1, 1, 2], [0, 1, 1, 0, 0]]),
        "real": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }
    output = model(
        inputs["token_ids"], inputs["real"], inputs["token_type_ids"], output_hidden_states=True
    )
    np.savez_compressed(
        GOLDEN / "outputs.npz",
        **inputs,
        hidden=np.stack(output.hidden_states),
        mlm_logits=output.prediction_logits,
        nsp_logits=output.seq_relationship_logits,
    )


if __name__ == "__main__":
    main()
