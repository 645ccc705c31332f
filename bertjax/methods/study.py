"""Methods of `Model` that look inside: what heads and layers do, what an answer comes of, and the
model without some of its heads.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bertjax.methods.arguments import check_lengths, check_model, listed, warn_of
from bertjax.program.stages import StageProgress, ignore_stages
from bertjax.text.given_texts import place_texts, read_text, read_texts

if TYPE_CHECKING:
    from bertjax.analysis.capture.maps import Captured
    from bertjax.analysis.explain.explanation import Explanation
    from bertjax.analysis.explain.what_if import WhatIf
    from bertjax.analysis.heads.patterns import HeadPatterns
    from bertjax.analysis.heads.pruning_study import PruningStudy
    from bertjax.analysis.layers.contexts import NearestContexts
    from bertjax.analysis.report.analyze import Report
    from bertjax.loaded import Model
    from bertjax.statistics.intervals import Interval


def trace(
    model: "Model",
    texts: Sequence[Any],
    without_heads: str | None = None,
    max_length: int | None = None,
    too_long: Literal["refuse", "windows"] = "refuse",
    progress: Callable[[int], None] = lambda done: None,
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

    gates = None if without_heads is None else gates_of(without_heads, model.config)
    texts = read_texts(texts)
    warn_of(model.tokenizer.describe_readings(texts))
    check_lengths(max_length, model, least=0)
    most = model.config.max_length if max_length is None else max_length
    encoded = encode_texts(model.tokenizer, texts, most, too_long=too_long)
    captures = capture(
        model, encoded, hidden=True, context=True, head_gates=gates, progress=progress
    )
    return list(captures)


def heads(
    model: "Model",
    texts: Sequence[Any],
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
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

    encoded = _encode_parts(model, texts)
    return HeadPatterns(patterns_with_company(model, encoded, seed, progress=progress))


def compare_layers(
    model: "Model",
    texts: Sequence[Any],
    other: "Model | None" = None,
    progress: Callable[[int], None] = lambda done: None,
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

    check_model(other or model, model)
    return compare_layers(model, other or model, _encode_parts(model, texts), progress=progress)


def explain(
    model: "Model",
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
    from bertjax.analysis.explain.explanation import explain
    from bertjax.analysis.explain.named_targets import choose_targets

    encoded = _encode_text(model, text, masks=model.restores_words)
    targets = choose_targets(model, encoded, answer, word)
    return [explain(model, encoded, target, listed(methods, "methods")) for target in targets]


def contexts(
    model: "Model",
    text: Any,
    word: str,
    corpus: Sequence[Any],
    layer: int | None = None,
    top: int = 10,
    progress: Callable[[int], None] = lambda done: None,
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
    from bertjax.analysis.capture.encoding import find_word_number
    from bertjax.analysis.layers.contexts import nearest_contexts

    query, texts = _encode_text(model, text), _encode_parts(model, corpus)
    layer = model.config.num_hidden_layers if layer is None else layer
    number = find_word_number(query, word)
    return nearest_contexts(model, query, number, texts, layer=layer, top=top, progress=progress)


def what_if(model: "Model", text: Any, word: str, by: str | None = None, seed: int = 0) -> "WhatIf":
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
    from bertjax.analysis.capture.encoding import find_word_number
    from bertjax.analysis.explain.what_if import what_if

    encoded = _encode_text(model, text, masks=True)
    return what_if(model, encoded, find_word_number(encoded, word), by, seed)


def analyze(
    model: "Model",
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
        model, place_texts(texts), treebank=listed(treebank, "treebank"), labelled=labelled,
        limit=limit, shown=shown, seed=seed,
    )  # fmt: skip
    return write_analysis(plan, output, progress)


def prune(model: "Model", heads: str, *, shrink: bool = False) -> "Model":
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

    return prune_heads(model, heads, shrink=shrink)


def study_pruning(
    model: "Model",
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
        model,
        heads,
        *examples_in_memory(model, texts, data, test, seed),
        by=by,
        normalize_layers=normalize_layers,
        shrink=shrink,
        seed=seed,
        progress=progress,
    )
    warn_of(study.notes)
    return study


def _encode_text(model: "Model", text: Any, masks: bool = False) -> Any:
    """Encodes a text or a pair; with `masks`, tokens that are written as [MASK] are it."""
    from bertjax.analysis.capture.encoding import encode_texts

    text, most = read_text(text), model.config.max_length
    warn_of(model.tokenizer.describe_readings([text], masks=masks))
    [encoded] = encode_texts(model.tokenizer, [text], most, masks=masks)
    return encoded


def _encode_parts(model: "Model", texts: Sequence[Any]) -> list[Any]:
    """Encodes the texts; one that is longer than the model in several parts."""
    from bertjax.analysis.capture.encoding import encode_texts

    texts, most = read_texts(texts), model.config.max_length
    warn_of(model.tokenizer.describe_readings(texts))
    return encode_texts(model.tokenizer, texts, most, too_long="windows")
