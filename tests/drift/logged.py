"""Logs of requests without a server: lines of made-up texts and answers."""

import base64
import json

import numpy as np

DAY = 86400.0
# 2026-11-01, the time of the first line.
FIRST_TIME = 1793491200.0


def make_line(random, number=0, shift=0.0, **fields):
    """A line of a classifier; with a shift its texts are longer, and other labels are answered."""
    is_spam = random.random() < 0.2 + 0.3 * shift
    sketch = random.normal(0.5 * shift, 1, 32).astype("<f2")
    return {
        "time": FIRST_TIME + 60.0 * number,
        "id": f"{number}-{random.integers(1 << 30)}",
        "route": "/predict",
        "model": "sms",
        "fingerprint": "00aa",
        "program": "class",
        "texts": 1,
        "max_length": 32,
        "tokens": int(random.integers(5, 20) + 5 * shift),
        "unknown": round(random.random() * 0.1, 6),
        "pieces": 1 + round(random.random(), 6),
        "characters": int(random.integers(20, 90)),
        "digits": round(random.random() * 0.2, 6),
        "capitals": round(random.random() * 0.2, 6),
        "punctuation": round(random.random() * 0.2, 6),
        "beyond_ascii": 0.0,
        "labels": {"spam" if is_spam else "ham": 1},
        "confidence": round(0.5 + random.random() / 2, 6),
        "number": None,
        "sketch": base64.b64encode(sketch.tobytes()).decode(),
        "text_hash": "00",
        **fields,
    }


def make_lines(count, seed=0, first=0, shift=0.0, **fields):
    random = np.random.default_rng(seed)
    return [make_line(random, first + number, shift, **fields) for number in range(count)]


def write_log(folder, *parts):
    """A folder with a file for each list of lines."""
    folder.mkdir(exist_ok=True)
    for number, lines in enumerate(parts):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"requests-{number:017d}-000001.jsonl").write_text(text)
    return folder
