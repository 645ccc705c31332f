"""A model ready for use, and how a directory or a name on the hub becomes one."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bertjax.architectures import (
    ARCHITECTURES,
    BODY,
    Architecture,
    classes_of,
    find_architecture,
    is_exported,
    kind_of_module,
)
from bertjax.config import CLASSIFIERS, BertConfig, Kind
from bertjax.families.registry import CONFIG_NAME
from bertjax.interop.hub import find_model
from bertjax.interop.huggingface import lacks, read_model_directory
from bertjax.interop.model_tokenizer import load_model_tokenizer
from bertjax.interop.sentence_transformers import (
    MODULES_NAME,
    SentenceModel,
    read_sentence_model,
)
from bertjax.interop.temperature import read_record
from bertjax.interop.tensor_names import parts_with_parameters
from bertjax.kernels.backends import DTYPES, JAX, ONNXRUNTIME, Need, choose_backend
from bertjax.methods import answers, files, study, trust
from bertjax.program.errors import UserError
from bertjax.program.naming import names_arguments
from bertjax.program.wording import with_article
from bertjax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from flax import linen as nn
    from jax.sharding import Mesh

Face = TypeVar("Face")


# Methods that need more of a model than its answers, which is all that an exported one gives.
_OF_THE_INSIDE = (
    "verify", "trace", "heads", "compare_layers", "explain", "what_if", "analyze", "prune",
    "study_pruning", "save", "export",
)  # fmt: skip


def _name_arguments(face: type[Face]) -> type[Face]:
    """Decorates a class so that what its methods raise names arguments, not options."""
    for name, method in vars(face).copy().items():
        if callable(method) and not name.startswith("_"):
            own = _refuse_exported(method) if name in _OF_THE_INSIDE else method
            setattr(face, name, names_arguments(own))
    return face


def _refuse_exported(method: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a method raise a `UserError` where the model was exported."""

    @functools.wraps(method)
    def call(model: "Model", *arguments: Any, **options: Any) -> Any:
        if model.is_exported:
            raise UserError(
                f"{model.directory}: was exported, and {method.__name__} needs what is inside of a"
                " model, which the file does not show; load the model that was exported"
            )
        return method(model, *arguments, **options)

    return call


