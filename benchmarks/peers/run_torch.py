"""torch and transformers 5: sdpa attention, fused AdamW, autocast, torch.compile where it helps."""

import contextlib

import numpy as np
import torch
from batches import by_room, by_steps, load_texts, pad
from protocol import THREADS, fastest, serve
from transformers import AutoConfig, BertForMaskedLM, BertModel

ROOMS = (1024, 2048, 4096)


class Training:
    """Masked-LM steps; the head sees the masked positions only, as ours does."""

    def __init__(self, folder, job, dtype):
        self.texts, self.dtype = load_texts(folder), dtype
        self.batches = [
            tuple(torch.from_numpy(part) for part in pad(self.texts, numbers, masked=True)[1:])
            for numbers in by_steps(self.texts.lengths, job["steps"])
        ]
        self.model = BertForMaskedLM.from_pretrained(folder / "model", attn_implementation="sdpa")
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=job["learning_rate"], weight_decay=0.01, fused=True
        )
        self.eager = compiled = self.loss_of
        if job["compile"]:
            compiled = torch.compile(self.loss_of, dynamic=job["steps"] > 1)
        self.forms = {"eager": self.eager, "torch.compile": compiled}
        self.loss = self.eager
        self.settings = "sdpa, fused AdamW, head on masked positions"

    def loss_of(self, ids, mask, places, labels):
        full = None if bool_all(mask) else mask
        hidden = self.model.bert(input_ids=ids, attention_mask=full)[0]
        logits = self.model.cls(hidden.reshape(-1, hidden.shape[-1])[places])
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    def check(self):
        before = self.evaluate()
        self.model.train()
        if self.forms["torch.compile"] is not self.eager:
            best = fastest(tuple(self.forms), self.run_form, repeats=2)
            self.loss = self.forms[best]
            self.settings += f", {best}"
        for _ in range(2):
            self.run()
        return {"loss": before, "after": self.evaluate(), "settings": self.settings}

    def evaluate(self):
        self.model.eval()
        with torch.inference_mode(), self.precision():
            losses = [self.eager(*batch) * len(batch[3]) for batch in self.batches]
        self.model.train()
        return float(sum(losses)) / sum(len(batch[3]) for batch in self.batches)

    def run_form(self, name):
        self.loss = self.forms[name]
        self.run()

    def run(self):
        for batch in self.batches:
            self.optimizer.zero_grad(set_to_none=True)
            with self.precision():
                loss = self.loss(*batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
            self.optimizer.step()
        return float(loss)

    def precision(self):
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", torch.bfloat16)


class Inference:
    """Hidden states of one batch, or a mean vector of every text."""

    def __init__(self, folder, job, dtype):
        self.texts, self.pool = load_texts(folder), job["pool"]
        config = AutoConfig.from_pretrained(folder / "model")
        kinds = {"float32": ["float32"], "bfloat16": ["bfloat16 weights", "bfloat16 autocast"]}
        self.models = {}
        for kind in kinds[dtype]:
            model = BertModel.from_pretrained(
                folder / "model",
                config=config,
                add_pooling_layer=False,
                attn_implementation="sdpa",
                dtype=torch.bfloat16 if kind == "bfloat16 weights" else torch.float32,
            ).eval()
            self.models[kind, "eager"] = model
            if job["compile"]:
                self.models[kind, "torch.compile"] = torch.compile(model, dynamic=self.pool)
        rooms = ROOMS if self.pool else (int(self.texts.lengths.sum()),)
        choices = [(*name, room) for name in self.models for room in rooms]
        self.choice = choices[0] if len(choices) == 1 else fastest(choices, self.work)
        kind, form, room = self.choice
        self.settings = f"sdpa, {kind}, {form}, {room} places a batch"

    def check(self):
        return {"hidden": self.work(self.choice)}

    def run(self):
        self.work(self.choice)

    @torch.inference_mode()
    def work(self, choice):
        kind, form, room = choice
        model, outputs = self.models[kind, form], None
        for numbers in by_room(self.texts.lengths, room):
            batch = pad(self.texts, numbers)
            ids, mask = torch.from_numpy(batch.token_ids), torch.from_numpy(batch.mask)
            with torch.autocast("cpu", torch.bfloat16, enabled="autocast" in kind):
                full = None if bool_all(mask) else mask
                hidden = model(input_ids=ids, attention_mask=full)[0]
            if not self.pool:
                return hidden.float().numpy()
            kept = mask[..., None].to(hidden.dtype)
            vectors = ((hidden * kept).sum(1).float() / mask.sum(1)[:, None]).numpy()
            if outputs is None:
                outputs = np.empty((len(self.texts.lengths), vectors.shape[1]), np.float32)
            outputs[numbers] = vectors
        return outputs


def bool_all(mask):
    """Whether nothing is padding, so that sdpa needs no mask; a compiled graph cannot ask."""
    return not torch.compiler.is_compiling() and bool(mask.all())


def make_peer(folder, job, dtype):
    """The peer of a job."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    return (Training if job["kind"] == "training" else Inference)(folder, job, dtype)


if __name__ == "__main__":
    serve(make_peer, ("torch", "transformers"))
