"""The language of requirements: `macro_f1 >= old - 0.01`, `p95_ms <= 1.2 * old`.

requirement  expression OP expression        OP is >=, <=, > or <
expression   numbers, names, + - * /, parentheses
NAME         a quantity of the new model (`terms.UNITS`, and the scores of its task)
old.NAME     the same quantity of the old model
old          of the old model the quantity that the requirement names of the new one
"""

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from bertjax.program.errors import UserError
from bertjax.program.wording import nearest

# What an expression is of: numbers, or arrays of them.
Value = TypeVar("Value", float, np.ndarray)

# Characters of a requirement: more than anyone writes, fewer than Python's parser chokes on.
LONGEST = 300
_OLD = "old"
_ARITHMETIC: dict[type[ast.operator], Callable[..., np.ndarray]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}
_COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[float, float], bool]]] = {
    ast.GtE: (">=", operator.ge),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.Lt: ("<", operator.lt),
}


class Requirement(NamedTuple):
    """A requirement that was read.

    Attributes:
        text: as it was written.
        left, right: its sides.
        sign: how the sides are compared.
        names: the quantities of the new model that it names.
        old_names: those of the old one.
    """

    text: str
    left: ast.expr
    right: ast.expr
    sign: str
    names: frozenset[str]
    old_names: frozenset[str]

    def sides(
        self, new: Mapping[str, Value], old: Mapping[str, Value]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Computes both sides.

        Args:
            new: the quantities of the new model: numbers, or arrays of one shape.
            old: those of the old model.

        Returns:
            NaN where a side is not defined, after a division by 0 for instance.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            both = [self._compute(side, new, old) for side in (self.left, self.right)]
        left, right = (np.where(np.isfinite(side), side, np.nan) for side in both)
        return left, right

    def margin(self, new: Mapping[str, Value], old: Mapping[str, Value]) -> np.ndarray:
        """Computes by how much the requirement is met: below 0 where it is not.

        Args:
            new, old: as of `sides`.
        """
        left, right = self.sides(new, old)
        return left - right if self.sign in (">=", ">") else right - left

    def holds(self, left: float, right: float) -> bool:
        """Returns whether sides that are known exactly are as required.

        Args:
            left: the left side.
            right: the right side.
        """
        [compare] = [compare for sign, compare in _COMPARISONS.values() if sign == self.sign]
        return compare(left, right)

    def _compute(
        self, node: ast.expr, new: Mapping[str, Value], old: Mapping[str, Value]
    ) -> np.ndarray:
        match node:
            case ast.Constant():
                return np.float64(node.value)
            case ast.Name(id="old"):
                [name] = self.names
                return np.asarray(old[name], np.float64)
            case ast.Name():
                return np.asarray(new[node.id], np.float64)
            case ast.Attribute():
                return np.asarray(old[node.attr], np.float64)
            case ast.UnaryOp():
                operand = self._compute(node.operand, new, old)
                return np.negative(operand) if isinstance(node.op, ast.USub) else operand
            case ast.BinOp():
                sides = (self._compute(side, new, old) for side in (node.left, node.right))
                return _ARITHMETIC[type(node.op)](*sides)
        raise AssertionError(ast.dump(node))


def read_requirement(text: str, known: Collection[str], lacking: Mapping[str, str]) -> Requirement:
    """Reads a requirement.

    Args:
        text: as it was written.
        known: the names of all quantities.
        lacking: quantities that there are not here, with the reason.

    Raises:
        UserError: it is not in the language, names what there is not, or says nothing of the new
            model.
    """

    def refuse(why: str) -> UserError:
        return UserError(f"--require {text!r:.120}: {why}")

    example = "write it as 'macro_f1 >= old - 0.01'"
    if len(text) > LONGEST:
        raise refuse(f"has {len(text):,} characters, and {LONGEST} is the most; make it several")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise refuse(f"cannot be read ({reason}); {example}") from None
    match tree:
        case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in _COMPARISONS:
            pass
        case _:
            raise refuse(f"is not one comparison by >=, <=, > or <; {example}")
    names, old_names = set[str](), set[str]()
    for side in (left, right):
        for node in ast.walk(side):
            match node:
                case ast.Constant(value=bool() | complex() | str() | bytes() | None):
                    raise refuse(f"{ast.unparse(node)} is not a number; {example}")
                case ast.Constant(value=int() | float() as number):
                    if not _is_finite(number):
                        raise refuse(f"{ast.unparse(node)} is not a finite number")
                case ast.Name():
                    names |= {node.id} - {_OLD}
                case ast.Attribute(value=ast.Name(id="old")):
                    old_names.add(node.attr)
                case ast.UnaryOp(op=ast.USub() | ast.UAdd()) | ast.BinOp():
                    if isinstance(node, ast.BinOp) and type(node.op) not in _ARITHMETIC:
                        raise refuse(f"{ast.unparse(node)} is none of + - * /; {example}")
                case ast.operator() | ast.unaryop() | ast.expr_context():
                    pass
                case _:
                    raise refuse(
                        f"{ast.unparse(node)} is not allowed: numbers, names of quantities, old,"
                        f" + - * / and parentheses are; {example}"
                    )
    bare = _has_bare_old(left) or _has_bare_old(right)
    for name in sorted(names | old_names):
        if name in lacking:
            raise refuse(f"there is no {name} here: {lacking[name]}")
        if name not in known:
            raise refuse(
                f"{name!r} is no quantity{nearest(name, sorted(known))}; there are"
                f" {', '.join(sorted(known))}"
            )
    if not names:
        raise refuse(f"names no quantity of the new model; {example}")
    if bare and len(names) > 1:
        raise refuse(
            f"{_OLD} stands for the one quantity that is named, and {', '.join(sorted(names))} are"
            f" several; write {' or '.join(f'{_OLD}.{name}' for name in sorted(names))}"
        )
    return Requirement(
        text.strip(),
        left,
        right,
        _COMPARISONS[type(sign)][0],
        frozenset(names),
        frozenset(old_names | (names if bare else set())),
    )


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


def _has_bare_old(node: ast.AST) -> bool:
    """Returns whether `old` stands for itself somewhere, not before a point."""
    if isinstance(node, ast.Attribute):
        return False
    if isinstance(node, ast.Name):
        return node.id == _OLD
    return any(map(_has_bare_old, ast.iter_child_nodes(node)))
