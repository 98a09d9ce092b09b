"""The whole state of a partition: made, measured, digested, and copied for a checkpoint.

State is arrays in named tuples and nothing else. Row arrays are reserved at their configured limit, and only the part
that was ever used counts, is saved and is restored.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.admission import Admission, AdmissionParameters, admission_parameters, new_admission
from thalweg.operators.behaviors import KINDS, Behaviors, new_behaviors
from thalweg.operators.clock import Clock, new_clock
from thalweg.operators.configuration import Configuration
from thalweg.operators.delay import Delays, new_delays
from thalweg.operators.edges.contexts import NAME_BYTES, write_name
from thalweg.operators.error_memory import (
    ErrorMemory,
    ErrorMemoryParameters,
    Memories,
    Recalled,
    error_memory_parameters,
    memories_of,
    new_error_memory,
    new_recalled,
)
from thalweg.operators.features import Crosses, Seen, crosses_of, new_seen
from thalweg.operators.fold.consistency import refuse_inconsistent, refuse_sizes
from thalweg.operators.joiner import JoinerParameters, Waiting, joiner_parameters, new_waiting
from thalweg.operators.learner import (
    DERIVED,
    Learner,
    LearnerParameters,
    Workspace,
    learner_parameters,
    new_learner,
    new_workspace,
)
from thalweg.operators.machine.hashing import field_seed
from thalweg.operators.machine.reserve import reserved_bytes
from thalweg.operators.sdim import Window, projections, window_of
from thalweg.operators.structures.index import BUCKETS, Index
from thalweg.operators.structures.ownership import Owned, new_owned
from thalweg.operators.structures.pool import EVER_USED, FREED, Pool
from thalweg.operators.structures.table import Table, new_table

FATES = ("scored", "joined", "late", "duplicate", "early", "orphaned", "erased", "ranked", "dead_lettered")
FATE_SCORED, FATE_JOINED, FATE_LATE, FATE_DUPLICATE, FATE_EARLY = range(5)
FATE_ORPHANED, FATE_ERASED, FATE_RANKED, FATE_DEAD_LETTERED = range(5, 9)
TALLIES = (
    "closed_unlearned",
    "late_positives",
    "labelled",
    "positives",
    "impressions",
    "feedback",
    "over_user_share",
)
CLOSED_UNLEARNED, LATE_POSITIVES, LABELLED, POSITIVES, IMPRESSIONS, FEEDBACKS, OVER_USER_SHARE = range(7)
PROJECTION_SALT, REPRESENTATION_SALT = 0x5D1, 0xE44
INTERESTS = 2  # of each kind of behaviour: the short sequence and the long history
SHORT, LONG = range(INTERESTS)
MACHINE, OVERALL = range(2)  # inputs after the rates: the machine's logit as served, the overall log-odds
OTHERS = 2


class State(NamedTuple):
    """Everything that a partition knows.

    `names` uint8 [fields, 256]: the fields in their places; `clock`; `fates` int64 [9]: events by fate; `tallies` int64
    [7]: other counts; `features`: rows of values; `admission`: sightings of values without a row; `private`: which user
    owns which row; `users`: rows of users; `behaviors`: what they did; `waiting`: what waits for its outcome; `delays`:
    how long positives take; `seen` and `recalled`: what each waiting impression was scored with; `learner`; `memory`:
    errors.
    """

    names: npt.NDArray[np.uint8]
    clock: Clock
    fates: npt.NDArray[np.int64]
    tallies: npt.NDArray[np.int64]
    features: Table
    admission: Admission
    private: Owned
    users: Table
    behaviors: Behaviors
    waiting: Waiting
    delays: Delays
    seen: Seen
    recalled: Recalled
    learner: Learner
    memory: ErrorMemory


class Parameters(NamedTuple):
    """The configuration as the compiled code takes it, and scratch; not state.

    `acted`, `skipped`: the place of each kind of sequence, or -1. `projection` float32 [d, groups * tau].
    """

    time_jump_ms: int
    expire_time_ms: npt.NDArray[np.int64]
    user_expire_time_ms: npt.NDArray[np.int64]
    crosses: Crosses
    admission: AdmissionParameters
    joiner: JoinerParameters
    learner: LearnerParameters
    memory: ErrorMemoryParameters
    projection: npt.NDArray[np.float32]
    tau: int
    window: Window
    acted: int
    skipped: int
    workspace: Workspace


def interest_count(configuration: Configuration) -> int:
    """Return how many interest vectors an impression has."""
    return INTERESTS * len(configuration.behaviors.kinds) * configuration.learner.interests


def field_count(configuration: Configuration) -> int:
    """Return how many fields an impression can have, the derived ones included: they are the last."""
    return configuration.features.places() + len(DERIVED)


def input_count(configuration: Configuration) -> int:
    """Return how many float32 inputs an impression has: rates and residuals by field, two others, interest vectors."""
    interests = interest_count(configuration) * configuration.learner.latent_size
    return 2 * field_count(configuration) + OTHERS + interests


def base_stands_still(configuration: Configuration) -> bool:
    """Return whether what the error memories correct does not learn, or not for long."""
    return configuration.correction.base == "base_score" or configuration.learner.frozen_from_ms > 0


def error_memories(configuration: Configuration) -> Memories:
    """Return the error memories of a configuration."""
    c = configuration
    return memories_of(c.features.places(), c.learner.recent_items, c.error_memory.crosses, base_stands_still(c))


def value_count(configuration: Configuration) -> int:
    """Return how many values an impression has at most, those that are derived included."""
    c = configuration
    return c.features.values_limit + len(DERIVED) - 1 + c.learner.recent_items


def new_state(configuration: Configuration) -> State:
    """Return the state of a partition that has seen nothing; memory is reserved, not touched."""
    c = configuration
    rows, fields, size = c.table.rows_limit, field_count(c), c.learner.latent_size
    memories = len(error_memories(c).first)
    names = np.zeros((c.features.places(), NAME_BYTES), np.uint8)
    for place, name in enumerate(c.features.declared_fields()):
        write_name(names, place, name)
    slots = c.joiner.waiting_limit
    return State(
        names=names,
        clock=new_clock(),
        fates=np.zeros(len(FATES), np.int64),
        tallies=np.zeros(len(TALLIES), np.int64),
        features=new_table(rows, fields),
        admission=new_admission(c.table),
        private=new_owned(c.behaviors.users_limit, rows),
        users=new_table(c.behaviors.users_limit, 1),
        behaviors=new_behaviors(c.behaviors, c.sdim, size),
        waiting=new_waiting(c.joiner, c.behaviors.users_limit),
        delays=new_delays(),
        seen=new_seen(slots, value_count(c), input_count(c)),
        recalled=new_recalled(slots, c.error_memory.arrays, memories),
        learner=new_learner(c.learner, rows, fields, interest_count(c)),
        memory=new_error_memory(c.error_memory, c.correction, memories, c.error_memory.cells(base_stands_still(c))),
    )


def parameters_of(configuration: Configuration, names: list[str]) -> Parameters:
    """Return what the fold needs of the configuration; `names` are the fields known so far, in their places."""
    c = configuration
    fields, size = field_count(c), c.learner.latent_size
    expire_time_ms = np.full(fields, c.table.expire_time_ms, np.int64)
    salts = np.zeros(fields, np.uint64)
    for place, name in enumerate(names):
        expire_time_ms[place] = c.table.expire_time_ms_by_field.get(name, c.table.expire_time_ms)
        salts[place] = field_seed(name, c.seed)
    signs, bits = c.sdim.groups * c.sdim.tau, c.error_memory.arrays * c.error_memory.bits
    representation = projections(2 * size, bits, c.seed + REPRESENTATION_SALT)
    memories = error_memories(c)
    acted, skipped = (c.behaviors.kinds.index(kind) if kind in c.behaviors.kinds else -1 for kind in KINDS)
    return Parameters(
        c.limits.time_jump_ms,
        expire_time_ms,
        np.array([c.behaviors.expire_time_ms], np.int64),
        crosses_of(c.features, salts),
        admission_parameters(c.table),
        joiner_parameters(c.joiner),
        learner_parameters(c.learner, c.seed),
        error_memory_parameters(c.error_memory, c.correction, representation, memories),
        projections(size, signs, c.seed + PROJECTION_SALT),
        c.sdim.tau,
        window_of(c.sdim),
        acted,
        skipped,
        new_workspace(
            fields, c.learner.recent_items, value_count(c), interest_count(c), size, signs, bits, len(memories.first)
        ),
    )


def used(state: State) -> State:
    """Return views of the part of each array that was ever used: what is counted, saved and restored."""
    features, users, slots = _ever_used(state.features), _ever_used(state.users), _ever_used(state.waiting)
    waiting, behaviors, learner = state.waiting, state.behaviors, state.learner
    histories, feedbacks, texts = behaviors.histories, waiting.feedbacks, waiting.texts
    return state._replace(
        features=_used_table(state.features),
        private=_used_owned(state.private, users, features),
        users=_used_table(state.users),
        behaviors=_cut(
            behaviors,
            users,
            histories=_cut(histories, _ever_used(histories), ends=histories.ends, pool=_used_pool(histories.pool)),
        ),
        waiting=_cut(
            waiting,
            slots,
            lookup=_used_index(waiting.lookup),
            users=_used_owned(waiting.users, users, slots),
            held_feedbacks=waiting.held_feedbacks[:users],
            held_blocks=waiting.held_blocks[:users],
            deadlines=_cut(waiting.deadlines, slots, size=waiting.deadlines.size),
            provisional=_cut(waiting.provisional, slots, size=waiting.provisional.size),
            ends=waiting.ends,
            pool=_used_pool(waiting.pool),
            feedbacks=_cut(feedbacks, _ever_used(feedbacks), pool=_used_pool(feedbacks.pool)),
            texts=_cut(texts, _ever_used(texts), pool=_used_pool(texts.pool)),
        ),
        seen=_cut(state.seen, slots),
        recalled=_cut(state.recalled, slots),
        learner=learner._replace(
            features=learner.features[:features],
            rates=_cut(
                learner.rates, features, overall=learner.rates.overall, overall_at_ms=learner.rates.overall_at_ms
            ),
        ),
    )


def _ever_used(holder: Any) -> int:
    return int(holder.pool.counts[EVER_USED])


def _cut(tree: Any, rows: int, **others: Any) -> Any:
    """Return a named tuple with its arrays cut to their first `rows` rows, those named in `others` replaced."""
    parts = zip(tree._fields, tree, strict=True)
    return type(tree)(*(others[name] if name in others else part[:rows] for name, part in parts))


def _used_owned(owned: Owned, owners: int, things: int) -> Any:
    of_owners = {name: getattr(owned, name)[:owners] for name in ("first", "last", "held")}
    return _cut(owned, things, **of_owners)


def _used_pool(pool: Pool) -> Pool:
    return pool._replace(freed=pool.freed[: int(pool.counts[FREED])])


def _used_index(index: Index) -> Index:
    buckets = int(index.size[BUCKETS])
    return index._replace(keys=index.keys[:buckets], rows=index.rows[:buckets])


def _used_table(table: Table) -> Any:
    others = {"lookup": _used_index(table.lookup), "ends": table.ends, "pool": _used_pool(table.pool)}
    return _cut(table, _ever_used(table), **others, counts=table.counts)


def arrays_of(tree: Any, path: str = "") -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield every array of a tree of named tuples with its dotted name."""
    for name, part in zip(tree._fields, tree, strict=True):
        if isinstance(part, np.ndarray):
            yield path + name, part
        else:
            yield from arrays_of(part, f"{path}{name}.")


