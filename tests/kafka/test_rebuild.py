"""Another configuration in a generation of its own, and going back to an older checkpoint, with a real log."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from thalweg.schemas.origin import parse_cause
from thalweg.streams.checkpoints.folders import store_at
from thalweg.streams.checkpoints.format import Checkpoint
from thalweg.streams.partition.partition import Partition

from tests.kafka.fleet import delete_records
from tests.kafka.scoring import Sent, Workers
from tests.kafka.test_commands import thalweg
from tests.kafka.test_refusals import EVENTS, Once
from tests.kafka.test_worker import lines

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]
NEW = {"THALWEG_CHECKPOINT__GENERATION": "1", "THALWEG_LEARNER__ALPHA_DENSE": "0.2"}


@pytest.fixture(params=["suppress", "transactional"])
def workers(request: pytest.FixtureRequest, broker: str, unique: Unique, tmp_path: Path) -> Iterator[Workers]:
    settings = {"CHECKPOINT__INTERVAL_MS": 3_600_000, "DELIVERY__MODE": request.param}
    with Workers(broker, unique, tmp_path / "workers", **settings) as made:
        made.produce(lines(EVENTS))
        yield made


def run(workers: Workers, patch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, bytes, str]:
    """Run `thalweg checkpoint` under the workers' configuration."""
    with patch.context() as patched:
        for name, text in workers.environ.items():
            patched.setenv(name, text)
        return thalweg("checkpoint", *arguments)


def newest(workers: Workers) -> Checkpoint:
    loaded = workers.loaded
    store = store_at(loaded.checkpoint, workers.source, 0)
    return store.read(store.paths()[0])


def offset_of(output: Sent) -> int:
    header = next((value for name, value in output.headers if name == "thalweg.cause"), None)
    cause = json.loads(output.value or b"")["cause"] if header is None else header.decode()
    return parse_cause(cause)[1].offset


def switched(old: Sequence[Sent], new: Sequence[Sent], at: int) -> list[Sent]:
    return [each for each in old if offset_of(each) < at] + [each for each in new if offset_of(each) >= at]


def test_a_new_configuration_takes_over_without_a_gap(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebuilt beside a worker that goes on, the new generation takes over: each output once, and one can go back."""
    once, old = Once(workers), dict(workers.environ)
    once.run(1_500)
    before = workers.expected(0)
    assert run(workers, monkeypatch, "rebuild")[0] == 1
    workers.environ |= NEW
    status, out, told = run(workers, monkeypatch, "rebuild")
    assert (status, out) == (0, b""), told
    assert f"{workers.source}-0: generation 1 resumes at offset 1500, 1500 offsets further" in told
    assert newest(workers).header.outputs
    workers.environ = dict(old)
    assert once.run(2_000) == 1_500
    workers.environ |= NEW
    assert "resumes at offset 2000, 500 offsets further" in run(workers, monkeypatch, "rebuild")[2]
    assert "resumes at offset 2000, 0 offsets further" in run(workers, monkeypatch, "rebuild")[2]
    after = workers.expected(0)
    assert after[0][:1_000] != before[0][:1_000]
    fresh = Partition(workers.configuration, topic=workers.source, partitions=1)
    fresh.process([record for record in workers.records_of(workers.source, 0) if record.offset < 2_000])
    assert newest(workers).header.digest == fresh.digest()
    assert once.run() == 2_000
    expected = tuple(switched(*kinds, at=2_000) for kinds in zip(before, after, strict=True))
    assert workers.written(0) == (expected, 0)
    workers.environ = dict(old)
    assert once.run() == 2_000
    assert workers.written(0) == (expected, 0)


@pytest.mark.parametrize("workers", ["suppress"], indirect=True)
def test_a_rebuilt_state_behind_the_outputs_sends_none_again(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the old worker went on after the rebuild, the new one folds that again and sends what is not there yet."""
    once, old = Once(workers), dict(workers.environ)
    once.run(1_000)
    before = workers.expected(0)
    workers.environ |= NEW
    assert run(workers, monkeypatch, "rebuild")[0] == 0
    after = workers.expected(0)
    workers.environ = dict(old)
    once.run(2_000)
    workers.environ |= NEW
    assert once.run() == 1_000
    expected = tuple(switched(*kinds, at=2_000) for kinds in zip(before, after, strict=True))
    assert workers.written(0) == (expected, 0)


@pytest.mark.parametrize("workers", ["suppress"], indirect=True)
def test_rebuilding_says_what_it_cannot_do(workers: Workers, monkeypatch: pytest.MonkeyPatch, broker: str) -> None:
    """Nothing in use, records that are gone, another configuration in the generation: one line that says what to do."""
    once = Once(workers)
    workers.environ |= NEW
    status, _, told = run(workers, monkeypatch, "rebuild")
    assert (status, told.count("\n")) == (1, 1)
    assert "generation 0 has no checkpoints: start a worker" in told
    workers.environ["THALWEG_CHECKPOINT__GENERATION"] = "0"
    once.run(1_000)
    delete_records(broker, workers.source, 0, 100)
    workers.environ |= NEW
    status, _, told = run(workers, monkeypatch, "rebuild")
    assert (status, told.count("\n")) == (1, 1)
    assert "starts at offset 100 by now" in told
    assert "give --first-offset 100" in told
    status, _, told = run(workers, monkeypatch, "rebuild", "--first-offset", "100")
    assert status == 0, told
    fresh = Partition(workers.configuration, topic=workers.source, partitions=1)
    fresh.process([record for record in workers.records_of(workers.source, 0) if record.offset < 1_000])
    assert newest(workers).header.digest == fresh.digest()
    workers.environ["THALWEG_SEED"] = "5"
    status, _, told = run(workers, monkeypatch, "rebuild")
    assert (status, told.count("\n")) == (1, 1)
    assert "choose a checkpoint.generation that is not there yet" in told


@pytest.mark.parametrize("workers", ["suppress"], indirect=True)
def test_a_rollback_changes_nothing_for_readers(workers: Workers, monkeypatch: pytest.MonkeyPatch, broker: str) -> None:
    """Refused while a worker runs or the log lacks what is to be read; after it all is folded again and sent once."""
    once = Once(workers)
    for until in (500, 1_000, 2_000):
        once.run(until)
    worker = workers.start()
    workers.wait(lambda: workers.opened(worker), "the partition is open", 120)
    status, _, told = run(workers, monkeypatch, "rollback")
    assert (status, told.count("\n")) == (1, 1)
    assert f"1 workers are in group {workers.group}: stop them first" in told
    assert workers.stop(worker) == 0
    assert newest(workers).header.next_offset == EVENTS
    status, _, told = run(workers, monkeypatch, "rollback", "--to", "1000")
    assert status == 0, told
    assert newest(workers).header.next_offset == 1_000
    assert once.run() == 1_000
    assert workers.written(0) == (workers.expected(0), 0)
    delete_records(broker, workers.source, 0, 1_500)
    status, _, told = run(workers, monkeypatch, "rollback")
    assert (status, told.count("\n")) == (1, 1)
    assert "starts at offset 1500 by now: a worker could not resume at offset 1000" in told
    assert newest(workers).header.next_offset == EVENTS
