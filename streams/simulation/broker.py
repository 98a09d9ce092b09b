"""Brokers in memory: logs with holes in their offsets, producers' numbers, transactions, and a group's offsets."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.errors import (
    ConcurrentTransactions,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    OutOfOrderSequenceNumber,
)
from thalweg.streams.simulation.topic import Log

if TYPE_CHECKING:
    from thalweg.streams.simulation.world import World

Place = tuple[str, int]
OFFSETS = "offsets"
"""Where a group's offsets lie: a topic of the brokers' own."""
MARKERS_S, SLOW_MARKERS_S = 0.02, 2.0
"""How long after a transaction's end was answered its markers are there, and how long at times."""


class Numbering(NamedTuple):
    """What a partition knows of a producer: the next number it expects, and the last batch for when it comes again."""

    epoch: int
    expected: int
    last: int
    offset: int


class Transactional(NamedTuple):
    """What the coordinator knows of a transactional id.

    `state`: empty, ongoing, committing, aborting, committed, aborted; `places`: what belongs to its transaction, and of
    an ended one where its marker is still to be written; `offset`: the group's, as the transaction has it.
    """

    producer: int
    epoch: int = 0
    state: str = "empty"
    transaction: int = 0
    places: tuple[Place, ...] = ()
    offset: int | None = None
    timeout_s: float = 60.0

    @property
    def is_ending(self) -> bool:
        """Whether the end is decided, and not yet marked in all places."""
        return self.state in ("committing", "aborting")


