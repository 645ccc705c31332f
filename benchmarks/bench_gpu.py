"""The parts of gpu.sh: a step of ours or torch's on one device, and a run killed and resumed.

    python -m benchmarks.bench_gpu ours --size base --rows 64 --length 512 --attention cudnn
    python -m benchmarks.bench_gpu torch --size base --rows 64 --length 512
    python -m benchmarks.bench_gpu ours --data rows --rows 64
    python -m benchmarks.bench_gpu resume --data rows --folder runs/gpu --steps 2000

Each prints JSON. Both steps are BERT's pretraining with masked language model and next sentence,
products in bfloat16, AdamW, gradients clipped, the masked-LM head on the masked positions alone;
torch attends with its scaled_dot_product_attention. On rows of a prepared directory ours takes them
packed as they are, torch takes the same examples one by one, padded to the longest of its batch,
batches of like lengths. The figures are medians over groups of steps; the first group is left out.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.kernels.backends import AUTO, BACKENDS
from bertjax.program.entry import program
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json

GROUPS = 5
VOCABULARY = 30_000
MASKED = 0.15


def main() -> None:
    """Prints the figures of a part as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["ours", "torch", "resume"], help="what is done")
    parser.add_argument("--size", default="base", help="of the model (default: base)")
    parser.add_argument("--rows", type=int, default=64, help="rows a step (default: 64)")
    parser.add_argument("--length", type=int, default=512, help="tokens a row (default: 512)")
    parser.add_argument("--attention", default="auto", help="of ours (default: auto)")
    parser.add_argument(
        "--dropout", type=float, default=0.1,
        help="of hidden states and probabilities (default: 0.1; 0 where ours drops none)",
    )  # fmt: skip
    parser.add_argument(
        "--raced", action="store_true",
        help="ours with XLA's own choices, other bits in every process (default: no)",
    )  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="a prepared directory (default: random ids)")
    parser.add_argument("--folder", metavar="DIR", help="of resume: where the runs are written")
    parser.add_argument("--steps", type=int, default=10, help="a group, or of a run (default: 10)")
    options = parser.parse_args()
    if min(options.rows, options.length // 16, options.steps) < 1:
        raise UserError("--rows and --steps must be at least 1, --length at least 16")
    if options.part == "resume" and not (options.data and options.folder):
        raise UserError("resume needs --data and --folder")
    if options.attention != AUTO and not BACKENDS[options.attention].dropout:
        options.dropout = 0.0
    measure = {"ours": measure_ours, "torch": measure_torch, "resume": resume}[options.part]
    print(to_json(measure(options)))


# ------------------------------------------------------------------------------------- ours


def measure_ours(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step, its tokens and its memory."""
    import jax
    import jax.numpy as jnp

    from benchmarks.random_rows import random_batch
    from bertjax.objectives.masking import Vocabulary
    from bertjax.text.rows import open_prepared
    from bertjax.text.tokenizer import load_tokenizer
    from bertjax.training.batches import TrainingBatches
    from bertjax.training.budget import BudgetConfig
    from bertjax.training.pretrain_config import (
        ModelConfig,
        PretrainConfig,
        make_step,
        shape_new_model,
    )
    from bertjax.training.sharding import MeshConfig, make_mesh, place_rows
    from bertjax.training.state import new_state
    from bertjax.training.steps import lower_step

    model = ModelConfig(
        size=options.size,
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
    )
    config = PretrainConfig(
        data="", run="", model=model, budget=BudgetConfig(steps=10_000),
        batch_size=options.rows, dtype="bfloat16", attention=options.attention,
    )  # fmt: skip
    if options.data:
        prepared = open_prepared(options.data)
        tokenizer, length = load_tokenizer(prepared.tokenizer_path), prepared.train.max_length
        vocabulary, pad_id = Vocabulary.of(tokenizer), tokenizer.pad_id
        get_batch = TrainingBatches(prepared.train, options.rows, seed=0, steps=1 << 40).__getitem__
    else:
        length, pad_id = options.length, 0
        vocabulary = Vocabulary(VOCABULARY, 4, list(range(5)), np.zeros(VOCABULARY, bool))
        batch = random_batch(VOCABULARY, options.rows, length)

        def get_batch(number: int) -> Any:
            return batch

    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    shape = shape_new_model(config.model, vocabulary.size, {"pad_token_id": pad_id}, length)
    step = make_step(config, shape, vocabulary, 10_000, mesh)
    terms = step.objective.terms
    state = new_state(step.model, step.optimizer, mesh, jax.random.key(0), terms)
    lowered = lower_step(step.take, state, place_rows(get_batch(0), mesh), mesh)
    gpu = mesh.devices.flat[0].platform == "gpu"
    race = {"xla_gpu_deterministic_ops": False, "xla_gpu_enable_triton_gemm": True}
    started = time.perf_counter()
    take = lowered.compile(race if options.raced and gpu else None)
    compiled = time.perf_counter() - started
    losses: list[float] = []

    def run(group: int) -> int:
        nonlocal state
        tokens = 0
        for number in range(group * options.steps, (group + 1) * options.steps):
            batch = get_batch(number)
            tokens += int((batch.sequence_ids != 0).sum())
            state, report = take(state, place_rows(batch, mesh), jnp.float32(number))
        losses.append(float(report.loss))
        return tokens

    figures = _time_groups(run, options)
    memory = take.memory_analysis()
    return {
        **figures,
        "losses": losses,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "remat": step.model.remat,
        "compile_seconds": compiled,
        "temporary_bytes": memory.temp_size_in_bytes if memory else None,
    }


def _time_groups(run: Callable[[int], int], options: argparse.Namespace) -> dict[str, Any]:
    """Medians over the groups; the first one, which warms up, is left out."""
    run(0)
    seconds, rates = [], []
    for group in range(1, GROUPS + 1):
        started = time.perf_counter()
        tokens = run(group)
        taken = time.perf_counter() - started
        seconds.append(taken / options.steps)
        rates.append(tokens / taken)
    return {
        "seconds_a_step": statistics.median(seconds),
        "seconds_of_all_groups": seconds,
        "tokens_a_second": statistics.median(rates),
    }


# ------------------------------------------------------------------------------------- torch


def measure_torch(options: argparse.Namespace) -> dict[str, Any]:
    """The same of torch: its own encoder layers, post-normalised, with fused AdamW and autocast."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = _make_torch_bert(torch, options).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, eps=1e-6, weight_decay=0.01, fused=device.type == "cuda"
    )
    batches = list(_padded_batches(options) if options.data else _random_batches(options))
    placed = [
        ({name: torch.from_numpy(part).to(device) for name, part in batch.items()}, tokens)
        for batch, tokens in batches
    ]
    losses: list[float] = []

    def run(group: int) -> int:
        counted = 0
        for number in range(group * options.steps, (group + 1) * options.steps):
            batch, tokens = placed[number % len(placed)]
            counted += tokens
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16):
                loss = model(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()
        losses.append(float(loss))  # waits for the device
        return counted

    figures = _time_groups(run, options)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    about = {"device": name, "torch": torch.__version__, "peak_bytes": peak}
    return {**figures, "losses": losses, **about}


def _make_torch_bert(torch: Any, options: argparse.Namespace) -> Any:
    from bertjax.config import BertConfig

    words, length = VOCABULARY, options.length
    if options.data:
        from bertjax.text.rows import open_prepared
        from bertjax.text.tokenizer import load_tokenizer

        prepared = open_prepared(options.data)
        words = load_tokenizer(prepared.tokenizer_path).vocab_size
        length = prepared.train.max_length
    config = BertConfig.of_size(options.size, vocab_size=words, max_position_embeddings=length)
    width, functional = config.hidden_size, torch.nn.functional

    class Bert(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            nn = torch.nn
            self.words = nn.Embedding(words, width)
            self.positions = nn.Embedding(length, width)
            self.kinds = nn.Embedding(2, width)
            self.norm, self.dropout = nn.LayerNorm(width, 1e-12), nn.Dropout(options.dropout)
            layer = nn.TransformerEncoderLayer(
                width, config.num_attention_heads, config.intermediate_size, options.dropout,
                "gelu", 1e-12, batch_first=True,
            )  # fmt: skip
            self.encoder = nn.TransformerEncoder(layer, config.num_hidden_layers)
            self.transform = nn.Linear(width, width)
            self.transform_norm = nn.LayerNorm(width, 1e-12)
            self.bias = nn.Parameter(torch.zeros(words))
            self.pooler, self.next = nn.Linear(width, width), nn.Linear(width, 2)
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, batch: dict[str, Any]) -> Any:
            ids = batch["ids"]
            places = torch.arange(ids.shape[1], device=ids.device)
            embedded = self.words(ids) + self.positions(places) + self.kinds(batch["kinds"])
            hidden = self.dropout(self.norm(embedded))
            hidden = self.encoder(hidden, src_key_padding_mask=batch.get("padding"))
            masked = hidden.reshape(-1, width)[batch["places"]]
            masked = self.transform_norm(functional.gelu(self.transform(masked)))
            logits = functional.linear(masked, self.words.weight, self.bias)
            words_loss = functional.cross_entropy(logits.float(), batch["labels"])
            pooled = torch.tanh(self.pooler(hidden[:, 0]))
            next_loss = functional.cross_entropy(self.next(pooled).float(), batch["next"])
            return words_loss + next_loss

    return Bert()


def _random_batches(options: argparse.Namespace) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    random = np.random.default_rng(0)
    ids = random.integers(5, VOCABULARY, (options.rows, options.length))
    yield _mask(random, ids, np.ones(ids.shape, bool)), ids.size


def _padded_batches(options: argparse.Namespace) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """The examples of the rows of each of our batches, in batches of about as many tokens."""
    from bertjax.text.rows import open_prepared
    from bertjax.training.batches import TrainingBatches

    rows = open_prepared(options.data).train
    random, steps = np.random.default_rng(0), options.steps
    batches = TrainingBatches(rows, options.rows, seed=0, steps=1 << 40)
    texts = []
    for number in range(min(steps, -(-len(rows) // options.rows))):
        for ids, of in zip(batches[number].token_ids, batches[number].sequence_ids, strict=True):
            texts += [ids[of == example] for example in range(1, of.max(initial=0) + 1)]
    texts.sort(key=len)

    def padded(text: np.ndarray) -> int:
        return min(-(-len(text) // 8) * 8, rows.max_length)

    room, groups, group = options.rows * rows.max_length, [], []
    for text in texts:
        if group and (len(group) + 1) * padded(text) > room:
            groups.append(group)
            group = []
        group.append(text)
    groups.append(group)
    for number in random.permutation(len(groups)):
        chosen = groups[number]
        ids = np.zeros((len(chosen), padded(chosen[-1])), np.int64)
        for row, text in enumerate(chosen):
            ids[row, : len(text)] = text
        yield _mask(random, ids, ids != 0), int((ids != 0).sum())


def _mask(random: Any, ids: np.ndarray, real: np.ndarray) -> dict[str, np.ndarray]:
    places = np.flatnonzero(real)
    places = np.sort(random.choice(places, max(1, int(MASKED * len(places))), replace=False))
    ids, flat = ids.astype(np.int64), ids.astype(np.int64).reshape(-1)
    labels = flat[places]
    flat[places] = 4
    batch = {
        "ids": flat.reshape(ids.shape), "kinds": np.zeros_like(ids), "places": places,
        "labels": labels, "next": random.integers(0, 2, len(ids)),
    }  # fmt: skip
    return batch if real.all() else {**batch, "padding": ~real}


# ------------------------------------------------------------------------------------- resume


def resume(options: argparse.Namespace) -> dict[str, Any]:
    """A run, and the same one killed half way and continued: whether their ends have equal bits.

    Nothing compiled is kept, so that each process chooses its kernels anew.
    """
    folder = Path(options.folder)
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    _finish(_start(options, folder / "whole"))
    whole = time.perf_counter() - began
    killed = _start(options, folder / "killed")
    while not _has_checkpoint(folder / "killed") and killed.poll() is None:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    _, errors = killed.communicate()
    if killed.returncode != -signal.SIGKILL:
        raise SystemExit(f"the run ended before it was killed: {errors[-2000:]}")
    said = _finish(_start(options, folder / "killed"))
    weights = [
        (folder / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "killed")
    ]
    lines = [_losses(folder / name) for name in ("whole", "killed")]
    return {
        "same_weights": weights[0] == weights[1],
        "same_losses": lines[0] == lines[1],
        "continued": [line for line in said.splitlines() if line.startswith("continuing")],
        "seconds_of_the_whole_run": whole,
        "last_loss": lines[0][-1],
        "steps": options.steps,
    }


def _start(options: argparse.Namespace, run: Path) -> subprocess.Popen[str]:
    half = max(1, options.steps // 2)
    command = [
        sys.executable, "-m", "train.pretrain", "--data", options.data, "--run", str(run),
        "--model.size", options.size, "--batch-size", str(options.rows), "--dtype", "bfloat16",
        "--budget.steps", str(options.steps), "--checkpoint.every", str(half),
        "--evaluation.every", str(half), "--evaluation.rows", str(options.rows),
        "--evaluation.batch-size", str(options.rows),
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
    )  # fmt: skip


def _finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"bertjax pretrain ended with {process.returncode}: {errors[-2000:]}")
    return output + errors


def _has_checkpoint(run: Path) -> bool:
    """Whether one beside that of step 0 is written."""
    names = [path.name for path in (run / "checkpoints").glob("*") if path.name.isdecimal()]
    return any(int(name) > 0 for name in names)


def _losses(run: Path) -> list[float]:
    from bertjax.training.metrics import read_metrics

    last = {
        (line["split"], line["step"]): line["loss"]
        for line in read_metrics(run / "metrics.jsonl")
        if "loss" in line
    }
    return [last[key] for key in sorted(last)]


if __name__ == "__main__":
    program(main)()
