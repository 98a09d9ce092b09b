"""One fold of the sample in a process of its own: prints the hashes of its outputs and of its state."""

import json
import sys
from collections.abc import Sequence

from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import LogRecord
from thalweg.streams.partition.partition import Partition

from tests.streams.logs_for_tests import Hashed, sample, shipped, small


def folded(
    records: Sequence[LogRecord], configuration: Configuration, batch: int, snapshot_events: int | None = None
) -> list[str]:
    """Fold records in batches; with `snapshot_events`, go on from a snapshot each time so many are folded."""
    partition = Partition(configuration, block_events=len(records))
    hashed = Hashed()
    first = 0
    while first < len(records):
        last = min(first + batch, len(records))
        if snapshot_events is not None:
            last = min(last, (first // snapshot_events + 1) * snapshot_events)
        hashed.add(partition.process(records[first:last]))
        first = last
        assert int(partition.state.fates.sum()) == first
        if snapshot_events is not None and first % snapshot_events == 0:
            partition = Partition(configuration, block_events=len(records), arrays=partition.snapshot())
    assert all(hashed.counts[:2])
    return [*hashed.digests(), partition.digest()]


CONFIGURATIONS = {
    "shipped": shipped,
    "small": lambda: small(histories=64, base=shipped()),
    "any_context": lambda: small(rows=8_192, users=2_048, waiting=1_024, histories=256),
}


if __name__ == "__main__":
    name, events, batch, snapshot_events = sys.argv[1:]
    print(  # noqa: T201
        json.dumps(folded(sample(int(events)), CONFIGURATIONS[name](), int(batch), int(snapshot_events) or None))
    )
