"""The River faces: River's own checks, and what an estimator of ours promises beyond them."""

import copy
import itertools
import math
import pickle
import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pytest
from river import base, checks, compose, linear_model, metrics, preprocessing, tree
from thalweg.operators.estimators import AdmittedEmbedding, ErrorMemory, SequenceInterest
from thalweg.operators.estimators.feature_vector import FeatureVector
from thalweg.operators.ftrl import Part

SMALL: dict[str, Any] = {"users_limit": 64, "items_limit": 256, "histories_limit": 8, "size": 8}
DAYS = ("ordinal_date", "gallup")


def estimators() -> Iterator[Any]:
    """Estimators under River's checks; two of the data sets' own features stand for user and item."""
    yield SequenceInterest(user="ordinal_date", item="gallup", **SMALL)
    yield AdmittedEmbedding(DAYS, loss="squared", rows_limit=256, filter_cells=256)
    yield AdmittedEmbedding(DAYS, loss="squared", expire_time=20, occurrence_threshold=1, rows_limit=256)
    yield ErrorMemory(linear_model.LogisticRegression(), arrays=2, bits=6)
    yield ErrorMemory(tree.HoeffdingTreeClassifier(), user="https", item="long_url", learn=False)


def river_checks() -> Iterator[Any]:
    for model in estimators():
        for number, check in enumerate(checks.yield_checks(model)):
            name = check.__name__
            if isinstance(model, SequenceInterest) and "dataset" in getattr(check, "keywords", {}):
                # River's data set for transformers has ratings for labels: whether an item was taken is true or false.
                check = partial(check.func, dataset=[(x, y > 43) for x, y in check.keywords["dataset"]])
            yield pytest.param(model, check, id=f"{model}-{name}-{number}")


@pytest.mark.parametrize(("model", "check"), list(river_checks()))
def test_river_finds_nothing(model: Any, check: Callable[[Any], None]) -> None:
    """Each of River's own checks for the kind of estimator must pass."""
    check(model.clone())


def test_the_order_of_features_changes_no_bit() -> None:
    """Features must be summed in the order of their names: two huge ones that cancel hide no small one between them."""
    x = {1: 1e17, "x": 1.0, "1": -1e17}
    found = {FeatureVector(16, 3).read(dict(each)).tobytes() for each in itertools.permutations(x.items())}
    assert len(found) == 1


def visits(count: int, seed: int = 3) -> Iterator[tuple[dict[str, Any], bool]]:
    """Users who take the items whose first number has the sign of theirs."""
    chance = random.Random(seed)
    for _ in range(count):
        user, item = chance.randrange(20), chance.randrange(100)
        numbers = {f"x{i}": random.Random(item * 10 + i).gauss(0, 1) for i in range(5)}
        yield {"user": f"u{user}", "item": f"i{item}"} | numbers, (numbers["x0"] > 0) == (user % 2 == 0)


MODELS = [
    SequenceInterest(**SMALL, short_length=4),
    AdmittedEmbedding(rows_limit=64),
    ErrorMemory(linear_model.LogisticRegression(), user="user", item="item"),
]


def answer(model: Any, x: dict[str, Any]) -> dict[Any, float]:
    if isinstance(model, base.Classifier):
        found: dict[Any, float] = model.predict_proba_one(x)
    else:
        found = model.transform_one(x)
    return found


@pytest.mark.parametrize("fresh", MODELS, ids=str)
def test_an_answer_changes_nothing(fresh: Any) -> None:
    """Asking, for what is known and for what is new, must leave the pickled model as it was, bit for bit."""
    model = fresh.clone()
    for number, (x, y) in enumerate(visits(200)):
        model.learn_one(numeric(model, x), y)
        if number % 40 == 0:
            before = pickle.dumps(model)
            for asked, _ in visits(5, seed=number):
                answer(model, numeric(model, asked))
                answer(model, numeric(model, asked | {"user": "new", "item": "new"}))
            assert pickle.dumps(model) == before


