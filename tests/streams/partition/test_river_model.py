"""A River classifier in the learner's place: the rest is the same fold, and its pickle runs only if it is ours."""

import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from thalweg.operators.configuration import Configuration
from thalweg.schemas.outputs import Example, Score
from thalweg.schemas.records import LogRecord, Outputs
from thalweg.streams.checkpoints.format import Checkpoint, CheckpointStore, Identity, header_of
from thalweg.streams.commands import main
from thalweg.streams.driver import CRASH, SNAPSHOT, START_MS, Driver
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.river_model import ARRAYS, HISTORY, PICKLE, SIGNATURE, VERSION
from thalweg.streams.partition.seal import KEY_VARIABLE, Seal
from thalweg.streams.refusal import Refusal

from tests.streams.logs_for_tests import SAMPLE_CONFIGURATION, Hashed, sample, shipped, small
from tests.streams.partition import river_models
from tests.streams.partition.river_models import Recorder

pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")

KEY = "0123456789abcdef"
REGRESSION = "river:linear_model.LogisticRegression"
OURS = "river:tests.streams.partition.river_models:"
EVENTS = 1_500
WINDOW_MS = 600_000


def with_model(model: str, base: Configuration | None = None, **learner: Any) -> Configuration:
    """Small limits, and a River classifier."""
    c = small(histories=64, base=base or shipped())
    return replace(c, learner=replace(c.learner, model=model, **learner))


def folded(records: Sequence[LogRecord], c: Configuration, batch: int, snapshot_events: int = 0) -> list[str]:
    """Fold in batches, going on from a snapshot each time so many are folded."""
    partition, hashed = Partition(c, seal=Seal(b"key")), Hashed()
    for first in range(0, len(records), batch):
        hashed.add(partition.process(records[first : first + batch]))
        if snapshot_events and first % snapshot_events == 0:
            partition = Partition(c, seal=Seal(b"key"), arrays=partition.snapshot())
    hashed.add(Outputs([], partition.close_all().examples, [], [], []))
    return [*hashed.digests(), partition.digest()]


def test_it_scores_and_learns_each_label_in_time() -> None:
    """A label must be learned once its window closed and before the next score, a late positive again, in order."""
    driver = Driver(with_model(f"{OURS}Recorder", Configuration(), model_arguments={"probability": 0.25}))
    driver.impression("a", user="ann", item="x", ts=START_MS, context={"tab": "p"})
    driver.impression("b", user="ann", item="y", ts=START_MS + 1, context={"tab": "q"})
    driver.feedback("b", user="ann", item="y", ts=START_MS + 2)
    assert [call[0] for call in Recorder.last.calls] == ["score", "score"]
    driver.impression("c", user="ann", item="y", ts=START_MS + WINDOW_MS + 10, context={"tab": "p"})
    driver.feedback("a", user="ann", item="x", ts=START_MS + WINDOW_MS + 20)
    calls = Recorder.last.calls
    assert [(call[0], call[2]) for call in calls[2:]] == [
        ("learn", False),
        ("learn", True),
        ("score", None),
        ("learn", True),
    ]
    assert calls[2][1] == calls[0][1] == calls[5][1]
    assert calls[3][1] == calls[1][1]
    assert [score.model_score for score in driver.scores] == pytest.approx([0.25] * 3)
    assert [(one.id, one.label, one.revision) for one in driver.examples] == [("a", 0, 0), ("b", 1, 0), ("a", 1, 1)]


def test_it_sees_what_the_example_says() -> None:
    """With `original` features the dict must hold the example's strings and numbers, lists entry by entry."""
    context: dict[str, Any] = {"tab": "p", "price": 2.5, "tags": ["k", "l"]}
    driver = Driver(with_model(f"{OURS}Recorder", Configuration(), model_features="original"))
    for number in range(3):
        ts = START_MS + number * (WINDOW_MS + 1)
        driver.impression(f"{number}", user="ann", item="x", ts=ts, context=context)
        driver.feedback(f"{number}", user="ann", item="x", ts=ts)
    driver.close_windows()
    learned = [x for what, x, _ in Recorder.last.calls if what == "learn"]
    for x, example in zip(learned, driver.examples, strict=False):
        assert {"user": "ann", "item": "x", "tab": "p", "price": 2.5, "tags=k": 1.0, "tags=l": 1.0}.items() <= x.items()
        for name, value in example.features.items():
            if name not in context and isinstance(value, list):
                seen = [x.get(f"{name}.{place}", 0.0) for place in range(len(value))]
                assert seen == np.array(value, np.float32).tolist()
        assert x.get("overall_log_odds", 0.0) == np.float32(example.features["overall_log_odds"])
    assert any(name.startswith("rates.user.") for name in learned[-1])


