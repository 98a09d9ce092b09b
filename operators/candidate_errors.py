"""The error memory of a request's candidates: what those that differ in the item alone share is read once.

A score is that of `error_memory.read_error_by`, bit for bit. What each memory foresaw is not kept: nothing learns from
a candidate. A memory without a value to go by foresees nothing, so that its turn is left out.
"""

from thalweg.operators import error_memory
from thalweg.operators.error_memory import (
    ErrorMemory,
    ErrorMemoryParameters,
    ErrorMemoryScratch,
    Keyed,
    MemoryReads,
    Near,
)
from thalweg.operators.machine.compiled import compiled, float64
from thalweg.operators.machine.numerics import rough_sigmoid, sigmoid


@compiled
def read_candidate(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    logit: float,
    prior: float,
    parameters: ErrorMemoryParameters,
    scratch: ErrorMemoryScratch,
    is_alike: bool,
) -> float:
    """Return a candidate's score as the memories correct it, from the `logit` of the score that they correct.

    `prior` is `error_memory.scaled_prior`. It `is_alike` if the one read before differs in the item alone.
    """
    near = scratch.near
    gather_sums(memory, reads, slot, parameters, scratch, is_alike)
    probability = sigmoid(logit)
    count, labels, predictions, buckets = (
        near[Near.COUNT],
        near[Near.LABELS],
        near[Near.PREDICTIONS],
        near[Near.BUCKETS],
    )
    estimates, up, down = reads.estimate[slot], prior * probability, prior * (1.0 - probability)
    for at in range(scratch.size[0]):
        positive, negative = buckets[at] * up, buckets[at] * down
        estimates[at] = error_memory.estimate(count[at], labels[at], predictions[at], positive, negative)
    before = probability
    for at in range(scratch.size[0]):
        which = scratch.which[at]
        if parameters.gamma > 0.0:
            promised = predictions[at] + parameters.gamma * (count[at] * before - predictions[at])
            positive, negative = buckets[at] * up, buckets[at] * down
            estimates[at] = error_memory.estimate(count[at], labels[at], promised, positive, negative)
            before = rough_sigmoid(logit + memory.trust[which] * float64(estimates[at]))
        logit += memory.trust[which] * float64(estimates[at])
    return sigmoid(logit)


@compiled
def gather_sums(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    parameters: ErrorMemoryParameters,
    scratch: ErrorMemoryScratch,
    is_alike: bool,
) -> None:
    """Write what each memory has of a candidate to the scratch; if it `is_alike`, only what the item may change."""
    memories = parameters.memories
    if is_alike:
        for at in range(scratch.size[0]):
            which = scratch.which[at]
            if memories.varies[which] != 0:
                error_memory.gather(memory, reads, slot, which, parameters, at, scratch.near)
        return
    scratch.size[0] = 0
    for which in range(memories.first.shape[0]):
        if reads.keyed[slot, which] > 0 or memories.first[which] == Keyed.REPRESENTATION:
            at = scratch.size[0]
            scratch.which[at], scratch.size[0] = which, at + 1
            error_memory.gather(memory, reads, slot, which, parameters, at, scratch.near)
