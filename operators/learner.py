"""The online model: a field-weighted factorisation machine, and a small dense level that decides how far to trust it.

    machine = sum_f w_f + sum_{f<g} r_fg <v_f, v_g> + sum_f sum_i r_fi <v_f, interest_i>
    logit   = overall log-odds + bias + trust machine + sum_f (a_f rate_f + e_f residual_f)

`v_f` is the mean of the latent vectors of a field's values; a latent vector starts from a small value derived from its
key. Everything learns by FTRL-Proximal with per-coordinate rates (`ftrl`) from one logistic loss. A label comes when
its window closes. The machine learns from it with its rows as they are then. The dense level learns with the machine's
logit as it was served, since it has to find out how far that can be trusted. Pan et al., Field-weighted Factorization
Machines (2018); McMahan et al., Ad Click Prediction (2013).
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators import derived, features, ftrl
from thalweg.operators.cross import CrossConfiguration
from thalweg.operators.ftrl import Coordinates, Rate
from thalweg.operators.machine.compiled import clear, compiled, float32
from thalweg.operators.machine.declare import part, per, side_by_side
from thalweg.operators.machine.hashing import uniform
from thalweg.operators.machine.lanes import (
    LANES,
    add_scaled_lanes,
    clear_lanes,
    dot_lanes,
    learn_pairs_lanes,
    padded,
    score_pairs_lanes,
)
from thalweg.operators.rates import Rates, RatesParameters
from thalweg.schemas.bounds import FACTOR_MAX, MS_MAX, PSEUDO_COUNT_MAX, RATE_MIN, SHARE_MIN, check, within

LATENT_SALT = 0x1A7
BUILT_IN = "fwfm"
RIVER = re.compile(r"river:([A-Za-z_][\w.]*( *\| *[A-Za-z_][\w.]*)*|[A-Za-z_][\w.]*:[A-Za-z_]\w*)")
ModelFeatures = Literal["indicators", "original"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerConfiguration(CrossConfiguration):
    """How the model learns (`[learner]`).

    `model`: the model itself, "fwfm" built in, or a River classifier in its place: "river:" and its name in River, with
    transformers before it if need be ("river:preprocessing.StandardScaler | linear_model.LogisticRegression"), or
    "river:MODULE:NAME", one's own. `model_arguments`: what a River classifier is made with, by name.
    `model_features`: how it sees the values of fields, as "indicators", 1 under the name of field and bucket, or as
    "original" numbers and strings. `indicator_buckets`: buckets of a field's indicators, which bound what is learned
    of ever new values. `allow_pickle`: take a River classifier's pickle into checkpoints, which needs a key.

    `latent_size`: coordinates of a latent vector; `latent_initial`: the largest initial one. `pair_initial`: initial
    weight of two fields; `user_item_initial`, of user and item; `derived_initial`, where one is derived;
    `interest_initial`, of a field and an interest. `rate_initial`: initial weight of a field's rate. `rate_prior`:
    pseudo-exposures of rates; `residual_half_life_ms`: of the residuals. `recent_items`: items the user acted on last
    that make a field. `shown_items`: items the user was shown last, on earlier pages, that make another.
    `interests`: whether the candidate's interest in the user's sequences is read; without, no long histories are kept.
    `alpha_…`: learning rates of weights, latent vectors, pairs and the dense level (`beta` is 1); `l1`, `l2`:
    regularisation of weights and vectors. `frozen_from_ms`: the stream time from which on no weight moves any more (0:
    never); rates, sequences and the error memory keep learning.
    """

    model: str = BUILT_IN
    model_arguments: dict[str, bool | int | float | str] = field(default_factory=dict)
    model_features: ModelFeatures = "indicators"
    indicator_buckets: Annotated[int, within(1, 1 << 32)] = 1 << 18
    allow_pickle: bool = False
    latent_size: Annotated[int, within(1, 64)] = 8
    latent_initial: Annotated[float, within(0.0, FACTOR_MAX)] = 0.03
    pair_initial: Annotated[float, within(-FACTOR_MAX, FACTOR_MAX)] = 0.2
    user_item_initial: Annotated[float, within(-FACTOR_MAX, FACTOR_MAX)] = 2.0
    derived_initial: Annotated[float, within(-FACTOR_MAX, FACTOR_MAX)] = 0.15
    interest_initial: Annotated[float, within(-FACTOR_MAX, FACTOR_MAX)] = 0.1
    rate_initial: Annotated[float, within(-FACTOR_MAX, FACTOR_MAX)] = 0.2
    rate_prior: Annotated[float, within(SHARE_MIN, PSEUDO_COUNT_MAX)] = 5.0
    residual_half_life_ms: Annotated[int, within(1, MS_MAX)] = 1_800_000
    recent_items: Annotated[int, within(0, 32)] = 3
    shown_items: Annotated[int, within(0, 32)] = 4
    interests: bool = True
    alpha_weight: Annotated[float, within(RATE_MIN, FACTOR_MAX)] = 0.03
    alpha_latent: Annotated[float, within(RATE_MIN, FACTOR_MAX)] = 0.3
    alpha_pair: Annotated[float, within(RATE_MIN, FACTOR_MAX)] = 0.1
    alpha_dense: Annotated[float, within(RATE_MIN, FACTOR_MAX)] = 0.05
    l1: Annotated[float, within(0.0, PSEUDO_COUNT_MAX)] = 0.0
    l2: Annotated[float, within(0.0, PSEUDO_COUNT_MAX)] = 0.0
    frozen_from_ms: Annotated[int, within(0, 2 * MS_MAX)] = 0

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds; no River classifier is looked up by its name yet."""
        check(self)
        if self.model != BUILT_IN and not RIVER.fullmatch(self.model):
            raise ValueError(f'model must be "{BUILT_IN}", "river:NAME" or "river:MODULE:NAME"')
        if self.model == BUILT_IN and self.model_arguments:
            raise ValueError("model_arguments are a River classifier's: the model is built in")