def test_indicators_are_bounded_and_tell_values_apart() -> None:
    """Indicators must be 1 under field and bucket: a number's own bucket, at most so many hashed ones of a field."""
    c = with_model(f"{OURS}Recorder", indicator_buckets=8)
    Partition(c).process(sample(1_000))
    names = {name for _, x, _ in Recorder.last.calls for name in x if "=" in name}
    by_field: dict[str, set[str]] = {}
    for name in names:
        by_field.setdefault(name.partition("=")[0], set()).add(name)
    assert set(by_field) == {"user", "item", "tab", "author", "tag", "hour_of_day", "duration_ms"}
    assert max(len(found) for field, found in by_field.items() if field != "duration_ms") == 8
    assert by_field["duration_ms"] <= {f"duration_ms={bucket}" for bucket in range(12)}
    assert len(by_field["duration_ms"]) > 8


def test_batches_and_snapshots_change_nothing() -> None:
    """However the log is cut, and going on from snapshots, outputs and digest must be the same."""
    c = with_model("river:preprocessing.StandardScaler | linear_model.LogisticRegression")
    expected = folded(sample(EVENTS), c, EVENTS)
    assert folded(sample(EVENTS), c, 7) == expected
    assert folded(sample(EVENTS), c, 250, snapshot_events=500) == expected
    assert folded(sample(EVENTS), with_model(REGRESSION), EVENTS)[-1] != expected[-1]


def test_everything_else_is_the_same_fold() -> None:
    """Fates, and which examples come out when and with what label, must be those of the built-in learner."""
    built_in, river = Partition(small(histories=64, base=shipped())), Partition(with_model(REGRESSION))
    expected, found = built_in.process(sample(EVENTS)), river.process(sample(EVENTS))
    assert river.state.fates.tolist() == built_in.state.fates.tolist()
    for which, form in ((0, Score), (1, Example)):
        assert [output.cause for output in found[which]] == [output.cause for output in expected[which]]
        told = [
            [msgspec.json.decode(o.value or b"", type=form) for o in outputs[which]] for outputs in (found, expected)
        ]
        assert [one.origin for one in told[0]] == [one.origin for one in told[1]]
        assert [getattr(one, "label", 0) for one in told[0]] == [getattr(one, "label", 0) for one in told[1]]
    assert (river.state.learner.dense == Partition(with_model(REGRESSION)).state.learner.dense).all()


def test_the_error_memory_corrects_it() -> None:
    """A classifier that is always wrong about a user must be corrected for this user, and not for others."""
    driver = Driver(with_model(f"{OURS}Recorder", Configuration()))
    for number in range(1_200):
        ts, user = START_MS + number * 60_000, "ann" if number % 2 else "bob"
        driver.impression(f"{number}", user=user, item="x", ts=ts)
        if user == "ann":
            driver.feedback(f"{number}", user=user, item="x", ts=ts)
    bob, ann = driver.scores[-2:]
    assert bob.model_score == pytest.approx(0.5)
    assert ann.score > 0.8
    assert bob.score < 0.2


def test_sampled_negatives_are_made_up_for() -> None:
    """With half of the negatives learned, the mean score must stay near the mean label: without, it would be a half."""
    c = with_model(f"{OURS}Mean", Configuration())
    c = replace(c, joiner=replace(c.joiner, negative_sample_rate=0.5), correction=replace(c.correction, lambda_max=0.0))
    driver = Driver(c)
    for number in range(1_500):
        ts = START_MS + number * WINDOW_MS
        driver.impression(f"{number}", user="ann", item="x", ts=ts)
        if number % 3 == 0:
            driver.feedback(f"{number}", user="ann", item="x", ts=ts)
    assert np.mean([score.score for score in driver.scores[300:]]) == pytest.approx(1 / 3, rel=0.05)


