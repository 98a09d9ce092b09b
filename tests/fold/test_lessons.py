"""Lessons: made of each learning step, learned where the log names them, and of no user."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from thalweg.operators import lessons
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold import emitted
from thalweg.operators.fold.fates import FATES, Tallied
from thalweg.operators.fold.layout import layout_of
from thalweg.operators.lessons import Flag, Head
from thalweg.operators.machine.declare import walk
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.operators.structures.names import field_names
from thalweg.operators.structures.table import Table
from thalweg.schemas.events import Erase, Feedback, Impression, Merge, encode_event
from thalweg.schemas.lessons import HEADER, HEADER_BYTES, NAME_BYTES, VERSION, encode_batch, read_batch
from thalweg.schemas.records import Cause, LogRecord, Outputs, no_outputs
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.lessons import SHARED, LessonBook, LessonsLayoutError, LessonsMissingError
from thalweg.streams.partition.partition import Partition
from thalweg.streams.refusal import Refusal

from tests.fold.logs import generated
from tests.streams.logs_for_tests import small

EVENTS = 150
FIRST = -1_000
"""Stands for where a batch's first lesson begins."""
TEACHER, LEARNER = 3, 1


def configured(**given: Any) -> Configuration:
    c = small(rows=1 << 12, users=1 << 12, waiting=1 << 11)
    crossed = replace(c.features, crosses=(("user", "device"), ("item", "device")))
    soon = replace(c.joiner, attribution_window_ms=60_000)
    return replace(c, features=crossed, joiner=soon, lessons=replace(c.lessons, **given))


C = configured()


def fed(partition: Partition, records: Sequence[LogRecord], batch: int = EVENTS) -> Outputs:
    """Feed a partition and return all that it made."""
    made = no_outputs()
    for first in range(0, len(records), batch):
        for kind, more in zip(made, partition.process(records[first : first + batch]), strict=True):
            kind.extend(more)
    return made


@cache
def taught(name: str = "plain") -> tuple[bytes, ...]:
    """Return the batches that the log's partition makes."""
    configuration = {"plain": C, "sampled": configured(negative_rate=0.25)}[name]
    made = fed(Partition(configuration, partition=TEACHER, lessons=LessonBook()), generated(EVENTS))
    return tuple(output.value or b"" for output in made.lessons)


def numbered(records: Sequence[bytes | None]) -> list[LogRecord]:
    return [LogRecord(offset, value) for offset, value in enumerate(records)]


def merge(upto: dict[int, int], **more: Any) -> bytes:
    return encode_event(Merge("m", upto, **more))


def learner(batches: Sequence[bytes] | None = None, configuration: Configuration = C) -> Partition:
    return Partition(configuration, partition=LEARNER, lessons=LessonBook(taught() if batches is None else batches))


def own_log(*merges: tuple[int, bytes], events: int = 70) -> list[LogRecord]:
    """Return the learner's log: other events than the teacher's, with merges before these places."""
    records: list[bytes | None] = [record.value for record in generated(2_000)[1_000 : 1_000 + events]]
    for place, value in sorted(merges, reverse=True):
        records.insert(place, value)
    return numbered(records)


def fates_of(partition: Partition) -> dict[str, int]:
    found = dict(zip(FATES, partition.state.fates.tolist(), strict=True))
    return {name: count for name, count in found.items() if count}


def last() -> int:
    return read_batch(taught()[-1]).last


def test_each_learning_step_makes_one_lesson_and_changes_no_other_output() -> None:
    """Lessons are numbered densely from 1 on, their causes rise, and all else is as without them."""
    with_lessons = fed(Partition(C, partition=TEACHER, lessons=LessonBook()), generated(EVENTS))
    without = fed(Partition(C, partition=TEACHER), generated(EVENTS))
    assert with_lessons[:4] == without[:4]
    assert not without.lessons
    batches = [read_batch(output.value or b"") for output in with_lessons.lessons]
    assert [each.first for each in batches] == [1, *(each.last + 1 for each in batches[:-1])]
    causes = [output.cause for output in with_lessons.lessons]
    assert causes == sorted(set(causes)) == [each.cause for each in batches]
    assert with_lessons.lessons[0].headers == (("thalweg.cause", b"interactions-3-%d:%d" % causes[0]),)
    assert {each.source for each in batches} == {TEACHER}
    assert last() >= len(with_lessons.examples) > 80


