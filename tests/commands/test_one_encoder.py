"""Every command and program gives a model the same ids for a text, and none beyond its tables."""

import json
import shutil

import numpy as np
import pytest

from bertjax.analysis.capture.encoding import encode_texts, encode_words
from bertjax.config import BertConfig
from bertjax.inference.task_outputs import Inference
from bertjax.interop.huggingface import save_model_directory
from bertjax.program.errors import UserError
from bertjax.tasks.squad import Question
from bertjax.tasks.task import frame_texts
from bertjax.tasks.units import Unit
from bertjax.text.framing import TokenSequence
from bertjax.text.special_tokens import BERT_TOKENS
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from bertjax.training.batches import FittingRows
from tests.parity.random_models import draw_parameters

TOKENS = [*BERT_TOKENS, "the", "film", "was", "good", "bad", "[", "]", "sep", "mask", "e", "##1"]
TEXT = "The [E1] film[E1] was [SEP] <user>"
IDS = ["the", "[E1]", "film", "[E1]", "was", "[", "sep", "]", "<user>"]


def save(folder, architecture, tokens=TOKENS, **fields):
    library = build_wordpiece(tokens, True, None)
    library.add_special_tokens(["[E1]"])
    library.add_tokens(["<user>"])
    Tokenizer(library).save(folder / "tokenizer")
    shape = {"vocab_size": len(TOKENS) + 2, "max_position_embeddings": 20, **fields}
    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, **shape
    )
    params = draw_parameters(config, architecture)
    save_model_directory(folder / "model", config, params, folder / "tokenizer", architecture)
    return folder / "model"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return save(tmp_path_factory.mktemp("classifier"), "BertForSequenceClassification")


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory):
    return save(tmp_path_factory.mktemp("masked"), "BertForMaskedLM")


def test_added_tokens_are_one_and_special_tokens_letters_wherever_texts_are_read(classifier):
    tokenizer = load_tokenizer(classifier)
    expected = [tokenizer.library.token_to_id(token) for token in IDS]
    framed = [tokenizer.cls_id, *expected, tokenizer.sep_id]
    assert tokenizer.encode_batch([TEXT])[0].tolist() == expected
    assert tokenizer.encode_with_offsets([TEXT])[0][0].tolist() == expected
    ([sequence], [note]) = frame_texts(tokenizer, [(TEXT, None)], 20)
    assert sequence.token_ids.tolist() == framed
    assert "[SEP] spelled out in 1 of 1 text" in note
    [encoded] = encode_texts(tokenizer, [TEXT], 20)
    assert encoded.token_ids.tolist() == framed
    [words] = encode_words(tokenizer, [TEXT.split()], 20)
    assert words.token_ids.tolist() == framed
    from bertjax.tasks.question_answering import QuestionAnswering
    from bertjax.tasks.tagging import Tagging
    from bertjax.text.packing import make_rows
    from bertjax.text.pairs import NO_PAIR, Example

    question = Question("1", TEXT, TEXT, "", (), False, "f:1", ())
    [unit] = QuestionAnswering(True).encode([question], tokenizer, 24, training=False).units
    assert unit.sequences[0].token_ids.tolist() == [*framed, *framed[1:]]
    tagging = Tagging(("O",), "IOB2")
    [sentence] = tagging.examples_of_lines([TEXT])
    [unit] = tagging.encode([sentence], tokenizer, 20, training=False).units
    assert unit.sequences[0].token_ids.tolist() == framed
    ids, _ = tokenizer.encode_joined([TEXT])
    rows = make_rows([Example(ids, ids[:0], NO_PAIR)], tokenizer, len(framed), 1)
    assert rows["token_ids"][0].tolist() == framed


def run_json(bertjax_command, *arguments, **options):
    code, out, err = bertjax_command(*arguments, "--json", **options)
    assert code == 0, err
    return json.loads(out), err


