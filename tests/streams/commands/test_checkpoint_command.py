"""`thalweg checkpoint` on folders and URLs, without a broker: list, show, verify, rollback."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fsspec.implementations.memory import MemoryFileSystem
from thalweg.operators.fold.fates import FATES
from thalweg.streams.checkpoints.folders import store_at
from thalweg.streams.checkpoints.format import Checkpoint, CheckpointError, DamagedError, Identity, header_of
from thalweg.streams.checkpoints.verify import roll_back, verify
from thalweg.streams.commands import main
from thalweg.streams.configuration.loading import CheckpointSection
from thalweg.streams.partition.partition import Partition

from tests.kafka.test_commands import in_process, thalweg
from tests.streams.checkpoints.test_checkpoints import crafted
from tests.streams.logs_for_tests import sample, small

SECRET = "s3cr3t"


@cache
def states() -> dict[int, tuple[str, dict[str, np.ndarray]]]:
    """Return digest and snapshot of a state after 100, 200 and 300 events."""
    partition, found = Partition(small()), {}
    for offset in (100, 200, 300):
        partition.process(sample(300)[offset - 100 : offset])
        found[offset] = partition.digest(), partition.snapshot()
    return found


@pytest.fixture(params=["folder", "memory"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder and a URL with three checkpoints of partition 0, and one of partition 3, in the middle of a log."""
    directory = str(tmp_path / "all") if request.param == "folder" else f"memory://{tmp_path.name}/all"
    for offset, (digest, snapshot) in states().items():
        for number in (0, 3) if offset == 300 else (0,):
            header = header_of(Identity("interactions", number, small()), offset, digest)
            store_at(CheckpointSection(directory=directory), "interactions", number).save(Checkpoint(header, snapshot))
    yield directory
    MemoryFileSystem.store.clear()


def run(directory: str, *arguments: str) -> Result:
    c = small()
    flags = {
        "checkpoint.directory": directory,
        "table.rows_limit": c.table.rows_limit,
        "behaviors.users_limit": c.behaviors.users_limit,
        "joiner.waiting_limit": c.joiner.waiting_limit,
        "joiner.feedback_limit": c.joiner.feedback_limit,
        "joiner.user_share": c.joiner.user_share,
        "joiner.text_bytes": c.joiner.text_bytes,
    }
    words = [word for name, value in flags.items() for word in ("--set", f"{name}={value}")]
    return CliRunner().invoke(main, ["checkpoint", arguments[0], *words, *arguments[1:]])


def offsets(directory: str, partition: int = 0) -> list[int]:
    store = store_at(CheckpointSection(directory=directory), "interactions", partition)
    return [int(path.stem) for path in store.paths()]


def damage(directory: str, offset: int, change: Any) -> None:
    """Change the file of a checkpoint of partition 0."""
    store: Any = store_at(CheckpointSection(directory=directory), "interactions", 0)
    path = next(path for path in store.paths() if int(path.stem) == offset)
    if isinstance(path, Path):
        path.write_bytes(change(path.read_bytes()))
    else:
        file = f"{store._folder}/{store._manifest(path).file}"
        store._files.pipe_file(file, change(store._files.cat_file(file)))


def test_list_says_where_each_goes_on_and_whether_it_is_whole(directory: str) -> None:
    """Every checkpoint of every partition is read; damage and another configuration are said."""
    damage(directory, 200, lambda content: content[:-1])
    told = run(directory, "list", "--json")
    assert told.exit_code == 0, told.output
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(row["partition"], row["next_offset"], row["whole"]) for row in rows] == [
        (0, 300, True),
        (0, 200, False),
        (0, 100, True),
        (3, 300, True),
    ]
    assert all(row["same_configuration"] == row["whole"] for row in rows)
    assert all(row["bytes"] > 1_000 for row in rows)
    assert 0 <= rows[0]["age_s"] < 3_600
    other = run(directory, "list", "--partition", "3", "--set", "seed=9")
    assert other.exit_code == 0
    assert "seed = 0, which is 9 now" in re.sub(r"[│\s]+", " ", other.stderr)
    assert other.stderr.endswith(f"1 checkpoints in {directory}\n")


def test_show_prints_the_header(directory: str) -> None:
    """What a checkpoint says of itself is JSON on stdout: its configuration, digest and arrays."""
    told = run(directory, "show", "--partition", "0", "--offset", "200")
    assert told.exit_code == 0, told.output
    shown = json.loads(told.stdout)
    assert shown["header"]["next_offset"] == 200
    assert len(shown["header"]["digest"]) == 64
    assert shown["header"]["configuration"]["table"]["rows_limit"] == 2_048
    assert shown["arrays"]["fates"] == f"int64 [{len(FATES)}]"
    ambiguous = run(directory, "show")
    assert ambiguous.exit_code == 1
    assert ambiguous.stderr == "Error: there are partitions 0, 3: choose one with --partition\n"
    assert "thalweg checkpoint list" in run(directory, "show", "--partition", "0", "--offset", "7").stderr


def test_verify_compares_the_state_with_its_digest(directory: str) -> None:
    """The state itself is restored and digested; one that is not as its header says ends with status 1."""
    told = run(directory, "verify", "--all", "--set", "seed=7")
    assert told.exit_code == 0, told.output
    assert told.stderr.count("whole: partition") == 4
    store = store_at(CheckpointSection(directory=directory), "interactions", 0)
    found = store.read(store.paths()[0])
    arrays = found.arrays | {"fates": found.arrays["fates"] + np.int64(1)}
    store.save(Checkpoint(found.header, arrays))
    told = run(directory, "verify")
    assert told.exit_code == 1
    assert "says" in told.stderr
    assert told.stderr.splitlines()[-1].startswith("Error: 1 of 2 checkpoints are not whole")


