"""Made-up streams: the same seed gives the same bytes, and everything that an option promises is there."""

import gzip
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from thalweg.schemas.events import Event
from thalweg.streams.commands import main
from thalweg.streams.logs.generate import (
    BLOCK_IMPRESSIONS,
    FIRST_MS,
    HOUR_MS,
    Generator,
    Stream,
    exponential,
    logarithm,
)

COUNT = 40_000  # more than a block


def stream(**options: Any) -> Stream:
    return Stream(**({"seed": 7, "users": 300, "items": 200, "impressions": COUNT} | options))


def made(**options: Any) -> tuple[list[dict[str, Any]], list[float]]:
    """The events of a stream and its true probabilities."""
    log, truth = map(b"".join, zip(*Generator(stream(**options)).blocks(), strict=True))
    probabilities = [json.loads(line) for line in truth.splitlines()]
    assert [one["impression"] for one in probabilities] == list(map(str, range(COUNT)))
    return [json.loads(line) for line in log.splitlines()], [one["probability"] for one in probabilities]


def of_type(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def run(*options: str) -> Result:
    return CliRunner().invoke(main, ["generate", *options])


def test_the_same_options_give_the_same_bytes_for_ever() -> None:
    """The digest of a log with everything in it is pinned: a change of it breaks everybody's reproductions."""
    options = {"drift": "gradual", "new_items_per_hour": 30.0, "missing_feedback": 0.1}
    blocks = list(Generator(stream(**options)).blocks())
    log, truth = map(b"".join, zip(*blocks, strict=True))
    assert hashlib.sha256(log).hexdigest()[:16] == "dc89f83955e93492"
    assert hashlib.sha256(truth).hexdigest()[:16] == "2f861330867a9b07"
    assert blocks == list(Generator(stream(**options)).blocks())
    assert log != b"".join(lines for lines, _ in Generator(stream(**options, seed=8)).blocks())
    dense = b"".join(lines for lines, _ in Generator(stream(rank=5, drift="gradual")).blocks())
    assert hashlib.sha256(dense).hexdigest()[:16] == "0dfcd5b7902babd8"


def test_every_line_is_an_event_of_the_wire() -> None:
    """Each line must decode as an event, ids must be unique, and each click must repeat its impression's ids."""
    log = b"".join(lines for lines, _ in Generator(stream(missing_feedback=0.2)).blocks())
    decoder = msgspec.json.Decoder(Event)
    events = [decoder.decode(line) for line in log.splitlines()]
    assert len({event.id for event in events}) == len(events)
    impressions = {event.id: event for event in events if type(event).__name__ == "Impression"}
    assert len(impressions) == COUNT
    for event in events:
        if type(event).__name__ == "Feedback":
            impression = impressions[event.impression]
            assert (event.user, event.item) == (impression.user, impression.item)
            assert event.ts >= impression.ts


@pytest.mark.parametrize("delay_ms", [0, 5_000, 10_000_000])
def test_events_come_in_the_order_of_time_impressions_first(delay_ms: int) -> None:
    """Time must never fall, across blocks too, and at one time no click may stand before an impression."""
    events, _ = made(feedback_delay_ms=delay_ms, interval_ms=3)
    order = [(event["ts"], event["type"] == "feedback") for event in events]
    assert order == sorted(order)
    assert COUNT > BLOCK_IMPRESSIONS


def test_labels_have_the_rate_of_the_truth() -> None:
    """Clicks must be as many as the true probabilities say, within 3 sigma: in all and in each tenth of them."""
    events, truth = made()
    clicked = np.zeros(COUNT)
    clicked[[int(event["impression"]) for event in of_type(events, "feedback")]] = 1
    probabilities = np.array(truth)
    for part in (np.arange(COUNT), *np.array_split(np.argsort(probabilities), 10)):
        sigma = math.sqrt((probabilities[part] * (1 - probabilities[part])).sum())
        assert abs(clicked[part].sum() - probabilities[part].sum()) < 3 * sigma
    assert 0.1 < probabilities.mean() < 0.4
    assert probabilities.std() > 0.1


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, [False, False, False, False]),
        ({"drift": "sudden", "drift_at": 0.25}, [False, True, True, True]),
        ({"drift": "gradual", "drift_at": 0.25, "drift_length": 0.5}, [False, True, True, True]),
    ],
)
def test_tastes_change_when_the_drift_says(options: dict[str, Any], changed: list[bool]) -> None:
    """The same users and items must keep their probabilities before the drift, and have others after it."""
    generator = Generator(stream(**options))
    users, items = np.arange(2_000) % 300, np.arange(2_000) % 200
    devices = np.zeros(2_000, np.int64)
    last = [int(share * COUNT) - 1 for share in (0.25, 0.5, 0.75, 1.0)]
    rows = [generator.probabilities(np.full(2_000, number), users, items, devices) for number in (0, *last)]
    assert [not np.array_equal(rows[0], row) for row in rows[1:]] == changed
    if any(changed):
        before, after = rows[0] - rows[0].mean(), rows[-1] - rows[-1].mean()
        # Appeals stay, tastes are new: far from the same, and not the contrary.
        assert -0.2 < (before * after).mean() / (before.std() * after.std()) < 0.5
    if options.get("drift") == "gradual":
        steps = [float(np.abs(row - rows[0]).mean()) for row in rows[1:]]
        assert 0 < steps[1] < steps[2]
        np.testing.assert_allclose(rows[3], rows[4], atol=1e-4)


