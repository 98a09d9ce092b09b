"""`SequenceInterest`: what a user's history says of a candidate, as a River transformer."""

from typing import Any

import numpy as np
from river import base
from thalweg.operators.attention import Gathered, attend, new_gathered, normalize
from thalweg.operators.behaviors import (
    Behavior,
    BehaviorsConfiguration,
    extend_sequence,
    find_history,
    forget_sequences,
    gather_recent,
    new_behaviors,
)
from thalweg.operators.estimators.feature_vector import (
    SEED_MAX,
    SEED_MIN,
    SIZE_MAX,
    FeatureVector,
    check_whole,
    key_in,
    label_of,
)
from thalweg.operators.machine.hashing import Key
from thalweg.operators.sdim import (
    LONG_AGO_MS,
    SdimConfiguration,
    SdimScratch,
    new_sdim_scratch,
    read_interest,
    sdim_parameters,
    signature,
)
from thalweg.operators.structures.table import (
    NONE,
    Table,
    claim_row,
    find_row,
    is_full,
    new_table,
    oldest_row,
    release_row,
    update_row,
)
from thalweg.schemas.bounds import ROWS_MAX

KIND = 0

NEVER = np.full(1, np.iinfo(np.int64).max)

SCRATCH = ("_scratch", "_gathered")