def test_lessons_are_small() -> None:
    """A lesson has at most 300 bytes beside its dense inputs, batch and all."""
    inputs = Partition(C).state.features_seen.inputs.shape[1]
    for value in taught():
        batch = read_batch(value)
        assert (len(value) - batch.lessons * (2 * inputs + 3)) / batch.lessons <= 300


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_cuts_change_nothing(batch: int) -> None:
    """However the logs are cut, outputs and digest of teacher and learner are the same bytes."""
    log = own_log((40, merge({TEACHER: 30})), (41, merge({TEACHER: 31})), (60, merge({TEACHER: last()})))
    whole, cut = learner(), learner()
    assert fed(whole, log) == fed(cut, log, batch)
    assert whole.digest() == cut.digest()
    again = fed(Partition(C, partition=TEACHER, lessons=LessonBook()), generated(EVENTS), batch)
    assert tuple(output.value for output in again.lessons) == taught()


def test_a_merge_teaches_items_and_context_and_no_user() -> None:
    """The learner's rates and items are the teacher's, and it has no user, no sequence and no value of a user."""
    partition = learner()
    partition.process(numbered([merge({TEACHER: last()})]))
    teacher = Partition(C, partition=TEACHER)
    fed(teacher, generated(EVENTS))
    state, theirs = partition.state, teacher.state
    assert fates_of(partition) == {"merged": 1}
    assert np.allclose(state.learner.rates.overall[0, :2], theirs.learner.rates.overall[0, :2], rtol=1e-6)
    known = {int(key) for key in state.features.key if key}
    assert known <= {int(key) for key in theirs.features.key if key}
    salt = field_seed("user", C.seed)
    users = {key_of(f"u{number}", salt) for number in range(1_000)}
    assert users & {int(key) for key in theirs.features.key}
    assert not users & known
    for array in (state.users.key, state.waiting.status, state.behaviors.counts):
        assert not array.any()
    private = [place for place, name in enumerate(field_names(theirs.names)) if name in ("user", "user*device")]
    assert not np.isin(state.features.list_of[state.features.key != 0], private).any()
    assert not state.cross.owners.owner.any()
    assert state.cross.learned[0] > 0
    assert state.memory.scale[0] > 1
    assert state.clock.stream_time_ms[0] == 0
    assert state.clock.arrivals[0] == 0
    spare = state.features.pool.freed.shape[0]
    for array in (state.learner.features, state.learner.rates.sums, state.cross.embedded.parts):
        assert not array[spare:].any()


def test_lessons_make_scores_better() -> None:
    """What others taught must show in the scores of impressions that come then."""
    log = own_log((0, merge({TEACHER: last()})))
    assert fed(learner(), log).scores != fed(learner(), own_log()).scores


def test_numbers_never_fall() -> None:
    """A smaller number, the same again, and the learner's own do nothing; what they name need not be there."""
    log = own_log((30, merge({TEACHER: 30})), (40, merge({TEACHER: 20, LEARNER: 99})), (41, merge({TEACHER: 30})))
    plain = own_log((30, merge({TEACHER: 30})), (40, b"{}"), (41, b"{}"))
    one, other = learner(), learner()
    assert [o.value for o in fed(one, log).examples] == [o.value for o in fed(other, plain).examples]
    assert one.state.lessons.learned[TEACHER] == other.state.lessons.learned[TEACHER] == 30
    assert fates_of(one)["merged"] == 3


