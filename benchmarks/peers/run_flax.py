"""FlaxBert of transformers 4: jitted, buffers donated, the head on masked positions only."""

import jax
import jax.numpy as jnp
import optax
from batches import load_texts, pad
from protocol import serve
from transformers import FlaxBertForMaskedLM


class _Peer:
    def __init__(self, folder, job, dtype):
        texts = load_texts(folder)
        batch = pad(texts, range(len(texts.lengths)), masked=job["kind"] == "training")
        self.model = FlaxBertForMaskedLM.from_pretrained(folder / "model", dtype=jnp.dtype(dtype))
        self.ids, self.mask = jnp.asarray(batch.token_ids), jnp.asarray(batch.mask)
        self.places, self.labels = jnp.asarray(batch.places), jnp.asarray(batch.labels)
        self.zeros = jnp.zeros_like(self.ids)
        self.positions = jnp.broadcast_to(jnp.arange(self.ids.shape[1]), self.ids.shape)
        self.settings = "jit"

    def hidden(self, module, deterministic):
        return module.bert(
            self.ids, self.mask, self.zeros, self.positions, None, deterministic=deterministic
        )[0]


class Inference(_Peer):
    """Hidden states of one batch."""

    def __init__(self, folder, job, dtype):
        super().__init__(folder, job, dtype)
        module = self.model.module
        self.forward = jax.jit(
            lambda params: module.apply({"params": params}, True, method=self.hidden)
        )

    def check(self):
        return {"hidden": self.forward(self.model.params).astype(jnp.float32)}

    def run(self):
        self.forward(self.model.params).block_until_ready()


class Training(_Peer):
    """Masked-LM steps."""

    def __init__(self, folder, job, dtype):
        super().__init__(folder, job, dtype)
        self.settings = "jit, donated, optax.adamw, head on masked positions"
        module = self.model.module
        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(job["learning_rate"], weight_decay=0.01)
        )

        def logits_of(module, deterministic):
            hidden = self.hidden(module, deterministic)
            masked = hidden.reshape(-1, hidden.shape[-1])[self.places]
            shared = module.bert.variables["params"]["embeddings"]["word_embeddings"]["embedding"]
            return module.cls(masked, shared_embedding=shared)

        def loss_of(params, key):
            rngs = {} if key is None else {"dropout": key}
            logits = module.apply({"params": params}, key is None, method=logits_of, rngs=rngs)
            logits = logits.astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, self.labels).mean()

        def step(params, state, key):
            key, now = jax.random.split(key)
            loss, gradients = jax.value_and_grad(loss_of)(params, now)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, key, loss

        self.evaluate = jax.jit(lambda params: loss_of(params, None))
        self.step = jax.jit(step, donate_argnums=(0, 1))
        self.params = self.model.params
        self.state, self.key = optimizer.init(self.params), jax.random.key(0)

    def check(self):
        before = float(self.evaluate(self.params))
        for _ in range(2):
            self.run()
        return {"loss": before, "after": float(self.evaluate(self.params))}

    def run(self):
        self.params, self.state, self.key, loss = self.step(self.params, self.state, self.key)
        return float(loss)


def make_peer(folder, job, dtype):
    """The peer of a job."""
    return (Training if job["kind"] == "training" else Inference)(folder, job, dtype)


if __name__ == "__main__":
    serve(make_peer, ("transformers", "jax", "flax"))
