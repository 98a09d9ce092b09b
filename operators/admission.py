"""Monolith's frequency filter: an id gets a row only after it was seen often enough.

Sightings are counted exactly, once a page, in 16 bits, in a set-associative memory of the ids seen last: 8 cells a set
in the order of recency. At the limit, the least recently seen id of the set loses its count. An id is taken for another
of its set if 32 more bits of the key agree: at most 8 / 2**32 a first sighting. Counts are never too high otherwise,
and exact up to 65 535 as long as fewer than 8 other ids of the set are seen between two sightings. After n others a
count is lost with the probability that 8 or more of them fell into its set, P(Binomial(n, 1/sets) >= 8): with the
default of 65 536 sets .00001 after 65 536 ids, .0011 after 131 072, .051 after 262 144.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
from thalweg.operators.machine.compiled import compiled, int64, uint64
from thalweg.operators.machine.declare import Int64, UInt16, UInt32, made, per
from thalweg.operators.machine.hashing import uniform
from thalweg.operators.machine.numerics import exp, log
from thalweg.schemas.bounds import check, within

SET_CELLS = 8
COUNT_MAX = 65_535
ModeName = Literal["count", "linear", "geometric"]
MODES = get_args(ModeName)
CHANCE_SALT = 0xAD


class Mode(IntEnum):
    """How a count decides."""

    COUNT = 0
    LINEAR = 1
    GEOMETRIC = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class AdmissionConfiguration:
    """Which ids get a row; part of `[table]`.

    `occurrence_threshold`: sightings before an id gets its row; 0 and 1 admit at once, 65 535 is the most a counter
    holds. `admission`: "count" (at the threshold), "linear" (with probability sightings / threshold) or "geometric"
    (with probability 1 - (1-p)**sightings, p = 1 - 0.05**(1/threshold), so that 95% are in after `threshold`
    sightings). `filter_cells`: ids whose sightings are remembered at most.
    """

    occurrence_threshold: Annotated[int, within(0, COUNT_MAX)] = 1
    admission: ModeName = "count"
    filter_cells: Annotated[int, within(SET_CELLS, 1 << 26)] = 1 << 19

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds: 16 bits count sightings."""
        check(self)


class Admission(NamedTuple):
    """Sightings of ids without a row, the last seen first in each set."""

    tags: Annotated[UInt32, per("sets 8", "bits of the key", private=True)]
    counts: Annotated[UInt16, per("sets 8", "0: empty", private=True)]
    pages: Annotated[Int64, per("sets 8", "the page that counted last", private=True)]


class AdmissionParameters(NamedTuple):
    """The configuration as the compiled code takes it; `log_miss` is ln(1 - p) of the geometric mode."""

    threshold: int
    mode: int
    log_miss: float


def sets_of(configuration: AdmissionConfiguration) -> int:
    """Return how many sets a filter has."""
    return max(1, configuration.filter_cells // SET_CELLS)


def new_admission(configuration: AdmissionConfiguration) -> Admission:
    """Return a filter that has seen nothing."""
    return made(Admission, sets=sets_of(configuration))


def admission_parameters(configuration: AdmissionConfiguration) -> AdmissionParameters:
    """Return what `is_admitted` needs of the configuration."""
    threshold = max(1, configuration.occurrence_threshold)
    return AdmissionParameters(threshold, MODES.index(configuration.admission), float(log(0.05)) / threshold)


@compiled
def write_sighting(admission: Admission, key: int, page: int) -> int:
    """Count a sighting of a key, unless its page has counted it, and return how many there were, this one included."""
    tags = admission.tags[int64(uint64(key) % uint64(admission.tags.shape[0]))]
    counts = admission.counts[int64(uint64(key) % uint64(admission.tags.shape[0]))]
    pages = admission.pages[int64(uint64(key) % uint64(admission.tags.shape[0]))]
    tag = np.uint32(uint64(key) >> uint64(32))
    found = SET_CELLS - 1
    count = int64(1)
    for cell in range(SET_CELLS):
        if counts[cell] != 0 and tags[cell] == tag:
            found = cell
            count = min(int64(counts[cell]) + int64(pages[cell] != page), COUNT_MAX)
            break
    for cell in range(found, 0, -1):
        tags[cell] = tags[cell - 1]
        counts[cell] = counts[cell - 1]
        pages[cell] = pages[cell - 1]
    tags[0] = tag
    counts[0] = count
    pages[0] = page
    return count


@compiled
def read_sightings(admission: Admission, key: int, page: int) -> int:
    """Return how many sightings of a key there would be with one more on a page; who asks is none."""
    tags = admission.tags[int64(uint64(key) % uint64(admission.tags.shape[0]))]
    counts = admission.counts[int64(uint64(key) % uint64(admission.tags.shape[0]))]
    pages = admission.pages[int64(uint64(key) % uint64(admission.tags.shape[0]))]
    tag = np.uint32(uint64(key) >> uint64(32))
    for cell in range(SET_CELLS):
        if counts[cell] != 0 and tags[cell] == tag:
            return min(int64(counts[cell]) + int64(pages[cell] != page), COUNT_MAX)
    return 1


@compiled
def forget_sightings(admission: Admission, key: int) -> None:
    """Drop a key's count."""
    tags = admission.tags[int64(uint64(key) % uint64(admission.tags.shape[0]))]
    counts = admission.counts[int64(uint64(key) % uint64(admission.tags.shape[0]))]
    pages = admission.pages[int64(uint64(key) % uint64(admission.tags.shape[0]))]
    tag = np.uint32(uint64(key) >> uint64(32))
    for cell in range(SET_CELLS):
        if counts[cell] != 0 and tags[cell] == tag:
            for after in range(cell, SET_CELLS - 1):
                tags[after] = tags[after + 1]
                counts[after] = counts[after + 1]
                pages[after] = pages[after + 1]
            tags[SET_CELLS - 1] = 0
            counts[SET_CELLS - 1] = 0
            pages[SET_CELLS - 1] = 0
            return


@compiled
def is_admitted(parameters: AdmissionParameters, key: int, sightings: int) -> bool:
    """Return whether an id gets its row at this sighting.

    The chance of an id is drawn once, from its key: it is in as soon as the probability of its count reaches it.
    """
    if parameters.mode == Mode.COUNT or sightings >= COUNT_MAX:
        return sightings >= parameters.threshold
    chance = uniform(key, CHANCE_SALT)
    if parameters.mode == Mode.LINEAR:
        return sightings > chance * parameters.threshold
    return 1.0 - exp(parameters.log_miss * sightings) > chance
