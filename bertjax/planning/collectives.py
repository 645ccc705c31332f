"""The communication of the devices in a compiled program, read from its text."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

# Opcode -> bytes that a device sends at least, given its own operand of n bytes and a group of g:
# as on a ring, where every link is always busy.
_SENT = {
    "all-reduce": lambda n, g: 2 * n * (g - 1) / g,
    "all-gather": lambda n, g: n * (g - 1),
    "reduce-scatter": lambda n, g: n * (g - 1) / g,
    "all-to-all": lambda n, g: n * (g - 1) / g,
    "ragged-all-to-all": lambda n, g: n * (g - 1) / g,
    "collective-permute": lambda n, g: n,
    "collective-broadcast": lambda n, g: n,
}
KINDS = tuple(_SENT)

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|true_computation|false_computation)=%?([\w.\-]+)")
_CHAIN = re.compile(r'\bchain_id="([^"]*)"')
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


class Collective(NamedTuple):
    """All collective operations of one kind in a step.

    Attributes:
        kind: one of `KINDS`.
        count: how often a device takes part in one.
        bytes: of all arrays that a device contributes, together.
        sent: bytes that a device sends at least.
    """

    kind: str
    count: int
    bytes: float
    sent: float


class Instruction(NamedTuple):
    """A line of a computation: `name = shape opcode(operands), attributes`."""

    name: str
    shape: str
    opcode: str
    operands: list[str]
    attributes: str
    root: bool


def read_collectives(program: str, devices: int) -> list[Collective]:
    """Reads the collective operations of one execution, those in a loop once per iteration.

    Args:
        program: a compiled program as text (`jax.stages.Compiled.as_text`).
        devices: how many it runs on.

    Raises:
        ValueError: the number of iterations of a loop that communicates is unknown.
    """
    computations, entry = _read_computations(program)
    totals: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0])
    chains: set[str] = set()
    for instruction, kind, times in _walk(computations, entry, 1, devices):
        operands = computations[instruction[0]]
        operation = operands[instruction[1]]
        # A TPU's compiler works on one operation in several fusions, also in loops, each of which
        # contains the whole operation; the first is the one that starts it.
        if chain := _CHAIN.search(operation.attributes):
            if chain[1] in chains:
                continue
            chains.add(chain[1])
        size = sum(_count_bytes(operands[name].shape) for name in operation.operands)
        group = _group_size(operation.attributes, devices)
        if group == 1:
            continue
        total = totals[kind]
        total[0] += times
        total[1] += times * size
        total[2] += times * _SENT[kind](size, group)
    return [Collective(kind, *totals[kind]) for kind in KINDS if kind in totals]


# -------------------------------------------------------------------- what is executed

_Computations = dict[str, dict[str, Instruction]]


def _walk(
    computations: _Computations, name: str, times: int, devices: int
) -> Iterator[tuple[tuple[str, str], str, int]]:
    """Yields ((computation, instruction), kind, how often) for every collective operation."""
    for instruction in computations[name].values():
        opcode = instruction.opcode.removesuffix("-start")
        if opcode == "while":
            body, condition = (
                re.search(rf"\b{key}=%?([\w.\-]+)", instruction.attributes)[1]
                for key in ("body", "condition")
            )
            if _communicates(computations, body):
                trips = _count_trips(computations, name, instruction, body, condition)
                yield from _walk(computations, body, times * trips, devices)
        elif opcode in _SENT:
            yield (name, instruction.name), opcode, times
        else:
            for called in _called_by(instruction):
                # A TPU's compiler hides a reduce-scatter in a fusion, as an all-reduce from which
                # each device keeps its own part.
                scattered = instruction.opcode == "fusion" and called.startswith(
                    "all-reduce-scatter"
                )
                for place, kind, often in _walk(computations, called, times, devices):
                    yield place, "reduce-scatter" if scattered else kind, often


def _called_by(instruction: Instruction) -> list[str]:
    """Returns the computations that it executes once; for a conditional, all branches."""
    called = _CALLED.findall(instruction.attributes)
    for branches in _BRANCHES.findall(instruction.attributes):
        called += [name.strip().lstrip("%") for name in branches.split(",")]
    if instruction.opcode == "call":
        called += re.findall(r"\bto_apply=%?([\w.\-]+)", instruction.attributes)
    return called


def _communicates(computations: _Computations, name: str) -> bool:
    for instruction in computations[name].values():
        if instruction.opcode.removesuffix("-start") in _SENT:
            return True
        inner = _called_by(instruction) + re.findall(r"\bbody=%?([\w.\-]+)", instruction.attributes)
        if any(_communicates(computations, name) for name in inner):
            return True
    return False


# -------------------------------------------------------------------- how often a loop iterates


def _count_trips(
    computations: _Computations, name: str, loop: Instruction, body: str, condition: str
) -> int:
    """Counts iterations as the compiler says, or by a condition `i < n` with a constant start.

    XLA:CPU writes the number down, the TPU's compiler does not.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if known:
        return int(known[1])
    compare = _root(computations[condition])
    limits = [_constant(computations[condition], operand) for operand in compare.operands]
    index = _tuple_index(computations[condition], compare.operands[0])
    if "direction=LT" in compare.attributes and index is not None and limits[1] is not None:
        start = _element(computations[name], loop.operands[0], index)
        first = _constant(computations[name], start)
        step = _step_of(computations[body], index)
        if first is not None and step:
            return max(0, -(-(limits[1] - first) // step))
    raise ValueError(f"the compiled program does not say how often it runs its loop {loop.name}")


def _root(computation: dict[str, Instruction]) -> Instruction:
    return next(instruction for instruction in computation.values() if instruction.root)


def _behind_copies(computation: dict[str, Instruction], name: str) -> Instruction:
    origin = computation[name]
    while origin.opcode in ("copy", "bitcast", "convert", "copy-done", "copy-start", "reshape"):
        origin = computation[origin.operands[0]]
    return origin


def _constant(computation: dict[str, Instruction], name: str) -> int | None:
    instruction = _behind_copies(computation, name)
    if instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.operands[0]):
        return int(instruction.operands[0])
    return None


def _tuple_index(computation: dict[str, Instruction], name: str) -> int | None:
    instruction = _behind_copies(computation, name)
    if instruction.opcode != "get-tuple-element":
        return None
    return int(re.search(r"\bindex=(\d+)", instruction.attributes)[1])


def _element(computation: dict[str, Instruction], name: str, index: int) -> str:
    return _behind_copies(computation, name).operands[index]


def _step_of(computation: dict[str, Instruction], index: int) -> int | None:
    """Returns what an iteration adds to an element of the loop's state."""
    new = _behind_copies(computation, _root(computation).operands[index])
    if new.opcode != "add":
        return None
    numbers = [_constant(computation, operand) for operand in new.operands]
    return next((number for number in numbers if number is not None), None)


# -------------------------------------------------------------------- the text


def _read_computations(program: str) -> tuple[_Computations, str]:
    """Returns every computation's instructions, all by name; and the name of the entry."""
    computations: _Computations = {}
    entry, current = "", {}
    for line in program.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif (match := _NAME.match(line)) is not None:
            instruction = _read_instruction(match[2], line[match.end() :], bool(match[1]))
            current[instruction.name] = instruction
    return computations, entry


def _read_instruction(name: str, text: str, root: bool) -> Instruction:
    end = _closing(text) if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].lstrip()
    opcode, _, behind = rest.partition("(")
    end = _closing(f"({behind}") - 1
    inner = re.sub(r"/\*.*?\*/", "", behind[: end - 1] if end else behind)
    # Without the layouts, whose commas separate nothing; each operand's name comes last.
    operands = [part.split()[-1].lstrip("%") for part in _split(inner) if part.split()]
    return Instruction(name, shape, opcode, operands, behind[end:], root)


def _closing(text: str) -> int:
    """Returns the place after the parenthesis that closes the first one."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place + 1
    raise ValueError(f"not the text of a compiled program: {text[:80]}")


def _split(text: str) -> list[str]:
    """Splits a text at the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _count_bytes(shape: str) -> float:
    """Counts the bytes of an array, or of all arrays of a tuple; layouts are ignored."""
    total = 0.0
    for kind, bits, sizes in _ARRAY.findall(re.sub(r"\{[^}]*\}", "", shape)):
        elements = 1
        for size in filter(None, sizes.split(",")):
            elements *= int(size)
        total += elements * (1 if kind == "pred" else int(bits) / 8)
    return total


def _group_size(attributes: str, devices: int) -> int:
    """Returns how many devices take part together."""
    listed = re.search(r"\breplica_groups=\{\{([\d,]*)\}", attributes)
    if listed:
        return len(listed[1].split(","))
    counted = re.search(r"\breplica_groups=\[\d+,(\d+)\]<=", attributes)
    if counted:
        return int(counted[1])
    named = re.search(r"\breplica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", attributes)
    if named:
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", named[1])}
        group = 1
        for name in re.findall(r"'([^']+)'", named[2]):
            group *= sizes[name]
        return group
    return devices
