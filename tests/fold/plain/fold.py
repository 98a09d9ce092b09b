"""The fold: what waits, what is learned of it and when, and one impression from its values to its score."""

import math
import struct
from copy import deepcopy
from typing import Any

import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.operators.facts import HEAD, REMOVED
from thalweg.operators.features import crosses_of
from thalweg.operators.fold.columns import Columns, Kind
from thalweg.operators.fold.state import field_count
from thalweg.operators.machine.hashing import field_seed

from tests.fold.plain.behaviours import Behaviours
from tests.fold.plain.clock import Doubts, PlainClock
from tests.fold.plain.cross import Cross
from tests.fold.plain.delay import Delays
from tests.fold.plain.ids import EXPOSURES, GAP, RECENT, SHOWN, Values, cross, uniform
from tests.fold.plain.learner import Learner, log_odds, sigmoid
from tests.fold.plain.lessons import Heard, Lesson, learn, teach
from tests.fold.plain.memory import Memory
from tests.fold.plain.rates import Rates

USER, ITEM = 0, 1


def know(its: dict[int, Any], columns: Columns, event: int) -> None:
    """Take an owner's facts, packed as `operators.facts` describes, field by field."""
    packed, at = columns.text[columns.text_start[event] : columns.text_end[event]].tobytes(), 0
    while at < len(packed):
        field, count, length = HEAD.unpack_from(packed, at)
        its[field] = () if count == REMOVED else struct.unpack_from(f"<{count}Q", packed, at + HEAD.size)
        at += HEAD.size + 8 * len(its[field]) + length
        if count == REMOVED:
            del its[field]


class Slot:
    """An impression, from its first record until it is forgotten."""

    def __init__(self, key: int, user: int) -> None:
        self.key, self.user, self.status = key, user, "early"
        self.label, self.learned = 0, None  # type: tuple[int, float | None]
        self.feedback: list[tuple[int, int, bool, int]] = []  # key, ts, positive, window
        self.due: tuple[int, ...] = (0, 0, key)  # when its window closes, and in which order
        self.provisional: tuple[int, ...] | None = None
        self.ts_ms = self.begins_ms = self.closed_ms = self.item = 0
        self.present: list[tuple[int, Any]] = []
        self.numbers = self.interests = np.zeros(0)  # rates and residuals, the machine's logit; interests [I, d]
        self.overall = self.model = 0.0
        self.recalled: Any = None
        self.crossed: Any = None
        self.base_score = 0.0
        self.sampled: bool | None = None  # None: by its key
        self.keyed: list[tuple[int, int, int | None]] = []  # field, key and owner of each value
        # logits: the dense level's, the cross network's; whether the memory corrects the event's own score
        self.parts, self.corrects = np.zeros(2), False


class User:
    """A user: `updated_ms` counts while nothing of the user waits."""

    def __init__(self, now_ms: int) -> None:
        self.updated_ms, self.waiting = now_ms, 0
        self.shown = self.shown_ms = 0
        self.items: list[int] = []  # shown last, the latest page first