class LearnerParameters(NamedTuple):
    """The configuration as the compiled code takes it; `is_replaced`: another model scores and learns."""

    is_replaced: bool
    latent_initial: float
    seed: int
    frozen_from_ms: int
    weight: Rate
    latent: Rate
    pair: Rate
    dense: Rate
    rates: RatesParameters


@side_by_side(is_dense=True)
class Learner(NamedTuple):
    """What is learned, all of it FTRL coordinates (`ftrl.Part`), and the rates that it reads."""

    features: Annotated[
        Coordinates, per("values 5 1+d", "weight, latent vector", seen_as=lambda values: ftrl.learned(values.features))
    ]
    rates: Annotated[Rates, part()]
    pairs: Annotated[
        Coordinates,
        per("fields 5 pairs", "weights of two fields, and of a field and an interest, padded", apart=True),
    ]
    dense: Annotated[
        Coordinates, per("1 5 dense", "weights of each field's rate and residual, trust in the machine, bias, padded")
    ]


class Pooled(NamedTuple):
    """One impression as the machine sees it.

    `vectors` float32 [fields + interests, d], the mean latent vector of each field's values, and the interests;
    `present` int32 [fields + interests], the places that have a vector; `values` int32 [fields], how many a field has.
    `counts` int32 [3]: how many of these places are fields, how many there are, and whether `behind` is there.
    `behind` float32 [fields, d]: of a field from the item on, the sum of r_fg v_g over the fields behind it.
    """

    vectors: npt.NDArray[np.float32]
    present: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    values: npt.NDArray[np.int32]
    behind: npt.NDArray[np.float32]


class Gradients(NamedTuple):
    """Scratch of one step.

    `vectors` float32 [fields + interests, d], the gradient of each vector; `weighted` float32 [d]; `pairs` float32
    [fields + interests], padded; `dense` float32 [2 fields + 2], padded.
    """

    vectors: npt.NDArray[np.float32]
    weighted: npt.NDArray[np.float32]
    pairs: npt.NDArray[np.float32]
    dense: npt.NDArray[np.float32]