@pytest.mark.parametrize("fresh", MODELS, ids=str)
@pytest.mark.parametrize(
    "copied", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy], ids=["pickle", "copy"]
)
def test_a_copy_goes_on_as_the_model_would(fresh: Any, copied: Callable[[Any], Any]) -> None:
    """A pickled or copied model must give the same answers from then on, and share nothing."""
    model = fresh.clone()
    events = list(visits(400))
    for x, y in events[:200]:
        model.learn_one(numeric(model, x), y)
    twin = copied(model)
    for x, y in events[200:]:
        assert answer(model, numeric(model, x)) == answer(twin, numeric(twin, x))
        model.learn_one(numeric(model, x), y)
        twin.learn_one(numeric(twin, x), y)


@pytest.mark.parametrize("fresh", MODELS, ids=str)
def test_the_same_seed_gives_the_same_answers(fresh: Any) -> None:
    """Two clones must agree; one with another seed must not."""
    one, same, other = fresh.clone(), fresh.clone(), fresh.clone({"seed": 5})
    differs = False
    for x, y in visits(400):
        asked = numeric(one, x)
        assert answer(one, asked) == answer(same, asked)
        differs |= answer(one, asked) != answer(other, asked)
        for model in (one, same, other):
            model.learn_one(asked, y)
    assert differs


def numeric(model: Any, x: dict[str, Any]) -> dict[str, Any]:
    """Ids as numbers for a classifier, whose model inside can't read texts."""
    if not isinstance(model, base.Classifier):
        return x
    return {
        name: float(value[1:]) / 100 if value[1:].isdigit() else 0.5
        for name, value in x.items()
        if isinstance(value, str)
    } | {name: value for name, value in x.items() if not isinstance(value, str)}


def test_interest_knows_what_a_user_took() -> None:
    """A candidate like what the user took must match more than one unlike it, taken lately or long ago."""
    model = SequenceInterest(**SMALL, short_length=4)
    liked, disliked = {"a": 1.0, "b": 0.2}, {"a": -1.0, "b": 0.1}
    for number in range(40):
        model.learn_one({"user": "u", "item": f"i{number}"} | liked, True)
        model.learn_one({"user": "u", "item": f"j{number}"} | disliked, False)
    near = model.transform_one({"user": "u", "item": "new"} | liked)
    far = model.transform_one({"user": "u", "item": "new"} | disliked)
    assert near["match_short"] > 0.99
    assert near["match_long"] > 0.99
    assert far["match_short"] < 0
    assert far["match_long"] < 0.1
    assert not any(model.transform_one({"user": "v", "item": "new"} | liked).values())
    assert not any(model.transform_one({"item": "new"} | liked).values())


def test_interest_forgets_users_and_items_at_its_limits() -> None:
    """The user and the item that were not touched for longest must make room, and nobody may inherit their rows."""
    model = SequenceInterest(users_limit=2, items_limit=2, size=8, short_length=4)
    x = {"a": 1.0}
    for user in ("u", "v", "w"):
        model.learn_one({"user": user, "item": "i"} | x)
    assert not any(model.transform_one({"user": "u"} | x).values())
    assert model.transform_one({"user": "w"} | x)["match_short"] == pytest.approx(1.0)
    for item in ("j", "k"):
        model.learn_one({"user": "x", "item": item, "a": -1.0})
    assert not any(model.transform_one({"user": "w"} | x).values())


def test_interest_in_a_pipeline_never_sees_the_candidate_in_its_own_history() -> None:
    """A pipeline must transform before the sequence is extended: the first event of a user reads zeros."""
    seen: list[dict[str, float]] = []

    class Spy(linear_model.LogisticRegression):  # type: ignore[misc]
        def learn_one(self, x: dict[str, float], y: bool) -> None:
            seen.append(dict(x))
            super().learn_one(x, y)

    model = SequenceInterest(**SMALL) | Spy()
    for _ in range(2):
        model.learn_one({"user": "u", "item": "i", "a": 1.0}, True)
    assert not any(seen[0].values())
    assert seen[1]["match_short"] == pytest.approx(1.0)


