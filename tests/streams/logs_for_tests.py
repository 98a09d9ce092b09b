"""Logs for the tests of streams: the shipped sample of KuaiRand, and small configurations."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import LogRecord, Outputs
from thalweg.streams.configuration.loading import build, read
from thalweg.streams.configuration.sections import members
from thalweg.streams.logs.reader import LogReader

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "kuairand" / "kuairand_sample.jsonl.gz"
SAMPLE_CONFIGURATION = ROOT / "examples" / "kuairand" / "thalweg.toml"


@cache
def sample(events: int) -> tuple[LogRecord, ...]:
    """Return the first events of the sample."""
    with LogReader(SAMPLE, block_lines=events) as reader:
        return tuple(next(iter(reader)))


def shipped() -> Configuration:
    """Return the configuration that is shipped with the sample."""
    given = read(dict(members(Configuration)), SAMPLE_CONFIGURATION, environment={}, flags=[])
    configuration: Configuration = build(Configuration, Configuration(), (), given)
    return configuration


def small(
    *,
    rows: int = 2_048,
    users: int = 1_024,
    waiting: int = 512,
    histories: int | None = None,
    base: Configuration | None = None,
) -> Configuration:
    """Return a configuration under small limits, so that a state is quickly made and soon full."""
    c = base or Configuration()
    sdim = c.sdim if histories is None else replace(c.sdim, histories_limit=histories)
    return replace(
        c,
        table=replace(c.table, rows_limit=rows),
        behaviors=replace(c.behaviors, users_limit=users),
        joiner=replace(c.joiner, waiting_limit=waiting, feedback_limit=2 * waiting, text_bytes=1 << 20, user_share=1.0),
        sdim=sdim,
    )


class Hashed:
    """SHA-256 of all outputs so far, a hash a kind, headers and keys included."""

    def __init__(self) -> None:
        """Start with no outputs."""
        self._hashes = [hashlib.sha256() for _ in Outputs._fields]
        self.counts = [0 for _ in Outputs._fields]

    def add(self, outputs: Outputs) -> None:
        """Take outputs, in the order of their causes, which is verified."""
        for which, kind in enumerate(outputs):
            causes = [output.cause for output in kind]
            assert causes == sorted(set(causes))
            self.counts[which] += len(kind)
            self._hashes[which].update(b"".join(repr(output).encode() for output in kind))

    def digests(self) -> list[str]:
        """Return the hash of each kind."""
        return [one.hexdigest() for one in self._hashes]
