"""Weights of matrix products in eight bits, by onnxruntime's dynamic quantisation."""

import logging
from pathlib import Path


def quantize(source: Path, output: Path, *, outside: bool) -> None:
    """Writes a model whose products with weights are of whole numbers.

    Each output channel of a weight has a scale of its own. Weights take seven of the eight bits:
    products with all eight overflow 16 bits on processors without VNNI, silently, so that a model
    would answer differently there from where it was checked.

    Args:
        source: a float32 model.
        output: the file to write.
        outside: put weights into a file beside it, as a model above 2 GB needs.

    Source: onnxruntime, "Quantize ONNX models", sections "Dynamic quantization" and "When and why
        do I need to try U8U8".
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to fuse operators before, into its own ones
    try:
        quantize_dynamic(
            source,
            output,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=outside,
        )
    finally:
        logging.disable(before)