def test_explain_and_predict_give_one_probability(bertjax_command, classifier, tmp_path):
    (tmp_path / "a.csv").write_text(f"text\n{TEXT}\n")
    output = tmp_path / "out"
    code, _, err = bertjax_command(
        "predict", "--model", classifier, "--input", tmp_path / "a.csv", "--output", output
    )
    assert (code, "[SEP] spelled out" in err) == (0, True), err
    predicted = json.loads((output / "predictions.jsonl").read_text())
    [explained], err = run_json(bertjax_command, "explain", "--model", classifier, TEXT)
    assert "[SEP] spelled out" in err
    assert explained["tokens"] == ["[CLS]", *IDS, "[SEP]"]
    assert explained["probability"] == pytest.approx(predicted["probability"], abs=1e-5)


def test_mask_is_the_mask_only_where_a_masked_lm_is_asked(bertjax_command, classifier, masked_lm):
    text = "the [MASK] was [E1] [SEP]"
    spelled = ["[", "sep", "]"]
    [explained], err = run_json(bertjax_command, "explain", "--model", masked_lm, text)
    assert explained["tokens"] == ["[CLS]", "the", "[MASK]", "was", "[E1]", *spelled, "[SEP]"]
    assert err.startswith("[SEP] spelled out")
    [filled], err = run_json(bertjax_command, "fill-mask", "--model", masked_lm, text)
    assert [mask["position"] for mask in filled["masks"]] == [2]
    assert err.startswith("[SEP] spelled out")
    [changed], _ = run_json(
        bertjax_command, "what-if", "--model", masked_lm, text, "--word", "was", "--by", "[MASK]"
    )
    assert changed["after"][:5] == ["[CLS]", "the", "[MASK]", "[MASK]", "[E1]"]
    [explained], err = run_json(bertjax_command, "explain", "--model", classifier, text)
    assert explained["tokens"][2:5] == ["[", "mask", "]"]
    assert "[SEP], [MASK] spelled out" in err


# ------------------------------------------------------------------ what is beyond the tables


CONFIG = BertConfig(
    vocab_size=9, hidden_size=8, num_attention_heads=2, max_position_embeddings=5, type_vocab_size=1
)


@pytest.mark.parametrize(
    ("ids", "types", "positions", "message"),
    [
        ([0, 9], [0], [4], r"token id 9: .* 0 to 8 \(vocab_size=9\); the tokenizer or the rows"),
        ([0, -1], [0], [4], r"token id -1: "),
        ([8], [0, 1], [4], r"token type id 1: .* \(type_vocab_size=1\); the second text of a pair"),
        ([8], [0], [5], r"position id 5: .* 0 to 4 \(max_position_embeddings=5\); shorten"),
    ],
)
def test_id_beyond_a_table_is_refused_with_the_way_out(ids, types, positions, message):
    with pytest.raises(UserError, match=message):
        CONFIG.check_ids(np.array(ids), np.array(types), np.array(positions))


def test_ids_within_the_tables_pass():
    CONFIG.check_ids(np.arange(9, dtype=np.uint16), np.zeros((2, 3), np.uint8), np.arange(5))
    CONFIG.check_ids(*[np.zeros(0, np.int32)] * 3)


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (TokenSequence(np.array([2, 9, 3]), 3), "token id 9"),
        (TokenSequence(np.array([2, 4, 3, 4, 3]), 3), "token type id 1"),
        (TokenSequence(np.array([2, 4, 4, 4, 4, 3]), 6), "position id 5"),
    ],
)
def test_units_are_checked_before_anything_runs(sequence, message):
    from bertjax.tasks.batches import TaskBatches

    class Never:
        config, per_token = CONFIG, False

        def apply(self, *inputs):
            raise AssertionError("the model ran")

    fine = TokenSequence(np.array([2, 4, 3]), 3)
    nothing = np.zeros(1, np.float32)
    units = [Unit(0, (fine,), nothing, nothing), Unit(1, (sequence,), nothing, nothing)]
    with pytest.raises(UserError, match=message):
        Inference(Never(), Never(), 0).run({}, units)
    with pytest.raises(UserError, match=message):
        TaskBatches(units, 1, 0, 5, config=CONFIG, pad_id=0)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("token_ids", 9, "token id 9"),
        ("token_type_ids", 1, "token type id 1"),
        ("position_ids", 5, "position id 5"),
    ],
)
def test_rows_of_another_model_are_refused_as_they_are_read(column, value, message):
    class Rows:
        def __len__(self):
            return 3

        def __getitem__(self, indices):
            names = ("token_ids", "token_type_ids", "position_ids")
            found = {name: np.zeros((3, 5), np.uint16) for name in names}
            found[column][2, 4] = value
            return {name: rows[indices] for name, rows in found.items()}

    rows = FittingRows(Rows(), CONFIG)
    assert (len(rows), len(rows[np.array([0, 1])]["token_ids"])) == (3, 2)
    with pytest.raises(UserError, match=message):
        rows[np.array([1, 2])]