def test_steps_are_the_same_in_one_merge_and_in_many() -> None:
    """Learned one by one or all at once, between the same events, lessons leave the same state but for the fates."""
    one, many = learner(), learner()
    events = [record.value for record in generated(2_000)[1_000:1_030]]
    fed(one, numbered([*events, merge({TEACHER: 40})]))
    fed(many, numbered([*events, *(merge({TEACHER: upto}) for upto in range(1, 41))]))
    for state in (one.state, many.state):
        state.fates[:] = 0
    assert one.digest() == many.digest()


def heard(source: int, first: int, *told: tuple[int, int, int]) -> bytes:
    """Return a batch of lessons of positives: (stream time, how far the last user is ahead, delay) of each."""
    each = [struct.pack("<HBBHqii", 22, 4, 0, 0, *one) for one in told]
    return encode_batch(source, first, layout_of(C) % 2**64, Cause(first, 0), [], len(each), b"".join(each))


def test_delays_are_told_before_any_label() -> None:
    """A positive that joins makes a lesson at once, by which others know of delays what its partition knows."""
    events: list[Impression | Feedback] = []
    for n in range(8):  # no window ends, and no label is due
        one = {"user": f"u{n}", "item": "i"}
        events.append(Impression(f"m{n}", **one, ts=START_MS + 500 * n, context={}))
        if n % 2:
            ts = START_MS + 500 * n + 90 * n
            events.append(Feedback(id=f"f{n}", impression=f"m{n}", **one, ts=ts, action="click"))
    teacher = Partition(C, partition=TEACHER, lessons=LessonBook())
    made = fed(teacher, numbered([encode_event(event) for event in events]))
    assert not made.examples
    partition = learner([output.value or b"" for output in made.lessons])
    partition.process(numbered([merge({TEACHER: int(teacher.state.lessons.made[0])})]))
    assert partition.state.delays.counts.sum() == teacher.state.delays.counts.sum() == 4
    assert (partition.state.delays.counts == teacher.state.delays.counts).all()
    assert not partition.state.features.key.any()


def test_labels_are_due_by_what_most_partitions_have_heard_of() -> None:
    """Two of five are half: neither makes labels due, three do; a source's clock may be behind its stream time."""
    partition = learner(
        [heard(source, 1, (9_000, ahead, 5)) for source, ahead in ((2, 90), (3, -10), (4, 70), (5, 60))]
    )
    for sources, due_ms in (((2,), 0), ((2, 3), 8_990), ((2, 3, 4), 8_990), ((2, 3, 4, 5), 9_060)):
        for source in sources:
            partition.merge({source: 1})
        assert partition.state.lessons.due_ms[0] == due_ms, sources


def test_labels_that_others_make_due_are_learned_with_the_next_event() -> None:
    """Own stream time stands still; what the others have heard of lets labels be learned, and moves no window."""
    told = [(START_MS - 200_000 + 1_000 * n, 0, 700) for n in range(200)]  # elapsed is known after them
    later = {source: heard(source, 201, (START_MS + 30_000, 0, 700)) for source in (2, 3, 4)}
    batches = [heard(source, 1, *told) for source in later] + list(later.values())
    made, closed = [], []
    for upto in (200, 201):
        partition = learner(batches)
        partition.merge(dict.fromkeys(later, 200))
        events = [Impression(str(n), f"u{n}", "i", START_MS + n, {}) for n in range(12)]
        fed(partition, numbered([encode_event(event) for event in events]))
        partition.merge(dict.fromkeys(later, upto))
        fed(partition, [LogRecord(12, encode_event(Impression("x", "u12", "i", START_MS + 12, {})))])
        made.append(int(partition.state.lessons.made[0]))
        closed.append(int(partition.state.tallies[Tallied.LABELLED]))
    assert made == [0, 12]
    assert closed == [0, 0]