class Plain:
    """The fold over one partition's columns; `names` are the fields in their places."""

    def __init__(self, configuration: Configuration, names: list[str]) -> None:
        c = self.c = configuration
        self.fields = field_count(c)
        self.places = self.fields - 4
        self.kinds = c.behaviors.kinds if c.learner.interests else ()
        self.values, self.rates = Values(c, names), Rates(c)
        self.behaviours, self.delays, self.memory = Behaviours(c), Delays(c), Memory(c)
        self.closing_ms = [self.delays.window_ms]
        self.learner = Learner(c, self.fields, 2 * len(self.kinds))
        self.cross = Cross(c, self.places + 2)
        salts = np.array([field_seed(name, c.seed) for name in names], np.uint64)
        self.crosses = list(zip(*(part.tolist() for part in crosses_of(c.features, salts)), strict=True))
        self.facts: dict[int, dict[int, Any]] = {}
        self.users: dict[int, User] = {}
        self.slots: dict[int, Slot] = {}
        self.closed: list[Slot] = []
        self.clock = PlainClock()
        self.doubts = Doubts(self.clock)
        self.now_ms = self.arrivals = 0
        self.page: tuple[int, int] | None = None  # user and ts of the impressions that came last
        self.shown: list[tuple[Slot, User]] = []  # on that page
        self.page_arrival = self.page_elapsed_ms = 0
        self.scored: list[tuple[float, ...]] = []
        self.labels: list[tuple[Any, int]] = []  # (label, revision) of each example
        self.lessons: list[Lesson | Heard] = []
        self.due_ms = 0  # until when labels are due by other partitions

    def run(self, columns: Columns, asked: dict[int, Columns] | None = None) -> None:
        """Fold events; `asked` has the candidates of the requests that show, as impressions."""
        for event in range(len(columns.kind)):
            if columns.reason[event] or (columns.kind[event] == Kind.REQUEST and not columns.shown[event]):
                continue  # who only asks changes nothing
            self.arrivals += 1
            kind, user, ts_ms = columns.kind[event], int(columns.user[event]), int(columns.ts_ms[event])
            if kind == Kind.ITEM:
                know(self.facts.setdefault(int(columns.item[event]), {}), columns, event)
                continue
            page = (user, ts_ms) if kind in (Kind.IMPRESSION, Kind.REQUEST) else None
            if page is None or page != self.page:
                self.end_page()
                self.move(ts_ms, user, is_shown=page is not None)
                self.page, self.page_arrival, self.page_elapsed_ms = page, self.arrivals, self.delays.elapsed_ms
            if kind == Kind.IMPRESSION:
                self.on_impression(columns, event, user)
            elif kind == Kind.REQUEST:
                self.on_request((asked or {})[event], int(columns.shown[event]), user)
            elif kind == Kind.FEEDBACK:
                self.on_feedback(columns, event, user)
            elif kind == Kind.USER:
                self.user_of(user).updated_ms = self.now_ms
                know(self.facts.setdefault(user, {}), columns, event)
            elif kind == Kind.ERASE:
                self.forget_user(user)
                self.clock.heard.pop(user, None)
                self.values.sightings.pop(user, None)

    # Time: who waits for what

    def move(self, ts_ms: int, user: int, *, is_shown: bool) -> None:
        """Let an event move time; an impression that is not where others are waits from what they reach."""
        self.clock.advance(ts_ms, user)
        self.now_ms = self.clock.stream_ms
        for slot in self.doubts.decided():
            self.restart(slot)
        if is_shown and self.delays.elapsed_ms:
            self.hasten(ts_ms, user)
        self.release_due()

    def hasten(self, ts_ms: int, user: int) -> None:
        """Let labels be due that are so by the user's own clock, which moves no time of others."""
        own = [slot for slot in self.slots.values() if slot.user == user and slot.provisional is not None]
        for slot in sorted(own, key=lambda slot: (slot.provisional or ())[1:]):
            if ts_ms - slot.ts_ms <= self.delays.elapsed_ms:
                break
            slot.provisional = (min((slot.provisional or ())[0], self.now_ms - 1), *(slot.provisional or ())[1:])

    def end_page(self) -> None:
        """What was shown counts once the page is over."""
        counted: set[Any] = set()
        for slot, user in self.shown:
            self.cross.expose(slot.present, slot.crossed[1], self.now_ms, counted)
            user.shown, user.shown_ms = user.shown + 1, self.now_ms
        if self.shown:  # all of one user
            items = sorted((slot.item for slot, _ in self.shown), reverse=True)
            user.items = [*items, *user.items][: self.c.learner.shown_items]
        self.page, self.shown = None, []
        self.values.on_page.clear()

    def restart(self, slot: Slot) -> None:
        """Let an impression's window begin at apparent time."""
        by_ms = self.clock.apparent_ms - slot.begins_ms
        slot.begins_ms, slot.due = self.clock.apparent_ms, (slot.due[0] + by_ms, *slot.due[1:])
        if slot.provisional:
            slot.provisional = (slot.provisional[0] + by_ms, *slot.provisional[1:])

    def release_due(self) -> None:
        """Close the windows that ended before now, each behind the provisional labels that come before it."""
        while True:
            waiting = [slot for slot in self.slots.values() if slot.status != "closed"]
            first = min(waiting, key=lambda slot: slot.due, default=None)
            due_ms = max(self.now_ms, self.due_ms)
            until = due_ms if first is None else min(due_ms, first.due[0] + 1)
            early = [slot for slot in waiting if slot.provisional is not None and slot.provisional[0] < until]
            for slot in sorted(early, key=lambda slot: slot.provisional or ()):
                self.drop_gone(slot, (slot.provisional or ())[0] + 1)
                slot.provisional = None
                self.foresee(slot, max(self.now_ms - slot.begins_ms, self.delays.elapsed_ms))
            if first is None or first.due[0] >= self.now_ms:
                break
            if first.status == "early":
                self.forget_slot(first)
            elif self.doubts.is_restarted(first):
                self.restart(first)
            else:
                self.drop_gone(first, first.due[0] + 1)
                self.close(first)
        while self.closed and self.now_ms - self.closed[0].closed_ms >= self.c.joiner.late_window_ms:
            self.forget_slot(self.closed[0])

    def drop_gone(self, slot: Slot, at_ms: int) -> None:
        """What is gone when a label could be taken first learns nothing of this one, nor of later ones."""
        slot.present = [
            (field, value if value is not None and self.values.is_there(value, at_ms) else None)
            for field, value in slot.present
        ]

    def foresee(self, slot: Slot, elapsed_ms: int) -> None:
        """Learn a provisional label."""
        label = 1.0 if slot.label else self.delays.provisional(slot.model, elapsed_ms, 0.99)
        teach(self, slot, label, "provisional")
        self.take(slot, label, self.now_ms)

    def close(self, slot: Slot) -> None:
        """An impression's window is over: learn its label; what comes later is late."""
        teach(self, slot, float(slot.label), "final")
        self.take(slot, float(slot.label), self.now_ms)
        self.labels.append((slot.label, 0))
        if not slot.label:
            self.skip(slot)
        if not slot.label and self.positives(slot, self.c.joiner.late_window_ms):
            self.take_late(slot)
        self.end(slot)

    def skip(self, slot: Slot) -> None:
        item = slot.present[ITEM][1]
        if "skipped" in self.c.behaviors.kinds and item is not None:
            self.behaviours.extend(slot.user, "skipped", item, slot.ts_ms, self.there_at(slot.due[0] + 1))

    def end(self, slot: Slot) -> None:
        """An impression waits for nothing more."""
        slot.status, slot.closed_ms, slot.provisional = "closed", self.now_ms, None
        self.doubts.forget(slot)
        self.closed.append(slot)

    def user_of(self, key: int) -> User:
        user = self.users.get(key)
        if user and not user.waiting and self.now_ms - user.updated_ms >= self.c.behaviors.expire_time_ms:
            self.forget_user(key)
        return self.users.setdefault(key, User(self.now_ms))

    def forget_user(self, key: int) -> None:
        for slot in [slot for slot in self.slots.values() if slot.user == key]:
            self.forget_slot(slot)
        for part in (self.values, self.cross, self.behaviours):
            part.forget(key)
        self.facts.pop(key, None)
        self.users.pop(key, None)

    def open_slot(self, key: int, user: int) -> Slot:
        self.user_of(user).waiting += 1
        slot = self.slots[key] = Slot(key, user)
        return slot

    def forget_slot(self, slot: Slot) -> None:
        del self.slots[slot.key]
        self.doubts.forget(slot)
        if slot.status == "closed":
            self.closed.remove(slot)
        user = self.users[slot.user]
        user.waiting -= 1
        user.updated_ms = self.now_ms

    # Events

    def on_impression(self, columns: Columns, event: int, user_key: int) -> None:
        key, ts_ms, window_ms = int(columns.key[event]), int(columns.ts_ms[event]), self.closing_ms[0]
        if any(s.key in (key, int(columns.impression[event])) and s.status != "early" for s in self.slots.values()):
            return  # sent twice
        user = self.user_of(user_key)
        if key in self.slots and self.slots[key].user != user_key:
            self.forget_slot(self.slots[key])
        slot = self.slots.get(key) or self.open_slot(key, user_key)
        slot.status, slot.ts_ms, slot.begins_ms = "waiting", ts_ms, self.doubts.begin(slot, ts_ms)
        slot.due = (slot.begins_ms + window_ms, self.page_arrival, key)
        slot.item, slot.label = int(columns.item[event]), int(bool(self.positives(slot, 0)))
        if self.page_elapsed_ms:
            slot.provisional = (slot.begins_ms + self.page_elapsed_ms, self.page_arrival, key)
        keys = self.see(slot, columns, event, user_key, user)
        self.score(slot, keys, float(columns.base_score[event]))
        self.shown.append((slot, user))
        if slot.label:
            self.count_delay(slot)

    def on_request(self, rows: Columns, count: int, user_key: int) -> None:
        """The candidates that score best are shown: rows of one page, which do not see each other."""
        trial = deepcopy(self)
        for row in range(len(rows.key)):
            trial.on_impression(rows, row, user_key)
        scores = [score for _, score in trial.scored[len(self.scored) :]]
        for place, row in enumerate(sorted(range(len(scores)), key=lambda row: -scores[row])[:count]):
            self.arrivals += place > 0
            self.on_impression(rows, row, user_key)

    def on_feedback(self, columns: Columns, event: int, user_key: int) -> None:
        key, item = int(columns.impression[event]), int(columns.item[event])
        arrays = (columns.key, columns.ts_ms, columns.positive, columns.window_ms)
        feedback = tuple(int(array[event]) for array in arrays)
        slot = self.slots.get(key)
        if not key:
            self.on_action(feedback, item, user_key)
            return
        if slot and (slot.user != user_key or feedback[0] in [known for known, *_ in slot.feedback]):
            return  # somebody else's, or sent twice
        if slot is None:
            slot = self.open_slot(key, user_key)
            slot.due = (self.now_ms + self.closing_ms[-1], self.arrivals, key)
        self.join(slot, feedback, item)

    def on_action(self, feedback: Any, item: int, user_key: int) -> None:
        """A feedback without an impression: the latest that waits for it gets it, else it is a behaviour."""
        key, ts_ms, _, window_ms = feedback
        own = cross(key, user_key, 0xBE)
        shown = [slot for slot in self.slots.values() if (slot.user, slot.item) == (user_key, item)]
        if own in self.slots or any(key == known for slot in shown for known, *_ in slot.feedback):
            return  # sent twice
        waiting = [slot for slot in shown if slot.status == "waiting" and ts_ms <= slot.ts_ms + window_ms]
        if waiting:
            self.join(max(waiting, key=lambda slot: slot.due[1:]), feedback, item)
            return
        slot = self.open_slot(own, user_key)
        slot.status, slot.closed_ms = "closed", self.now_ms
        self.closed.append(slot)
        value = self.values.resolve(item, ITEM, None, self.now_ms)
        if value is not None:
            self.cross.expose([(ITEM, value)], [], self.now_ms, set())
        self.extend(user_key, value, ts_ms)

    def join(self, slot: Slot, feedback: Any, item: int) -> None:
        slot.feedback.append(feedback)
        if slot.status == "waiting" and not slot.label and self.positives(slot, 0):
            slot.label = 1
            self.count_delay(slot)
        elif slot.status == "closed" and not slot.label and self.positives(slot, self.c.joiner.late_window_ms):
            self.drop_gone(slot, self.now_ms)
            self.take_late(slot)
        self.extend(slot.user, self.values.find(item, self.now_ms), feedback[1])

    def extend(self, user_key: int, item: Any, ts_ms: int) -> None:
        if item is not None and "acted" in self.c.behaviors.kinds:
            self.behaviours.extend(user_key, "acted", item, ts_ms, self.there_at(self.now_ms))

    def positives(self, slot: Slot, grace_ms: int) -> list[int]:
        return [ts_ms for _, ts_ms, positive, window_ms in slot.feedback
                if positive and ts_ms <= slot.ts_ms + window_ms + grace_ms]  # fmt: skip

    def count_delay(self, slot: Slot) -> None:
        delay_ms = min(self.positives(slot, 0)) - slot.ts_ms
        self.delays.count(delay_ms, self.now_ms)
        self.lessons.append(Heard(delay_ms, self.now_ms, self.clock.heard_last_ms()))

    def take_late(self, slot: Slot) -> None:
        """A positive that comes too late is one more step of its own; nothing is undone."""
        teach(self, slot, 1.0, "late")
        slot.label, slot.learned = 1, None
        self.count(slot, 0.0, 1.0, self.now_ms)
        self.learn(slot, 1.0, self.now_ms)
        self.labels.append((1, 1))

    # One impression

    def see(self, slot: Slot, columns: Columns, event: int, user_key: int, user: User) -> dict[int, int]:
        """Resolve an impression's values, given, crossed and derived; return the first key of each place."""
        keys: dict[int, int] = {}
        slot.present, slot.keyed = [], []

        def add(field: int, key: int, owner: int | None = None) -> None:
            slot.keyed.append((field, key, owner))
            slot.present.append((field, self.values.resolve(key, field, owner, self.now_ms)))

        own = slice(columns.value_start[event], columns.value_start[event + 1])
        given = list(zip(columns.value_field[own].tolist(), columns.value_key[own].tolist(), strict=True))
        facts = self.facts.get(int(columns.item[event]), {}) | self.facts.get(user_key, {})
        brought = int(columns.brought[event])
        given += [(field, key) for field, values in facts.items() if not brought >> field & 1 for key in values]
        for field, key in sorted(given, key=lambda value: value[0]):
            keys.setdefault(field, key)
            add(field, key, user_key if field == USER else None)
        for field, first, second, salt in self.crosses:
            if first in keys and second in keys:
                key = cross(keys[first], keys[second], salt)
                add(field, key, user_key if USER in (first, second) else None)
        gap = log2_bucket((self.now_ms - user.shown_ms) / 1_000) if user.shown else 31
        recents = self.c.learner.recent_items
        for which, bucket in ((GAP, gap), (EXPOSURES, log2_bucket(user.shown))):
            keys[self.places + recents + which - GAP] = key = cross(bucket, which, 0xDE)
            add(self.places + which, key)
        for shown in user.items:
            add(self.places + SHOWN, cross(shown, SHOWN, 0xDE))
        ring = self.behaviours.rings.get((user_key, "acted"), [])
        for back, (item, _) in enumerate(ring[::-1][:recents]):
            if self.values.is_there(item, self.now_ms):
                keys[self.places + back] = key = cross(item.key, RECENT, 0xDE)
                add(self.places + RECENT, key)
        return keys

    def score(self, slot: Slot, keys: dict[int, int], base_score: float) -> None:
        """The formula of `docs/model.md`."""
        rates, slot.overall = self.rates.read(slot.present, self.fields, self.now_ms)
        slot.interests = np.zeros((2 * len(self.kinds), self.c.learner.latent_size))
        item = slot.present[ITEM][1]
        for number, kind in enumerate(self.kinds if item is not None else ()):
            slot.interests[2 * number] = self.behaviours.short(
                slot.user, kind, item.latent.w, self.there_at(self.now_ms)
            )
            slot.interests[2 * number + 1] = self.behaviours.long(slot.user, kind, item.latent.w, self.now_ms)
        slot.numbers = np.append(rates, self.learner.machine(slot.present, slot.interests))
        logit = self.learner.dense_logit(slot.numbers)
        slot.crossed = self.cross.read(slot.present, keys, slot.user, rates, slot.overall, self.now_ms)
        slot.crossed[0][14] = logit
        if self.cross.rank:
            slot.parts = np.array([logit, self.cross.score(slot.present, slot.crossed[0])])
            slot.crossed[0][15] = slot.parts[1]
            logit = float(self.cross.mix @ slot.parts)
        slot.model = sigmoid(slot.overall + logit)
        corrects = self.c.correction.base == "base_score" and not math.isnan(base_score)
        slot.corrects, slot.base_score = corrects, base_score
        base = base_score if corrects else slot.model
        v, _ = self.learner.vectors(slot.present, slot.interests)
        buckets = self.memory.locate(keys, base, v[USER], v[ITEM])
        score, slot.recalled = self.memory.read(buckets, base)
        self.scored.append((slot.model, score))

    def there_at(self, at_ms: int) -> Any:
        return lambda value: self.values.is_there(value, at_ms)

    def is_sampled(self, slot: Slot) -> bool:
        rate = self.c.joiner.negative_sample_rate
        return rate >= 1 or uniform(slot.key, 0x5A) < rate

    def merge(self, lessons: list[Lesson | Heard]) -> None:
        """Learn what another partition taught; labels are due by what both of the two have heard of."""
        for lesson in lessons:
            if isinstance(lesson, Heard):
                self.delays.count(lesson.delay_ms, lesson.now_ms)
            else:
                learn(self, Slot(0, 0), lesson)
        self.due_ms = min(self.clock.heard_last_ms(), lessons[-1].heard_ms)

    def take(self, slot: Slot, label: float, now_ms: int, weight: float = 1) -> None:
        """A label, provisional or for good: it counts, or by how much it changed, and is learned."""
        shown = weight if slot.learned is None else 0.0
        self.count(slot, shown, weight * (label - (slot.learned or 0.0)), now_ms)
        self.learn(slot, label, now_ms, weight)

    def count(self, slot: Slot, shown: float, acted: float, now_ms: int) -> None:
        if shown or acted:
            self.rates.count(slot.present, shown, acted, slot.model, now_ms)
            self.cross.count(slot.present, slot.crossed[1], shown, acted, self.rates.overall())

    def learn(self, slot: Slot, label: float, now_ms: int, weight: float = 1) -> None:
        """Learn a label, or by how much it differs from the one learned before."""
        if label == slot.learned:
            return
        frozen, moved = self.c.learner.frozen_from_ms, 0.0
        sampled = self.is_sampled(slot) if slot.sampled is None else slot.sampled
        if not 0 < frozen <= self.now_ms and (label == 1 or sampled):
            learned = slot.learned if sampled else None
            machine = self.learner.machine(slot.present, slot.interests)
            base = log_odds(self.rates.overall()) - math.log(self.c.joiner.negative_sample_rate)
            served = base + self.learner.dense_logit(slot.numbers)
            trust = self.learner.dense.w[2 * self.fields]
            now = served + trust * (machine - slot.numbers[-1])
            if self.cross.rank:
                crossed = self.learn_cross(slot, label, learned, base, weight)
                now = base + float(self.cross.mix @ [now - base, crossed])
            if not slot.corrects:
                moved = sigmoid(now + math.log(self.c.joiner.negative_sample_rate)) - slot.model
            error = dense_error = (learned or 0.0) - label
            if learned is None:
                dense_error = sigmoid(served) - label
                error = sigmoid(served + trust * (machine - slot.numbers[-1])) - label
            self.learner.learn(slot.present, slot.interests, slot.numbers, weight * error, weight * dense_error)
        self.memory.write(slot.recalled, label, slot.learned, moved, weight)
        for _, value in slot.present:
            if value is not None:
                value.updated_ms = max(now_ms, self.now_ms)
        slot.learned = label

    def learn_cross(self, slot: Slot, label: float, learned: float | None, base: float, weight: float) -> float:
        """A step of the cross network, and of how far it and the machine are trusted; what it gave before."""
        error = mix_error = (learned or 0.0) - label
        statistics = slot.crossed[0]
        crossed = self.cross.score(slot.present, statistics)
        if learned is None:
            error = sigmoid(base + crossed) - label
            mix_error = sigmoid(base + float(self.cross.mix @ slot.parts)) - label
        self.cross.learn(slot.present, statistics, weight * error)
        if learned is None:
            self.cross.learn_moments(slot.present, statistics)
        self.cross.learn_mix(slot.parts, weight * mix_error)
        return crossed


def log2_bucket(x: float) -> int:
    """0 below 1, then one more for each doubling, at most 30."""
    return 0 if x < 1 else min(math.floor(math.log2(x)) + 1, 30)
