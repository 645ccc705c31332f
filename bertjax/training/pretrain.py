"""Pretrains a BERT on prepared rows with the masked language model and next-sentence prediction.

    bertjax pretrain --config configs/pretrain/minutes.yaml --data DIR --run runs/mine

The same command continues a run that was stopped or killed, to the same bits.
"""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
from jax.sharding import Mesh

from bertjax.config import BertConfig
from bertjax.interop.checkpoint_files import fingerprint_weights
from bertjax.interop.hub import find_model
from bertjax.objectives.masking import Vocabulary
from bertjax.objectives.replaced_tokens import GeneratorAndDiscriminator
from bertjax.program.config_parser import make_config
from bertjax.program.errors import UserError
from bertjax.program.naming import names_arguments
from bertjax.program.output_directory import whole_directory
from bertjax.program.outputs import make_folder
from bertjax.program.wording import counted
from bertjax.text.rows import PREPARED_FILES, PreparedDirectory, open_prepared
from bertjax.text.texts_in_memory import prepare_texts
from bertjax.text.tokenizer import load_tokenizer
from bertjax.training.budget import Clock
from bertjax.training.curves import CurvesDrawer
from bertjax.training.evaluation import DueEvaluations, cost_in_steps, make_evaluation
from bertjax.training.generator_directory import (
    GENERATOR_NAME,
    load_pretrained,
    shape_generator,
    start_generator,
)
from bertjax.training.metrics import measure_matmul_rate, read_metrics
from bertjax.training.phases import PhasesConfig
from bertjax.training.precision import WIDE, ImpreciseError, prove_agreement, settle_dtype
from bertjax.training.pretrain_config import PretrainConfig, kind_of_objective
from bertjax.training.pretrain_phases import open_phases
from bertjax.training.pretrain_validation import LookInside, Patience, Validation
from bertjax.training.processes import Agreement, is_first, wait_for_all
from bertjax.training.progress import Reporter
from bertjax.training.replay import describe_replay, open_replay
from bertjax.training.result import Result
from bertjax.training.run_directory import PREPARED_NAME, check_kind
from bertjax.training.run_step import identity_of_step
from bertjax.training.session import Session
from bertjax.training.sharding import check_batch, make_mesh, read_mesh
from bertjax.training.starting_model import resolve_model
from bertjax.training.state import count_parameters, new_state

_NO_SCORES = ("step", "split", "timing")


@names_arguments
def pretrain(
    data: Any,
    *,
    run: Path | str,
    tokenizer: Any = None,
    vocab_size: int | None = None,
    preparation: Mapping[str, Any] | None = None,
    mesh: Any = None,
    progress: Callable[[str], None] | None = None,
    make_development: Callable[..., Any] | None = None,
    **fields: Any,
) -> Result:
    """Pretrains a model with the masked language model and next-sentence prediction.

        result = pretrain(texts, vocab_size=8192, run="runs/mine", size="mini", minutes=10)

    A KeyboardInterrupt between two steps (Ctrl-C in a notebook) saves the run and returns what
    there is; the same call continues from there, to the same bits.

    Args:
        data: a prepared directory (`bertjax prepare`), or documents as texts, which are prepared
            into the run directory.
        run: the run directory.
        tokenizer: of texts: a tokenizer, its directory or file.
        vocab_size: of the tokenizer that is made of the texts, where none is given.
        preparation: of texts: any field of `PreparationOptions`, as `fields` are named.
        mesh: the devices: a `jax.sharding.Mesh`, or the fields of `MeshConfig`.
        progress: is called with every line that the run reports.
        make_development: see `run_pretraining`.
        fields: any field of `PretrainConfig`: in its section (`budget={"minutes": 10}`), or by its
            last part alone (`minutes=10`).

    Returns:
        The run: scores (losses in nats, rates as shares of 1), history, and the best model.

    Raises:
        UserError: an unknown field, other texts than the run was begun with, and whatever
            `prepare` and `run_pretraining` raise.
    """
    mesh, axes = read_mesh(mesh)
    reporter = Reporter(progress)
    # Everything is checked before texts are prepared, which may take long.
    config = make_config(PretrainConfig, {"data": "texts", "run": run, **axes, **fields})
    with tempfile.TemporaryDirectory(prefix="bertjax-rows-") as folder:
        if isinstance(data, str | os.PathLike):
            unused = {"tokenizer": tokenizer, "vocab_size": vocab_size, "preparation": preparation}
            for name, value in unused.items():
                if value is not None:
                    raise UserError(
                        f"{name} is for texts, and data={data} is prepared; leave it out"
                    )
            rows = Path(data)
        else:
            rows = Path(folder) / PREPARED_NAME
            prepare_texts(
                data, tokenizer, vocab_size, rows, preparation or {}, reporter.say,
                config.model.family or BertConfig.MODEL_TYPE,
            )  # fmt: skip
            if not config.dry_run:
                rows = _keep_rows(rows, Path(run))
        config = dataclasses.replace(config, data=os.fspath(rows))
        return run_pretraining(
            config, mesh=mesh, reporter=reporter, make_development=make_development
        )


