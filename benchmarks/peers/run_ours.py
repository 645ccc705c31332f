"""bertjax: the step of `bertjax pretrain`, the vectors of `bertjax embed`; texts packed in rows."""

import jax
import jax.numpy as jnp
import numpy as np
from batches import load_texts
from protocol import serve

from bertjax.inference.embedding import Embedder
from bertjax.interop.huggingface import load_model_directory
from bertjax.model.bert import BertForPreTraining, BertModel
from bertjax.objectives.losses import cross_entropy
from bertjax.objectives.masking import MaskingConfig, Vocabulary
from bertjax.objectives.pretraining import PretrainingObjective
from bertjax.text.framing import TokenSequence
from bertjax.text.packing import make_rows, pack
from bertjax.text.pairs import NO_PAIR, Example
from bertjax.training.execution import remat_policy
from bertjax.training.optimizer import OptimizerConfig, make_optimizer
from bertjax.training.sharding import MeshConfig, make_mesh, place_rows
from bertjax.training.state import new_state
from bertjax.training.steps import lower_step, make_train_step
from bertjax.types import RowBatch


class _SpecialTokens:
    """What packing and embedding ask of a tokenizer."""

    def __init__(self, special):
        self.pad_id, self.cls_id, self.sep_id = special["pad"], special["cls"], special["sep"]


