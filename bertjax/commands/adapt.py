"""`bertjax adapt`: a pretrained model adapted to the texts of a domain."""

from collections.abc import Sequence

from bertjax.commands.progress_bars import progress_bars
from bertjax.program.config_parser import parse
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.strict_json import to_json
from bertjax.text.workers import count_cores
from bertjax.training.adapt import __doc__ as DESCRIPTION
from bertjax.training.adapt import run_adaptation
from bertjax.training.adapt_config import AdaptConfig
from bertjax.training.processes import require_one_process
from bertjax.training.progress import RunProgress


def read_config(words: Sequence[str]) -> AdaptConfig:
    """Returns the config that the words of the command line give."""
    return parse(AdaptConfig, DESCRIPTION, words, program="bertjax adapt")


def run(config: AdaptConfig) -> int:
    """Adapts; returns the exit code."""
    require_one_process("bertjax adapt")
    make_development = None
    if config.development.examples:
        from bertjax.analysis.report.development import Development

        make_development = Development
    with progress_bars() as report:
        result = run_adaptation(
            config,
            workers=count_cores(),
            reporter=RunProgress(),
            report=report,
            make_development=make_development,
        )
    if config.json and result.scores:
        print(to_json(result.scores))
    return STOPPED_EXIT_CODE if result.stopped else 0
