"""Questions to a partition between two events: ranked as the fold would rank them there, and no event of the log.

An answer is a function of the log up to its offset: a request at that offset gets the same items and scores, byte for
byte. A question counts no fate, and the names of context fields are those of the events folded so far.
"""

import threading
import uuid
from typing import NamedTuple

import numpy as np
from msgspec import MsgspecError, Raw
from msgspec.json import Decoder, encode
from msgspec.structs import replace
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Block, Columnizer
from thalweg.operators.edges.encoder import DETAILS, answer_in
from thalweg.operators.fold.emitted import Emitted, new_emitted, room_for_candidates
from thalweg.operators.fold.fold import fold
from thalweg.operators.fold.layout import input_count
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.learner import BUILT_IN
from thalweg.operators.machine.reference import held
from thalweg.schemas.decode import decoder, measured
from thalweg.schemas.events import Request
from thalweg.schemas.outputs import Answer, Ranking, encode_answer
from thalweg.schemas.reasons import Reason, Unusable
from thalweg.schemas.records import LogRecord, Record
from thalweg.schemas.refusal import refusal
from thalweg.streams.partition.turns import BusyError, Turns

ANSWER_TIMEOUT_S = 5.0
SELECTING = ("top", "exclude", "seen", "at_most", "policy", "epsilon", "temperature", "deviation", "floor", "shown")
"""The options of a request that choose and order candidates, or take the first of them."""
NO_RECORD = LogRecord(0, b"")
_REQUEST = Raw(b'"request"')
_decode_fields = Decoder(dict[str, Raw]).decode


class Position(NamedTuple):
    """Where the fold is: the next input offset, and the context fields that the events before it brought."""

    next_offset: int
    names: list[str]
    parameters: Parameters


class Questions:
    """Answers to the questions that a partition is asked, one at a time."""

    def __init__(
        self, configuration: Configuration, state: State, scratch: Scratch, turns: Turns, position: Position
    ) -> None:
        """Answer from a state; `position` is kept current by the fold."""
        self.position = position
        self._configuration = configuration
        self.turns = turns
        self._scratch = scratch
        self._decode = decoder(configuration.limits)
        self._one_at_a_time = threading.Lock()
        self._emitted: Emitted | None = None
        self._columnizer: Columnizer | None = None
        self._names: list[str] = []
        # A question is no event: the fate that the fold would count goes nowhere.
        self._state = held(state._replace(fates=np.zeros_like(state.fates)))

    def answer(
        self, request: bytes | Request, *, is_ordered: bool = True, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> bytes:
        """Return the answer to a request; unless `is_ordered`, every candidate's score in the request's order.

        Raises Unusable where it is no request that can be answered, BusyError where it can't be now.
        """
        if self._configuration.learner.model != BUILT_IN:
            raise Unusable(Reason.REQUEST_UNSUPPORTED, DETAILS[Reason.REQUEST_UNSUPPORTED])
        if not self._one_at_a_time.acquire(timeout=timeout_s):
            raise BusyError("the partition is busy", 1.0, is_waiting=True)
        try:
            block, names = self._read(request, is_ordered=is_ordered)
            emitted = self._room(int(block.columns.candidate_start[-1]))
            with self.turns.asked(timeout_s):
                position = self.position
                if position.names != names:  # an event has brought a new field meanwhile
                    block, _ = self._read(request, is_ordered=is_ordered)
                fold(self._state, position.parameters, self._scratch, block.columns, emitted, 0)
            found = answer_in(block, emitted, 0, "", self._configuration.ranking, is_ordered=is_ordered)
            return encode_answer(answer_at(found.ranking, position.next_offset))
        finally:
            self._one_at_a_time.release()

    def _read(self, request: bytes | Request, *, is_ordered: bool) -> tuple[Block, list[str]]:
        """Return a request as a block, and the names that it was read with."""
        names = self.position.names
        if self._columnizer is None or names != self._names:
            known = self._state.names.copy()
            known[len(names) :] = 0
            self._columnizer, self._names = Columnizer(self._configuration, known, 0, 0, self._event), names
        self._asked = request
        block = self._columnizer.columns([NO_RECORD])
        if block.details:
            raise Unusable(Reason.of_code(int(block.columns.reason[0])), block.details[0])
        given = [name for name in SELECTING if getattr(self._request, name) not in (None, [], {}, "keep")]
        if given and not is_ordered:
            raise Unusable(Reason.BAD_OPTION, f"every candidate is scored: leave out {', '.join(given)}")
        return block, names

    def _event(self, record: Record) -> Request:
        """Return a question's event: it shows nothing here, since that is for its record in the log."""
        event = self._asked if isinstance(self._asked, Request) else self._decode(self._asked)
        if not isinstance(event, Request):
            raise Unusable(Reason.UNKNOWN_TYPE, "only a request can be asked")
        self._request = event
        return replace(event, shown=None)

    def _room(self, candidates: int) -> Emitted:
        if self._emitted is None:
            self._emitted = held(new_emitted(self._configuration, 1, input_count(self._configuration)))
        if len(self._emitted.ranked) < candidates:
            heads = len(self._configuration.objectives.heads)
            self._emitted = held(self._emitted._replace(**room_for_candidates(candidates, heads)))
        return self._emitted


def answer_at(found: Ranking, offset: int) -> Answer:
    """Return a ranking as the answer to a question that was asked at an offset."""
    return Answer(
        id=found.id,
        user=found.user,
        ts=found.ts,
        policy=found.policy,
        items=found.items,
        refused=found.refused,
        offset=offset,
    )


def request_of(body: bytes, configuration: Configuration, now_ms: int) -> tuple[Request, bytes]:
    """Return the request that a body asks for, a `request` without `type`, and its bytes as a record of the log.

    `id`, `ts` and `context` may be left out: they are a random one, `now_ms` and empty then. Raises Unusable where it
    is no request.
    """
    limits = configuration.limits
    raw = measured(body, limits)
    try:
        fields = _decode_fields(raw)
    except MsgspecError:
        raise refusal(raw, limits) from None
    if fields.setdefault("type", _REQUEST) != _REQUEST:
        raise Unusable(Reason.UNKNOWN_TYPE, "only a request can be asked: leave out type")
    made_up = {"type": _REQUEST, "id": uuid.uuid4().hex, "ts": now_ms, "context": {}}
    record = encode(made_up | fields)
    event = decoder(limits)(record)
    assert isinstance(event, Request)
    return event, record