def _keep_rows(rows: Path, run: Path) -> Path:
    """Moves prepared rows into a run directory, which has the same ones where it was begun."""
    kept = run / PREPARED_NAME
    if not kept.exists():
        check_kind(run)
        make_folder(run)
        with whole_directory(kept, False, PREPARED_FILES, [str(rows)]) as partial:
            shutil.copytree(rows, partial, dirs_exist_ok=True)
    elif open_prepared(kept).fingerprint != open_prepared(rows).fingerprint:
        raise UserError(
            f"run={run} was begun with other texts, or with other options of preparation; put them"
            " back, or name a new directory"
        )
    return kept


def run_pretraining(
    config: PretrainConfig,
    *,
    mesh: Mesh | None = None,
    reporter: Reporter | None = None,
    make_development: Callable[..., Any] | None = None,
    origin: Mapping[str, Any] = MappingProxyType({"program": "bertjax pretrain"}),
) -> Result:
    """Makes one run, from rows to model directory.

    Args:
        config: of the run.
        mesh: the devices; as `config.mesh` says, when left out.
        reporter: reports the run.
        make_development: what measures the model while it trains, where `config.development` asks
            for it: `bertjax.analysis.report.development.Development`.
        origin: what run.json says of the program that asked for it.

    Raises:
        UserError: the rows, the model and the options do not go together, or the directory holds
            another run.
    """
    if config.development.examples and make_development is None:
        raise ValueError(f"development.examples={config.development.examples} needs Development")
    reporter = reporter or Reporter()
    try:
        return _run(config, mesh, reporter, make_development, origin)
    except ImpreciseError as error:
        reporter.say(str(error))
        wide = dataclasses.replace(config, dtype=WIDE)
        return _run(wide, mesh, reporter, make_development, origin)


