"""`thalweg replay`: what it writes, tells and leaves behind, and what it says to logs that are not right."""

import base64
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import log_loss, roc_auc_score
from thalweg.operators.fold.fates import FATES
from thalweg.schemas.events import Erase, Event, Feedback, Impression, Request, encode_event
from thalweg.streams.commands import main
from thalweg.streams.commands.replay_command import command
from thalweg.streams.driver import START_MS
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.replay.summary import Summary

from tests.streams.logs_for_tests import ROOT, sample

pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")

SMALL = [
    *("--set", "table.rows_limit=2048", "--set", "behaviors.users_limit=1024", "--set", "joiner.waiting_limit=512"),
    *("--set", "sdim.histories_limit=64", "--set", "joiner.text_bytes=1048576"),
]
YEAR_MS = 365 * 86_400_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(events: list[Event | bytes], path: str = "log.jsonl") -> str:
    lines = [event if isinstance(event, bytes) else encode_event(event) for event in events]
    Path(path).write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def write_sample(first: int, last: int, path: str = "log.jsonl") -> str:
    return write([record.value or b"" for record in sample(last)[first:]], path)


def replay(*arguments: str, status: int = 0, input: bytes | None = None) -> Result:  # noqa: A002
    """Run the command; its status must be as expected, without a traceback, and a refusal one line."""
    result = CliRunner().invoke(main, ["replay", *arguments, *SMALL], input=input)
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    if status == 1:
        assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    return result


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def summary_of(path: str = "summary.json") -> dict[str, Any]:
    """Return a summary; its fates must sum to its events."""
    summary: dict[str, Any] = json.loads(Path(path).read_bytes())
    assert sum(summary[fate] for fate in FATES) == summary["events"]
    return summary


def impression(number: int, ts: int, user: str = "ann") -> Impression:
    return Impression(str(number), user, f"item-{number % 5}", ts, {})


def test_everything_is_written(folder: Path) -> None:
    """Scores, examples, dead letters, summary and table must all be there and agree with each other."""
    log = write([*(record.value or b"" for record in sample(4_000)), b"junk\xff", b"", b"{}"])
    told = replay(log, "--examples", "e.jsonl", "--dead-letters", "d.jsonl", "--summary", "summary.json")
    summary = summary_of()
    scores, examples, letters = lines("log.jsonl.scores.jsonl"), lines("e.jsonl"), lines("d.jsonl")
    assert list(summary) == list(Summary.__struct_fields__)
    assert summary["events"] == 4_003
    assert summary["scored"] == summary["impressions"] == len(scores)
    assert summary["labelled"] == len(examples)
    assert summary["positives"] == sum(example["label"] for example in examples)
    assert summary["waiting"] == len(scores) - len(examples)
    assert [score["origin"] for score in scores[:1]] == ["interactions-0-0"]
    assert [(letter["origin"], letter["reason"]) for letter in letters] == [
        ("interactions-0-4000", "not_utf8"),
        ("interactions-0-4001", "empty"),
        ("interactions-0-4002", "missing_field"),
    ]
    assert base64.b64decode(letters[0]["raw"]) == b"junk\xff"
    for word in (*FATES, "waiting", "labelled", "positives", "AUC", "log loss", "calibration", "events/s", "digest"):
        assert word in told.stderr
    assert not told.stdout


def test_figures_are_those_of_the_scores_as_written(folder: Path) -> None:
    """AUC, log loss and calibration must be scikit-learn's on the scores and examples in the files."""
    log = write_sample(0, 6_000)
    replay(log, "--examples", "e.jsonl", "--summary", "summary.json", "--until-end-of-windows")
    summary, examples = summary_of(), lines("e.jsonl")
    scores = {score["id"]: score for score in lines("log.jsonl.scores.jsonl")}
    assert summary["waiting"] == 0
    assert summary["labelled"] == len(examples) == len(scores)
    labels = [example["label"] for example in examples]
    final = [scores[example["id"]]["score"] for example in examples]
    model = [scores[example["id"]]["model_score"] for example in examples]
    assert summary["auc"] == pytest.approx(roc_auc_score(labels, final), abs=1e-12)
    assert summary["log_loss"] == pytest.approx(log_loss(labels, final), rel=1e-12)
    assert summary["model_auc"] == pytest.approx(roc_auc_score(labels, model), abs=1e-12)
    assert summary["model_log_loss"] == pytest.approx(log_loss(labels, model), rel=1e-12)
    assert summary["calibration"] == pytest.approx(sum(final) / sum(labels), rel=1e-12)
    assert summary["base_auc"] is None
    assert summary["base_log_loss"] is None


