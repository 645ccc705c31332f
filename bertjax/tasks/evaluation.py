"""What an evaluation of a model comes to, shown shortly."""

import html
from typing import Any

from bertjax.program.notebook_tables import make_table
from bertjax.program.wording import counted
from bertjax.tasks.scoring import single_scores


class Evaluation(dict[str, Any]):
    """The scores of a model on labelled data: a dict as `scoring.evaluate_predictions` makes it.

    It is a dict because it is written as JSON; only how it is shown differs.
    """

    def __repr__(self) -> str:
        return f"Evaluation({self._of}: {', '.join(map(' '.join, self._figures()))})"

    def _repr_html_(self) -> str:
        """Returns tables for a notebook: scores with intervals, and the slices of the examples."""
        scores = [[*figure, ""][:3] for figure in self._figures()]
        slices = [
            [name, f"{part['mean']:.4f}", str(part["examples"])]
            for name, part in self["slices"].items()
        ]
        page = f"<p>{html.escape(self._of)}</p>" + make_table(
            ["score", "value", "95 % interval"], scores
        )
        if slices:
            page += make_table(["examples", f"mean {self['slice_score']}", "number"], slices)
        return page

    @property
    def _of(self) -> str:
        return f"{self['task']}, {counted(self['examples'], 'example')}"

    def _figures(self) -> list[list[str]]:
        """Name, value and, where there is one, interval of every score that is one number."""
        figures = []
        for name, value in single_scores(self["scores"]).items():
            figures.append([name, f"{value:.4f}"])
            if name in self["intervals"]:
                low, high = self["intervals"][name]
                figures[-1].append(f"({low:.4f} to {high:.4f})")
        return figures
