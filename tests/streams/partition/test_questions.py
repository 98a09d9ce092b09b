"""Questions between two events: answered as the fold would answer there, and nothing is other than without them."""

import random
import threading
import time
from typing import Any

import msgspec
import pytest
from thalweg.schemas.events import Request, encode_event
from thalweg.schemas.outputs import Answer, decode_answer
from thalweg.schemas.reasons import Unusable
from thalweg.schemas.records import LogRecord, Outputs
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.questions import request_of
from thalweg.streams.partition.turns import BusyError, Turns

from tests.fold.logs import generated
from tests.streams.logs_for_tests import small
from tests.streams.test_ranking import ITEMS, MANY, USERS

CONFIGURATION = small(rows=MANY, users=MANY, waiting=MANY // 2)
EVENTS = 3_000


def asked(number: int, ts_ms: int = 1_700_000_000_000) -> bytes:
    """Return a request that depends on its number."""
    chance = random.Random(number)
    wanted: list[Any] = [f"i{chance.randrange(ITEMS + 9)}" for _ in range(20)]
    wanted += [{"item": "i3", "context": {"price": number, "tags": ["a", "new"]}}, ""]
    user = chance.choice(["nobody", f"u{chance.randrange(USERS)}"])
    options: dict[str, Any] = {"explain": number % 2 > 0, "top": 9 if number % 3 == 2 else None}
    return encode_event(Request(f"r{number}", user, wanted, ts_ms, {"device": "tablet", "unknown": 1}, **options))


def replayed(log: list[LogRecord], request: bytes, answer: Answer) -> None:
    """Compare an answer with what a replay of the log up to its offset ranks for the same request."""
    partition = Partition(CONFIGURATION)
    partition.process([record for record in log if record.offset < answer.offset])
    [ranking] = partition.process([LogRecord(answer.offset, request)]).rankings
    expected = msgspec.json.decode(ranking.value or b"")
    del expected["origin"], expected["cause"]
    assert msgspec.json.encode(expected | {"offset": answer.offset}) == msgspec.json.encode(answer)


@pytest.mark.parametrize("block", [1, 40, 10_000])
def test_answers_under_load_are_those_of_a_replay(block: int) -> None:
    """While another thread folds, each answer is, byte for byte, the ranking of a replay up to the offset it names."""
    log = generated(EVENTS)
    partition = Partition(CONFIGURATION, block_events=1_000)
    partition.answer(asked(0))  # what has to be compiled for it is
    made = Outputs([], [], [], [], [])
    answers: list[tuple[bytes, Answer]] = []
    errors: list[BaseException] = []
    is_folded = threading.Event()

    def ask(seed: int) -> None:
        number = seed
        try:
            while not is_folded.is_set() or not answers:
                request = asked(number)
                answers.append((request, decode_answer(partition.answer(request))))
                number += 2
                time.sleep(0.001)
        except BaseException as error:
            errors.append(error)

    asking = [threading.Thread(target=ask, args=(seed,)) for seed in (0, 1)]
    for thread in asking:
        thread.start()
    for first in range(0, EVENTS, block):
        for kind, more in zip(made, partition.process(log[first : first + block]), strict=True):
            kind.extend(more)
    is_folded.set()
    for thread in asking:
        thread.join()
    assert not errors
    quiet = Partition(CONFIGURATION)
    assert quiet.process(log) == made
    assert partition.digest() == quiet.digest()
    assert partition.state.fates.tolist() == quiet.state.fates.tolist()
    offsets = {answer.offset for _, answer in answers}
    assert len(offsets) > 3
    for request, answer in random.Random(5).sample(answers, min(12, len(answers))):
        replayed(log, request, answer)


def test_a_question_stops_a_large_block() -> None:
    """A question must come in the middle of a block that is folded in one go, not behind it."""
    log = generated(EVENTS)
    partition = Partition(CONFIGURATION, block_events=EVENTS)
    partition.process(log[:1])
    offsets: list[int] = []
    is_folded = threading.Event()

    def ask() -> None:
        while not is_folded.is_set():
            offsets.append(decode_answer(partition.answer(asked(1))).offset)

    thread = threading.Thread(target=ask)
    thread.start()
    partition.process(log[1:])
    is_folded.set()
    thread.join()
    assert any(1 < offset < EVENTS for offset in offsets)


def test_a_field_that_no_event_has_brought_is_not_read() -> None:
    """Answers before an event that brings a field must not read it, and those behind it must."""
    log = generated(EVENTS)
    partition = Partition(CONFIGURATION)
    for end in (0, 1, 2, 40):
        partition.process([record for record in log[:end] if record.offset >= partition.questions.position.next_offset])
        request = asked(3)
        replayed(log, request, decode_answer(partition.answer(request)))


def test_scores_come_in_the_order_of_the_request() -> None:
    """Not ranked, the answer has each candidate's score in its place, and takes no option that leaves one out."""
    partition = Partition(CONFIGURATION)
    partition.process(generated(500))
    request = asked(4)
    ranked = decode_answer(partition.answer(request))
    scored = decode_answer(partition.answer(request, is_ordered=False))
    wanted = [each if isinstance(each, str) else each["item"] for each in msgspec.json.decode(request)["candidates"]]
    assert [each.item for each in scored.items] == wanted[:-1]
    assert sorted(scored.items, key=lambda each: -each.score) == ranked.items
    assert scored.refused == ranked.refused
    for option in ({"top": 1}, {"shown": 1}):
        refused = encode_event(Request("r", "u", ["v"], 1_700_000_000_000, {}, **option))
        with pytest.raises(Unusable, match=f"every candidate is scored: leave out {next(iter(option))}"):
            partition.answer(refused, is_ordered=False)


def test_what_is_no_request_is_refused() -> None:
    """Other events and broken ones change nothing and say what is wrong."""
    partition = Partition(CONFIGURATION)
    before = partition.digest()
    for record, reason in (
        (b'{"type":"erase","id":"1","user":"u","ts":1700000000000}', "unknown_type"),
        (b'{"type":"request"', "not_json"),
        (b'{"type":"request","id":"1","user":"","ts":1700000000000,"candidates":[],"context":{}}', "id_empty"),
    ):
        with pytest.raises(Unusable) as caught:
            partition.answer(record)
        assert caught.value.reason.value == reason
    assert partition.digest() == before
    assert not partition.state.fates.any()


def test_a_body_is_a_request_without_type() -> None:
    """What a body leaves out is made up, what it has holds, and what is wrong is said of the body as it came."""
    event, record = request_of(b' {"user":"u","candidates":["v"]} ', CONFIGURATION, 1_700_000_000_123)
    assert (event.user, event.candidates, event.ts) == ("u", ["v"], 1_700_000_000_123)
    assert len(event.id) == 32
    assert event.context == {}
    assert msgspec.json.decode(record, type=Request) == event
    given = b'{"id":"7","user":"u","ts":1700000000000,"candidates":[],"context":{},"type":"request"}'
    assert request_of(given, CONFIGURATION, 1_700_000_000_123)[0] == Request("7", "u", [], 1_700_000_000_000, {})
    for body, reason in (
        (b"", "empty"),
        (b"[]", "not_an_object"),
        (b"{}", "missing_field"),
        (b'{"user":', "not_json"),
        (b'{"type":"erase","user":"u"}', "unknown_type"),
        (b"x" * 70_000, "too_large"),
    ):
        with pytest.raises(Unusable) as caught:
            request_of(body, CONFIGURATION, 1_700_000_000_000)
        assert caught.value.reason.value == reason
    with pytest.raises(Unusable, match="not JSON from character 8 of 9"):
        request_of(b'{"user":x', CONFIGURATION, 1_700_000_000_000)


def test_an_event_is_answered_as_its_record_is() -> None:
    """The event that `request_of` made is asked without being read again; it stays as it was, whatever it shows."""
    partition = Partition(CONFIGURATION)
    partition.process(generated(500))
    for given in (asked(4), msgspec.json.encode(msgspec.json.decode(asked(5)) | {"shown": 2})):
        event, record = request_of(given, CONFIGURATION, 1_700_000_000_000)
        before = encode_event(event)
        assert partition.answer(event) == partition.answer(record)
        assert encode_event(event) == before


def test_questions_have_a_share_of_the_time() -> None:
    """What is asked beyond the share is refused with a time to wait, and taken after it."""
    turns = Turns()
    turns.share_max = 0.25
    with turns.asked(1.0):
        time.sleep(0.2)
    with pytest.raises(BusyError) as caught, turns.asked(1.0):
        pass
    assert 0.1 < caught.value.retry_after_s < 0.5
    time.sleep(caught.value.retry_after_s + 0.01)
    with turns.asked(1.0):
        pass


def test_a_turn_that_does_not_come_is_a_refusal() -> None:
    """A question must not wait for ever, and the flag that it raised falls with it."""
    turns = Turns()
    halt = turns.halt
    turns.take()
    with pytest.raises(BusyError), turns.asked(0.01):
        pass
    assert halt.tolist() == [0, 0]
    turns.give()
    with turns.asked(0.01):
        assert halt.tolist() == [0, 0]