def test_base_scores_have_their_own_figures(folder: Path) -> None:
    """Where events carry a base score, its AUC and log loss must be there, over the events that do."""
    events: list[Event | bytes] = []
    for number in range(40):
        base = None if number % 4 == 0 else (0.9 if number % 2 else 0.2)
        events.append(Impression(str(number), "ann", "film", START_MS + number, {}, base))
        if number % 2:
            events.append(Feedback.of(f"{number}:click", str(number), "ann", "film", START_MS + number, "click"))
    replay(write(events), "--summary", "summary.json", "--until-end-of-windows")
    summary = summary_of()
    assert summary["base_auc"] == 1.0
    assert summary["base_log_loss"] == pytest.approx(log_loss([1, 0, 1], [0.9, 0.2, 0.9]), rel=1e-9)


def test_batch_sizes_change_no_byte(folder: Path) -> None:
    """Any --batch-size must give the same bytes and the same summary but for its seconds."""
    log = write_sample(0, 3_000)
    outcomes = []
    for size in ("1", "7", "1000", "100000"):
        paths = [f"{kind}-{size}" for kind in ("s", "e", "d")]
        options = ["--out", paths[0], "--examples", paths[1], "--dead-letters", paths[2], "--summary", "summary.json"]
        replay(log, *options, "--batch-size", size)
        timed = {"seconds", "events_per_second"}
        summary = {name: value for name, value in summary_of().items() if name not in timed}
        outcomes.append((summary, [Path(path).read_bytes() for path in paths]))
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_standard_streams(folder: Path) -> None:
    """With `-` the log must come from stdin and the scores go to stdout, compressed input included."""
    log = write_sample(0, 500)
    replay(log)
    scores = Path("log.jsonl.scores.jsonl").read_bytes()
    assert replay("-", input=Path(log).read_bytes()).stdout_bytes == scores
    assert replay("-", input=gzip.compress(Path(log).read_bytes())).stdout_bytes == scores
    assert replay(log, "--out", "-").stdout_bytes == scores
    replay("-", "--out", "other.jsonl.gz", input=Path(log).read_bytes())
    assert gzip.decompress(Path("other.jsonl.gz").read_bytes()) == scores
    replay(log, "--out", "-", "--examples", "-", status=2)
    replay(log, "--out", "x.jsonl", "--examples", "./x.jsonl", status=2)


def test_topic_partition_and_offset_are_in_every_origin(folder: Path) -> None:
    """Origins must be called after --topic, --partition and --first-offset."""
    log = write([impression(1, START_MS), b"junk"])
    options = ["--topic", "views", "--partition", "3", "--first-offset", "70", "--dead-letters", "d.jsonl"]
    replay(log, *options)
    assert lines("log.jsonl.scores.jsonl")[0]["cause"] == "views-3-70:0"
    assert lines("d.jsonl")[0]["origin"] == "views-3-71"


# Checkpoints


def outcome(*paths: str) -> tuple[dict[str, Any], list[bytes]]:
    timed = ("seconds", "events_per_second")
    return {name: value for name, value in summary_of().items() if name not in timed}, [
        Path(path).read_bytes() for path in paths
    ]


@pytest.fixture
def uninterrupted(folder: Path) -> tuple[dict[str, Any], list[bytes]]:
    write_sample(0, 3_000, "whole.jsonl")
    write_sample(0, 1_100, "begun.jsonl")
    replay("whole.jsonl", "--out", "S", "--examples", "E", "--summary", "summary.json")
    return outcome("S", "E")


OPTIONS = ["--out", "s", "--examples", "e", "--summary", "summary.json", "--checkpoint", "state"]