def test_a_page_of_rows_with_early_feedback_has_room_for_its_lessons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each such row makes a lesson, and no row but the first of a page waits for releases, which have room."""
    monkeypatch.setattr(emitted, "LESSONS_AT_ONCE", 8)
    clicks = [
        Feedback(id=f"f{n}", impression=f"m{n}", user="u", item=f"i{n}", ts=START_MS + 5, action="click")
        for n in range(20)
    ]
    shown = [Impression(f"m{n}", "u", f"i{n}", START_MS, {}) for n in range(20)]
    partition = Partition(C, partition=TEACHER, lessons=LessonBook())
    made = fed(partition, numbered([encode_event(event) for event in (*clicks, *shown)]))
    assert sum(read_batch(output.value or b"").lessons for output in made.lessons) == 20
    assert partition.state.delays.counts.sum() == 20


def test_a_source_can_be_passed_over() -> None:
    """Lessons of an excluded partition count as learned, and nothing of them is."""
    partition = learner()
    partition.process(numbered([merge({TEACHER: 30}, exclude=[TEACHER])]))
    assert partition.state.lessons.learned[TEACHER] == 30
    assert not partition.state.features.key.any()


def test_a_partition_resumes_between_merges() -> None:
    """From a snapshot behind a merge, the next one is learned from where that one ended."""
    log = own_log((40, merge({TEACHER: 30})), (60, merge({TEACHER: last()})))
    whole, first = learner(), learner()
    fed(whole, log)
    first.process(log[:50])
    second = Partition(C, partition=LEARNER, lessons=LessonBook(taught()), arrays=first.snapshot())
    second.process(log[50:])
    assert second.digest() == whole.digest()


def test_unknown_partitions_are_dead_lettered() -> None:
    """A merge that names a partition beyond the limit is a dead letter, and none of its lessons is learned."""
    partition = learner()
    [letter] = partition.process(numbered([merge({TEACHER: 30, 256: 1})])).dead_letters
    assert ("thalweg.reason", b"unknown_source") in letter.headers
    assert not partition.state.lessons.learned.any()


def test_merges_are_ignored_where_lessons_are_off() -> None:
    """With `lessons.enabled` false a merge does nothing, and no lesson is made."""
    partition = learner(configuration=configured(enabled=False))
    assert not fed(partition, own_log((50, merge({TEACHER: 30})))).lessons
    assert fates_of(partition)["ignored"] == 1


def test_what_is_missing_or_damaged_is_refused() -> None:
    """Lessons that are gone, damaged, of another layout or not given end the partition with what to do."""
    log = own_log((50, merge({TEACHER: 30})))
    with pytest.raises(LessonsMissingError, match="lessons 1 to 30 of partition 3, which the log names, are missing"):
        learner([]).process(log)
    late = [value for value in taught() if read_batch(value).first > 5]
    with pytest.raises(LessonsMissingError):
        learner(late).process(log)
    early = [value for value in taught() if read_batch(value).last < 20]
    with pytest.raises(LessonsMissingError, match=r"lessons \d+ to 30"):
        learner(early).process(log)
    with pytest.raises(Refusal, match="offset 50 merges lessons of partition 3 up to 30: give them by --lessons"):
        Partition(C, partition=LEARNER).process(log)
    other = replace(C, learner=replace(C.learner, latent_size=4))
    with pytest.raises(LessonsLayoutError, match=f"{layout_of(C) % 2**64:016x}"):
        learner(configuration=other).process(log)


@pytest.mark.parametrize("at", [0, 2, 3, 4, 8, FIRST, FIRST + 3, FIRST + 4, FIRST + 5])
def test_damaged_bytes_reach_no_array(at: int) -> None:
    """A batch whose lengths and counts do not agree is refused before anything of it is read."""

    class Damaged:
        def read(self, source: int, first: int, upto: int) -> bytes:
            value = bytearray(taught()[0])
            names = read_batch(taught()[0]).names
            value[at if at >= 0 else HEADER_BYTES + NAME_BYTES * len(names) + at - FIRST] ^= 0xFF
            return bytes(value)

    partition = Partition(C, partition=LEARNER, lessons=Damaged())
    with pytest.raises(Refusal, match=r"damaged|missing"):
        partition.process(numbered([merge({TEACHER: 1})]))


def test_fields_are_met_by_their_names() -> None:
    """Where fields have other places, their values and inputs go to the places that the learner has for them."""
    c = small(rows=1 << 12, users=1 << 12, waiting=1 << 11, base=replace(C, features=Configuration().features))
    teacher = Partition(c, partition=TEACHER, lessons=LessonBook())
    book = LessonBook(output.value or b"" for output in fed(teacher, generated(EVENTS)).lessons)
    names = field_names(teacher.state.names)[2:]
    first = b'{"type":"impression","id":"first","user":"u1","item":"v1","ts":1700000000000,"context":{%s}}'
    turned = first % b",".join(b'"%s":"x"' % name.encode() for name in reversed(names))
    straight = first % b",".join(b'"%s":"x"' % name.encode() for name in names)
    found = []
    for event in (turned, straight):
        partition = Partition(c, partition=LEARNER, lessons=book)
        partition.process(numbered([event, merge({TEACHER: book.last(TEACHER)})]))
        own, pairs = field_names(partition.state.names), partition.state.learner.dense[0, 0]
        found.append([pairs[2 * own.index(name)] for name in ("item", *names)])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert len(set(found[0])) > 3


def test_sampled_negatives_count_for_the_others() -> None:
    """With a share of the negatives, positives stay whole, and the rates are near those of all lessons."""
    whole, part = learner(), learner(taught("sampled"), configured(negative_rate=0.25))
    whole.process(numbered([merge({TEACHER: last()})]))
    part.process(numbered([merge({TEACHER: read_batch(taught("sampled")[-1]).last})]))
    shown, acted = (np.array([p.state.learner.rates.overall[0, n] for p in (whole, part)]) for n in range(2))
    assert acted[1] == pytest.approx(acted[0], rel=0.2)
    assert shown[1] == pytest.approx(shown[0], rel=0.4)
    assert read_batch(taught("sampled")[-1]).last < 0.7 * last()


def test_sampled_lessons_count_as_their_bytes_say() -> None:
    """A positive stands for one; a provisional label, and its correction to 0, of a quarter of impressions for four."""
    c = configured(negative_rate=0.25)
    c = replace(c, joiner=replace(c.joiner, attribution_window_ms=600_000))
    delays = [(START_MS - 4_000_000 + 20_000 * n, 0, 1_200 * n) for n in range(200)]  # some positives come later
    teacher = Partition(c, partition=TEACHER, lessons=LessonBook([heard(2, 1, *delays)]))
    teacher.merge({2: 200})
    values = [output.value or b"" for output in fed(teacher, generated(500)).lessons]
    told = [LESSON.unpack_from(value + bytes(LESSON.size), at) for value in values for at in lessons_at(value)]
    steps = [each[2:] for each in told if not each[1] & Flag.HEARD]
    late = sum(each[1] & Flag.LATE > 0 for each in told)  # one more positive each, no exposure
    assert {weight for label, _, weight in steps if label < 1} == {4.0}
    assert {weight for label, _, weight in steps if label == 1} == {1.0}
    assert any(0 < label < 1 for label, *_ in steps)
    assert any(label == 0 < learned for label, learned, _ in steps)
    assert any(label == 1 > learned > 0 for label, learned, _ in steps)
    partition = learner(values, c)
    partition.merge({TEACHER: len(told)})
    overall = partition.state.learner.rates.overall[0]
    assert overall[0] == pytest.approx(sum(weight for _, learned, weight in steps if learned < 0) - late)
    assert overall[1] == pytest.approx(sum(weight * (label - max(learned, 0)) for label, learned, weight in steps))


LESSON = struct.Struct("<HB15xfff")
"""Length, flags, label, the one learned before or -1, impressions that it stands for."""


def lessons_at(value: bytes) -> list[int]:
    """Return where each lesson of a batch begins."""
    batch, at, found = read_batch(value), HEADER_BYTES, list[int]()
    at += NAME_BYTES * len(batch.names)
    for _ in range(batch.lessons):
        found.append(at)
        at += LESSON.unpack_from(value + bytes(LESSON.size), at)[0]
    return found


def test_erase_stays_where_the_user_is() -> None:
    """An erase leaves what was learned of the user's lessons by others; at home nothing of the user is left."""
    home = Partition(C, partition=TEACHER, lessons=LessonBook())
    fed(home, generated(EVENTS))
    users = {key_of(f"u{number}", field_seed("user", C.seed)): f"u{number}" for number in range(1_000)}
    user = next(users[int(key)] for key in home.state.users.key if int(key) in users)
    home.process([LogRecord(EVENTS, encode_event(Erase("e", user, 1_700_000_000_000)))])
    key = np.uint64(key_of(user, field_seed("user", C.seed)))
    assert not (home.state.users.key == key).any()
    assert not (home.state.features.key == key).any()
    assert not (home.state.lessons.key == key).any()


