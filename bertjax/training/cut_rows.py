"""Prepared rows as shorter ones, for a phase of a run in shorter texts."""

from typing import Any

import numpy as np

from bertjax.program.errors import UserError


class CutRows:
    """Rows cut into pieces of fewer tokens: row n is piece n % k of a row of k.

    A text that a cut goes through is continued in the next piece, as an example of its own, from
    position 0; what is asked of whole examples is asked of those alone that are whole.
    """

    def __init__(self, rows: Any, max_length: int) -> None:
        """Cuts `rows` (`bertjax.text.rows.Rows`) into pieces of `max_length` tokens.

        Raises:
            UserError: that does not divide the length of the rows.
        """
        if rows.max_length % max_length:
            raise UserError(
                f"rows of {rows.max_length} tokens cannot be cut into rows of {max_length}; give a"
                f" divisor of {rows.max_length}, or rows prepared with --max-length {max_length}"
            )
        self._rows, self._pieces = rows, rows.max_length // max_length
        self.max_length, self.examples_per_row = max_length, rows.examples_per_row

    def __len__(self) -> int:
        return len(self._rows) * self._pieces

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        rows, pieces = np.divmod(indices, self._pieces)
        whole = self._rows[rows]
        begins = pieces[:, None] * self.max_length
        places = begins + np.arange(self.max_length)
        cut = {
            name: np.take_along_axis(whole[name], places, axis=1)
            for name in ("token_ids", "token_type_ids", "sequence_ids", "position_ids")
        }
        continued = cut["sequence_ids"] == cut["sequence_ids"][:, :1]
        skipped = np.where(continued, cut["position_ids"][:, :1], 0)
        cut["position_ids"] = cut["position_ids"] - skipped.astype(cut["position_ids"].dtype)
        # Of the k-th example: where it begins and ends, in the row and in the piece.
        slots = np.arange(1, whole["example_starts"].shape[1] + 1)
        own = whole["sequence_ids"][:, None] == slots[:, None]  # [B, K, T]
        starts = whole["example_starts"]
        ends = own.shape[2] - own[:, :, ::-1].argmax(axis=2)
        inside = own.any(axis=2) & (starts >= begins) & (ends <= begins + self.max_length)
        cut["example_starts"] = np.where(inside, starts - begins, 0).astype(starts.dtype)
        labels = whole["next_sentence_labels"]
        cut["next_sentence_labels"] = np.where(inside, labels, -1).astype(labels.dtype)
        return cut
