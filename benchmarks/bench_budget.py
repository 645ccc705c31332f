"""The same minutes of pretraining here and in torch + transformers: which model is better after it?

    .venv-parity/bin/python benchmarks/bench_budget.py --data rows128 [--minutes 4.5]

Same rows (hence the same text and tokenizer), model shape, starting weights, objective (masked LM
and next sentence), masking rule, optimizer, and schedule on the clock; no dropout. Ours is
`bertjax pretrain` as a user runs it, in the precision given. torch gets its best practice: sdpa
attention, fused AdamW, the masked-LM head on the masked positions only, padding masks only where
there is padding, and its faster precision, measured first. A row with a second example packed into
it is one text to torch, as transformers' run_mlm.py has it; its next-sentence label is that of the
first. Compilation and loading are outside the minutes on both sides, masking inside. Both write a
model directory, and one function scores both on the test split: 15 % of the tokens masked, the same
ones for both.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bertjax.config import BertConfig
from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.model.bert import BertForPreTraining
from bertjax.objectives.masking import SHARE_MASK_TOKEN, SHARE_RANDOM_TOKEN, Vocabulary
from bertjax.program.entry import program
from bertjax.program.errors import UserError
from bertjax.program.huge_pages import restart_with_huge_pages
from bertjax.program.strict_json import to_json
from bertjax.text.rows import PreparedDirectory, open_prepared
from bertjax.text.tokenizer import load_tokenizer
from bertjax.training.evaluation import EvaluationConfig, make_evaluation
from bertjax.training.metrics import read_metrics
from bertjax.training.optimizer import ADAM_EPSILON
from bertjax.training.pretrain_config import ModelConfig
from bertjax.training.sharding import MeshConfig, make_mesh
from bertjax.training.starting_model import resolve_model

# The recipe of configs/pretrain/textbooks.yaml.
LEARNING_RATE, BETAS, WEIGHT_DECAY, CLIP_NORM = 1e-3, (0.9, 0.98), 0.01, 1.0
WARMUP, RATE = 0.2, 0.25
# Steps that tell which precision of torch is faster, after as many that are not counted.
TRIAL_STEPS = 10
NEVER = 10**9


def main() -> None:
    """Trains both, scores both, prints a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="DIR", required=True, help="a prepared directory")
    parser.add_argument("--minutes", type=float, default=4.5, help="for each (default: 4.5)")
    parser.add_argument(
        "--size", choices=BertConfig.SIZES, default="mini", help="model (default: mini)"
    )
    parser.add_argument(
        "--start", choices=["random", "patterns"], default="patterns",
        help="starting weights of both (default: patterns, as a random start spends minutes on a"
        " plateau)",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=8, help="rows a step (default: 8)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="ours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if not options.minutes > 0 or options.batch_size < 1:
        raise UserError("--minutes must be above 0 and --batch-size at least 1")
    missing = [one for one in ("torch", "transformers") if not importlib.util.find_spec(one)]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not installed here: `make test-parity` makes"
            " .venv-parity, whose python has both"
        )
    prepared = open_prepared(options.data)
    with tempfile.TemporaryDirectory() as folder:
        start = make_start(prepared, options, Path(folder) / "start")
        figures = {
            "start": score(prepared, start),
            "ours": train_ours(prepared, options, start, Path(folder) / "ours"),
            "torch": train_torch(prepared, options, start, Path(folder) / "torch"),
        }
    if options.json:
        print(to_json(vars(options) | figures))
        return
    unigram = figures["start"]
    print(
        f"{options.size}, rows of {prepared.train.max_length}, {options.batch_size} a step,"
        f" {options.minutes:g} minutes each, start: {options.start}\n"
        f"unigram: loss {unigram['unigram_loss']:.3f}, accuracy {unigram['unigram_accuracy']:.2%}"
    )
    for name, result in figures.items():
        rate = f", {result['tokens_per_second']:,.0f} tokens/s" if "steps" in result else ""
        steps = f", {result['steps']:,} steps in {result['dtype']}" if "steps" in result else ""
        print(
            f"{name:6} masked-LM loss {result['mlm_loss']:.3f},"
            f" accuracy {result['mlm_accuracy']:.2%}, NSP {result['nsp_accuracy']:.2%}{steps}{rate}"
        )


