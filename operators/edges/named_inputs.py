"""The numbers that the learner saw of an impression, by name: for examples, scores and River classifiers."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
from thalweg.operators.configuration import Configuration
from thalweg.operators.cross import CROSS, OF_ONE, OF_PAIRS, OWN, statistics_count
from thalweg.operators.derived import DERIVED
from thalweg.operators.edges.few import FEW
from thalweg.operators.fold.layout import cross_rank, paired_fields, statistics_of_heads
from thalweg.operators.heads import PAIRS
from thalweg.operators.machine.lanes import LANES
from thalweg.schemas.kept import encode_name

BETWEEN = b"],["


class Named(NamedTuple):
    """A name, and where its numbers are: a number alone, or the list of what is in `slices`."""

    name: str
    slices: tuple[slice, ...]
    is_alone: bool = False


class NamedInputs:
    """Names the inputs of events [inputs], float32, under one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        """Name the rates after the fields, and the interests after the kinds of behaviours."""
        self._places, self._paired = configuration.features.places(), paired_fields(configuration)
        self._size = configuration.learner.latent_size
        self._other_objectives = configuration.objectives.several[1:]
        of_heads = statistics_of_heads(configuration)
        self._statistics = statistics_count(cross_rank(configuration), self._paired, of_heads)
        self._of_heads = of_heads if self._statistics else 0
        kinds = configuration.behaviors.kinds
        self._interests = [f"interest.{kind}.{part}" for kind in kinds for part in ("short", "long")]
        self._fields = -1
        self._named: list[Named] = []
        self._slices: list[slice] = []
        self._before: list[bytes] = []
        self._closing = b""

    def numbers(self, inputs: list[float], names: Sequence[str]) -> dict[str, Any]:
        """Return the numbers by name; `names` are the fields."""
        self._name(len(inputs), names)
        return {
            name: inputs[slices[0]][0] if is_alone else [number for each in slices for number in inputs[each]]
            for name, slices, is_alone in self._named
        }

    def texts(self, inputs: npt.NDArray[np.float32], names: Sequence[str]) -> list[bytes]:
        """Return the members of a JSON object with the numbers of each row of `inputs` [n, inputs].

        Each number is the shortest text that reads back to the same float32.
        """
        self._name(inputs.shape[1], names)
        slices = self._slices
        if not len(inputs):
            return []
        if len(inputs) < FEW:
            columns = list(zip(*(_split(_dumps([row[each] for each in slices])) for row in inputs), strict=True))
        else:
            columns = [tuple(_split(_dumps(np.ascontiguousarray(inputs[:, each])))) for each in slices]
        pieces = [each for pair in zip(map(repeat, self._before), columns, strict=True) for each in pair]
        return list(map(b"".join, zip(*pieces, repeat(self._closing), strict=False)))

    def _name(self, count: int, names: Sequence[str]) -> None:
        """Take notice of fields that have a name by now."""
        if self._fields == len(names):
            return
        self._fields = len(names)
        self._named = self._all(count, names)
        self._slices = [each for named in self._named for each in named.slices]
        before = b""
        self._before = []
        for name, slices, is_alone in self._named:
            before += encode_name(name) + (b":" if is_alone else b":[")
            for _ in slices:
                self._before.append(before)
                before = b","
            before = b"," if is_alone else b"],"
        self._closing = before[:-1]

    def _all(self, count: int, names: Sequence[str]) -> list[Named]:
        """Return what there is among `count` inputs: [rate, residual] of each field, the rest, the interests."""
        places = [*range(len(names)), *range(self._places, self._places + len(DERIVED))]
        found = [
            Named(f"rates.{name}", (_from(2 * place, 2),))
            for name, place in zip((*names, *DERIVED), places, strict=True)
        ]
        at = count - self._statistics - len(self._interests) * self._size
        found += [_alone("machine_logit", at - 2), _alone("overall_log_odds", at - 1)]
        for place, name in enumerate(self._interests):
            found.append(Named(name, (_from(at + place * self._size, self._size),)))
        if self._statistics:
            found += self._all_statistics(count, count - self._statistics, names)
        return found

    def _all_statistics(self, count: int, at: int, names: Sequence[str]) -> list[Named]:
        pairs = at + 2 * LANES
        recent = self._places - 2, self._paired - self._places
        found = [
            Named("statistics.user", (_from(at, OF_ONE),)),
            Named("statistics.item", (_from(at + OF_ONE, OF_ONE),)),
            _alone("linear_logit", at + OWN),
            _alone("cross_logit", at + CROSS),
        ]
        for place, name in enumerate(names[2:]):
            found.append(Named(f"pairs.{name}", (_from(pairs + OF_PAIRS * place, OF_PAIRS),)))
        found.append(Named("pairs.recent", (_from(pairs + OF_PAIRS * recent[0], OF_PAIRS * recent[1]),)))
        for place, name in enumerate(self._other_objectives):
            own = count - self._of_heads + place * (self._of_heads // len(self._other_objectives))
            of_fields = _from(own, PAIRS + 2 * (len(names) - 2))
            found.append(Named(f"statistics.of.{name}", (of_fields, _from(own + PAIRS + 2 * recent[0], 2 * recent[1]))))
        return found


def _alone(name: str, place: int) -> Named:
    return Named(name, (_from(place, 1),), is_alone=True)


def _from(start: int, count: int) -> slice:
    return slice(start, start + count)


def _dumps(numbers: Any) -> bytes:
    return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)


def _split(text: bytes) -> list[bytes]:
    """Return what is in the inner lists of a list of lists of numbers."""
    return text[2:-2].split(BETWEEN)
