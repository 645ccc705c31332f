"""A model in the format of ONNX, run by onnxruntime on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.program.errors import UserError
from bertjax.program.libraries import require_libraries
from bertjax.text.workers import count_cores

# The way out where a file is not what it should be.
EXPORT_IT = "Export the model again, with `bertjax export`"


class OnnxSession:
    """Runs the model of a file.

    Args:
        path: of the file; what it has outside is beside it.
        threads: that share an operator out; as many as there are cores when left out.

    Attributes:
        path: of the file.
        files: it, and what it has outside; together they have so many `bytes`.
        inputs, outputs: their axes by name, a size or a word each; none where it does not say.
        is_quantized: whether onnxruntime has put its weights into eight bits. Then what they are
            multiplied with is scaled by the largest of all that is asked at once, padding included.

    Raises:
        UserError: onnxruntime is not installed, or cannot read the file.
    """

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        require_libraries(str(path), "onnx")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or count_cores()
        options.log_severity_level = 4  # what is wrong is an exception, too
        self.path = Path(path)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no class in common
            raise UserError(f"{path}: onnxruntime cannot read it ({error}). {EXPORT_IT}") from None
        self.files = [self.path, *sorted(self.path.parent.glob(f"{self.path.name}[._]data"))]
        self.bytes = sum(file.stat().st_size for file in self.files)
        self.inputs = {value.name: tuple(value.shape) for value in self._session.get_inputs()}
        self.outputs = {value.name: tuple(value.shape) for value in self._session.get_outputs()}
        self.is_quantized = self._session.get_modelmeta().producer_name == "onnx.quantize"

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the outputs by name.

        Args:
            inputs: whole numbers, by name; those that the model has not are left out.

        Raises:
            UserError: the file cannot be run on them.
        """
        given = {name: np.asarray(inputs[name], np.int64) for name in self.inputs}
        try:
            outputs = self._session.run(None, given)
        except Exception as error:  # its exceptions have no class in common
            told = str(error).strip()
            raise UserError(
                f"{self.path}: onnxruntime cannot run it ({told}). {EXPORT_IT}"
            ) from None
        return dict(zip(self.outputs, outputs, strict=True))
