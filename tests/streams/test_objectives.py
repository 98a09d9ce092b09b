"""Several objectives: each label closes with its own window, and what is said of each agrees with it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from thalweg.operators.configuration import Configuration
from thalweg.operators.delay import Time
from thalweg.operators.joiner import JoinerConfiguration
from thalweg.operators.objectives import ObjectiveConfiguration, ObjectivesConfiguration, weights_of
from thalweg.schemas.outputs import Example, first_probability
from thalweg.streams.configuration.loading import ConfigurationError, load
from thalweg.streams.driver import START_MS, Driver
from thalweg.streams.partition.partition import Partition

from tests.streams.logs_for_tests import small

MINUTE_MS = 60_000
WINDOWS_MS = {"click": 10 * MINUTE_MS, "hide": MINUTE_MS, "purchase": 60 * MINUTE_MS}


def shop(order: str = "", **joiner: Any) -> Configuration:
    """Return clicks for ten minutes, hides for one, purchases for an hour."""
    named = {name: ObjectiveConfiguration(actions=(name,), window_ms=ms) for name, ms in WINDOWS_MS.items()}
    c = small(histories=16)
    memory = replace(c.error_memory, bits=4, keyed_bits=6)
    joiner = {"provisional_share": 1.0, **joiner}
    objectives = ObjectivesConfiguration(order=order, named=named)
    return replace(c, objectives=objectives, error_memory=memory, joiner=replace(c.joiner, **joiner))


@pytest.fixture
def driver() -> Driver:
    """A driver of the shop."""
    return Driver(shop())


def act(driver: Driver, action: str, minutes: float) -> list[Example]:
    ts = START_MS + int(minutes * MINUTE_MS)
    return driver.feedback("1", user="ann", item="film", ts=ts, action=action, id=f"{action} {minutes}").examples


def pass_minutes(driver: Driver, minutes: float) -> list[Example]:
    """Let time pass, of which two more users report."""
    ts, found = START_MS + int(minutes * MINUTE_MS) + 1, list[Example]()
    for user in ("bob", "cid"):
        found += driver.impression(f"of {user} {minutes}", user=user, item="play", ts=ts).examples
    return [example for example in found if example.id == "1"]


def learned(driver: Driver) -> list[float]:
    """Return what is learned of the first impression: -1 for nothing yet."""
    state = driver.partition.state
    slot = int(np.flatnonzero(state.waiting.offset == 0)[0])
    return [float(state.waiting.learned[slot]), *state.heads.learned[slot].tolist()]


def test_each_label_closes_with_its_own_window_and_the_example_comes_with_the_last(driver: Driver) -> None:
    """A hide is learned after a minute, a click after ten, a purchase after an hour; then all labels are out."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    assert learned(driver) == [-1.0, -1.0, -1.0]
    assert act(driver, "click", 5) == []  # who is alone moves time
    assert learned(driver) == [-1.0, 0.0, -1.0]
    assert pass_minutes(driver, 10) == []
    assert learned(driver) == [1.0, 0.0, -1.0]
    act(driver, "purchase", 59)
    [example] = pass_minutes(driver, 60)
    assert learned(driver) == [1.0, 0.0, 1.0]
    assert (example.label, example.labels) == (1, {"click": 1, "hide": 0, "purchase": 1})
    assert example.scores is not None
    assert example.score == example.scores["click"]


def test_an_action_counts_within_its_own_objectives_window_only() -> None:
    """A click after eleven minutes is late though the impression waits for purchases; all others are in time."""
    driver = Driver(shop(late_window_ms=1))
    driver.impression("1", user="ann", item="film", ts=START_MS)
    act(driver, "hide", 1)
    act(driver, "click", 11)
    act(driver, "purchase", 60)
    assert (driver.fates["joined"], driver.fates["late"]) == (2, 1)
    [example] = pass_minutes(driver, 60)
    assert example.labels == {"click": 0, "hide": 1, "purchase": 1}


