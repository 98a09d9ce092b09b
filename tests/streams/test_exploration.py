"""Requests that explore: the answer names its policy, repeats on replay, and changes nothing else."""

import random
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from thalweg.operators.configuration import Configuration
from thalweg.operators.policies import RankingConfiguration
from thalweg.schemas.events import Request, encode_event
from thalweg.schemas.outputs import Ranking, decode_ranking
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS, Driver
from thalweg.streams.partition.partition import Partition

from tests.fold.logs import generated
from tests.streams.logs_for_tests import small

EXPLORING = ("epsilon", "gumbel", "thompson")
EVENTS = 400


def configuration(**ranking: Any) -> Configuration:
    """Return a small configuration that ranks so."""
    return replace(small(rows=1 << 14, users=1 << 14, waiting=1 << 13), ranking=RankingConfiguration(**ranking))


def requests() -> list[LogRecord]:
    """Return requests of every policy, at odd offsets between the events of a log at even ones."""
    chance = random.Random(5)
    made = []
    for number in range(0, EVENTS, 4):
        wanted = [{"item": f"item-{n}", "context": {"price": n % 3}} for n in chance.sample(range(110), 12)]
        options: dict[str, Any] = {"policy": chance.choice(EXPLORING), "floor": 0.01, "at_most": {"price": 3}}
        asked = Request(f"r{number}", f"user-{number % 40}", wanted, START_MS, {"channel": "a"}, top=8, **options)
        made.append(LogRecord(2 * number + 1, encode_event(asked)))
    return made


@cache
def rankings(batch: int, seed: int = 0) -> tuple[list[bytes | None], str]:
    """Return the answers and the state behind a log in batches."""
    log = sorted([record._replace(offset=2 * record.offset) for record in generated(EVENTS)] + requests())
    partition = Partition(configuration(seed=seed))
    made = []
    for first in range(0, len(log), batch):
        made += partition.process(log[first : first + batch]).rankings
    return [output.value for output in made], partition.digest()


def test_a_replay_repeats_the_bytes_however_the_log_is_cut() -> None:
    """Chance is the request's and the item's: batches of one and of all must answer the same."""
    assert rankings(1) == rankings(4_000)
    assert len(rankings(1)[0]) == EVENTS // 4


def test_another_seed_draws_other_rankings_and_changes_no_state() -> None:
    """`ranking.seed` goes into chance alone."""
    others, digest = rankings(4_000, seed=1)
    assert digest == rankings(4_000)[1]
    assert sum(ours != other for ours, other in zip(rankings(4_000)[0], others, strict=True)) > EVENTS // 10


def driver(**ranking: Any) -> Driver:
    """Return a driver that has seen a few items of three authors shown."""
    made = Driver(configuration(**ranking))
    for number in range(40):
        user, item, ts = f"u{number % 4}", f"v{number % 9}", START_MS + number * 20_000
        made.impression(f"{number}", user=user, item=item, ts=ts, context={"author": f"a{number % 3}"})
        if number % 9 < 2:
            made.feedback(f"{number}", user=user, item=item, ts=ts + 500)
    return made


WANTED = [{"item": f"v{n}", "context": {"author": f"a{n % 3}"}} for n in range(12)]
LATER_MS = START_MS + 40 * 20_000


def ask(asked: Driver, **options: Any) -> Ranking:
    """Return the answer to one request."""
    return asked.request("u0", WANTED, ts=LATER_MS, **options).rankings[0]


@pytest.mark.parametrize("policy", EXPLORING)
def test_the_answer_names_policy_and_probabilities(policy: str) -> None:
    """The probabilities of all candidates must sum to 1; the first item's propensity is its probability."""
    found = ask(driver(policy=policy, floor=0.01))
    assert found.policy == policy
    assert {item.item for item in found.items} == {f"v{n}" for n in range(12)}
    probabilities = [item.probability or 0.0 for item in found.items]
    assert sum(probabilities) == pytest.approx(1.0)
    assert min(probabilities) >= 0.01 * (1 - 1e-9)
    assert found.items[0].propensity == pytest.approx(probabilities[0], rel=1e-9)
    assert all((item.propensity is None) == (policy == "thompson") for item in found.items[1:])