def test_a_crash_changes_nothing() -> None:
    """Restored from a snapshot after a crash, a driver must end where an undisturbed one does."""
    events = [record.value or b"" for record in sample(600)]
    calm, shaken = Driver(with_model(REGRESSION)), Driver(with_model(REGRESSION))
    calm.pipe(*events)
    shaken.pipe(*events[:200], SNAPSHOT, *events[200:450], CRASH, *events[450:])
    assert shaken.digest == calm.digest
    assert shaken.bytes == calm.bytes


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("river:linear_model.LinearRegression", {}, "is no River classifier, but LinearRegression"),
        ("river:subprocess:getoutput", {"cmd": "touch harm"}, "is no River classifier, but getoutput"),
        (f"{OURS}make", {}, "is no River classifier, but make"),
        (f"{OURS}scaler", {}, "is no River classifier, but StandardScaler"),
        ("river:stream.iter_csv | linear_model.LogisticRegression", {}, "iter_csv is no transformer"),
        ("river:linear_model.Nothing", {}, "can't be made: AttributeError"),
        ("river:nowhere.Nothing", {}, "can't be made: ModuleNotFoundError"),
        ("river:nowhere:Nothing", {}, "can't be made: ModuleNotFoundError"),
        ("river:builtins:dict", {}, "is no River classifier, but dict"),
        (REGRESSION, {"depth": 3}, "can't be made: TypeError"),
        (f"{OURS}Silent", {}, "gives no probabilities"),
        (f"{OURS}Unpicklable", {}, "can't be pickled"),
        (f"{OURS}scaled", {"l2": 1.0}, "made already"),
    ],
)
def test_what_is_no_river_classifier_is_refused(
    model: str, arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition must say in one line why a model can't be used, and call nothing that is no classifier."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refusal, match=message) as refused:
        Partition(with_model(model, model_arguments=arguments))
    assert "\n" not in refused.value.message
    assert not river_models.CALLS
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["fm", "river:", "river:a b", "river:os.system('x')", "pickle:x"])
def test_a_name_that_is_none_is_refused_at_once(model: str) -> None:
    """The configuration itself must refuse what can't name a classifier."""
    with pytest.raises(ValueError, match="model must be"):
        with_model(model)


def test_a_model_of_ones_own_is_taken_whole() -> None:
    """A pipeline made in a module must be cloned, so that two partitions share nothing."""
    one, other = Partition(with_model(f"{OURS}scaled")), Partition(with_model(f"{OURS}scaled"))
    one.process(sample(400))
    other.process(sample(400))
    assert one.digest() == other.digest()


def test_a_classifier_that_fails_ends_with_one_line() -> None:
    """What a classifier raises must come out as one line that names the model and the impression."""
    driver = Driver(with_model(f"{OURS}Failing", Configuration()))
    driver.impression("a", user="ann", item="x", ts=START_MS)
    with pytest.raises(Refusal, match=r"can't learn from the impression at offset 0: RuntimeError: out of order"):
        driver.impression("b", user="ann", item="x", ts=START_MS + WINDOW_MS + 1)
    driver = Driver(with_model(f"{OURS}Undecided", Configuration()))
    with pytest.raises(Refusal, match=r"can't score the impression at offset 0: ValueError: its probability is nan"):
        driver.impression("a", user="ann", item="x", ts=START_MS)


# The command line and checkpoints

