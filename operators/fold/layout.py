"""How many fields, values and inputs an impression has, and where each is.

The inputs are: rate and residual of each field; those of `Extra`; the interest vectors. Derived fields are the last.
"""

from enum import IntEnum

from thalweg.operators import derived, error_memory
from thalweg.operators.configuration import Configuration
from thalweg.operators.error_memory import Memories
from thalweg.operators.learner import Learner
from thalweg.operators.machine.compiled import compiled


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


def input_count(configuration: Configuration) -> int:
    """Return how many float32 inputs an impression has: rates and residuals by field, two others, interests."""
    interests = interest_count(configuration) * configuration.learner.latent_size
    return 2 * field_count(configuration) + EXTRAS + interests


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
    return c.features.values_limit + derived.value_limit(c.learner.recent_items)


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
