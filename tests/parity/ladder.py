"""The ladder: everything two implementations of BERT compute, from the embeddings to one step.

`compute_ours` and `compute_theirs` give the same quantities under the same names, torch's in
float64 as the reference; `differences` compares them. Places of padding are left out: a padded
query gets zeros here, and in torch whatever the visible keys make of it.
"""

import contextlib
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bertjax.architectures import ARCHITECTURES, BODY
from bertjax.config import BertConfig, Kind
from bertjax.families.registry import family_of
from bertjax.interop.tensor_names import Parameters, to_theirs
from bertjax.model.bert import BertModel
from bertjax.objectives import losses
from bertjax.training.optimizer import ADAM_EPSILON, OptimizerConfig, make_optimizer
from tests.parity.wide_modernbert import computing_widely

TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
QUANTITIES = ("hidden", "probs", "pooled", "logits", "loss", "gradients", "adamw")

# A usual rate of fine-tuning. A larger one would measure how AdamW's first step, the sign of the
# gradient, blows up the rounding of gradients that are 0 but for it (those of the keys' biases).
LEARNING_RATE = 2e-5
OPTIMIZER = OptimizerConfig(learning_rate=LEARNING_RATE, weight_decay=0.01)
IGNORED = -100  # torch's label of a place that has none

OF_EXAMPLES = ("next-sentence", "sequence")

Results = dict[str, np.ndarray]


class Case(NamedTuple):
    """A configuration, a batch, and labels for every class.

    Attributes:
        config: the shape, its labels and their meaning.
        token_ids: `[B, T]`.
        token_type_ids: `[B, T]`.
        real: `[B, T]`, 0 for padding; the first token of every row is real.
        choices: how many rows are a question; divides B.
        word_labels: `[B, T]`, the masked words; IGNORED elsewhere.
        tag_labels: `[B, T]`, likewise, below C.
        next_sentence: `[B]`, 0 or 1.
        classes: `[B]`, below C.
        applies: `[B, C]`, 0 or 1, float.
        values: `[B, C]`, of a regression.
        spans: `[B, 2]`, first and last token of an answer, real ones.
        right: `[B / choices]`.
        replaced: `[B, T]`, 0 or 1; None in batches for BERT alone.
    """

    config: BertConfig
    token_ids: np.ndarray
    token_type_ids: np.ndarray
    real: np.ndarray
    choices: int
    word_labels: np.ndarray
    tag_labels: np.ndarray
    next_sentence: np.ndarray
    classes: np.ndarray
    applies: np.ndarray
    values: np.ndarray
    spans: np.ndarray
    right: np.ndarray
    replaced: np.ndarray | None = None


