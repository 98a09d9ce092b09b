"""The whole state of a partition, and what the compiled code takes beside it: parameters and scratch.

State is arrays in named tuples and nothing else, reserved at their configured limit.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators import features
from thalweg.operators.admission import Admission, AdmissionParameters, admission_parameters, sets_of
from thalweg.operators.attention import Gathered, new_gathered
from thalweg.operators.behaviors import KINDS, Behaviors
from thalweg.operators.clock import Clock
from thalweg.operators.configuration import Configuration
from thalweg.operators.cross import Cross, CrossScratch, cross_sizes, new_cross_scratch, start_network
from thalweg.operators.delay import Delays
from thalweg.operators.derived import DerivedParameters, DerivedValues, new_derived_values
from thalweg.operators.error_memory import (
    ErrorMemory,
    ErrorMemoryParameters,
    ErrorMemoryScratch,
    MemoryReads,
    error_memory_parameters,
    error_memory_sizes,
    new_error_memory_scratch,
)
from thalweg.operators.facts import Facts, Filling, new_filling
from thalweg.operators.features import Crosses, FeaturesSeen, Given, crosses_of, new_given
from thalweg.operators.fold.fates import Fate
from thalweg.operators.fold.layout import (
    base_stands_still,
    cross_rank,
    crossed_fields,
    error_memories,
    field_count,
    half_count,
    input_count,
    interest_count,
    layout_of,
    name_hashes,
    paired_fields,
    statistics_of_heads,
    value_count,
)
from thalweg.operators.heads import Heads, HeadScratch, head_sizes, new_head_scratch, start_heads
from thalweg.operators.joiner import JoinerParameters, Waiting, joiner_parameters
from thalweg.operators.learner import (
    BUILT_IN,
    Gradients,
    Learner,
    LearnerParameters,
    Pooled,
    learner_parameters,
    learner_sizes,
    new_gradients,
    new_pooled,
    start_weights,
)
from thalweg.operators.lessons import (
    Lessons,
    LessonScratch,
    LessonsParameters,
    new_lesson_scratch,
)
from thalweg.operators.machine.declare import Int64, UInt8, made, part, per, wiper
from thalweg.operators.machine.hashing import field_seed
from thalweg.operators.pages import Page
from thalweg.operators.rates import RatesScratch, new_rates_scratch
from thalweg.operators.sdim import SdimParameters, SdimScratch, new_sdim_scratch, projections, sdim_parameters
from thalweg.operators.seen import SeenItems
from thalweg.operators.structures.names import write_name
from thalweg.operators.structures.ownership import Owned
from thalweg.operators.structures.table import Table
from thalweg.operators.visits import Visits

PROJECTION_SALT, REPRESENTATION_SALT = 0x5D1, 0xE44


class State(NamedTuple):
    """Everything that a partition knows."""

    names: Annotated[UInt8, per("places 256", "the fields in their places")]
    clock: Annotated[Clock, part()]
    page: Annotated[Page, part()]
    fates: Annotated[
        Int64, per("13", "`Fate`: events by what became of them", seen_as=lambda state: without_requests(state.fates))
    ]
    tallies: Annotated[Int64, per("11", "`Tallied`: other counts")]
    facts: Annotated[Facts, part()]
    features: Annotated[Table, part(rows="values", rows_limit="values_limit", lists="fields")]
    learner: Annotated[Learner, part()]
    cross: Annotated[Cross, part()]
    admission: Annotated[Admission, part()]
    memory: Annotated[ErrorMemory, part()]
    delays: Annotated[Delays, part()]
    users: Annotated[Table, part(rows="users", rows_limit="users_limit", lists=1)]
    visits: Annotated[Visits, part()]
    seen_items: Annotated[SeenItems, part()]
    behaviors: Annotated[Behaviors, part()]
    user_rows: Annotated[Owned, part(owners="users", members="values")]
    waiting: Annotated[Waiting, part()]
    features_seen: Annotated[FeaturesSeen, part()]
    memory_reads: Annotated[MemoryReads, part()]
    lessons: Annotated[Lessons, part()]
    heads: Annotated[Heads, part()]


def without_requests(fates: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the numbers of fates as if nothing had been asked: requests change no state."""
    return np.where(np.arange(len(fates)) == Fate.RANKED, 0, fates)


