"""Decisions from a log: which impressions are one, the policy's probabilities, and estimates beside the truth."""

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from thalweg.operators.policies import RankingConfiguration
from thalweg.schemas.events import Feedback, Impression, Request, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.commands import main
from thalweg.streams.driver import START_MS
from thalweg.streams.evaluation.estimators import EvaluationError, estimate
from thalweg.streams.evaluation.logged import LoggedDecisions, decisions_of
from thalweg.streams.logs.generate import Generator, Stream

from tests.streams.logs_for_tests import small

STREAM = Stream(seed=11, users=40, items=30, impressions=1_500, interval_ms=30_000, candidates=6)
UNIFORM = RankingConfiguration(policy="epsilon", epsilon=1.0)


def configuration() -> Any:
    """Return a small configuration."""
    return small(rows=1 << 14, users=1 << 14, waiting=1 << 13)


@cache
def log() -> bytes:
    """Return a made-up log with requests, of which one candidate each is shown, all alike."""
    return b"".join(lines for lines, _ in Generator(STREAM).blocks())


def blocks(lines: list[bytes], size: int = 500) -> list[list[LogRecord]]:
    """Return records of lines in blocks."""
    records = [LogRecord(offset, line) for offset, line in enumerate(lines)]
    return [records[first : first + size] for first in range(0, len(records), size)]


def asked(number: int, user: str = "u", **options: Any) -> bytes:
    """Return a request of five items."""
    items = [f"v{n}" for n in range(5)]
    return encode_event(Request(f"r{number}", user, items, START_MS + number * 60_000, {}, **options))


def shown(number: int, user: str = "u", **answer: Any) -> bytes:
    """Return an impression of its first item, which answers it unless said otherwise."""
    answer = {"request": f"r{number}", "position": 1, "propensity": 0.2} | answer
    return encode_event(Impression(f"{number}", user, "v0", START_MS + number * 60_000, {}, **answer))


def clicked(number: int) -> bytes:
    """Return a click on it."""
    return encode_event(Feedback.of(f"{number}:c", f"{number}", "u", "v0", START_MS + number * 60_000 + 900, "click"))


def test_what_is_a_decision_and_what_is_not() -> None:
    """Impressions without request count for nothing; others that are no decision are counted by their reason."""
    lines = [
        *(asked(1), shown(1), clicked(1)),
        *(
            asked(2),
            shown(2, position=2),
            shown(20, request="r2", position=None),
            shown(21, request="r2", propensity=None),
        ),
        *(shown(3), asked(4, "other"), shown(4), b"not JSON", encode_event(Impression("9", "u", "v1", START_MS, {}))),
        *(asked(5), shown(5), shown(50, request="r5")),
    ]
    decisions, logged = decisions_of(blocks(lines, 4), configuration(), UNIFORM, closes_windows=True)
    assert decisions.reward.tolist() == [1.0, 0.0]
    assert decisions.propensity.tolist() == [0.2, 0.2]
    np.testing.assert_allclose(decisions.target, 0.2)
    assert (decisions.model > 0).all()
    # under a uniform policy the value is the mean of all candidates' scores
    assert decisions.value[0] == pytest.approx(decisions.model[0], rel=1e-3)  # hardly anything distinguishes them yet
    assert logged.requests == 4
    assert {reason: count for reason, count in logged.passed_over.items() if count} == {
        "not in the first place": 1,
        "without position": 1,
        "without propensity": 1,
        "request not found": 3,
    }


def test_what_a_request_shows_first_is_a_decision() -> None:
    """Its propensity is the answer's; under the policy that chose it, each weight is 1. Others are counted."""
    lines = []
    for number in range(40):
        options: dict[str, Any] = {"policy": "epsilon", "epsilon": 0.5} if number % 4 else {}
        lines.append(asked(number, shown=2, **options))
        own = {"user": "u", "ts": START_MS + number * 60_000 + 900, "action": "click"}
        lines += [encode_event(Feedback(id=f"c{number}{n}", request=f"r{number}", item=f"v{n}", **own)) for n in (1, 3)]
    lines += [asked(90, exclude=[f"v{n}" for n in range(5)], shown=1), asked(91, shown=1_000)]
    policy = RankingConfiguration(policy="epsilon", epsilon=0.5, seed=7)
    decisions, logged = decisions_of(blocks(lines, 7), configuration(), policy, closes_windows=True)
    assert logged.requests == 42
    assert {reason: count for reason, count in logged.passed_over.items() if count} == {
        "without propensity": 10,
        "nothing shown": 1,
    }
    assert len(decisions.reward) == 30
    assert decisions.propensity.tolist() == decisions.target.tolist()
    assert len(set(decisions.propensity.tolist())) == 2
    assert 0 < decisions.reward.sum() < 30
    other, _ = decisions_of(blocks(lines), configuration(), UNIFORM, closes_windows=True)
    assert other.reward.tolist() == decisions.reward.tolist()
    assert other.propensity.tolist() == decisions.propensity.tolist()
    np.testing.assert_allclose(other.target, 0.2)