def test_lessons_of_a_cause_go_in_batches_of_64() -> None:
    """Where one event closes many windows, its lessons are in batches of 64, however much was emitted at once."""
    partition = Partition(C, partition=TEACHER, lessons=LessonBook())
    fed(partition, generated(EVENTS))
    made = partition.close_all().lessons
    sizes = [read_batch(output.value or b"").lessons for output in made]
    assert sizes[:-1] == [64] * (len(sizes) - 1) or sum(sizes) < 64
    ordinals = [output.cause.ordinal for output in made]
    assert all(ordinal % 64 == 0 for ordinal in ordinals[1:])


def test_the_header_is_where_the_wire_has_it() -> None:
    """Compiled code has its own numbers of the header, which its cache sees; they are those of the wire."""
    value = encode_batch(5, 6, 7, Cause(8, 9), [10], 1, b"lesson")
    numbers = [int(part) for part in HEADER.unpack_from(value)[1:7]]
    at = [Head.VERSION, Head.NAMES, Head.LENGTH, Head.SOURCE, Head.COUNT, Head.FIRST, Head.LAYOUT, Head.END]
    sizes = [after - before for before, after in pairwise(at[:-1])]
    data = np.frombuffer(bytearray(value), np.uint8)
    assert [lessons.take(data, int(place), size) for place, size in zip(at, sizes, strict=False)] == numbers
    assert lessons.take(data, int(Head.LAYOUT), 8) == 7
    assert lessons.take(data, int(Head.MAGIC), 2) == lessons.MAGIC
    assert (lessons.VERSION, lessons.NAME_BYTES, int(Head.END)) == (VERSION, NAME_BYTES, HEADER_BYTES)