def test_dense_tastes_have_the_rank_that_was_asked_for() -> None:
    """Less what user and item have for themselves, log-odds must have that rank, the stated deviation and no groups."""
    generator = Generator(stream(rank=5))
    users, items = np.repeat(np.arange(300), 200), np.tile(np.arange(200), 300)
    nothing = np.zeros(60_000, np.int64)
    true = generator.probabilities(nothing, users, items, nothing)
    assert np.array_equal(true, generator.probabilities(nothing, users, items, nothing + 2))  # no device plays a part
    odds = np.log(true / (1 - true)).reshape(300, 200)
    tastes = odds - odds.mean(axis=0) - odds.mean(axis=1)[:, None] + odds.mean()
    values = np.linalg.svd(tastes, compute_uv=False)
    assert values[4] > 0.3 * values[0]
    assert values[5] < 1e-9 * values[0]
    assert tastes.std() == pytest.approx(2.0, rel=0.1)
    assert 0.4 < true.mean() < 0.6
    grouped = [odds[group::6].mean(axis=0).std() for group in range(6)]  # users of a segment have nothing in common
    assert max(grouped) < 0.6


@pytest.mark.parametrize("candidates", [0, 3])
def test_of_dense_tastes_nothing_is_told_but_user_and_item(candidates: int) -> None:
    """No event of a log may have a context, and labels must have the rate of the truth within 3 sigma."""
    events, truth = made(rank=5, candidates=candidates)
    assert all(event["context"] == {} for event in events if event["type"] != "feedback")
    asked = [one for event in of_type(events, "request") for one in event["candidates"]]
    assert all(one["context"] == {} for one in asked)
    assert bool(asked) == bool(candidates)
    probabilities = np.array(truth)
    sigma = math.sqrt((probabilities * (1 - probabilities)).sum())
    assert abs(len(of_type(events, "feedback")) - probabilities.sum()) < 3 * sigma


