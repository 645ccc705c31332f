"""`bertjax plan`: whether a pretraining run fits devices that are not rented yet."""

import argparse
import itertools
from typing import Any

from bertjax.commands.screen import add_json, console, count_on, print_json
from bertjax.errors import UserError

SUMMARY = "memory, communication and least time of a pretraining step on devices not rented yet"

DEFAULT_TOPOLOGY = "v5e:4x4"
# As `planning.run`, which takes seconds to import.
_LENGTH, _VOCABULARY = 512, 30_000
_SEARCH = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--config", metavar="FILE.yaml", required=True,
        help="of `python -m train.pretrain`, as configs/pretrain/base.yaml (required)",
    )  # fmt: skip
    devices = parser.add_mutually_exclusive_group()
    devices.add_argument(
        "--topology", metavar="T", nargs="+",
        help="TPU slices: generation (v4, v5e, v5p, v6e) and shape in chips, as v5e:4x4 or"
        f" v5p:2x2x2; several make a table (default: {DEFAULT_TOPOLOGY})",
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
        "--batch-size", metavar="ROWS", type=int,
        help="rows a step over all devices (default: the config's)",
    )  # fmt: skip
    rows.add_argument(
        "--rows-per-device", metavar="ROWS", type=int,
        help="so many times the devices, for a batch that grows with them (default: no)",
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
        "--length", metavar="TOKENS", type=int,
        help=f"tokens a row, without a prepared directory (default: {_LENGTH})",
    )  # fmt: skip
    parser.add_argument(
        "--vocab-size", metavar="TOKENS", type=int,
        help=f"of the tokenizer, likewise (default: {_VOCABULARY})",
    )  # fmt: skip
    parser.add_argument(
        "--examples", metavar="N", type=int,
        help="slots for examples in a row, likewise (default: length / 8, at most 255)",
    )  # fmt: skip
    parser.add_argument(
        "--search", metavar="N", type=int,
        help="find the largest batch that fits, in at most N more compilations; 0 = do not"
        f" (default: {_SEARCH}; 0 for a table)",
    )  # fmt: skip
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Compiles, and prints what came of it; 1 where one of the plans does not fit."""
    from bertjax.planning.run import open_devices, read_run

    if options.search is not None and options.search < 0:
        raise UserError(f"--search {options.search} must be at least 0")
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
        for one in runs:
            plans.append(one.plan(search, lambda: move_on(1)))
    if options.json:
        print_json(plans if len(plans) > 1 else plans[0])
    elif len(plans) > 1:
        _print_table(plans)
    else:
        _print_plan(plans[0])
    return 0 if all(plan["fits"] for plan in plans) else 1


def _print_table(plans: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in (
        "devices", "mesh", "rows", "state", "temporaries", "total GB", "fits", "sent MB",
        "products", "memory", "links ms", "at least", "tokens/s",
    ):  # fmt: skip
        table.add_column(name, justify="left" if name in ("devices", "mesh", "fits") else "right")
    for plan in plans:
        memory, bounds = plan["memory"], plan["seconds_at_least"]
        cells = [plan["devices"], _mesh(plan), f"{plan['rows']:,}"]
        if memory is None:
            table.add_row(*cells, "", "", "", "no")
            continue
        state = memory["total"] - memory["temporaries"] - memory["code"]
        cells += [f"{value / 1e9:.2f}" for value in (state, memory["temporaries"])]
        cells += [f"{memory['total'] / 1e9:.2f}", "yes" if plan["fits"] else "no"]
        cells += [f"{plan['sent_bytes'] / 1e6:,.0f}"]
        if bounds:
            times = ("products", "memory", "links", "overlapped")
            cells += [f"{1e3 * bounds[name]:.2f}" for name in times]
            cells += [f"{plan['tokens_per_second_at_most']:,.0f}"]
        table.add_row(*cells)
    console().print(table)
    for note in dict.fromkeys(note for plan in plans for note in plan["notes"]):
        console().print(note)


def _print_plan(plan: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    out.print(
        f"{plan['parameters']:,} parameters in {plan['dtype']} (remat {plan['remat']}, attention"
        f" {plan['attention']}); {plan['rows']:,} rows of {plan['length']} tokens a step, in"
        f" {plan['microbatches']} part(s), vocabulary of {plan['vocab_size']:,}\n"
        f"{plan['devices']}: {plan['device_count']} device(s), mesh {_mesh(plan)}; compiled in"
        f" {plan['compile_seconds']:.1f} s\n"
    )
    memory, available = plan["memory"], plan["available_bytes"]
    if memory is None:
        out.print(Text(f"does not fit: {plan['refusal']}", "bold red"))
    else:
        table = Table("memory on each device", "GB", box=None, pad_edge=False, header_style="dim")
        table.columns[1].justify = "right"
        for name, value in memory.items():
            table.add_row(name, f"{value / 1e9:.3f}")
        table.add_row("there is", f"{available / 1e9:.3f}")
        out.print(table)
        said = Text("it fits", "green") if plan["fits"] else Text("does not fit", "bold red")
        out.print(said)
    _print_largest(plan)
    if memory is None:
        return
    out.print()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("a step of each device", "times", "MB put in", "MB sent at least"):
        table.add_column(name, justify="left" if name.startswith("a ") else "right")
    for one in plan["collectives"]:
        table.add_row(
            one["kind"], f"{one['count']:,}", f"{one['bytes'] / 1e6:,.1f}",
            f"{one['sent'] / 1e6:,.1f}",
        )  # fmt: skip
    if plan["collectives"]:
        out.print(table)
    else:
        out.print("the devices have nothing to say to each other")
    out.print(f"\nmatrix products: {plan['matmul_flops_per_device']:.4g} FLOP on each device")
    bounds = plan["seconds_at_least"]
    if bounds:
        chip = plan["chip"]
        for name, rate in (
            ("products", f"{chip['flops'] / 1e12:.0f} TFLOP/s in bfloat16"),
            ("memory", f"{chip['memory_rate'] / 1e9:,.0f} GB/s; all that stays and all temporaries,"
             " once in, once out"),
            ("links", f"{chip['link_rate'] / 1e9:.0f} GB/s, all links of a chip busy"),
            ("overlapped", "the longest of the three: no step can be faster"),
            ("in_turn", "their sum, when nothing overlaps"),
        ):  # fmt: skip
            out.print(f"{name.replace('_', ' '):<10} {1e3 * bounds[name]:>10.2f} ms  {rate}")
        out.print(f"at most {plan['tokens_per_second_at_most']:,.0f} tokens a second")
    for note in plan["notes"]:
        out.print(note)


def _print_largest(plan: dict[str, Any]) -> None:
    largest = plan["largest_batch"]
    if largest is None:
        return
    fails = f"{largest['fails']:,} do not" if largest["fails"] else "more may"
    console().print(
        f"largest batch: {largest['fits']:,} rows fit, {fails}"
        f" (found in {largest['compilations']} more compilations)"
    )


def _mesh(plan: dict[str, Any]) -> str:
    return "x".join(str(size) for size in plan["mesh"].values())
