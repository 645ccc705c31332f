"""What a directory is: a model, export, run, prepared directory or tokenizer, by its files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.program.errors import UserError

if TYPE_CHECKING:
    from bertjax.config import BertConfig


def describe_directory(path: Path | str) -> dict[str, Any]:
    """Describes what is at `path`, in JSON; its `kind` is "model", "exported", "run", "prepared"
    or "tokenizer".

    Raises:
        UserError: it is none of these, or one that is damaged.
    """
    from bertjax.interop.checkpoint_files import describe_convertible, has_weights
    from bertjax.interop.signature import EXPORTED_NAMES

    path = Path(path)
    if not path.is_dir():
        raise UserError(
            f"{path}: {'is a file' if path.exists() else 'no such directory'}; name a directory"
        )
    if (path / "data_card.json").exists():
        return describe_prepared(path)
    # A run that was stopped while it compiled has no more than its lock and an empty folder.
    if any((path / name).exists() for name in ("run.json", "checkpoints", ".lock")):
        return describe_run(path)
    exported = [name for name in EXPORTED_NAMES if (path / name).is_file()]
    if exported and not has_weights(path) and not describe_convertible(path):
        return describe_exported(path, exported)
    if (path / "config.json").exists() or list(path.glob("*.safetensors")):
        return describe_model(path)
    if way_out := describe_convertible(path):
        raise UserError(f"{path}: {way_out}")
    if tokenizer := _describe_tokenizer(path):
        return {"kind": "tokenizer", "path": str(path), "model": tokenizer.pop("kind"), **tokenizer}
    raise UserError(
        f"{path}: neither a model (config.json, model.safetensors), nor a run (run.json,"
        " metrics.jsonl, checkpoints), nor a prepared directory (data_card.json), nor a tokenizer"
        " (tokenizer.json, vocab.txt); it holds"
        f" {_list_names(path)}"
    )


def describe_model(path: Path) -> dict[str, Any]:
    """Describes a model directory: size, parts, tokenizer, how its labelled files are read."""
    from bertjax.interop.huggingface import inspect_model_directory

    contents = inspect_model_directory(path)
    return {
        "kind": "model",
        "path": str(path),
        "architecture": contents.architecture,
        "parameters": contents.parameters,
        "stored_as": ", ".join(contents.dtypes),
        **_describe_shape(contents.config),
        "heads": contents.parts,
        **_describe_beside(path, contents.config),
    }


def describe_exported(path: Path, files: Sequence[str]) -> dict[str, Any]:
    """Describes a directory that `bertjax export` wrote.

    Args:
        path: the directory.
        files: the exported ones in it, whose sizes are in bytes.

    Raises:
        UserError: its config.json is missing, or cannot be read.
    """
    from bertjax.families.registry import load_config
    from bertjax.interop.huggingface import read_architecture

    config = load_config(path)
    return {
        "kind": "exported",
        "path": str(path),
        "architecture": read_architecture(path, config),
        "files": {name: (path / name).stat().st_size for name in files},
        **_describe_shape(config),
        **_describe_beside(path, config),
    }


def _describe_shape(config: "BertConfig") -> dict[str, Any]:
    return {
        "num_hidden_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.hidden_act,
        "max_position_embeddings": config.max_position_embeddings,
        "max_length": config.max_length,
        **_describe_reach(config),
        "vocab_size": config.vocab_size,
    }


def _describe_beside(path: Path, config: "BertConfig") -> dict[str, Any]:
    """Describes what is beside a model's weights: tokenizer, how files are read, temperature."""
    from bertjax.interop.temperature import read_record
    from bertjax.tasks.data_format import recall

    remembered, calibration = recall(path), read_record(path)
    return {
        "tokenizer": _describe_tokenizer(path, config),
        **({"files_are_read_with": remembered} if remembered else {}),
        **({"calibration": calibration} if calibration else {}),
    }


def _describe_reach(config: "BertConfig") -> dict[str, Any]:
    """Describes how far tokens see, and which layers' see less than all, where any do."""
    if config.window is None:
        return {}
    if all(config.local_layers):
        return {"attention_window": config.window}
    layers = [layer for layer, local in enumerate(config.local_layers) if local]
    return {"attention_window": config.window, "local_layers": layers}


