"""`ErrorMemory`: ReLoop2's memory of errors around any River classifier."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from river import base, linear_model
from thalweg.operators.error_memory import (
    SCRATCH,
    CorrectionConfiguration,
    ErrorMemoryConfiguration,
    MemoryReads,
    error_memory_parameters,
    locate,
    memories_of,
    new_error_memory,
    new_memory_reads,
    project_user,
    read_error,
    write_error,
)
from thalweg.operators.estimators.feature_vector import (
    SEED_MAX,
    SEED_MIN,
    FeatureVector,
    check_whole,
    key_in,
    label_of,
    time_of,
)
from thalweg.operators.sdim import projections

PROBABILITY_MIN = 1e-6

BASE_MIN = 0.01  # a tree says 0 or 1 of a leaf with few examples; in log-odds that could not be set right

# A correction leaves a tenth of the probability of either outcome: an error that is added may take a small one to
# zero, and one such event costs more log loss than hundreds of corrections win.
SHARE_MIN = 0.1

HALF = 8  # coordinates of each of the two vectors that make the representation


class ErrorMemory(base.Wrapper[base.Classifier], base.Classifier):
    """A binary classifier that remembers what it got wrong lately, and near what.

    Memories of (count, sum of labels, sum of predictions) stand one behind the other: of all examples, by the model's
    log-odds, by an item, by a user, and by sign projections of the features. Each corrects the probability p that those
    before it have left by how far labels and predictions lie apart near here,

    $$logit(p) \\leftarrow logit(p) + \\lambda \\Big( logit \\frac{\\sum y + m p}{\\sum 1 + m}
    - logit \\frac{\\sum p' + m p}{\\sum 1 + m} \\Big),$$

    with m the prior, and each lambda learned. A correction leaves either outcome at
    least a tenth of the probability that the model gave it. What was remembered decays, so that the memory
    follows a drift faster than the model does.

    Labels other than true and false, 1 and 0, and features that are not finite raise ValueError. Features should come
    scaled (`StandardScaler() | ErrorMemory(model)`): signs tell little about numbers that are all above zero.

    Parameters
    ----------
    model
        The classifier, frozen or learning; binary.
    user
        Name of the feature that keys the memory of users; None: there is none.
    item
        Name of the feature that keys the memory of items; None: there is none.
    arrays
        Arrays of buckets by the features, the paper's K.
    bits
        Sign bits of a bucket's number, the paper's L; an array has 2**bits buckets.
    half_life
        Half-life of what is remembered, in the unit of `time`.
    time
        Name of a feature that is the time: a rising number, or a datetime, date or numpy.datetime64, taken in
        milliseconds; None: time is counted in examples learned.
    prior
        Pseudo-examples without an error in each bucket.
    lambda_max
        How far each memory is believed at most.
    learn
        Whether the model keeps learning; if not, only the memory does.
    seed
        Seed of the projections.

    References
    ----------
    [^1]: Zhu et al. (2023). ReLoop2: Building Self-Adaptive Recommendation Models via Responsive Error Compensation
        Loop.

    Examples
    --------
    >>> from river import datasets, evaluate, linear_model, metrics, preprocessing
    >>> from thalweg.operators.estimators import ErrorMemory

    >>> model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    >>> evaluate.progressive_val_score(datasets.Phishing(), model, metrics.LogLoss())  # doctest: +ELLIPSIS
    LogLoss: 0.330...

    >>> model = preprocessing.StandardScaler() | ErrorMemory(linear_model.LogisticRegression())
    >>> evaluate.progressive_val_score(datasets.Phishing(), model, metrics.LogLoss())  # doctest: +ELLIPSIS
    LogLoss: 0.280...

    """

    def __init__(
        self,
        model: base.Classifier,
        user: str | None = None,
        item: str | None = None,
        arrays: int = 8,
        bits: int = 8,
        half_life: int = 500,
        time: str | None = None,
        prior: float = 5.0,
        lambda_max: float = 2.0,
        learn: bool = True,
        seed: int = 0,
    ) -> None:
        """Remember nothing yet; the parameters are the class's."""
        if not hasattr(model, "predict_proba_one"):
            raise ValueError(f"model must be a classifier that gives probabilities, not {type(model).__name__}")
        check_whole("seed", seed, SEED_MIN, SEED_MAX)
        self.model = model
        self.user = user
        self.item = item
        self.arrays = arrays
        self.bits = bits
        self.half_life = half_life
        self.time = time
        self.prior = prior
        self.lambda_max = lambda_max
        self.learn = learn
        self.seed = seed
        memory = ErrorMemoryConfiguration(arrays=arrays, bits=bits, half_life_impressions=half_life, prior=prior)
        correction = CorrectionConfiguration(lambda_max=lambda_max)
        projection = projections(2 * HALF, arrays * bits, seed)
        memories = memories_of(2, 0, (), stands_still=False)
        self._memory = new_error_memory(memory, correction, len(memories.first), memory.cells(stands_still=False))
        self._parameters = error_memory_parameters(memory, correction, projection, memories)
        self._representation = FeatureVector(2 * HALF, seed, excluded=(time,))
        self._now = 0

    @property
    def _wrapped_model(self) -> base.Classifier:
        return self.model

    @property
    def _multiclass(self) -> bool:
        return False  # an error is that of one probability, whatever the model could do

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        yield {"model": linear_model.LogisticRegression()}

    def learn_one(self, x: dict[Any, Any], y: Any, **kwargs: Any) -> None:
        """Remember the error of the probability that the model gives now, then let the model learn.

        Parameters
        ----------
        x
            Features.
        y
            A label: true or false.
        kwargs
            What else the model's `learn_one` takes.

        Raises
        ------
        ValueError
            A label that is none, or a feature that is not finite.

        """
        label = label_of(y)
        # Whatever is refused is refused before anything is remembered.
        now = time_of(x, self.time, self._now)
        vector = self._representation.read(x)
        probability = self._model_probability(x)
        reads = self._locate(x, vector, probability)
        elapsed = self._since(now)
        self._now = now
        self._read(reads, probability, elapsed)
        write_error(self._memory, reads, 0, float(label), elapsed, self._parameters)
        if self.learn:
            self.model.learn_one(x, y, **kwargs)

    def predict_proba_one(self, x: dict[Any, Any], **kwargs: Any) -> dict[Any, float]:
        """Return the model's probabilities, corrected; nothing is remembered of it.

        Parameters
        ----------
        x
            Features.
        kwargs
            What else the model's `predict_proba_one` takes.

        Returns
        -------
        The probabilities of False and True.

        """
        now = time_of(x, self.time, self._now) if self.time else self._now
        vector = self._representation.read(x)
        probability = self._model_probability(x, **kwargs)
        corrected = self._read(self._locate(x, vector, probability), probability, self._since(now))
        corrected = min(max(corrected, SHARE_MIN * probability), 1.0 - SHARE_MIN * (1.0 - probability))
        corrected = min(max(corrected, PROBABILITY_MIN), 1.0 - PROBABILITY_MIN)
        return {False: 1.0 - corrected, True: corrected}

    def _model_probability(self, x: dict[Any, Any], **kwargs: Any) -> float:
        """Return the model's probability of True, at least `BASE_MIN` from either end.

        A model that knows nothing yet, or gives what is not finite, as after huge features, counts as a half.
        """
        probabilities = self.model.predict_proba_one(x, **kwargs)
        if not probabilities:
            return 0.5
        found = probabilities[True] if True in probabilities else 1.0 - probabilities.get(False, 0.5)
        return min(max(float(found), BASE_MIN), 1.0 - BASE_MIN) if math.isfinite(found) else 0.5

    def _locate(self, x: dict[Any, Any], vector: npt.NDArray[np.float32], probability: float) -> MemoryReads:
        """Return the buckets of an example in each memory."""
        reads = new_memory_reads(1, self.arrays, len(self._parameters.memories.first))
        names = {"user": self.user, "item": self.item}
        keys = [0 if name is None else key_in(kind, x.get(name), self.seed) for kind, name in names.items()]
        halves, sums = vector.reshape(2, HALF), np.zeros((2, self.arrays * self.bits), np.float32)
        project_user(self._parameters, halves, sums)
        locate(self._memory, reads, 0, self._parameters, halves, np.array(keys, np.uint64), probability, sums)
        return reads

    def _since(self, now: int) -> float:
        """Return the time since the last example learned; nothing was remembered before the first."""
        return float(max(now - self._now, 0)) if self._now else 0.0

    def _read(self, reads: MemoryReads, probability: float, elapsed: float) -> float:
        """Return the probability as the memories correct it, `elapsed` behind the last example learned."""
        scratch = np.zeros((SCRATCH, reads.keyed.shape[1]))
        return read_error(self._memory, reads, 0, probability, elapsed, self._parameters, scratch)