def test_a_late_positive_of_a_window_that_has_closed_is_learned_at_once(driver: Driver) -> None:
    """A click done in time that arrives after its window has closed makes one more step, and the example has it."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    pass_minutes(driver, 10)
    assert learned(driver) == [0.0, 0.0, -1.0]
    assert act(driver, "click", 9) == []
    assert (driver.fates["late"], driver.counts["late_positives"]) == (1, 1)
    assert learned(driver) == [1.0, 0.0, -1.0]
    [example] = pass_minutes(driver, 60)
    assert example.labels == {"click": 1, "hide": 0, "purchase": 0}


def test_a_late_positive_is_learned_behind_its_negative_and_comes_out_with_the_rest(driver: Driver) -> None:
    """A hide behind its own window, which others' clocks have not closed yet, makes two steps and one example."""
    for user in ("bob", "cid", "dan", "ann"):
        driver.impression("1" if user == "ann" else user, user=user, item="film", ts=START_MS)
    state = driver.partition.state
    driver.feedback("1", user="ann", item="film", ts=START_MS + 90_000, action="hide")
    slot = int(np.flatnonzero(state.waiting.offset == 3)[0])
    assert (driver.fates["late"], state.heads.learned[slot, 0]) == (1, -1.0)
    found = pass_minutes(driver, 2)
    assert (found, driver.counts["late_positives"], state.heads.learned[slot, 0]) == ([], 1, 1.0)
    for user in ("bob", "cid", "dan"):
        driver.impression(f"later {user}", user=user, item="film", ts=START_MS + 61 * MINUTE_MS)
    [example] = [example for example in driver.examples if example.id == "1"]
    assert example.labels == {"click": 0, "hide": 1, "purchase": 0}


def test_a_late_positive_behind_the_last_window_is_a_revision(driver: Driver) -> None:
    """A purchase within the late window behind its own makes a second example, which has it."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    [example] = pass_minutes(driver, 60)
    assert (example.revision, example.labels) == (0, {"click": 0, "hide": 0, "purchase": 0})
    [revised] = act(driver, "purchase", 65)
    assert (revised.revision, revised.labels) == (1, {"click": 0, "hide": 0, "purchase": 1})


def test_early_feedback_sets_the_labels_of_its_objectives(driver: Driver) -> None:
    """A purchase before its impression waits for the longest window, and a hide too late for its own sets nothing."""
    act(driver, "purchase", 20)
    act(driver, "hide", 2)
    driver.impression("1", user="ann", item="film", ts=START_MS)
    state = driver.partition.state
    slot = int(np.flatnonzero(state.waiting.offset == 2)[0])
    assert state.waiting.labels[slot].tolist() == [0, 1]


def test_an_action_of_two_objectives_is_a_positive_of_both() -> None:
    """A purchase that is also a click sets both labels, each within its own window."""
    both = {
        "click": ObjectiveConfiguration(actions=("click", "purchase"), window_ms=MINUTE_MS),
        "purchase": ObjectiveConfiguration(actions=("purchase",), window_ms=10 * MINUTE_MS),
    }
    c = small(histories=16)
    joiner = replace(c.joiner, provisional_share=1.0, late_window_ms=1)
    for minutes, click in ((0.5, 1), (5, 0)):
        driver = Driver(replace(c, objectives=ObjectivesConfiguration(named=both), joiner=joiner))
        driver.impression("1", user="ann", item="film", ts=START_MS)
        act(driver, "purchase", minutes)
        [example] = pass_minutes(driver, 10)
        assert example.labels == {"click": click, "purchase": 1}


@pytest.mark.parametrize(("come", "is_certain"), [(0.95, False), (0.97, True)])
def test_a_label_is_believed_where_nearly_all_positives_have_come(come: float, is_certain: bool) -> None:
    """Of several objectives none gets a second step where 96% of the positives come within the elapsed time."""
    driver = Driver(shop(provisional_share=0.9))
    state = driver.partition.state
    for within, times_ms in zip(
        (state.delays.within, *state.heads.delays[:, 1]), (state.delays.times_ms, *state.heads.delays_ms), strict=True
    ):
        within[:], times_ms[Time.ELAPSED] = come, 1_024
    driver.impression("1", user="ann", item="film", ts=START_MS)
    pass_minutes(driver, 0.1)
    labels = learned(driver)
    assert all(label == 0.0 if is_certain else 0.0 < label < 0.05 for label in labels)


def test_the_order_makes_the_score_of_all_probabilities() -> None:
    """`score` is the weighted sum, in scores and in rankings alike, and a hide lowers it."""
    driver = Driver(shop("click + 20 * purchase - 5 * hide"))
    [score] = driver.impression("1", user="ann", item="film", ts=START_MS).scores
    assert score.scores is not None
    assert list(score.scores) == ["click", "hide", "purchase"]
    assert score.score == score.scores["click"] - 5.0 * score.scores["hide"] + 20.0 * score.scores["purchase"]
    request = {
        "type": "request",
        "id": "r",
        "user": "eve",
        "candidates": ["film", "play"],
        "ts": START_MS,
        "context": {},
    }
    [ranking] = driver.pipe(request).rankings
    for item in ranking.items:
        assert item.scores is not None
        assert item.score == item.scores["click"] - 5.0 * item.scores["hide"] + 20.0 * item.scores["purchase"]


def test_a_ranking_goes_by_the_order() -> None:
    """What is hidden whenever it is shown comes last where hides weigh, and first where they are wanted."""
    for order, last in (("click - 5 * hide", "hidden"), ("click + 5 * hide", "plain")):
        driver = Driver(shop(order))
        for number in range(24):
            ts, item = START_MS + number * 2 * MINUTE_MS, "hidden" if number % 2 else "plain"
            shown = {"user": f"u{number % 5}", "item": item, "ts": ts}
            driver.impression(str(number), **shown)
            if number % 2:
                driver.feedback(str(number), action="hide", **shown)
        ts = START_MS + 60 * MINUTE_MS
        request = {
            "type": "request",
            "id": "r",
            "user": "eve",
            "candidates": ["hidden", "plain"],
            "ts": ts,
            "context": {},
        }
        [ranking] = driver.pipe(request).rankings
        assert ranking.items[-1].item == last, order


def test_a_request_gets_the_bits_of_an_impression() -> None:
    """Every probability of a candidate is that of an impression of it at that place of the log."""
    driver = Driver(shop("click + 2 * purchase"))
    for number in range(40):
        ts = START_MS + number * MINUTE_MS
        shown = {"user": f"u{number % 4}", "item": f"i{number % 3}", "ts": ts}
        driver.impression(str(number), context={"tab": "a"}, **shown)
        if number % 3 == 0:
            driver.feedback(str(number), action=("click", "purchase", "hide")[number % 9 // 3], **shown)
    ts = driver.stream_time_ms
    asked = {"type": "request", "id": "r", "user": "u1", "candidates": ["i0", "i1", "new"], "ts": ts}
    [ranking] = driver.pipe(asked | {"context": {"tab": "a"}}).rankings
    for item in ranking.items:
        again = Driver(shop("click + 2 * purchase"))
        again.pipe(*(record.value for record in driver.log[:-1]))
        [score] = again.impression("x", user="u1", item=item.item, ts=ts, context={"tab": "a"}).scores
        assert (item.score, item.scores) == (score.score, score.scores)


def test_what_an_order_makes_is_no_reward() -> None:
    """Estimates and regret take the first objective's probability, not what the order makes of all."""
    driver = Driver(shop("20 * purchase - click"))
    request = {"type": "request", "id": "r", "user": "eve", "candidates": ["film"], "ts": START_MS, "context": {}}
    [item] = driver.pipe(request).rankings[0].items
    assert item.scores is not None
    assert first_probability(item) == item.scores["click"] != item.score
    [score] = driver.impression("1", user="ann", item="film", ts=START_MS).scores
    assert score.scores is not None
    assert first_probability(score) == score.scores["click"]


