"""Directories that are no model that bertjax computes: what is said of them, in every command."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from bertjax.architectures import MASKED_LM, find_architecture
from bertjax.families.registry import FAMILIES, load_config
from bertjax.families.roberta import RobertaConfig
from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article
from tests.families.tiny import SIZES, tiny_config, tiny_config_of
from tests.parity.random_models import draw_parameters
from tests.text.tiny_tokenizers import make_of

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"


@pytest.fixture
def roberta(tmp_path):
    """A RoBERTa of 34 positions, of which 32 are usable."""
    make_of("roberta").save(tmp_path / "tokenizer")
    config = RobertaConfig(**SIZES | {"vocab_size": 320}, max_position_embeddings=34)
    params = draw_parameters(config, "RobertaForMaskedLM")
    path = tmp_path / "roberta"
    save_model_directory(path, config, params, tmp_path / "tokenizer", "RobertaForMaskedLM")
    return path


def edit_config(directory, **fields):
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(values | fields))


@pytest.mark.parametrize(
    ("model_type", "nearest"),
    [
        ("mpnet", None),
        ("deberta-v2", None),  # another family, not a slip of the pen
        ("eurobert", None),
        ("ibert", None),
        ("robeta", "did you mean 'roberta'"),
        (7, None),
    ],
)
def test_unknown_family_is_named_with_those_that_are_known(
    tmp_path, bertjax_command, model_type, nearest
):
    model = Path(shutil.copytree(TINY, tmp_path / "model"))
    edit_config(model, model_type=model_type)
    for line in (
        ["fill-mask", "[MASK]", "--model"],
        ["info"],
        ["convert", "--output", "x", "--model"],
    ):
        code, out, err = bertjax_command(*line, model)
        assert (code, out) == (2, "")
        assert f"config.json: model_type={model_type!r} is not a family that bertjax" in err
        assert f"these are: {', '.join(FAMILIES)}" in err
        assert nearest in err if nearest else "did you mean" not in err


def test_text_that_only_the_rows_for_padding_have_room_for(roberta, bertjax_command):
    long = "a " * 40 + "<mask>"
    code, _, err = bertjax_command("fill-mask", "--model", roberta, long)
    assert (code, "tokens, the model has positions for 32; shorten it" in err) == (2, True)
    line = ["embed", "--model", roberta, "--output", roberta / "v.npy", "a"]
    code, _, err = bertjax_command(*line, "--max-length", 34)
    assert (code, "must be between 3 and the model's 32 positions" in err) == (2, True)
    code, out, _ = bertjax_command("info", roberta, "--json")
    about = json.loads(out)
    assert (about["max_position_embeddings"], about["max_length"]) == (34, 32)
    ids = np.zeros(1, np.int32)
    with pytest.raises(
        UserError, match=r"0 to 31 \(max_position_embeddings=34, of which 32 are us"
    ):
        load_config(roberta).check_ids(ids, ids, ids + 32)


def test_tokenizer_of_another_family(roberta, bertjax_command):
    shutil.copy(TINY / "tokenizer.json", roberta)
    shutil.copy(TINY / "tokenizer_config.json", roberta)
    code, _, err = bertjax_command("fill-mask", "--model", roberta, "[MASK]")
    assert (code, "it is the tokenizer of another model" in err) == (2, True)
    notes = json.loads(bertjax_command("info", roberta, "--json")[1])["tokenizer"]["notes"]
    assert any("has [PAD] at id 0, config.json says pad_token_id=1" in note for note in notes)
    assert any("the model embeddings for 320" in note for note in notes)


@pytest.mark.parametrize("line", [["fill-mask", "[MASK]", "--model"], ["info"]])
def test_pickled_weights_alone(tmp_path, bertjax_command, line):
    model = Path(shutil.copytree(TINY, tmp_path / "model"))
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    code, out, err = bertjax_command(*line, model)
    assert (code, out) == (2, "")
    assert "pytorch_model.bin, which is not read because unpickling runs code" in err
    assert f"`bertjax convert --model {model} --output DIR`" in err


# A body of a BERT without its prefix is one of a RoBERTa, too.
@pytest.mark.parametrize(
    ("family", "kind"),
    [("bert", "tokens")]
    + [
        (family, kind)
        for family in ("distilbert", "electra", "albert", "modernbert")
        for kind in ("tokens", "body")
    ],
)
def test_tensors_of_another_family_are_said_to_be_its(tmp_path, family, kind):
    config = tiny_config(family, pad_token_id=0)
    name = find_architecture(kind, config).name
    save_model_directory(tmp_path / "model", config, draw_parameters(config, name), TINY, name)
    edit_config(tmp_path / "model", model_type="roberta")
    with pytest.raises(UserError) as caught:
        load_model_directory(tmp_path / "model")
    assert str(caught.value).endswith(
        f"; its tensors are called as {with_article(family)} calls them, and config.json has"
        " model_type='roberta'"
    )


@pytest.mark.parametrize(
    "name", ["ElectraForPreTraining", "RobertaForSequenceClassification", "BertModel"]
)
def test_untied_embeddings_of_a_model_without_a_decoder_change_nothing(tmp_path, name):
    config = tiny_config_of(name, tie_word_embeddings=False, pad_token_id=0)
    params = draw_parameters(config, name)
    save_model_directory(tmp_path / "model", config, params, TINY, name)
    loaded = load_model_directory(tmp_path / "model")
    assert loaded.config == config
    np.testing.assert_array_equal(*(
        its["bert"]["embeddings"]["word_embeddings"] for its in (loaded.params, params)
    ))  # fmt: skip
    # A new decoder would be tied, whatever config.json says.
    with pytest.raises(UserError, match="tie_word_embeddings=False is not supported: the masked"):
        load_model_directory(tmp_path / "model", MASKED_LM, initialize_missing=jax.random.key(0))
