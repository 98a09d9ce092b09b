"""The rules for impressions and feedback told again, plainly: what fate each has, with limits for all and per user.

Written from docs and docstrings: lists that are searched from end to end, and nothing imported of what it verifies
but keys.
"""

from collections import Counter
from dataclasses import dataclass, field

from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.schemas.events import Feedback, Impression

from tests.fold.plain.clock import Doubts, PlainClock

SEED = field_seed("impression", 0)


@dataclass
class Kept:
    """What is known of one impression."""

    id: str
    user: str
    status: str
    ts_ms: int
    due_ms: int
    arrival: int
    closed: tuple[int, int] = (0, 0)
    feedback: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class PlainJoiner:
    """Impressions and feedback under limits that are reached; `kept` is in the order in which they came.

    `user_slots` and `user_feedback` are what one user may fill.
    """

    window_ms: int
    late_ms: int
    slots: int
    feedback: int
    per_impression: int
    user_slots: int
    user_feedback: int
    kept: list[Kept] = field(default_factory=list)
    fates: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    clock: PlainClock = field(default_factory=PlainClock)
    arrivals: int = 0  # of pages, and of all that is none
    page: tuple[str, int] | None = None
    closings: int = 0

    def __post_init__(self) -> None:
        """Doubt nothing yet."""
        self.doubts = Doubts(self.clock)

    def process(self, event: Impression | Feedback) -> None:
        """Give the next event its fate, and others theirs."""
        page = (event.user, event.ts) if isinstance(event, Impression) else None
        if page is None or page != self.page:
            self.page, self.arrivals = page, self.arrivals + 1
            self._move_time(event)
        if isinstance(event, Impression):
            self._impression(event)
        else:
            self._feedback(event)

    def _move_time(self, event: Impression | Feedback) -> None:
        self.clock.advance(event.ts, event.user)
        for name in self.doubts.decided():
            self._known_surely(name).due_ms = self.clock.apparent_ms + self.window_ms
        self._release()

    def _release(self) -> None:
        for kept in self._by_deadline():
            if kept.status == "early" and kept.due_ms < self.clock.stream_ms:
                self._forget(kept)
            elif kept.due_ms < self.clock.stream_ms and self.doubts.is_restarted(kept.id):
                kept.due_ms = self.clock.apparent_ms + self.window_ms
            elif kept.due_ms < self.clock.stream_ms:
                self.closings += 1
                self.doubts.forget(kept.id)
                kept.status, kept.closed = "closed", (self.clock.stream_ms, self.closings)
        closed = [kept for kept in self.kept if kept.status == "closed"]
        for kept in sorted(closed, key=lambda kept: kept.closed[1]):
            if self.clock.stream_ms - kept.closed[0] < self.late_ms:
                break
            self._forget(kept)

    def _impression(self, event: Impression) -> None:
        known = self._known(event.id)
        if known is not None and known.status != "early":
            self.fates["duplicate"] += 1
            return
        is_new = known is None or known.user != event.user
        is_kept = self._make_own_room(event.user, new=is_new)
        self._make_room()
        known = self._known(event.id)
        due_ms = self.doubts.begin(event.id, event.ts) + self.window_ms
        if known is not None:
            self.fates["early"] -= len(known.feedback)
            for _, ts_ms in known.feedback:
                in_time = "joined" if ts_ms <= event.ts + self.window_ms else "late"
                self.fates[in_time if known.user == event.user else "dead_lettered"] += 1
            if known.user != event.user:
                self.kept.remove(known)
                known = None
        if known is None:
            known = Kept(event.id, event.user, "waiting", 0, 0, 0)
            self.kept.append(known)
        known.ts_ms, known.status, known.due_ms, known.arrival = event.ts, "waiting", due_ms, self.arrivals
        self.fates["scored"] += 1
        if not is_kept:
            self.counts["over_user_share"] += 1
            self.doubts.forget(known.id)
            self.kept.remove(known)

    def _feedback(self, event: Feedback) -> None:
        known = self._known(event.impression)
        if known is not None and known.user != event.user:
            self.fates["dead_lettered"] += 1
            return
        if known is not None and event.id in [name for name, _ in known.feedback]:
            self.fates["duplicate"] += 1
            return
        if known is None or known.status == "early":
            if not self._make_own_room(event.user, new=known is None):
                self.fates["dead_lettered"] += 1
                return
            self._make_room()
            known = self._known(event.impression)
        if known is None:
            due_ms = self.clock.stream_ms + self.window_ms
            known = Kept(event.impression, event.user, "early", 0, due_ms, self.arrivals)
            self.kept.append(known)
        held = {user: sum(len(kept.feedback) for kept in self.kept if kept.user == user) for user in self._users()}
        if (
            len(known.feedback) >= self.per_impression
            or held[event.user] >= self.user_feedback
            or sum(held.values()) >= self.feedback
        ):
            self.fates["dead_lettered"] += 1
            return
        known.feedback.append((event.id, event.ts))
        in_time = "joined" if event.ts <= known.ts_ms + self.window_ms else "late"
        self.fates[{"early": "early", "waiting": in_time, "closed": "late"}[known.status]] += 1

    def _make_own_room(self, user: str, *, new: bool) -> bool:
        """Let the user's oldest go while the user has too many; nothing that waits goes for it."""
        while (theirs := [kept for kept in self.kept if kept.user == user]) and len(theirs) + new > self.user_slots:
            if theirs[0].status == "waiting":
                return False
            self._forget(theirs[0])
        return True

    def _make_room(self) -> None:
        while len(self.kept) >= self.slots:
            closed = sorted((kept for kept in self.kept if kept.status == "closed"), key=lambda kept: kept.closed)
            self._forget((closed or self._by_deadline())[0])

    def _by_deadline(self) -> list[Kept]:
        due = [kept for kept in self.kept if kept.status != "closed"]
        return sorted(due, key=lambda kept: (kept.due_ms, kept.arrival, key_of(kept.id, SEED)))

    def _forget(self, kept: Kept) -> None:
        if kept.status == "early":
            self.fates["early"] -= len(kept.feedback)
            self.fates["orphaned"] += len(kept.feedback)
        self.counts["closed_unlearned"] += kept.status == "waiting"
        self.doubts.forget(kept.id)
        self.kept.remove(kept)

    def _known_surely(self, name: str) -> Kept:
        known = self._known(name)
        assert known is not None
        return known

    def _known(self, name: str) -> Kept | None:
        return next((kept for kept in self.kept if kept.id == name), None)

    def _users(self) -> set[str]:
        return {kept.user for kept in self.kept}