def describe_run(path: Path) -> dict[str, Any]:
    """Describes a run directory: how far it came, its last and its best evaluation, what it left.

    The best evaluation is, as in the run itself, that with the lowest validation loss; of
    fine-tuning that whose model was kept.

    Raises:
        UserError: a damaged run.json or eval_results.json.
    """
    from bertjax.tasks.scoring import goodness
    from bertjax.training.ledger import read_ledger
    from bertjax.training.metrics import read_metrics

    about, results = (_read_object(path / name) for name in ("run.json", "eval_results.json"))
    metrics = path / "metrics.jsonl"
    lines = read_metrics(metrics) if metrics.exists() else []
    validations = [line for line in lines if line["split"] == "validation"]
    # A fine-tuning run of before its score stood in run.json has it in its results.
    is_finetuning = about.get("program", "").endswith("finetune")
    score = about.get("score", results.get("score")) if is_finetuning else "loss"
    measured = [line for line in validations if score and line.get(score) is not None]
    kept = [line for line in validations if line.get("kept")]
    best = max(measured, key=lambda line: goodness(score, line)) if measured else None
    tests = [line for line in lines if line["split"] == "test"]
    folder = path / "checkpoints"
    names = [saved.name for saved in folder.iterdir()] if folder.is_dir() else []
    checkpoints = sorted(int(name) for name in names if name.isdigit())
    last_step = max([0, *checkpoints, *(line["step"] for line in lines)])
    model = path / "model"
    return {
        "kind": "run",
        "path": str(path),
        **about,
        "last_step": last_step,
        "checkpoints": checkpoints,
        "finished": bool(results)
        if is_finetuning
        else bool(tests) and tests[-1]["step"] == last_step > 0,
        "last_validation": _scores(validations[-1]) if validations else None,
        # Lines of before there was a note of what was kept: by the score alone.
        "best_validation": _scores(kept[-1] if kept else best) if measured else None,
        "test": _scores(tests[-1]) if tests else None,
        **_describe_adaptation(path),
        **({"time": time} if (time := read_ledger(path)) else {}),
        "model": describe_model(model) if model.is_dir() else None,
    }


def _describe_adaptation(path: Path) -> dict[str, Any]:
    """Describes what an adaptation made of its texts; nothing for other runs."""
    record = _read_object(path / "adaptation" / "record.json")
    if not record:
        return {}
    return {
        "new_tokens": len(record["new_tokens"]),
        "tokens_per_word": {
            when: {what: cuts["tokens_per_word"] for what, cuts in those.items()}
            for when, those in record["vocabulary"].items()
        },
    }


def describe_prepared(path: Path) -> dict[str, Any]:
    """Describes a prepared directory, every byte checked: splits, tokens, tokenizer."""
    from bertjax.text.rows import SPLITS, open_prepared

    prepared = open_prepared(path, check_again=True)
    splits = {
        split: {
            name: value
            for name, value in prepared.card["splits"][split].items()
            if isinstance(value, (int, float, str))
        }
        for split in SPLITS
    }
    has_tokenizer = prepared.tokenizer_path.is_dir()
    return {
        "kind": "prepared",
        "path": str(path),
        "max_length": prepared.card["max_length"],
        "examples_per_row": prepared.card["examples_per_row"],
        "vocab_size": prepared.card["vocab_size"],
        "training_tokens": int(prepared.token_counts.sum()),
        "splits": splits,
        "tokenizer": _describe_tokenizer(prepared.tokenizer_path) if has_tokenizer else None,
        "fingerprint": prepared.fingerprint,
    }


def _describe_tokenizer(path: Path, config: "BertConfig | None" = None) -> dict[str, Any] | None:
    from bertjax.text.tokenizer_files import find_tokenizer_file

    if find_tokenizer_file(path) is None:
        return None
    from bertjax.interop.model_tokenizer import compare_special_ids
    from bertjax.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(path)
    description = tokenizer.describe()
    if config is not None:
        if tokenizer.vocab_size != config.vocab_size:
            description["notes"].append(tokenizer.describe_other_size(config.vocab_size))
        description["notes"] += compare_special_ids(tokenizer, config)
    return description


def _read_object(path: Path) -> dict[str, Any]:
    """Returns what a file of JSON holds; nothing where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path}: damaged, not JSON ({error})") from None


def _scores(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("split", "timing")}


def _list_names(path: Path) -> str:
    names = sorted(file.name for file in path.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