class SequenceInterest(base.Transformer):
    """Interest of a user in a candidate item, from all that the user did before.

    An item's vector is made of the features beside user and item. The last `short_length` behaviours of a user are
    attended to exactly; older ones are in SDIM's hash buckets, and reading them costs the same however many they are:

    $$Attn(q, S) = \\frac{1}{G} \\sum_g \\ell_2 \\Big( \\sum_{j: sig_g(j) = sig_g(q)} s_j \\Big)$$

    A label is true if the user took the item: `learn_one` extends the sequence where it is true (or not given).
    Labels other than true and false, 1 and 0, and features that are not finite raise ValueError. The
    features are, for `short` and `long`, the interest's coordinates `interest_short_0`, … and its product with the
    candidate's direction, `match_short`; all zero for an unknown user and for a candidate without features.

    The estimator is supervised, although a label is all it takes of the outcome: a pipeline then transforms before it
    learns, so that no candidate is found in the history that it is compared with.

    Parameters
    ----------
    user
        Name of the feature that identifies the user.
    item
        Name of the feature that identifies the item.
    size
        Coordinates of an item's vector, a random projection of its features.
    short_length
        Behaviours of a user that are kept exactly.
    groups
        Groups of sign bits in a signature, the paper's G.
    tau
        Sign bits in a group.
    users_limit
        Users known at most; the one that did nothing for longest makes room.
    items_limit
        Items known at most; the one that was not taken for longest makes room, and reads as zero in sequences.
    histories_limit
        Users with more than `short_length` behaviours at most; the rest keep their last ones.
    seed
        Seed of all projections and keys.

    References
    ----------
    [^1]: Cao et al. (2022). Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction.

    Examples
    --------
    Seven users, and each of them takes the image segments of one class only. Without a history nothing tells who takes
    what:

    >>> import random
    >>> from river import compose, datasets, evaluate, linear_model, metrics, preprocessing
    >>> from thalweg.operators.estimators import SequenceInterest

    >>> def visits():
    ...     chance = random.Random(7)
    ...     segments = list(datasets.ImageSegments())
    ...     users = sorted({taste for _, taste in segments})
    ...     for number, (x, taste) in enumerate(segments):
    ...         user = taste if chance.random() < 0.5 else chance.choice(users)
    ...         yield x | {"user": user, "item": number}, user == taste

    >>> scaled = compose.Discard("user", "item") | preprocessing.StandardScaler()
    >>> ids = compose.Select("user", "item")

    >>> without = scaled.clone() | linear_model.LogisticRegression()
    >>> evaluate.progressive_val_score(visits(), without, metrics.ROCAUC())
    ROCAUC: 47.71%

    >>> model = (scaled + ids) | SequenceInterest() | linear_model.LogisticRegression()
    >>> evaluate.progressive_val_score(visits(), model, metrics.ROCAUC())
    ROCAUC: 87.15%

    """

    def __init__(
        self,
        user: str = "user",
        item: str = "item",
        size: int = 32,
        short_length: int = 32,
        groups: int = 16,
        tau: int = 3,
        users_limit: int = 1 << 14,
        items_limit: int = 1 << 14,
        histories_limit: int = 1 << 10,
        seed: int = 0,
    ) -> None:
        """Start without users; the parameters are the class's."""
        check_whole("size", size, 1, SIZE_MAX)
        check_whole("users_limit", users_limit, 1, ROWS_MAX)
        check_whole("items_limit", items_limit, 1, ROWS_MAX)
        check_whole("seed", seed, SEED_MIN, SEED_MAX)
        self.user = user
        self.item = item
        self.size = size
        self.short_length = short_length
        self.groups = groups
        self.tau = tau
        self.users_limit = users_limit
        self.items_limit = items_limit
        self.histories_limit = histories_limit
        self.seed = seed
        kept = BehaviorsConfiguration(kinds=("acted",), short_length=short_length, users_limit=users_limit)
        buckets = SdimConfiguration(groups=groups, tau=tau, histories_limit=histories_limit)
        self._behaviors = new_behaviors(kept, buckets, size)
        self._users = new_table(users_limit, 1)
        self._items = new_table(items_limit, 1)
        self._vectors = np.zeros((items_limit, size), np.float32)
        self._parameters = sdim_parameters(buckets, size, seed)
        self._new_scratch()
        self._vector_of = FeatureVector(size, seed, excluded=(user, item))
        self._learned = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: all but scratch, which holds what was read last."""
        return {name: value for name, value in vars(self).items() if name not in SCRATCH}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a pickle held, with fresh scratch."""
        self.__dict__.update(state)
        self._new_scratch()

    def _new_scratch(self) -> None:
        self._scratch: SdimScratch = new_sdim_scratch(SdimConfiguration(groups=self.groups, tau=self.tau), self.size)
        self._gathered: Gathered = new_gathered(1, self.short_length, self.size)

    @property
    def _supervised(self) -> bool:
        return True  # not a SupervisedTransformer: in River 0.26 a pipeline doesn't transform by those as it learns

    def learn_one(self, x: dict[Any, Any], y: Any = True) -> None:
        """Extend a user's sequence by an item, unless the label is false: the user did not take it.

        Parameters
        ----------
        x
            Features with a user and an item; without both nothing is learned.
        y
            Whether the user took the item: true or false; None where that is not known, and nothing is learned.

        Raises
        ------
        ValueError
            A label that is none, or a feature that is not finite.

        """
        took = y is not None and label_of(y)
        if not took or x.get(self.user) is None or x.get(self.item) is None:
            return
        keys = self._key(self.user, x[self.user]), self._key(self.item, x[self.item])
        vector = self._vector_of.read(x)  # whatever is refused is refused before anything is learned
        self._learned += 1
        user = self._row(self._users, keys[0])
        item = self._row(self._items, keys[1])
        if user == NONE or item == NONE:
            return
        self._vectors[item] = vector
        behavior = Behavior(user, KIND, item, self._learned)
        signs = self._scratch.signs
        extend_sequence(self._behaviors, self._items, self._vectors, self._parameters, signs, behavior, NONE)

    def transform_one(self, x: dict[Any, Any]) -> dict[Any, float]:
        """Return the interest of a user in a candidate; nothing is kept of it.

        Parameters
        ----------
        x
            Features with a user and those of the candidate.

        Returns
        -------
        The interest's coordinates and its match with the candidate, from the last behaviours and from all older ones.

        """
        short, long, direction = np.zeros((3, self.size), np.float32)
        name = x.get(self.user)
        user = NONE if name is None else find_row(self._users, self._key(self.user, name), self._learned, NEVER)
        direction[:] = self._vector_of.read(x)
        if user != NONE and direction.any():
            gather_recent(self._behaviors, self._items, self._vectors, user, NONE, self._gathered)
            attend(self._gathered, KIND, direction, self.tau, short)
            history = find_history(self._behaviors, user, KIND)
            if history != NONE:
                bits = signature(self._parameters.projection, direction, self._scratch.signs)
                read_interest(self._behaviors.histories, history, bits, LONG_AGO_MS, self._scratch.total, long)
        normalize(direction)
        features: dict[Any, float] = {}
        for name, interest in (("short", short), ("long", long)):
            features[f"match_{name}"] = float((interest * direction).sum())
            features |= {f"interest_{name}_{i}": value for i, value in enumerate(interest.tolist())}
        return features

    def _key(self, field: str, value: object) -> Key:
        return key_in(field, value, self.seed)

    def _row(self, table: Table, key: Key) -> int:
        """Return the row of a user or an item as the newest, one made free where it has none; NONE if refused."""
        row = find_row(table, key, self._learned, NEVER)
        if row == NONE:
            if is_full(table):
                oldest = oldest_row(table)
                if table is self._users:
                    forget_sequences(self._behaviors, oldest)
                release_row(table, oldest)
            return claim_row(table, key, 0, self._learned)
        update_row(table, row, self._learned)
        return row
