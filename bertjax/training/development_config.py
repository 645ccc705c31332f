"""The options of `development`, apart from it: they need none of the libraries that it needs."""

import dataclasses

from bertjax.program.errors import UserError
from bertjax.program.libraries import require_libraries


@dataclasses.dataclass(frozen=True)
class DevelopmentConfig:
    """What is looked at in the model while it trains.

    Attributes:
        examples: so many of the validation split have their attention measured at every
            evaluation, the same ones each time; 0 = none is, and there is no development.png
        treebank: a CoNLL-U file, for the best head of each frequent relation
        sentences: of the treebank, the first ones
    """

    examples: int = 0
    treebank: str | None = None
    sentences: int = 400

    def __post_init__(self) -> None:
        for name, least in (("examples", 0), ("sentences", 2)):
            if getattr(self, name) < least:
                raise UserError(
                    f"development.{name}={getattr(self, name)} must be at least {least}"
                )
        if 0 < self.examples < 2:
            raise UserError("development.examples=1 must be 0 (off), or at least 2")
        if self.treebank and not self.examples:
            raise UserError(
                "development.treebank is read where development.examples is above 0; set that, too"
            )
        if self.examples:
            require_libraries("development.examples")