def test_verify_refuses_what_is_no_state(tmp_path: Path) -> None:
    """A crafted configuration or crafted arrays are refused in one line, and take no memory that is not there."""
    store = store_at(CheckpointSection(directory=str(tmp_path)), "interactions", 0)
    partition = Partition(small())
    header = header_of(Identity("interactions", 0, small()), 3, partition.digest())
    path = store.save(Checkpoint(header, partition.snapshot()))
    for section, key, value in (("table", "rows_limit", 1 << 60), ("table", "rows_limit", "many"), ("x", "y", 1)):
        configuration = header.configuration | {section: header.configuration.get(section, {}) | {key: value}}
        path.write_bytes(crafted(configuration=configuration))
        with pytest.raises(DamagedError, match=r"no state of this version|more memory than there is"):
            verify(store, path)


def test_rollback_sets_the_newer_ones_aside(directory: str) -> None:
    """The newest is moved, not deleted, the one before is what a worker goes on from, and what follows is said."""
    told = run(directory, "rollback", "--partition", "0", "--offline")
    assert told.exit_code == 0, told.output
    assert offsets(directory) == [200, 100]
    assert "set aside: " in told.stderr
    assert "/aside/" in told.stderr
    assert "resumes at offset 200." in told.stderr
    assert "what readers got stays as it is" in told.stderr
    told = run(directory, "rollback", "--partition", "0", "--offline")
    assert (told.exit_code, offsets(directory)) == (0, [100])
    told = run(directory, "rollback", "--partition", "0", "--offline")
    assert (told.exit_code, offsets(directory)) == (1, [100])
    assert told.stderr.endswith("has no checkpoint before the newest that is whole; whole ones: 100\n")
    assert offsets(directory, 3) == [300]
    assert (
        run(directory, "rollback", "--offline").stderr
        == "Error: there are partitions 0, 3: choose one with --partition\n"
    )


def test_rollback_passes_over_damage_and_goes_where_it_is_told(directory: str) -> None:
    """Damaged ones are no aim; `--to` names an offset; nothing is moved where the aim holds no state."""
    damage(directory, 200, lambda content: b"")
    assert "whole ones: 300, 100" in run(directory, "rollback", "--partition", "0", "--to", "200", "--offline").stderr
    assert offsets(directory) == [300, 200, 100]
    assert run(directory, "rollback", "--partition", "0", "--offline").exit_code == 0
    assert offsets(directory) == [100]


def test_rollback_asks_the_brokers_first(tmp_path: Path) -> None:
    """Without a broker nobody knows whether a worker runs, so nothing is moved unless --offline says so."""
    store = store_at(CheckpointSection(directory=str(tmp_path)), "interactions", 0)
    for offset in (3, 4):
        fresh = Partition(small())
        header = header_of(Identity("interactions", 0, small()), offset, fresh.digest())
        store.save(Checkpoint(header, fresh.snapshot()))
    flags = ("--set", f"checkpoint.directory={tmp_path}", "--set", "kafka.connect_timeout_ms=300")
    # a process of its own: the client leaves sockets open where it finds nobody
    status, _, told = in_process("checkpoint", "rollback", "--bootstrap-servers", "127.0.0.1:9", *flags)
    assert (status, told.count("\n")) == (1, 1)
    assert told.endswith("if no worker uses the folder, give --offline\n")
    assert offsets(str(tmp_path)) == [4, 3]
    status, _, told = thalweg("checkpoint", "rollback", "--offline", *flags)
    assert status == 0, told
    assert offsets(str(tmp_path)) == [3]


def test_a_rollback_that_dies_half_way_is_gone_on_with(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest goes first, so wherever it stops what is newest is whole, and the same command ends it."""
    store = store_at(CheckpointSection(directory=directory), "interactions", 0)
    aside, count = type(store).set_aside, []

    def failing(self: Any, path: Any) -> Any:
        count.append(path)
        if len(count) == 2:
            raise CheckpointError("the store is away")
        return aside(self, path)

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "set_aside", failing)
        with pytest.raises(CheckpointError, match="away"):
            roll_back(store, 100)
    assert offsets(directory) == [200, 100]
    assert roll_back(store, 100).target.next_offset == 100
    assert offsets(directory) == [100]


@pytest.mark.parametrize("arguments", [("list",), ("show",), ("verify",), ("rollback", "--offline")])
def test_no_command_tells_credentials(arguments: tuple[str, ...]) -> None:
    """A URL with a key in it is shown without, whatever goes wrong."""
    told = run(f"nosuch://key:{SECRET}@host/x", *arguments)
    assert told.exit_code == 1
    assert SECRET not in told.output
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize("flags", [(), ("--json",)])
@pytest.mark.parametrize(
    "url", [f"s3://key:{SECRET}@b/x", f"s3://k:/{SECRET}@b/x", f"s3://b/x?token={SECRET}&{SECRET}=1"]
)
def test_config_show_tells_no_credentials(flags: tuple[str, ...], url: str) -> None:
    """The folder's URL is shown without what opens it, as TOML and as JSON, and where its value is refused."""
    shown = CliRunner().invoke(main, ["config", "show", *flags, "--set", f"checkpoint.directory={url}"])
    assert shown.exit_code == 0
    assert "s3://" in shown.output
    assert SECRET not in shown.output
    refused = CliRunner().invoke(main, ["config", "show", "--set", f"checkpoint.keep={url}"])
    assert refused.exit_code == 1
    assert SECRET not in refused.output


def test_rebuild_wants_another_generation(directory: str) -> None:
    """The generation in use is not rebuilt over itself."""
    told = run(directory, "rebuild")
    assert told.exit_code == 1
    assert "choose another one for the new configuration" in told.stderr
