"""`thalweg rank` from a checkpoint: the ranking that a replay of the log gives there."""

import json
from functools import cache
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from thalweg.operators.machine.hashing import partitions_of
from thalweg.schemas.outputs import decode_answer
from thalweg.schemas.records import LogRecord
from thalweg.streams.checkpoints.folders import store_at
from thalweg.streams.checkpoints.format import Checkpoint, Identity, header_of
from thalweg.streams.commands import main
from thalweg.streams.configuration.loading import CheckpointSection
from thalweg.streams.partition.partition import Partition

from tests.fold.logs import generated
from tests.streams.logs_for_tests import small

PARTITIONS = 3
EVENTS = 400


@cache
def logs() -> dict[int, list[LogRecord]]:
    """Return the log of each partition."""
    found: dict[int, list[LogRecord]] = {number: [] for number in range(PARTITIONS)}
    for record in generated(EVENTS):
        user = json.loads(record.value or b"").get("user", "").encode()
        # facts about items are in every partition
        numbers = [int(partitions_of([user], PARTITIONS)[0])] if user else range(PARTITIONS)
        for number in numbers:
            found[number].append(LogRecord(len(found[number]), record.value, user or None))
    return found


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A folder with a checkpoint of each partition."""
    section = CheckpointSection(directory=str(tmp_path / "checkpoints"))
    for number, log in logs().items():
        partition = Partition(small(), partition=number, partitions=PARTITIONS)
        partition.process(log)
        header = header_of(Identity("interactions", number, small(), PARTITIONS), len(log), partition.digest())
        store_at(section, "interactions", number).save(Checkpoint(header, partition.snapshot()))
    return tmp_path / "checkpoints"


def run(checkpoints: Path, *arguments: str, stdin: str = "i1\ni2\n", columns: int = 120) -> Result:
    c = small()
    flags = {
        "table.rows_limit": c.table.rows_limit,
        "behaviors.users_limit": c.behaviors.users_limit,
        "joiner.waiting_limit": c.joiner.waiting_limit,
        "joiner.feedback_limit": c.joiner.feedback_limit,
        "joiner.user_share": c.joiner.user_share,
        "joiner.text_bytes": c.joiner.text_bytes,
    }
    words = [word for name, value in flags.items() for word in ("--set", f"{name}={value}")]
    own = [] if "--candidates" in arguments else ["--candidates", "-"]
    words += ["--checkpoint", str(checkpoints), *own, *arguments]
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(main, ["rank", *words], input=stdin)


@pytest.mark.parametrize("user", ["u1", "u2", "u7", "nobody"])
def test_a_checkpoint_ranks_as_a_replay_of_its_log(checkpoints: Path, user: str) -> None:
    """The partition that has the user answers, and a request in its log there gets the same items and scores."""
    candidates = ["i1", "i2", {"item": "i3", "context": {"device": "phone"}}, "new", "i9"]
    lines = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in candidates)
    asked = ("--user", user, "--context", '{"device":"tablet"}', "--explain", "--json")
    told = run(checkpoints, *asked, stdin=f"{lines}\n\n")
    assert told.exit_code == 0, told.output
    answer = decode_answer(told.stdout)
    number = int(partitions_of([user.encode()], PARTITIONS)[0])
    log = logs()[number]
    assert answer.offset == len(log)
    assert len(answer.items) == len(candidates)
    replayed = Partition(small())
    replayed.process(log)
    request = {"type": "request", "id": answer.id, "user": user, "candidates": candidates, "ts": answer.ts}
    request |= {"context": {"device": "tablet"}, "explain": True}
    [ranking] = replayed.process([LogRecord(len(log), json.dumps(request).encode())]).rankings
    expected = msgspec.json.decode(ranking.value or b"")
    assert msgspec.to_builtins(answer.items) == expected["items"]


def test_the_table_is_for_people(checkpoints: Path) -> None:
    """Without --json there is a table on stderr, with what was refused, and nothing on stdout."""
    told = run(checkpoints, "--user", "u1", "--top", "2", stdin='i1\ni2\ni3\n{"item":""}\n')
    assert told.exit_code == 0, told.output
    assert told.stdout == ""
    assert "u1 as of offset" in told.stderr
    assert sum(f"i{number}" in told.stderr for number in (1, 2, 3)) == 2
    assert "candidate 3 (id_empty)" in told.stderr
    explained = run(checkpoints, "--user", "u1", "--explain", columns=80)
    assert all(part in explained.stderr for part in ("overall", "machine", "linear", "cross"))
    item = decode_answer(run(checkpoints, "--user", "u1", "--explain", "--json").stdout).items[0]
    assert item.model_score is not None
    assert item.correction is not None
    for number in (f"{item.score:.6f}", f"{item.model_score:.6f}", f"{item.correction:+.6f}"):
        assert number in explained.stderr  # whole, on a terminal of 80 columns
    long = run(checkpoints, "--user", "u1", "--explain", stdin=f"{'x' * 200}\n", columns=80)
    assert "…" not in long.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (("--context", "[]"), "v\n", "--context is not a JSON object"),
        ((), '{"item":', "line 1 of the candidates is not JSON"),
        (("--candidates", "missing.txt"), "", "missing.txt can't be read: No such file or directory"),
        (("--set", "seed=9"), "v\n", "was made with seed = 0, which is 9 now"),
        (("--set", "topics.interactions=other"), "v\n", "there are no checkpoints of other"),
        ((), "v\n" * 1_100, "too_many_candidates"),
        ((), "\n \n", "- has no candidates: write an item a line"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    checkpoints: Path, arguments: tuple[str, ...], stdin: str, message: str
) -> None:
    """Each mistake ends with status 1 and one line that says what to change."""
    told = run(checkpoints, "--user", "u1", *arguments, stdin=stdin)
    assert told.exit_code == 1
    assert told.stderr.startswith("Error: ")
    assert message in " ".join(told.stderr.split())
