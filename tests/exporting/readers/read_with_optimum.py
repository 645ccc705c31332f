"""What optimum and sentence-transformers make of exported directories: answers to texts.

    .venv-readers/bin/python tests/exporting/readers/read_with_optimum.py JOB.json ANSWERS.npz

The job is a list of `{"directory", "texts"}`; a text is a list of one or two, or for a class of
multiple choice all choices of a question. Runs without bertjax, in an environment of its own:
optimum-onnx needs an older transformers.
"""

import json
import sys
from pathlib import Path

import numpy as np
from optimum import onnxruntime
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer


def main(job, output):
    """Writes `NUMBER/NAME` for every directory: inputs, outputs, and vectors of a body."""
    kept = {}
    for number, one in enumerate(json.loads(Path(job).read_text(encoding="utf-8"))):
        directory = Path(one["directory"])
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        head = config["architectures"][0].partition("For")[2]
        kind = getattr(onnxruntime, f"ORTModelFor{head or 'FeatureExtraction'}")
        model, tokenizer = kind.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
        parts = [list(part) for part in zip(*one["texts"], strict=True)]
        inputs = dict(tokenizer(*parts, padding=True, return_tensors="np"))
        if head == "MultipleChoice":
            inputs = {name: values[None] for name, values in inputs.items()}
        answers = {**inputs, **model(**inputs)}
        if not head:
            reader = SentenceTransformer(str(directory), backend="onnx")
            answers["vectors"] = reader.encode([text for [text] in one["texts"]])
        kept |= {f"{number}/{name}": np.asarray(values) for name, values in answers.items()}
    np.savez(output, **kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
