"""The run that `bertjax plan` plans, as `bertjax pretrain` would make it."""

import argparse
import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml
from jax.sharding import Mesh

from bertjax.config import BertConfig, Kind
from bertjax.families.registry import load_config
from bertjax.interop.hub import find_model
from bertjax.numerics.placement import count_sharers
from bertjax.objectives.masking import Vocabulary
from bertjax.planning import DEFAULT_LENGTH, DEFAULT_VOCABULARY, MOST_TOKENS
from bertjax.planning.absent_devices import assume_cudnn, gpu_devices, tpu_devices
from bertjax.planning.chips import Chip, chip_of
from bertjax.planning.gpus import describe_gpu
from bertjax.planning.plan import bound_step, find_largest_batch, fits
from bertjax.planning.program import CompiledStep, compile_step, describe_batch
from bertjax.program.config_parser import parse
from bertjax.program.errors import UserError
from bertjax.text.preparation_options import RowConfig
from bertjax.text.rows import open_prepared
from bertjax.text.tokenizer import load_tokenizer
from bertjax.training.budget import Clock
from bertjax.training.demand import memory_of_machine
from bertjax.training.generator_directory import shape_generator
from bertjax.training.phases import Phase, make_phases
from bertjax.training.pretrain_config import (
    PretrainConfig,
    kind_of_objective,
    make_step,
    shape_new_model,
)
from bertjax.training.sharding import AXES, check_batch, make_mesh
from bertjax.training.starting_model import kind_to_continue
from bertjax.training.state import count_parameters, describe_state

# Stands for a tokenizer: the ids of [MASK] and the other special tokens change no program.
_PAD_ID, _MASK_ID, _SPECIAL_IDS = 0, 4, range(5)
# jax makes each of them, with its own threads.
_MOST_CPU_DEVICES = 1024
# Rows of a corpus that does not exist; only the length of a schedule in epochs depends on them.
_SOME_ROWS = 1_000_000


class Devices(NamedTuple):
    """The devices to plan for.

    Attributes:
        name: as given.
        devices: jax's.
        chip: their figures; None for CPU devices.
        available: the bytes of each.
    """

    name: str
    devices: Sequence[Any]
    chip: Chip | None
    available: int


class Rows(NamedTuple):
    """What the model is planned for: T, K, V, and what masking and its heads must know."""

    length: int
    examples: int
    vocabulary: Vocabulary
    pad_id: int
    count: int
    has_pairs: bool


class PlannedRun(NamedTuple):
    """A run with its devices, before anything is compiled."""

    devices: Devices
    config: PretrainConfig
    bert_config: BertConfig
    kind: Kind
    rows: Rows
    mesh: Mesh
    notes: list[str]
    phase: Phase

    def plan(self, search: int, progress: Callable[[str], None]) -> dict[str, Any]:
        """Compiles the step, and `search` more for the largest batch; returns everything known.

        Args:
            search: the most compilations besides the first.
            progress: called with a line for each of them, and with "" for each that was not
                needed.
        """
        config, rows, mesh, places = self.config, self.rows, self.mesh, self.devices
        where = f"{places.name}, mesh {'x'.join(map(str, mesh.shape.values()))}"
        clock = Clock(config.budget, rows.count, config.batch_size)
        generator_config = shape_generator(config, self.bert_config)
        step = make_step(
            config, self.bert_config, rows.vocabulary, clock.total, mesh, self.phase,
            generator_config, self.kind,
        )  # fmt: skip
        key = jax.random.key(config.seed)
        with assume_cudnn():
            state = describe_state(
                step.model, step.optimizer, mesh, key, step.objective.terms, bool(config.average)
            )

        def compile_rows(size: int) -> CompiledStep:
            batch = describe_batch(size, rows.length, rows.examples, mesh)
            compiled = compile_step(step.take, state, batch, mesh)
            verdict = "it fits" if fits(compiled, places.available) else "does not fit"
            progress(f"{where}, {size:,} rows: compiled in {compiled.seconds:.1f} s, {verdict}")
            return compiled

        compiled = compile_rows(config.batch_size)
        largest = None
        if search:
            sharers = count_sharers(mesh)
            largest = find_largest_batch(
                compile_rows,
                compiled,
                config.batch_size,
                sharers * config.accumulation,
                places.available,
                search,
                MOST_TOKENS // rows.length * sharers,
            )
            for _ in range(search - largest.compilations):
                progress("")
        flops = step.count_flops(config.batch_size, rows.length, rows.examples)
        memory, chip, bounds = compiled.memory, places.chip, None
        collectives, notes, sent = compiled.collectives, self.notes, None
        if collectives is None:
            unread = f"what the devices send, and how long it takes, is unknown: {compiled.unread}"
            notes = [*notes, unread]
        else:
            sent = sum(collective.sent for collective in collectives)
        if memory is not None and chip is not None:
            bounds = bound_step(chip, flops / mesh.devices.size, memory, sent)
        return {
            "versions": _versions(),
            "devices": places.name,
            "device_count": mesh.devices.size,
            "chip": chip and chip._asdict(),
            "mesh": dict(mesh.shape),
            "rows": config.batch_size,
            "microbatches": config.accumulation,
            "length": rows.length,
            "examples": rows.examples,
            "vocab_size": self.bert_config.vocab_size,
            "parameters": count_parameters(state.params),
            "generator_parameters": count_parameters(state.params.get("generator", {})),
            "dtype": jnp.dtype(step.model.dtype).name,
            "remat": step.model.remat,
            "attention": step.model.attention,
            "compile_seconds": compiled.seconds,
            "memory": memory and {**memory._asdict(), "total": memory.total},
            "available_bytes": places.available,
            "fits": fits(compiled, places.available),
            "refusal": compiled.refusal or None,
            "largest_batch": largest and largest._asdict(),
            "matmul_flops_per_device": flops / mesh.devices.size,
            "xla_flops_loops_once": compiled.once_flops,
            "collectives": collectives and [collective._asdict() for collective in collectives],
            "sent_bytes": sent,
            "seconds_at_least": bounds
            and {
                **bounds._asdict(),
                "overlapped": bounds.overlapped,
                "in_turn": bounds.in_turn,
            },
            "tokens_per_second_at_most": bounds
            and config.batch_size * rows.length / bounds.overlapped,
            "notes": notes,
        }


