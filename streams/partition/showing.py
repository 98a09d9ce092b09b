"""What requests take as shown: the first of their answers, handed to the fold as impressions."""

from typing import cast

import numpy as np
import numpy.typing as npt
from thalweg.operators.edges.columnizer import Block, Columnizer
from thalweg.operators.edges.encoder import Encoder
from thalweg.operators.edges.requests import impressions_of
from thalweg.operators.fold.columns import Columns, Kind
from thalweg.operators.fold.emitted import Made
from thalweg.operators.fold.fold import show
from thalweg.schemas.events import Request
from thalweg.schemas.outputs import Ranking
from thalweg.streams.partition.lessons import Fold


class Showing:
    """The requests of one block that show."""

    def __init__(self, block: Block, columnizer: Columnizer, encoder: Encoder) -> None:
        """Take the block, what read it, and what encodes its answers."""
        self._block, self._columnizer, self._encoder = block, columnizer, encoder
        self._columns: Columns | None = None
        self._next = 0
        self._shown: list[npt.NDArray[np.int64]] = []
        self.answers: dict[int, Ranking] = {}
        """The answers so far by the request's number in the block."""

    @property
    def is_amid(self) -> bool:
        """Whether the fold is to take what a request shows."""
        return self._columns is not None

    def start(self, fold: Fold, event: int) -> None:
        """Find what the request at which the fold stopped shows: its answer follows from what the fold emitted."""
        fold.emitted.counts[Made.SHOWN] = 0
        block = self._block
        answer, places = self._encoder.answer(block, fold.emitted, event)
        self.answers[event] = answer
        impressions = impressions_of(cast("Request", block.events[event]), block.asked[event], places)
        self._columns, self._next = self._columnizer.shown(block.records[event].offset, impressions), 0

    def resume(self, fold: Fold) -> bool:
        """Let the fold take it, and return whether it is done; False: what was emitted has to be taken away first."""
        assert self._columns is not None
        self._next = show(fold.state, fold.parameters, fold.scratch, self._columns, fold.emitted, self._next)
        if self._next < len(self._columns.kind):
            return False
        taken = np.flatnonzero(self._columns.kind == Kind.IMPRESSION)
        self._shown.append(keys_shown(self._columns, taken))
        self._columns = None
        return True

    def take(self) -> list[npt.NDArray[np.int64]]:
        """Return what was taken as shown since the last time, as `Tally.show` wants it."""
        shown, self._shown = self._shown, []
        return shown


def keys_shown(columns: Columns, chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """Return what a tally keeps of impressions among columns: offset, the bits of user and item, ts, [n, 4]."""
    keys = columns.user[chosen].view(np.int64), columns.item[chosen].view(np.int64)
    return np.stack((columns.offset[chosen], *keys, columns.ts_ms[chosen]), axis=1)
