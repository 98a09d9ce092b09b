"""Several logs as partitions of one model, and one log whose merges name the lessons of a file."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from thalweg.operators.machine.hashing import partitions_of
from thalweg.schemas.events import Merge, encode_event
from thalweg.schemas.lessons import read_batches
from thalweg.schemas.records import LogRecord
from thalweg.streams.commands.replay_command import command
from thalweg.streams.partition.lessons import LessonBook, lessons_in
from thalweg.streams.partition.partition import Partition
from thalweg.streams.refusal import Refusal
from thalweg.streams.replay.partitions import PartitionsReplay, interleaved
from thalweg.streams.replay.replay import Sinks

from tests.fold.logs import generated
from tests.streams.logs_for_tests import SAMPLE_CONFIGURATION, sample, small

EVENTS = 600
SETTINGS = ["table.rows_limit=4096", "behaviors.users_limit=2048", "joiner.waiting_limit=1024"]
SMALL = [word for setting in SETTINGS for word in ("--set", setting)]
C = small(rows=4_096, users=2_048, waiting=1_024)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two logs of a stream whose users are split over them, in the working folder."""
    monkeypatch.chdir(tmp_path)
    lines: list[list[bytes]] = [[], []]
    for record in generated(EVENTS):
        value = record.value or b""
        lines[hash_of(json.loads(value).get("user", ""))].append(value)
    for name, each in zip("ab", lines, strict=True):
        Path(f"{name}.jsonl").write_bytes(b"\n".join(each) + b"\n")
    return ["a.jsonl", "b.jsonl"]


def hash_of(user: str) -> int:
    return random.Random(user).randrange(2)


