"""A masked language model that torch and transformers train for some minutes."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.budget.recipes import Torch
from bertjax.objectives.masking import SHARE_MASK_TOKEN, SHARE_RANDOM_TOKEN
from bertjax.text.rows import PreparedDirectory
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.training.optimizer import ADAM_EPSILON

# Steps that tell which precision is faster, after as many that are not counted.
TRIAL_STEPS = 10


def train(
    recipe: Torch, prepared: PreparedDirectory, minutes: float, seed: int, path: Path
) -> dict[str, Any]:
    """Trains a new mini-sized model, and saves it at moments like those of `bertjax pretrain`.

    It gets torch's best practice: sdpa attention, fused AdamW, the head on the masked positions
    only, and no padding mask where nothing is padded. A row with several texts packed into it is
    one text to it, as run_mlm.py has it. Compilation and loading are outside the minutes, masking
    inside; so is the time in which ours evaluates.

    Args:
        recipe: how.
        prepared: the rows.
        minutes: of training.
        seed: of weights, order, masks and dropout.
        path: the folder of the models; each is named by its seconds of training and its steps.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = load_tokenizer(prepared.tokenizer_path)
    dtype = recipe.dtype if recipe.dtype != "auto" else _faster(recipe, prepared, tokenizer, seed)
    run = _Run(recipe, tokenizer, prepared, dtype, seed)
    run.take(2, learning_rate=0.0)  # for the first calls
    total, began, step = 60 * minutes, time.perf_counter(), 0
    due = _moments(total)
    while (seconds := time.perf_counter() - began) < total:
        progress = seconds / total
        rising = progress / recipe.warmup if recipe.warmup else 1.0
        share = min(rising, (1 - progress) / (1 - recipe.warmup))
        run.take(1, recipe.learning_rate * share, progress)
        step += 1
        if due and time.perf_counter() - began >= due[0]:
            moment = due.pop(0)
            run.save(path / f"{moment:.0f}-{step}", prepared)
    run.save(path / f"{total:.0f}-{step}", prepared)
    return {"steps": step, "dtype": dtype, "torch": torch.__version__}


def _moments(total: float) -> list[float]:
    """Seconds at which `bertjax pretrain` evaluates."""
    between = max(30.0, total / 20)
    return [15.0 + number * between for number in range(int((total - 15.0) / between))]


def _faster(recipe: Torch, prepared: PreparedDirectory, tokenizer: Tokenizer, seed: int) -> str:
    """Returns the precision in which a step takes less time here."""
    seconds = {}
    for dtype in ("float32", "bfloat16"):
        run = _Run(recipe, tokenizer, prepared, dtype, seed)
        run.take(TRIAL_STEPS)
        started = time.perf_counter()
        run.take(TRIAL_STEPS)
        seconds[dtype] = (time.perf_counter() - started) / TRIAL_STEPS
    said = ", ".join(f"{dtype} {each:.3f} s a step" for dtype, each in seconds.items())
    print(f"torch {torch.__version__}: {said}", file=sys.stderr)
    return min(seconds, key=seconds.__getitem__)


class _Run:
    """A model, its optimizer, its rows and its masks."""

    def __init__(
        self,
        recipe: Torch,
        tokenizer: Tokenizer,
        prepared: PreparedDirectory,
        dtype: str,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self._recipe, self._dtype = recipe, getattr(torch, dtype)
        self._model = _make_model(recipe, tokenizer, prepared.train.max_length).train()
        self._random = torch.Generator().manual_seed(seed)
        self._mask_id = tokenizer.mask_id
        special = list(tokenizer.special_ids)
        self._special = torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
        self._special[special] = True
        self._ordinary = torch.tensor(sorted(set(range(tokenizer.vocab_size)) - set(special)))
        self._batches = _batches(prepared, recipe.batch_size, seed)
        exempt = ("bias", "norm.weight", "Norm.weight")
        named = list(self._model.named_parameters())
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [one for name, one in named if not name.endswith(exempt)]},
                {
                    "params": [one for name, one in named if name.endswith(exempt)],
                    "weight_decay": 0.0,
                },
            ],
            lr=recipe.learning_rate,
            betas=recipe.betas,
            eps=ADAM_EPSILON,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def take(self, steps: int, learning_rate: float = 0.0, progress: float = 0.0) -> None:
        """Takes so many steps."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        first, last = self._recipe.rates
        for _ in range(steps):
            token_ids, real = next(self._batches)
            masked, chosen = self._mask(token_ids, real, first + (last - first) * progress)
            with torch.autocast("cpu", torch.bfloat16, enabled=self._dtype == torch.bfloat16):
                padding = {} if real.all() else {"attention_mask": real.long()}
                body = self._model.base_model(masked, **padding).last_hidden_state[chosen]
                logits = self._read(body)
            loss = torch.nn.functional.cross_entropy(logits.float(), token_ids[chosen])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._recipe.clip_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()

    def _read(self, hidden: Any) -> Any:
        if self._recipe.model_type == "bert":
            return self._model.cls(hidden)
        return self._model.decoder(self._model.head(hidden))

    def _mask(self, token_ids: Any, real: Any, rate: float) -> tuple[Any, Any]:
        """The rule of `objectives.masking` by token; returns the ids, and what was chosen."""
        candidates = real & ~self._special[token_ids]
        wanted = (rate * candidates.sum(1, keepdim=True)).round()
        order = torch.rand(token_ids.shape, generator=self._random).masked_fill(~candidates, 2.0)
        chosen = (order.argsort(1).argsort(1) < wanted) & candidates
        kind = torch.rand(token_ids.shape, generator=self._random)
        drawn = torch.randint(len(self._ordinary), token_ids.shape, generator=self._random)
        replacement = torch.where(
            kind < SHARE_MASK_TOKEN + SHARE_RANDOM_TOKEN, self._ordinary[drawn], token_ids
        ).masked_fill(kind < SHARE_MASK_TOKEN, self._mask_id)
        return torch.where(chosen, replacement, token_ids), chosen

    def save(self, path: Path, prepared: PreparedDirectory) -> None:
        """Saves the model, with the rows' tokenizer."""
        self._model.save_pretrained(path)
        for file in Path(prepared.tokenizer_path).iterdir():
            (path / file.name).write_bytes(file.read_bytes())


def _make_model(recipe: Torch, tokenizer: Tokenizer, length: int) -> Any:
    """A new model of mini size, drawn as transformers draws it."""
    from bertjax.families.registry import FAMILIES

    ids = tokenizer.ids_of_fields
    shape = FAMILIES[recipe.model_type].config.of_size(
        "mini", vocab_size=tokenizer.vocab_size, max_position_embeddings=length,
        **{name: id for name, id in ids.items() if name == "pad_token_id"},
    )  # fmt: skip
    fields = shape.to_dict()
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if name in fields:
            fields[name] = recipe.dropout
    fields = {name: value for name, value in fields.items() if name != "architectures"}
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    return transformers.AutoModelForMaskedLM.from_config(config, attn_implementation="sdpa")


def _batches(prepared: PreparedDirectory, batch_size: int, seed: int) -> Iterator[Any]:
    """Yields ids and which of them are real, of rows in random order, epoch after epoch."""
    rows, random = prepared.train, np.random.default_rng(seed)
    while True:
        order = random.permutation(len(rows))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            row = rows[order[start : start + batch_size]]
            yield (
                torch.as_tensor(row["token_ids"].astype(np.int64)),
                torch.as_tensor(row["sequence_ids"] > 0),
            )
