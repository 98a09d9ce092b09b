"""How long positives take: when a label is learned provisionally, and as what."""

import numpy as np
from thalweg.operators.configuration import Configuration

DAY_MS = 86_400_000
EDGES = [512 * 2 ** (bucket // 2) * (3 if bucket % 2 else 2) // 2 for bucket in range(48)]


class Delays:
    """Positives by delay, half of them forgotten a day."""

    def __init__(self, configuration: Configuration) -> None:
        joiner = configuration.joiner
        self.share, self.window_ms = joiner.provisional_share, max(joiner.windows_ms().values())
        self.counts, self.within = np.zeros(48), np.zeros(48)
        self.began_ms = self.decayed_ms = self.elapsed_ms = self.since = 0

    def count(self, delay_ms: int, now_ms: int) -> None:
        """Count a positive; once a minute, first look at what is known."""
        if self.share >= 1:
            return
        if self.began_ms == 0:
            self.began_ms = self.decayed_ms = now_ms
        if now_ms - self.decayed_ms >= 60_000:
            self.look(now_ms)
        self.began_ms = min(self.began_ms, now_ms - max(delay_ms, 0))
        self.counts[bucket_of(delay_ms)] += 1
        self.since += 1

    def look(self, now_ms: int) -> None:
        """See what is known of delays."""
        self.counts *= kept(min(now_ms - self.decayed_ms, self.since * DAY_MS // 250))
        self.decayed_ms, self.since = now_ms, 0
        log_ms = now_ms - self.began_ms
        seen = [1 - kept(max(log_ms - end * 6 // 7, log_ms // 16)) for end in EDGES]
        total = np.cumsum(self.counts * (1 - kept(log_ms)) / np.array(seen))
        self.within = total / (total[-1] + 10)
        known = [end for end, share in zip(EDGES, self.within, strict=True)
                 if 4 * end <= log_ms and end < self.window_ms and share >= self.share]  # fmt: skip
        self.elapsed_ms = known[0] if known else 0

    def come(self, elapsed_ms: int) -> float:
        """The share of the positives that comes within an elapsed time."""
        bucket = bucket_of(elapsed_ms) - 1
        return float(self.within[bucket]) if bucket >= 0 else 0.0

    def provisional(self, p: float, elapsed_ms: int, certain: float) -> float:
        """The chance that a positive still comes, where none has come so far."""
        come = self.come(elapsed_ms)
        return 0.0 if come >= certain else float(p * (1 - come) / (p * (1 - come) + 1 - p))


def bucket_of(delay_ms: int) -> int:
    return min(sum(end <= delay_ms for end in EDGES), 47)


def kept(elapsed_ms: int) -> float:
    """What a day's half-life leaves."""
    return float(2.0 ** (-elapsed_ms / DAY_MS))
