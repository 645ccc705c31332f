"""`bertjax serve` beside infinity and thirty lines of FastAPI: the same calls, in turns.

    python -m benchmarks.bench_peers --make-venvs DIR     # once; `servers` is the environment
    python -m benchmarks.bench_serve --venvs DIR [--minilm DIR] [--classifier DIR] [--json FILE]
    python -m benchmarks.bench_serve --venvs DIR --minilm DIR --peers ours --exported NAME=DIR

The last line measures exports of the model beside it, served by `--engine onnxruntime`. Every
call has one text; sentences, tweets and paragraphs are mixed. Each server must first give the
answers of ours. Throughput at saturation is that of 64 callers, each with one call at a time. Then
calls arrive at random (Poisson) at 50 % and 80 % of the slowest server's saturation, the same
arrivals for each. All servers are up the whole time; one of them works. Exit code 1: a server
answered otherwise than ours (with weights in eight bits it may), or failed calls below its
saturation.
"""

import argparse
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

if not __package__:  # python benchmarks/bench_serve.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.bench_peers import describe_machine, say
from benchmarks.peers.environments import python_of
from benchmarks.peers.jobs import READERS
from bertjax.interop.signature import INT8_NAME
from bertjax.program.strict_json import to_json

HERE = Path(__file__).resolve().parent
CALLERS, TEXTS_OF_A_KIND, MAX_LENGTH = 64, 2000, 256
LOADS = (0.5, 0.8)


class Peer(NamedTuple):
    """How a server is started, asked and understood.

    Attributes:
        command: of (python, model, port, kind).
        route: of a kind.
        body: of (text, kind).
        read: the numbers of an answer, of (JSON, kind).
    """

    command: object
    route: object
    body: object
    read: object


def _our_command(python, model, port, kind):
    return [
        sys.executable, "-m", "bertjax", "serve", "--model", model, "--port", port,
        "--max-input-length", str(MAX_LENGTH),
    ]  # fmt: skip


def _exported_command(python, model, port, kind):
    return [*_our_command(python, model, port, kind), "--engine", "onnxruntime"]


def _infinity_command(python, model, port, kind):
    program = Path(python).with_name("infinity_emb")
    return [
        program, "v2", "--model-id", model, "--port", port, "--engine", "torch", "--device", "cpu",
        "--served-model-name", "m",
    ]  # fmt: skip


def _by_label(scores):
    return [one["score"] for one in sorted(scores, key=lambda one: one["label"])]


PEERS = {
    "ours": Peer(
        _our_command,
        {"vectors": "/embed", "classes": "/predict"},
        lambda text, kind: {"inputs": [text] if kind == "vectors" else [[text]]},
        lambda answer, kind: answer[0] if kind == "vectors" else _by_label(answer[0]),
    ),
    "infinity": Peer(
        _infinity_command,
        {"vectors": "/embeddings", "classes": "/classify"},
        lambda text, kind: {"model": "m", "input": [text]},
        lambda answer, kind: (
            answer["data"][0]["embedding"] if kind == "vectors" else _by_label(answer["data"][0])
        ),
    ),
    "plain": Peer(
        lambda python, model, port, kind: [
            python,
            HERE / "servers" / "plain.py",
            model,
            port,
            kind,
        ],
        {"vectors": "/answer", "classes": "/answer"},
        lambda text, kind: {"input": [text]},
        lambda answer, kind: answer[0],
    ),
}


