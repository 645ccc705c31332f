"""The server that one writes in ten minutes: FastAPI and sentence-transformers.

python plain.py MODEL_DIR PORT (vectors | classes)
"""

import sys

import fastapi
import pydantic
import uvicorn
from sentence_transformers import CrossEncoder, SentenceTransformer

app = fastapi.FastAPI()
folder, port, kind = sys.argv[1:]
model = SentenceTransformer(folder) if kind == "vectors" else CrossEncoder(folder)


class Call(pydantic.BaseModel):
    """Texts."""

    input: list[str]


@app.post("/answer")
def answer(call: Call) -> list[list[float]]:
    """Vectors, or the scores of the classes."""
    if kind == "vectors":
        return model.encode(call.input).tolist()
    import torch

    return model.predict(call.input, activation_fn=torch.nn.Softmax(-1)).tolist()


uvicorn.run(app, port=int(port), log_level="warning")