def test_an_embedding_is_zero_until_admitted_and_after_expiry() -> None:
    """A value must read zeros before its threshold, learn from then on, and read zeros at exactly the expire time."""
    model = AdmittedEmbedding(("user",), occurrence_threshold=3, expire_time=1_000, time="ts", rows_limit=8)
    for ts in (10, 20):
        model.learn_one({"user": "u", "ts": ts}, True)
        assert not any(model.transform_one({"user": "u", "ts": ts}).values())
    model.learn_one({"user": "u", "ts": 30}, True)
    assert model.transform_one({"user": "u", "ts": 30})["user_weight"] > 0
    assert any(model.transform_one({"user": "u", "ts": 1_029}).values())
    assert not any(model.transform_one({"user": "u", "ts": 1_030}).values())
    assert not any(model.transform_one({"ts": 30}).values())


def test_embeddings_share_no_row_and_stay_within_their_limit() -> None:
    """Among many values each must learn its own rate; beyond the limit the oldest make room and no memory is added."""
    model = AdmittedEmbedding(("item",), size=1, occurrence_threshold=1, rows_limit=500)
    for _, item in itertools.product(range(30), range(500)):
        model.learn_one({"item": item}, item % 2 == 0)
    weights = [model.transform_one({"item": item})["item_weight"] for item in range(500)]
    assert min(weights[::2]) > 0 > max(weights[1::2])
    for item in range(500, 2_000):
        model.learn_one({"item": item}, True)
    assert model._coordinates.shape[0] == 500
    assert not any(any(model.transform_one({"item": item}).values()) for item in range(500))


def test_an_embedding_learns_the_gradient_of_its_loss() -> None:
    """One step must move a weight and a vector as FTRL does against the factorisation machine's gradient."""
    model = AdmittedEmbedding(size=2, occurrence_threshold=1, rows_limit=8, alpha=0.5)
    x = {"user": "u", "item": "i"}
    model.learn_one(x)  # without a label, only rows and what they begin with
    before = model.transform_one(x)
    model.learn_one(x, True)
    after = model.transform_one(x)
    error = 1 / (1 + math.exp(-before["user*item"])) - 1
    assert after["user_weight"] == pytest.approx(-error / (1 / 0.5 + abs(error) / 0.5), rel=1e-5)
    # z = g - sigma * (w - w0) = g at the first step, so that w = w0 - g / (beta / alpha + |g| / alpha)
    gradient = error * before["item_0"]
    assert after["user_0"] == pytest.approx(before["user_0"] - gradient / (2 + 2 * abs(gradient)), rel=1e-5)
    assert float(model._bias[0, Part.WEIGHT, 0]) > 0


def test_an_embedding_without_a_label_that_it_can_learn_says_so() -> None:
    """A number for a logistic loss, and a class for a binary corrector, must be refused in one line."""
    with pytest.raises(ValueError, match="choose loss='squared'"):
        AdmittedEmbedding().learn_one({"user": "u"}, 4.5)
    with pytest.raises(ValueError, match="true or false, 1 or 0, not 'sky'"):
        ErrorMemory(linear_model.LogisticRegression()).learn_one({"a": 1.0}, "sky")
    with pytest.raises(ValueError, match="feature 'label' is nan"):
        AdmittedEmbedding(loss="squared").learn_one({"user": "u"}, math.nan)


NO_LABELS = [math.nan, -1, 2, 0.5, math.inf, "no", "0", "False", "true", b"1", [1], (), np.float64("nan"), np.int64(2)]


@pytest.mark.parametrize("fresh", MODELS, ids=str)
@pytest.mark.parametrize("label", NO_LABELS, ids=repr)
def test_labels_that_are_none_are_refused_and_change_nothing(fresh: Any, label: Any) -> None:
    """Only true, false, 1 and 0 of any number type are labels; the model must stay as it was after others."""
    model = fresh.clone()
    x = numeric(model, {"user": "u1", "item": "i1", "a": 1.0})
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match=r"true (or|and) false, 1 (or|and) 0, not"):
        model.learn_one(x, label)
    assert pickle.dumps(model) == before
    for good in (True, False, 1, 0, 1.0, 0.0, np.bool_(True), np.int8(0), np.float32(1)):
        model.learn_one(x, good)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400], ids=repr)