def test_dense_tastes_keep_their_strength_through_a_drift() -> None:
    """Half way through a gradual drift the log-odds must deviate as much as before and after it, within a tenth."""
    generator = Generator(stream(rank=5, drift="gradual", drift_at=0.25, drift_length=0.5))
    users, items = np.arange(20_000) % 300, np.arange(20_000) % 200
    devices = np.zeros(20_000, np.int64)
    spreads = []
    for number in (0, COUNT // 2, COUNT - 1):
        true = generator.probabilities(np.full(20_000, number), users, items, devices)
        spreads.append(float(np.log(true / (1 - true)).std()))
    assert max(spreads) < 1.1 * min(spreads)


def test_items_are_as_popular_as_zipf_says() -> None:
    """The share of each of the first ranks must be within 3 sigma of 1 / rank, and users evenly frequent."""
    events, _ = made()
    items = np.array([int(event["item"][1:]) for event in of_type(events, "impression")])
    harmonic = (1 / np.arange(1, 201)).sum()
    for rank in (1, 2, 3, 10, 100):
        share = 1 / rank / harmonic
        assert abs((items == rank - 1).sum() - COUNT * share) < 3 * math.sqrt(COUNT * share * (1 - share))
    users = np.bincount([int(event["user"][1:]) for event in of_type(events, "impression")], minlength=300)
    assert abs(users - COUNT / 300).max() < 5 * math.sqrt(COUNT / 300)


def test_new_items_come_at_their_rate_and_old_ones_go() -> None:
    """A new item must not be shown before it is born, and nobody after another has taken its rank."""
    events, _ = made(new_items_per_hour=30.0, zipf=0.0)
    impressions = of_type(events, "impression")
    hours = (impressions[-1]["ts"] - FIRST_MS) / HOUR_MS
    first: dict[int, int] = {}
    for event in impressions:
        item = int(event["item"][1:])
        first.setdefault(item, event["ts"])
        assert item < 200 or event["ts"] >= FIRST_MS + (item - 199) * HOUR_MS / 30 - 1
    assert max(first) - 199 == pytest.approx(30 * hours, abs=20)
    late = {int(event["item"][1:]) for event in impressions[-5_000:]}
    assert len(late) <= 200 + 30 * 3
    assert max(first) - min(late) < 200 + 30 * 3


def test_delays_are_exponential() -> None:
    """Mean and quantiles of the delays must be those of the exponential distribution, within 3 sigma."""
    events, _ = made(feedback_delay_ms=60_000)
    shown = {event["id"]: event["ts"] for event in of_type(events, "impression")}
    delays = np.array([event["ts"] - shown[event["impression"]] for event in of_type(events, "feedback")])
    assert abs(delays.mean() - 60_000) < 3 * 60_000 / math.sqrt(len(delays))
    for share in (0.1, 0.5, 0.9, 0.99):
        below = (delays < -60_000 * math.log(1 - share)).mean()
        assert abs(below - share) < 3 * math.sqrt(share * (1 - share) / len(delays))


def test_the_missing_share_is_missing_and_nothing_else_changes() -> None:
    """Of the clicks the share must be missing within 3 sigma; the others and the truth must be the same."""
    whole, truth = made()
    events, same = made(missing_feedback=0.3)
    assert truth == same
    ids = {event["id"] for event in of_type(whole, "feedback")}
    left = {event["id"] for event in of_type(events, "feedback")}
    assert left < ids
    assert abs(len(ids) - len(left) - 0.3 * len(ids)) < 3 * math.sqrt(len(ids) * 0.21)


def test_exponentials_and_logarithms_are_right() -> None:
    """Our series must agree with libm's within 4 ulp, away from a logarithm of zero."""
    x = np.linspace(-30, 30, 100_001)
    np.testing.assert_allclose(exponential(x), np.exp(x), rtol=1e-15)
    y = np.concatenate((np.arange(1, 100_000, dtype=float), np.linspace(1e-16, 1, 100_001)))
    np.testing.assert_allclose(logarithm(y), np.log(y), rtol=1e-15, atol=1e-16)


def test_it_makes_more_than_100_000_events_a_second() -> None:
    """The best of three runs must be above 100 000 events a second, in memory."""
    rates = []
    for _ in range(3):
        generator = Generator(stream(impressions=100_000, users=10_000, items=10_000))
        began = time.perf_counter()
        for _ in generator.blocks():
            pass
        rates.append((generator.impressions + generator.feedback) / (time.perf_counter() - began))
    assert max(rates) > 100_000


def test_the_command_writes_log_and_truth(tmp_path: Path) -> None:
    """Files must hold what the generator gives, and the message must count it."""
    log, truth = tmp_path / "log.jsonl.gz", tmp_path / "truth.jsonl"
    options = ("--seed", "7", "--users", "300", "--items", "200", "--events", str(COUNT))
    result = run(*options, "--out", str(log), "--truth", str(truth))
    assert result.exit_code == 0, result.output
    lines, probabilities = map(b"".join, zip(*Generator(stream()).blocks(), strict=True))
    assert gzip.decompress(log.read_bytes()) == lines
    assert truth.read_bytes() == probabilities
    clicks = lines.count(b'"feedback"')
    assert result.stderr == (
        f"{COUNT} impressions and {clicks} clicks (0 more are missing), "
        f"2023-11-14 22:13 to 2023-11-15 09:22 UTC: {log}\n"
    )
    assert run(*options, "--out", "-").stdout_bytes == lines


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--drift", "wild"], 2, "'wild' is not one of"),
        (["--missing-feedback", "1.5"], 2, "--missing-feedback"),
        (["--users", "0"], 2, "--users"),
        (["--seed", "-1"], 2, "--seed"),
        (["--rank", "65"], 2, "--rank"),
        (["--drift-length", "0"], 1, "the drift's length is above 0"),
        (["--new-items-per-hour", "1e12"], 1, "new items an hour within 0 and 1,000,000,000"),
        (["--interval-ms", "9999999", "--events", "999999999"], 1, "after 2100: take fewer events"),
        (["--truth", "log.jsonl"], 1, "name two files"),
        (["--truth", "./log.jsonl"], 1, "name two files"),
        (["--truth", "no/such/folder.jsonl"], 1, "there is no folder"),
    ],
)
def test_what_can_not_be_made_is_refused_in_one_line(
    options: list[str], status: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad option must end with status 2, a contradiction with 1, and one line that says what to do."""
    monkeypatch.chdir(tmp_path)
    result = run("--events", "10", *options, "--out", "log.jsonl")
    assert result.exit_code == status
    assert message in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert "Traceback" not in result.output
