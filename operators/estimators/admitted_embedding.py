"""`AdmittedEmbedding`: Monolith's embedding table as a River transformer."""

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from river import base
from thalweg.operators.admission import AdmissionConfiguration, ModeName, admission_parameters, new_admission
from thalweg.operators.estimators.feature_vector import (
    SEED_MAX,
    SEED_MIN,
    SIZE_MAX,
    TIME_MAX,
    check_whole,
    key_in,
    label_of,
    number_of,
    time_of,
)
from thalweg.operators.features import Value, resolve, sweep_feature
from thalweg.operators.ftrl import Coordinates, Part, descend_vector, new_coordinates, rate
from thalweg.operators.machine.hashing import Key, uniform
from thalweg.operators.machine.numerics import sigmoid
from thalweg.operators.pages import Moment
from thalweg.operators.structures.ownership import new_owned
from thalweg.operators.structures.table import NONE, find_row, new_table, update_row
from thalweg.schemas.bounds import ROWS_MAX

LOSSES = ("logistic", "squared")

NOBODY = -1

INITIAL_MAX = 0.1


class AdmittedEmbedding(base.Transformer):
    """Embeddings of categories without collisions, for those that were seen often enough, until they are not.

    Two values never share a row. A value gets its row after `occurrence_threshold` sightings and loses it when it was
    not seen for `expire_time`; without one it reads as zeros and learns nothing. A row holds a weight and a latent
    vector, learned by FTRL-Proximal as those of a factorisation machine over the fields:

    $$logit = w_0 + \\sum_f w_f + \\sum_{f < g} \\langle v_f, v_g \\rangle$$

    `transform_one` gives `user_weight`, `user_0`, `user_1`, … of the field `user`, and the products of two fields'
    vectors, `user*item`.

    Parameters
    ----------
    fields
        Names of the features that are embedded; their values are taken as categories, numbers too.
    size
        Coordinates of a latent vector.
    occurrence_threshold
        Sightings before a value gets its row; 0 and 1 admit at once.
    admission
        "count", or one of Monolith's probabilistic ways: "linear", "geometric".
    expire_time
        How long a row that is not seen is kept, in the unit of `time` (milliseconds where that is a datetime); None:
        for good.
    time
        Name of a feature that is the time: a rising number, or a datetime, date or numpy.datetime64, taken in
        milliseconds; None: time is counted in examples learned.
    loss
        "logistic" for labels true and false, "squared" for numbers.
    alpha
        Rate of learning, divided by the root of each coordinate's sum of squared gradients.
    l2
        Pull of each coordinate towards where it began.
    rows_limit
        Values with a row at most; the one that was not seen for longest makes room.
    filter_cells
        Values whose sightings are counted at most.
    seed
        Seed of keys and of what vectors begin with.

    References
    ----------
    [^1]: Liu et al. (2022). Monolith: Real Time Recommendation System With Collisionless Embedding Table.
    [^2]: McMahan et al. (2013). Ad Click Prediction: a View from the Trenches.

    Examples
    --------
    Numbers that are codes, taken as numbers and as categories:

    >>> from river import datasets, evaluate, linear_model, metrics, preprocessing
    >>> from thalweg.operators.estimators import AdmittedEmbedding

    >>> without = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    >>> evaluate.progressive_val_score(datasets.Phishing(), without, metrics.ROCAUC())
    ROCAUC: 95.07%

    >>> fields = tuple(next(iter(datasets.Phishing()))[0])
    >>> model = AdmittedEmbedding(fields) | without.clone()
    >>> evaluate.progressive_val_score(datasets.Phishing(), model, metrics.ROCAUC())
    ROCAUC: 95.88%

    """

    def __init__(
        self,
        fields: tuple[str, ...] = ("user", "item"),
        size: int = 8,
        occurrence_threshold: int = 2,
        admission: ModeName = "count",
        expire_time: int | None = None,
        time: str | None = None,
        loss: str = "logistic",
        alpha: float = 0.3,
        l2: float = 0.0,
        rows_limit: int = 1 << 14,
        filter_cells: int = 1 << 16,
        seed: int = 0,
    ) -> None:
        """Embed nothing yet; the parameters are the class's."""
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}")
        check_whole("size", size, 1, SIZE_MAX)
        check_whole("rows_limit", rows_limit, 1, ROWS_MAX)
        check_whole("seed", seed, SEED_MIN, SEED_MAX)
        if expire_time is not None:
            check_whole("expire_time", expire_time, 1, TIME_MAX)
        if not 0.0 < alpha < math.inf or not 0.0 <= l2 < math.inf:
            raise ValueError("alpha must be above 0, l2 at least 0, both finite")
        if isinstance(cast(object, fields), str):
            raise ValueError(f"fields must name 1 to 64 features: write ({fields!r},)")
        if not fields or len(fields) > 64 or len(set(fields)) != len(fields):
            raise ValueError("fields must name 1 to 64 features, each once")
        self.fields = fields
        self.size = size
        self.occurrence_threshold = occurrence_threshold
        self.admission = admission
        self.expire_time = expire_time
        self.time = time
        self.loss = loss
        self.alpha = alpha
        self.l2 = l2
        self.rows_limit = rows_limit
        self.filter_cells = filter_cells
        self.seed = seed
        filtering = AdmissionConfiguration(
            occurrence_threshold=occurrence_threshold, admission=admission, filter_cells=filter_cells
        )
        self._filter = new_admission(filtering)
        self._filter_parameters = admission_parameters(filtering)
        self._table = new_table(rows_limit, len(fields))
        self._coordinates = new_coordinates(rows_limit, 1 + size)
        self._bias = new_coordinates(1, 1)
        self._private = new_owned(1, rows_limit)
        never = np.iinfo(np.int64).max
        self._expire_time = np.full(len(fields), never if expire_time is None else expire_time, np.int64)
        self._rate = rate(alpha, l2=l2)
        self._now = self._learned = 0

    @property
    def _supervised(self) -> bool:
        return True  # not a SupervisedTransformer: in River 0.26 a pipeline doesn't transform by those as it learns

    def learn_one(self, x: dict[Any, Any], y: Any = None) -> None:
        """Count the values of the fields, and let those that have a row learn from the label.

        Parameters
        ----------
        x
            Features; fields that are missing or None are passed over.
        y
            A label: true or false, or a number where the loss is "squared"; None: only count.

        Raises
        ------
        ValueError
            A label that is none for the loss, a time that is none, or a field's number that is not finite.

        """
        label = None if y is None else self._label(y)
        now = time_of(x, self.time, self._now)
        keys = self._keys(x)
        self._now = now  # whatever is refused is refused before anything is learned
        self._learned += 1
        for _ in range(2):  # faster than one example can make new ones outlive theirs
            sweep_feature(self._table, self._private, self._expire_time, self._now)
        rows = [row for place, key in keys if (row := self._seen(place, key)) != NONE]
        if label is None:
            return
        weights = self._coordinates[rows, Part.WEIGHT]
        total = weights[:, 1:].sum(axis=0)
        # The sum over pairs, from the square of the sum less the squares.
        pairs = 0.5 * float((total * total).sum() - (weights[:, 1:] ** 2).sum())
        logit = float(self._bias[0, Part.WEIGHT, 0]) + float(weights[:, 0].sum()) + pairs
        error = (sigmoid(logit) if self.loss == "logistic" else logit) - label
        scale = cast(float, np.float32(error))
        descend_vector(self._bias, 0, 0, np.ones(1, np.float32), scale, self._rate)
        for row, own in zip(rows, weights, strict=True):
            gradient = np.concatenate((np.ones(1, np.float32), total - own[1:]))
            descend_vector(self._coordinates, row, 0, gradient, scale, self._rate)

    def transform_one(self, x: dict[Any, Any]) -> dict[Any, float]:
        """Return the embeddings of the fields' values; nothing is counted.

        Parameters
        ----------
        x
            Features.

        Returns
        -------
        Each field's weight and vector, zero where its value has no row, and the products of each two vectors.

        """
        now = time_of(x, self.time, self._now) if self.time else self._now
        weights: npt.NDArray[np.float32] = np.zeros((len(self.fields), 1 + self.size), np.float32)
        for place, key in self._keys(x):
            row = find_row(self._table, key, now, self._expire_time)
            if row != NONE:
                weights[place] = self._coordinates[row, Part.WEIGHT]
        features: dict[Any, float] = {}
        for place, (name, (weight, *vector)) in enumerate(zip(self.fields, weights.tolist(), strict=True)):
            features[f"{name}_weight"] = weight
            features |= {f"{name}_{i}": value for i, value in enumerate(vector)}
            for other in range(place):
                product = (weights[place, 1:] * weights[other, 1:]).sum()
                features[f"{self.fields[other]}*{name}"] = float(product)
        return features

    def _label(self, y: Any) -> float:
        """Return a label of the loss as a number."""
        if self.loss == "squared":
            return number_of("label", y)
        try:
            return float(label_of(y))
        except ValueError:
            raise ValueError(
                f"a logistic loss needs labels true and false, 1 and 0, not {y!r}: choose loss='squared'"
            ) from None

    def _keys(self, x: dict[Any, Any]) -> list[tuple[int, Key]]:
        """Return the places and keys of the fields that an example has."""
        return [
            (place, key_in(name, x[name], self.seed))
            for place, name in enumerate(self.fields)
            if x.get(name) is not None
        ]

    def _seen(self, place: int, key: Key) -> int:
        """Return the row of a value seen now, updated; NONE while it is not admitted."""
        row, is_new, _ = resolve(
            self._table,
            self._filter,
            self._filter_parameters,
            self._private,
            self._expire_time,
            Value(key, place, NOBODY),
            Moment(self._now, self._learned, 0),
        )
        if row == NONE:
            return NONE
        if is_new:
            self._begin(self._coordinates, row, key)
        update_row(self._table, row, self._now)
        return int(row)

    def _begin(self, coordinates: Coordinates, row: int, key: Key) -> None:
        """Wipe a new row and give its vector small values that derive from the key."""
        coordinates[row] = 0.0
        for i in range(1, 1 + self.size):
            coordinates[row, Part.WEIGHT : Part.INITIAL + 1, i] = (
                2.0 * uniform(key, self.seed + i) - 1.0
            ) * INITIAL_MAX