class SimulatedBrokers:
    """Logs, committed offsets and a transaction coordinator, which behaves as Kafka's does.

    A client that knows that a transaction has ended may still find it open in the logs: markers are written afterwards.
    """

    def __init__(self, world: "World") -> None:
        """Start without topics."""
        self._world = world
        self.outputs: dict[Place, Log] = {}
        self.committed: dict[int, int] = {}
        self.ids: dict[str, Transactional] = {}
        self._numberings: dict[tuple[int, Place], Numbering] = {}
        self._producers = 0

    def copied(self, world: "World") -> "SimulatedBrokers":
        """Return brokers of another world with the same logs; `resume` continues their work there."""
        copied = SimulatedBrokers(world)
        copied.outputs = {place: log.copied() for place, log in self.outputs.items()}
        copied.committed, copied.ids = dict(self.committed), dict(self.ids)
        copied._numberings, copied._producers = dict(self._numberings), self._producers
        return copied

    @property
    def key(self) -> tuple[Any, ...]:
        """All that they hold, to be compared. Ids of producers that can't come back do not count."""
        logs = tuple((place, log.key) for place, log in sorted(self.outputs.items()))
        return (logs, tuple(sorted(self.committed.items())), tuple(sorted(self.ids.items())))

    def resume(self) -> None:
        """Continue the work of copied brokers: timeouts of transactions, markers that are to be written."""
        for name, known in self.ids.items():
            self._watch(name, known)

    def log(self, topic: str, partition: int) -> Log:
        """Return an output partition's log."""
        return self.outputs.setdefault((topic, partition), Log())

    def new_producer_id(self) -> int:
        """Return an id that no producer has."""
        self._producers += 1
        return self._producers

    def append(
        self, producer: int, place: Place, number: int, records: Sequence[Any], epoch: int = 0, name: str | None = None
    ) -> int:
        """Append a producer's batch, whose first record has this number, and return its offset.

        One that is there already is not appended again. `name`: the transactional id, in whose transaction it is.
        Raises OutOfOrderSequenceNumber for one behind a gap. Raises InvalidProducerEpoch or InvalidTxnState for one of
        a fenced producer, or of a transaction that is over.
        """
        log = self.log(*place)
        if name is not None:
            self._refuse_stale(log, producer, epoch, name, place)
        known = self._numberings.get((producer, place))
        if known is not None and known.epoch == epoch:
            if number == known.last:
                return known.offset
            if number != known.expected:
                raise OutOfOrderSequenceNumber
        elif known is not None and number:
            raise OutOfOrderSequenceNumber
        hole = self._world.chance.random.randint(1, 3) if self._world.chance.happens(self._world.setting.holes) else 0
        offset = log.append(place[1], records, hole, None if name is None else producer)
        self._numberings[producer, place] = Numbering(epoch, number + len(records), number, offset)
        return offset

    def _refuse_stale(self, log: Log, producer: int, epoch: int, name: str, place: Place) -> None:
        """Refuse what is of an older epoch; the first batch of a transaction is asked about at the coordinator."""
        if epoch < log.epochs.get(producer, 0):
            raise InvalidProducerEpoch
        if not log.is_open(producer):
            known = self._known(name, producer, epoch)
            if known.state != "ongoing" or place not in known.places:
                raise InvalidTxnState
        log.epochs[producer] = epoch

    # What the coordinator is asked.

    def init_producer(self, name: str, timeout_s: float) -> tuple[int, int]:
        """Give a transactional id to a producer; its last owner's open transaction is aborted first."""
        known = self.ids.get(name)
        if known is None:
            known = Transactional(self.new_producer_id(), timeout_s=timeout_s)
        elif known.state == "ongoing":
            self._end(name, known._replace(epoch=known.epoch + 1), "aborting")
            raise ConcurrentTransactions
        elif known.is_ending:
            raise ConcurrentTransactions
        else:
            known = known._replace(epoch=known.epoch + 1, state="empty", timeout_s=timeout_s)
        self.ids[name] = known
        return known.producer, known.epoch

    def add_partition(self, name: str, producer: int, epoch: int, place: Place) -> None:
        """Have a partition belong to the transaction; the first one begins it."""
        known = self._known(name, producer, epoch)
        if known.is_ending:
            raise ConcurrentTransactions
        if known.state != "ongoing":
            known = known._replace(state="ongoing", transaction=known.transaction + 1, places=(), offset=None)
            self._watch(name, known)
        places = known.places if place in known.places else (*known.places, place)
        self.ids[name] = known._replace(places=places)

    def commit_offset(self, name: str, producer: int, epoch: int, partition: int, offset: int) -> None:
        """Have the group's offset of a partition be part of the transaction."""
        known = self._known(name, producer, epoch)
        if known.state != "ongoing" or (OFFSETS, partition) not in known.places:
            raise InvalidTxnState
        self.ids[name] = known._replace(offset=offset)

    def end_transaction(self, name: str, producer: int, epoch: int, is_committed: bool) -> None:
        """Decide a transaction. That is answered at once; its markers come later."""
        known = self._known(name, producer, epoch)
        if known.is_ending:
            raise ConcurrentTransactions
        if known.state == "ongoing":
            self._end(name, known, "committing" if is_committed else "aborting")
        elif known.state != ("committed" if is_committed else "aborted"):
            raise InvalidTxnState

    def stable_offset(self, partition: int) -> int | None:
        """Return the group's offset. Raises ConcurrentTransactions where a transaction that is open may change it."""
        for known in self.ids.values():
            is_open = known.state == "ongoing" or known.is_ending
            if is_open and known.offset is not None and (OFFSETS, partition) in known.places:
                raise ConcurrentTransactions
        return self.committed.get(partition)

    def _known(self, name: str, producer: int, epoch: int) -> Transactional:
        known = self.ids.get(name)
        if known is None or known.producer != producer:
            raise InvalidProducerIdMapping
        if known.epoch != epoch:
            raise InvalidProducerEpoch
        return known

    def _end(self, name: str, known: Transactional, state: str) -> None:
        self.ids[name] = known = known._replace(state=state)
        self._watch(name, known)

    def _watch(self, name: str, known: Transactional) -> None:
        """Schedule the abort of an open transaction, and the markers of an ended one."""
        world = self._world
        if known.state == "ongoing":
            world.loop.call_later(known.timeout_s, partial(self._expire, name, known.transaction))
        elif known.is_ending:
            for place in known.places:
                slow = world.chance.faults_happen(world.setting.slow_markers)
                delay_s = world.chance.random.uniform(0.0, SLOW_MARKERS_S if slow else MARKERS_S)
                world.loop.call_later(delay_s, partial(self._mark, name, known.transaction, place))

    def _expire(self, name: str, transaction: int) -> None:
        known = self.ids[name]
        if known.transaction == transaction and known.state == "ongoing":
            self._end(name, known._replace(epoch=known.epoch + 1), "aborting")

    def _mark(self, name: str, transaction: int, place: Place) -> None:
        known = self.ids[name]
        if known.transaction != transaction or place not in known.places:
            return
        is_committed = known.state == "committing"
        if place[0] == OFFSETS:
            if is_committed and known.offset is not None:
                self._world.verdict.on_offset(place[1], self.committed.get(place[1], 0), known.offset)
                self.committed[place[1]] = known.offset
        else:
            self.log(*place).mark(known.producer, known.epoch, is_committed)
        known = known._replace(places=tuple(left for left in known.places if left != place))
        if not known.places:
            known = known._replace(state="committed" if is_committed else "aborted")
        self.ids[name] = known
        if not known.places and is_committed:
            self._world.verdict.on_transaction(place[1], self.committed.get(place[1], 0))