FLAGS = [
    *("--config", str(SAMPLE_CONFIGURATION), "--set", "table.rows_limit=2048", "--set", "behaviors.users_limit=1024"),
    *("--set", "joiner.waiting_limit=512", "--set", "sdim.histories_limit=64", "--set", "joiner.text_bytes=1048576"),
    *("--set", f"learner.model={REGRESSION}"),
]
ALLOWED = [*FLAGS, "--set", "learner.allow_pickle=true"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one, with the key in the environment and two logs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    lines = [(record.value or b"") + b"\n" for record in sample(1_200)]
    Path("whole.jsonl").write_bytes(b"".join(lines))
    Path("half.jsonl").write_bytes(b"".join(lines[:600]))
    return tmp_path


def run(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def checkpoint_of(folder: Path) -> tuple[CheckpointStore, Path, Checkpoint]:
    store = CheckpointStore(folder / "state" / "interactions-0")
    return store, store.paths()[0], store.read(store.paths()[0])


def test_a_replay_goes_on_from_its_checkpoint(folder: Path) -> None:
    """Half a log, then the whole of it from the checkpoint, must give the bytes and the digest of one go."""
    run("replay", "whole.jsonl", "--out", "once.jsonl", "--summary", "once.json", *FLAGS)
    run("replay", "half.jsonl", "--out", "twice.jsonl", "--checkpoint", "state", *ALLOWED)
    run("replay", "whole.jsonl", "--out", "twice.jsonl", "--checkpoint", "state", "--summary", "twice.json", *ALLOWED)
    assert Path("once.jsonl").read_bytes() == Path("twice.jsonl").read_bytes()
    digests = [msgspec.json.decode(Path(name).read_bytes())["digest"] for name in ("once.json", "twice.json")]
    assert digests[0] == digests[1]
    told = run("checkpoint", "verify", *ALLOWED, "--set", "checkpoint.directory=state")
    assert digests[0] in told.stderr


def test_a_pickle_must_be_allowed_and_keyed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without permission, without a key or with a short one no checkpoint may be begun; a file may hold the key."""
    command = ["replay", "half.jsonl", "--out", "s.jsonl", "--checkpoint", "state"]
    assert "learner.allow_pickle = true" in run(*command, *FLAGS, status=1).stderr
    monkeypatch.setenv(KEY_VARIABLE, "short")
    assert "has 5 bytes" in run(*command, *ALLOWED, status=1).stderr
    monkeypatch.delenv(KEY_VARIABLE)
    told = run(*command, *ALLOWED, status=1).stderr
    assert KEY_VARIABLE in told
    assert "checkpoint.hmac_key_file" in told
    assert not Path("state").exists()
    Path("key").write_text(f"{KEY}\n")
    run(*command, *ALLOWED, "--set", "checkpoint.hmac_key_file=key")
    told = run("checkpoint", "verify", *ALLOWED, "--set", "checkpoint.directory=state").stderr
    assert "signatures of River classifiers are not verified" in told
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    told = run("checkpoint", "verify", *ALLOWED, "--set", "checkpoint.directory=state").stderr
    assert "not verified" not in told


def test_the_key_is_never_shown(folder: Path) -> None:
    """Neither the configuration's table nor a seal's text may hold the key."""
    told = run("config", "show", *ALLOWED)
    assert "allow_pickle" in told.output
    assert KEY not in told.output
    assert KEY not in repr(Seal(KEY.encode()))
    assert KEY not in str(vars(Partition)) + repr(Partition(with_model(REGRESSION), seal=Seal(KEY.encode())))


@pytest.mark.parametrize(
    "changed",
    [{"application": "other"}, {"topic": "views"}, {"partition": 1}, {"next_offset": 601}, {"digest": "0" * 64}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_signed_pickle_is_good_for_its_own_checkpoint_alone(folder: Path, changed: dict[str, Any]) -> None:
    """A pickle that we signed must not be loaded under another application, topic, partition, offset or digest."""
    c = with_model(REGRESSION)
    header = header_of(Identity("interactions", 0, c), 600, "1" * 64)
    partition = Partition(c, seal=Seal(KEY.encode()))
    arrays = partition.snapshot(header)
    other = Seal(KEY.encode()).bound(msgspec.structs.replace(header, **changed))
    with pytest.raises(Refusal, match="was not signed with this key for this topic, partition, offset and state"):
        Partition(c, seal=other, arrays=arrays)


def test_a_signed_pickle_belongs_to_its_state(folder: Path) -> None:
    """Under a right signature the arrays of another state must be refused."""
    c = with_model(REGRESSION)
    partition = Partition(c, seal=Seal(KEY.encode()))
    header = header_of(Identity("interactions", 0, c), 0, partition.digest())
    arrays = partition.snapshot(header)
    assert Partition(c, seal=Seal(KEY.encode()).bound(header), arrays=arrays).digest() == header.digest
    partition.process(sample(50))
    other = {name: array for name, array in partition.snapshot().items() if name not in ARRAYS}
    with pytest.raises(ValueError, match="its state is not the one"):
        Partition(c, seal=Seal(KEY.encode()).bound(header), arrays=arrays | other)


class Bomb:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_a_hostile_checkpoint_runs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle that was not signed with our key must be refused in one line by every command, and never be loaded."""
    run("replay", "half.jsonl", "--out", "s.jsonl", "--checkpoint", "state", *ALLOWED)
    store, path, whole = checkpoint_of(folder)
    bomb = np.frombuffer(pickle.dumps(Bomb(str(folder / "harm"))), np.uint8)
    pickle.loads(bomb.tobytes())
    assert (folder / "harm").is_dir()
    (folder / "harm").rmdir()
    theirs = Seal(b"another key, as long as ours")
    parts = [bomb.tobytes(), whole.arrays[HISTORY].tobytes(), whole.arrays[VERSION].tobytes()]
    signed = np.frombuffer(theirs.bound(whole.header).sign(REGRESSION.encode(), *parts), np.uint8)
    forged = {
        "swapped": {PICKLE: bomb},
        "signed with another key": {PICKLE: bomb, SIGNATURE: signed},
        "signature cut": {PICKLE: bomb, SIGNATURE: signed[:0]},
        "another history": {HISTORY: np.zeros(32, np.uint8)},
    }
    for changed in (*forged.values(), None):
        arrays = whole.arrays | (changed or {})
        if changed is None:
            arrays = {name: array for name, array in arrays.items() if name not in ARRAYS}
        path.unlink()
        store.save(Checkpoint(whole.header, arrays))
        told = run("replay", "whole.jsonl", "--out", "s.jsonl", "--checkpoint", "state", *ALLOWED, status=1)
        assert "was not signed with this key" in told.stderr.splitlines()[-1]
        flags = [*ALLOWED, "--set", "checkpoint.directory=state"]
        run("checkpoint", "verify", *flags, status=1)
        run("checkpoint", "list", *flags)
        run("checkpoint", "show", *flags)
        assert not (folder / "harm").exists()
    path.unlink()
    store.save(whole)
    monkeypatch.setenv(KEY_VARIABLE, "another key, as long as ours")
    told = run("replay", "whole.jsonl", "--out", "s.jsonl", "--checkpoint", "state", *ALLOWED, status=1)
    assert "was not signed with this key" in told.stderr.splitlines()[-1]


def test_the_built_in_learner_takes_no_pickle(folder: Path) -> None:
    """A checkpoint with a pickle in it must be refused where the learner is the built-in one."""
    flags = [flag if not flag.startswith("learner.model=") else "learner.model=fwfm" for flag in FLAGS]
    run("replay", "half.jsonl", "--out", "s.jsonl", "--checkpoint", "state", *flags)
    store, path, whole = checkpoint_of(folder)
    bomb = np.frombuffer(pickle.dumps(Bomb(str(folder / "harm"))), np.uint8)
    path.unlink()
    store.save(Checkpoint(whole.header, whole.arrays | {PICKLE: bomb}))
    told = run("replay", "whole.jsonl", "--out", "s.jsonl", "--checkpoint", "state", *flags, status=1)
    assert "which this version does not know" in told.stderr
    assert not (folder / "harm").exists()


def test_a_checkpoint_of_another_river_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle that another version of River made must be refused, although it is ours."""
    monkeypatch.setattr("thalweg.streams.partition.river_model.version", lambda name: "0.1.2")
    run("replay", "half.jsonl", "--out", "s.jsonl", "--checkpoint", "state", *ALLOWED)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    told = run("replay", "whole.jsonl", "--out", "s.jsonl", "--checkpoint", "state", *ALLOWED, status=1)
    assert "was made by River 0.1.2, this is" in told.stderr
