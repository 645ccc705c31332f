"""Fine-tuning here against torch + transformers: the same recipe, data and seeds, in one run.

    .venv-parity/bin/python benchmarks/bench_finetune.py --data shared/data --model DIR [--seeds 5]

Both read, encode, decode and score with `bertjax.tasks`, so that nothing but model and training
differ. torch gets its best practice: batches of similar length, padded to their longest, sdpa
attention, fused AdamW. They take turns, seed by seed, each in every precision asked for (torch's
bfloat16 is autocast). Examples a second are those of the training steps: compilation, reading and
evaluation are not in them. The score is that of the test split after the last step. The ratio is
that of our faster precision to the line's.
"""

import argparse
import dataclasses
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.architectures import find_architecture, kind_of
from bertjax.config import BertConfig
from bertjax.program.config_parser import parse
from bertjax.program.entry import program
from bertjax.program.errors import UserError
from bertjax.program.huge_pages import restart_with_huge_pages
from bertjax.program.strict_json import to_json
from bertjax.tasks.reading import TaskData, read_task_data
from bertjax.tasks.scoring import single_scores
from bertjax.tasks.units import Unit
from bertjax.text.tokenizer import load_tokenizer
from bertjax.training.finetune import run_finetuning
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.optimizer import ADAM_EPSILON
from bertjax.training.progress import RunProgress

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "finetune"
SCORES = {
    "sms": "accuracy", "tweets": "pearson", "help-med": "accuracy", "wnut17": "f1", "xquad": "f1"
}  # fmt: skip
# The share of the steps in which torch's schedule rises; `ScheduleConfig.warmup` here.
WARMUP = 0.1


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with classification/ pairs/ ner/ qa/")
    parser.add_argument("--model", required=True, help="the pretrained model directory")
    parser.add_argument("--recipes", nargs="+", default=list(SCORES), choices=list(SCORES))
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument(
        "--precisions", nargs="+", default=["float32"], choices=["float32", "bfloat16"],
        help="of both (default: float32)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=0, help="training examples; 0 = all")
    parser.add_argument("--epochs", type=float, help="instead of the recipe's")
    parser.add_argument("--learning-rate", type=float, help="instead of the recipe's")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if options.seeds < 1:
        raise UserError(f"--seeds {options.seeds} must be at least 1")
    if options.json and not os.access(Path(options.json).absolute().parent, os.W_OK):
        raise UserError(f"--json {options.json}: its folder is not there, or may not be written to")
    configs = {name: read_config(name, options) for name in options.recipes}
    missing = [one for one in ("torch", "transformers") if not importlib.util.find_spec(one)]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not installed here: `make test-parity` makes"
            " .venv-parity, whose python has both"
        )
    results = {}
    for name, config in configs.items():
        results[name] = measure(config, SCORES[name], options)
        print(describe(name, results[name]), flush=True)
        if options.json:
            Path(options.json).write_text(to_json(results, indent=2) + "\n", encoding="utf-8")


def read_config(name: str, options: argparse.Namespace) -> FinetuneConfig:
    """The recipe, with its data where they are."""
    folder = Path(options.data)
    arguments = ["--config", str(CONFIGS / f"{name}.yaml"), "--model.init", options.model]
    arguments += ["--run", "-", "--scoring.every_epochs", "1e6", "--log_every", "5"]
    if options.epochs:
        arguments += ["--budget.epochs", str(options.epochs)]
    if options.learning_rate:
        arguments += ["--optimizer.learning_rate", str(options.learning_rate)]
    config = parse(FinetuneConfig, "", arguments)

    def find(file: str) -> str:
        found = next(folder.rglob(file), None)
        if found is None:
            raise UserError(
                f"--data {folder}: there is no {file} in it or below, which {name} is about; leave"
                f" {name} out of --recipes, or name another folder"
            )
        return str(found)

    paths = {
        split: [find(file) for file in getattr(config.data, split)]
        for split in ("train", "validation", "test")
    }
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **paths))


def measure(config: FinetuneConfig, score: str, options: argparse.Namespace) -> dict[str, Any]:
    """Scores and rates of every seed, ours and torch's in turn."""
    data = read_task_data(config.task, config.data)
    if options.limit:
        data = data._replace(train=data.train[: options.limit])
    found: dict[str, list[dict[str, float]]] = {
        f"{who} {precision}": [] for who in ("ours", "torch") for precision in options.precisions
    }
    for seed in range(options.seeds):
        for precision in options.precisions:
            config = dataclasses.replace(config, seed=seed, dtype=precision)
            found[f"ours {precision}"].append(run_ours(config, data, score))
            found[f"torch {precision}"].append(run_torch(config, data, score))
    return {"score": score, "examples": len(data.train), "runs": found}