def test_without_a_policy_the_answer_has_no_trace_of_one() -> None:
    """The bytes must be those of an answer from before there were policies."""
    asked = driver()
    ask(asked, explain=True)
    assert b"polic" not in (asked.bytes.rankings[0].value or b"")
    assert b"prob" not in (asked.bytes.rankings[0].value or b"")
    assert b"exposures" not in (asked.bytes.rankings[0].value or b"")


def test_an_epsilon_of_zero_ranks_by_score_under_every_option() -> None:
    """The policies' way through must agree with the plain one where nothing is explored."""
    asked = driver()
    for options in ({}, {"top": 4}, {"exclude": ["v1", "v3"]}, {"seen": "drop"}, {"at_most": {"author": 2}, "top": 5}):
        plain = ask(asked, **options)
        found = ask(asked, policy="epsilon", epsilon=0.0, **options)
        assert [(item.item, item.score) for item in found.items] == [(item.item, item.score) for item in plain.items]
        assert [item.probability for item in found.items] == [1.0] + [0.0] * (len(plain.items) - 1)


def test_what_is_filtered_out_has_no_probability_and_caps_have() -> None:
    """Excluded items are no candidates; a cap's items are, for places before it is full; `top` cuts the answer only."""
    asked = driver(policy="gumbel", temperature=5.0)
    assert sum(item.probability or 0.0 for item in ask(asked, exclude=["v0", "v5"]).items) == pytest.approx(1.0)
    unseen = ask(asked, seen="drop").items
    assert {item.item for item in unseen} == {f"v{n}" for n in range(2, 12)}
    assert sum(item.probability or 0.0 for item in unseen) == pytest.approx(1.0)
    capped = ask(asked, at_most={"author": 1})
    assert len(capped.items) == 3
    assert 0.1 < sum(item.probability or 0.0 for item in capped.items) < 0.6
    every = ask(asked)
    weights = {item.item: (item.score / (1 - item.score)) ** (1 / 5.0) for item in every.items}
    last = capped.items[-1]
    rivals = [weight for item, weight in weights.items() if int(item[1:]) % 3 == int(last.item[1:]) % 3]
    assert last.propensity == pytest.approx(weights[last.item] / sum(rivals))
    first = asked.request("u0", WANTED, ts=LATER_MS, policy="gumbel", temperature=5.0, top=1).rankings[0].items
    assert len(first) == 1
    assert first[0].probability in [item.probability for item in every.items if item.item == first[0].item]


def test_an_item_never_shown_varies_most() -> None:
    """Under thompson the items without exposures must come first far more often than by epsilon 0."""
    asked = driver()
    firsts = [ask(asked, policy="thompson", deviation=3.0, top=1).items[0].item for _ in range(60)]
    assert sum(item in ("v9", "v10", "v11") for item in firsts) > 20


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        ({"policy": "softmax"}, 'policy is "softmax", not one of none, epsilon, gumbel, thompson'),
        ({"policy": "epsilon", "epsilon": 1.5}, "epsilon is not in 0 to 1"),
        ({"temperature": 0}, "temperature is not in 0.05 to 100"),
        ({"deviation": 1_000}, "deviation is not in 0.01 to 100"),
        ({"floor": -0.1}, "floor is not in 0 to 1"),
    ],
)
def test_a_bad_policy_is_refused(options: dict[str, Any], detail: str) -> None:
    """One line must name the option and what it may be."""
    made = Driver(small())
    letters = made.pipe(
        {"type": "request", "id": "r", "user": "u", "candidates": [], "ts": START_MS, "context": {}} | options
    ).dead_letters
    assert [(letter.reason, letter.detail) for letter in letters] == [("bad_option", detail)]


def test_answers_decode_as_written() -> None:
    """An answer that explores must read back to what it was made of."""
    asked = driver(policy="thompson")
    assert ask(asked) == decode_ranking(asked.bytes.rankings[0].value or b"")