def state_bytes(state: State) -> int:
    """Return the bytes of all that was ever used: an upper bound of what is resident of the state."""
    return reserved_bytes([array for _, array in arrays_of(used(state))])


def snapshot(state: State) -> dict[str, npt.NDArray[Any]]:
    """Return copies of the used part of each array by its dotted name."""
    return {name: array.copy() for name, array in arrays_of(used(state))}


def restore(configuration: Configuration, arrays: dict[str, npt.NDArray[Any]]) -> State:
    """Return the state that a snapshot was taken of.

    Raises ValueError where the arrays do not fit the configuration's shape, or are none that the fold could have left.
    """
    state = new_state(configuration)
    made = dict(arrays_of(state))
    for name, array in made.items():
        saved = arrays.get(name)
        if saved is None:
            raise ValueError(f"the snapshot has no {name}")
        if saved.dtype != array.dtype or saved.shape[1:] != array.shape[1:] or len(saved) > len(array):
            raise ValueError(
                f"{name} is {saved.dtype} {saved.shape}, the configuration has {array.dtype} {array.shape}"
            )
        array[: len(saved)] = saved
    unknown = arrays.keys() - made.keys()
    if unknown:
        raise ValueError(f"the snapshot has {sorted(unknown)[0]}, which this version does not know")
    refuse_sizes(state)
    for name, array in arrays_of(used(state)):
        if array.shape != arrays[name].shape:
            raise ValueError(f"{name} is {arrays[name].shape}, but {array.shape} of it was ever used")
    refuse_inconsistent(state, configuration)
    return state
