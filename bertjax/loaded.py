"""A model ready for use, and how a directory or a name on the hub becomes one."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from bertjax.architectures import (
    ARCHITECTURES,
    BODY,
    MASKED_LM,
    Architecture,
    classes_of,
    find_architecture,
    kind_of_module,
)
from bertjax.config import BertConfig, Kind
from bertjax.families.registry import CONFIG_NAME
from bertjax.interop.hub import find_model
from bertjax.interop.huggingface import lacks, read_model_directory
from bertjax.interop.model_tokenizer import load_model_tokenizer
from bertjax.interop.sentence_transformers import (
    MODULES_NAME,
    SentenceModel,
    read_sentence_model,
)
from bertjax.interop.tensor_names import parts_with_parameters
from bertjax.kernels.backends import DTYPES, Need, choose_backend
from bertjax.program.errors import UserError
from bertjax.program.naming import name_arguments, names_arguments
from bertjax.program.stages import StageProgress, ignore_stages
from bertjax.program.wording import with_article
from bertjax.text.given_texts import place_texts, read_text, read_texts
from bertjax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from flax import linen as nn
    from jax.sharding import Mesh

    from bertjax.analysis.capture.maps import Captured
    from bertjax.analysis.explain.explanation import Explanation
    from bertjax.analysis.explain.what_if import WhatIf
    from bertjax.analysis.heads.patterns import HeadPatterns
    from bertjax.analysis.heads.pruning_study import PruningStudy
    from bertjax.analysis.layers.contexts import NearestContexts
    from bertjax.analysis.report.analyze import Report
    from bertjax.statistics.intervals import Interval
    from bertjax.tasks.evaluation import Evaluation
    from bertjax.tasks.significance import ComparedModels
    from bertjax.verification.checks import Check


Face = TypeVar("Face")


def _ignore(done: float) -> None:
    """Ignores progress that nobody asks for."""


def _name_arguments(face: "type[Face]") -> "type[Face]":
    """Decorates a class so that what its methods raise names arguments, not options."""
    for name, method in vars(face).copy().items():
        if callable(method) and not name.startswith("_"):
            setattr(face, name, names_arguments(method))
    return face


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
    """

    module: "nn.Module"
    params: Mapping[str, Any]
    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()
    directory: Path | None = None
    mesh: "Mesh | None" = None
    spare: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
        if not getattr(self.module, "is_exported", False):
            return self._view(wanted, self.architecture)
        if wanted.name != self.architecture:
            raise UserError(
                f"{self.directory}: was exported as {with_article(self.architecture)}, and this"
                f" needs {with_article(wanted.name)}; export the model as that, with --architecture"
            )
        return self

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
        return self.replace(module=module, params=params, spare=parts)

    def replace(self, **changes: Any) -> "Model":
        """Returns the model with other fields; this one stays as it is.

        Args:
            changes: fields by their names, for instance `params`; `config` is the module's.
        """
        if "config" in changes:
            changes["module"] = self.module.clone(config=changes.pop("config"))
        return dataclasses.replace(self, **changes)

    def fill_mask(
        self, texts: Sequence[str], top_k: int = 5, progress: Callable[[int], None] = _ignore
    ) -> list[Any]:
        """Returns the likeliest words at every mask of each text (`inference.fill_mask`).

        Args:
            texts: any number, each with at least one mask (`tokenizer.mask_token`).
            top_k: words a mask, 1 to V.
            progress: called with the number of texts done since the last call.

        Returns:
            A `FilledText` a text: probabilities, and the text with the likeliest words.

        Raises:
            UserError: a text without a mask, or longer than the model; no masked-LM head; `top_k`
                out of range.

        Source: Devlin et al. 2019, section 3.1.
        """
        from bertjax.inference.fill_mask import fill_mask

        model, texts = self.as_architecture(MASKED_LM), read_texts(texts, pairs=False)
        _warn(model.tokenizer.describe_readings(texts, masks=True))
        return fill_mask(
            model.module, model.params, model.tokenizer, texts, top_k, progress, self.mesh
        )

    def embed(
        self,
        texts: Sequence[str],
        pooling: str | Sequence[str] | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        progress: Callable[[int], None] = _ignore,
    ) -> "np.ndarray":
        """Returns the vectors of texts, float32 `[texts, D]` (`inference.embedding`).

        Args:
            texts: any number.
            pooling: what is made of the hidden states of a text's tokens, for instance "mean" or
                "cls"; what the directory says when left out, else the mean.
            normalize: whether vectors are scaled to length 1; as the directory says when left out.
            max_length: longest text in tokens, longer ones are cut; what the directory says when
                left out, else the model's positions.
            progress: called with the number of texts done since the last call.

        Raises:
            UserError: a pooling that is unknown, a length that the model has not, no list of texts.

        Source: Reimers & Gurevych 2019, section 3 (the mean of the tokens).
        """
        from bertjax.inference.embedding import choose_steps, embed

        steps = choose_steps(self, pooling, normalize, max_length)
        vectors, notes = embed(self, read_texts(texts, pairs=False), steps, progress)
        _warn(notes)
        return vectors

    def predict(self, texts: Any, progress: Callable[[float], None] = _ignore) -> list[Any]:
        """Returns what a fine-tuned model answers (`inference.labelled`).

        Args:
            texts: texts, tuples of texts or rows (dicts of fields), as the model was fitted to.
            progress: called with the number of examples done since the last call.

        Returns:
            A named tuple an example, in their order: the label or value, and its probability.

        Raises:
            UserError: the model has no head of a task, or an example lacks what the task needs.
        """
        from bertjax.inference.labelled import predict

        predictions, notes = predict(self, texts, progress)
        _warn(notes)
        return predictions

    def evaluate(
        self,
        data: Any,
        resamples: int = 300,
        progress: Callable[[float], None] = _ignore,
    ) -> "Evaluation":
        """Returns the scores of `bertjax evaluate`, with intervals.

        Args:
            data: of a fine-tuned model labelled files or rows, as `bertjax.finetune` takes them; of
                a masked LM texts or pairs, of which 15 % of the tokens are masked.
            resamples: of the bootstrap over labelled examples; 0 = no intervals.
            progress: called with the number of examples done since the last call.

        Returns:
            A dict of scores, shares of 1 and losses in nats, with 95 % intervals over examples.

        Raises:
            UserError: the model has no head, or the data are not of its task.
        """
        from bertjax.tasks.evaluation import Evaluation

        if self.restores_words:
            from bertjax.analysis.heads.masked_scores import evaluate_texts

            scores, notes = evaluate_texts(self, place_texts(data), progress=progress)
            scores = {"data": ["memory:data"], **scores}
        else:
            from bertjax.inference.labelled import evaluate

            scores, notes = evaluate(self, data, resamples, progress)
        _warn(notes)
        return Evaluation(scores)

    def compare(self, other: "Model", data: Any, level: float = 0.05) -> "ComparedModels":
        """Returns whether another model (B) is better than this one (A) on the same examples.

        Args:
            other: the model to compare with, of the same task.
            data: as of `evaluate`.
            level: of significance, 0 to 1.

        Returns:
            The difference B - A with its interval, the p-value of a paired test, and the verdict.

        Raises:
            UserError: `other` is no `Model`, the models have other tasks, or there are fewer than 2
                examples.
        """
        from bertjax.tasks.significance import compare_evaluations

        _check_model(other)
        a, b = (model.evaluate(data, resamples=0) for model in (self, other))
        return compare_evaluations(a, b, level=level)

    def trace(
        self,
        texts: Sequence[Any],
        without_heads: str | None = None,
        max_length: int | None = None,
        too_long: Literal["refuse", "windows"] = "refuse",
        progress: Callable[[int], None] = _ignore,
    ) -> list["Captured"]:
        """Returns tokens, probs, hidden states and context of all heads for each text or pair.

        Args:
            texts: any number.
            without_heads: heads that have no effect: "1-3,2-5" (layer-head).
            max_length: longest text in tokens; the model's positions when left out.
            too_long: what becomes of a longer text: it is an error, or is cut into windows between
                words, each with a result of its own.
            progress: called with the number of texts done since the last call.

        Returns:
            A `Captured` a text, float32: `probs [L, N, T, T]`, `hidden [L + 1, T, D]`, the
            embeddings' output first, and `context [L, T, N, H]`.

        Raises:
            UserError: a text that is too long or empty, or a head that there is not.
        """
        from bertjax.analysis.capture.encoding import encode_texts
        from bertjax.analysis.capture.maps import capture
        from bertjax.analysis.heads.pruning import gates_of

        gates = None if without_heads is None else gates_of(without_heads, self.config)
        texts = read_texts(texts)
        _warn(self.tokenizer.describe_readings(texts))
        most = self.config.max_length if max_length is None else max_length
        encoded = encode_texts(self.tokenizer, texts, most, too_long=too_long)
        captures = capture(
            self, encoded, hidden=True, context=True, head_gates=gates, progress=progress
        )
        return list(captures)

    def heads(
        self, texts: Sequence[Any], seed: int = 0, progress: Callable[[int], None] = _ignore
    ) -> "HeadPatterns":
        """Returns what each head attends to in texts or pairs, beside the heads of random weights.

        Args:
            texts: any number; long ones are read in parts.
            seed: of the random weights and of the intervals.
            progress: called with the number of texts done since the last call; each counts
                twice, once for the random weights.

        Returns:
            Shares of attention of every head `[L, N]`, with 95 % intervals over texts.

        Raises:
            UserError: no list of texts, or an empty one.

        Source: Clark et al. 2019, section 3; Kovaleva et al. 2019 (the classes).
        """
        from bertjax.analysis.heads.patterns import HeadPatterns, patterns_with_company

        encoded = self._encode_parts(texts)
        return HeadPatterns(patterns_with_company(self, encoded, seed, progress=progress))

    def compare_layers(
        self,
        texts: Sequence[Any],
        other: "Model | None" = None,
        progress: Callable[[int], None] = _ignore,
    ) -> "Interval":
        """Returns how alike all layers are, of this model or of it and another: linear CKA.

        Args:
            texts: at least 5; long ones are read in parts.
            other: a model with the same tokenizer, whose layers are the columns; this one itself
                when left out.
            progress: called with the number of texts done since the last call.

        Returns:
            Similarities `[L + 1, L + 1]`, 0 to 1, with 95 % intervals; the embeddings first.

        Raises:
            UserError: too few texts or tokens, or a model with another tokenizer.

        Source: Kornblith et al. 2019, section 3.
        """
        from bertjax.analysis.layers.similarity import compare_layers

        _check_model(other or self)
        return compare_layers(self, other or self, self._encode_parts(texts), progress=progress)

    def _encode_parts(self, texts: Sequence[Any]) -> list[Any]:
        """Encodes the texts; one that is longer than the model in several parts."""
        from bertjax.analysis.capture.encoding import encode_texts

        texts, most = read_texts(texts), self.config.max_length
        _warn(self.tokenizer.describe_readings(texts), stacklevel=5)
        return encode_texts(self.tokenizer, texts, most, too_long="windows")

    def explain(
        self,
        text: Any,
        answer: str | None = None,
        word: str | None = None,
        methods: Sequence[str] = ("integrated-gradients",),
    ) -> list["Explanation"]:
        """Returns for each answer to the text, or the one that is named, what each word adds.

        Args:
            text: a text, or a pair in a tuple.
            answer: a label, or a word at the mask; the model's own when left out.
            word: of a tagger, the word that is asked for, or its number; all with a tag otherwise.
            methods: of attribution, for instance "integrated-gradients", "rollout".

        Returns:
            An `Explanation` an answer; what words add is in units of the logit (log-odds).

        Raises:
            UserError: an answer, word or method that there is not, or a model without a head.

        Source: Sundararajan et al. 2017 (integrated gradients); Abnar & Zuidema 2020 (rollout).
        """
        from bertjax.analysis.capture.encoding import encode_texts
        from bertjax.analysis.explain.explanation import explain
        from bertjax.analysis.explain.named_targets import choose_targets

        text, masks = read_text(text), self.restores_words
        most = self.config.max_length
        _warn(self.tokenizer.describe_readings([text], masks=masks))
        [encoded] = encode_texts(self.tokenizer, [text], most, masks=masks)
        targets = choose_targets(self, encoded, answer, word)
        return [explain(self, encoded, target, _listed(methods)) for target in targets]

    def contexts(
        self,
        text: Any,
        word: str,
        corpus: Sequence[Any],
        layer: int | None = None,
        top: int = 10,
        progress: Callable[[int], None] = _ignore,
    ) -> "NearestContexts":
        """Returns where in a corpus the word is used as it is in the text.

        Args:
            text: in which the word stands.
            word: the word, or its number in the text.
            corpus: texts to search; long ones are read in parts.
            layer: whose hidden states count, 0 (the embeddings) to L; the last when left out.
            top: how many places are returned, at least 1.
            progress: called with the number of texts done since the last call.

        Returns:
            The nearest places with their cosine similarity, -1 to 1, and the mean over all places.

        Raises:
            UserError: the word is not in the text or not in the corpus, or there is no such layer.
        """
        from bertjax.analysis.capture.encoding import encode_texts, find_word_number
        from bertjax.analysis.layers.contexts import nearest_contexts

        text, texts = read_text(text), self._encode_parts(corpus)
        _warn(self.tokenizer.describe_readings([text]))
        [query] = encode_texts(self.tokenizer, [text], self.config.max_length)
        layer = self.config.num_hidden_layers if layer is None else layer
        number = find_word_number(query, word)
        return nearest_contexts(self, query, number, texts, layer=layer, top=top, progress=progress)

    def what_if(self, text: Any, word: str, by: str | None = None, seed: int = 0) -> "WhatIf":
        """Returns what changes when another word, or a mask, stands in the place of a word.

        Args:
            text: a text, or a pair in a tuple.
            word: the word, or its number in the text.
            by: what stands there instead; a mask when left out.
            seed: of the random weights that are compared with.

        Returns:
            Natural logarithms of every other word's probability before and after, and how far each
            head's attention moves, 0 to 1.

        Raises:
            UserError: the word is not in the text, or there is no other; no masked-LM head.
        """
        from bertjax.analysis.capture.encoding import encode_texts, find_word_number
        from bertjax.analysis.explain.what_if import what_if

        text, most = read_text(text), self.config.max_length
        _warn(self.tokenizer.describe_readings([text], masks=True))
        [encoded] = encode_texts(self.tokenizer, [text], most, masks=True)
        return what_if(self, encoded, find_word_number(encoded, word), by, seed)

    def analyze(
        self,
        texts: Sequence[Any],
        output: Path | str,
        *,
        treebank: Sequence[Path | str] = (),
        labelled: Any = None,
        limit: int = 0,
        shown: int = 12,
        seed: int = 0,
        progress: StageProgress = ignore_stages,
    ) -> "Report":
        """Writes the report of `bertjax analyze`: what heads and layers do, to explore.

        Args:
            texts: to measure on, pairs too; long ones are cut into windows.
            output: the folder of report.html, numbers.json and the figures.
            treebank: CoNLL-U files, for heads that follow dependencies, and for probes.
            labelled: files or rows of a fine-tuned model's task: what its heads are important for.
            limit: measure on so many of the texts, the first ones; 0 = all.
            shown: how many texts have their attention on the page, at most.
            seed: of the random control.
            progress: called for every section as it proceeds (`program.stages`).

        Returns:
            The `Report`: the files, the page first, and notes of what was cut or proves little.

        Raises:
            UserError: texts, treebank or labelled rows that cannot be read, or a folder that is
                there and no report.
        """
        from bertjax.analysis.report.analyze import plan_analysis, write_analysis

        plan = plan_analysis(
            self, place_texts(texts), treebank=_listed(treebank), labelled=labelled,
            limit=limit, shown=shown, seed=seed,
        )  # fmt: skip
        return write_analysis(plan, output, progress)

    def save(self, folder: Path | str) -> None:
        """Writes a model directory that transformers loads, and how its files are read.

        Args:
            folder: the directory; made where it is not there.

        Raises:
            UserError: it cannot be written.
        """
        import jax

        from bertjax.interop.huggingface import save_model_directory
        from bertjax.interop.temperature import record_of, write_record
        from bertjax.tasks import data_format

        # Read first: the folder may be the model's own.
        calibration = record_of(self.directory, ARCHITECTURES[self.architecture].head)
        params = jax.device_get(dict(self.params))
        params = {"bert": params} if self.kind == BODY else params
        tokenizer = Path(self.tokenizer.name)
        save_model_directory(folder, self.config, params, tokenizer, self.architecture)
        write_record(Path(folder), calibration)
        if self.directory and (remembered := data_format.recall(self.directory)):
            data_format.write_fields(Path(folder), remembered)

    def export(
        self,
        output: Path | str,
        format: Literal["onnx", "stablehlo"] = "onnx",
        *,
        pooling: str | Sequence[str] | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        check: Sequence[Any] = (),
        data: Any = None,
        overwrite: bool = False,
        progress: StageProgress = ignore_stages,
    ) -> dict[str, Any]:
        """Writes the directory of `bertjax export`, and returns what the command prints as JSON.

        Args:
            output: the directory to make.
            format: onnx, or stablehlo, which jax alone runs.
            pooling, normalize, max_length: of a class without a head, as of `embed`.
            check: texts or tuples of texts; with them a model with weights in eight bits is
                written, too, where both models answer them alike.
            data: labelled files or rows; likewise, where both score alike.
            overwrite: replace an exported directory that is there.
            progress: called for every stage as it proceeds (`program.stages`).

        Raises:
            UserError: a directory that is there, a format or pooling that the model has not; as
                `bertjax.exporting.export.MovedError`, answers that are too far from the model's.
        """
        from bertjax.exporting.export import choose_vectors, export
        from bertjax.exporting.quality import gate_in_memory

        steps = choose_vectors(self, pooling, normalize, max_length)
        gate = gate_in_memory(self, check, data)
        done = export(
            self, output, format, steps, gate=gate, overwrite=overwrite, progress=progress
        )
        _warn(done.notes)
        return done.result

    def verify(self) -> list["Check"]:
        """Returns the checks of `bertjax verify` of the model as it is in memory.

        Each says whether it holds, and by how much at most: packing, padding, the order of a batch,
        devices, and where torch is installed transformers, must give the same answers.
        """
        import tempfile

        from bertjax.verification.checks import verify

        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / "model")
            return list(verify(Path(folder) / "model"))

    def prune(self, heads: str, *, shrink: bool = False) -> "Model":
        """Returns the model without the attention heads that are named: "1-3,2-5" (layer-head).

        Args:
            heads: their names.
            shrink: take them out of the tensors, as many in every layer, instead of filling them
                with zeros.

        Raises:
            UserError: a head that there is not; with `shrink` not as many in every layer.

        Source: Michel et al. 2019.
        """
        from bertjax.analysis.heads.pruning import prune_heads

        return prune_heads(self, heads, shrink=shrink)

    def study_pruning(
        self,
        heads: str,
        *,
        texts: Sequence[Any] | None = None,
        data: Any = None,
        test: Any = None,
        by: str | None = None,
        normalize_layers: bool = False,
        shrink: bool = False,
        seed: int = 0,
        progress: StageProgress = ignore_stages,
    ) -> "PruningStudy":
        """Returns the model without its least important heads, and its scores before and after.

        Args:
            heads: how many: a share ("40%") or a number ("58"); or which: layer-head ("1-3,2-5").
            texts: for a masked LM: what importance and scores are measured on.
            data: for a fine-tuned model: labelled files or rows in place of texts.
            test: texts or data of the same kind for the scores; those above when left out, which
                flatters them.
            by: "importance" (the gradients of gates, the default), "ablation" or "random".
            normalize_layers: for importance: scale the heads of each layer to length 1.
            shrink: take as many heads out of every layer's tensors, instead of filling them with
                zeros.
            seed: of masks and random heads.
            progress: called for every stage as it proceeds (`program.stages`).

        Raises:
            UserError: neither or both of texts and data, more heads than there are, or an order
                that is unknown.

        Source: Michel et al. 2019, section 2 (importance by the gradient of gates).
        """
        from bertjax.analysis.heads.pruning_study import examples_in_memory, study_pruning

        study = study_pruning(
            self,
            heads,
            *examples_in_memory(self, texts, data, test, seed),
            by=by,
            normalize_layers=normalize_layers,
            shrink=shrink,
            seed=seed,
            progress=progress,
        )
        _warn(study.notes)
        return study

    def __repr__(self) -> str:
        config = self.config
        numbers = sum(leaf.size for leaf in _leaves(self.params))
        where = f", {self.directory}" if self.directory else ""
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


def _check_model(other: Any) -> None:
    if not isinstance(other, Model):
        raise UserError(f"other={other!r:.60} is not a Model; load it first: bertjax.load(...)")


def _leaves(tree: Mapping[str, Any]) -> list[Any]:
    import jax

    return jax.tree.leaves(tree)


def _listed(names: Any) -> list[Any]:
    """Returns the names as a list; one name is a list of one."""
    return [names] if isinstance(names, str | Path) else list(names)


def _warn(notes: Sequence[str], stacklevel: int = 4) -> None:
    """Warns of what was not read as it was given: a call has no other place for notes."""
    for note in notes:
        warnings.warn(name_arguments(note), stacklevel=stacklevel)
