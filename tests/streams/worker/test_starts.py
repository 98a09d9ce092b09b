"""A partition that nobody has folded begins with what another has learned, from a file that has no user."""

import errno
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from thalweg.operators.configuration import Configuration
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.schemas.events import Merge, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.checkpoints.disk import LocalDisk
from thalweg.streams.checkpoints.folders import store_at
from thalweg.streams.checkpoints.format import Checkpoint, Identity, header_of
from thalweg.streams.commands.replay_command import command as replay_command
from thalweg.streams.configuration.loading import CheckpointSection
from thalweg.streams.partition.lessons import LessonBook, settled
from thalweg.streams.partition.partition import Partition
from thalweg.streams.refusal import Refusal
from thalweg.streams.replay.taught import taught_in
from thalweg.streams.worker.starts import NO_NAMES, NO_OTHER, Given, Start, Starts, shared_part

from tests.fold.logs import generated
from tests.streams.logs_for_tests import small

EVENTS = 150
PARTITIONS = 4
TOPIC = "interactions"
LEARNER = 3
SETTINGS = [
    word
    for setting in (
        "table.rows_limit=4096",
        "behaviors.users_limit=4096",
        "joiner.waiting_limit=2048",
        "joiner.feedback_limit=4096",
        "joiner.text_bytes=1048576",
        "joiner.user_share=1.0",
        "joiner.attribution_window_ms=60000",
        'features.context=["device","category"]',
    )
    for word in ("--set", setting)
]
"""The configuration as options."""


def configured(seed: int = 0) -> Configuration:
    c = small(rows=1 << 12, users=1 << 12, waiting=1 << 11)
    soon = replace(c.joiner, attribution_window_ms=60_000)
    named = replace(c.features, context=("device", "category"))
    return settled(replace(c, features=named, joiner=soon, seed=seed), has_others=True)


C = configured()


@cache
def learned(partition: int, events: int = EVENTS) -> tuple[Checkpoint, bytes]:
    """Return the checkpoint of a partition behind so many events, and its lessons."""
    fold = Partition(C, topic=TOPIC, partition=partition, lessons=LessonBook())
    made = fold.process(generated(events))
    header = header_of(Identity(TOPIC, partition, C, PARTITIONS), events, fold.digest())
    return Checkpoint(header, fold.snapshot()), b"".join(output.value or b"" for output in made.lessons)


def kept(folder: Path, *partitions: int, configuration: Configuration = C) -> CheckpointSection:
    """Return a section whose folder has the checkpoints of these partitions, each newer than the one before."""
    section = CheckpointSection(directory=str(folder))
    for partition in partitions:
        checkpoint, _ = learned(partition)
        header = header_of(Identity(TOPIC, partition, configuration, PARTITIONS), EVENTS, checkpoint.header.digest)
        store_at(section, TOPIC, partition).save(checkpoint._replace(header=header))
    return section


def starts(section: CheckpointSection, configuration: Configuration = C, disk: LocalDisk | None = None) -> Starts:
    identity = Identity(TOPIC, LEARNER, configuration, PARTITIONS)
    return Starts(section, identity, disk or LocalDisk(), logging.getLogger("thalweg.test"))


def begun_with(arrays: Any, partition: int = LEARNER) -> Partition:
    """Return a partition whose log begins with a merge that names the state of partition 0."""
    fold = Partition(C, topic=TOPIC, partition=partition, lessons=Given(arrays))
    fold.process([LogRecord(0, encode_event(Merge("m", {}, start=f"{TOPIC}-0-{EVENTS}")))])
    return fold


def test_a_shared_part_is_all_that_others_may_have_and_nothing_of_a_user() -> None:
    """Who begins with it is, to the bit, where who begins with the checkpoint is; it has no user and no row of one."""
    checkpoint, _ = learned(0)
    shared = shared_part(Identity(TOPIC, 0, C, PARTITIONS), checkpoint)
    whole, part = begun_with(checkpoint.part("")), begun_with(shared.part(""))
    assert part.digest() == whole.digest()
    assert part.state.lessons.learned[0] == checkpoint.arrays["lessons.made"][0] > 80
    assert part.state.learner.rates.overall[0, 0] > 80
    assert begun_with(shared.part(""), 1).state.lessons.learned[0] == part.state.lessons.learned[0]
    salt = field_seed("user", C.seed)
    users = np.array([key_of(f"u{number}", salt) for number in range(1_000)], np.uint64)
    assert np.isin(checkpoint.arrays["users.key"], users).any()
    assert np.isin(checkpoint.arrays["features.key"], users).any()
    empty = Partition(C, lessons=LessonBook()).snapshot()
    for name, array in shared.arrays.items():
        assert array.dtype != np.uint64 or not np.isin(array, users).any(), name
        if name.startswith(("users.", "waiting.", "behaviors.", "visits.", "seen_items.", "facts.")):
            assert np.array_equal(array, empty[name]), name
    assert not shared.arrays["user_rows.owner"].any()