class Training:
    """The step of `bertjax pretrain`: masks drawn on the device, masked LM and next sentence."""

    def __init__(self, folder, job, dtype):
        self.texts = load_texts(folder)
        loaded = load_model_directory(folder / "model", "BertForPreTraining")
        config = loaded.config
        self.mesh = make_mesh(MeshConfig())
        self.model = BertForPreTraining(config, jnp.dtype(dtype), remat_policy("auto"))
        special = job["special"]
        vocabulary = Vocabulary(
            config.vocab_size,
            special["mask"],
            sorted(special.values()),
            np.zeros(config.vocab_size, bool),
        )
        objective = PretrainingObjective(self.model, MaskingConfig(), vocabulary, seed=0)
        optimizer = make_optimizer(OptimizerConfig())
        step = make_train_step(
            objective, optimizer, lambda clock: job["learning_rate"] * clock, 0, clip_norm=1.0
        )
        self.batches, self.asked = self._pack(job)
        self.state = new_state(
            self.model, optimizer, self.mesh, jax.random.key(0), objective.terms, loaded.params
        )
        self.step = lower_step(step, self.state, self.batches[0], self.mesh).compile()
        self.evaluate = jax.jit(self._evaluate)
        rows, length = self.batches[0].token_ids.shape
        self.settings = f"{len(self.batches)} x {rows} rows of {length}, packed, remat auto"

    def _pack(self, job):
        """The batches, and for each what is asked where in the check: the same as of the peers."""
        texts, length, rows = self.texts, job["length"], job["rows"]
        ends = np.cumsum(texts.lengths)
        parts = [slice(end - size, end) for end, size in zip(ends, texts.lengths, strict=True)]
        nothing = np.zeros(0, np.int32)
        examples = [Example(texts.original[part][1:-1], nothing, NO_PAIR) for part in parts]
        slots = int(pack(texts.lengths, length, length // 3).slot.max()) + 1
        columns = make_rows(examples, _SpecialTokens(job["special"]), length, slots)
        places = pack(texts.lengths, length, slots)
        masked, chosen = columns["token_ids"].copy(), np.zeros(columns["token_ids"].shape, bool)
        for part, row, start in zip(parts, places.row, places.start, strict=True):
            size = part.stop - part.start
            masked[row, start : start + size] = texts.masked[part]
            chosen[row, start : start + size] = texts.chosen[part]
        most = int(chosen.sum(1).max())
        batches, asked = [], []
        for first in range(0, len(masked), rows):
            batch = {name: values[first : first + rows] for name, values in columns.items()}
            short = rows - len(batch["token_ids"])
            full = {
                name: np.pad(
                    values,
                    [(0, short)] + [(0, 0)] * (values.ndim - 1),
                    constant_values=-1 if name == "next_sentence_labels" else 0,
                )
                for name, values in batch.items()
            }
            numbers = np.arange(first, first + rows, dtype=np.uint32)
            batch = RowBatch(**full, row_numbers=numbers, epochs=np.zeros(rows, np.uint32))
            batches.append(place_rows(batch, self.mesh))
            ids, wanted = np.zeros_like(full["token_ids"]), np.zeros((rows, length), bool)
            ids[: rows - short] = masked[first : first + rows]
            wanted[: rows - short] = chosen[first : first + rows]
            positions = np.argsort(~wanted, axis=1, kind="stable")[:, :most]
            weights = np.take_along_axis(wanted, positions, 1).astype(np.float32)
            labels = np.take_along_axis(full["token_ids"], positions, 1)
            asked.append((ids, positions, labels, weights))
        return batches, asked

    def _evaluate(self, params, batch, ids, positions, labels, weights):
        output = self.model.apply({"params": params}, ids, *batch[1:5], masked_positions=positions)
        return cross_entropy(output.mlm_logits, labels, weights)

    def loss(self):
        """Mean masked-LM loss of the texts as the peers have them masked, without dropout."""
        totals = [
            self.evaluate(self.state.params, batch, *asked)
            for batch, asked in zip(self.batches, self.asked, strict=True)
        ]
        return float(sum(total.sum for total in totals) / sum(total.count for total in totals))

    def check(self):
        before = self.loss()
        for _ in range(2):
            self.run()
        return {"loss": before, "after": self.loss()}

    def run(self):
        for batch in self.batches:
            self.state, report = self.step(self.state, batch, jnp.float32(1))
        return float(report.loss)


class Inference:
    """Hidden states of one batch."""

    def __init__(self, folder, job, dtype):
        texts = load_texts(folder)
        loaded = load_model_directory(folder / "model", "BertModel", may_lack=("pooler",))
        model = BertModel(loaded.config, jnp.dtype(dtype), pooling=False)
        body = {name: part for name, part in loaded.params["bert"].items() if name != "pooler"}
        self.params = jax.tree.map(jnp.asarray, body)
        self.ids = jnp.asarray(texts.original.reshape(len(texts.lengths), -1), jnp.int32)
        self.forward = jax.jit(lambda params, ids: model.apply({"params": params}, ids).hidden)
        self.settings = "jit"

    def check(self):
        return {"hidden": np.asarray(self.forward(self.params, self.ids), np.float32)}

    def run(self):
        self.forward(self.params, self.ids).block_until_ready()


class Embedding:
    """`bertjax embed` after its tokenizer: a mean vector of every text."""

    def __init__(self, folder, job, dtype):
        texts = load_texts(folder)
        loaded = load_model_directory(folder / "model", "BertModel", may_lack=("pooler",))
        body = {name: part for name, part in loaded.params["bert"].items() if name != "pooler"}
        model = BertModel(loaded.config, jnp.dtype(dtype), pooling=False)
        self.embedder = Embedder(model, body, _SpecialTokens(job["special"]))
        parts = np.split(texts.original, np.cumsum(texts.lengths)[:-1])
        self.sequences = [TokenSequence(part, len(part)) for part in parts]
        self.settings = "packed"

    def check(self):
        return {"hidden": self.embedder.embed_sequences(self.sequences)}

    def run(self):
        self.embedder.embed_sequences(self.sequences)


def make_peer(folder, job, dtype):
    """The peer of a job."""
    if job["kind"] == "training":
        return Training(folder, job, dtype)
    return (Embedding if job["pool"] else Inference)(folder, job, dtype)


if __name__ == "__main__":
    serve(make_peer, ("jax", "flax", "optax"))
