"""Requests as columns, and what the fold found of their candidates as rankings.

The columns of a request have its own values first, then those of its candidates. A candidate that cannot be used is
refused in the answer, and the others are ranked.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from thalweg.operators.edges.contexts import Fields
from thalweg.operators.features import USER
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.emitted import Emitted, Ranked
from thalweg.operators.objectives import ObjectivesConfiguration
from thalweg.schemas.events import Context, Event, Impression, Request, shown_id
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.outputs import RankedItem, Ranking, RefusedCandidate, scored_items, with_probabilities
from thalweg.schemas.reasons import Reason, Unusable
from thalweg.schemas.refusal import candidate_of

KeysOf = Callable[[list[str]], npt.NDArray[np.uint64]]


class Asked(NamedTuple):
    """What a request asks for, of its usable candidates: their items and contexts, and those that were refused.

    `contexts` is empty where no candidate brings one. `objectives`: the names of several, and whether an order of them
    `is_score`, not the first one's probability.
    """

    items: list[str]
    refused: list[RefusedCandidate]
    contexts: list[Context]
    objectives: tuple[str, ...]
    is_score: bool


class _Lists(NamedTuple):
    """Columns in the making: the items of all entries; where values end, of how many entries; and the values of all."""

    items: list[str]
    ends: list[int]
    repeats: list[int]
    places: list[int]
    keys: list[int]


class Requests:
    """Turns the requests of a block into columns."""

    def __init__(
        self, limits: LimitsConfiguration, fields: Fields, values_limit: int, objectives: ObjectivesConfiguration
    ) -> None:
        """Read candidates under limits; `values_limit`: values of one candidate at most, with those of its request."""
        self._limits, self._fields, self._values_limit = limits, fields, values_limit
        self._objectives, self._is_score = objectives.several, bool(objectives.order)

    def columns(
        self,
        columns: Columns,
        events: Sequence[Event | None],
        hours: dict[int, tuple[tuple[int, int], ...]],
        item_keys: KeysOf,
    ) -> tuple[Columns, dict[int, Asked]]:
        """Return columns with the block's requests, and what each asks for by its number in the block.

        `hours`: place and key of the hour of each request, where the hour is a field.
        """
        at = [number for number, event in enumerate(events) if type(event) is Request]
        asked: dict[int, Asked] = {}
        found = _Lists([], [0], [1], [], [])
        for number in at:
            request: Any = events[number]
            own = [(USER, int(columns.user[number])), *hours.get(number, ()), *self._fields.pairs(request.context)]
            begin = len(found.items)
            _append(found, "", own)
            asked[number] = self._with_candidates(found, request, own)
            columns.candidate_start[number + 1] = len(found.items) - begin
            for cap, name in enumerate(request.at_most):
                field = self._fields.get(name)
                columns.capped[number, cap] = 0 if field is None else field.place + 1
            if request.shown:
                columns.shown[number] = request.shown
            if request.seen == "drop":
                columns.drops[number] = 1
        if len(events) > 1:
            np.cumsum(columns.candidate_start, out=columns.candidate_start)
        return (
            columns._replace(
                candidate_item=item_keys(found.items),
                candidate_value_start=starts_of(found.ends, found.repeats),
                candidate_field=np.array(found.places, np.uint8),
                candidate_key=np.array(found.keys, np.uint64),
            ),
            asked,
        )

    def _with_candidates(self, found: _Lists, request: Request, own: list[tuple[int, int]]) -> Asked:
        """Append the candidates of a request whose own values are these, and return what it asks for."""
        limits, longest = self._limits, self._limits.id_bytes // 4
        given = request.candidates
        if len(own) < self._values_limit and are_plain(given, longest):
            found.items.extend(given)  # items alone, and nothing to refuse
            found.ends.append(len(found.keys))
            found.repeats.append(len(given))
            return Asked(given, [], [], self._objectives, self._is_score)
        asked = Asked([], [], [], self._objectives, self._is_score)
        for position, each in enumerate(given):
            try:
                candidate = candidate_of(position, each, limits)
                values = self._fields.pairs(candidate.context)
                mine = {place for place, _ in values}
                count = (
                    1 + sum(key != 0 for _, key in values) + sum(place not in mine and key != 0 for place, key in own)
                )
                if count > self._values_limit:
                    detail = f"candidates[{position}] has {count} values in all fields, at most {self._values_limit}"
                    raise Unusable(Reason.TOO_MANY_VALUES, detail)
            except Unusable as unusable:
                refused = RefusedCandidate(candidate=position, reason=unusable.reason.value, detail=unusable.detail)
                asked.refused.append(refused)
                continue
            asked.items.append(candidate.item)
            asked.contexts.append(candidate.context)
            _append(found, candidate.item, values)
        return asked


def are_plain(candidates: list[Any], longest: int) -> bool:
    """Return whether all candidates are strings of at most so many characters, none of them empty.

    >>> are_plain(["v1", "v2"], 8), are_plain(["v1", ""], 8), are_plain(["v1", {"item": "v2"}], 8), are_plain([], 8)
    (True, False, False, False)
    """
    try:
        "".join(candidates)  # the fastest way to learn that all are strings
    except TypeError:
        return False
    return len(candidates) > 0 and all(candidates) and max(map(len, candidates)) <= longest


def starts_of(ends: list[int], repeats: list[int]) -> npt.NDArray[np.int64]:
    """Return where values begin, and the last ones end: each of `ends`, for so many entries.

    >>> starts_of([0, 3, 3], [1, 1, 4]).tolist(), starts_of([0, 3, 5], [1, 1, 1]).tolist()
    ([0, 3, 3, 3, 3, 3], [0, 3, 5])
    """
    if len(repeats) == 3:  # one request of items alone
        starts = np.empty(sum(repeats), np.int64)
        starts[0], starts[1], starts[2:] = ends
        return starts
    return np.repeat(np.array(ends, np.int64), repeats)


def names_shown(request: Request, limits: LimitsConfiguration) -> Iterator[str]:
    """Yield the names of the fields that a request's candidates would bring as impressions."""
    yield from request.context
    for position, each in enumerate(request.candidates):
        if type(each) is dict:
            with suppress(Unusable):
                yield from candidate_of(position, each, limits).context