def test_options_of_the_logged_request_do_not_choose_the_policy() -> None:
    """`top`, caps and the logged policy must not hide candidates; `exclude` holds under every policy."""
    options: dict[str, Any] = {
        "top": 1,
        "policy": "gumbel",
        "at_most": {"author": 1},
        "exclude": ["v4"],
        "explain": True,
    }
    decisions, _ = decisions_of(blocks([asked(1, **options), shown(1)]), configuration(), UNIFORM, closes_windows=True)
    assert decisions.target.tolist() == [0.25]
    excluded = asked(1, exclude=["v0"])
    decisions, _ = decisions_of(blocks([excluded, shown(1)]), configuration(), UNIFORM, closes_windows=True)
    assert decisions.target.tolist() == [0.0]


def test_an_open_window_is_no_outcome_and_the_oldest_request_makes_room() -> None:
    """Without closed windows there is nothing to estimate, and the message says what a log must have."""
    with pytest.raises(EvaluationError, match=r"`propensity`.*1 outcome not known"):
        decisions_of(blocks([asked(1), shown(1)]), configuration(), UNIFORM)
    logged = LoggedDecisions(configuration(), UNIFORM, unanswered_max=1)
    for block in blocks([asked(1), asked(2), shown(1), shown(2)]):
        logged.add(block)
    assert logged.passed_over["request not found"] == 1


def test_the_policy_that_made_the_log_is_worth_what_it_brought() -> None:
    """A uniform policy over a uniform log has weights of 1: IPS and SNIPS are the mean reward."""
    decisions, logged = decisions_of(blocks(log().splitlines()), configuration(), UNIFORM, closes_windows=True)
    assert len(decisions.reward) == logged.requests == STREAM.impressions
    found = estimate(decisions, samples=200)
    assert found.ips.value == pytest.approx(found.logged.value, rel=1e-9)
    assert found.snips.value == pytest.approx(found.logged.value, rel=1e-9)
    assert found.effective_sample_size == pytest.approx(len(decisions.reward))
    assert found.dr.low < found.logged.value < found.dr.high


def test_the_greedy_policy_is_worth_what_its_choices_are_worth() -> None:
    """IPS, SNIPS and DR of "none" must have the mean true probability of its own first places in their intervals."""
    greedy = RankingConfiguration()
    decisions, _ = decisions_of(blocks(log().splitlines()), configuration(), greedy, closes_windows=True)
    truth = true_value(greedy)
    found = estimate(decisions, samples=400)
    for one in (found.ips, found.snips, found.dr):
        assert one.low < truth < one.high
    assert truth > found.logged.value
    assert found.dr.high - found.dr.low < found.ips.high - found.ips.low


def true_value(policy: RankingConfiguration) -> float:
    """Return the mean true probability of a click on what a policy puts first in each request of the log."""
    truth = Generator(STREAM)
    logged = LoggedDecisions(configuration(), policy)
    total = 0.0
    devices = ("phone", "tablet", "desktop")
    for block in blocks(log().splitlines(), 1):
        event = msgspec.json.decode(block[0].value or b"")
        logged.add(block)
        if event["type"] == "request":
            answer = logged._answers[event["id"]]
            best = max(answer.chosen, key=lambda item: answer.chosen[item][0])
            numbers = (event["id"][1:], event["user"][1:], best[1:], devices.index(event["context"]["device"]))
            total += float(truth.probabilities(*(np.array([int(number)]) for number in numbers))[0])
    return total / STREAM.impressions


def test_the_command_prints_and_writes_the_estimates(tmp_path: Path) -> None:
    """The table goes to stderr and its numbers to the summary; refusals are one line."""
    path, policy, summary = tmp_path / "log.jsonl", tmp_path / "policy.toml", tmp_path / "summary.json"
    path.write_bytes(log())
    policy.write_text('[ranking]\npolicy = "epsilon"\nepsilon = 1.0\n')
    arguments = ["evaluate", str(path), "--policy", str(policy), "--until-end-of-windows"]
    arguments += ["--set", "table.rows_limit=16384", "--set", "behaviors.users_limit=16384"]
    arguments += ["--set", "joiner.waiting_limit=8192", "--samples", "100"]
    done = CliRunner().invoke(main, [*arguments, "--summary", str(summary)])
    assert done.exit_code == 0, done.output
    assert all(name in done.stderr for name in ("IPS", "SNIPS", "DR", "effective sample", "1,500"))
    found = msgspec.json.decode(summary.read_bytes())
    assert found["decisions"] == STREAM.impressions
    assert found["ips"]["value"] == pytest.approx(found["logged"]["value"])
    policy.write_text('[ranking]\npolicy = "none"\n[learner]\nl2 = 1.0\n')
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "must have the section [ranking] and no other" in refused.stderr
    policy.write_text('[ranking]\npolicy = "greedy"\n')
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert 'ranking.policy = "greedy"' in refused.stderr
