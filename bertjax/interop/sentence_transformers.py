"""What a sentence-transformers directory makes of a BERT's hidden states: modules.json, heeded."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bertjax.interop.checkpoint_files import find_tensors, read_arrays
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json

MODULES_NAME = "modules.json"
# In the order in which several are put side by side. Source: sentence_transformers, `Pooling`.
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Older directories have the settings of the Transformer module under the name of its model.
_SETTINGS_NAMES = ("sentence_bert_config.json", "sentence_roberta_config.json")
# What is as if it were not there, whatever it says, and what would make other vectors.
_IDLE_SETTINGS = ("modality_config", "unpad_inputs", "processing_kwargs")
_KNOWN_SETTINGS = {
    "max_seq_length": None,
    "do_lower_case": None,
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
}
# Of `maths`, numpy's functions or those of another library that has them, and values.
_ACTIVATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "Identity": lambda maths, values: values,
    "Tanh": lambda maths, values: maths.tanh(values),
    "ReLU": lambda maths, values: maths.maximum(values, 0),
    "Sigmoid": lambda maths, values: 1 / (1 + maths.exp(-values)),
}


class Dense(NamedTuple):
    """A linear layer and an activation, after the pooling.

    Attributes:
        weight: of the layer.
        bias: 0 where it has none.
        activation: a key of `_ACTIVATIONS`.
    """

    weight: Float[np.ndarray, "out in"]
    bias: Float[np.ndarray, " out"]
    activation: str

    @property
    def name(self) -> str:
        """What it does, in words."""
        return f"a linear layer to {len(self.weight)} numbers ({self.activation})"

    def __call__(self, vectors: Float[Any, "texts in"]) -> Float[Any, "texts out"]:
        """Returns the layer's output, of arrays of numpy or of jax."""
        maths = vectors.__array_namespace__()
        return _ACTIVATIONS[self.activation](maths, vectors @ self.weight.T + self.bias)


class Normalize:
    """Scales vectors to length 1."""

    name = "scaled to length 1"

    def __call__(self, vectors: Float[Any, "texts D"]) -> Float[Any, "texts D"]:
        """Returns the vectors, of numpy or of jax; one of zeros stays as it is."""
        maths = vectors.__array_namespace__()
        length = maths.linalg.norm(vectors, axis=-1, keepdims=True)
        return vectors / maths.where(length == 0, 1, length)


class SentenceModel(NamedTuple):
    """How a directory makes vectors of texts.

    Attributes:
        body: the directory of the BERT.
        pooling: names of sentence-transformers, whose vectors are put side by side.
        after: what follows the pooling.
        max_length: longest text in tokens, special tokens included; None = the model's positions.
        lowercase: whether texts are made small before the tokenizer sees them.
        prompt: what is put before every text.
        prompts: those that a caller can ask for by name.
        notes: a sentence for everything that is there and not used.
        is_told: whether the directory says so; otherwise it is a BERT as any other.
    """

    body: Path
    pooling: tuple[str, ...] = ("mean",)
    after: tuple[Dense | Normalize, ...] = ()
    max_length: int | None = None
    lowercase: bool = False
    prompt: str = ""
    prompts: Mapping[str, str] = MappingProxyType({})
    notes: tuple[str, ...] = ()
    is_told: bool = True

    @property
    def scales(self) -> bool:
        """Whether the last step scales vectors to length 1."""
        return bool(self.after) and isinstance(self.after[-1], Normalize)

    def size(self, hidden_size: int) -> int:
        """Returns how many numbers a vector has.

        Args:
            hidden_size: of the model, D.
        """
        widths = [len(step.weight) for step in self.after if isinstance(step, Dense)]
        return widths[-1] if widths else len(self.pooling) * hidden_size