def test_a_gap_is_refused() -> None:
    """Lessons that begin behind the next number are not learned, wherever they come from."""

    class Gap(LessonBook):
        def read(self, source: int, first: int, upto: int) -> bytes:
            return taught()[3]

    with pytest.raises(LessonsMissingError, match="begins or ends elsewhere"):
        Partition(C, partition=LEARNER, lessons=Gap()).process(
            numbered([merge({TEACHER: read_batch(taught()[3]).last})])
        )


def test_a_batch_of_another_partition_is_not_taken() -> None:
    """Bytes that name another partition than was asked for are refused."""

    class Wrong:
        def read(self, source: int, first: int, upto: int) -> bytes:
            value = taught()[0]
            fields = list(HEADER.unpack_from(value))
            fields[4] = 7
            return HEADER.pack(*fields) + value[HEADER_BYTES:]

    with pytest.raises(Refusal, match="damaged"):
        Partition(C, partition=LEARNER, lessons=Wrong()).process(numbered([merge({TEACHER: 1})]))


def test_a_new_partition_begins_with_anothers_shared_part() -> None:
    """Its first merge names where: it has the other's weights and rates then, and none of the other's users."""
    c = configured()
    c = replace(c, features=replace(c.features, context=("device", "category")))
    teacher = Partition(c, partition=TEACHER, lessons=LessonBook())
    book = LessonBook(output.value or b"" for output in fed(teacher, generated(EVENTS)).lessons)
    book.states["interactions-3-150"] = teacher.snapshot()
    rest = fed(teacher, [LogRecord(EVENTS + n, each.value) for n, each in enumerate(generated(220)[EVENTS:])])
    book.add(output.value or b"" for output in rest.lessons)
    begun = merge({TEACHER: book.last(TEACHER)}, start="interactions-3-150")
    partition = Partition(c, partition=LEARNER, lessons=book)
    fed(partition, own_log((20, begun), (30, begun)), 7)
    state = partition.state
    assert fates_of(partition)["merged"] == 2
    assert state.lessons.learned[TEACHER] == book.last(TEACHER)
    assert state.users.key.any()
    theirs = {int(key) for key in teacher.state.users.key if key}
    own = {int(key) for key in state.users.key if key}
    assert theirs - own
    assert not (theirs - own) & {int(key) for key in state.features.key if key}
    shown = teacher.state.learner.rates.overall[0, 0]
    assert state.learner.rates.overall[0, 0] >= shown
    again = Partition(c, partition=LEARNER, lessons=book, arrays=partition.snapshot())
    assert again.digest() == partition.digest()
    other = Partition(c, partition=LEARNER, lessons=LessonBook())
    with pytest.raises(Refusal, match="there is no state at interactions-3-150"):
        other.process(own_log((20, begun)))
    learned = Partition(C, partition=LEARNER, lessons=book)
    with pytest.raises(Refusal, match="can't be begun with"):
        learned.process(own_log((20, begun)))