def test_a_replay_goes_on_from_its_checkpoint(uninterrupted: tuple[dict[str, Any], list[bytes]]) -> None:
    """Half a log, then all of it with the same checkpoints, must give the files and the summary of one run."""
    replay("begun.jsonl", *OPTIONS)
    assert summary_of()["events"] == 1_100
    replay("whole.jsonl", *OPTIONS)
    assert outcome("s", "e") == uninterrupted
    replay("whole.jsonl", *OPTIONS)
    assert outcome("s", "e") == uninterrupted
    assert summary_of()["events_per_second"] is None


def test_a_replay_goes_on_from_a_url(uninterrupted: tuple[dict[str, Any], list[bytes]], tmp_path: Path) -> None:
    """Checkpoints under a URL must give the same as those in a folder."""
    options = [*OPTIONS[:-1], f"memory://{tmp_path.name}/state"]
    replay("begun.jsonl", *options)
    replay("whole.jsonl", *options)
    assert outcome("s", "e") == uninterrupted
    assert not Path("state").exists()
    refused = replay("whole.jsonl", *OPTIONS[:-1], "nosuch://key:s3cr3t@host/x", status=1)
    assert "nosuch://***@host/x" in refused.stderr
    assert "s3cr3t" not in refused.output


def test_a_following_log_goes_on_with_first_offset(uninterrupted: tuple[dict[str, Any], list[bytes]]) -> None:
    """The rest of a log as a file of its own must be gone on with at its offset."""
    write_sample(1_100, 3_000, "rest.jsonl")
    replay("begun.jsonl", *OPTIONS)
    replay("rest.jsonl", *OPTIONS, "--first-offset", "1100")
    assert outcome("s", "e") == uninterrupted


def test_what_a_crash_left_in_the_files_is_not_written_twice(
    uninterrupted: tuple[dict[str, Any], list[bytes]],
) -> None:
    """Outputs behind the checkpoint, the last one cut, must be there once when the replay has gone on."""
    replay("begun.jsonl", *OPTIONS)
    for path, whole in zip(("s", "e"), uninterrupted[1], strict=True):
        done = Path(path).stat().st_size
        assert whole[:done] == Path(path).read_bytes()
        Path(path).write_bytes(whole[: done + 5_003])
    replay("whole.jsonl", *OPTIONS)
    assert outcome("s", "e") == uninterrupted


def test_a_killed_replay_goes_on(uninterrupted: tuple[dict[str, Any], list[bytes]]) -> None:
    """After kill -9 between two checkpoints the same command must bring the files of one run."""
    code = "import thalweg.streams.replay.replay as r; r.CHECKPOINT_EVENTS = 500"
    code += "; from thalweg.streams.commands import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "replay", "-", *OPTIONS, "--batch-size", "50", *SMALL],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(b"".join((record.value or b"") + b"\n" for record in sample(1_750)))
    process.stdin.flush()
    deadline = time.monotonic() + 120
    while not Path("s").exists() or Path("s").stat().st_size < 150_000:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    process.stdin.close()
    assert list(Path("state").rglob("*.checkpoint"))
    replay("whole.jsonl", *OPTIONS)
    assert outcome("s", "e") == uninterrupted


@pytest.mark.parametrize("option", ["--summary", "--report", "--out"])
def test_no_output_overwrites_what_is_read(folder: Path, option: str) -> None:
    """An output that is the log, or the truth, must be refused before the run, and the file be as it was."""
    write_sample(0, 50)
    Path("truth.jsonl").write_text("{}\n")
    for path in ("log.jsonl", "truth.jsonl"):
        before = Path(path).read_bytes()
        told = replay("log.jsonl", "--truth", "truth.jsonl", option, path, status=1).stderr
        assert f"{path} is the file being read" in told
        assert Path(path).read_bytes() == before


@pytest.mark.parametrize("option", ["--summary", "--report"])
def test_what_is_written_last_is_refused_first(folder: Path, option: str) -> None:
    """A summary or page that can't be written must not cost a whole run, nor be left behind empty by one that fails."""
    write_sample(0, 50)
    assert "there is no folder" in replay("log.jsonl", option, "absent/x", status=1).stderr
    assert "is a folder" in replay("log.jsonl", option, str(folder), status=1).stderr
    assert not Path("log.jsonl.scores.jsonl").exists()
    Path("empty.jsonl").touch()
    replay("empty.jsonl", option, "x", status=1)
    assert not Path("x").exists()
    told = replay("log.jsonl", option, "/dev/full", status=1).stderr
    assert "events/s" in told  # the table is printed all the same


