import gzip

import numpy as np
import pytest

from bertjax.analysis.probes.treebank import (
    encode_treebank,
    read_treebank,
    split_halves,
    split_sentences,
)
from bertjax.program.errors import UserError
from bertjax.text.special_tokens import BERT_TOKENS
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece

# "I don't", with a multi-word token, an empty node and a comment in the middle.
SENTENCE = """\
# sent_id = 1
1\tI\tI\tPRON\tPRP\t_\t3\tnsubj:pass\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t3\taux\t_\t_
# a comment
3\tn't\tnot\tPART\tRB\t_\t0\troot\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t3:conj\t_
4\t.\t.\tPUNCT\t.\t_\t3\tpunct\t_\t_
"""


def row(number, head, form="a"):
    return f"{number}\t{form}\t_\tNOUN\t_\t_\t{head}\tdep\t_\t_\n"


def write(folder, text, name="bank.conllu"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_syntactic_words_count_and_empty_nodes_do_not(tmp_path):
    bank = read_treebank(write(tmp_path, SENTENCE + "\n\n" + row(1, 0) + row(2, 1)))
    first, second = bank.sentences
    assert first.words == ("I", "do", "n't", ".")
    assert first.heads.tolist() == [2, 2, -1, 2]
    assert first.relations == ("nsubj:pass", "aux", "root", "punct")
    assert first.upos == ("PRON", "AUX", "PART", "PUNCT")
    assert first.xpos == ("PRP", "VBP", "RB", ".")
    assert first.punctuation.tolist() == [False, False, False, True]
    assert first.place.endswith("bank.conllu:2")
    assert (second.words, second.heads.tolist()) == (("a", "a"), [-1, 0])
    assert bank.notes == (
        "1 multi-word tokens count as the syntactic words they consist of",
        "1 empty nodes are left out",
    )


def test_words_with_blanks_and_odd_features_are_read(tmp_path):
    text = "1\ta  b c\t_\tNOUN\tNN\t|=|\t0\troot\tx::y\t==\n"
    (sentence,) = read_treebank(write(tmp_path, text)).sentences
    assert sentence.words == ("a b c",)
    assert (sentence.xpos, sentence.relations) == (("NN",), ("root",))


def test_gzip_and_several_files_are_read(tmp_path):
    path = tmp_path / "bank.conllu.gz"
    path.write_bytes(gzip.compress(SENTENCE.encode()))
    bank = read_treebank([path, write(tmp_path, row(1, 0, "b"))])
    assert [sentence.words[0] for sentence in bank.sentences] == ["I", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# c\n1\ta\tb\n", r"bank\.conllu:2: 3 tab-separated columns where CoNLL-U has 10"),
        (row(1, 0) + row(3, 1), r"bank\.conllu:2: word 3 where 2 is expected"),
        (row("x", 0), r"bank\.conllu:1: .*'x' is not a valid ID"),
        (row("_", 0), r"bank\.conllu:1: the first column must number the word"),
        (row(1, 0) + row(2, "up"), r"bank\.conllu:2: .*'up' is not a valid"),
        (row(1, "_"), r"bank\.conllu:1: the word has no head"),
        (row(1, 0) + row(2, 7), r"bank\.conllu:2: head 7 of word 2 must be another of the 2"),
        (row(1, 0) + row(2, 2), r"bank\.conllu:2: head 2 of word 2"),
        (row(1, 0) + row(2, -1), r"bank\.conllu:2: head -1"),
        (row(1, 0) + row(2, 0), r"bank\.conllu:2: 2 words with head 0; a tree has one root"),
        (row(1, 2) + row(2, 1), r"bank\.conllu:1: 0 words with head 0"),
        (row(1, 0) + row(2, 3) + row(3, 2), r"bank\.conllu:2: word 2 never leads to the root"),
        (
            "1-2\tab" + "\t_" * 8 + "\n",
            r"bank\.conllu:1: a sentence without a word, only the row 1-2; add",
        ),
        ("# only a comment\n", "no sentences; is it CoNLL-U"),
    ],
)
def test_damage_is_told_with_its_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_treebank(write(tmp_path, text))


def test_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match="a treebank is a text file in CoNLL-U"):
        read_treebank(write(tmp_path, '{"text": "a"}', "bank.jsonl"))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(build_wordpiece([*BERT_TOKENS, "a", "##a", "b"], True, None))


def test_long_sentences_are_left_out_and_told(tmp_path, tokenizer):
    text = row(1, 0, "aaa") + "\n" + row(1, 0, "aaaa") + "\n" + row(1, 0, "b")
    bank = read_treebank(write(tmp_path, text))
    found = encode_treebank(tokenizer, bank.sentences, 5)
    assert [sentence.words for sentence in found.sentences] == [("aaa",), ("b",)]
    assert [own.words for own in found.encoded] == [
        ("[CLS]", "aaa", "[SEP]"),
        ("[CLS]", "b", "[SEP]"),
    ]
    assert found.notes == (
        "1 of 3 sentences are longer than the 5 tokens that the model takes and are left out of"
        " every figure",
    )
    assert encode_treebank(tokenizer, bank.sentences, 6).notes == ()
    assert found.select([1]).sentences[0].words == found.select([1]).encoded[0].words[1:2] == ("b",)
    with pytest.raises(UserError, match="no sentence of the treebank, which has 3, fits the"):
        encode_treebank(tokenizer, bank.sentences, 2)


def test_splits_keep_equal_sentences_together_and_lose_none(tmp_path):
    names = [f"w{number}" for number in range(500)]
    text = "\n".join(row(1, 0, name) for name in [*names, *(name.upper() for name in names)])
    sentences = read_treebank(write(tmp_path, text)).sentences
    splits = split_sentences(sentences, (0.1, 0.2))
    assert sorted(np.concatenate(list(splits.values()))) == list(range(1000))
    for numbers in splits.values():
        assert set(numbers[numbers < 500] + 500) == set(numbers[numbers >= 500])
    assert 60 < len(splits["validation"]) < 140
    assert 150 < len(splits["test"]) < 250
    choose, report = split_halves(sentences)
    assert 400 < choose.sum() < 600
    assert (choose != report).all()
    assert (choose[:500] == choose[500:]).all()


def test_a_real_treebank_is_read_whole(shared_data):
    bank = read_treebank(shared_data / "treebank" / "en_ewt-ud-dev.conllu")
    # grep -c '^# sent_id', grep -c '^[0-9]*-', grep -c '^[0-9]*\.'
    assert (len(bank.sentences), bank.multiword_tokens, bank.empty_nodes) == (2001, 359, 4)
    assert bank.sentences[0].words[:3] == ("From", "the", "AP")