def make_start(prepared: PreparedDirectory, options: argparse.Namespace, path: Path) -> Path:
    """The model directory that both begin with."""
    tokenizer = load_tokenizer(prepared.tokenizer_path)
    config, params, _ = resolve_model(
        ModelConfig(
            size=options.size,
            start=options.start,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        options.seed, prepared, tokenizer, Vocabulary.of(tokenizer),
    )  # fmt: skip
    if params is None:
        initialize = jax.jit(BertForPreTraining(config).init)
        params = initialize(jax.random.key(options.seed), np.zeros((1, 1), np.int32))["params"]
    save_model_directory(path, config, jax.device_get(params), prepared.tokenizer_path)
    return path


def score(prepared: PreparedDirectory, directory: Path) -> dict[str, float]:
    """The held-out scores of a model directory, whoever wrote it."""
    config, params, _, _ = load_model_directory(directory, "BertForPreTraining")
    vocabulary = Vocabulary.of(load_tokenizer(prepared.tokenizer_path))
    mesh = make_mesh(MeshConfig())
    model = BertForPreTraining(config)
    counts = prepared.token_counts
    evaluate = make_evaluation(EvaluationConfig(), model, vocabulary, counts, mesh)
    return evaluate(params, prepared.test, 0)[0]


# -------------------------------------------------------------------- ours


def train_ours(
    prepared: PreparedDirectory, options: argparse.Namespace, start: Path, run: Path
) -> dict[str, Any]:
    """`bertjax pretrain` in a process of its own."""
    words = {
        "data": prepared.path, "run": run, "seed": options.seed, "dtype": options.dtype,
        "model.init": start, "masking.rate": RATE, "budget.minutes": options.minutes,
        "optimizer.learning_rate": LEARNING_RATE, "optimizer.beta1": BETAS[0],
        "optimizer.beta2": BETAS[1], "optimizer.weight_decay": WEIGHT_DECAY,
        "optimizer.clip_norm": CLIP_NORM, "schedule.warmup": WARMUP,
        "batch_size": options.batch_size, "evaluation.every": NEVER, "checkpoint.every": NEVER,
    }  # fmt: skip
    arguments = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "train.pretrain", *arguments], check=True)
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["split"] == "test"]
    steps = lines[-1]["step"]
    rate = steps * options.batch_size * prepared.train.max_length / (60 * options.minutes)
    result = {"steps": steps, "dtype": options.dtype, "tokens_per_second": rate}
    return score(prepared, run / "model") | result


# -------------------------------------------------------------------- torch