def test_an_empty_name_of_a_folder_is_refused(folder: Path) -> None:
    """`--checkpoint "$UNSET"` must not run without a checkpoint in silence."""
    write_sample(0, 50)
    assert "--checkpoint is empty" in replay("log.jsonl", "--checkpoint", "", status=2).stderr


def test_a_partitions_own_folder_is_refused(folder: Path) -> None:
    """Naming the folder below the one that was named before must be told, not start from nothing."""
    log = write_sample(0, 100)
    replay(log, "--checkpoint", "state")
    refused = replay(log, "--checkpoint", "state/interactions-0", status=1)
    assert "is the folder of one partition: name the one above it" in " ".join(refused.stderr.split())


def test_checkpoints_are_taken_on_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint must be left every so many events, after a whole read, the last three kept, each partition apart."""
    monkeypatch.setattr("thalweg.streams.replay.replay.CHECKPOINT_EVENTS", 300)
    write_sample(0, 2_000)
    options = ["--checkpoint", "state", "--topic", "t", "--partition", "2"]
    replay("log.jsonl", *options, "--batch-size", "10")
    assert [path.name for path in Path("state").iterdir()] == ["t-2"]
    taken = sorted(int(path.stem) for path in Path("state").rglob("*.checkpoint"))
    assert taken == [1_600, 1_920, 2_000]  # eight batches are read at a time


def test_windows_close_behind_the_checkpoint(uninterrupted: tuple[dict[str, Any], list[bytes]]) -> None:
    """--until-end-of-windows must not be seen in the checkpoint: what follows may still bring outcomes."""
    replay("begun.jsonl", *OPTIONS[:2], *OPTIONS[4:], "--until-end-of-windows")
    assert summary_of()["waiting"] == 0
    replay("whole.jsonl", *OPTIONS[:2], *OPTIONS[4:])
    assert outcome("s")[1] == uninterrupted[1][:1]
    assert summary_of()["digest"] == uninterrupted[0]["digest"]


@pytest.mark.parametrize(
    ("log", "options", "message"),
    [
        ("rest.jsonl", ["--first-offset", "1200"], "resumes at offset 1100, the log starts at 1200"),
        ("rest.jsonl", [], "is of another log: the record at offset 1099 differs"),
        ("short.jsonl", [], "resumes at offset 1100, ahead of the log, which ends at 100"),
        ("whole.jsonl", ["--set", "learner.latent_size=4"], "learner.latent_size = 8, which is 4 now"),
    ],
)
def test_what_does_not_follow_is_refused(folder: Path, log: str, options: list[str], message: str) -> None:
    """A gap, another log, a shorter one and another configuration must be refused, and no output touched."""
    write_sample(0, 1_100, "begun.jsonl")
    write_sample(0, 100, "short.jsonl")
    write_sample(1_100, 3_000, "rest.jsonl")
    write_sample(0, 3_000, "whole.jsonl")
    replay("begun.jsonl", *OPTIONS)
    before = [Path(path).read_bytes() for path in ("s", "e")]
    refused = replay(log, *OPTIONS, *options, status=1)
    assert message in " ".join(refused.stderr.split())
    assert [Path(path).read_bytes() for path in ("s", "e")] == before


def test_a_damaged_checkpoint_is_told_and_passed_over(uninterrupted: tuple[dict[str, Any], list[bytes]]) -> None:
    """Where the newest checkpoint is damaged the one before must be gone on from, with a line that says so."""
    replay("begun.jsonl", *OPTIONS)
    replay("whole.jsonl", *OPTIONS)
    newest = max(Path("state").rglob("*.checkpoint"))
    newest.write_bytes(newest.read_bytes()[:-1])
    told = replay("whole.jsonl", *OPTIONS)
    assert "passed over" in told.stderr
    assert outcome("s", "e") == uninterrupted


def test_outputs_that_cannot_be_gone_on_with_are_refused(folder: Path) -> None:
    """A compressed file and one that holds something else must be refused where a replay goes on."""
    log = write_sample(0, 100)
    replay(log, "--out", "s.jsonl.gz", "--checkpoint", "state")
    assert "compressed" in replay(log, "--out", "s.jsonl.gz", "--checkpoint", "state", status=1).stderr
    Path("notes.txt").write_text("mine\n")
    assert "no outputs" in replay(log, "--out", "notes.txt", "--checkpoint", "state", status=1).stderr
    assert Path("notes.txt").read_text() == "mine\n"


# Logs that are not right


def refusal(*arguments: str) -> str:
    return replay(*arguments, status=1).stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.jsonl", None, "no such file"),
        ("empty.jsonl", b"", "is empty"),
        ("empty.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("plain.jsonl.gz", b'{"a":1}\n', "is not gzip data"),
        ("table.parquet", b"PAR1xxxx", "thalweg import"),
    ],
)
def test_what_is_no_log_is_refused(folder: Path, name: str, content: bytes | None, message: str) -> None:
    """What can't be read at all must be refused in one line, and no output be made of it."""
    if content is not None:
        Path(name).write_bytes(content)
    assert message in " ".join(refusal(name, "--out", "s.jsonl").split())
    assert not Path("s.jsonl").exists() or not Path("s.jsonl").stat().st_size


