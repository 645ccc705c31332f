"""The options of preparation: everything that decides what the rows are."""

import dataclasses

from bertjax.program.errors import UserError
from bertjax.text.cleaning import CleaningConfig
from bertjax.text.duplicates import DuplicateConfig
from bertjax.text.pairs import PairConfig
from bertjax.text.readers import ReaderConfig
from bertjax.text.rows import MOST_EXAMPLES
from bertjax.text.sentences import check_language

# There are as many slots for examples as a row has runs of this many tokens, by default.
TOKENS_PER_EXAMPLE = 8
SHORTEST_ROW, LONGEST_ROW = 8, 1 << 15


@dataclasses.dataclass
class RowConfig:
    """What the rows look like, and how documents are split.

    Attributes:
        max_length: Tokens in a row, T, special tokens included; 8 to 32768.
        examples_per_row: Most examples in a row, K, 1 to 255; null for max_length / 8.
        language: The language of the text, a code such as en, de, es; sentences are split by its
            rules.
        validation_fraction: The share of the text held out for validation, in [0, 1).
        test_fraction: The share of the text held out for test, in [0, 1).
        seed: The seed of everything random; the same seed and input give the same bytes.
    """

    max_length: int = 128
    examples_per_row: int | None = None
    language: str = "en"
    validation_fraction: float = 0.05
    test_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if not SHORTEST_ROW <= self.max_length <= LONGEST_ROW:
            raise UserError(
                f"max_length={self.max_length} must be {SHORTEST_ROW} to {LONGEST_ROW} tokens: a"
                " row holds two texts and the special tokens around them"
            )
        if self.examples_per_row is None:
            self.examples_per_row = min(MOST_EXAMPLES, self.max_length // TOKENS_PER_EXAMPLE)
        if not 1 <= self.examples_per_row <= MOST_EXAMPLES:
            raise UserError(
                f"examples_per_row={self.examples_per_row} must be 1 to {MOST_EXAMPLES}"
            )
        for name in ("validation_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)!r} must be in [0, 1)")
        if self.validation_fraction + self.test_fraction >= 1:
            raise UserError(
                f"validation_fraction={self.validation_fraction!r} and test_fraction="
                f"{self.test_fraction!r} leave nothing for train; their sum must be below 1"
            )
        if self.seed < 0:
            raise UserError(f"seed={self.seed} must not be negative")
        check_language(self.language)

    @property
    def fractions(self) -> dict[str, float]:
        """The shares of the held-out splits, by name."""
        return {"validation": self.validation_fraction, "test": self.test_fraction}


@dataclasses.dataclass
class PreparationOptions:
    """Everything that decides what the rows are.

    Attributes:
        reader: how files become documents.
        cleaning: what is mended in texts.
        duplicates: which documents are left out.
        pairs: how documents become examples.
        rows: how examples become rows.
    """

    reader: ReaderConfig
    cleaning: CleaningConfig = dataclasses.field(default_factory=CleaningConfig)
    duplicates: DuplicateConfig = dataclasses.field(default_factory=DuplicateConfig)
    pairs: PairConfig = dataclasses.field(default_factory=PairConfig)
    rows: RowConfig = dataclasses.field(default_factory=RowConfig)

    @property
    def least_documents(self) -> int:
        """How many documents a split needs: a random next sentence comes from another one."""
        return 2 if self.pairs.pairing == "nsp" else 1
