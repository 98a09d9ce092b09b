"""What a partition keeps in memory, whatever the log brings, and what its methods promise."""

import gc
import json
import subprocess
import sys

import pytest
from thalweg.schemas.events import Impression, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

from tests.soak import sized
from tests.streams.logs_for_tests import ROOT, sample, small
from tests.streams.partition.memory_process import EARLY_EVENTS

WHOLE = 2_000_000
EVENTS = sized(500_000, WHOLE)
MIB = 1 << 20


def measured(*arguments: str) -> dict[str, int]:
    command = [sys.executable, "-W", "error", "-m", "tests.streams.partition.memory_process", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    figures: dict[str, int] = json.loads(run.stdout)
    return figures


@pytest.mark.long
@pytest.mark.soak(EVENTS, WHOLE, "events")
def test_memory_stays_flat_over_ever_new_users_and_items() -> None:
    """2 million events of ever new users and items under small limits must leave memory where 200 000 left it."""
    figures = measured("endless", str(EVENTS))
    early, late = figures[f"resident_{EARLY_EVENTS}"], figures[f"resident_{EVENTS}"]
    assert late - early <= max(0.05 * early, 4 * MIB), figures
    assert figures[f"state_{EVENTS}"] == figures[f"state_{EARLY_EVENTS}"]
    busy = ("evicted", "users_evicted", "labelled", "closed_unlearned", "orphaned", "late")
    assert all(figures[name] > EVENTS // 1_000 for name in busy), figures


def test_an_empty_partition_is_small() -> None:
    """At the default limits an empty partition must add at most 32 MiB to what is resident."""
    figures = measured("empty")
    assert figures["resident"] <= 32 * MIB, figures
    assert figures["state"] <= 32 * MIB, figures


def test_warming_up_changes_nothing() -> None:
    """Compiling must leave the state as it is, empty or not."""
    partition = Partition(small())
    before = partition.digest()
    assert partition.warm_up() >= 0.0
    assert partition.digest() == before
    partition.process(sample(500))
    before = partition.digest()
    partition.warm_up()
    assert partition.digest() == before


def test_no_records_make_no_outputs() -> None:
    """An empty batch must give nothing and change nothing."""
    partition = Partition(small())
    before = partition.digest()
    assert not any(partition.process([]))
    assert partition.digest() == before


def test_a_snapshot_is_a_copy() -> None:
    """What happens after a snapshot must not show in it, on either side."""
    partition = Partition(small())
    partition.process(sample(1_000))
    arrays = partition.snapshot()
    digest = partition.digest()
    partition.process(sample(2_000)[1_000:])
    one, other = Partition(small(), arrays=arrays), Partition(small(), arrays=arrays)
    one.process(sample(2_000)[1_000:])
    assert other.digest() == digest
    assert one.digest() == partition.digest()


def test_a_snapshot_that_does_not_fit_is_refused() -> None:
    """A missing, an unknown and a misshapen array must each be refused by name."""
    arrays = Partition(small()).snapshot()
    with pytest.raises(ValueError, match=r"has no users\.key"):
        Partition(small(), arrays={name: array for name, array in arrays.items() if name != "users.key"})
    with pytest.raises(ValueError, match="other, which this version"):
        Partition(small(), arrays=arrays | {"other": arrays["fates"]})
    with pytest.raises(ValueError, match="fates is float64"):
        Partition(small(), arrays=arrays | {"fates": arrays["fates"].astype(float)})


def test_without_examples_the_state_is_the_same() -> None:
    """Whether examples are wanted must decide nothing but whether they are given."""
    one, other = Partition(small()), Partition(small(), examples=False)
    wanted, unwanted = one.process(sample(2_000)), other.process(sample(2_000))
    assert wanted.examples
    assert unwanted == wanted._replace(examples=[])
    assert one.digest() == other.digest()


def test_closing_all_windows_gives_every_example() -> None:
    """After close_all every impression must have had its example, and none wait."""
    partition = Partition(small(users=2_048, waiting=1_024))
    records = [
        LogRecord(n, encode_event(Impression(str(n), f"u{n % 70}", "film", START_MS + n, {}))) for n in range(1_000)
    ]
    examples = [*partition.process(records).examples, *partition.close_all().examples]
    assert len(examples) == 1_000
    assert partition.close_all().examples == []


def test_the_garbage_collector_is_left_as_it_was() -> None:
    """Processing must neither leave the collector off nor switch on what was off."""
    partition = Partition(small())
    partition.process(sample(10))
    assert gc.isenabled()
    gc.disable()
    try:
        partition.process(sample(20)[10:])
        assert not gc.isenabled()
    finally:
        gc.enable()