def run_ours(config: FinetuneConfig, data: TaskData, score: str) -> dict[str, float]:
    """One run of `bertjax finetune`."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        config = dataclasses.replace(config, run=str(run))
        results = run_finetuning(config, data, reporter=RunProgress()).scores
    return {"score": results["test"][score], "examples_per_second": results["examples_per_second"]}


def run_torch(config: FinetuneConfig, data: TaskData, score: str) -> dict[str, float]:
    """The same recipe in torch and transformers."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(config.seed)
    task, tokenizer = data.task, load_tokenizer(config.model.init)
    fields = task.model_fields()
    labels = dict(enumerate(fields.get("id2label", ("LABEL_0", "LABEL_1"))))
    architecture = find_architecture(kind_of(task.name), BertConfig()).name
    model = getattr(transformers, architecture).from_pretrained(
        config.model.init,
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
        problem_type=fields.get("problem_type"),
        attn_implementation="sdpa",
    )
    units = task.encode(data.train, tokenizer, config.max_length, training=True).units
    no_decay = ("bias", "LayerNorm.weight")
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if not n.endswith(no_decay)]},
            {"params": [p for n, p in named if n.endswith(no_decay)], "weight_decay": 0.0},
        ],
        lr=config.optimizer.learning_rate,
        eps=ADAM_EPSILON,
        weight_decay=config.optimizer.weight_decay,
        fused=True,
    )
    random = np.random.default_rng(config.seed)
    steps = round(config.budget.epochs * -(-len(units) // config.batch_size))
    warmup = max(1, WARMUP * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(step / warmup, (steps - step) / (steps - warmup))
    )
    batches = forever(units, config.batch_size, random)
    model.train()
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        batch = next(batches)
        inputs, targets = pad(batch, tokenizer.pad_id, architecture)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.dtype == "bfloat16"):
            loss = model(**inputs, **targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)

    model.eval()
    test = task.encode(data.test, tokenizer, config.max_length, training=False).units
    order = sorted(range(len(test)), key=lambda number: test[number].length)
    logits: list[Any] = [None] * len(test)
    for start in range(0, len(order), 64):
        numbers = order[start : start + 64]
        inputs, _ = pad(
            [test[number] for number in numbers],
            tokenizer.pad_id,
            find_architecture(kind_of(task.name), BertConfig()).name,
        )
        with torch.no_grad():
            output = model(**inputs)
        if architecture == "BertForQuestionAnswering":
            values = torch.stack([output.start_logits, output.end_logits], dim=-1).float().numpy()
        else:
            values = output.logits.float().numpy()
        for value, number in zip(values, numbers, strict=True):
            logits[number] = value[: test[number].length] if task.per_token else value[None]
    predictions = task.decode(data.test, test, logits)
    return {
        "score": single_scores(task.score(data.test, predictions))[score],
        "examples_per_second": config.budget.epochs * len(units) / sum(seconds),
    }


def forever(
    units: Sequence[Unit], batch_size: int, random: np.random.Generator
) -> Iterator[list[Unit]]:
    """Batches of units of similar length in random order, as transformers' group_by_length."""
    while True:
        order = random.permutation(len(units))
        chunk = batch_size * 50
        batches = []
        for start in range(0, len(order), chunk):
            part = sorted(order[start : start + chunk], key=lambda number: units[number].length)
            batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
        for number in random.permutation(len(batches)):
            yield [units[place] for place in batches[number]]


def pad(units: Sequence[Unit], pad_id: int, architecture: str) -> tuple[Any, Any]:
    """transformers' inputs and labels, padded to the longest of the units."""
    import torch

    length = max(unit.length for unit in units)
    shape = (len(units), length)
    ids, types, real = np.full(shape, pad_id), np.zeros(shape, int), np.zeros(shape, int)
    tags = np.full(shape, -100)
    for row, unit in enumerate(units):
        [sequence] = unit.sequences
        ids[row, : unit.length] = sequence.token_ids
        types[row, sequence.second_start : unit.length] = 1
        real[row, : unit.length] = 1
        if architecture == "BertForTokenClassification":
            tags[row, : unit.length] = np.where(unit.weights > 0, unit.labels, -100)
    inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": real}
    if architecture == "BertForTokenClassification":
        targets = {"labels": tags}
    elif architecture == "BertForQuestionAnswering":
        spans = np.stack([unit.labels[0] for unit in units]).astype(int)
        targets = {"start_positions": spans[:, 0], "end_positions": spans[:, 1]}
    else:
        labels = np.stack([unit.labels[0] for unit in units])
        targets = {"labels": labels if labels.dtype == np.float32 else labels.astype(int)}
    as_tensors = [
        {name: torch.as_tensor(value) for name, value in part.items()} for part in (inputs, targets)
    ]
    return as_tensors[0], as_tensors[1]


def describe(name: str, result: dict[str, Any]) -> str:
    """A line for each implementation and precision."""
    rates = {
        who: [run["examples_per_second"] for run in runs] for who, runs in result["runs"].items()
    }
    ours = max(
        (of_all for who, of_all in rates.items() if who.startswith("ours")), key=statistics.median
    )
    lines = []
    for who, runs in result["runs"].items():
        scores = [run["score"] for run in runs]
        spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
        ratio = statistics.median(one / other for one, other in zip(ours, rates[who], strict=True))
        lines.append(
            f"{name:9s} {who:15s} {result['score']} {statistics.fmean(scores):.4f} +- {spread:.4f}"
            f"  {statistics.median(rates[who]):8.1f} examples/s  ours is {ratio:.2f} x"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    restart_with_huge_pages()
    program(main)()
