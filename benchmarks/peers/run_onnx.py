"""onnxruntime: the graph of torch's exporter, fused by onnxruntime's BERT optimizer; int8 dynamic.

Runs in torch's environment. Inference only.
"""

import numpy as np
import onnx
import onnxruntime
import torch
from batches import by_room, load_texts, pad
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model
from protocol import THREADS, fastest, serve
from transformers import BertModel

ROOMS = (1024, 2048, 4096)


class Inference:
    """Hidden states of one batch, or a mean vector of every text."""

    def __init__(self, folder, job, dtype):
        self.texts, self.pool = load_texts(folder), job["pool"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.session = onnxruntime.InferenceSession(
            str(make_graph(folder, dtype)), options, providers=["CPUExecutionProvider"]
        )
        rooms = ROOMS if self.pool else (int(self.texts.lengths.sum()),)
        self.room = rooms[0] if len(rooms) == 1 else fastest(rooms, self.work)
        self.settings = f"BERT fusions, {self.room} places a batch"

    def check(self):
        return {"hidden": self.work(self.room)}

    def run(self):
        self.work(self.room)

    def work(self, room):
        outputs = None
        for numbers in by_room(self.texts.lengths, room):
            batch = pad(self.texts, numbers)
            (hidden,) = self.session.run(None, {"ids": batch.token_ids, "mask": batch.mask})
            if not self.pool:
                return hidden
            mask = batch.mask[..., None].astype(np.float32)
            if outputs is None:
                outputs = np.empty((len(self.texts.lengths), hidden.shape[-1]), np.float32)
            outputs[numbers] = (hidden * mask).sum(1) / mask.sum(1)
        return outputs


def make_graph(folder, dtype):
    """The file of the optimized graph, made once for all dtypes."""
    fused = folder / "fused.onnx"
    if not fused.exists():
        model = BertModel.from_pretrained(folder / "model", add_pooling_layer=False).eval()
        config = model.config

        class Hidden(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.body = model

            def forward(self, ids, mask):
                return self.body(input_ids=ids, attention_mask=mask)[0]

        ids = torch.ones(2, 16, dtype=torch.int64)
        axes = {0: "rows", 1: "length"}
        plain = folder / "plain.onnx"
        torch.onnx.export(
            Hidden(),
            (ids, ids),
            plain,
            input_names=["ids", "mask"],
            output_names=["hidden"],
            dynamic_axes={"ids": axes, "mask": axes, "hidden": axes},
            dynamo=False,
        )
        optimize_model(
            str(plain),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
        ).save_model_to_file(str(fused))
    if dtype == "float32":
        return fused
    int8 = folder / "int8.onnx"
    # Shapes and types of fused nodes are unknown to it: what is not said is float32.
    options = {"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True}
    quantize_dynamic(
        fused, int8, per_channel=True, weight_type=QuantType.QInt8, extra_options=options
    )
    return int8


def make_peer(folder, job, dtype):
    """The peer of a job."""
    return Inference(folder, job, dtype)


if __name__ == "__main__":
    serve(make_peer, ("onnxruntime", "torch", "transformers"))
