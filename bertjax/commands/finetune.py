"""`bertjax finetune`: a pretrained BERT fitted to a labelled task."""

from collections.abc import Sequence

from bertjax.program.config_parser import parse
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.strict_json import to_json
from bertjax.training.finetune import __doc__ as DESCRIPTION
from bertjax.training.finetune import run_finetuning
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.processes import require_one_process
from bertjax.training.progress import RunProgress
from bertjax.training.result import Result


def read_config(words: Sequence[str]) -> FinetuneConfig:
    """Returns the config that the words of the command line give."""
    return parse(FinetuneConfig, DESCRIPTION, words, program="bertjax finetune")


def run(config: FinetuneConfig) -> int:
    """Fine-tunes, once or with several seeds; returns the exit code."""
    require_one_process("bertjax finetune")
    return tell_result(config, run_finetuning(config, reporter=RunProgress()))


def tell_result(config: FinetuneConfig, result: Result) -> int:
    """Prints the scores where they were asked for; returns the exit code."""
    if config.json and result.scores:
        print(to_json(result.scores))
    return STOPPED_EXIT_CODE if result.stopped else 0
