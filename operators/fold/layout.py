"""How many fields, values and inputs an impression has, and where each is.

The inputs are: rate and residual of each field; those of `Extra`; the interest vectors; the cross network's statistics.
Derived fields are the last.
"""

import hashlib
import json
from dataclasses import asdict
from enum import IntEnum

from thalweg.operators import derived, error_memory
from thalweg.operators.configuration import Configuration
from thalweg.operators.cross import Cross, statistics_count
from thalweg.operators.error_memory import Memories
from thalweg.operators.heads import head_statistics
from thalweg.operators.learner import BUILT_IN, Learner
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.machine.hashing import field_seed
from thalweg.operators.machine.lanes import LANES
from thalweg.schemas.lessons import VERSION


class Interest(IntEnum):
    """The interests in each kind of behaviour: in the short sequence and in the long history."""

    SHORT = 0
    LONG = 1


class Extra(IntEnum):
    """The inputs after the rates: the machine's logit as served, the overall log-odds."""

    MACHINE = 0
    OVERALL = 1


INTERESTS = len(Interest)
EXTRAS = len(Extra)


def interest_count(configuration: Configuration) -> int:
    """Return how many interest vectors an impression has."""
    return INTERESTS * len(configuration.behaviors.kinds) * configuration.learner.interests


def field_count(configuration: Configuration) -> int:
    """Return how many fields an impression can have, the derived ones included: they are the last."""
    return configuration.features.places() + len(derived.DERIVED)


def crossed_fields(configuration: Configuration) -> int:
    """Return how many fields the cross network reads embeddings of: all but gap and exposures."""
    return configuration.features.places() + derived.CROSSED


def paired_fields(configuration: Configuration) -> int:
    """Return how many fields and recent items user and item are counted together with, these two included."""
    return configuration.features.places() + min(configuration.learner.recent_items, derived.PAIRED_ITEMS)


def cross_rank(configuration: Configuration) -> int:
    """Return the rank of the cross network, 0 where there is none: beside another model than the built-in one."""
    return configuration.learner.cross_rank if configuration.learner.model == BUILT_IN else 0


def statistics_of_heads(configuration: Configuration) -> int:
    """Return how many statistics the cross network has of objectives but the first."""
    return len(configuration.objectives.heads) * head_statistics(paired_fields(configuration))


def input_count(configuration: Configuration) -> int:
    """Return how many float32 inputs an impression has: rates and residuals by field, two others, interests, the
    cross network's statistics.
    """
    interests = interest_count(configuration) * configuration.learner.latent_size
    statistics = statistics_count(
        cross_rank(configuration), paired_fields(configuration), statistics_of_heads(configuration)
    )
    return 2 * field_count(configuration) + EXTRAS + interests + statistics


def base_stands_still(configuration: Configuration) -> bool:
    """Return whether what the error memories correct does not learn, or not for long."""
    return configuration.correction.base == "base_score" or configuration.learner.frozen_from_ms > 0


def error_memories(configuration: Configuration) -> Memories:
    """Return the error memories of a configuration."""
    c = configuration
    return error_memory.memories_of(
        c.features.places(), c.learner.recent_items, c.error_memory.crosses, base_stands_still(c)
    )


def value_count(configuration: Configuration) -> int:
    """Return how many values an impression has at most, those that are derived included."""
    c = configuration
    return c.features.values_limit + derived.value_limit(c.learner.recent_items, c.learner.shown_items)


def half_count(configuration: Configuration) -> int:
    """Return how many numbers a lesson has of each private value: weight, latent vector, and those of the network."""
    return 1 + configuration.learner.latent_size + (1 + LANES if cross_rank(configuration) else 0)


def name_hashes(configuration: Configuration, names: list[str]) -> list[int]:
    """Return the hashes of the names of those fields that were learned from the log, in their places."""
    learned = names[len(configuration.features.declared_fields()) :]
    return [field_seed(name, configuration.seed) for name in learned]


def layout_of(configuration: Configuration) -> int:
    """Return the digest of all that the bytes of a lesson follow from besides the names of fields in the log.

    Partitions with the same layout understand each other's lessons. Places of fields learned from the log may differ.
    """
    c = configuration
    shape = {
        "version": VERSION,
        "seed": c.seed,
        "features": c.features,
        "kinds": c.behaviors.kinds,
        "learner": (
            c.learner.latent_size,
            c.learner.interests,
            c.learner.recent_items,
            c.learner.shown_items,
            cross_rank(c),
        ),
        "memory": (c.error_memory.arrays, c.error_memory.bits, c.correction.base),
        "sampled": c.joiner.negative_sample_rate,
    }
    raw = hashlib.sha256(json.dumps(shape, default=asdict, sort_keys=True).encode()).digest()
    return int.from_bytes(raw[:8], "little", signed=True)


@compiled
def first_derived(learner: Learner) -> int:
    """Return the place of the first derived field."""
    return learner.pairs.shape[0] - derived.FIELDS  # type: ignore[no-any-return]


@compiled
def extras_start(learner: Learner) -> int:
    """Return where the inputs of `Extra` begin: behind the rates and residuals of all fields."""
    return 2 * learner.pairs.shape[0]  # type: ignore[no-any-return]


@compiled
def interests_start(learner: Learner) -> int:
    """Return where the interest vectors begin among an impression's inputs."""
    return extras_start(learner) + EXTRAS


@compiled
def statistics_start(cross: Cross, inputs: int) -> int:
    """Return where the cross network's statistics begin among the inputs of an impression, which are so many."""
    return inputs - cross.moments.shape[1]  # type: ignore[no-any-return]
