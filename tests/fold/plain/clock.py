"""The rule of stream time told again, plainly: the users heard last, and the time that enough of them reached."""

from collections import OrderedDict
from typing import Any

WITNESSES = 8
UNCONFIRMED_MAX = 2
APPARENT = 3
CROWD = 4
STALE_TURNS = 64
ALONE_TURNS = 8


class PlainClock:
    """`heard`: of each witness, in the order in which they were heard last, time and turn."""

    def __init__(self) -> None:
        """Start before the first event."""
        self.heard: OrderedDict[object, tuple[int, int]] = OrderedDict()
        self.stream_ms = self.apparent_ms = self.turns = self.most = 0

    def advance(self, ts_ms: int, user: object) -> None:
        """Hear a user at an event time."""
        is_in_a_row = user in self.heard and self.heard[user][1] == self.turns
        self.turns += not (is_in_a_row and self.most >= CROWD)
        self.heard.pop(user, None)
        if len(self.heard) == WITNESSES:
            self.heard.popitem(last=False)
        self.heard[user] = (ts_ms, self.turns)
        is_second, self.most = self.most == 1 and len(self.heard) == 2, max(self.most, len(self.heard))
        fewest, silence = (3, STALE_TURNS) if self.most >= CROWD else (1, ALONE_TURNS)
        while len(self.heard) > fewest and self.turns - next(iter(self.heard.values()))[1] > silence:
            self.heard.popitem(last=False)
        times = sorted((ts for ts, _ in self.heard.values()), reverse=True)
        confirming = max(len(times) // 2 + 1, len(times) - UNCONFIRMED_MAX)
        reached_ms = times[confirming - 1]
        if is_second:
            self.stream_ms = reached_ms
        self.stream_ms = max(self.stream_ms, reached_ms)
        self.apparent_ms = max(self.stream_ms, times[min(APPARENT, confirming) - 1])

    def heard_last_ms(self) -> int:
        """Return the time of who was heard last."""
        return next(reversed(self.heard.values()))[0] if self.heard else self.stream_ms

    def heard_since(self, turn: int) -> bool:
        """Tell whether every witness but that of a turn was heard after it, or that is long ago."""
        return min(at for _, at in self.heard.values()) >= turn or self.turns - turn > STALE_TURNS


class Doubts:
    """Impressions that are not where others are: when their windows begin is decided once all were heard again."""

    def __init__(self, clock: PlainClock) -> None:
        """Start with none."""
        self._clock = clock
        self._doubted: OrderedDict[Any, tuple[int, int, int]] = OrderedDict()

    def begin(self, name: Any, ts_ms: int) -> int:
        """Return when the window of an impression begins that has just arrived."""
        self._doubted.pop(name, None)
        begins_ms = max(ts_ms, self._clock.apparent_ms)
        if ts_ms != self._clock.apparent_ms or self._clock.most < 2:
            self._doubted[name] = (ts_ms, begins_ms, self._clock.turns)
        return begins_ms

    def decided(self) -> list[Any]:
        """Return those that turn out to be ahead or behind: their windows begin at apparent time."""
        found = []
        while self._doubted:
            name, (ts_ms, begins_ms, turn) = next(iter(self._doubted.items()))
            if not self._clock.heard_since(turn):
                break
            del self._doubted[name]
            if begins_ms > self._clock.apparent_ms or begins_ms > ts_ms:
                found.append(name)
        return found

    def is_restarted(self, name: Any) -> bool:
        """Tell whether the window of one that is over, as time has jumped, begins again; if so, for good."""
        ts_ms, begins_ms, _ = self._doubted.get(name, (0, 0, 0))
        return begins_ms > ts_ms and self._doubted.pop(name) is not None

    def forget(self, name: Any) -> None:
        """Forget an impression that no longer waits."""
        self._doubted.pop(name, None)