def test_the_newest_checkpoint_of_another_partition_is_kept_and_named(tmp_path: Path) -> None:
    """What is kept is there for whoever folds the merge, and its numbers are those of the merge."""
    found = starts(kept(tmp_path, 2, 0, 1)).found()
    made = int(learned(1)[0].arrays["lessons.made"][0])
    assert found == Start(f"{TOPIC}-1-{EVENTS}", {1: made})
    assert isinstance(found, Start)
    assert begun_with(starts(CheckpointSection(directory=str(tmp_path))).state_at(found.origin)).digest()
    other_generation = CheckpointSection(directory=str(tmp_path), generation=5)
    assert starts(other_generation).state_at(found.origin)["lessons.made"][0] == made


def test_what_was_kept_before_is_named_again(tmp_path: Path) -> None:
    """A worker that died before the log named it leaves one file, whatever other partitions have learned since."""
    first = starts(kept(tmp_path, 1)).found()
    assert starts(kept(tmp_path, 0, 2)).found() == first
    assert len(list((tmp_path / "starts").rglob("*.checkpoint"))) == 1


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"damaged"), lambda path: path.unlink()])
def test_what_is_gone_or_damaged_is_refused_with_what_to_do(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    """The log can't be folded without it, and one line tells so."""
    section = kept(tmp_path, 0)
    found = starts(section).found()
    assert isinstance(found, Start)
    [path] = (tmp_path / "starts").rglob("*.checkpoint")
    spoil(path)
    with pytest.raises(Refusal, match=f"the log begins with the state at {TOPIC}-0-150.*(without-lessons|is not a)"):
        starts(section).state_at(found.origin)
    with pytest.raises(Refusal, match="the log begins with the state at x: not an origin"):
        starts(section).state_at("x")
    assert starts(section).found() == found  # the next partition gets a whole one


def test_a_partition_begins_empty_where_there_is_nothing_to_begin_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No other has a checkpoint, or none of this configuration; or fields have no places that all agree on."""
    assert starts(CheckpointSection(directory=str(tmp_path))).found() == NO_OTHER
    assert starts(kept(tmp_path, LEARNER)).found() == NO_OTHER
    section = kept(tmp_path, 1, configuration=configured(seed=4))
    assert starts(section).found() == NO_OTHER
    assert "interactions-3 can't begin with another partition's state" in caplog.text
    assert "seed = 4, which is 0 now" in caplog.text
    learned_names = replace(C, features=replace(C.features, context=()))
    assert starts(section, learned_names).found() == NO_NAMES


def test_a_folder_that_takes_nothing_is_refused(tmp_path: Path) -> None:
    """Nothing is named that is not kept."""

    class Full(LocalDisk):
        def create(self, path: Path) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with pytest.raises(Refusal, match="No space left on device"):
        starts(kept(tmp_path, 0), disk=Full()).found()


def test_a_log_that_begins_with_a_state_is_replayed_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file below `starts` is given beside the lessons; without it one line says so."""
    monkeypatch.chdir(tmp_path)
    found = starts(kept(tmp_path, 0)).found()
    assert isinstance(found, Start)
    checkpoint, lessons = learned(0, 220)
    Path("lessons").write_bytes(lessons)
    events = [record.value or b"" for record in generated(2_000)[1_000:1_070]]
    first = encode_event(Merge("a", found.upto, start=found.origin))
    second = encode_event(Merge("b", {0: int(checkpoint.arrays["lessons.made"][0])}))
    log = [first, *events[:40], second, *events[40:]]
    Path("log.jsonl").write_bytes(b"\n".join(log) + b"\n")
    [state] = (tmp_path / "starts").rglob("*.checkpoint")
    book = taught_in(["lessons", str(state)])
    live = Partition(C, topic=TOPIC, partition=LEARNER, lessons=book)
    made = live.process([LogRecord(offset, value) for offset, value in enumerate(log)])
    options = ["log.jsonl", "--partition", str(LEARNER), "--out", "s.jsonl", "--lessons", "lessons", *SETTINGS]
    run = CliRunner().invoke(replay_command, [*options, "--lessons", str(state)])
    assert run.exit_code == 0, run.stderr
    assert Path("s.jsonl").read_bytes() == b"".join((output.value or b"") + b"\n" for output in made.scores)
    assert live.state.lessons.learned[0] > found.upto[0]
    refused = CliRunner().invoke(replay_command, options)
    assert refused.exit_code == 1
    assert f"there is no state at {found.origin}" in refused.stderr
    state.write_bytes(state.read_bytes()[:-1])
    assert "damaged" in CliRunner().invoke(replay_command, [*options, "--lessons", str(state)]).stderr