def test_features_that_are_not_finite_are_refused(value: Any) -> None:
    """A number that is none must be refused by name, in learning and in answering, and change nothing."""
    interest = SequenceInterest(**SMALL)
    memory = ErrorMemory(linear_model.LogisticRegression())
    for model, x in ((interest, {"user": "u", "item": "i", "a": value}), (memory, {"a": value})):
        before = pickle.dumps(model)
        with pytest.raises(ValueError, match=r"feature 'a' is -?(nan|inf)"):
            model.learn_one(x, True)
        with pytest.raises(ValueError, match=r"feature 'a' is -?(nan|inf)"):
            answer(model, x)
        assert pickle.dumps(model) == before
    with pytest.raises(ValueError, match="feature 'a' is"):
        interest.learn_one({"user": "u", "item": "i", "a": object()}, True)
    if isinstance(value, float):
        for model in (SequenceInterest(**SMALL), AdmittedEmbedding(rows_limit=8)):
            with pytest.raises(ValueError, match="feature 'user' is"):
                model.learn_one({"user": value, "item": "i"}, True)


@pytest.mark.parametrize("huge", [1e20, 1e38, -1e38, 1e150, 1.7e308, 10**300])
def test_huge_features_neither_become_nan_nor_hide_a_user(huge: float) -> None:
    """A vector of a huge feature must keep its direction, and a user's other behaviours must still be found."""
    model = SequenceInterest(**SMALL, short_length=4)
    liked = {"a": 1.0, "b": 0.2}
    for number in range(20):
        model.learn_one({"user": "u", "item": f"i{number}"} | liked, True)
        if number % 6 == 5:
            model.learn_one({"user": "u", "item": f"h{number}", "c": huge}, True)
    near = model.transform_one({"user": "u", "item": "new"} | liked)
    same = model.transform_one({"user": "u", "item": "new", "c": huge})
    scaled = model.transform_one({"user": "u", "item": "new", "c": math.copysign(1e6, huge)})
    assert all(map(math.isfinite, [*near.values(), *same.values()]))
    assert near["match_long"] > 0.05
    assert near["match_short"] != 0.0
    assert same["match_short"] > 0.5
    assert same == pytest.approx(scaled, abs=1e-5)
    both = model.transform_one({"user": "u", "item": "new", "c": huge, "d": huge})
    assert both != pytest.approx(same, abs=1e-2)


@pytest.mark.parametrize("huge", [1e20, 1e38, 1.7e308])
def test_an_error_memory_of_huge_features_stays_finite(huge: float) -> None:
    """Whatever the model inside does with huge features, probabilities must be finite, for other examples too."""
    model = ErrorMemory(linear_model.LogisticRegression())
    for number in range(50):
        model.learn_one({"a": huge if number % 5 == 0 else 1.0, "b": -huge}, number % 2 == 0)
        for x in ({"a": huge, "b": huge}, {"a": 1.0}, {"a": -1.0, "b": 2.0}):
            assert 0.0 < model.predict_proba_one(x)[True] < 1.0


MOMENT = datetime(2024, 3, 31, 2, 30, tzinfo=UTC)
MOMENT_MS = 1711852200000


@pytest.mark.parametrize(
    "moment",
    [
        MOMENT,
        MOMENT.replace(tzinfo=None),
        MOMENT.astimezone(timezone(timedelta(hours=2))),
        np.datetime64("2024-03-31T02:30:00.000000000"),
        MOMENT_MS,
        float(MOMENT_MS),
        np.int64(MOMENT_MS),
        Decimal(MOMENT_MS),
    ],
    ids=repr,
)
def test_times_are_moments_or_numbers(moment: Any) -> None:
    """A row must expire at the same millisecond, however the time of its sighting is given."""
    model = AdmittedEmbedding(("user",), occurrence_threshold=1, expire_time=1_000, time="at", rows_limit=8)
    model.learn_one({"user": "u", "at": moment}, True)
    assert any(model.transform_one({"user": "u", "at": MOMENT_MS + 999}).values())
    assert not any(model.transform_one({"user": "u", "at": MOMENT + timedelta(seconds=1)}).values())
    model.learn_one({"user": "v", "at": None}, True)
    assert model._now == MOMENT_MS


