"""Lessons: what a learning step used, without anything of a user's but numbers, and the same step elsewhere."""

from typing import Any, NamedTuple

import numpy as np

from tests.fold.plain.cross import Member
from tests.fold.plain.ids import GAP, RECENT, Value, cross, uniform
from tests.fold.plain.learner import Vector


class Lesson(NamedTuple):
    """`shared`: (field, key); `private`: (field, weight, latent, lin, embedding); `late`: one more step."""

    shared: list[tuple[int, int]]
    private: list[tuple[int, Vector, Vector, float, Vector]]
    numbers: Vector
    interests: Vector
    statistics: Vector
    near: list[tuple[int, int]]
    before: Vector
    estimates: Vector
    label: float
    learned: float | None
    weight: float
    model: float
    base_score: float | None
    is_sampled: bool
    late: bool
    now_ms: int
    heard_ms: int


class Heard(NamedTuple):
    """A positive came in time: how long it took, and nothing else."""

    delay_ms: int
    now_ms: int
    heard_ms: int


def half(x: Any) -> Any:
    """A number as float16, 0 where it is nearer to 0 than 2**-14."""
    x = np.asarray(x, np.float32)
    return np.where(np.abs(x) < 2.0**-14, 0, x).astype(np.float16).astype(np.float64)


def single(x: float) -> float:
    return float(np.float32(x))


def teach(plain: Any, slot: Any, label: float, kind: str) -> None:
    """Make a lesson of a step that is about to be taken: `kind` is provisional, final or late."""
    rate, learned, weight = plain.c.lessons.negative_rate, slot.learned, 1.0
    if kind != "late" and learned == label:
        return
    if rate < 1 and label < 1:
        weight = 1 / rate
        if uniform(slot.key, 0x1E) >= rate:
            return
    private = []
    for (field, _, owner), (_, value) in zip(slot.keyed, slot.present, strict=True):
        if owner is not None and value is not None:
            of = plain.cross.of(value)
            private.append((field, half(value.weight.w), half(value.latent.w), float(half(of.lin)), half(of.e)))
    places = [which for which, (first, _) in enumerate(plain.memory.memories) if first == "representation"]
    plain.lessons.append(
        Lesson(
            [(field, key) for field, key, owner in slot.keyed if owner is None],
            private,
            half(slot.numbers),
            half(slot.interests),
            half(slot.crossed[0]),
            slot.recalled[0][places[0]],
            half(1024 * np.array(slot.recalled[1])) / 1024,
            half(slot.recalled[2]),
            single(label),
            None if learned is None or kind == "late" else single(learned),
            weight,
            single(slot.model),
            single(slot.base_score) if slot.corrects else None,
            plain.is_sampled(slot),
            kind == "late",
            plain.now_ms,
            plain.clock.heard_last_ms(),
        )
    )


def learn(plain: Any, slot: Any, lesson: Lesson) -> None:
    """Take the step of a lesson, in a slot that nobody waits for."""
    plain.end_page()
    first, now_ms = lesson.learned is None and not lesson.late, lesson.now_ms
    keys: dict[int, int] = {}
    crossed, recents = {field for field, *_ in plain.crosses}, 0
    slot.present = [(0, None)]
    for field, key in lesson.shared:
        value = plain.values.resolve(key, field, None, plain.now_ms) if first else plain.values.find(key, plain.now_ms)
        slot.present.append((field, value))
        place = field - plain.places
        if place == RECENT:
            keys[plain.places + recents] = key
            recents += 1
        elif place >= GAP:
            keys[plain.places + plain.c.learner.recent_items + place - GAP] = key
        elif place < 0 and field not in crossed:
            keys.setdefault(field, key)
    for field, weight, latent, lin, e in lesson.private:
        value = Value(0, field, None, now_ms, plain.c)
        value.weight.w, value.latent.w = weight, latent
        plain.cross.members[value] = of = Member(0, plain.c.seed)
        of.lin, of.e = lin, e
        if field == 0:
            slot.present[0] = (0, value)
        else:
            slot.present.append((field, value))
    slot.numbers, slot.interests, slot.model = lesson.numbers, lesson.interests, lesson.model
    slot.parts = lesson.statistics[[14, 15]]
    slot.crossed = (lesson.statistics, pairs_of(plain, slot, keys, first))
    slot.corrects, slot.sampled = lesson.base_score is not None, lesson.is_sampled
    base = lesson.model if lesson.base_score is None else lesson.base_score
    buckets = plain.memory.locate(
        keys, base, np.zeros(plain.c.learner.latent_size), np.zeros(plain.c.learner.latent_size)
    )
    for which, (name, _) in enumerate(plain.memory.memories):
        buckets[which] = lesson.near if name == "representation" else buckets[which]
    if first:
        plain.cross.expose(slot.present, slot.crossed[1], now_ms, set())
    estimates = [estimate if places else 0.0 for places, estimate in zip(buckets, lesson.estimates, strict=True)]
    slot.recalled = (buckets, list(lesson.before), estimates)
    slot.learned = lesson.learned
    if lesson.late:
        plain.count(slot, 0.0, 1.0, now_ms)
        plain.learn(slot, 1.0, now_ms)
    else:
        plain.take(slot, lesson.label, now_ms, lesson.weight)
    for _, value in slot.present:
        if value is not None and value.key == 0:
            del plain.cross.members[value]


def pairs_of(plain: Any, slot: Any, keys: dict[int, int], first: bool) -> list[Any]:
    """The pairs of the item, made where the lesson is the first of its impression; the user's are at home."""
    pairs: list[Any] = []
    for field in range(2, plain.cross.paired):
        has_pair = field in keys and slot.present[1][1] is not None
        pairs += [None, plain.cross.pair(cross(keys[1], keys[field], 0xC507), first) if has_pair else None]
    return pairs
