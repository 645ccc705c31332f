"""`bertjax pretrain`: a new or continued BERT from prepared rows."""

from collections.abc import Sequence

from bertjax.program.config_parser import parse
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.strict_json import to_json
from bertjax.training.pretrain import __doc__ as DESCRIPTION
from bertjax.training.pretrain import run_pretraining
from bertjax.training.pretrain_config import PretrainConfig
from bertjax.training.processes import is_first, joined
from bertjax.training.progress import RunProgress


def read_config(words: Sequence[str]) -> PretrainConfig:
    """Returns the config that the words of the command line give."""
    return parse(PretrainConfig, DESCRIPTION, words, program="bertjax pretrain")


def run(config: PretrainConfig) -> int:
    """Pretrains; returns the exit code."""
    make_development = None
    if config.development.examples:
        from bertjax.analysis.report.development import Development

        make_development = Development
    with joined(config.distributed):
        result = run_pretraining(config, reporter=RunProgress(), make_development=make_development)
        if config.json and result.scores and is_first():
            print(to_json(result.scores))
    return STOPPED_EXIT_CODE if result.stopped else 0
