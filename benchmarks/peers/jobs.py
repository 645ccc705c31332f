"""What is to be done: weights and texts in a folder, the same for every peer."""

import csv
import shutil

import jax
import numpy as np

from bertjax.architectures import ARCHITECTURES
from bertjax.config import BertConfig
from bertjax.interop.tensor_names import to_theirs
from bertjax.model.bert import BertForPreTraining
from bertjax.program.strict_json import to_json
from bertjax.text.packing import pack
from bertjax.text.tokenizer import load_tokenizer

SPECIAL = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
FIRST_WORD = 1996  # of bert-base-uncased: "the"; all ids above are words or their pieces

CASES = {
    "base-training": {"kind": "training", "size": "base", "rows": 8, "length": 128},
    "mini-training": {"kind": "training", "size": "mini", "rows": 32, "length": 128},
    "base-inference": {"kind": "inference", "size": "base", "rows": 8, "length": 128},
    "text-training": {"kind": "training", "size": "base", "rows": 8, "length": 128, "steps": 2},
    "text-training-mini": {
        "kind": "training",
        "size": "mini",
        "rows": 32,
        "length": 128,
        "steps": 2,
    },
    "embed-sentences": {"kind": "inference", "length": 256, "most": 512},
    "embed-tweets": {"kind": "inference", "length": 256, "most": 512},
    "embed-paragraphs": {"kind": "inference", "length": 256, "most": 192},
}


def is_of_text(case):
    """Whether a case is of real text, of many lengths."""
    return case.startswith(("text", "embed"))


def write(folder, case, options):
    """Writes the job into the folder and returns it."""
    job = {"case": case, "learning_rate": 1e-4, "special": SPECIAL, "steps": 1, **CASES[case]}
    job |= {"compile": options.compile, "text": is_of_text(case)}
    job["pool"] = case.startswith("embed")
    if "size" in job:
        config = BertConfig.of_size(job["size"], max_position_embeddings=job["length"])
        _write_model(folder / "model", config)
    else:
        # Another class's parts and the tokenizer are left behind: all peers read a BertModel.
        (folder / "model").mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(options.minilm / name, folder / "model" / name)
    random = np.random.default_rng(0)
    if not job["text"]:
        words = random.integers(FIRST_WORD, 30522, (job["rows"], job["length"]))
        words[:, 0], words[:, -1] = SPECIAL["cls"], SPECIAL["sep"]
        texts = list(words)
    else:
        texts = _read(case, job, options, random)
    job["texts"], job["tokens"] = len(texts), sum(map(len, texts))
    lengths = np.array([len(text) for text in texts])
    job["what"] = (
        f"{job.get('size', 'MiniLM')}, {job['texts']} texts, {job['tokens']:,} tokens (median"
        f" {int(np.median(lengths))}, longest {lengths.max()}), {job['steps']} step(s)"
    )
    original = np.concatenate(texts).astype(np.int32)
    masked, chosen = _mask(original, lengths, random)
    np.savez(folder / "texts.npz", original=original, masked=masked, chosen=chosen, lengths=lengths)
    (folder / "job.json").write_text(to_json(job), encoding="utf-8")
    return job


def load_outputs(file):
    """What a peer's check wrote."""
    with np.load(file) as arrays:
        return dict(arrays)


def _write_model(folder, config):
    from safetensors.numpy import save_file

    model = BertForPreTraining(config)
    draw = jax.jit(lambda key: model.init(key, np.zeros((1, 1), np.int32))["params"])
    architecture = "BertForPreTraining"
    tensors = to_theirs(draw(jax.random.key(0)), config, ARCHITECTURES[architecture].parts)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    values = {"architectures": [architecture], **config.to_dict(), "dtype": "float32"}
    (folder / "config.json").write_text(to_json(values), encoding="utf-8")


def _mask(original, lengths, random):
    """15 % of each text's words, at least one; 80 % [MASK], 10 % random, 10 % kept."""
    masked, chosen = original.copy(), np.zeros(len(original), bool)
    for start, size in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        places = 1 + start + np.arange(size - 2)
        if len(places):
            number = max(1, round(0.15 * len(places)))
            chosen[random.choice(places, number, replace=False)] = True
    places = np.flatnonzero(chosen)
    draw = random.random(len(places))
    masked[places[draw < 0.8]] = SPECIAL["mask"]
    swapped = places[(draw >= 0.8) & (draw < 0.9)]
    masked[swapped] = random.integers(FIRST_WORD, 30522, len(swapped))
    return masked, chosen


def _read(case, job, options, random):
    """Texts of one kind for `embed-KIND`; of all three, as many tokens each, for training."""
    tokenizer = load_tokenizer(options.data / "vocab" / "bert-base-uncased-vocab.txt")
    kinds = [case.removeprefix("embed-")] if job["pool"] else ["sentences", "tweets", "paragraphs"]
    texts, share = [], job["rows"] * job["steps"] * job["length"] if "rows" in job else 0
    for kind in kinds:
        lines = READERS[kind](options.data)
        lines = [lines[number] for number in random.permutation(len(lines))[: job.get("most")]]
        room = job["length"] - 2
        framed = [
            np.array([SPECIAL["cls"], *ids[:room], SPECIAL["sep"]])
            for ids in tokenizer.encode_batch(lines)
        ]
        if share:
            ends = np.cumsum([len(text) for text in framed])
            framed = framed[: int(np.searchsorted(ends, share / len(kinds)))]
        texts += framed
    texts = [texts[number] for number in random.permutation(len(texts))]
    if share:  # what fills the rows of all steps; the rest of a corpus would follow
        while _rows(texts, job) > job["rows"] * job["steps"]:
            texts.pop()
    return texts


def _rows(texts, job):
    lengths = np.array([len(text) for text in texts])
    return int(pack(lengths, job["length"], job["length"] // 3).row.max()) + 1


def _read_sentences(data):
    lines = (data / "treebank" / "en_ewt-ud-dev.conllu").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]


def _read_tweets(data):
    with (data / "classification" / "vader_tweets.tsv").open(encoding="utf-8") as file:
        return [row[2] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def _read_paragraphs(data):
    lines = (data / "text" / "psychology.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if len(line) > 200]


READERS = {"sentences": _read_sentences, "tweets": _read_tweets, "paragraphs": _read_paragraphs}