def learner_parameters(configuration: LearnerConfiguration, seed: int) -> LearnerParameters:
    """Return what the compiled code needs of the configuration."""
    c = configuration
    return LearnerParameters(
        c.model != BUILT_IN,
        c.latent_initial,
        seed,
        c.frozen_from_ms,
        weight=ftrl.rate(c.alpha_weight, l1=c.l1, l2=c.l2),
        latent=ftrl.rate(c.alpha_latent, l1=c.l1, l2=c.l2),
        pair=ftrl.rate(c.alpha_pair),
        dense=ftrl.rate(c.alpha_dense),
        rates=RatesParameters(float(c.residual_half_life_ms), c.rate_prior),
    )


def learner_sizes(configuration: LearnerConfiguration, fields: int, interests: int) -> dict[str, int]:
    """Return the sizes of the learner's arrays, for so many fields and interests."""
    sizes = {"fields": fields, "pairs": padded(fields + interests), "dense": padded(2 * fields + 2)}
    return sizes | {"1+d": 1 + configuration.latent_size}


def start_weights(learner: Learner, configuration: LearnerConfiguration) -> None:
    """Write the weights of a model that has learned nothing; the last of its fields are the derived ones."""
    c, fields = configuration, learner.pairs.shape[0]
    own, both = fields - derived.FIELDS, slice(ftrl.Part.WEIGHT, ftrl.Part.INITIAL + 1)
    learner.pairs[:, both] = c.pair_initial
    learner.pairs[features.USER, both, features.ITEM] = c.user_item_initial
    learner.pairs[own:, both] = c.derived_initial
    learner.pairs[:, both, own:fields] = c.derived_initial
    learner.pairs[:, both, fields:] = c.interest_initial
    learner.dense[0, both, 0 : 2 * fields : 2] = c.rate_initial
    learner.dense[0, both, 2 * fields] = 1.0


def new_pooled(fields: int, interests: int, size: int) -> Pooled:
    """Return room for one impression of at most so many fields and interests, in vectors of `size` coordinates."""
    places = fields + interests
    counts, values = np.zeros(3, np.int32), np.zeros(fields, np.int32)
    vectors, behind = np.zeros((places, size), np.float32), np.zeros((fields, size), np.float32)
    return Pooled(vectors, np.zeros(places, np.int32), counts, values, behind)


def new_gradients(fields: int, interests: int, size: int) -> Gradients:
    """Return scratch for one step of an impression of at most so many fields and interests."""
    places = fields + interests
    shapes = ((places, size), size, padded(places), padded(2 * fields + 2))
    return Gradients(*(np.zeros(shape, np.float32) for shape in shapes))


@compiled
def start_vector(learner: Learner, row: int, key: int, parameters: LearnerParameters) -> None:
    """Start the latent vector of an empty row from a value derived from its key."""
    c = learner.features[row]
    for i in range(1, c.shape[1]):
        start = float32((2.0 * uniform(key, parameters.seed + LATENT_SALT + i) - 1.0) * parameters.latent_initial)
        c[ftrl.Part.WEIGHT, i] = start
        c[ftrl.Part.INITIAL, i] = start


