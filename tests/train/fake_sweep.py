"""A program that takes no time, and a sweep of it."""

import json
from pathlib import Path

WAY = Path(__file__).resolve().parents[2]

SPACE = {
    "optimizer.learning_rate": {"low": 1e-3, "high": 0.9, "log": True},
    "width": {"choices": [4, 5, 7]},
}

# A program with the manners of train.finetune: run directory, metrics.jsonl, SIGTERM, exit codes.
# work.log has a line for each step it takes, so that one taken twice shows.
FAKE = '''
import dataclasses, json, os, signal, sys, time
from pathlib import Path

@dataclasses.dataclass(frozen=True)
class Optimizer:
    """O.

    Attributes:
        learning_rate: l
    """
    learning_rate: float = 0.1

@dataclasses.dataclass(frozen=True)
class FakeConfig:
    """F.

    Attributes:
        run: r
        width: w
        steps: s
        pause: p
        crash: c
        most: m
        hold: h
    """
    run: str = ""
    width: int = 4
    steps: int = 5
    pause: float = 0.05
    crash: bool = False
    most: int = 99
    hold: str = ""
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)

    def __post_init__(self):
        if self.steps > self.most:
            from bertjax.program.errors import UserError
            raise UserError(f"steps={self.steps} is more than most={self.most}")

def main():
    import yaml
    config = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    run = Path(sys.argv[sys.argv.index("--run") + 1])
    if config["width"] % 3 == 0:
        print(f"error: --run {run}: width must not be a multiple of 3", file=sys.stderr)
        sys.exit(2)
    if config["crash"]:
        os.kill(os.getpid(), signal.SIGKILL)
    print("WORKER=" + os.environ.get("WORKER", ""))
    print("TASKS=" + os.environ.get("SLURM_STEP_NUM_TASKS", ""))
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    saved = run / "checkpoints" / "step"
    step = int(saved.read_text()) if saved.exists() else 0
    with (run / "work.log").open("a") as log, (run / "metrics.jsonl").open("a") as metrics:
        log.write("start\\n")
        log.flush()
        while step < config["steps"] and not stop:
            time.sleep(config["pause"])
            if step == 3 and config["hold"] and Path(config["hold"]).exists():
                continue
            step += 1
            log.write(f"{step}\\n")
            log.flush()
            accuracy = (1 - config["optimizer"]["learning_rate"]) * (1 - 0.5**step)
            line = {"step": step, "split": "validation", "loss": 1 - accuracy, "accuracy": accuracy}
            metrics.write(json.dumps(line) + "\\n")
            metrics.flush()
            aside = run / "step.partial"
            aside.write_text(str(step))
            os.replace(aside, saved)
    sys.exit(75 if step < config["steps"] else 0)

if __name__ == "__main__":
    main()
'''

# The sweep of that program; what the machine is, is not asked, and figures take seconds.
LAUNCH = """
import sys
from bertjax import cli
from bertjax.sweeps import report, space, sweep
space.PROGRAMS["finetune"] = space.Program(["-m", "fake_program"], "fake_program", "FakeConfig")
sweep._write_provenance = lambda *_: None
report.draw_figures = lambda *_: []
cli.main(["sweep", *sys.argv[1:]])
"""


def read_results(output):
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


def steps_taken(output):
    """The steps that the program took in each trial, in order."""
    return {
        log.parent.name: [int(line) for line in log.read_text().split() if line != "start"]
        for log in sorted(output.glob("trials/*/work.log"))
    }


def comparable(rows):
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]