def test_all_that_is_shared_is_taken_over() -> None:
    """Each array by its key: of items, context values and their pairs; stamps of the other's pages are not."""
    c = configured()
    c = replace(c, features=replace(c.features, context=("device", "category")))
    teacher = Partition(c, partition=TEACHER, lessons=LessonBook())
    book = LessonBook(output.value or b"" for output in fed(teacher, generated(EVENTS)).lessons)
    book.states["interactions-3-150"] = teacher.snapshot()
    partition = Partition(c, partition=LEARNER, lessons=book)
    partition.process([LogRecord(0, merge({TEACHER: book.last(TEACHER)}, start="interactions-3-150"))])
    theirs, ours = teacher.state, partition.state
    rows = {
        "values": common(theirs.features, theirs.user_rows.owner, ours.features),
        "cross_pairs": common(theirs.cross.pairs, theirs.cross.owners.owner, ours.cross.pairs),
    }
    found = {each.path: each.array for each in walk(ours)}
    taken = [each for each in walk(theirs) if each.path.startswith(SHARED)]
    assert all(any(each.path.startswith(prefix) for each in taken) for prefix in SHARED)
    for each in taken:
        at, to = rows.get(str(each.field.shape[0]), (slice(None), slice(None)))
        if each.path.endswith(".page"):
            assert not found[each.path][to].any(), each.path
        else:
            assert np.array_equal(found[each.path][to], each.array[at]), each.path
    assert ours.cross.counted.counts[rows["cross_pairs"][1]].any()


def common(theirs: Table, owner: npt.NDArray[np.int32], ours: Table) -> tuple[npt.NDArray[np.int64], ...]:
    """Return the rows of all keys that are no user's, there and here."""
    at = np.flatnonzero((theirs.key != 0) & (owner == 0))
    places = {int(key): row for row, key in enumerate(ours.key.tolist()) if key}
    assert len(at) > 10
    return at, np.array([places[int(key)] for key in theirs.key[at]])


def test_batches_carry_the_names_of_learned_fields() -> None:
    """The hashes behind the header are those of the names that the log brought, in their places."""
    batch = read_batch(taught()[-1])
    teacher = Partition(C)
    fed(teacher, generated(EVENTS))
    learned = field_names(teacher.state.names)[len(C.features.declared_fields()) :]
    assert list(batch.names) == [field_seed(name, C.seed) for name in learned]
    raw = taught()[-1][HEADER_BYTES : HEADER_BYTES + NAME_BYTES * len(learned)]
    assert struct.unpack(f"<{len(learned)}I", raw) == batch.names
    assert encode_batch(TEACHER, 1, 2, batch.cause, batch.names, 1, b"x")[HEADER_BYTES:-1] == raw
