"""What a run's owner should look at: labels that never came, events that could not be used, feedback that came late.

A configuration that does not fit a log ruins its scores without an error. So a run reports what it met more often than
it should, with what to do.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Block
from thalweg.operators.features import FeaturesConfiguration
from thalweg.operators.fold.columns import Kind
from thalweg.operators.fold.fates import Fate, Tallied
from thalweg.operators.fold.state import State
from thalweg.operators.structures.names import field_names
from thalweg.schemas.reasons import Reason

DEAD_LETTERED_SHARE_MAX = 0.01
LATE_SHARE_MAX = 0.05
NAMED_MAX = 5
"""Reasons and actions that a message names, the most frequent ones."""
ACTIONS_MAX = 1_000
"""Actions that are counted by name."""
OTHER = "others"
LABELLED_MIN = 100
"""Impressions with a label from which on it is worth a word that none has feedback."""
LOOKED_AT = 64
"""Events of a block whose context fields are looked at."""
NAME_LENGTH_MAX = 40


class Noticed:
    """What a partition's state does not keep, since the partition was opened: actions and reasons by name."""

    def __init__(self) -> None:
        """Start with nothing noticed."""
        self.actions: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.fields: Counter[str] = Counter()
        """Context fields that have no place, with how many of the events looked at had them."""
        self._placed: frozenset[str] | None = None

    def note_fields(self, block: Block, names: npt.NDArray[np.uint8], features: FeaturesConfiguration) -> None:
        """Count the context fields that came when all places were taken; `names` is the state's."""
        if features.context or not names[-1, 0]:
            return
        if self._placed is None:
            never = (*features.exclude, "user", "item", *map("*".join, features.crosses))
            self._placed = frozenset((*field_names(names), *never))
        for event in block.events[:LOOKED_AT]:
            for name in getattr(event, "context", {}):
                if name not in self._placed and (name in self.fields or len(self.fields) < ACTIONS_MAX):
                    self.fields[name] += 1

    def note_block(self, block: Block) -> None:
        """Count the actions of feedback that is no positive."""
        columns = block.columns
        if Kind.FEEDBACK.value not in columns.kind.tobytes():
            return
        for number in np.flatnonzero((columns.kind == Kind.FEEDBACK.value) & (columns.positive == 0)).tolist():
            action: str = getattr(block.events[number], "action", OTHER)
            self.actions[action if action in self.actions or len(self.actions) < ACTIONS_MAX else OTHER] += 1

    def note_reasons(self, codes: npt.NDArray[np.uint8]) -> None:
        """Count the reasons of dead letters by their codes [n]; 0 is none."""
        for code, count in zip(*np.unique(codes[codes > 0], return_counts=True), strict=True):
            self.reasons[Reason.of_code(int(code)).value] += int(count)


class Finding(NamedTuple):
    """One finding for the run's owner: `kind` stays the same while the counts in `message` rise."""

    kind: str
    message: str


def findings(state: State, noticed: Noticed, configuration: Configuration, *, letters: str) -> list[Finding]:
    """Return what a partition's owner should look at; `letters` is where dead letters can be seen."""
    found = [
        _no_positives(state, noticed, configuration),
        _dead_letters(state, noticed, letters),
        _late_feedback(state, configuration),
        _facts(state, configuration),
        _fields(noticed, configuration),
    ]
    return [finding for finding in found if finding is not None]


def _no_positives(state: State, noticed: Noticed, configuration: Configuration) -> Finding | None:
    tallies = state.tallies.tolist()
    if not tallies[Tallied.FEEDBACK] and tallies[Tallied.LABELLED] >= LABELLED_MIN:
        message = (
            f"{counted(tallies[Tallied.LABELLED])} labelled impressions and no feedback at all, so every label is a "
            "negative: feedback are events of their own, or rows with a label (`thalweg import --label`)"
        )
        return Finding("no_feedback", message)
    if not tallies[Tallied.FEEDBACK] or tallies[Tallied.POSITIVES] or tallies[Tallied.LATE_POSITIVES]:
        return None
    actions = sum(noticed.actions.values())
    positive = ", ".join(configuration.joiner.positive_actions)
    if actions and actions >= tallies[Tallied.FEEDBACK]:
        message = (
            f"no feedback has an action in joiner.positive_actions ({positive}), so nothing is learned; "
            f"seen: {named(noticed.actions)}"
        )
    elif tallies[Tallied.LABELLED]:
        message = (
            f"none of {counted(tallies[Tallied.LABELLED])} labelled impressions is a positive, though "
            f"{counted(tallies[Tallied.FEEDBACK])} feedback came: does it name the impressions, and within "
            f"joiner.attribution_window_ms ({counted(configuration.joiner.attribution_window_ms)})?"
        )
    else:
        return None
    return Finding("no_positives", message)


