"""What a partition knows of a user or an item, read between two events.

The state has keys, not names: of the items that a user acted on it can name the keys only.
"""

from typing import Any

import msgspec
import numpy as np
from thalweg.operators.facts import HEAD, KEY_BYTES, Held, find_item
from thalweg.operators.fold.state import State
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.operators.rates import Sum
from thalweg.operators.structures import index, texts
from thalweg.operators.structures.table import Table
from thalweg.streams.partition.partition import Partition

_decode_facts = msgspec.json.Decoder(dict[str, Any]).decode


class ValueKnown(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The counts of a user or an item as a value of its field; exposures count once their outcome is known.

    `recent_…` have the half-life `learner.residual_half_life_ms`, as of `counted_ms` of stream time. `recent_expected`
    is the sum of the scores.
    """

    exposures: float
    positives: float
    recent_exposures: float
    recent_positives: float
    recent_expected: float
    counted_ms: int
    updated_ms: int


class BehaviorKnown(msgspec.Struct, frozen=True, kw_only=True):
    """One of the last behaviours: the key of its item as 16 hexadecimal digits, None where the item was evicted."""

    item_key: str | None
    ts: int


class BehaviorsKnown(msgspec.Struct, frozen=True, kw_only=True):
    """The behaviours of one kind: how many ever, whether there is a long history, and the last ones, newest first."""

    count: int
    long_history: bool
    last: list[BehaviorKnown]


class UserKnown(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is known of a user at an offset; `waiting`: impressions whose outcome is open."""

    user: str
    partition: int
    offset: int
    known: bool
    exposures: int = 0
    last_exposure_ms: int | None = None
    waiting: int = 0
    behaviors: dict[str, BehaviorsKnown] = {}
    facts: dict[str, Any] = {}
    value: ValueKnown | None = None


class ItemKnown(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What one partition knows of an item at an offset; `item_key` is how it is named among behaviours."""

    item: str
    item_key: str
    partition: int
    offset: int
    known: bool
    facts: dict[str, Any] = {}
    value: ValueKnown | None = None


def user_known(partition: Partition, user: str, timeout_s: float) -> bytes:
    """Return what a partition knows of a user. Raises BusyError where it can't be read now."""
    key = _key(partition, "user", user)
    with partition.turns.asked(timeout_s):
        state = partition.state
        row = _row(state.users, key)
        found = UserKnown(
            user=user,
            partition=partition.partition,
            offset=partition.questions.position.next_offset,
            known=row >= 0,
            value=_value(state, key),
        )
        if row >= 0:
            shown = int(state.visits.shown[row])
            kinds = partition.configuration.behaviors.kinds
            found = msgspec.structs.replace(
                found,
                exposures=shown,
                last_exposure_ms=int(state.visits.shown_ms[row]) if shown else None,
                waiting=int(state.waiting.users.held[row]),
                behaviors={kind: _behaviors(state, row, place) for place, kind in enumerate(kinds)},
                facts=_facts(state.facts.of_users, row),
            )
    return msgspec.json.encode(found)


def item_known(partition: Partition, item: str, timeout_s: float) -> bytes:
    """Return what a partition knows of an item. Raises BusyError where it can't be read now."""
    key = _key(partition, "item", item)
    with partition.turns.asked(timeout_s):
        facts = partition.state.facts
        row = int(find_item(facts, np.uint64(key)))  # type: ignore[arg-type]
        held = _facts(facts.of_items, row) if row >= 0 else {}
        value = _value(partition.state, key)
        offset = partition.questions.position.next_offset
    found = ItemKnown(
        item=item,
        item_key=f"{key:016x}",
        partition=partition.partition,
        offset=offset,
        known=value is not None or bool(held),
        facts=held,
        value=value,
    )
    return msgspec.json.encode(found)


def _key(partition: Partition, field: str, name: str) -> int:
    return int(key_of(name, field_seed(field, partition.configuration.seed)))


def _row(table: Table, key: int) -> int:
    return int(index.find(table.lookup, np.uint64(key)))  # type: ignore[arg-type]


def _value(state: State, key: int) -> ValueKnown | None:
    row = _row(state.features, key)
    if row < 0:
        return None
    sums: Any = state.learner.rates.sums[row].tolist()
    return ValueKnown(
        exposures=sums[Sum.SHOWN],
        positives=sums[Sum.ACTED],
        recent_exposures=sums[Sum.LATELY_SHOWN],
        recent_positives=sums[Sum.LATELY_ACTED],
        recent_expected=sums[Sum.LATELY_EXPECTED],
        counted_ms=int(state.learner.rates.at_ms[row]),
        updated_ms=int(state.features.updated_ms[row]),
    )


def _facts(held: Held, owner: int) -> dict[str, Any]:
    """Return the facts of an item or a user by name, as `operators.facts` packs them."""
    packed = np.zeros(int(held.length[owner]), np.uint8)
    if not len(packed):
        return {}
    texts.read_text(held.texts, int(held.text[owner]), len(packed), packed, 0)
    raw, at, pieces = packed.tobytes(), 0, []
    while at < len(raw):
        _, count, length = HEAD.unpack_from(raw, at)
        at += HEAD.size + KEY_BYTES * count
        pieces.append(raw[at : at + length])
        at += length
    return _decode_facts(b"{%s}" % b",".join(pieces))


def _behaviors(state: State, user: int, kind: int) -> BehaviorsKnown:
    ring = state.behaviors
    count, length = int(ring.counts[user, kind]), ring.row.shape[2]
    last = []
    for number in range(count - 1, max(0, count - length) - 1, -1):
        place = number % length
        row = int(ring.row[user, kind, place])
        known = row >= 0 and state.features.generation[row] == ring.generation[user, kind, place]
        key = f"{int(state.features.key[row]):016x}" if known else None
        last.append(BehaviorKnown(item_key=key, ts=int(ring.ts_ms[user, kind, place])))
    return BehaviorsKnown(count=count, long_history=bool(ring.history[user, kind]), last=last)