def run(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(command, [*arguments, *SMALL], catch_exceptions=False, standalone_mode=True)
    assert result.exit_code == status, result.stderr
    return result


def records_in(path: str) -> list[LogRecord]:
    return [LogRecord(n, line) for n, line in enumerate(Path(path).read_bytes().splitlines())]


def test_logs_are_partitions_that_teach_each_other(logs: list[str]) -> None:
    """Each log has its files and its table; outputs do not depend on the size of blocks, but on who teaches."""
    out = ["--out", "s{partition}.jsonl", "--lessons-out", "l{partition}", "--summary", "t{partition}.json"]
    told = run(*logs, "--merge-every", "50", *out).stderr
    assert "partition 0: a.jsonl" in told
    assert "all 2 partitions, merged every 50 events: AUC" in told
    files = [Path(name).read_bytes() for name in ("s0.jsonl", "s1.jsonl", "l0", "l1")]
    digests = [json.loads(Path(f"t{n}.json").read_bytes())["digest"] for n in range(2)]
    assert all(files)
    run(*logs, "--merge-every", "50", "--batch-size", "7", *out)
    assert files == [Path(name).read_bytes() for name in ("s0.jsonl", "s1.jsonl", "l0", "l1")]
    assert digests == [json.loads(Path(f"t{n}.json").read_bytes())["digest"] for n in range(2)]
    run(*logs, "--merge-every", "100000", *out)
    assert files[0] != Path("s0.jsonl").read_bytes()
    run(logs[0], "--out", "alone.jsonl")
    assert Path("alone.jsonl").read_bytes() == Path("s0.jsonl").read_bytes()


def test_a_log_with_merges_and_a_file_of_lessons_repeat_a_partition(logs: list[str]) -> None:
    """A partition whose log has merges gives the same bytes from the log and the others' lessons alone."""
    run(*logs, "--merge-every", "50", "--lessons-out", "l{partition}")
    last = list(read_batches(Path("l1").read_bytes()))[-1][1].last
    records = [record.value or b"" for record in records_in(logs[0])]
    records.insert(100, encode_event(Merge("m1", {1: last // 2})))
    records.insert(250, encode_event(Merge("m2", {0: 7, 1: last})))
    Path("merged.jsonl").write_bytes(b"\n".join(records) + b"\n")
    live = Partition(C, lessons=lessons_in(["l1"]))
    made = [live.process([record]) for record in records_in("merged.jsonl")]
    files = ["--out", "s.jsonl", "--examples", "e.jsonl", "--lessons-out", "l", "--summary", "t.json"]
    run("merged.jsonl", "--lessons", "l1", *files)
    for name, kind, end in (("s.jsonl", 0, b"\n"), ("e.jsonl", 1, b"\n"), ("l", 4, b"")):
        found = b"".join((output.value or b"") + end for outputs in made for output in outputs[kind])
        assert Path(name).read_bytes() == found
    summary = json.loads(Path("t.json").read_bytes())
    assert summary["merged"] == 2
    assert summary["digest"] == live.digest()
    told = run("merged.jsonl", "--out", "again.jsonl", status=1).stderr
    assert "the record at offset 100 merges lessons of partition 1" in told


def test_a_replay_resumes_its_file_of_lessons(logs: list[str]) -> None:
    """From a checkpoint on, lessons that are in their file already are not written again, a torn one is cut off."""
    whole = ["--lessons-out", "whole", "--out", "w.jsonl"]
    run(logs[0], *whole)
    lines = Path(logs[0]).read_bytes().splitlines(keepends=True)
    Path("part.jsonl").write_bytes(b"".join(lines[:150]))
    files = ["--lessons-out", "l", "--out", "s.jsonl", "--checkpoint", "kept"]
    run("part.jsonl", *files)
    before = Path("l").read_bytes()
    assert 0 < len(before) < len(Path("whole").read_bytes())
    Path("l").write_bytes(before + Path("whole").read_bytes()[len(before) :][:40])
    run(logs[0], *files)
    assert Path("l").read_bytes() == Path("whole").read_bytes()
    Path("l").write_bytes(b"no lessons")
    Path("part.jsonl").write_bytes(b"".join([*lines, lines[-1]]))
    assert "holds no lessons" in run("part.jsonl", *files, status=1).stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give --merge-every N"),
        (["--merge-every", "9", "--out", "s.jsonl"], "put {partition} into its name"),
        (["--merge-every", "9", "--checkpoint", "kept"], "--checkpoint needs one log"),
        (["--merge-every", "9", "--lessons", "l"], "--lessons needs one log"),
    ],
)
def test_options_that_do_not_go_together_are_refused(logs: list[str], arguments: Sequence[str], told: str) -> None:
    """Several logs need to be told how often they merge, and what is of one log is refused."""
    assert told in run(*logs, *arguments, status=2).stderr


def test_files_that_are_no_lessons_are_refused(logs: list[str]) -> None:
    """A file of lessons that is absent or damaged is named."""
    with pytest.raises(Refusal, match=r"l can't be read: No such file"):
        lessons_in(["l"])
    Path("l").write_bytes(b"{}\n")
    with pytest.raises(Refusal, match="l is no file of lessons"):
        lessons_in(["l"])
    assert "no file of lessons" in run(logs[0], "--lessons", "l", status=1).stderr


def test_logs_are_interleaved_by_time() -> None:
    """Records come in the order of the latest time of their log so far, so many at a time, the first log's first."""
    times = [[5, 3, 9], [4, 5, 20], []]
    logs = [
        [[LogRecord(n, b'{"ts":%d}' % ts) for n, ts in enumerate(each)], [LogRecord(9, b"no json")]] for each in times
    ]
    found = [[[record.offset for record in each] for each in taken] for taken in interleaved(logs, 4)]
    assert found == [[[0, 1], [0], [9]], [[2, 9], [1, 2], []], [[], [9], []]]


def test_merging_brings_back_what_splitting_costs() -> None:
    """Partitions that merge are nearer to one partition's scores than those that never do."""
    lines: list[list[LogRecord]] = [[], []]
    for record in sample(6_000):
        to = lines[hash_of(json.loads(record.value or b"").get("user", ""))]
        to.append(LogRecord(len(to), record.value))
    c = replace(C, lessons=replace(C.lessons, enabled=True))
    found = []
    for every in (200, 100_000):
        replay = PartitionsReplay(c, 2, every)
        sinks = [Sinks(), Sinks()]
        replay.run([[each] for each in lines], sinks)
        replay.close_windows(sinks)
        found.append(replay.quality().auc or 0.0)
    assert found[0] > found[1] + 0.005


def test_sampled_negatives_keep_scores_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """True impressions over 4 partitions that teach a fifth of their negatives: scores are as high as labels by 2%."""
    monkeypatch.chdir(tmp_path)
    values = [record.value or b"" for record in sample(43_367)]
    numbers = partitions_of([json.loads(value)["user"].encode() for value in values], 4).tolist()
    logs = [f"{number}.jsonl" for number in range(4)]
    for number, log in enumerate(logs):
        own = [value for value, each in zip(values, numbers, strict=True) if each == number]
        Path(log).write_bytes(b"\n".join(own) + b"\n")
    files = ["--out", "s{partition}", "--lessons-out", "l{partition}", "--summary", "t{partition}.json"]
    how = ["--config", str(SAMPLE_CONFIGURATION), "--until-end-of-windows", "--set", "lessons.negative_rate=0.2"]
    result = CliRunner().invoke(command, [*logs, "--merge-every", "1000", *files, *how], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    found = [json.loads(Path(f"t{number}.json").read_bytes()) for number in range(4)]
    positives = sum(each["positives"] for each in found)
    assert sum(each["positives"] * each["calibration"] for each in found) / positives == pytest.approx(1.0, abs=0.02)
    assert sum(each["labelled"] for each in found) == 30_000
    lessons = sum(list(read_batches(Path(f"l{number}").read_bytes()))[-1][1].last for number in range(4))
    assert lessons < 2 * positives + 0.25 * 30_000  # of a positive its delay and its label


def test_a_book_takes_batches_in_their_order() -> None:
    """A book leaves out what it has, and refuses a gap."""
    partition = Partition(C, lessons=LessonBook())
    made = [output.value or b"" for output in partition.process(generated(EVENTS)).lessons]
    book = LessonBook(made[:2])
    book.add(made[1:3])
    assert book.read(0, 1, book.last(0)) == b"".join(made[:3])
    with pytest.raises(ValueError, match="are missing"):
        book.add(made[4:5])