def _dead_letters(state: State, noticed: Noticed, letters: str) -> Finding | None:
    events, dead = int(state.fates.sum()), int(state.fates[Fate.DEAD_LETTERED])
    if dead <= DEAD_LETTERED_SHARE_MAX * events:
        return None
    reasons = f": {named(noticed.reasons)}" if noticed.reasons else ""
    message = f"{counted(dead)} of {counted(events)} events are dead letters{reasons}; {letters}"
    return Finding("dead_lettered", message)


def _late_feedback(state: State, configuration: Configuration) -> Finding | None:
    feedback = int(state.tallies[Tallied.FEEDBACK])
    late, orphaned = int(state.fates[Fate.LATE]), int(state.fates[Fate.ORPHANED])
    if late + orphaned <= LATE_SHARE_MAX * feedback:
        return None
    window = f"joiner.attribution_window_ms ({counted(configuration.joiner.attribution_window_ms)})"
    parts = []
    if late:
        parts.append(f"late: {counted(late)}, after {window}, which can be raised")
    if orphaned:
        parts.append(f"orphaned: {counted(orphaned)}, whose impression did not come within {window}: do the ids agree?")
    message = f"{counted(late + orphaned)} of {counted(feedback)} feedback found no open impression; {'; '.join(parts)}"
    return Finding("late_feedback", message)


def _facts(state: State, configuration: Configuration) -> Finding | None:
    left_out, evicted = (int(state.tallies[which]) for which in (Tallied.FACTS_LEFT_OUT, Tallied.FACTS_EVICTED))
    parts = []
    if left_out:
        parts.append(
            f"left out of impressions: {counted(left_out)}, beyond features.values_limit or limits.record_bytes"
        )
    if evicted:
        facts = configuration.facts
        parts.append(
            f"items and users whose facts made room: {counted(evicted)}, at facts.items_limit "
            f"({counted(facts.items_limit)}), facts.items_bytes or facts.users_bytes"
        )
    return Finding("dropped_facts", f"facts were dropped; {'; '.join(parts)}") if parts else None


def _fields(noticed: Noticed, configuration: Configuration) -> Finding | None:
    if not noticed.fields:
        return None
    names = ", ".join(_printable(name) for name, _ in noticed.fields.most_common(NAMED_MAX))
    more = f" and {counted(len(noticed.fields) - NAMED_MAX)} more" if len(noticed.fields) > NAMED_MAX else ""
    message = (
        f"context fields that are not read, as all {configuration.features.fields_limit} places "
        f"(features.fields_limit) were taken before them: {names}{more}; name the fields that matter in "
        "features.context, or raise the limit"
    )
    return Finding("fields_without_place", message)


def named(counts: Counter[str]) -> str:
    """Return the most frequent names with their counts.

    >>> named(Counter(addtocart=3909, purchase=1366))
    'addtocart 3,909, purchase 1,366'
    """
    common = counts.most_common()
    shown = [f"{_printable(name)} {counted(count)}" for name, count in common[:NAMED_MAX]]
    if rest := sum(count for _, count in common[NAMED_MAX:]):
        shown.append(f"{len(common) - NAMED_MAX} more {counted(rest)}")
    return ", ".join(shown)


def counted(count: int) -> str:
    """Return a count as the table writes it."""
    return f"{count:,}"


def _printable(name: str) -> str:
    """Return what a producer wrote as a terminal may have it."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name[:NAME_LENGTH_MAX])
