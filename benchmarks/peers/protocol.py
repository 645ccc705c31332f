"""How a peer speaks with `bench_peers.py`: a line of JSON each way, one peer at work at a time.

A peer is a program `run_NAME.py FOLDER DTYPE` in a virtual environment of its own. FOLDER holds
`job.json`, `texts.npz` and `model/` (config.json, model.safetensors). It says once what it is, then
answers every line of its input: "check" with the file that holds its outputs, "run" with the
seconds that the work took.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

THREADS = 2


def serve(make_peer, libraries):
    """Makes the peer that the command line names and answers until the input ends.

    Args:
        make_peer: (folder, job, dtype) -> an object with `settings` (words), `check()` (a dict of
            numpy arrays) and `run()`, which returns when the work is done.
        libraries: whose versions are told.
    """
    import numpy as np

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log

    def answer(**values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    folder, dtype = Path(sys.argv[1]), sys.argv[2]
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    peer = make_peer(folder, job, dtype)
    answer(settings=peer.settings, versions={name: version(name) for name in libraries})
    for line in sys.stdin:
        if line.strip() == "check":
            file = folder / f"outputs-{os.getpid()}.npz"
            np.savez(file, **peer.check())
            answer(outputs=str(file))
        else:
            started = time.perf_counter()
            peer.run()
            answer(seconds=time.perf_counter() - started)


def fastest(choices, run, repeats=3):
    """The choice with which `run(choice)` is fastest, best of some repeats after a warm-up."""
    seconds = {}
    for choice in choices:
        run(choice)
        seconds[choice] = min(_time(run, choice) for _ in range(repeats))
    return min(seconds, key=seconds.get)


def _time(run, choice):
    started = time.perf_counter()
    run(choice)
    return time.perf_counter() - started