def read_sentence_model(path: Path | str) -> SentenceModel:
    """Returns how a directory makes vectors: as its modules.json says, else the mean over tokens.

    A directory with `1_Pooling` and without modules.json is pooled as that says.

    Args:
        path: the directory.

    Raises:
        UserError: a file is missing or damaged, or asks for something that bertjax does not do.

    Source: sentence_transformers 6.2, `base/model.py` and the modules of the same names.
    """
    path = Path(path)
    if not (path / MODULES_NAME).is_file():
        if not (path / "1_Pooling").is_dir():
            return SentenceModel(path, is_told=False)
        pooling = _read_pooling(path / "1_Pooling")
        return SentenceModel(path, pooling, notes=(f"{path}: has 1_Pooling, and no modules.json",))
    modules = _read_modules(path)
    (kind, body), *others = modules
    if kind != "Transformer" or not others or others[0][0] != "Pooling":
        names = ", ".join(kind for kind, _ in modules)
        raise UserError(
            f"{path / MODULES_NAME}: its modules are {names}; bertjax computes a Transformer, then"
            " a Pooling, then any of Dense and Normalize"
        )
    after: list[Dense | Normalize] = []
    for kind, folder in others[1:]:
        if kind == "Dense":
            after.append(_read_dense(folder))
        elif kind == "Normalize":
            _check_fields(folder, {"module_input_name": "sentence_embedding"})
            after.append(Normalize())
        elif kind != "Dropout":  # which is of training
            raise UserError(
                f"{path / MODULES_NAME}: its module {kind} ({folder.name}) is none that bertjax"
                " computes (Transformer, Pooling, Dense, Normalize)"
            )
    max_length, lowercase = _read_settings(body)
    prompt, prompts, notes = _read_prompts(path)
    pooling = _read_pooling(others[0][1], has_prompt=bool(prompt))
    if _read(others[0][1] / "config.json", dict).get("include_prompt") is False:
        prompts = {}  # with one of them the pooling would be another
    return SentenceModel(
        body, pooling, tuple(after), max_length, lowercase, prompt, prompts, tuple(notes)
    )


def write_sentence_model(folder: Path, steps: SentenceModel, hidden_size: int) -> None:
    """Writes the files that say how vectors are made, which `read_sentence_model` reads.

    Args:
        folder: of the BERT.
        steps: how vectors are made.
        hidden_size: of the BERT.
    """
    from safetensors.numpy import save_file

    kinds = ["Transformer", "Pooling", *(type(step).__name__ for step in steps.after)]
    modules = []
    for number, kind in enumerate(kinds):
        path = f"{number}_{kind}" if number else ""
        (folder / path).mkdir(exist_ok=True)
        kind = f"sentence_transformers.models.{kind}"
        modules.append({"idx": number, "name": str(number), "path": path, "type": kind})
    pooling = {name: mode in steps.pooling for name, mode in POOLINGS.items()}
    config = {"word_embedding_dimension": hidden_size, **pooling}
    if steps.pooling != tuple(mode for mode in POOLINGS.values() if mode in steps.pooling):
        config["pooling_mode"] = list(steps.pooling)  # in an order of its own
    settings = {"max_seq_length": steps.max_length, "do_lower_case": steps.lowercase}
    names = [name for name, text in steps.prompts.items() if text and text == steps.prompt]
    prompts = {"prompts": dict(steps.prompts), "default_prompt_name": next(iter(names), None)}
    files: dict[str, Any] = {
        MODULES_NAME: modules,
        "1_Pooling/config.json": config,
        _SETTINGS_NAMES[0]: settings,
        **({"config_sentence_transformers.json": prompts} if steps.prompts else {}),
    }
    for step, module in zip(steps.after, modules[2:], strict=True):
        if isinstance(step, Dense):
            files[f"{module['path']}/config.json"] = {
                "in_features": step.weight.shape[1],
                "out_features": len(step.weight),
                "bias": True,
                "activation_function": f"torch.nn.modules.activation.{step.activation}",
            }
            tensors = {"linear.weight": np.ascontiguousarray(step.weight), "linear.bias": step.bias}
            save_file(tensors, folder / module["path"] / "model.safetensors")
    for name, content in files.items():
        (folder / name).write_text(to_json(content, indent=2) + "\n", encoding="utf-8")


def module_folders(path: Path) -> list[Path]:
    """Returns the folders of the modules beside the Transformer, for those that have one.

    Raises:
        UserError: modules.json is damaged.
    """
    listed = _read_modules(path) if (path / MODULES_NAME).is_file() else [("", path / "1_Pooling")]
    folders = [folder for _, folder in listed if folder.is_dir()]
    return [folder for folder in folders if not folder.samefile(path)]


def _read_modules(path: Path) -> list[tuple[str, Path]]:
    """Returns the kind and the folder of each module."""
    listed = _read(path / MODULES_NAME, list)
    modules = []
    for module in listed:
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            raise UserError(f"{path / MODULES_NAME}: damaged, a module has no type")
        package, _, kind = module["type"].rpartition(".")
        folder = path / str(module.get("path", ""))
        if package.split(".")[0] != "sentence_transformers":
            raise UserError(
                f"{path / MODULES_NAME}: its module {module['type']} is code of its own, which"
                " bertjax does not run"
            )
        if not folder.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{path / MODULES_NAME}: {module['path']} is outside the directory")
        modules.append((kind, folder))
    if not modules:
        raise UserError(f"{path / MODULES_NAME}: lists no module")
    return modules


