"""The server that one writes in ten minutes: FastAPI, sentence-transformers and transformers.

python plain.py MODEL_DIR PORT (vectors | classes)
"""

import sys

import fastapi
import pydantic
import transformers
import uvicorn
from sentence_transformers import SentenceTransformer

app = fastapi.FastAPI()
folder, port, kind = sys.argv[1:]
if kind == "vectors":
    model = SentenceTransformer(folder)
else:
    model = transformers.pipeline("text-classification", folder, top_k=None)


class Call(pydantic.BaseModel):
    """Texts."""

    input: list[str]


@app.post("/answer")
def answer(call: Call) -> list[list[float]]:
    """Vectors, or the scores of the classes by their names."""
    if kind == "vectors":
        return model.encode(call.input).tolist()
    ranked = model(call.input, truncation=True, max_length=256)
    return [
        [one["score"] for one in sorted(scores, key=lambda one: one["label"])] for scores in ranked
    ]


uvicorn.run(app, port=int(port), log_level="warning")