def test_erasing_a_user_leaves_no_number_of_any_objective() -> None:
    """What an erased user alone had is gone from every array of the heads."""
    driver = Driver(shop())
    for number in range(12):
        shown = {"user": "ann", "item": f"i{number}", "ts": START_MS + number}
        driver.impression(str(number), context={"tab": "a"}, **shown)
        driver.feedback(str(number), action="purchase", **shown)
    pass_minutes(driver, 61)
    value = driver.value("user", "ann")
    assert value is not None
    state = driver.partition.state
    row = int(np.flatnonzero(state.learner.rates.sums[:, 0] == 12)[0])
    assert state.heads.rates[row].any()
    driver.erase("ann", ts=driver.stream_time_ms)
    freed = np.flatnonzero(state.features.key == 0)
    for array in (state.heads.rates, state.heads.weights, state.heads.network, state.heads.rates_at_ms):
        assert not array[freed].any()
    gone = np.flatnonzero(state.cross.pairs.key == 0)
    assert not state.cross.of_heads[gone].any()


def test_how_the_log_is_cut_and_a_checkpoint_change_no_bit() -> None:
    """Blocks of one, blocks of all, and a partition resumed half way give the same outputs and digest."""
    configuration = shop("click + 20 * purchase", provisional_share=0.5)
    driver = Driver(configuration)
    for number in range(60):
        ts = START_MS + number * MINUTE_MS
        shown = {"user": f"u{number % 7}", "item": f"i{number % 5}", "ts": ts}
        driver.impression(str(number), **shown)
        for action in ("click", "hide", "purchase"):
            if (number * 7 + len(action)) % 4 == 0:
                driver.feedback(str(number), action=action, id=f"{number}{action}", **shown)
    records = driver.log
    whole = Partition(configuration)
    outputs = whole.process(records)
    half = Partition(configuration)
    first = half.process(records[:70])
    resumed = Partition(configuration, arrays=half.snapshot(), next_offset=records[70].offset)
    second = resumed.process(records[70:])
    assert whole.digest() == driver.partition.digest() == resumed.digest()
    assert outputs.scores == first.scores + second.scores
    assert outputs.examples == first.examples + second.examples
    ends = [partition.close_all().examples for partition in (whole, resumed)]
    assert ends[0] == ends[1] != []
    assert whole.digest() == resumed.digest()