wipe_value = wiper(State, "values", but=("features", "user_rows"))
wipe_user = wiper(State, "users", but=("users",))
wipe_slot = wiper(State, "slots", but=("waiting",))


class Parameters(NamedTuple):
    """The configuration as compiled code takes it.

    `acted`, `skipped`: the place of each kind of sequence, or -1; `order` float64 [objectives]: what each objective's
    probability is multiplied by.
    """

    expire_time_ms: npt.NDArray[np.int64]
    user_expire_time_ms: npt.NDArray[np.int64]
    crosses: Crosses
    admission: AdmissionParameters
    joiner: JoinerParameters
    learner: LearnerParameters
    memory: ErrorMemoryParameters
    sdim: SdimParameters
    derived: DerivedParameters
    lessons: LessonsParameters
    order: npt.NDArray[np.float64]
    acted: int
    skipped: int
    seen_length: int


class Scratch(NamedTuple):
    """Room for the numbers of one impression, not state: what a function writes here it returns to its caller.

    `keys` uint64 [fields + recent items]: the first value's key of each field and, behind the named ones, the keys of
    recent items, gap and exposures. `given`: the values that the event brings. `filling`: what facts add to them.
    `halt` int64 [2]: another thread asks the fold to stop before the next event, and it did. `asked` int64 [2]: the
    impressions whose rows were asked for last, for a provisional label and for the end of a window.
    """

    keys: npt.NDArray[np.uint64]
    given: Given
    filling: Filling
    derived: DerivedValues
    rates: RatesScratch
    sdim: SdimScratch
    gathered: Gathered
    pooled: Pooled
    gradients: Gradients
    cross: CrossScratch
    memory: ErrorMemoryScratch
    lessons: LessonScratch
    heads: HeadScratch
    halt: npt.NDArray[np.int64]
    asked: npt.NDArray[np.int64]


def sizes_of(configuration: Configuration) -> dict[str, Any]:
    """Return the sizes of a state's arrays by their names."""
    c = configuration
    memories, cells = len(error_memories(c).first), c.error_memory.cells(base_stands_still(c))
    return {
        "places": c.features.places(),
        "values": c.table.rows_limit + value_count(c),  # and what a request's candidate would make
        "values_limit": c.table.rows_limit,
        "sets": sets_of(c.table),
        "d": c.learner.latent_size,
        "seen": value_count(c),
        "inputs": input_count(c),
        "feedbacks_per_impression": c.joiner.feedbacks_per_impression,
        "kept_bytes": c.limits.kept_bytes,
        "sources": c.lessons.sources_limit,
        "taught": value_count(c) if c.lessons.enabled else 0,
        **c.facts.sizes(),
        **c.behaviors.sizes(),
        **c.sdim.sizes(),
        **c.joiner.sizes(),
        **learner_sizes(c.learner, field_count(c), interest_count(c)),
        **cross_sizes(
            cross_rank(c), c.learner.cross_pairs_limit, crossed_fields(c), paired_fields(c), statistics_of_heads(c)
        ),
        "shown_items": max(c.learner.shown_items, 1),  # an array of another type would compile the fold anew
        **head_sizes(len(c.objectives.heads), field_count(c), cross_rank(c)),
        **c.objectives.sizes(),
        **error_memory_sizes(c.error_memory, c.correction, memories, cells),
    }


def new_state(configuration: Configuration) -> State:
    """Return the state of a partition that has seen nothing; memory is reserved, not touched."""
    state = made(State, **sizes_of(configuration))
    for place, name in enumerate(configuration.features.declared_fields()[: len(state.names)]):  # measured, it is one
        write_name(state.names, place, name)
    start_weights(state.learner, configuration.learner)
    start_network(state.cross, crossed_fields(configuration), configuration.seed)
    start_heads(state.heads, state.learner)
    return state