def train_torch(
    prepared: PreparedDirectory, options: argparse.Namespace, start: Path, path: Path
) -> dict[str, Any]:
    """The same minutes with transformers' BertForPreTraining."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = load_tokenizer(prepared.tokenizer_path)

    def make_model() -> Any:
        return transformers.BertForPreTraining.from_pretrained(start, attn_implementation="sdpa")

    trials = {}
    for dtype in ("float32", "bfloat16"):
        trial = TorchRun(make_model(), tokenizer, dtype, options.seed)
        batches = torch_batches(prepared, options)
        trial.train(batches, lambda: 1.0, TRIAL_STEPS)
        started = time.perf_counter()
        trial.train(batches, lambda: 1.0, TRIAL_STEPS)
        trials[dtype] = (time.perf_counter() - started) / TRIAL_STEPS
    said = ", ".join(f"{dtype} {seconds:.3f} s a step" for dtype, seconds in trials.items())
    print(f"torch {torch.__version__}: {said}", file=sys.stderr)

    dtype = min(trials, key=trials.__getitem__)
    run = TorchRun(make_model(), tokenizer, dtype, options.seed)
    run.train(torch_batches(prepared, options), lambda: 0.0, 2)  # at rate 0: for the first calls
    total = 60 * options.minutes
    began = time.perf_counter()

    def schedule() -> float | None:
        passed = (time.perf_counter() - began) / total
        return None if passed >= 1 else min(passed / WARMUP, (1 - passed) / (1 - WARMUP))

    steps = run.train(torch_batches(prepared, options), schedule)
    run.model.save_pretrained(path)
    tokens = steps * options.batch_size * prepared.train.max_length
    result = {"steps": steps, "dtype": dtype, "tokens_per_second": tokens / total}
    return score(prepared, path) | result


class TorchRun:
    """A model, its optimizer, and its masks."""

    def __init__(self, model: Any, tokenizer: Any, dtype: str, seed: int) -> None:
        import torch

        self.model, self._dtype = model.train(), getattr(torch, dtype)
        self._random = torch.Generator().manual_seed(seed)
        self._mask_id, self._vocabulary = tokenizer.mask_id, tokenizer.vocab_size
        special = list(tokenizer.special_ids)
        self._special = torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
        self._special[special] = True
        self._ordinary = torch.tensor(sorted(set(range(tokenizer.vocab_size)) - set(special)))
        named = list(model.named_parameters())
        no_decay = ("bias", "LayerNorm.weight")
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [p for n, p in named if not n.endswith(no_decay)]},
                {"params": [p for n, p in named if n.endswith(no_decay)], "weight_decay": 0.0},
            ],
            lr=LEARNING_RATE, betas=BETAS, eps=ADAM_EPSILON, weight_decay=WEIGHT_DECAY, fused=True,
        )  # fmt: skip

    def train(self, batches: Iterator[Any], schedule: Any, most_steps: int = NEVER) -> int:
        """Trains until the schedule gives None or so many steps are done; returns how many."""
        import torch

        for step in range(most_steps):
            share = schedule()
            if share is None:
                return step
            for group in self._optimizer.param_groups:
                group["lr"] = LEARNING_RATE * share
            token_ids, token_types, real, position_ids, next_labels = next(batches)
            masked, labels = self._mask(token_ids, real)
            with torch.autocast("cpu", torch.bfloat16, enabled=self._dtype == torch.bfloat16):
                hidden, pooled = self.model.bert(
                    masked,
                    attention_mask=None if real.all() else real.long(),
                    token_type_ids=token_types,
                    position_ids=position_ids,
                    return_dict=False,
                )
                logits, related = self.model.cls(hidden[labels >= 0], pooled)
            entropy = torch.nn.functional.cross_entropy
            loss = entropy(logits.float(), labels[labels >= 0])
            if (next_labels >= 0).any():
                loss = loss + entropy(related.float(), next_labels, ignore_index=-1)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
            self._optimizer.step()
            self._optimizer.zero_grad()
        return most_steps

    def _mask(self, token_ids: Any, real: Any) -> tuple[Any, Any]:
        """The rule of `objectives.masking` by token; labels are -1 where nothing is masked."""
        import torch

        candidates = real & ~self._special[token_ids]
        wanted = (RATE * candidates.sum(1, keepdim=True)).round()
        order = torch.rand(token_ids.shape, generator=self._random).masked_fill(~candidates, 2.0)
        chosen = (order.argsort(1).argsort(1) < wanted) & candidates
        kind = torch.rand(token_ids.shape, generator=self._random)
        drawn = torch.randint(len(self._ordinary), token_ids.shape, generator=self._random)
        replacement = torch.where(
            kind < SHARE_MASK_TOKEN + SHARE_RANDOM_TOKEN, self._ordinary[drawn], token_ids
        ).masked_fill(kind < SHARE_MASK_TOKEN, self._mask_id)
        masked = torch.where(chosen, replacement, token_ids)
        return masked, token_ids.masked_fill(~chosen, -1)


def torch_batches(prepared: PreparedDirectory, options: argparse.Namespace) -> Iterator[Any]:
    """Rows in random order, epoch after epoch, as tensors."""
    import torch

    rows = prepared.train
    random = np.random.default_rng(options.seed)
    while True:
        order = random.permutation(len(rows))
        for start in range(0, len(order) - options.batch_size + 1, options.batch_size):
            row = rows[order[start : start + options.batch_size]]
            yield (
                torch.as_tensor(row["token_ids"].astype(np.int64)),
                torch.as_tensor(row["token_type_ids"].astype(np.int64)),
                torch.as_tensor(row["sequence_ids"] > 0),
                torch.as_tensor(row["position_ids"].astype(np.int64)),
                torch.as_tensor(row["next_sentence_labels"][:, 0].astype(np.int64)),
            )


if __name__ == "__main__":
    restart_with_huge_pages()
    program(main)()
