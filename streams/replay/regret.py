"""Regret against the truth: how much log loss scores of a made-up log cost beyond what its chance costs anyway.

With s the score of an impression and p its true probability, as `thalweg generate --truth` writes it,

    regret = mean of  -p ln s - (1 - p) ln(1 - s)  less  mean of  -p ln p - (1 - p) ln(1 - p),

which no luck of the labels enters, and which is 0 only where every score is true.
"""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Annotated, NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt
from thalweg.schemas.outputs import first_probability
from thalweg.schemas.records import Output
from thalweg.streams.logs.errors import LogReadError
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.partition.tally import losses

BLOCK_LINES = 10_000


class Regret(NamedTuple):
    """Regret of the final score and of the model's, over `impressions` scores; `truth_log_loss`: of the truth itself.

    None where nothing was scored.
    """

    impressions: int
    regret: float | None
    model_regret: float | None
    truth_log_loss: float | None


class _TrueProbability(msgspec.Struct):
    impression: str
    probability: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class _Scored(msgspec.Struct):
    id: str
    score: float
    model_score: float
    scores: dict[str, float] | None = None


class Truth:
    """The true probabilities of a log's impressions, read beside its scores, in the order of both.

    Parameters
    ----------
    path
        One JSON object a line, {"impression": id, "probability": p}, the same kinds of file as a log. Impressions
        without a score are passed over.

    Raises
    ------
    LogReadError
        The file can't be read, holds something else, or lacks an impression that was scored.

    """

    def __init__(self, path: str) -> None:
        """Open the file; the parameters are the class's."""
        self._path = path
        self._reader = LogReader(path, block_lines=BLOCK_LINES)
        self._lines = self._read()
        self._impressions = 0
        self._sums = np.zeros(3)

    def __enter__(self) -> Self:
        """Enter a block that ends with the file closed."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self._reader.close()

    def add(self, scores: Sequence[Output]) -> None:
        """Take scores, which follow those before. Raises LogReadError where the truth knows nothing of one."""
        if not scores:
            return
        decoded = [_decode_scored(output.value or b"") for output in scores]
        true = np.array([self._probability(scored.id) for scored in decoded])
        given = [[first_probability(scored) for scored in decoded], [scored.model_score for scored in decoded], true]
        self._impressions += len(decoded)
        self._sums += [float(expected_losses(true, np.array(each)).sum()) for each in given]

    def regret(self) -> Regret:
        """Return the regret of all scores so far."""
        if not self._impressions:
            return Regret(0, None, None, None)
        final, model, truth = (self._sums / self._impressions).tolist()
        return Regret(self._impressions, final - truth, model - truth, truth)

    def _probability(self, impression: str) -> float:
        for line in self._lines:
            if line.impression == impression:
                return line.probability
        raise LogReadError(
            f"{self._path} has no impression {impression!r} where the log has it: give the log's own truth"
        )

    def _read(self) -> Iterator[_TrueProbability]:
        for block in self._reader:
            for record in block:
                try:
                    yield _decode_true(record.value or b"")
                except msgspec.MsgspecError as error:
                    raise LogReadError(
                        f"{self._path}, line {record.offset + 1}: no true probability, as `thalweg generate --truth` "
                        f"writes it ({error})"
                    ) from None


_decode_true = msgspec.json.Decoder(_TrueProbability).decode
_decode_scored = msgspec.json.Decoder(_Scored).decode


def expected_losses(true: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the log loss that each score [n] has to expect under its true probability [n].

    >>> expected_losses(np.array([0.5, 1.0]), np.array([0.5, 0.5])).round(4).tolist()
    [0.6931, 0.6931]
    """
    positive, negative = np.ones(len(true), np.uint8), np.zeros(len(true), np.uint8)
    # Not 0 times an infinity: `losses` keeps scores of 0 and 1 within EPSILON.
    return true * losses(positive, scores) + (1.0 - true) * losses(negative, scores)
