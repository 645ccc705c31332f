"""keras-hub on JAX: its BERT backbone and masked-LM head, compiled whole by keras.

keras-hub's BERT takes the tanh approximation of GELU; it gets the exact one here, as all others.
"""

import keras
import keras_hub
import numpy as np
from batches import load_texts, pad
from protocol import serve
from safetensors.numpy import load_file


def exact_gelu(values):
    """What BERT was trained with."""
    return keras.activations.gelu(values, approximate=False)


class _Peer:
    def __init__(self, folder, job, dtype):
        keras.utils.set_random_seed(0)
        texts = load_texts(folder)
        numbers = np.arange(len(texts.lengths))
        self.batch = pad(texts, numbers, masked=job["kind"] == "training")
        self.backbone = keras_hub.models.BertBackbone.from_preset(str(folder / "model"))
        for layer in self.backbone.transformer_layers:
            layer._feedforward_intermediate_dense.activation = exact_gelu
        ids = self.batch.token_ids.astype(np.int32)
        self.inputs = {
            "token_ids": ids,
            "segment_ids": np.zeros_like(ids),
            "padding_mask": np.ones_like(ids),
        }


class Inference(_Peer):
    """Hidden states of one batch."""

    settings = "predict_on_batch, jit_compile"

    def __init__(self, folder, job, dtype):
        super().__init__(folder, job, dtype)
        self.model = keras.Model(self.backbone.input, self.backbone.output["sequence_output"])
        self.model.compile(jit_compile=True)

    def check(self):
        return {"hidden": self.model.predict_on_batch(self.inputs)}

    def run(self):
        self.model.predict_on_batch(self.inputs)


class Training(_Peer):
    """Masked-LM steps of `train_on_batch`; its head sees the masked positions only."""

    settings = "train_on_batch, jit_compile, AdamW"

    def __init__(self, folder, job, dtype):
        super().__init__(folder, job, dtype)
        self.model = keras_hub.models.BertMaskedLM(self.backbone)
        head, stored = self.model.masked_lm_head, load_file(folder / "model" / "model.safetensors")
        prefix = "cls.predictions"
        head._intermediate_dense.kernel.assign(stored[f"{prefix}.transform.dense.weight"].T)
        head._intermediate_dense.bias.assign(stored[f"{prefix}.transform.dense.bias"])
        head._intermediate_layer_norm.gamma.assign(stored[f"{prefix}.transform.LayerNorm.weight"])
        head._intermediate_layer_norm.beta.assign(stored[f"{prefix}.transform.LayerNorm.bias"])
        head._bias.assign(stored[f"{prefix}.bias"])
        head._intermediate_dense.activation = exact_gelu
        rows, length = self.inputs["token_ids"].shape
        self.inputs["mask_positions"] = (self.batch.places % length).reshape(rows, -1)
        self.labels = self.batch.labels.reshape(rows, -1)
        optimizer = keras.optimizers.AdamW(
            job["learning_rate"], weight_decay=0.01, global_clipnorm=1.0
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(optimizer, loss, jit_compile=True)

    def check(self):
        before = self.evaluate()
        for _ in range(2):
            self.run()
        return {"loss": before, "after": self.evaluate()}

    def evaluate(self):
        self.model.reset_metrics()
        return np.ravel(self.model.test_on_batch(self.inputs, self.labels))[0]

    def run(self):
        self.model.reset_metrics()
        return np.ravel(self.model.train_on_batch(self.inputs, self.labels))[0]


def make_peer(folder, job, dtype):
    """The peer of a job."""
    return (Training if job["kind"] == "training" else Inference)(folder, job, dtype)


if __name__ == "__main__":
    serve(make_peer, ("keras", "keras-hub", "jax"))