def test_a_folder_and_a_missing_configuration_are_refused(folder: Path) -> None:
    """A folder as a log, an output in no folder, and a configuration that is not there must be refused in one line."""
    log = write([impression(1, START_MS)])
    assert "is a folder" in refusal(".")
    assert "there is no folder" in refusal(log, "--out", "nowhere/s.jsonl")
    assert "no such file" in refusal(log, "--config", "nowhere.toml")
    assert "is the file being read" in refusal(log, "--out", log)
    assert Path(log).stat().st_size


def test_a_truncated_log_is_read_to_its_last_whole_line(folder: Path) -> None:
    """Of gzip data that ends early all whole lines must be scored, told, and in the checkpoint; status 1."""
    whole = gzip.compress(Path(write_sample(0, 3_000)).read_bytes())
    Path("cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    told = refusal("cut.jsonl.gz", *OPTIONS[:2], *OPTIONS[4:])
    assert "ends in the middle of its gzip data" in " ".join(told.split())
    assert "scored" in told
    events = summary_of()["events"]
    assert 0 < events < 3_000
    assert len(lines("s")) == summary_of()["scored"]
    Path("cut.jsonl.gz").write_bytes(whole)
    replay("cut.jsonl.gz", *OPTIONS[:2], *OPTIONS[4:])
    assert summary_of()["events"] == 3_000
    scores = Path("s").read_bytes()
    replay("log.jsonl", "--out", "once")
    assert scores == Path("once").read_bytes()


def test_an_unsorted_log_is_scored_whole(folder: Path) -> None:
    """Events whose time goes back, by a second or by a year, must all be scored; stream time stays."""
    times = [START_MS, START_MS - 1_000, START_MS - YEAR_MS, START_MS + 1, START_MS - YEAR_MS, START_MS + 2]
    replay(write([impression(number, ts) for number, ts in enumerate(times)]), "--summary", "summary.json")
    assert summary_of()["scored"] == len(times)
    assert len(lines("log.jsonl.scores.jsonl")) == len(times)


def test_one_clock_that_is_ahead_moves_nothing(folder: Path) -> None:
    """One user's clock that is a year ahead must be scored however often, and close nobody's window."""
    ahead = [impression(number, START_MS + YEAR_MS, "ahead") for number in range(1, 6)]
    replay(write([impression(0, START_MS), *ahead, impression(6, START_MS + 1, "ann")]), "--summary", "summary.json")
    assert summary_of()["scored"] == 7
    assert summary_of()["labelled"] == 0


def test_users_who_agree_on_a_jump_are_believed(folder: Path) -> None:
    """After a gap of a year each record must be scored, and the window before it close within a handful of users."""
    ahead = [impression(number, START_MS + YEAR_MS + number, f"user-{number}") for number in range(1, 4)]
    replay(write([impression(0, START_MS), *ahead]), "--summary", "summary.json")
    assert summary_of()["scored"] == 4
    assert summary_of()["labelled"] == 1


def test_a_first_event_out_of_all_time_is_refused(folder: Path) -> None:
    """A first event before 1980 or after 2100 must be dead-lettered, and the next one start the clock."""
    lines_of = [
        encode_event(impression(n, START_MS)).replace(str(START_MS).encode(), ts)
        for n, ts in enumerate((b"1", b"99999999999999", str(START_MS).encode()))
    ]
    replay(write(list(lines_of)), "--summary", "summary.json", "--dead-letters", "d.jsonl")
    assert {letter["reason"] for letter in lines("d.jsonl")} == {"time_out_of_range"}
    assert summary_of()["scored"] == 1


def test_duplicate_ids_are_counted(folder: Path) -> None:
    """Lines that occur twice must be scored once."""
    events = [impression(number, START_MS) for number in range(5)]
    replay(write([*events, *events]), "--summary", "summary.json")
    assert (summary_of()["scored"], summary_of()["duplicate"]) == (5, 5)


def test_mixed_types_are_all_accounted_for(folder: Path) -> None:
    """Every type of event, and what is none, must have its fate, and status 0."""
    events: list[Event | bytes] = [
        Erase("e", "ann", START_MS),
        Request("r", "ann", ["film"], START_MS, {}),
        impression(1, START_MS),
        Feedback.of("f", "1", "ann", "film", START_MS, "like"),
        b'{"type":"view","id":"1"}',
        b"[1,2]",
        b"\xef\xbb\xbf{}",
        b"",
    ]
    replay(write(events), "--summary", "summary.json", "--dead-letters", "d.jsonl")
    summary = summary_of()
    assert summary["events"] == len(events)
    assert {fate: summary[fate] for fate in FATES if summary[fate]} == {
        "scored": 1,
        "joined": 1,
        "erased": 1,
        "ranked": 1,
        "dead_lettered": 4,
    }
    raw = [base64.b64decode(letter["raw"]) for letter in lines("d.jsonl")]
    assert raw == events[4:]


BY_GROUP = ("auc_by_user", "auc_by_page", "calibration_error")


def test_nothing_usable_is_still_a_summary(folder: Path) -> None:
    """A log of junk alone must give status 0, a summary of nulls, and every line as a dead letter."""
    replay(write([b"junk"] * 3), "--summary", "summary.json", "--dead-letters", "d.jsonl", "--until-end-of-windows")
    summary = summary_of()
    assert summary["dead_lettered"] == 3
    assert [name for name, value in summary.items() if value is None] == [
        "auc",
        "log_loss",
        "model_auc",
        "model_log_loss",
        "base_auc",
        "base_log_loss",
        "calibration",
        *(f"{score}{name}" for score in ("", "model_", "base_") for name in BY_GROUP),
        "objectives",
        "rankings",
    ]


def test_a_process_of_its_own_tells_no_traceback(folder: Path) -> None:
    """As a process, with warnings as errors, a truncated log must end with status 1 and a line on stderr."""
    whole = gzip.compress(Path(write_sample(0, 500)).read_bytes())
    Path("cut.jsonl.gz").write_bytes(whole[:-200])
    code = "from thalweg.streams.commands import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "replay", "cut.jsonl.gz", "--out", "-", *SMALL],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        check=False,
    )
    assert run.returncode == 1
    assert b"Traceback" not in run.stderr
    assert b"Error: cut.jsonl.gz ends in the middle" in run.stderr
    assert run.stdout.count(b"\n") > 100


def test_the_reader_is_asked_for_what_the_fold_takes(folder: Path) -> None:
    """The command's help must name every option of the issue."""
    help_text = CliRunner().invoke(command, ["--help"]).stdout
    for option in ("--config", "--out", "--examples", "--dead-letters", "--summary", "--checkpoint", "--batch-size"):
        assert option in help_text
    for option in ("--until-end-of-windows", "--topic", "--partition", "--first-offset", "--set"):
        assert option in help_text
    assert LogReader.__doc__
