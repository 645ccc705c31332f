"""Frames: read from a tokenizer's post-processor, and what follows from them."""

import json

import numpy as np
import pytest
from tokenizers import processors

from bertjax.program.errors import UserError
from bertjax.text.framing import Frame, frame, read_frame
from bertjax.text.tokenizer import Tokenizer
from tests.text.tiny_tokenizers import make, make_of

BERT, ROBERTA = Frame((2,), (3,), (3,)), Frame((0,), (2, 2), (2,))
ENDS = [("[CLS]", 2), ("[SEP]", 3)]


def read(processor) -> Frame | None:
    return read_frame(json.loads(processor.__getstate__()), "tokenizer.json")


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)), BERT),
        (processors.RobertaProcessing(("</s>", 2), ("<s>", 0)), ROBERTA),
        (
            processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ENDS),
            BERT,
        ),
        (
            processors.TemplateProcessing(
                "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]
            ),
            ROBERTA,
        ),
        (processors.ByteLevel(), None),
        (processors.TemplateProcessing("$A", "$A $B", []), None),
        (
            processors.Sequence(
                [processors.ByteLevel(), processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))]
            ),
            BERT,
        ),
    ],
)
def test_frame_is_that_of_the_post_processor(processor, expected):
    assert read(processor) == expected


@pytest.mark.parametrize(
    ("single", "pair"),
    [
        ("$A [SEP]", "$A [SEP] $B [SEP]"),  # nothing before a text
        ("[CLS] $A [SEP]", "[CLS] $A $B"),  # a pair ends otherwise than a text
        ("[CLS] $A [SEP]", "$A [SEP] $B [SEP]"),
    ],
)
def test_other_frames_are_refused_with_what_they_are(single, pair):
    with pytest.raises(
        UserError, match=r"tokenizer.json: its post-processor frames texts as"
    ) as it:
        read(processors.TemplateProcessing(single, pair, ENDS))
    assert single.replace("$", "") in str(it.value)


@pytest.mark.parametrize("of", [BERT, ROBERTA, Frame((7, 8), (9,), ())])
def test_parts_sizes_and_starts_agree(of):
    first, second = np.arange(100, 104), np.arange(200, 207)
    for texts in ((first,), (first, second)):
        ids = np.concatenate(of.parts(*texts))
        assert len(ids) == of.size(len(texts) == 2) + sum(map(len, texts))
        for text, start in zip(texts, of.starts([len(text) for text in texts]), strict=True):
            np.testing.assert_array_equal(ids[start : start + len(text)], text)
        special = ids[ids < 100].tolist()
        assert special == [*of.before, *(of.between if len(texts) == 2 else ()), *of.after]


@pytest.mark.parametrize(
    "tokenizer", [make("wordpiece"), make_of("roberta")], ids=["bert", "roberta"]
)
def test_longer_text_of_a_pair_is_cut_until_both_fit(tokenizer: Tokenizer):
    first, second = np.arange(10, 16, dtype=np.int32), np.arange(20, 40, dtype=np.int32)
    for length in (9, 12, 20, 30, 40):
        (ids, start), cut = frame(tokenizer, first, second, length)
        special = tokenizer.frame.size(pair=True)
        assert len(ids) == min(length, len(first) + len(second) + special)
        assert cut == (length < len(first) + len(second) + special)
        assert ids[start] == 20
        assert ids[1] == 10
        kept = start - 1 - len(tokenizer.frame.between), len(ids) - start - 1
        assert kept[0] == min(len(first), (length - special) // 2)
    (ids, start), cut = frame(tokenizer, second, None, 9)
    assert (len(ids), start, cut) == (9, 9, True)
