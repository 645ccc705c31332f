"""Makes the golden files of the parity tests from torch and transformers.

    .venv-parity/bin/python -m tests.parity.make_golden

It writes `golden/tiny_bert/`, a model directory as transformers saves it, and what torch computes
with it in float64: `golden/outputs.safetensors`. For each of the eight classes it writes
`golden/classes/CLASS/`, a smaller one, and `golden/classes/CLASS.safetensors`; the batch of all
of them is `golden/classes/batch.safetensors`.
"""

import shutil
import string
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import BertConfig, BertForPreTraining, BertTokenizer, PreTrainedModel

import bertjax.config
from tests.families.tiny import BERT_CLASSES
from tests.parity.ladder import make_case, run_theirs

GOLDEN = Path(__file__).parent / "golden"

# Sizes that all differ, so that no transposed or mixed-up axis can pass:
# V=99, D=24, L=5, N=4, H=6, F=37, M=17, G=3; rows B=2, length T=11.
CONFIG = {
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 17,
    "type_vocab_size": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
WORDS = (
    "the of and a to in is it was for on as with his they at be this from have or by one had not"
    " but what all were when we there can an your which"
)
# The gradients that are kept: of every kind of parameter one, of the layers one in the middle.
GRADIENTS = (
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.token_type_embeddings.weight",
    "bert.embeddings.LayerNorm.weight",
    "bert.encoder.layer.2.attention.self.query.weight",
    "bert.encoder.layer.2.attention.self.value.bias",
    "bert.encoder.layer.2.attention.output.dense.weight",
    "bert.encoder.layer.2.attention.output.LayerNorm.bias",
    "bert.encoder.layer.2.intermediate.dense.weight",
    "bert.encoder.layer.2.output.dense.weight",
    "bert.encoder.layer.2.output.LayerNorm.weight",
    "bert.pooler.dense.weight",
    "cls.predictions.bias",
    "cls.predictions.transform.dense.weight",
    "cls.seq_relationship.weight",
)


# Of the classes: V=29, D=12, L=2, N=3, H=4, F=17, M=7, G=5; two questions of B=2 rows, T=6.
CLASS_CONFIG = {
    "vocab_size": 29,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "max_position_embeddings": 7,
    "type_vocab_size": 5,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
LABELS = ("O", "B-PER", "I-PER")
TOKEN_IDS = [
    [2, 11, 28, 4, 23, 3],
    [2, 17, 3, 0, 0, 0],
    [2, 5, 6, 25, 3, 0],
    [2, 19, 4, 20, 27, 3],
]
# Whose gradients and first AdamW steps are kept, beside those of the heads.
CLASS_PARAMETERS = (
    "embeddings.token_type_embeddings.weight",
    "embeddings.LayerNorm.weight",
    "encoder.layer.1.attention.self.query.weight",
    "encoder.layer.0.attention.output.dense.weight",
    "encoder.layer.1.intermediate.dense.bias",
    "pooler.dense.bias",
)
HEADS = ("cls.", "classifier.", "qa_outputs.")


def make_model() -> BertForPreTraining:
    """The model of `tiny_bert`."""
    torch.manual_seed(20181011)
    config = BertConfig(**CONFIG, attn_implementation="eager")
    return randomise(BertForPreTraining(config).eval())


def randomise(model: PreTrainedModel) -> PreTrainedModel:
    """Makes every parameter matter: at the usual spread of 0.02 a wrong bias hides."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.3)
            if name.endswith("LayerNorm.weight"):
                parameter.add_(1.0)
    return model


def make_tokenizer() -> BertTokenizer:
    """A lower-case WordPiece tokenizer of 99 tokens."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += string.ascii_lowercase + "."
    tokens += [f"##{letter}" for letter in string.ascii_lowercase]
    words = [word for word in WORDS.split() if word not in tokens]
    tokens += words + [f"[unused{number}]" for number in range(99 - len(tokens) - len(words))]
    assert len(set(tokens)) == CONFIG["vocab_size"], len(set(tokens))
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_text("\n".join(tokens) + "\n", encoding="utf-8")
        return BertTokenizer.from_pretrained(folder)


def make_inputs() -> dict[str, torch.Tensor]:
    """Two pairs of sentences, the second one shorter, four tokens to restore."""
    return {
        "input_ids": torch.tensor(
            [[2, 58, 4, 61, 73, 3, 80, 4, 66, 91, 3], [2, 70, 4, 3, 98, 59, 3, 0, 0, 0, 0]]
        ),
        "token_type_ids": torch.tensor(
            [[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0]]
        ),
        "attention_mask": torch.tensor([[1] * 11, [1] * 7 + [0] * 4]),
        "labels": torch.tensor(
            [
                [-100, -100, 60, -100, 73, -100, -100, 77, -100, -100, -100],
                [-100, -100, 97] + [-100] * 8,
            ]
        ),
        "next_sentence_label": torch.tensor([0, 1]),
    }


def compute(model: BertForPreTraining, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Everything torch says about the inputs, gradients of the loss included."""
    model.zero_grad()
    pooled = []
    hook = model.bert.pooler.register_forward_hook(lambda *call: pooled.append(call[2]))
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    hook.remove()
    output.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    results = {
        "hidden": torch.stack(output.hidden_states),
        "probs": torch.stack(output.attentions),
        "pooled": pooled[0],
        "mlm_logits": output.prediction_logits,
        "nsp_logits": output.seq_relationship_logits,
        "loss": output.loss,
        **{f"gradient:{name}": gradients[name] for name in GRADIENTS},
    }
    return {name: value.detach().clone().contiguous() for name, value in results.items()}


def make_classes(folder: Path) -> None:
    """Writes a model of every class, the batch, and what torch makes of it."""
    ours = bertjax.config.BertConfig(**CLASS_CONFIG, id2label=LABELS)
    token_ids = np.array(TOKEN_IDS)
    case = make_case(ours, token_ids, (token_ids != 0).astype(np.int64), choices=2, seed=11)
    arrays = {
        name: torch.tensor(value)
        for name, value in case._asdict().items()
        if isinstance(value, np.ndarray)
    }
    folder.mkdir()
    save_file(arrays, folder / "batch.safetensors")
    for number, architecture in enumerate(BERT_CLASSES):
        torch.manual_seed(number)
        labels = {} if "Question" in architecture else {"id2label": dict(enumerate(LABELS))}
        config = BertConfig(**CLASS_CONFIG, **labels, attn_implementation="eager")
        model = randomise(getattr(transformers, architecture)(config))
        model.save_pretrained(folder / architecture)
        results = run_theirs(case, architecture, model.double())
        kept = {
            name: torch.tensor(value)
            for name, value in results.items()
            if not name.startswith(("gradients:", "adamw:"))
            or name.endswith(CLASS_PARAMETERS)
            or name.partition(":")[2].startswith(HEADS)
        }
        save_file(kept, folder / f"{architecture}.safetensors")


def main() -> None:
    """Writes the golden files anew."""
    for name in ("tiny_bert", "classes"):
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
    model, inputs = make_model(), make_inputs()
    model.save_pretrained(GOLDEN / "tiny_bert")
    make_tokenizer().save_pretrained(GOLDEN / "tiny_bert")
    save_file({**inputs, **compute(model.double(), inputs)}, GOLDEN / "outputs.safetensors")
    make_classes(GOLDEN / "classes")
    for file in GOLDEN.rglob("*.safetensors"):
        file.chmod(0o644)


if __name__ == "__main__":
    main()
