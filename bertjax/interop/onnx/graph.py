"""A graph as it is written down: operators, weights and constants in the order of the model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

# The oldest set of operators with LayerNormalization, so that most runtimes take it.
OPSET = 17
# The format's version of that time. Source: ONNX, "Versioning".
IR_VERSION = 8

# Types of numbers. Source: ONNX, `TensorProto.DataType`.
FLOAT, INT64, BOOL = 1, 7, 9

# What an operator takes: a value of the graph, or numbers that become a constant.
Operand = Any


class Weights(NamedTuple):
    """The parameters of a part of the model, with the name that they have in the graph.

    Attributes:
        name: the path of the part, with dots.
        values: its arrays and its own parts.
    """

    name: str
    values: Mapping[str, Any]

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def part(self, name: str) -> "Weights":
        """Returns the parameters of a part of this one."""
        return Weights(f"{self.name}.{name}".lstrip("."), self.values[name])

    def layer(self, number: int) -> "Weights":
        """Returns the parameters of a layer, where all arrays lead with the axis L.

        Layers that share their parameters (L = 1) have the same names, too, and are stored once.
        """

        number = min(number, len(self.values["output"]["kernel"]) - 1)

        def take(values: Any) -> Any:
            if isinstance(values, Mapping):
                return {name: take(value) for name, value in values.items()}
            return values[number]

        return Weights(f"{self.name}.{number}", take(self.values))


class Graph:
    """Records a graph: it is called with an operator and what that takes."""

    def __init__(self) -> None:
        import onnx_ir as ir

        self._ir, self._tape = ir, ir.tape.Tape()
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._weights: dict[str, ir.Value] = {}
        self._constants: dict[tuple[Any, ...], ir.Value] = {}

    def input(self, name: str, *axes: str) -> "ir.Value":
        """Adds an input of whole numbers, int64, with these names of its axes."""
        ir = self._ir
        value = ir.val(name, dtype=ir.DataType.INT64, shape=axes)
        self._inputs.append(value)
        return value

    def output(self, name: str, value: "ir.Value", axes: Sequence[str | int]) -> None:
        """Makes a value an output, float32, with these names or sizes of its axes."""
        ir = self._ir
        # A value that is an output already, or an input of others, keeps its own name.
        named = self("Identity", value)
        named.name, named.shape, named.dtype = name, ir.Shape(axes), ir.DataType.FLOAT
        self._outputs.append(named)

    def __call__(self, operator: str, *operands: Operand, **attributes: Any) -> "ir.Value":
        """Adds an operator with one output, and returns that.

        Args:
            operator: of ONNX.
            operands: values; arrays and numbers become constants.
            attributes: of the operator.
        """
        values = [self._value(operand) for operand in operands]
        return self._tape.op(operator, values, attributes)

    def split(self, values: "ir.Value", *sizes: int) -> "Sequence[ir.Value]":
        """Adds the parts of the last axis, of these sizes."""
        operands = [values, self._value(sizes)]
        return self._tape.op_multi_out("Split", operands, {"axis": -1}, num_outputs=len(sizes))

    def weight(self, weights: Weights, name: str, *shape: int) -> "ir.Value":
        """Returns a parameter, float32; of one that is used twice there is one.

        Args:
            weights: of the part.
            name: of the parameter.
            shape: that it is to have; its own when left out.
        """
        path = f"{weights.name}.{name}".lstrip(".")
        if path not in self._weights:
            array = np.ascontiguousarray(np.asarray(weights.values[name], np.float32))
            array = array.reshape(shape or array.shape)
            self._weights[path] = self._tape.initializer(self._ir.tensor(array, name=path))
        return self._weights[path]

    def _value(self, operand: Operand) -> "ir.Value":
        if isinstance(operand, self._ir.Value):
            return operand
        array = np.asarray(operand)
        if array.dtype != np.bool_:
            array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = self._tape.initializer(self._ir.tensor(array, name=name))
        return self._constants[key]

    def finish(self, name: str, version: str) -> "ir.Model":
        """Returns the model.

        Args:
            name: of the graph.
            version: of the program that made it.
        """
        ir = self._ir
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": OPSET},
            name=name,
        )
        return ir.Model(
            graph, ir_version=IR_VERSION, producer_name="bertjax", producer_version=version
        )
