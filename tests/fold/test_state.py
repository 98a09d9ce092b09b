"""What a state's digest sees, what a snapshot holds, and which one is refused: on a few hundred events."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from thalweg.operators.fold.digest import digest
from thalweg.operators.fold.fates import TALLIES
from thalweg.operators.fold.snapshot import arrays_of, restore, snapshot, used
from thalweg.schemas.records import LogRecord
from thalweg.streams.partition.partition import Partition

from tests.fold.configurations import configurations
from tests.fold.logs import generated

NAME, EVENTS = "long histories", 400
LEARNED = ["learner.pairs", "learner.dense", "learner.rates.overall", "memory.trust", "memory.keyed", "delays.counts"]
COUNTED = ["clock.stream_time_ms", "fates", "tallies"]


@cache
def arrays() -> dict[str, np.ndarray]:
    partition = Partition(configurations()[NAME])
    partition.process(generated()[:EVENTS])
    return partition.snapshot()


def test_a_restored_snapshot_has_the_digest_and_the_future_of_the_state() -> None:
    """A state from a snapshot has all that was used, the same digest, and gives the same outputs from then on."""
    first, second = (Partition(configurations()[NAME], arrays=arrays()) for _ in range(2))
    again = snapshot(restore(configurations()[NAME], arrays()))
    assert {name: array.tobytes() for name, array in again.items()} == {
        name: array.tobytes() for name, array in arrays().items()
    }
    straight = Partition(configurations()[NAME])
    outputs = straight.process(generated()[: EVENTS + 60])
    assert first.digest() == second.digest()
    found = first.process(generated()[EVENTS : EVENTS + 60])
    assert outputs.scores[-len(found.scores) :] == found.scores
    assert straight.digest() == first.digest()


@pytest.mark.parametrize("name", [*LEARNED, *COUNTED])
def test_the_digest_sees_all_that_is_learned_and_counted(name: str) -> None:
    """One number of an array more or less is another state."""
    state = restore(configurations()[NAME], arrays())
    before = digest(state)
    array = dict(arrays_of(used(state)))[name]
    array[(0,) * array.ndim] += 1
    assert digest(state) != before


def test_an_erased_user_leaves_nothing_in_the_rows_that_are_free() -> None:
    """Behind erasures, weights and rates of rows without a key are zero, whoever had them before."""
    partition = Partition(configurations()["own scores"])
    for record in generated()[:EVENTS]:
        partition.process([record])
    events = [json.loads(record.value or b"") for record in generated()[:EVENTS]]
    users = sorted({event["user"] for event in events if event["type"] != "item"})
    last_ms = int(partition.state.clock.stream_time_ms[0])
    erasures = [{"type": "erase", "id": f"e{user}", "user": user, "ts": last_ms} for user in users[:20]]
    partition.process([LogRecord(EVENTS + n, json.dumps(event).encode()) for n, event in enumerate(erasures)])
    state = used(partition.state)
    free = state.features.key == 0
    assert free.sum() >= 20
    assert not state.learner.features[free].any()
    assert not state.learner.rates.sums[free].any()


def test_room_is_made_by_closing_the_oldest_unlearned_which_is_counted() -> None:
    """At the limit of waiting impressions the next due one is closed unlearned, and counted."""
    configuration = configurations()["shipped"]
    few = replace(configuration.joiner, waiting_limit=16, feedback_limit=32)
    partition = Partition(replace(configuration, joiner=few))
    partition.process([record for record in generated()[:60] if b'"impression"' in (record.value or b"")])
    tallies = dict(zip(TALLIES, partition.state.tallies.tolist(), strict=True))
    assert tallies["impressions"] > 40
    assert tallies["closed_unlearned"] == tallies["impressions"] - 16


def test_as_many_waiting_impressions_as_users_are_refused() -> None:
    """Every waiting impression keeps its user, so there must be one user more."""
    configuration = configurations()["shipped"]
    few = replace(configuration.behaviors, users_limit=configuration.joiner.waiting_limit)
    with pytest.raises(ValueError, match="users_limit must be above"):
        replace(configuration, behaviors=few)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("waiting.status", 7),
        ("features.key", 5),
        ("behaviors.row", 1 << 20),
        ("features_seen.counts", 255),
        ("users.linked", 2),
    ],
)
def test_a_state_that_the_fold_could_not_leave_is_refused(name: str, value: int) -> None:
    """A number that leads compiled code out of its arrays is found before it runs."""
    crafted = {**arrays(), name: arrays()[name].copy()}
    crafted[name][(0,) * crafted[name].ndim] = value
    with pytest.raises(ValueError, match=r"contradict each other|numbers outside"):
        restore(configurations()[NAME], crafted)