def impressions_of(request: Request, asked: Asked, places: npt.NDArray[np.intp]) -> list[Impression]:
    """Return the impressions that a request shows, where the candidates in these places are the answer."""
    contexts = asked.contexts
    return [
        Impression(
            id=shown_id(request.id, asked.items[place]),
            user=request.user,
            item=asked.items[place],
            ts=request.ts,
            context=request.context | (contexts[place] if contexts else {}),
            request=request.id,
        )
        for place in places[: request.shown].tolist()
    ]


def _append(found: _Lists, item: str, values: Sequence[tuple[int, int]]) -> None:
    found.items.append(item)
    if values:
        places, keys = zip(*values, strict=True)
        found.places.extend(places)
        found.keys.extend(keys)
    found.ends.append(len(found.keys))
    found.repeats.append(1)


class Answered(NamedTuple):
    """An answer, and the places of its items among the usable candidates."""

    ranking: Ranking
    places: npt.NDArray[np.intp]


def answer_of(
    request: Request, asked: Asked, emitted: Emitted, entries: slice, origin: str, *, is_ordered: bool = True
) -> Answered:
    """Return the answer to a request whose candidates are these entries of `emitted`; ranked, if `is_ordered`."""
    ranked = emitted.ranked[entries]
    chosen = chosen_of(request, asked, emitted, entries) if is_ordered else np.arange(len(ranked))
    names = chosen_from(asked.items, chosen.tolist())
    scores = ranked[:, Ranked.SCORE].take(chosen).tolist()
    if request.explain:
        items = list(map(_explained, names, ranked[chosen].tolist()))
    elif asked.objectives:
        items = list(map(RankedItem, names, scores))
    else:
        items = scored_items(names, scores)
    if asked.objectives:
        items = with_scores(items, asked, emitted.ranked_scores[entries][chosen].tolist())
    ranking = Ranking(
        id=request.id,
        user=request.user,
        ts=request.ts,
        items=items,
        refused=asked.refused,
        origin=origin,
        cause=f"{origin}:0",
    )
    return Answered(ranking, chosen)


def chosen_from(items: list[str], places: list[int]) -> Sequence[str]:
    """Return the items in these places.

    >>> chosen_from(["a", "b", "c"], [2, 0]), chosen_from(["a"], [0]), chosen_from([], [])
    (('c', 'a'), ['a'], [])
    """
    if len(places) > 1:
        return cast("Sequence[str]", itemgetter(*places)(items))
    return [items[place] for place in places]


def with_scores(items: list[RankedItem], asked: Asked, scores: list[list[float]]) -> list[RankedItem]:
    """Return items with their probabilities for each objective."""
    named = (dict(zip(asked.objectives, each, strict=True)) for each in scores)
    return [with_probabilities(item, its) for item, its in zip(items, named, strict=True)]


def chosen_of(request: Request, asked: Asked, emitted: Emitted, entries: slice) -> npt.NDArray[np.intp]:
    """Return the places of the candidates that a request is answered with, in their order."""
    order = np.argsort(-emitted.ranked[entries, Ranked.SCORE], kind="stable")
    if request.exclude or request.seen == "drop":
        order = order[shown_of(request, asked, emitted, entries)[order]]
    if request.at_most:
        caps = list(request.at_most.values())
        keys = emitted.ranked_keys[entries, : len(caps)].tolist()
        counts: list[dict[int, int]] = [{} for _ in caps]
        order = np.array([place for place in order.tolist() if _takes(caps, counts, keys[place])], np.intp)
    return order[: request.top]


def shown_of(request: Request, asked: Asked, emitted: Emitted, entries: slice) -> npt.NDArray[np.bool_]:
    """Return which candidates are neither excluded nor dropped because the user acted on them."""
    excluded = set(request.exclude)
    may_show = np.array([item not in excluded for item in asked.items], bool)
    if request.seen == "drop":
        may_show &= emitted.ranked_seen[entries] == 0
    return may_show


def _takes(caps: list[int], counts: list[dict[int, int]], values: list[int]) -> bool:
    """Count an item under the value that it has in each capped field; False where one of these is full."""
    for cap, count, value in zip(caps, counts, values, strict=True):
        if value and count.get(value, 0) >= cap:
            return False
    for count, value in zip(counts, values, strict=True):
        count[value] = count.get(value, 0) + 1
    return True


def _explained(item: str, numbers: list[float]) -> RankedItem:
    """Return an item with the parts of its score."""
    return RankedItem(item, numbers[Ranked.SCORE], numbers[Ranked.MODEL], numbers[Ranked.CORRECTION], parts_of(numbers))


def parts_of(numbers: list[float]) -> dict[str, float]:
    """Return the parts of a score by name, of a candidate's numbers as `Ranked` has them."""
    return {part.name.lower(): numbers[part] for part in Ranked if Ranked.CORRECTION < part < Ranked.EXPOSURES}