def make_case(
    config: BertConfig, token_ids: np.ndarray, real: np.ndarray, choices: int, seed: int
) -> Case:
    """Draws token types and labels for a batch; every third real token or so is to be restored."""
    random = np.random.default_rng(seed)
    (rows, length), labels = token_ids.shape, config.num_labels

    def label_places(most: int) -> np.ndarray:
        chosen = (random.random((rows, length)) < 0.4) & (real == 1)
        chosen[0, 0] = True  # a mean needs one
        return np.where(chosen, random.integers(0, most, (rows, length)), IGNORED)

    spans = [np.sort(random.choice(np.flatnonzero(row), 2)) for row in real]
    return Case(
        config,
        token_ids,
        random.integers(0, config.type_vocab_size or 1, (rows, length)) * config.SEGMENTS_ARE_TYPES,
        real,
        choices,
        label_places(config.vocab_size),
        label_places(labels),
        random.integers(0, 2, rows),
        random.integers(0, labels, rows),
        random.integers(0, 2, (rows, labels)).astype(np.float64),
        random.normal(size=(rows, labels)),
        np.array(spans),
        random.integers(0, choices, rows // choices),
        random.integers(0, 2, (rows, length)),
    )


def compute_ours(case: Case, architecture: str, params: Parameters, dtype: str) -> Results:
    """What bertjax computes, by Hugging Face's names.

    Args:
        case: the batch.
        architecture: a key of `ARCHITECTURES`.
        params: of that class, those of BertModel under "bert".
        dtype: float32 or float64, of everything.
    """
    kind = ARCHITECTURES[architecture].kind
    with jax.enable_x64(dtype == "float64"):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
        start = params["bert"] if kind == BODY else params
        model = ARCHITECTURES[architecture].module(case.config, jnp.dtype(dtype))

        @jax.jit
        def compute(params: Any, inputs: Any) -> Any:
            def loss(params: Any) -> Any:
                output = model.apply({"params": params}, *inputs, trace=True)
                return _our_loss(case, kind, output, dtype), output

            (value, output), gradients = jax.value_and_grad(loss, has_aux=True)(params)
            return value, output, gradients, _update(params, gradients)

        found = jax.device_get(compute(start, _inputs_of(case)))
    return _name_ours(case, architecture, *found, np.dtype(dtype))


def compute_family(case: Case, params: Mapping[str, Parameters], dtype: str) -> dict[str, Results]:
    """What bertjax computes of several classes of a family, as `compute_ours`, in one program.

    The body is computed once, forwards and, for the losses of all classes together, backwards: each
    class is given its output where it would compute it, and the gradient is that of the class in
    this output and of the body behind it. So a configuration is traced and compiled once, not for
    every class.

    Args:
        case: the batch.
        params: of each class; all have the same body. That of BertModel is among them.
        dtype: float32 or float64, of everything.
    """
    kinds = {ARCHITECTURES[name].kind: name for name in params}
    whole = body_of(params)
    heads = {
        name: {part: value for part, value in own.items() if part != "bert"}
        for name, own in params.items()
    }
    with jax.enable_x64(dtype == "float64"):
        start = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (whole, heads))
        modules = {
            kind: ARCHITECTURES[name].module(case.config, jnp.dtype(dtype))
            for kind, name in kinds.items()
        }

        @jax.jit
        def compute(whole: Any, heads: dict[str, Any], inputs: Any) -> Any:
            def run_body(own: Any) -> Any:
                return modules[BODY].apply({"params": own}, *inputs, trace=True)

            def loss(head: Any, own: Any, body: Any, kind: Kind) -> Any:
                output = body
                if kind != BODY:
                    with nn.intercept_methods(functools.partial(answer_with, body)):
                        output = modules[kind].apply(
                            {"params": {**head, "bert": own}}, *inputs, trace=True
                        )
                return _our_loss(case, kind, output, dtype), output

            body, pull = jax.vjp(run_body, whole)
            differentiate = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
            answers, gradients, of_tables, of_bodies = {}, {}, [], []
            for kind, name in kinds.items():
                answers[name], parts = differentiate(heads[name], whole, body, kind)
                gradients[name], *others = parts
                of_tables.append(others[0])  # the decoder's share
                of_bodies.append(others[1])
            of_tables, of_bodies = (
                jax.tree.map(lambda *each: jnp.stack(each), *trees)
                for trees in (of_tables, of_bodies)
            )
            (pulled,) = jax.vmap(pull)(of_bodies)
            gradients["bert"] = jax.tree.map(jnp.add, of_tables, pulled)
            several = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(kinds)), whole)
            return answers, gradients, _update({**heads, "bert": several}, gradients)

        answers, *trees = jax.device_get(compute(*start, _inputs_of(case)))
    results = {}
    for number, name in enumerate(kinds.values()):
        own_trees = []
        for tree in trees:
            own = {part: tree["bert"][part] for part in params[name]["bert"]}
            own = jax.tree.map(lambda leaf, at=number: leaf[at], own)
            is_body = name == kinds[BODY]
            own_trees.append(own if is_body else {**tree[name], "bert": own})
        results[name] = _name_ours(case, name, *answers[name], *own_trees, np.dtype(dtype))
    return results


def body_of(params: Mapping[str, Parameters]) -> Parameters:
    """Returns the parameters of the body, pooler included, that several classes of a family share.

    Args:
        params: of each class, that without a head among them.
    """
    [whole] = [own["bert"] for name, own in params.items() if ARCHITECTURES[name].kind == BODY]
    for own in params.values():
        same = {part: whole[part] for part in own["bert"]}
        jax.tree.map(np.testing.assert_array_equal, own["bert"], same)
    return whole


