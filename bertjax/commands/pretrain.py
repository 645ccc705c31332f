"""`bertjax pretrain`: a new or continued BERT from prepared rows."""

from collections.abc import Sequence

from bertjax.program.config_parser import parse
from bertjax.training.pretrain import __doc__ as DESCRIPTION
from bertjax.training.pretrain import pretrain
from bertjax.training.pretrain_config import PretrainConfig
from bertjax.training.processes import joined


def read_config(words: Sequence[str]) -> PretrainConfig:
    """The config that the words of the command line give."""
    return parse(PretrainConfig, DESCRIPTION, words, program="bertjax pretrain")


def run(config: PretrainConfig) -> int:
    """Pretrains; returns the exit code."""
    make_development = None
    if config.development.examples:
        from bertjax.analysis.report.development import Development

        make_development = Development
    with joined(config.distributed):
        return pretrain(config, make_development)