def open_devices(name: str) -> Devices:
    """Returns the devices of a TPU slice, GPUs, or CPU devices of this machine for "cpu:8".

    Raises:
        UserError: there are no such devices.
    """
    platform, _, number = name.partition(":")
    if platform == "cpu":
        if not number.isdecimal() or not 0 < int(number) <= _MOST_CPU_DEVICES:
            raise UserError(
                f"--devices {name}: name a number of CPU devices up to {_MOST_CPU_DEVICES:,}, as"
                " cpu:8"
            )
        return _open_cpu(name, int(number))
    chip = chip_of(name)
    # jax's own work, such as drawing keys, is the CPU's. A program for absent devices can be put
    # into jax's cache but not loaded from it.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    if chip.platform == "gpu":
        devices = gpu_devices(name, describe_gpu(chip.name))
        if len(devices) > int(number.rpartition("x")[2]):  # beyond a host's own links
            chip = chip._replace(link_rate=None)
    else:
        devices = tpu_devices(name)
    return Devices(name, devices, chip, chip.usable)


def _open_cpu(name: str, number: int) -> Devices:
    with contextlib.suppress(RuntimeError):  # they are already open: there may be enough of them
        jax.config.update("jax_num_cpu_devices", number)
    devices = jax.devices("cpu")
    if len(devices) < number:
        raise UserError(f"--devices {name}: this process has {len(devices)} CPU devices already")
    memory = memory_of_machine()
    if memory is None:
        raise UserError(
            f"--devices {name}: this system does not report the machine's memory; plan for"
            " a TPU or GPU with --topology"
        )
    return Devices(name, devices[:number], None, memory // number)


def read_run(options: argparse.Namespace, devices: Devices, layout: str | None) -> PlannedRun:
    """Reads the run that the options describe, on a mesh of that layout.

    Raises:
        UserError: what `bertjax pretrain` would refuse, as far as is known without the data.
    """
    config = _read_config(options, devices, layout)
    mesh = make_mesh(config.mesh, devices.devices)
    notes: list[str] = []
    if devices.chip is not None and devices.chip.link_rate is None:
        notes.append(
            f"{devices.name} has several hosts: the speed of their network, and so how long"
            " communication takes, is unknown"
        )
    rows = _read_rows(options, config, notes)
    bert_config, kind = _read_model(config, rows)
    clock = Clock(config.budget, rows.count, config.batch_size)
    phases = make_phases(config.phases, config.batch_size, clock)
    phase = max(phases, key=lambda one: one.batch_size * (one.length or rows.length))
    if len(phases) > 1:
        config = dataclasses.replace(config, batch_size=phase.batch_size)
        rows = rows._replace(length=phase.length or rows.length)
        notes.append(
            f"of the {len(phases)} phases the one with the most tokens a step is planned: phase"
            f" {phase.number + 1}, {phase.batch_size} rows of {rows.length}"
        )
    sharers = count_sharers(mesh)
    check_batch("batch_size / accumulation", config.batch_size // config.accumulation, mesh)
    if config.evaluation.batch_size % sharers:
        notes.append(
            f"evaluation.batch_size={config.evaluation.batch_size} is no multiple of the {sharers}"
            " devices that the rows are divided among: the run will refuse it"
        )
    return PlannedRun(devices, config, bert_config, kind, rows, mesh, notes, phase)


def _read_config(
    options: argparse.Namespace, devices: Devices, layout: str | None
) -> PretrainConfig:
    given = {"run": ""} | _read_fields(options.fields)
    said: dict[str, dict[str, str]] = {}
    if layout is not None:
        said["--mesh"] = _read_layout(layout, len(devices.devices))
    if options.rows_per_device is not None:
        rows = options.rows_per_device * len(devices.devices)
        said["--rows-per-device"] = {"batch_size": str(rows)}
    if options.batch_size is not None:
        said["--batch-size"] = {"batch_size": str(options.batch_size)}
    if options.data is not None:
        said["--data"] = {"data": options.data}
    for option, fields in said.items():
        if twice := given.keys() & fields:
            raise UserError(f"--set {min(twice)} and {option} set the same field; leave one out")
        given |= fields
    if "data" not in given:
        given["data"] = ""
        # `parse` reports a missing file.
        with contextlib.suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
            content = yaml.safe_load(Path(options.config).read_text(encoding="utf-8"))
            if isinstance(content, dict) and "data" in content:
                del given["data"]
    words = [f"--{name}={text}" for name, text in given.items()]
    listing = "`bertjax pretrain --help`"  # not this program's
    return parse(PretrainConfig, "", ["--config", options.config, *words], listing)


def _read_fields(words: Sequence[str]) -> dict[str, str]:
    fields = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"--set {word}: give FIELD=VALUE, such as mesh.fsdp=4")
        fields[name] = text
    return fields


def _read_layout(layout: str, devices: int) -> dict[str, str]:
    """Returns the fields of `mesh` for a word such as data or 4x2x2."""
    if layout in AXES:
        fixed = {f"mesh.{axis}": "1" for axis in AXES}
        return fixed | {f"mesh.{layout}": str(devices)}
    sizes = layout.split("x")
    if len(sizes) != len(AXES) or not all(size.isdecimal() for size in sizes):
        raise UserError(
            f"--mesh {layout}: give {', '.join(AXES)} for all devices on that axis, or the sizes of"
            " the three, such as 4x2x2"
        )
    return {f"mesh.{axis}": size for axis, size in zip(AXES, sizes, strict=True)}


def _read_rows(options: argparse.Namespace, config: PretrainConfig, notes: list[str]) -> Rows:
    """Reads the rows' shape from the prepared directory, or else from options and defaults."""
    given = {
        name: value
        for name in ("length", "vocab_size", "examples")
        if (value := getattr(options, name)) is not None
    }
    if options.data or (config.data and Path(config.data).is_dir()):
        prepared = open_prepared(config.data)
        if given:
            raise UserError(
                f"{', '.join(given)}: {config.data} has its own; leave it out, or the data"
            )
        tokenizer = load_tokenizer(prepared.tokenizer_path)
        train = prepared.train
        return Rows(
            train.max_length, train.examples_per_row, Vocabulary.of(tokenizer), tokenizer.pad_id,
            len(train), prepared.has_pairs,
        )  # fmt: skip
    length, size = given.get("length", DEFAULT_LENGTH), given.get("vocab_size", DEFAULT_VOCABULARY)
    wanted = RowConfig(max_length=length, examples_per_row=given.get("examples"))
    if size <= len(_SPECIAL_IDS):
        raise UserError(
            f"--vocab-size {size} must be more than the {len(_SPECIAL_IDS)} special tokens"
        )
    where = f" at {config.data}" if config.data else ""
    notes.append(
        f"no prepared directory{where}: rows of {length} tokens with at most"
        f" {wanted.examples_per_row} examples, and a vocabulary of {size:,}, are assumed"
    )
    vocabulary = Vocabulary(size, _MASK_ID, list(_SPECIAL_IDS), np.zeros(size, bool))
    # Without pairs no head is assumed that the model has not.
    return Rows(length, wanted.examples_per_row, vocabulary, _PAD_ID, _SOME_ROWS, False)


def _read_model(config: PretrainConfig, rows: Rows) -> tuple[BertConfig, Kind]:
    """Returns the model's config, and the kind of class that is trained."""
    if config.model.init is not None:
        folder = find_model(config.model.init)
        shape = load_config(folder)
        bert_config = dataclasses.replace(shape, **config.model.differing_fields(type(shape)))
        kind = kind_to_continue(folder, rows.has_pairs, config.objective)
    else:
        bert_config = shape_new_model(
            config.model, rows.vocabulary.size, {"pad_token_id": rows.pad_id}, rows.length
        )
        kind = kind_of_objective(config.objective, bert_config)
    if rows.length > bert_config.max_length:
        raise UserError(
            f"rows of {rows.length} tokens do not fit the model's {bert_config.length_limit};"
            f" pass --length {bert_config.max_length}"
        )
    return bert_config, kind


def _versions() -> dict[str, str]:
    names = ("bertjax", "jax", "libtpu", "jax-cuda13-pjrt", "jax-cuda12-pjrt")
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