def test_one_objective_that_is_todays_changes_no_byte() -> None:
    """Naming the only objective gives the outputs and the digest of no objective at all."""
    plain = small(histories=16)
    click = ObjectiveConfiguration(actions=("click",), window_ms=plain.joiner.attribution_window_ms)
    named = replace(plain, objectives=ObjectivesConfiguration(named={"click": click}))
    log = Driver(plain)
    for number in range(12):
        log.impression(str(number), user=f"u{number % 3}", item="film", ts=START_MS + number * MINUTE_MS)
    found = [Partition(each) for each in (plain, named)]
    assert found[0].process(log.log) == found[1].process(log.log)
    assert found[0].digest() == found[1].digest()


def weighed(weight_max: float = 10.0, **more: ObjectiveConfiguration) -> Configuration:
    """Return one objective whose values weigh, and others."""
    click = ObjectiveConfiguration(actions=("click",), weight="value", weight_max=weight_max)
    c = small(histories=16)
    joiner = replace(c.joiner, provisional_share=1.0)
    return replace(c, joiner=joiner, objectives=ObjectivesConfiguration(named={"click": click} | more))


@pytest.mark.parametrize(
    ("values", "weight"), [([3.0], 3.0), ([None], 1.0), ([0.0], 0.0), ([0.5, 4.0, None], 4.0), ([99.0], 10.0)]
)
def test_a_value_weighs_a_positive(values: list[float | None], weight: float) -> None:
    """A positive of weight w counts as w impressions that were acted on; the largest value counts, up to the limit."""
    driver = Driver(weighed())
    driver.impression("1", user="ann", item="film", ts=START_MS)
    for number, value in enumerate(values):
        event = {"type": "feedback", "id": f"f{number}", "impression": "1", "user": "ann", "item": "film"}
        driver.pipe(event | {"ts": START_MS + number, "action": "click"} | ({} if value is None else {"value": value}))
    [example] = pass_minutes(driver, 10)
    assert example.label == 1
    state = driver.partition.state
    assert state.learner.rates.overall[0, :2].tolist() == [weight, weight]
    assert state.waiting.weights[np.flatnonzero(state.waiting.offset == 0)[0]].tolist() == [weight]


def test_a_value_weighs_only_where_an_objective_wants_it() -> None:
    """Of two objectives one takes the value, and an action of another may have any."""
    driver = Driver(weighed(hide=ObjectiveConfiguration(actions=("hide",))))
    for number, action in enumerate(("click", "hide")):
        shown = {"user": "ann", "item": f"i{number}", "ts": START_MS}
        driver.impression(str(number), **shown)
        event = {"type": "feedback", "id": action, "impression": str(number), "action": action, "value": 4 - 9 * number}
        driver.pipe(event | shown)
    pass_minutes(driver, 10)
    state = driver.partition.state
    assert driver.fates["dead_lettered"] == 0
    assert state.learner.rates.overall[0, :2].tolist() == [5.0, 4.0]
    assert state.heads.overall[0, 0, :2].tolist() == [2.0, 1.0]


@pytest.mark.parametrize("count", [1, 12])
def test_a_negative_value_that_weighs_is_dead_lettered(count: int) -> None:
    """It says what is wrong, in a block of one event and in one of many, and sets no label."""
    driver = Driver(weighed())
    shown = {"type": "impression", "id": "1", "user": "ann", "item": "film", "ts": START_MS, "context": {}}
    acted = {"type": "feedback", "impression": "1", "user": "ann", "item": "film", "ts": START_MS, "action": "click"}
    piped = driver.pipe(shown, *(acted | {"id": str(number), "value": -2.5} for number in range(count)))
    assert [letter.reason for letter in piped.dead_letters] == ["bad_value"] * count
    assert piped.dead_letters[0].detail == "value is -2.5: it weighs what was done, so it must be 0 or more"
    assert not driver.partition.state.waiting.label.any()