def _run(
    config: PretrainConfig,
    mesh: Mesh | None,
    reporter: Reporter,
    make_development: Callable[..., Any] | None,
    origin: Mapping[str, Any],
) -> Result:
    # ---------------------------------------------------------------- rows, tokenizer, model
    prepared = open_prepared(config.data)
    tokenizer = load_tokenizer(prepared.tokenizer_path)
    vocabulary = Vocabulary.of(tokenizer)
    _check_rows(prepared, config)
    replay = open_replay(config.replay, prepared, tokenizer)
    bert_config, start_params, kind, notes = resolve_model(
        config.model, config.seed, prepared, tokenizer, vocabulary, config.objective
    )
    generator_config = shape_generator(config, bert_config)
    start_params, of_generator = start_generator(config, start_params)

    # ---------------------------------------------------------------- how it is trained
    mesh = make_mesh(config.mesh) if mesh is None else mesh
    config, chosen = settle_dtype(config, bert_config, mesh)
    check_batch("evaluation.batch_size", config.evaluation.batch_size, mesh)
    rows_of_epoch = config.replay.rows_of_epoch(len(prepared.train))
    clock = Clock(config.budget, rows_of_epoch, config.batch_size)
    of_phases = prepared, replay, tokenizer, bert_config, generator_config, kind, clock, mesh
    phases = open_phases(config, *of_phases)
    model, optimizer, objective, _ = phases[-1].step
    evaluate = make_evaluation(
        config.evaluation, model.clone(causal=False), vocabulary, prepared.token_counts, mesh
    )

    identity = _identity(config, bert_config, generator_config, prepared, replay)
    # Runs of before are of the class that their family is pretrained as.
    identity["class"] = None if kind == kind_of_objective(config.objective, bert_config) else kind
    with Session(config, identity, clock, mesh, reporter) as session:
        session.note(*tokenizer.notes, *notes, *of_generator, *([chosen] if chosen else []))
        key = jax.random.key(config.seed)
        state = new_state(
            model, optimizer, mesh, key, objective.terms, start_params, bool(config.average)
        )
        del start_params
        state = session.restore(state)
        run, step = session.run, int(state.step)
        patience = Patience(config.evaluation, session.remembered)
        is_over = session.is_over or patience.reason is not None
        if session.continues and is_over and session.has_written("test"):
            session.say(
                f"{run} is finished: {counted(step, 'step')}; its model is in {run / 'model'}"
            )
            return session.result(_read_scores(run, patience.reason))
        rate = measure_matmul_rate(mesh, model.dtype)
        session.say(
            f"{_describe_parameters(state.params)}, "
            f"{int(prepared.token_counts.sum()):,} tokens in {len(prepared.train):,} rows of"
            f" {prepared.train.max_length}, {describe_replay(config.replay, replay)}"
            f"{clock.describe()}"
            f" of {_join(each.phase.batch_size for each in phases)} rows on"
            f" {mesh.devices.size} {jax.default_backend()} device(s),"
            f" {_join(f'{each.flops:.3g}' for each in phases)} FLOP a step; matrix products"
            f" run at {rate / 1e9:,.0f} GFLOP/s here; attention is {model.attention}"
        )
        look_inside = LookInside(config, bert_config, kind, prepared, session, make_development)
        compiled = session.compile(
            [(each.step.take, each.some_batch, each.flops / rate) for each in phases],
            state,
            lambda: evaluate(state.params, prepared.validation, 1),
        )
        if chosen:
            wide = dataclasses.replace(config, dtype=WIDE)
            take = open_phases(wide, *of_phases)[0].step.take
            batches = phases[0].batches([0])
            with session.during("comparing bfloat16 with float32"):
                session.say(prove_agreement(compiled[0], take, state, batches, mesh))
        if config.dry_run:
            return session.result({})

        # ------------------------------------------------------------ the loop (training/loop.py)
        cost = cost_in_steps(
            sum(_evaluated(config, each) for each in (prepared, replay) if each is not None),
            min(each.phase.batch_size * each.rows.max_length for each in phases),
            model,
        )
        curves = CurvesDrawer(run)
        validation = Validation(
            config, model, prepared, replay, evaluate, session, curves, look_inside, patience
        )
        with session.training({**origin, **_origin(config, prepared)}):
            if not (session.continues or config.evaluation.at_start):
                look_inside(state)
            state, over = session.train(
                state,
                [each.stretch(step, rate) for each, step in zip(phases, compiled, strict=True)],
                DueEvaluations(config.evaluation, clock, cost),
                validation,
                Agreement(mesh, clock, session.stop),
                begin=validation.begin if config.evaluation.at_start else None,
                ended=patience.reason is not None,
            )
        if not over:
            return session.result({}, session.stop.name)

        # ------------------------------------------------------------ the test split, once
        wait_for_all("the model is written")
        params = load_pretrained(run / "model", model, mesh)
        validation.score(params, int(state.step), "test", 0)
        if is_first():
            curves.draw()
            session.say("\n".join(curves.notes) or f"curves     {run / 'curves.png'}")
        look_inside.draw()
        session.say(
            f"model      {run / 'model'}\nmetrics    {run / 'metrics.jsonl'}\n"
            f"try it     {_show_use(run / 'model', model, tokenizer.mask_token)}"
        )
        return session.result(_read_scores(run, patience.reason))


