"""Texts that a command is given: as arguments, from files, from standard input."""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bertjax.commands.screen import tell
from bertjax.commands.text_options import OF_TABLES, OF_TEXT_FILES, PAIRS
from bertjax.program.errors import UserError
from bertjax.program.wording import counted
from bertjax.text.given_texts import Text

if TYPE_CHECKING:
    from bertjax.tasks.data_config import CommandDataConfig
    from bertjax.text.sources import Source
    from bertjax.text.tokenizer import Tokenizer

STDIN = "standard input"


class Line(NamedTuple):
    """A text as it was given: a line without its end, an argument, or the cells of a record.

    Attributes:
        place: for messages, `file:line` for instance.
        cells: one, or the two of a pair.
        separable: whether a tab in it separates the two of a pair: cells are separate already.
    """

    place: str
    cells: tuple[str, ...]
    separable: bool = True

    @property
    def empty(self) -> bool:
        """Whether there is nothing but white space."""
        return not any(cell.strip() for cell in self.cells)


class Texts:
    """The texts that a command is given, in their order; read anew at each iteration.

    Iterating gives a place for messages and a text, or the two of a pair.
    """

    def __init__(
        self,
        reading: "CommandDataConfig",
        texts: Sequence[str] = (),
        files: Sequence[str] = (),
        *,
        pairs: bool,
        keep_empty: bool = False,
        other_tables: bool = False,
    ) -> None:
        """Finds the files, and reads standard input where it is asked for.

        Args:
            reading: how the files are read, of `choose_reading`.
            texts: of the command line; one - is standard input, as are no texts and no files.
            files: of the kinds in `KINDS`; one - is standard input.
            pairs: whether a tab separates the two of a pair, and tables may have two columns.
            keep_empty: whether an empty line is a text, too.
            other_tables: whether the reading is also of other files that the command reads.

        Raises:
            UserError: texts and files together, - beside others, a file that is not there, a format
                without texts, or an option that nothing of what is read has a use for.
        """
        from bertjax.text import streams
        from bertjax.text.delimiters import describe_delimiters
        from bertjax.text.sources import find_sources

        if texts and files:
            raise UserError("give texts as arguments, or files with --input, not both")
        for given in (texts, files):
            if "-" in given and len(given) > 1:
                raise UserError(
                    "- reads standard input and stands alone: give texts or files, or -"
                )
        streams.check_encoding(reading.encoding)
        said = None if "format" in reading.remembered else reading.format
        if said is not None and [*files] in ([], ["-"]):
            raise UserError(
                f"--format {said} applies to files, and texts of the command line or of standard"
                " input have none; leave it out"
            )
        if said == "conll":
            raise UserError(
                "--format conll is for sentences with tags, and texts are read here; name a format"
                " of tables or records"
            )
        self._config = reading
        self._pairs, self._keep_empty = pairs, keep_empty
        self._arguments: list[str] = []
        self._sources: list[Source] = []
        self._passed_over: dict[str, tuple[int, int]] = {}
        self._halves: list[str] = []  # where a record of a pair has one text only
        self._units = {"the command line": "text"}
        if [*texts, *files] in ([], ["-"]):
            self._sources = [self._read_standard_input()]
        elif texts:
            self._arguments = list(texts)
        else:
            # A file of the model's own kind may have any name; what a name tells goes before.
            fitted = reading.format if said is None else None
            self._sources = find_sources(
                files,
                reading.encoding,
                otherwise=None if fitted == "conll" else fitted,
                kind=said,
            )
        self._units |= {
            source.name: "record"
            for source in self._sources
            if source.kind not in ("txt", "corpus")
        }
        self.files = () if self._sources and self._sources[0].name == STDIN else tuple(files)
        if not other_tables:
            self._check_use()
        tell(describe_delimiters(self._sources, reading))

    def __iter__(self) -> Iterator[tuple[str, Text]]:
        """Gives every text with its place."""
        from bertjax.text.lines import separate_pair

        self._halves.clear()
        for line in self.lines():
            if self._pairs and line.separable:
                yield line.place, separate_pair(line.place, line.cells[0])
                continue
            first, *rest = [cell.strip() for cell in line.cells if cell.strip()] or [""]
            if first and len(rest) + 1 < len(line.cells):
                self._halves.append(line.place)
            yield line.place, (first, rest[0]) if rest else first

    def lines(self) -> Iterator[Line]:
        """Gives every text as it was given."""
        self._passed_over.clear()
        alone = len(self._arguments) == 1
        arguments = (
            Line("the text" if alone else f"text {number}", (text,))
            for number, text in enumerate(self._arguments, start=1)
        )
        yield from self._without_empty("the command line", arguments)
        for source in self._sources:
            yield from self._without_empty(source.name, self._read(source))

    def read(self) -> list[tuple[str, Text]]:
        """Reads all of them, as `stream` does."""
        return list(self.stream())

    def stream(self) -> Iterator[tuple[str, Text]]:
        """Gives every text with its place; at the end prints what was passed over.

        Raises:
            UserError: there is none.
        """
        empty = True
        for text in self:
            empty = False
            yield text
        if empty:
            raise self.no_text()
        self.tell_passed_over()

    def tell_passed_over(self) -> None:
        """Prints how many empty lines the latest iteration passed over, and what was no pair."""
        if self._halves:
            print(
                f"{self._halves[0]}: one of the two texts is empty, and the other is read alone, as"
                f" in {counted(len(self._halves), 'record')} together",
                file=sys.stderr,
            )
        for name, (empty, total) in self._passed_over.items():
            if empty:
                whole = counted(total, self._units.get(name, "line"))
                print(
                    f"{name}: {empty:,} of {whole} are empty and are passed over", file=sys.stderr
                )

    def no_text(self) -> UserError:
        """Returns what to raise where there is no text."""
        where = ", ".join(source.name for source in self._sources) or "the command line"
        return UserError(
            f"{where}: no text, nothing but empty lines; give texts as arguments, one a line on"
            " standard input, or files with --input"
        )

    def _check_use(self) -> None:
        """Refuses options that have no effect."""
        kinds = {source.kind for source in self._sources}
        usual = vars(type(self._config)())
        given = [
            name
            for name in OF_TABLES
            if getattr(self._config, name) != usual[name] and name not in self._config.remembered
        ]
        if given and kinds <= {"txt", "corpus"}:
            raise UserError(
                f"--{given[0].replace('_', '-')} applies to tables, and none is read; leave it out"
            )
        given = [name for name in OF_TEXT_FILES if getattr(self._config, name) != usual[name]]
        if given and kinds <= {"corpus", "parquet", "dataset"}:
            raise UserError(
                f"--{given[0]} applies to text files and standard input, and none is"
                " read; leave it out"
            )

    def _without_empty(self, name: str, lines: Iterable[Line]) -> Iterator[Line]:
        empty = total = 0
        for line in lines:
            total += 1
            if self._keep_empty or not line.empty:
                yield line
            else:
                empty += 1
        self._passed_over[name] = empty, total

    def _read_standard_input(self) -> "Source":
        """Saves standard input as a file, which can be read twice like any other."""
        from bertjax.text.sources import Source

        if sys.stdin is None:
            raise UserError(
                "standard input is closed; give texts as arguments or files with --input"
            )
        if sys.stdin.isatty():
            print(f"one text per line{PAIRS * self._pairs}; end with Ctrl-D", file=sys.stderr)
        self._spool = tempfile.NamedTemporaryFile()  # noqa: SIM115 - it goes with this object
        shutil.copyfileobj(sys.stdin.buffer, self._spool)
        self._spool.flush()
        return Source(STDIN, "txt", Path(self._spool.name), self._spool.tell())

    def _read(self, source: "Source") -> Iterator[Line]:
        from bertjax.text import streams
        from bertjax.text.record_config import shown
        from bertjax.text.records import read_records

        if source.kind == "txt":
            for number, line in enumerate(streams.lines(source, self._config), start=1):
                yield Line(f"{source.name}:{number}", (line,))
            return
        if source.kind == "corpus":
            from bertjax.text.corpora import python_documentation

            for number, text in enumerate(python_documentation(source.packages), start=1):
                for line in text.split("\n"):
                    yield Line(f"{source.name}, document {number}", (line,), separable=False)
            return
        columns = self._columns_of(source)
        for place, values in read_records(source, self._config, columns):
            cells = tuple(values[column] or "" for column in columns)
            for column, cell in zip(columns, cells, strict=True):
                if not isinstance(cell, str):
                    raise UserError(
                        f"{place}: the field {column!r} is {shown(cell)}, not text; name another"
                        f" with {columns[column]}"
                    )
            yield Line(place, cells, separable=False)

    def _columns_of(self, source: "Source") -> dict[str, str]:
        """Returns the columns of a table that are read, each with the option that names it."""
        from bertjax.tasks.columns import recognise_texts
        from bertjax.text.records import read_records

        first, second = self._config.text_column, self._config.pair_column
        if not first:
            record = next(read_records(source, self._config), None)
            present = [] if record is None else list(record.values)
            if second:
                first, _ = recognise_texts(
                    source, [name for name in present if name != second], self._config, pairs=False
                )
            elif present:
                first, second = recognise_texts(source, present, self._config, pairs=self._pairs)
            else:
                return {}
        columns = {first: "--text-column"}
        if self._pairs and second:
            columns[second] = "--pair-column"
        return columns


def tell_readings(
    tokenizer: "Tokenizer", texts: Iterable[tuple[str, Text]], *, masks: bool = False
) -> None:
    """Prints what in texts is not read as it looks; `masks` as in `Tokenizer.encode`."""
    tell(tokenizer.describe_readings((text for _, text in texts), masks=masks))