def test_who_buys_dear_items_is_ranked_by_their_price() -> None:
    """Of two items that are bought as often, the one whose purchases weigh more has the higher score."""
    driver = Driver(weighed())
    for number in range(40):
        item, value = ("dear", 8.0) if number % 2 else ("cheap", 1.0)
        shown = {"user": f"u{number % 7}", "item": item, "ts": START_MS + number * 60_000}
        driver.impression(str(number), **shown)
        if number % 8 < 2:
            event = {
                "type": "feedback",
                "id": f"f{number}",
                "impression": str(number),
                "action": "click",
                "value": value,
            }
            driver.pipe(event | shown)
    pass_minutes(driver, 60)
    scores = [driver.impression(f"x{item}", user="eve", item=item, ts=driver.stream_time_ms).scores[0].score
              for item in ("cheap", "dear")]  # fmt: skip
    assert scores[0] < scores[1]


@pytest.mark.parametrize(
    ("order", "weights"),
    [
        ("", (1.0, 0.0, 0.0)),
        ("click", (1.0, 0.0, 0.0)),
        ("click + 20 * purchase", (1.0, 0.0, 20.0)),
        (" -2.5*hide+.5 * purchase - click", (-1.0, -2.5, 0.5)),
        ("1e3*purchase", (0.0, 0.0, 1000.0)),
    ],
)
def test_an_order_is_a_sum_with_signs(order: str, weights: tuple[float, ...]) -> None:
    """Each objective has its weight, one that is not named none."""
    assert weights_of(order, ("click", "hide", "purchase")) == weights


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["objectives.order=click + 20 * purchas"],
            "order names 'purchas', which is no objective: did you mean purchase?",
        ),
        (["objectives.order=click click"], "'click' is no term of one"),
        (["objectives.order=click + click"], "order names click twice"),
        (["objectives.order=click +"], "'+' is no term of one"),
        (["objectives.order=click * 20"], "'* 20' is no term of one"),
        (["objectives.order=1e999 * click"], "order has 1e999, which no number is as large as"),
        (["objectives.order=1.2.3 * click"], "order has '1.2.3', which is no number"),
        (["objectives.a-b.actions=x"], "the objective 'a-b' must have a name of letters, digits and _"),
        (
            ["objectives.buy.actions=purchase", "objectives.buy.window_ms=7"],
            "has the actions and the window of another one",
        ),
        (
            ["objectives.buy.window_ms=7"],
            'actions must name the positive actions, each once, as in actions = ["click"]',
        ),
        (["objectives.buy.actions=x", "objectives.buy.window_ms=0"], "must lie within 1 and 3,162,240,000,000"),
        (["objectives.buy.actions=x", "objectives.buy.weight=price"], "objectives.buy.weight"),
        (["objectives.buy.actions=x", "objectives.buy.weight_max=0"], "objectives.buy.weight_max"),
        (["objectives.buy.colour=red"], "unknown key objectives.buy.colour"),
        (["objectives.buy=red"], "objectives.buy"),
        (["joiner.positive_actions=like"], "joiner.positive_actions is not that of the first of the objectives, click"),
        (["joiner.attribution_window_ms=5"], "joiner.attribution_window_ms is not that of the first"),
        (["joiner.attribution_window_ms_by_action.click=5"], "is not for objectives: each has its own window_ms"),
        (["lessons.enabled=true"], "lessons.enabled needs a single objective: lessons carry one label"),
        (["learner.model=river:linear_model.LogisticRegression"], "several need the built-in model (learner.model)"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(flags: list[str], message: str) -> None:
    """One line says what is wrong and what to do."""
    base = ["objectives.click.actions=click", "objectives.purchase.actions=purchase", "objectives.purchase.window_ms=7"]
    with pytest.raises(ConfigurationError) as refused:
        load(None, environment={}, flags=[*base, *flags])
    assert message in str(refused.value)
    assert str(refused.value).isprintable()


def test_an_order_without_objectives_is_refused() -> None:
    """An order names objectives, and there must be some."""
    with pytest.raises(ValueError, match="order is of objectives, and there are none"):
        ObjectivesConfiguration(order="click")


def test_the_first_objective_is_the_joiners() -> None:
    """The first one named takes the place of the joiner's actions and window; the order of the others is no matter."""
    c = shop()
    assert (c.joiner.positive_actions, c.joiner.attribution_window_ms) == (("click",), WINDOWS_MS["click"])
    assert c.objectives.names == ("click", "hide", "purchase")
    assert JoinerConfiguration().positive_actions == ("click",)