def lessons_parameters(configuration: Configuration, names: list[str], partition: int) -> LessonsParameters:
    """Return what lessons need of the configuration, of the fields known so far and of the partition's number."""
    c = configuration
    declared = len(c.features.declared_fields())
    private = np.zeros(field_count(c), np.uint8)
    private[features.USER] = 1
    for place, pair in enumerate(c.features.crosses):
        private[c.features.declared_fields().index("*".join(c.features.crosses[place]))] = "user" in pair
    hashes = np.zeros(c.features.places(), np.int64)
    hashes[declared : len(names)] = name_hashes(c, names)
    is_ignored = c.lessons.enabled is False or c.learner.model != BUILT_IN or c.objectives.is_joint
    return LessonsParameters(
        c.lessons.enabled is True,
        is_ignored,
        partition,
        c.lessons.negative_rate,
        layout_of(c),
        declared,
        private,
        hashes,
    )


def parameters_of(configuration: Configuration, names: list[str], partition: int = 0) -> Parameters:
    """Return what the fold needs of the configuration; `names` are the fields known so far, in their places."""
    c = configuration
    fields, size = field_count(c), c.learner.latent_size
    expire_time_ms = np.full(fields, c.table.expire_time_ms, np.int64)
    salts = np.zeros(fields, np.uint64)
    for place, name in enumerate(names):
        expire_time_ms[place] = c.table.expire_time_ms_by_field.get(name, c.table.expire_time_ms)
        salts[place] = field_seed(name, c.seed)
    representation = projections(2 * size, c.error_memory.arrays * c.error_memory.bits, c.seed + REPRESENTATION_SALT)
    memories = error_memories(c)
    acted, skipped = (c.behaviors.kinds.index(kind) if kind in c.behaviors.kinds else -1 for kind in KINDS)
    return Parameters(
        expire_time_ms,
        np.array([c.behaviors.expire_time_ms], np.int64),
        crosses_of(c.features, salts),
        admission_parameters(c.table),
        joiner_parameters(c.joiner, [head.window_ms for head in c.objectives.heads], c.objectives.weights_max()),
        learner_parameters(c.learner, c.seed),
        error_memory_parameters(c.error_memory, c.correction, representation, memories),
        sdim_parameters(c.sdim, size, c.seed + PROJECTION_SALT),
        DerivedParameters(acted, c.learner.recent_items, c.learner.shown_items),
        lessons_parameters(c, names, partition),
        np.array(c.objectives.order_weights()),
        acted,
        skipped,
        c.behaviors.seen_length,
    )


def new_scratch(configuration: Configuration) -> Scratch:
    """Return scratch for one impression."""
    c = configuration
    fields, interests, size = field_count(c), interest_count(c), c.learner.latent_size
    heads, rank = len(c.objectives.heads), cross_rank(c)
    return Scratch(
        np.zeros(fields + c.learner.recent_items, np.uint64),
        new_given(value_count(c)),
        new_filling(c.features.values_limit - len(c.features.crosses), c.limits.kept_bytes, c.facts.owner_bytes),
        new_derived_values(c.learner.recent_items, c.learner.shown_items),
        new_rates_scratch(fields, value_count(c)),
        new_sdim_scratch(c.sdim, size, c.behaviors.sizes()["kinds"]),
        new_gathered(c.behaviors.sizes()["kinds"], c.behaviors.short_length, size),
        new_pooled(fields, interests, size),
        new_gradients(fields, interests, size),
        new_cross_scratch(rank, crossed_fields(c), paired_fields(c), statistics_of_heads(c)),
        new_error_memory_scratch(c.error_memory, len(error_memories(c).first)),
        new_lesson_scratch(fields, input_count(c), half_count(c), len(error_memories(c).first)),
        new_head_scratch(heads, fields + interests, rank),
        np.zeros(2, np.int64),
        np.full(2, -1, np.int64),
    )
