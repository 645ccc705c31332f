"""Directories of tokenizers as the published models of each family have them, small.

The vocabularies are trained with the `tokenizers` library, the files written by transformers.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import tokenizers
import transformers
from tokenizers import (
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = [
    "The unbelievable cat believes in unlikely, likeable things; it isn't able to unlike it.",
    "Café owners believe that a likely story is able to be told. It's 1984, and 84 are left!",
    "El año de la señora pasó; le garçon a mangé l'œuf, naïve und schöne Straßen überall.",
    "I hope you can come to the house today :) call me on 0207 or text STOP to 87121 now!!",
    "日本語の文章と中文的句子 🙂 🎉 ok",
    "\t two  spaces\n and \u00a0 other white space ﬁne Ａ①",
] * 4
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def roberta(directory: Path) -> None:
    """RoBERTa's: tokenizer.json, tokenizer_config.json."""
    vocabulary, merges = _train_bpe(ROBERTA[:4], ["<mask>"])
    transformers.RobertaTokenizer(vocabulary, merges).save_pretrained(directory)


def roberta_in_two_files(directory: Path) -> None:
    """The same before there was a tokenizer.json: vocab.json and merges.txt."""
    vocabulary, merges = _train_bpe(ROBERTA[:4], ["<mask>"])
    directory.mkdir()
    (directory / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False}
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": mask}
    tokens = {f"{role}_token": token for role, token in names.items()}
    _write(directory / "special_tokens_map.json", tokens)
    _write(directory / "config.json", {"model_type": "roberta"})


def xlm_roberta(directory: Path) -> None:
    """XLM-R's: Unigram with a precompiled map of characters."""
    pieces = _train_unigram(pre_tokenizers.Metaspace(prepend_scheme="always"))
    vocabulary = [*((token, 0.0) for token in ROBERTA[:4]), *pieces, ("<mask>", 0.0)]
    charsmap = precompile({"ﬁ": "fi", "Ａ": "A", "①": "1", "\u00a0": " ", "\t": " ", "\n": " "})
    transformers.XLMRobertaTokenizer(
        vocabulary, _spm_precompiled_charsmap=charsmap
    ).save_pretrained(directory)


def camembert(directory: Path) -> None:
    """CamemBERT's: two lines of special tokens, the first unused."""
    pieces = _train_unigram(pre_tokenizers.Metaspace(prepend_scheme="always"))
    first = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    vocabulary = [*((token, 0.0) for token in first), *pieces, ("<mask>", 0.0)]
    transformers.CamembertTokenizer(vocab=vocabulary).save_pretrained(directory)


def albert(directory: Path) -> None:
    """ALBERT's: lower case, no accents, two quotation marks for one."""
    pieces = _train_unigram(pre_tokenizers.Metaspace(prepend_scheme="always"), lowercase=True)
    first = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*((token, 0.0) for token in first), *pieces]
    transformers.AlbertTokenizer(vocab=vocabulary).save_pretrained(directory)


def modernbert(directory: Path) -> None:
    """ModernBERT's: byte-level BPE in BERT's frame, special tokens last; read by the base class."""
    last = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    vocabulary, merges = _train_bpe([], last)
    library = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(
        [AddedToken(token, lstrip=token == "[MASK]", normalized=False) for token in last]
    )
    library.add_tokens([AddedToken("   ", normalized=True), "|||EMAIL|||"])
    _frame(library, "[CLS]", "[SEP]")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=library,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=True,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    ).save_pretrained(directory)


def mmbert(directory: Path) -> None:
    """mmBERT's: Gemma's BPE with byte fallback, `▁` for a space, `<bos> A <eos>`."""
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    bytes_of = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*first, *bytes_of], show_progress=False
    )
    library = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    library.normalizer = normalizers.Replace(" ", "▁")
    library.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # only in training
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    library.train_from_iterator([text[:60] for text in CORPUS[:4]] * 4, trainer)
    parts = json.loads(library.to_str())
    parts["added_tokens"] = [token for token in parts["added_tokens"] if token["id"] < 5]
    parts["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    library = tokenizers.Tokenizer.from_str(json.dumps(parts))
    _frame(library, "<bos>", "<eos>")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=library,
        model_input_names=["input_ids", "attention_mask"],
        bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        mask_token="<mask>", cls_token="<bos>", sep_token="<eos>",
    ).save_pretrained(directory)  # fmt: skip


FAMILIES: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (roberta, roberta_in_two_files, xlm_roberta, camembert, albert, modernbert, mmbert)
}


def precompile(replacements: dict[str, str]) -> bytes:
    """Returns SentencePiece's map of characters: a trie of their bytes, and what they become.

    The trie is a double array, here with 256 places for each node.
    """
    values, blob = {}, b""
    for key, value in replacements.items():
        values[key.encode()], blob = len(blob), blob + value.encode() + b"\0"
    prefixes = sorted({key[:end] for key in values for end in range(len(key) + 1)}, key=len)
    base = {prefix: 256 * (number + 1) for number, prefix in enumerate(prefixes)}
    units = [0] * 256 * (len(prefixes) + 1)
    for prefix in prefixes:
        place = base[prefix[:-1]] + prefix[-1] if prefix else 0
        label = prefix[-1] if prefix else 0
        units[place] = (place ^ base[prefix]) << 10 | (prefix in values) << 8 | label
        if prefix in values:
            units[base[prefix]] = values[prefix]
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + blob


def _frame(library: tokenizers.Tokenizer, cls: str, sep: str) -> None:
    library.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, library.token_to_id(token)) for token in (cls, sep)],
    )


def _train_bpe(first: list[str], last: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=450, initial_alphabet=alphabet, show_progress=False),
    )
    model = json.loads(library.to_str())["model"]
    ordinary = sorted(model["vocab"], key=model["vocab"].get)
    names = [*first, *ordinary, *last]
    return {name: id for id, name in enumerate(names)}, [tuple(pair) for pair in model["merges"]]


def _train_unigram(pieces: object, lowercase: bool = False) -> list[tuple[str, float]]:
    library = tokenizers.Tokenizer(models.Unigram())
    library.pre_tokenizer = pieces
    if lowercase:
        library.normalizer = normalizers.Lowercase()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    library.train_from_iterator(CORPUS, trainer)
    vocabulary = json.loads(library.to_str())["model"]["vocab"][1:]
    return [(piece, score) for piece, score in vocabulary]


def _write(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")