PAIR = "the film\twas good"


def test_pair_is_refused_where_there_is_one_token_type(bertjax_command, tmp_path):
    one = save(tmp_path / "one", "BertForSequenceClassification", type_vocab_size=1)
    for arguments in (
        ("predict", "--model", one, "--input", "-", "--output", tmp_path / "out"),
        ("explain", "--model", one, PAIR),
        ("attention", "--model", one, "--input", "-", "--output", tmp_path / "a.npz"),
        ("contexts", "--model", one, PAIR, "--word", "film", "--input", tmp_path / "c.txt"),
    ):
        (tmp_path / "c.txt").write_text("the film\n")
        code, _, err = bertjax_command(*arguments, stdin=PAIR.encode() + b"\n")
        assert (code, "token type id 1" in err, "Traceback" in err) == (2, True, False), err
        assert "type_vocab_size=1" in err


def test_verify_tells_of_one_token_type_and_fails_for_a_tokenizer_of_another(tmp_path):
    from bertjax.verification.checks import verify

    one = save(tmp_path / "one", "BertModel", type_vocab_size=1)
    row = next(verify(one))
    assert (row.name, row.result) == ("ids", "ok")
    assert "no pairs of texts" in row.detail
    larger = Tokenizer(build_wordpiece([*TOKENS, *"xyz"], True, None))
    larger.save(one)
    row = next(verify(one))
    assert row.result == "FAILED"
    assert "its tokenizer has 19 tokens, more than the model's vocab_size=18" in row.detail
    for name in ("tokenizer.json", "vocab.txt"):
        (one / name).unlink()
    assert next(verify(one)).result == "not checked"


# --------------------------------------------------------------------------- the saved files


def test_saved_tokenizer_has_the_length_and_the_spelling_of_its_model(tmp_path):
    model = save(tmp_path, "BertModel")
    config = json.loads((model / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 20
    # What stands beside a tokenizer.json is part of the tokenizer, and saved with it.
    source = tmp_path / "source"
    source.mkdir()
    build_wordpiece(TOKENS, True, None).save(str(source / "tokenizer.json"))
    (source / "added_tokens.json").write_text(json.dumps({"[E1]": len(TOKENS)}))
    said = {"do_lower_case": False, "model_max_length": 512, "name_or_path": "theirs"}
    (source / "tokenizer_config.json").write_text(json.dumps(said))
    contradicting = load_tokenizer(source)
    from bertjax.interop.huggingface import load_model_directory

    loaded = load_model_directory(model, "BertModel")
    params = loaded.params
    save_model_directory(tmp_path / "saved", loaded.config, params, source, "BertModel")
    saved = load_tokenizer(tmp_path / "saved")
    assert saved.fingerprint == contradicting.fingerprint
    assert saved.notes == ()
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 20
    assert (config["do_lower_case"], config["name_or_path"]) == (False, "theirs")


def test_info_tells_how_texts_are_read(bertjax_command, classifier, tmp_path):
    about, _ = run_json(bertjax_command, "info", classifier)
    tokenizer = about["tokenizer"]
    assert tokenizer["capital_letters"] == "lower-cased"
    assert tokenizer["added_tokens"] == ["[E1]", "<user>"]
    shutil.copytree(classifier, tmp_path / "other")
    Tokenizer(build_wordpiece([*TOKENS, *"xyz"], False, None)).save(tmp_path / "other")
    about, _ = run_json(bertjax_command, "info", tmp_path / "other")
    assert "more than the model's vocab_size=18" in about["tokenizer"]["notes"][0]
    assert about["tokenizer"]["accents"] == "kept"
    (tmp_path / "other" / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    _, out, _ = bertjax_command("info", tmp_path / "other")
    assert "contradicts tokenizer.json, which keeps capital letters" in " ".join(out.split())