@_name_arguments
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A BERT ready for use: what it computes with, and notes about it.

    `model.module.apply({"params": model.params}, token_ids)` is a pure function of parameters and
    inputs, for `jax.jit`, `jax.grad` and `jax.vmap`.

    Attributes:
        module: the class with its shape, dtype and attention backend.
        params: its parameters, on the device or on the mesh.
        tokenizer: the model's.
        notes: a sentence for everything that is not as the files have it, and for what was chosen.
        directory: where it was read; None for a model that is in memory only.
        mesh: the devices that it is on; None for jax's first one.
        spare: parameters of the parts that its directory has and its class has not, by their names.
        fitted_temperature: what `calibrate` found of it; None = what its directory knows.
        is_changed: whether `replace` gave it another shape or parameters than its directory has.
    """

    module: "nn.Module"
    params: Mapping[str, Any]
    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()
    directory: Path | None = None
    mesh: "Mesh | None" = None
    spare: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fitted_temperature: Mapping[str, Any] | None = None
    is_changed: bool = False

    # What is done with it; what follows below is the model itself.
    fill_mask = answers.fill_mask
    embed = answers.embed
    predict = answers.predict

    evaluate = trust.evaluate
    compare = trust.compare
    calibrate = trust.calibrate
    gate = trust.gate
    drift = trust.drift
    verify = trust.verify

    trace = study.trace
    heads = study.heads
    compare_layers = study.compare_layers
    explain = study.explain
    contexts = study.contexts
    what_if = study.what_if
    analyze = study.analyze
    prune = study.prune
    study_pruning = study.study_pruning

    save = files.save
    export = files.export

    @property
    def config(self) -> BertConfig:
        """Returns the shape of the model."""
        return self.module.config

    @property
    def architecture(self) -> str:
        """Returns the name of its class, a key of `ARCHITECTURES`."""
        return classes_of(self.config)[self.kind].name

    @property
    def kind(self) -> Kind:
        """Returns the kind of its class, whatever its family."""
        return kind_of_module(self.module)

    @property
    def is_exported(self) -> bool:
        """Returns whether it runs from an exported file, and has no parameters of its own."""
        return is_exported(self.module)

    @property
    def engine(self) -> str:
        """Returns what runs it, one of `kernels.backends.ENGINES`."""
        return ONNXRUNTIME if self.is_exported else JAX

    @property
    def dtype(self) -> str:
        """Returns the name of the dtype of its matrix products; int8 of weights in eight bits."""
        import numpy as np

        return np.dtype(self.module.dtype).name

    @property
    def restores_words(self) -> bool:
        """Returns whether its class has a masked-LM head."""
        return "token" in ARCHITECTURES[self.architecture].outputs

    @functools.cached_property
    def sentence_model(self) -> SentenceModel:
        """Returns how its directory says that vectors of texts are made."""
        if self.directory is None:
            return SentenceModel(Path(), is_told=False)
        return read_sentence_model(self.directory)

    @property
    def calibration(self) -> Mapping[str, Any]:
        """Returns what is known of the temperature in its classifier; nothing where it has none.

        A dict of `temperature`, and, of the examples that it was fitted to, `log_loss` (nats) and
        `calibration_error` before and after.
        """
        if ARCHITECTURES[self.architecture].head not in CLASSIFIERS:
            return {}
        if self.fitted_temperature is not None:
            return self.fitted_temperature
        return read_record(self.directory) if self.directory else {}

    @property
    def parts(self) -> dict[str, Any]:
        """Returns the parameters of all parts above the encoder, the spare ones too."""
        body = self.params.get("bert", self.params)
        own = {**self.params, **body}
        names = ARCHITECTURES[self.architecture].parts
        return dict(self.spare) | {name: own[name] for name in names if name in own}

    def as_architecture(self, name: str) -> "Model":
        """Returns the model as another class, which shares its parameters.

        Args:
            name: a class of its family, or a kind of class ("body", "masked-lm"). A body may lack
                the pooler.

        Raises:
            UserError: the model lacks a part of that class, or there is no such class.
        """
        wanted = find_architecture(name, self.config)
        if not self.is_exported:
            return self._view(wanted, self.architecture)
        outputs = ARCHITECTURES[self.architecture].outputs
        if not {*wanted.outputs} <= {*outputs}:
            raise UserError(
                f"{self.directory}: was exported as {with_article(self.architecture)}, and this"
                f" needs {with_article(wanted.name)}; export the model as that, with --architecture"
            )
        return dataclasses.replace(self, module=self.module.as_kind(wanted.kind))

    def _view(self, wanted: Architecture, known_as: str) -> "Model":
        """Does the work of `as_architecture`; errors say that the model is a `known_as`."""
        parts, is_body = self.parts, wanted.kind == BODY
        lacking = parts_with_parameters(self.config, wanted) - parts.keys()
        if lacking and not is_body:
            raise lacks(self.directory or "the model", known_as, wanted, lacking)
        own = {part: parts.pop(part) for part in wanted.parts if part in parts}
        body = {
            part: value
            for part, value in self.params.get("bert", self.params).items()
            if part != "pooler"
        }
        if "pooler" in own:
            body["pooler"] = own.pop("pooler")
        options = {field: getattr(self.module, field) for field in ("dtype", "remat", "attention")}
        if is_body:
            options["pooling"] = "pooler" in body
        module = wanted.module(self.config, **options)
        params = body if is_body else {"bert": body, **own}
        return dataclasses.replace(self, module=module, params=params, spare=parts)

    def replace(self, **changes: Any) -> "Model":
        """Returns the model with other fields; this one stays as it is.

        Args:
            changes: fields by their names, for instance `params`; `config` is the module's.
        """
        if "config" in changes:
            changes["module"] = self.module.clone(config=changes.pop("config"))
        changed = self.is_changed or not changes.keys().isdisjoint({"module", "params"})
        return dataclasses.replace(self, **{"is_changed": changed, **changes})

    def __repr__(self) -> str:
        import jax

        config = self.config
        numbers = (
            self.module.parameters
            if self.is_exported
            else sum(leaf.size for leaf in jax.tree.leaves(self.params))
        )
        where = f", {'changed from ' * self.is_changed}{self.directory}" if self.directory else ""
        return (
            f"Model({self.architecture}, {config.num_hidden_layers} layers of"
            f" {config.num_attention_heads} heads, hidden_size {config.hidden_size},"
            f" {numbers / 1e6:.1f} M parameters{where})"
        )


@names_arguments
def load(
    name: Path | str,
    architecture: str | None = None,
    *,
    dtype: str = "auto",
    attention: str = "auto",
    mesh: "Mesh | None" = None,
) -> Model:
    """Loads a model directory, ours or Hugging Face's, or a model from the hub.

    Nothing is printed: notes are in `Model.notes`.

    Args:
        name: a folder, or a name on the Hugging Face hub, `org/name[@revision]`.
        architecture: the class that is wanted, a key of `ARCHITECTURES`, or its kind; that of the
            checkpoint when left out. Others can be had later: `Model.as_architecture`.
        dtype: of the matrix products; auto = bfloat16 on GPU and TPU, float32 on CPU. Parameters,
            softmax and statistics are float32 whatever it is.
        attention: a name in `kernels.backends.NAMES`, or auto.
        mesh: the devices that share the rows, and on `fsdp` and `tensor` the parameters
            (`training.sharding.make_mesh`); jax's first device has them all when left out.

    Returns:
        The model, with its parameters in float32 on the devices.

    Raises:
        UserError: no such model, a damaged one, one that lacks what the class needs, a tokenizer
            that is not its own, or a dtype or attention that is unknown or for other devices.
    """
    import jax

    from bertjax.training.execution import compute_dtype
    from bertjax.training.sharding import place_params, read_mesh

    if read_mesh(mesh)[0] is not mesh:
        raise UserError(
            f"mesh={mesh!r:.60} is not a mesh; make one with bertjax.training.sharding.make_mesh"
        )
    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    platform = mesh.devices.flat[0].platform if mesh else jax.default_backend()
    directory = find_model(name)
    folder = directory
    if (directory / MODULES_NAME).is_file() and not (directory / CONFIG_NAME).is_file():
        folder = read_sentence_model(directory).body
    config, params, own, notes = read_model_directory(folder, architecture)
    tokenizer, more = load_model_tokenizer(folder, config)
    products = compute_dtype(dtype, platform)
    _check_attention(attention, platform, jax.numpy.dtype(products).name, config)
    all_notes = [*notes, *more]
    if dtype == "auto" and products != jax.numpy.float32:
        all_notes.append(
            f"matrix products are computed in {jax.numpy.dtype(products).name} on this {platform};"
            " dtype float32 is slower and exact"
        )
    params = place_params(params, mesh) if mesh else jax.device_put(params)
    pooler = {"pooler": params["bert"].pop("pooler")} if "pooler" in params["bert"] else {}
    body = Model(
        classes_of(config)[BODY].module(config, dtype=products, attention=attention, pooling=False),
        params.pop("bert"),
        tokenizer,
        tuple(all_notes),
        directory,
        mesh,
        {**params, **pooler},
    )
    return body._view(find_architecture(architecture or own, config), own)


def _check_attention(name: str, platform: str, dtype: str, config: BertConfig) -> None:
    """Raises a `UserError` where the backend cannot compute what every use of the model needs."""
    window = config.window is not None
    choose_backend(name, Need(platform, dtype, 1, config.head_size, window=window))
