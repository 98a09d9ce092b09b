"""Vowpal Wabbit as a peer: an impression's fields as its namespaces, and its five configurations.

Its lines are made of the fields that Thalweg's configuration names: user, item, each context field (a list has several
values), the hour, numbers as their buckets; on KuaiRand also tab x user.
"""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from thalweg.operators.configuration import Configuration
from thalweg.operators.features import HOUR_OF_DAY

CONFIGURATIONS = {
    "default": "",
    "-q ::": "-q ::",
    "--nn 8": "--nn 8",
    "--ftrl": "--ftrl",
    "--ftrl -q ::": "--ftrl -q ::",
}
FIXED = "--quiet --loss_function logistic --link logistic -b 22 --random_seed 1"
HOUR_MS = 3_600_000


class Lines:
    """Turns an impression into a line without its label."""

    def __init__(self, configuration: Configuration) -> None:
        """Read fields as `configuration` names them."""
        self._features = configuration.features

    def line(self, user: str, item: str, ts: int, context: Mapping[str, Any]) -> str:
        """Return `|a user |b item |c …`."""
        parts = [f"|a u{user}", f"|b i{item}"]
        features = self._features
        if features.hour_of_day:
            parts.append(f"|c h{(ts + features.utc_offset_ms) // HOUR_MS % 24}")
        named = sorted((name, value) for name, value in context.items() if name != HOUR_OF_DAY)
        for place, (name, value) in enumerate(named):
            if name in features.buckets:
                value = bisect_right(features.buckets[name], value)
            values = value if isinstance(value, list) else [value]
            texts = " ".join(f"{place}_{word}".translate(_PLAIN) for word in values)
            parts.append(f"|{chr(ord('d') + place)} {texts}")
        if "tab" in context:
            parts.append(f"|z {context['tab']}_{user}")
        return " ".join(parts)


_PLAIN = str.maketrans({" ": "_", ":": "_", "|": "_"})