def _read_pooling(folder: Path, *, has_prompt: bool = False) -> tuple[str, ...]:
    file = folder / "config.json"
    config = _read(file, dict)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for name, mode in POOLINGS.items() if config.get(name)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    unknown = [name for name in config if name.startswith("pooling_mode_") and config[name]]
    unknown = [name for name in unknown if name not in POOLINGS]
    unknown += [str(mode) for mode in modes if mode not in POOLINGS.values()]
    if unknown:
        raise UserError(
            f"{file}: asks for {', '.join(unknown)}; bertjax pools by"
            f" {', '.join(POOLINGS.values())}"
        )
    if has_prompt and config.get("include_prompt") is False:
        raise UserError(
            f"{file}: include_prompt=false, the prompt left out of the pooling, is not done here"
        )
    return tuple(modes)


def _read_dense(folder: Path) -> Dense:
    config = _check_fields(
        folder,
        {
            "module_input_name": "sentence_embedding",
            "module_output_name": "sentence_embedding",
            "use_residual": False,
        },
    )
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.") or name not in _ACTIVATIONS:
        raise UserError(
            f"{folder / 'config.json'}: activation_function={activation} is none that bertjax"
            f" computes ({', '.join(_ACTIVATIONS)})"
        )
    arrays = read_arrays(find_tensors(folder))
    shape = tuple(config.get(name) for name in ("out_features", "in_features"))
    weight = arrays.get("linear.weight")
    if weight is None or weight.shape != shape or set(arrays) - {"linear.weight", "linear.bias"}:
        raise UserError(
            f"{folder}: its tensors {', '.join(sorted(arrays)) or '(none)'} are not the weight"
            f" {list(shape)} and the bias of its config.json"
        )
    bias = arrays.get("linear.bias", np.zeros(len(weight), np.float32))
    return Dense(weight, bias, name)


def _check_fields(folder: Path, only: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config of a module, whose fields may have these values or be left out."""
    file = folder / "config.json"
    config = _read(file, dict) if file.is_file() else {}
    for field, value in only.items():
        if config.get(field) not in (None, value):
            raise UserError(
                f"{file}: {field}={to_json(config[field])}; bertjax does {to_json(value)} only"
            )
    return config


def _read_settings(body: Path) -> tuple[int | None, bool]:
    """Returns the longest text in tokens, and whether texts are made small."""
    file = next((body / name for name in _SETTINGS_NAMES if (body / name).is_file()), None)
    settings = {} if file is None else _read(file, dict)
    for field, value in settings.items():
        wanted = _KNOWN_SETTINGS.get(field)
        is_known = field in _KNOWN_SETTINGS and (wanted is None or value == wanted)
        if value and not is_known and field not in _IDLE_SETTINGS:
            raise UserError(f"{file}: {field}={to_json(value)} is not done by bertjax")
    most = settings.get("max_seq_length")
    if most is None and (body / "tokenizer_config.json").is_file():
        most = _read(body / "tokenizer_config.json", dict).get("model_max_length")
    if most is not None and (not isinstance(most, int) or most < 3):
        raise UserError(f"{body}: max_seq_length={to_json(most)} must be a number from 3 on")
    return most, bool(settings.get("do_lower_case"))


def _read_prompts(path: Path) -> tuple[str, dict[str, str], list[str]]:
    """The default prompt, all by their names, and a sentence on those that are not the default."""
    file = path / "config_sentence_transformers.json"
    config = _read(file, dict) if file.is_file() else {}
    listed, name = config.get("prompts") or {}, config.get("default_prompt_name")
    prompts = {name: text for name, text in listed.items() if isinstance(text, str)}
    if name is not None:
        if name not in prompts:
            raise UserError(f"{file}: default_prompt_name={name!r} is none of its prompts")
        return prompts[name], prompts, []
    others = {name: text for name, text in prompts.items() if text}
    if not others:
        return "", prompts, []
    told = ", ".join(f"{name} ({text!r})" for name, text in others.items())
    note = f"{file}: its prompts {told} are put before no text: none of them is the default"
    return "", prompts, [note]


def _read(file: Path, kind: type) -> Any:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; the directory is not whole") from None
    except ValueError as error:
        raise UserError(f"{file}: damaged, not JSON ({error})") from None
    if not isinstance(values, kind):
        raise UserError(f"{file}: damaged, not {'a list' if kind is list else 'an object'}")
    return values