def answer_with(body: Any, call: Any, arguments: Any, named: Any, context: Any) -> Any:
    """Takes the place of a call of the body within a class (`flax.linen.intercept_methods`).

    Args:
        body: what it answered, with its pooler.
        call, arguments, named, context: as flax hands them over.
    """
    if not isinstance(context.module, BertModel) or context.method_name != "__call__":
        return call(*arguments, **named)
    return body if context.module.has_pooler else body._replace(pooled=None)


def _inputs_of(case: Case) -> list[jax.Array]:
    inputs = (case.token_ids, case.token_type_ids, case.real)
    return [jnp.asarray(values, jnp.int32) for values in inputs]


def _update(params: Any, gradients: Any) -> Any:
    """Takes a step of AdamW."""
    optimizer = make_optimizer(OPTIMIZER)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    return jax.tree.map(lambda old, up: old + LEARNING_RATE * up, params, updates)


def _name_ours(
    case: Case, architecture: str, value: Any, output: Any, gradients: Any, updated: Any, dtype: Any
) -> Results:
    """Names what was computed, by Hugging Face's names."""
    kind, parts = ARCHITECTURES[architecture].kind, ARCHITECTURES[architecture].parts
    body_only = kind == BODY
    body = output if body_only else output.encoder
    results = {"hidden": body.trace.hidden_states, "probs": body.trace.probs, "loss": value}
    if body_only:
        if body.pooled is not None:
            results["pooled"] = body.pooled[:, 0]
    elif kind == "pretraining":
        results |= {"logits:words": output.mlm_logits, "logits:next": output.nsp_logits[:, 0]}
    elif kind == "sentence-order":
        results |= {"logits:words": output.mlm_logits, "logits:order": output.order_logits[:, 0]}
    elif kind == "choice":
        results["logits:choices"] = output.logits.reshape(-1, case.choices)
    elif kind in OF_EXAMPLES:
        results["logits:examples"] = output.logits[:, 0]
    else:
        results["logits:tokens"] = output.logits
    for quantity, tree in (("gradients", gradients), ("adamw", updated)):
        tree = {"bert": tree} if body_only else tree
        named = to_theirs(tree, case.config, parts, dtype)
        results |= {f"{quantity}:{name}": value for name, value in named.items()}
    return results


def _our_loss(case: Case, kind: Kind, output: Any, dtype: str) -> jax.Array:
    ones = jnp.ones((len(case.real), 1), dtype)

    def of_places(logits: jax.Array, labels: np.ndarray) -> jax.Array:
        weights = jnp.asarray(labels != IGNORED, dtype)
        return losses.cross_entropy(logits, jnp.asarray(labels, jnp.int32), weights).mean()

    def of_examples(logits: jax.Array, labels: np.ndarray) -> jax.Array:
        return losses.cross_entropy(logits, jnp.asarray(labels[:, None], jnp.int32), ones).mean()

    match kind:
        case "body":
            loss = (jnp.square(output.hidden) * case.real[:, :, None]).mean()
            return loss if output.pooled is None else loss + jnp.sin(output.pooled).mean()
        case "pretraining":
            words = of_places(output.mlm_logits, case.word_labels)
            return words + of_examples(output.nsp_logits, case.next_sentence)
        case "sentence-order":
            words = of_places(output.mlm_logits, case.word_labels)
            return words + of_examples(output.order_logits, case.next_sentence)
        case "masked-lm":
            return of_places(output.logits, case.word_labels)
        case "next-sentence":
            return of_examples(output.logits, case.next_sentence)
        case "tokens":
            return of_places(output.logits, case.tag_labels)
        case "replaced-tokens":
            labels, real = (jnp.asarray(values, dtype) for values in (case.replaced, case.real))
            logits, labels = output.logits[..., None], labels[..., None]
            return losses.binary_cross_entropy(logits, labels, real).mean()
        case "spans":
            return losses.span_cross_entropy(
                output.logits,
                jnp.asarray(case.spans[:, None], jnp.int32),
                jnp.asarray(case.real, jnp.int32),
                jnp.zeros((len(case.real), 1), jnp.int32),
                ones,
            ).mean()
        case "choice":
            scores = output.logits.reshape(-1, case.choices)
            right = jnp.arange(case.choices) == case.right[:, None]
            together = jnp.zeros(scores.shape, jnp.int32)
            return losses.choice_cross_entropy(scores, together, right.astype(dtype)).mean()
    match case.config.label_meaning:
        case "regression":
            values, targets = output.logits[:, 0], jnp.asarray(case.values, dtype)
            return losses.squared_error(values, targets, jnp.ones_like(values)).mean()
        case "multi_label_classification":
            labels = jnp.asarray(case.applies[:, None], dtype)
            return losses.binary_cross_entropy(output.logits, labels, ones).mean()
    return of_examples(output.logits, case.classes)