@compiled
def pool_fields(
    learner: Learner,
    pooled: Pooled,
    count: int,
    field: npt.NDArray[np.uint8],
    row: npt.NDArray[np.int32],
    interests: npt.NDArray[np.float32],
    is_alike: bool,
) -> float:
    """Write each field's mean latent vector to `pooled` and return the sum of the fields' mean weights.

    `field`, `row` [count or more]; a row of -1 (not admitted, or gone) reads as zeros. `interests` [interests * d]. It
    `is_alike` if the impression that was pooled before differs in the item alone: then the other vectors stay.
    """
    values, vectors, present = pooled.values, pooled.vectors, pooled.present
    fields, size = values.shape[0], vectors.shape[1]
    stay = is_alike and (values[features.ITEM] > 0) == (row[features.ITEM] >= 0)
    if stay:
        clear_vector(vectors[features.ITEM])
    else:
        find_present(pooled, count, field, row)
    places = pooled.counts[0]
    total = float32(0.0)
    for value in range(count):
        if row[value] >= 0:
            share = float32(1.0) / float32(values[field[value]])
            weights = learner.features[row[value], ftrl.Part.WEIGHT]
            total += weights[0] * share
            if not stay or value == features.ITEM:
                add_scaled(vectors[field[value]], share, weights[1:])
    for interest in range(interests.shape[0] // size):
        any_value = float32(0.0)
        for i in range(size):
            x = interests[interest * size + i]
            vectors[fields + interest, i] = x
            any_value += abs(x)
        if any_value > 0.0:
            present[places] = fields + interest
            places += 1
    pooled.counts[1] = places
    return total


@compiled
def find_present(pooled: Pooled, count: int, field: npt.NDArray[np.uint8], row: npt.NDArray[np.int32]) -> None:
    """Count the values of each field, note which fields have any, and empty their vectors."""
    values, vectors, present = pooled.values, pooled.vectors, pooled.present
    clear(values)
    for value in range(count):
        if row[value] >= 0:
            values[field[value]] += 1
    places = 0
    for f in range(values.shape[0]):
        if values[f] > 0:
            present[places] = f
            places += 1
        if values[f] > 0 or f <= features.ITEM:  # the user's and the item's are read even where neither is admitted
            clear_vector(vectors[f])
    pooled.counts[0], pooled.counts[2] = places, 0


@compiled
def dot(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Return <a, b>, eight products at a time, in an order that is the same on every machine."""
    total = float32(0.0)
    whole = a.shape[0] // LANES * LANES
    for i in range(0, whole, LANES):
        total += dot_lanes(a, i, b, i)
    for i in range(whole, a.shape[0]):
        total += a[i] * b[i]
    return total


@compiled
def add_scaled(out: npt.NDArray[np.float32], scale: float, x: npt.NDArray[np.float32]) -> None:
    """Add `scale * x` to `out` [size]."""
    whole = out.shape[0] // LANES * LANES
    for i in range(0, whole, LANES):
        add_scaled_lanes(out, i, scale, x, i)
    for i in range(whole, out.shape[0]):
        out[i] += scale * x[i]


@compiled
def clear_vector(out: npt.NDArray[np.float32]) -> None:
    """Set a vector [size] to zero, eight coordinates at a time."""
    whole = out.shape[0] // LANES * LANES
    for i in range(0, whole, LANES):
        clear_lanes(out, i)
    for i in range(whole, out.shape[0]):
        out[i] = float32(0.0)


@compiled
def score_pairs(pairs: Coordinates, pooled: Pooled, weighted: npt.NDArray[np.float32]) -> float:
    """Return the sum of r_fg <v_f, v_g> over pairs of fields, and of fields with interests, by these `pairs`.

    That is the sum of <v_f, sum_g r_fg v_g>, so that there is one product a field, not one a pair. `weighted` [d] is
    scratch.
    """
    present, vectors = pooled.present, pooled.vectors
    size, end = vectors.shape[1], pooled.counts[1]
    whole = size // LANES * LANES
    total = float32(0.0)
    clear_vector(weighted)
    for a in range(pooled.counts[0]):
        weights = pairs[present[a], ftrl.Part.WEIGHT]
        for chunk in range(0, whole, LANES):
            total += score_pairs_lanes(vectors, size, chunk, present, a, a + 1, end, weights, weighted)
        if whole < size:
            clear(weighted[whole:])
            for b in range(a + 1, end):
                add_scaled(weighted[whole:], weights[present[b]], vectors[present[b], whole:])
            total += dot(vectors[present[a], whole:], weighted[whole:])
    return total


@compiled
def score_alike_pairs(learner: Learner, pooled: Pooled, weighted: npt.NDArray[np.float32]) -> float:
    """Return `score_pairs` of an impression that is alike, bit for bit: fields behind the item are summed once."""
    present, vectors, fields, end = pooled.present, pooled.vectors, pooled.counts[0], pooled.counts[1]
    size = vectors.shape[1]
    whole = size // LANES * LANES
    if pooled.counts[2] == 0:
        sum_behind(learner, pooled)
        pooled.counts[2] = 1
    total = float32(0.0)
    clear_vector(weighted)
    for a in range(fields):
        weights = learner.pairs[present[a], ftrl.Part.WEIGHT]
        is_summed = present[a] >= features.ITEM
        first = fields if is_summed else a + 1
        before = pooled.behind[present[a]] if is_summed else weighted
        for chunk in range(0, whole, LANES):
            total += score_pairs_lanes(vectors, size, chunk, present, a, first, end, weights, before)
        if whole < size:
            for i in range(whole, size):
                weighted[i] = before[i] if is_summed else float32(0.0)
            for b in range(first, end):
                add_scaled(weighted[whole:], weights[present[b]], vectors[present[b], whole:])
            total += dot(vectors[present[a], whole:], weighted[whole:])
    return total


@compiled
def sum_behind(learner: Learner, pooled: Pooled) -> None:
    """Sum, for the item and each field behind it, what the fields behind that one add to its pairs."""
    present, fields = pooled.present, pooled.counts[0]
    for a in range(fields):
        if present[a] >= features.ITEM:
            out, weights = pooled.behind[present[a]], learner.pairs[present[a], ftrl.Part.WEIGHT]
            clear_vector(out)
            for b in range(a + 1, fields):
                add_scaled(out, weights[present[b]], pooled.vectors[present[b]])


@compiled
def learn_pairs(
    learner: Learner, pooled: Pooled, gradients: Gradients, error: float, parameters: LearnerParameters
) -> None:
    """Write the gradient of each field's vector, less `error`, to `gradients`, and step the pairs against `error`."""
    present, vectors, steps, dots = pooled.present, pooled.vectors, gradients.vectors, gradients.pairs
    size, end = vectors.shape[1], pooled.counts[1]
    whole = size // LANES * LANES
    for a in range(end):
        clear_vector(steps[present[a]])
    for a in range(pooled.counts[0]):
        f = present[a]
        weights = learner.pairs[f, ftrl.Part.WEIGHT]
        clear_vector(dots)  # a pair with a field that is absent takes a step of zero, which changes nothing
        for chunk in range(0, whole, LANES):
            learn_pairs_lanes(vectors, steps, size, chunk, present, a, end, weights, dots)
        if whole < size:
            vector, gradient = vectors[f, whole:], steps[f, whole:]
            for b in range(a + 1, end):
                g = present[b]
                add_scaled(gradient, weights[g], vectors[g, whole:])
                add_scaled(steps[g, whole:], weights[g], vector)
                dots[g] += dot(vector, vectors[g, whole:])
        first = (f + 1) // LANES * LANES  # what lies before it are pairs with fields that had their turn
        ftrl.descend_vector(learner.pairs, f, first, dots[first:], error, parameters.pair)


@compiled
def learn_features(
    learner: Learner,
    pooled: Pooled,
    gradients: Gradients,
    count: int,
    field: npt.NDArray[np.uint8],
    row: npt.NDArray[np.int32],
    error: float,
    parameters: LearnerParameters,
) -> None:
    """Step the weight and the latent vector of each value by its share of `error`, with `learn_pairs`'s gradients."""
    for value in range(count):
        if row[value] >= 0:
            share = error / float32(pooled.values[field[value]])
            ftrl.descend(learner.features, row[value], 0, share, parameters.weight)
            ftrl.descend_vector(
                learner.features, row[value], 1, gradients.vectors[field[value]], share, parameters.latent
            )


@compiled
def score_dense(dense: Coordinates, inputs: npt.NDArray[np.float32]) -> float:
    """Return the dense level's sum: weights times inputs [2 fields + 1], in their order, and the bias."""
    weights = dense[0, ftrl.Part.WEIGHT]
    return dot(weights[: inputs.shape[0]], inputs) + weights[inputs.shape[0]]  # type: ignore[no-any-return]


@compiled
def learn_dense(
    dense: Coordinates,
    steps: npt.NDArray[np.float32],
    inputs: npt.NDArray[np.float32],
    error: float,
    parameters: LearnerParameters,
) -> None:
    """Step the weights of the dense level against `error` times their inputs, and the bias against `error`.

    `steps` [2 fields + 2], padded, is scratch.
    """
    for i in range(inputs.shape[0]):
        steps[i] = inputs[i]
    steps[inputs.shape[0]] = 1.0
    ftrl.descend_vector(dense, 0, 0, steps, error, parameters.dense)
