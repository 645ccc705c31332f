"""`bertjax finetune`: a pretrained BERT fitted to a labelled task."""

from collections.abc import Sequence

from bertjax.program.config_parser import parse
from bertjax.training.finetune import __doc__ as DESCRIPTION
from bertjax.training.finetune import finetune_with_seeds
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.processes import require_one_process


def read_config(words: Sequence[str]) -> FinetuneConfig:
    """The config that the words of the command line give."""
    return parse(FinetuneConfig, DESCRIPTION, words, program="bertjax finetune")


def run(config: FinetuneConfig) -> int:
    """Fine-tunes, once or with several seeds; returns the exit code."""
    require_one_process("bertjax finetune")
    return finetune_with_seeds(config)