def compute_theirs(
    case: Case, architecture: str, params: Parameters, dtype: str = "float64"
) -> Results:
    """What torch and transformers compute; see `compute_ours`."""
    return run_theirs(case, architecture, build_theirs(case, architecture, params, dtype))


def build_theirs(case: Case, architecture: str, params: Parameters, dtype: str) -> Any:
    """The class of transformers with our parameters."""
    import torch
    import transformers

    torch.set_num_threads(1)  # of several, those without work would wait at full load
    wide, family = getattr(torch, dtype), family_of(case.config)
    kind = ARCHITECTURES[architecture].kind
    shape = case.config.to_dict()
    if kind in ("spans", "sentence-order"):  # there its two outputs are labels
        del shape["id2label"], shape["label2id"]
    rates = dict.fromkeys([name for name in shape if "dropout" in name], 0.0)
    config = transformers.AutoConfig.for_model(**{**shape, **rates})
    config._attn_implementation = "eager"
    model = getattr(transformers, architecture)(config).to(wide)
    prefix = f"{family.body}." if kind == BODY else ""
    named = to_theirs(params, case.config, ARCHITECTURES[architecture].parts)
    tensors = {
        name.removeprefix(prefix): torch.tensor(value, dtype=wide) for name, value in named.items()
    }
    for name, value in model.state_dict().items():  # copies of tied tensors, buffers
        if name not in tensors:
            assert name in family.tied or name.endswith("_ids"), name
            tensors[name] = tensors[family.tied[name]] if name in family.tied else value
    model.load_state_dict(tensors)
    return model


