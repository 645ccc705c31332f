"""`bertjax plan`: whether a pretraining run fits devices that are not rented yet."""

import argparse
import functools
import itertools
from typing import Any

from bertjax.commands.arguments import whole_number
from bertjax.commands.screen import add_json, console, count_on, print_json
from bertjax.planning import DEFAULT_LENGTH, DEFAULT_VOCABULARY, MOST_TOKENS
from bertjax.program.errors import UserError
from bertjax.program.wording import counted

SUMMARY = "memory, communication and least time of a pretraining step on devices not rented yet"

DEFAULT_TOPOLOGY = "v5e:4x4"
_SEARCH = 4
_TABLE_WIDTH = 132


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--config", metavar="FILE.yaml", required=True,
        help="of `bertjax pretrain`, as configs/pretrain/base.yaml (required)",
    )  # fmt: skip
    devices = parser.add_mutually_exclusive_group()
    devices.add_argument(
        "--topology", metavar="T", nargs="+",
        help="TPU slices: generation (v4, v5e, v5p, v6e) and shape in chips, as v5e:4x4 or"
        " v5p:2x2x2; or NVIDIA GPUs: h200, h100 or a100, partitions, hosts of each and GPUs of"
        f" each, as h200:1x1x8; several make a table (default: {DEFAULT_TOPOLOGY})",
    )  # fmt: skip
    devices.add_argument(
        "--devices", metavar="cpu:N", help="N CPU devices of this machine instead (default: none)"
    )
    parser.add_argument(
        "--mesh", metavar="LAYOUT", nargs="+",
        help="data, fsdp or tensor: all devices on that axis; or the sizes of the three, as 4x2x2;"
        " several make a table (default: the config's)",
    )  # fmt: skip
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument(
        "--batch-size", metavar="ROWS", type=whole_number(1),
        help="rows a step over all devices (default: the config's)",
    )  # fmt: skip
    rows.add_argument(
        "--rows-per-device", metavar="ROWS", type=whole_number(1),
        help="rows for each device, for a batch that grows with them (default: no)",
    )  # fmt: skip
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", nargs="+", default=[], dest="fields",
        help="fields of the config, as model.size=large attention=splash (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--data", metavar="DIR",
        help="the prepared directory, whose rows and vocabulary count then (default: the config's,"
        " where it is there)",
    )  # fmt: skip
    parser.add_argument(
        "--length", metavar="TOKENS", type=whole_number(1),
        help=f"tokens a row, without a prepared directory (default: {DEFAULT_LENGTH})",
    )  # fmt: skip
    parser.add_argument(
        "--vocab-size", metavar="TOKENS", type=whole_number(1),
        help=f"of the tokenizer, likewise (default: {DEFAULT_VOCABULARY})",
    )  # fmt: skip
    parser.add_argument(
        "--examples", metavar="N", type=whole_number(1),
        help="slots for examples in a row, likewise (default: length / 8, at most 255)",
    )  # fmt: skip
    parser.add_argument(
        "--search", metavar="N", type=whole_number(0),
        help="find the largest batch that fits, in at most N more compilations and up to"
        f" {MOST_TOKENS:,} tokens a device; 0 = do not (default: {_SEARCH}; 0 for a table)",
    )  # fmt: skip
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Compiles, and prints the plans; returns 1 where one of them does not fit."""
    from bertjax.planning.run import open_devices, read_run

    if options.search is not None and options.search < 0:
        raise UserError(f"--search {options.search} must be at least 0")
    if options.devices and not options.devices.startswith("cpu:"):
        raise UserError(f"--devices {options.devices}: name a number of CPU devices, as cpu:8")
    # What to read is checked before anything is compiled, and the devices before both.
    places = [options.devices] if options.devices else list(options.topology or [DEFAULT_TOPOLOGY])
    pairs = list(itertools.product(places, options.mesh or [None]))
    opened = {place: open_devices(place) for place in places}
    runs = [read_run(options, opened[place], layout) for place, layout in pairs]
    search = options.search
    if search is None:
        search = _SEARCH if len(runs) == 1 else 0
    plans = []
    with count_on("compiling", len(runs) * (1 + search)) as move_on:
        for planned in runs:
            plans.append(planned.plan(search, functools.partial(move_on, 1)))
    if options.json:
        print_json(plans if len(plans) > 1 else plans[0])
    elif len(plans) > 1:
        _print_table(plans)
    else:
        _print_plan(plans[0])
    return 0 if all(plan["fits"] for plan in plans) else 1


def _print_table(plans: list[dict[str, Any]]) -> None:
    from rich.table import Table

    out = console()
    if not out.is_terminal:  # nothing is cut off in a file
        out.width = max(out.width, _TABLE_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="dim")
    words = ("devices", "mesh", "fits")
    for name in (
        "devices", "mesh", "rows", "stays GB", "temporary", "total", "fits", "sent MB",
        "products ms", "memory", "links", "longest", "Mtoken/s",
    ):  # fmt: skip
        table.add_column(name, justify="left" if name in words else "right")
    for plan in plans:
        memory, bounds = plan["memory"], plan["seconds_at_least"]
        cells = [plan["devices"], _mesh(plan), f"{plan['rows']:,}"]
        if memory is None:
            table.add_row(*cells, "", "", "", "no")
            continue
        stays = memory["total"] - memory["temporaries"] - memory["code"]
        sizes = stays, memory["temporaries"], memory["total"]
        cells += [f"{size / 1e9:,.3f}" for size in sizes]
        cells += ["yes" if plan["fits"] else "no", _number(plan["sent_bytes"], 1e-6, 1)]
        if bounds:
            times = ("products", "memory", "links", "overlapped")
            cells += [_number(bounds[name], 1e3, 2) for name in times]
            cells += [f"{plan['tokens_per_second_at_most'] / 1e6:,.2f}"]
        table.add_row(*cells)
    out.print(table)
    for note in dict.fromkeys(note for plan in plans for note in plan["notes"]):
        out.print(note)


def _print_plan(plan: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    out, of_generator = console(), plan["generator_parameters"]
    whose = f", of which {of_generator:,} are the generator's" if of_generator else ""
    out.print(
        f"{plan['parameters']:,} parameters{whose}; products in {plan['dtype']}, remat"
        f" {plan['remat']}, attention {plan['attention']}\n"
        f"{plan['rows']:,} rows of {plan['length']:,} tokens a step, {plan['microbatches']}"
        f" microbatch(es); vocabulary of {plan['vocab_size']:,}\n"
        f"{plan['devices']}: {plan['device_count']} device(s), mesh {_mesh(plan)}; compiled in"
        f" {plan['compile_seconds']:.1f} s\n"
    )
    memory = plan["memory"]
    if memory is None:
        out.print(Text(f"does not fit: {plan['refusal']}", "bold red"))
    else:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("memory on each device")
        table.add_column("MB", justify="right")
        for name, size in {**memory, "there is": plan["available_bytes"]}.items():
            table.add_row(name, f"{size / 1e6:,.1f}")
        out.print(table)
        fits = plan["fits"]
        out.print(Text("it fits" if fits else "does not fit", "green" if fits else "bold red"))
    _print_largest(plan)
    if memory is not None:
        _print_talk(plan)
        _print_bounds(plan)
    for note in plan["notes"]:
        out.print(note)


def _print_talk(plan: dict[str, Any]) -> None:
    from rich.table import Table

    if plan["collectives"] is None:
        return
    if not plan["collectives"]:
        console().print("\nthe devices have nothing to say to each other")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("in a step, each device")
    for name in ("times", "MB put in", "MB sent"):
        table.add_column(name, justify="right")
    for collective in plan["collectives"]:
        sizes = (f"{collective[name] / 1e6:,.1f}" for name in ("bytes", "sent"))
        table.add_row(collective["kind"], f"{collective['count']:,}", *sizes)
    console().print()
    console().print(table)


def _print_bounds(plan: dict[str, Any]) -> None:
    out, bounds, chip = console(), plan["seconds_at_least"], plan["chip"]
    out.print(f"\nmatrix products: {plan['matmul_flops_per_device']:.4g} FLOP on each device")
    if bounds is None:
        return
    out.print("a step takes at the least")
    for name, reason in (
        ("products", f"at {chip['flops'] / 1e12:,.0f} TFLOP/s, bfloat16"),
        ("memory", f"at {chip['memory_rate'] / 1e9:,.0f} GB/s: state and what is temporary, once in"
         " and once out, the batch once in"),
        ("links", f"at {(chip['link_rate'] or 0) / 1e9:,.0f} GB/s out of a chip, all its links"
         " busy"),
        ("overlapped", "the longest of them: no step is faster"),
        ("in turn", "one after the other"),
    ):  # fmt: skip
        seconds = bounds[name.replace(" ", "_")]
        if seconds is not None:
            out.print(f"  {name:<10} {1e3 * seconds:>10,.3f} ms  {reason}")
    out.print(f"at most {plan['tokens_per_second_at_most']:,.0f} tokens a second")


def _print_largest(plan: dict[str, Any]) -> None:
    largest = plan["largest_batch"]
    if largest is None:
        return
    how = f"found in {counted(largest['compilations'], 'more compilation')}"
    if largest["fails"]:
        said = f"{largest['fits']:,} rows fit, {largest['fails']:,} do not ({how})"
    else:
        said = (
            f"at least {largest['fits']:,} rows fit ({how}; none of more than {MOST_TOKENS:,}"
            " tokens a device is tried)"
        )
    console().print(f"largest batch: {said}")


def _number(value: float | None, scale: float, digits: int) -> str:
    return "" if value is None else f"{scale * value:,.{digits}f}"


def _mesh(plan: dict[str, Any]) -> str:
    return "x".join(str(size) for size in plan["mesh"].values())
