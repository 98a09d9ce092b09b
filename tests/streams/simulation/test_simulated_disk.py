"""When two disks of the simulation count as the same, so that one crash is gone on from for both."""

from collections.abc import Callable
from pathlib import Path

import pytest
from thalweg.streams.simulation.disk import SimulatedDisk

WRITING, NAMED = Path("7.aa.writing"), Path("7.checkpoint")


def disk_with(data: bytes, name: Path, then: Callable[[SimulatedDisk], None] = lambda disk: None) -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.create(name).write(memoryview(data))
    then(disk)
    return disk


def lose_the_name(disk: SimulatedDisk) -> None:
    disk.sync_folder(Path())
    disk.unlink(NAMED)


@pytest.mark.parametrize("name", [WRITING, NAMED])
def test_bytes_that_nobody_reads_do_not_count(name: Path) -> None:
    """Half of a file beside is as good as another half; half of a checkpoint is not."""
    keys = {disk_with(data, name).key(".writing") for data in (b"half", b"other")}
    assert len(keys) == (1 if name == WRITING else 2)


@pytest.mark.parametrize(
    ("name", "then"),
    [(WRITING, lambda disk: disk.rename(WRITING, NAMED)), (NAMED, lose_the_name)],
    ids=["renamed", "a name that a loss of power brings back"],
)
def test_bytes_count_that_may_be_read(name: Path, then: Callable[[SimulatedDisk], None]) -> None:
    """A file has the name of a checkpoint now, or may have it again: then its bytes tell disks apart."""
    assert len({disk_with(data, name, then).key(".writing") for data in (b"half", b"other")}) == 2


def test_whether_a_file_beside_is_there_counts() -> None:
    """It stays in the folder, and somebody has to remove it."""
    assert SimulatedDisk().key(".writing") != disk_with(b"", WRITING).key(".writing")