def run_theirs(case: Case, architecture: str, model: Any) -> Results:
    """What a model of transformers computes in its own dtype, its attention being "eager"."""
    import torch

    wide, kind = model.dtype, ARCHITECTURES[architecture].kind
    prefix = f"{family_of(case.config).body}." if kind == BODY else ""
    inputs = {
        "input_ids": torch.tensor(case.token_ids).long(),
        "attention_mask": torch.tensor(case.real).long(),
    }
    if case.config.SEGMENTS_ARE_TYPES:
        inputs["token_type_ids"] = torch.tensor(case.token_type_ids).long()
    labels = {name: torch.tensor(value) for name, value in _their_labels(case, kind)}
    labels = {k: v.to(wide) if v.is_floating_point() else v.long() for k, v in labels.items()}
    if kind == "choice":
        inputs = {k: v.reshape(-1, case.choices, v.shape[-1]) for k, v in inputs.items()}
    narrows = case.config.MODEL_TYPE == "modernbert" and wide == torch.float64
    with computing_widely() if narrows else contextlib.nullcontext():
        output = model(**inputs, **labels, output_hidden_states=True, output_attentions=True)
    loss, real = output.get("loss"), torch.tensor(case.real)
    results = {
        "hidden": torch.stack(output.hidden_states),
        "probs": torch.stack(output.attentions),
    }
    if kind == BODY:
        loss = (output.last_hidden_state.square() * real[:, :, None]).mean()
        if (pooled := output.get("pooler_output")) is not None:
            results["pooled"] = pooled
            loss += pooled.sin().mean()
    elif kind == "pretraining":
        results["logits:words"] = output.prediction_logits
        results["logits:next"] = output.seq_relationship_logits
    elif kind == "sentence-order":
        results["logits:words"] = output.prediction_logits
        results["logits:order"] = output.sop_logits
    elif kind == "spans":
        results["logits:tokens"] = torch.stack([output.start_logits, output.end_logits], -1)
        if not case.real.all():  # theirs gives padding a share of the probability
            scores = results["logits:tokens"].masked_fill(real[:, :, None] == 0, -torch.inf)
            loss = torch.nn.functional.cross_entropy(scores, torch.tensor(case.spans).long())
    elif kind == "choice":
        results["logits:choices"] = output.logits
    elif kind in OF_EXAMPLES:
        results["logits:examples"] = output.logits
    else:
        results["logits:tokens"] = output.logits
    if kind == "replaced-tokens":  # theirs is float32, whatever the logits are
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            output.logits[real == 1], labels["labels"][real == 1].to(wide)
        )
    loss.backward()
    results["loss"] = loss
    named = {f"{prefix}{name}": value for name, value in model.named_parameters()}
    results |= {f"gradients:{name}": value.grad.clone() for name, value in named.items()}
    spared = {name for name in named if name.endswith("bias") or "norm" in name.lower()}
    groups = [
        {"params": [named[name] for name in named.keys() - spared], "weight_decay": 0.01},
        {"params": [named[name] for name in spared], "weight_decay": 0.0},
    ]
    torch.optim.AdamW(groups, LEARNING_RATE, (0.9, 0.999), ADAM_EPSILON).step()
    results |= {f"adamw:{name}": value for name, value in named.items()}
    return {name: value.detach().numpy() for name, value in results.items()}


def _their_labels(case: Case, kind: Kind) -> list[tuple[str, np.ndarray]]:
    match kind:
        case "body":
            return []
        case "pretraining":
            return [("labels", case.word_labels), ("next_sentence_label", case.next_sentence)]
        case "sentence-order":
            return [("labels", case.word_labels), ("sentence_order_label", case.next_sentence)]
        case "spans":
            return [("start_positions", case.spans[:, 0]), ("end_positions", case.spans[:, 1])]
        case "sequence":
            return [("labels", _labels_of_examples(case))]
    of_kind = {
        "masked-lm": case.word_labels,
        "next-sentence": case.next_sentence,
        "tokens": case.tag_labels,
        "replaced-tokens": case.replaced,
        "choice": case.right,
    }
    return [("labels", of_kind[kind])]


def _labels_of_examples(case: Case) -> np.ndarray:
    of_problem = {
        "regression": case.values,
        "multi_label_classification": case.applies,
        "single_label_classification": case.classes,
    }
    return of_problem[case.config.label_meaning]


def differences(
    case: Case, actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """The largest difference of each quantity: a share of the tensor's largest value if above 1.

    That is how rounding behaves: an element near 0 is as inexact as what it is the sum of. Both
    must have the same names; a shape that differs is an error, no broadcast.
    """
    assert actual.keys() == expected.keys(), sorted(actual.keys() ^ expected.keys())
    real = case.real == 1
    largest = dict.fromkeys(QUANTITIES, 0.0)
    seen = set()
    for name, value in actual.items():
        other, quantity = expected[name], name.partition(":")[0]
        assert value.shape == other.shape, (name, value.shape, other.shape)
        if quantity == "hidden":  # [L+1, B, T, D]
            value, other = value[:, real], other[:, real]
        elif quantity == "probs":  # [L, B, N, T, S], queries last but one
            value, other = (x.swapaxes(2, 3)[:, real] for x in (value, other))
        elif name in ("logits:words", "logits:tokens"):
            value, other = value[real], other[real]
        gap = np.abs(value.astype(np.float64) - other).max() / max(1, np.abs(other).max())
        assert not np.isnan(gap), name
        largest[quantity] = max(largest[quantity], float(gap))
        seen.add(quantity)
    return {quantity: largest[quantity] for quantity in QUANTITIES if quantity in seen}