@pytest.mark.parametrize(
    "value",
    [Decimal("NaN"), np.datetime64("NaT"), math.nan, [1], {}, {"a"}, np.zeros(2), object()],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("fresh", [AdmittedEmbedding, SequenceInterest])
def test_what_is_no_category_is_refused(fresh: Any, value: Any) -> None:
    """Whatever stands for nothing, a collection or an object without a text of its own must not become an id."""
    model = fresh()
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match="feature 'item' is"):
        model.learn_one({"user": "u", "item": value, "a": 1.0}, True)
    assert pickle.dumps(model) == before


def test_a_date_is_its_first_moment() -> None:
    """A date must be midnight in UTC."""
    model = AdmittedEmbedding(time="at", rows_limit=8)
    model.learn_one({"user": "u", "at": date(2024, 3, 31)})
    assert model._now == MOMENT_MS - 9_000_000


@pytest.mark.parametrize(
    "moment",
    [
        *("2024-03-31", True, math.nan, math.inf, np.datetime64("NaT"), 1 << 62, 10**400, [1], timedelta(1)),
        *(-1, date(1969, 12, 31), np.timedelta64(1, "s")),
    ],
    ids=repr,
)
def test_a_time_that_is_none_is_refused(moment: Any) -> None:
    """What is no time must be refused by name, with what would do, and change nothing."""
    model = AdmittedEmbedding(time="at", rows_limit=8)
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match="'at' is"):
        model.learn_one({"user": "u", "at": moment}, True)
    assert pickle.dumps(model) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdmittedEmbedding(()), "1 to 64 features"),
        (lambda: AdmittedEmbedding(("a", "a")), "each once"),
        (lambda: AdmittedEmbedding(loss="hinge"), "loss must be one of"),
        (lambda: AdmittedEmbedding(admission="maybe"), "admission must be one of"),
        (lambda: AdmittedEmbedding(alpha=0), "alpha must be above 0"),
        (lambda: AdmittedEmbedding(alpha=math.nan), "alpha must be above 0"),
        (lambda: AdmittedEmbedding(l2=-1.0), "l2 at least 0"),
        (lambda: AdmittedEmbedding("user"), r"write \('user',\)"),  # type: ignore[arg-type]
        (lambda: AdmittedEmbedding(expire_time=1.5), "expire_time must be a whole number"),  # type: ignore[arg-type]
        (lambda: AdmittedEmbedding(seed=1 << 70), "seed must be a whole number"),
        (lambda: SequenceInterest(seed="x"), "seed must be a whole number"),  # type: ignore[arg-type]
        (lambda: SequenceInterest(size=1 << 30), "size must be a whole number from 1 to 65,536"),
        (lambda: ErrorMemory(linear_model.LinearRegression()), "gives probabilities, not LinearRegression"),  # type: ignore[arg-type]
        (lambda: AdmittedEmbedding(occurrence_threshold=70_000), "within 0 and 65,535"),
        (lambda: SequenceInterest(size=0), "size must be a whole number from 1"),
        (lambda: SequenceInterest(groups=32, tau=3), "at most 63"),
        (lambda: ErrorMemory(linear_model.LogisticRegression(), bits=0), "bits must lie"),
        (lambda: ErrorMemory(linear_model.LogisticRegression(), lambda_max=-1), "lambda_max must lie"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    """A constructor must say in one line what is wrong."""
    with pytest.raises(ValueError, match=message):
        make()


def drifting(seed: int, count: int, drifts: tuple[int, ...]) -> Iterator[tuple[dict[str, float], bool]]:
    """Eight numbers whose weights are drawn anew at each drift; labels by the probability that they give."""
    chance = random.Random(seed)
    weights: list[float] = []
    for number in range(count):
        if number == 0 or number in drifts:
            weights = [chance.gauss(0, 1.5) for _ in range(8)]
        x = {f"x{i}": chance.gauss(0, 1) for i in range(8)}
        logit = sum(weight * value for weight, value in zip(weights, x.values(), strict=True))
        yield x, chance.random() < 1 / (1 + math.exp(-logit))


def log_loss(model: Any, events: Iterator[tuple[dict[str, float], bool]]) -> float:
    metric = metrics.LogLoss()
    for x, y in events:
        metric.update(y, model.predict_proba_one(x))
        model.learn_one(x, y)
    return float(metric.get())


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.large
def test_the_error_memory_improves_a_model_under_drift(seed: int) -> None:
    """Around a learning model and a frozen one, the memory must win log loss where tastes change."""
    events = list(drifting(seed, 8_000, (3_000, 5_500)))
    alone = log_loss(linear_model.LogisticRegression(), iter(events))
    corrected = log_loss(ErrorMemory(linear_model.LogisticRegression()), iter(events))
    assert corrected < alone - 0.005

    frozen = linear_model.LogisticRegression()
    for x, y in events[:3_000]:
        frozen.learn_one(x, y)

    class Frozen(base.Wrapper, base.Classifier):  # type: ignore[misc]
        _wrapped_model = frozen

        def learn_one(self, x: dict[str, float], y: bool) -> None:
            pass

        def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
            found: dict[bool, float] = frozen.predict_proba_one(x)
            return found

    alone = log_loss(Frozen(), iter(events[3_000:]))
    assert log_loss(ErrorMemory(Frozen(), learn=False), iter(events[3_000:])) < 0.9 * alone


@pytest.mark.large
def test_the_error_memory_does_no_harm_where_there_is_nothing_to_correct() -> None:
    """Around probabilities that are true, log loss must stay within .003."""
    chance = random.Random(8)
    events = [({"p": chance.random()}, 0) for _ in range(6_000)]
    labelled = [(x, chance.random() < x["p"]) for x, _ in events]

    class Truth(base.Classifier):  # type: ignore[misc]
        def learn_one(self, x: dict[str, float], y: bool) -> None:
            pass

        def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
            return {True: x["p"], False: 1 - x["p"]}

    assert log_loss(ErrorMemory(Truth()), iter(labelled)) < log_loss(Truth(), iter(labelled)) + 0.003


def test_a_correction_leaves_a_tenth_of_either_outcome() -> None:
    """However wrong a model was, its probability must not be taken below a tenth of itself, nor to 0 or 1."""

    class Stubborn(base.Classifier):  # type: ignore[misc]
        def learn_one(self, x: dict[str, float], y: bool) -> None:
            pass

        def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
            return {True: x["p"], False: 1 - x["p"]}

    model = ErrorMemory(Stubborn(), user="p")
    for _ in range(1_000):
        model.learn_one({"p": 0.4}, False)
        model.learn_one({"p": 0.6}, True)
    for p in (0.0, 0.1, 0.4, 0.6, 0.9, 1.0):
        corrected = model.predict_proba_one({"p": p})[True]
        assert max(0.1 * p, 1e-6) <= corrected <= min(1 - 0.1 * (1 - p), 1 - 1e-6)
    assert model.predict_proba_one({"p": 0.4})[True] < 0.1
    assert model.predict_proba_one({"p": 0.6})[True] > 0.9


@pytest.mark.large
def test_estimators_stand_in_one_pipeline() -> None:
    """All three must work together in one pipeline with River's own, and beat it without them."""
    numbers = compose.Discard("user", "item") | preprocessing.StandardScaler()
    model = (numbers + SequenceInterest(**SMALL) + AdmittedEmbedding(occurrence_threshold=2)) | ErrorMemory(
        linear_model.LogisticRegression()
    )
    assert (
        log_loss(model, visits(2_000))
        < log_loss(numbers.clone() | linear_model.LogisticRegression(), visits(2_000)) - 0.05
    )
    assert isinstance(model.clone(), compose.Pipeline)