class Running:
    """A server's process."""

    def __init__(self, name, peer, model, kind, folder, python):
        self.name, self.peer, self.kind = name, peer, kind
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}{self.peer.route[kind]}"
        self.log = folder / f"{name}.log"
        environment = dict(os.environ, HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        is_ours = name not in PEERS or name == "ours"
        environment["PYTHONPATH"] = str(HERE.parent) if is_ours else ""
        self.process = subprocess.Popen(
            list(map(str, self.peer.command(python, str(model), port, kind))),
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            env=environment,
        )

    def ask(self, text):
        """The numbers that it answers to a text."""
        body = json.dumps(self.peer.body(text, self.kind)).encode()
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return np.array(self.peer.read(json.load(answer), self.kind))

    def wait(self, text, seconds=600):
        """Waits until it answers."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                return self.ask(text)
            time.sleep(0.5)
        raise RuntimeError(f"{self.name} does not answer: {self.log.read_text()[-2000:]}")

    def load(self, python, bodies, **how):
        """What `servers/load.py` measures."""
        words = [word for key, value in how.items() for word in (f"--{key}", str(value))]
        command = [python, HERE / "servers" / "load.py", self.url, bodies, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured = json.loads(done.stdout)
        answered = measured["statuses"].get("200", 0)
        seconds = np.sort(measured["latencies"])
        return {
            "rate": answered / measured["seconds"],
            "failed": sum(measured["statuses"].values()) - answered,
            **{f"p{q}": float(np.percentile(seconds, q)) for q in (50, 95, 99)},
        }

    def close(self):
        """Ends it."""
        self.process.terminate()
        self.process.wait()


def read_texts(data):
    """Sentences, tweets and paragraphs, mixed."""
    drawn = random.Random(0)
    texts = []
    for kind in ("sentences", "tweets", "paragraphs"):
        lines = READERS[kind](data)
        texts += drawn.sample(lines, min(TEXTS_OF_A_KIND, len(lines)))
    drawn.shuffle(texts)
    return texts


def measure(model, kind, names, options, texts):
    """The figures of every server, for one model."""
    python = python_of("servers", options.venvs)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ending:
        folder = Path(folder)
        servers, bodies = [], {}
        for name in names:
            say(f"{kind}: {name}: starting")
            own = python_of("infinity", options.venvs) if name == "infinity" else python
            peer = PEERS.get(name) or PEERS["ours"]._replace(command=_exported_command)
            server = Running(name, peer, options.exported.get(name, model), kind, folder, own)
            ending.callback(server.close)
            server.wait(texts[0])
            bodies[name] = folder / f"{name}.jsonl"
            lines = (json.dumps(peer.body(text, kind)) for text in texts)
            bodies[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
            servers.append(server)
        reference = [servers[0].ask(text) for text in texts[:20]]
        figures = {name: {"difference": 0.0, "saturation": [], "loads": {}} for name in names}
        for server in servers:
            answers = [server.ask(text) for text in texts[:20]]
            figures[server.name]["difference"] = float(
                max(np.abs(a - b).max() for a, b in zip(answers, reference, strict=True))
            )
            server.load(python, bodies[server.name], seconds=5, **{"at-a-time": CALLERS})
        for number in range(options.rounds):
            for server in servers[number % len(servers) :] + servers[: number % len(servers)]:
                load = {"at-a-time": CALLERS, "seconds": options.seconds}
                measured = server.load(python, bodies[server.name], **load)
                figures[server.name]["saturation"].append(measured)
                say(f"{kind}: {server.name}: {measured['rate']:.1f} calls/s at saturation")
        slowest = min(
            statistics.median(one["rate"] for one in figures[name]["saturation"]) for name in names
        )
        for share in LOADS:
            for number in range(options.rounds):
                for server in servers[number % len(servers) :] + servers[: number % len(servers)]:
                    load = {"rate": share * slowest, "seconds": options.seconds, "seed": number}
                    measured = server.load(python, bodies[server.name], **load)
                    figures[server.name]["loads"].setdefault(str(share), []).append(measured)
                    say(f"{kind}: {server.name}: p99 {1e3 * measured['p99']:.0f} ms at {share:.0%}")
        return {"slowest": slowest, "servers": figures}


def print_table(kind, measured):
    """A table in Markdown; times in milliseconds."""
    print(f"\n{kind}: the slowest answers {measured['slowest']:.1f} calls/s at saturation\n")
    columns = ["", "calls/s", "x ours"]
    columns += [f"p{q} at {share:.0%}" for share in LOADS for q in (50, 95, 99)]
    columns += ["difference", "failed"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    ours = measured["servers"]["ours"]["saturation"]
    for name, figures in measured["servers"].items():
        rates = [one["rate"] for one in figures["saturation"]]
        ratio = statistics.median(one / mine["rate"] for one, mine in zip(rates, ours, strict=True))
        cells = [name, f"{statistics.median(rates):.1f}", f"{ratio:.2f}"]
        for share in LOADS:
            rounds = figures["loads"][str(share)]
            cells += [
                f"{1e3 * statistics.median(one[f'p{q}'] for one in rounds):.0f}"
                for q in (50, 95, 99)
            ]
        loads = [one for rounds in figures["loads"].values() for one in rounds]
        cells += [f"{figures['difference']:.1e}", str(sum(one["failed"] for one in loads))]
        print("| " + " | ".join(cells) + " |")
    sys.stdout.flush()


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venvs", metavar="DIR", type=Path, required=True, help="environments")
    parser.add_argument("--minilm", metavar="DIR", type=Path, help="a model of vectors")
    parser.add_argument("--classifier", metavar="DIR", type=Path, help="a fitted model")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[*PEERS])
    parser.add_argument(
        "--exported",
        metavar="NAME=DIR",
        action="append",
        default=[],
        help="a directory of `bertjax export` of the model; may be given several times",
    )
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each load (default: 20)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there")
    options = parser.parse_args()
    if not (options.minilm or options.classifier):
        parser.error("--minilm DIR or --classifier DIR is missing")
    options.exported = dict(one.split("=", 1) for one in options.exported)
    names = ["ours", *(name for name in options.peers if name != "ours"), *options.exported]
    texts = read_texts(options.data)
    figures = {"machine": describe_machine(), "command": " ".join(sys.argv), "kinds": {}}
    failed = False
    for kind, model in (("vectors", options.minilm), ("classes", options.classifier)):
        if model is None:
            continue
        measured = measure(model, kind, names, options, texts)
        figures["kinds"][kind] = measured
        print_table(kind, measured)
        for name, one in measured["servers"].items():
            loads = [load for rounds in one["loads"].values() for load in rounds]
            rounds_off = (Path(options.exported.get(name, "")) / INT8_NAME).is_file()
            failed |= one["difference"] > 1e-3 and not rounds_off
            failed |= any(load["failed"] for load in loads)
        if options.json:
            options.json.write_text(to_json(figures, indent=1) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
