"""bertjax beside torch, FlaxBert, keras-hub and onnxruntime: the same work, in turns.

    python -m benchmarks.bench_peers --make-venvs DIR       # once: an environment for each peer
    python -m benchmarks.bench_peers --venvs DIR --minilm DIR [--cases base-training] [--json FILE]

Conformance first: given the same weights, every peer must give the same outputs (hidden states,
mean vectors, or the masked-LM loss without dropout), and two training steps must lower the loss. A
peer that fails is not timed; where the first one ends, with which all are compared, none is. Then
rounds in which every peer works once, one after the other, in an order that turns; the claim is the
median over the rounds of the ratio to ours. Exit code 1: a case has no figure.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

if not __package__:  # python benchmarks/bench_peers.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import environments, jobs
from bertjax.program.strict_json import to_json

HERE = Path(__file__).resolve().parent
PEERS = {
    "ours": ("run_ours.py", "ours", ("float32", "bfloat16")),
    "torch": ("run_torch.py", "torch", ("float32", "bfloat16")),
    "flax": ("run_flax.py", "flax", ("float32", "bfloat16")),
    "keras": ("run_keras.py", "keras", ("float32",)),
    "onnxruntime": ("run_onnx.py", "torch", ("float32", "int8")),
}
# Who takes part in what: onnxruntime does not train; FlaxBert and keras-hub would compile anew for
# every padded shape of real text.
KINDS = {
    ("training", False): ("ours", "torch", "flax", "keras"),
    ("inference", False): ("ours", "torch", "flax", "keras", "onnxruntime"),
    ("training", True): ("ours", "torch"),
    ("inference", True): ("ours", "torch", "onnxruntime"),
}
# |output - reference| / |reference| over all numbers, the reference being the first in float32; and
# the same of the masked-LM loss.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.03, "int8": 0.3}
LOSS_TOLERANCES = {"float32": 1e-4, "bfloat16": 0.01}


class Worker:
    """A peer's process and what it said of itself."""

    def __init__(self, name, dtype, folder, python):
        self.name, self.dtype = name, dtype
        environment = dict(
            os.environ,
            GLIBC_TUNABLES="glibc.malloc.hugetlb=1",
            OMP_NUM_THREADS="2",
            HF_HUB_OFFLINE="1",
            KERAS_BACKEND="jax",
            PYTHONPATH=str(HERE.parent) if name == "ours" else "",
        )
        self.log = folder / f"{name}-{dtype}.log"
        self.process = subprocess.Popen(
            [python, HERE / "peers" / PEERS[name][0], folder, dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            env=environment,
            text=True,
        )
        self.about = self.read()

    def ask(self, what):
        """The answer to a line; raises as `read`."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(what + "\n")
            self.process.stdin.flush()
        return self.read()

    def read(self):
        """A line of its answers.

        Raises:
            RuntimeError: it ended.
        """
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(": ".join([f"it ended with {self.process.wait()}", *last]))
        return json.loads(line)

    def close(self):
        """Ends it."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--make-venvs", metavar="DIR", type=Path, help="make them and end")
    parser.add_argument("--venvs", metavar="DIR", type=Path, help="where they are")
    parser.add_argument("--cases", nargs="+", choices=jobs.CASES, default=[*jobs.CASES])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[*PEERS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--minilm", metavar="DIR", type=Path, help="model directory of embed-*")
    parser.add_argument("--compile", action="store_true", help="let torch try torch.compile, too")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there")
    options = parser.parse_args()
    if options.make_venvs:
        return environments.make(options.make_venvs)
    if not options.venvs:
        parser.error("--venvs DIR is missing; --make-venvs DIR makes them")
    if options.minilm is None and any(name.startswith("embed") for name in options.cases):
        parser.error("embed-* needs --minilm DIR, a model directory such as all-MiniLM-L6-v2's")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    for case in options.cases:
        if not find_peers(case, options.peers):
            parser.error(
                f"--peers {' '.join(options.peers)}: none takes part in {case}; leave the case out,"
                " or name another peer"
            )
    for name in options.peers:
        if not Path(environments.python_of(PEERS[name][1], options.venvs)).exists():
            parser.error(
                f"--venvs {options.venvs}: no environment of {name} in it;"
                f" --make-venvs {options.venvs} makes it"
            )
    if options.json and not os.access(options.json.absolute().parent, os.W_OK):
        parser.error(f"--json {options.json}: its folder is not there, or may not be written to")
    figures = {"machine": describe_machine(), "date": datetime.date.today().isoformat()}
    figures["command"] = " ".join(["python -m benchmarks.bench_peers", *sys.argv[1:]])
    figures["cases"] = {}
    for case in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            job = jobs.write(Path(folder), case, options)
            measured = measure(Path(folder), job, options)
        figures["cases"][case] = measured
        print_table(case, measured)
        if options.json:
            options.json.write_text(to_json(figures, indent=1) + "\n", encoding="utf-8")
    return 0 if all(measured["peers"] for measured in figures["cases"].values()) else 1


def find_peers(case, names):
    """Those of these peers that take part in a case."""
    kinds = KINDS[jobs.CASES[case]["kind"], jobs.is_of_text(case)]
    return [name for name in kinds if name in names]


def measure(folder, job, options):
    """Conformance and times of a case."""
    workers, refused, reference = [], {}, None
    peers = find_peers(job["case"], options.peers)
    entries = [(name, dtype) for name in peers for dtype in PEERS[name][2]]
    first = " ".join(entries[0])

    def refuse(label, problem, worker=None):
        say(f"{job['case']}: {label} is not timed: {problem}")
        refused[label] = problem
        if worker:
            worker.close()

    for name, dtype in entries:
        label = f"{name} {dtype}"
        if reference is None and label != first:
            refuse(label, f"{first}, with which it would be compared, ended")
            continue
        say(f"{job['case']}: {label}: loading, conformance, warm-up")
        worker = None
        try:
            python = environments.python_of(PEERS[name][1], options.venvs)
            worker = Worker(name, dtype, folder, python)
            outputs = jobs.load_outputs(worker.ask("check")["outputs"])
            reference = outputs if reference is None else reference
            problem, worker.difference = compare(job, dtype, outputs, reference)
            worker.settings = str(outputs.get("settings", worker.about["settings"]))
            worker.times = []
        except RuntimeError as error:
            problem = str(error)
        if problem:
            refuse(label, problem, worker)
        else:
            workers.append(worker)
    for number in range(options.rounds + 1):  # the first is a warm-up of the caches
        turn = number % max(1, len(workers))
        for worker in workers[turn:] + workers[:turn]:
            try:
                seconds = worker.ask("run")["seconds"]
            except RuntimeError as error:
                workers.remove(worker)
                refuse(f"{worker.name} {worker.dtype}", f"in round {number} {error}", worker)
                continue
            if number:
                worker.times.append(seconds)
        say(f"{job['case']}: round {number} of {options.rounds}")
    for worker in workers:
        worker.close()
    return {
        "tokens": job["tokens"],
        "what": job["what"],
        "reference": first,
        "refused": refused,
        "peers": {
            f"{worker.name} {worker.dtype}": {
                "seconds": statistics.median(worker.times),
                "times": worker.times,
                "tokens a second": job["tokens"] / statistics.median(worker.times),
                **{
                    f"times {one.name} {one.dtype}": statistics.median(
                        theirs / mine for theirs, mine in zip(worker.times, one.times, strict=True)
                    )
                    for one in workers
                    if one.name == "ours"
                },
                "difference": worker.difference,
                "settings": worker.settings,
                "versions": worker.about["versions"],
            }
            for worker in workers
        },
    }


def compare(job, dtype, outputs, reference):
    """What is wrong with a peer's outputs, "" for nothing, and how far they are from the others."""
    if job["kind"] == "training":
        before, after = float(outputs["loss"]), float(outputs["after"])
        difference = abs(before / float(reference["loss"]) - 1)
        if not after < before:
            return f"two steps do not lower the loss: {before:.4f}, then {after:.4f}", difference
        tolerance = LOSS_TOLERANCES[dtype]
    else:
        ours, theirs = outputs["hidden"], reference["hidden"]
        difference = float(((ours - theirs) ** 2).sum() ** 0.5 / (theirs**2).sum() ** 0.5)
        tolerance = TOLERANCES[dtype]
    if not difference <= tolerance:
        return f"differs by {difference:.2g}, more than {tolerance:.2g}", difference
    return "", difference


def print_table(case, measured):
    """A table in Markdown; ratios above 1 say that ours is faster."""
    ours = sorted(
        {key for peer in measured["peers"].values() for key in peer if key.startswith("times ")},
        reverse=True,
    )
    print(f"\n{case}: {measured['what']}\n")
    heads = [f"x the time of {name.removeprefix('times ')}" for name in ours]
    difference = f"difference from {measured['reference']}"
    columns = ["", "median s", "tokens/s", *heads, difference, "settings"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for name, peer in measured["peers"].items():
        cells = [name, f"{peer['seconds']:.3f}", f"{peer['tokens a second']:,.0f}"]
        cells += [f"{peer[key]:.2f}" for key in ours]
        cells += [f"{peer['difference']:.1e}", peer["settings"]]
        print("| " + " | ".join(cells) + " |")
    for name in measured["refused"]:
        print("| " + " | ".join([name, "failed"] + [""] * (len(columns) - 2)) + " |")
    for name, problem in measured["refused"].items():
        print(f"\nNot timed: {name}: {problem}")
    sys.stdout.flush()


def describe_machine():
    """The processor, its cores, the system."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = re.search(r"model name\s*: (.*)", text)
        name = model[1] if model else platform.processor()
    except OSError:
        name = platform.processor()
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def say(text):
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