def _join(figures: Iterable[Any]) -> str:
    """Returns the figures of the phases, each once."""
    return " or ".join(dict.fromkeys(map(str, figures)))


def _describe_parameters(params: Any) -> str:
    said = f"{count_parameters(params):,} parameters"
    if "discriminator" not in params:
        return said
    of_model = count_parameters(params["discriminator"])
    return f"{said}, of which {of_model:,} are the model's and the others its generator's"


def _show_use(model: Path, pretrained: Any, mask_token: str) -> str:
    """Returns a command that uses the model; a discriminator knows no words, its generator does."""
    if not isinstance(pretrained, GeneratorAndDiscriminator):
        return f'bertjax fill-mask --model {model} "... {mask_token} ..."'
    return (
        f'bertjax embed --model {model} --output vectors.npy "..."\n'
        f'           bertjax fill-mask --model {model / GENERATOR_NAME} "... {mask_token} ..."'
    )


def _read_scores(run: Path, reason: str | None) -> dict[str, Any]:
    """Returns the last step that was tested, the model, its scores, and why the run ended early."""
    last = {line["split"]: line for line in read_metrics(run / "metrics.jsonl")}
    scores = {
        split: {name: value for name, value in last[split].items() if name not in _NO_SCORES}
        for split in ("test", "replay_test")
        if split in last
    }
    ended = {"ended_early": reason} if reason else {}
    return {"step": last["test"]["step"], "model": str(run / "model"), **ended, **scores}


def _evaluated(config: PretrainConfig, prepared: PreparedDirectory) -> int:
    """Returns how many tokens of a prepared directory an evaluation looks at."""
    rows = prepared.validation
    return min(config.evaluation.rows or len(rows), len(rows)) * rows.max_length


def _check_rows(prepared: PreparedDirectory, config: PretrainConfig) -> None:
    for split in ("train", "validation", "test"):
        if not len(getattr(prepared, split)):
            fraction = "" if split == "train" else f" with --{split}-fraction above 0"
            raise UserError(
                f"{config.data}: its {split} split has no rows, and a run needs all three; prepare"
                f" it again{fraction or ', from more text'}"
            )


def _identity(
    config: PretrainConfig,
    bert_config: BertConfig,
    generator_config: BertConfig | None,
    prepared: PreparedDirectory,
    replay: PreparedDirectory | None,
) -> dict[str, Any]:
    """Returns what must be the same for a checkpoint to be continued."""
    init = find_model(config.model.init) if config.model.init else None
    return {
        "data": prepared.fingerprint,
        "model": bert_config.to_dict(),
        "init": fingerprint_weights(init) if init else None,
        "replay": replay and replay.fingerprint,
        "replay_share": str(config.replay.exact_share) if config.replay.share else None,
        "paths": {
            "data": str(Path(config.data).absolute()),
            "init": str(init.absolute()) if init else None,
            "replay": replay and str(replay.path.absolute()),
        },
        "start": config.model.start,
        "masking": dataclasses.asdict(config.masking),
        "phases": _identity_of_phases(config.phases),
        "average": config.average or None,
        "z_loss": config.z_loss or None,
        **identity_of_step(config),
        # None, as in runs that were begun before there was another objective.
        "objective": config.objective if generator_config else None,
        "replaced_tokens": dataclasses.asdict(config.replaced_tokens) if generator_config else None,
        "generator": generator_config.to_dict() if generator_config else None,
    }


def _identity_of_phases(config: PhasesConfig) -> dict[str, Any]:
    """Returns the lists that are given, with the fingerprints of rows in the place of their paths.

    What is not given is None, as in runs of before there were phases.
    """
    data = [open_prepared(path).fingerprint for path in config.data]
    lists = vars(config) | {"data": data}
    return {name: items or None for name, items in lists.items()}


def _origin(config: PretrainConfig, prepared: PreparedDirectory) -> dict[str, Any]:
    """Returns what stands in run.json beside the versions."""
    return {
        "seed": config.seed,
        "data": str(Path(config.data).absolute()),
        "data_fingerprint": prepared.fingerprint,
    }
