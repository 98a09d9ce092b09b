"""What workers have on its way to the brokers: it arrives late, twice, after its sender's death, or not at all."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.errors import KafkaError, KafkaTimeoutError

if TYPE_CHECKING:
    from thalweg.streams.simulation.broker import SimulatedBrokers
    from thalweg.streams.simulation.worker import SimulatedWorker

LATE_S = 20.0
"""How much later than its sender's death a request may arrive."""


class Request(NamedTuple):
    """A call of the brokers' `method`; `name` is of the points before and after it."""

    name: str
    method: str
    arguments: tuple[Any, ...]

    def apply(self, brokers: "SimulatedBrokers") -> "Answer":
        """Have the brokers do it."""
        try:
            return Answer(getattr(brokers, self.method)(*self.arguments))
        except KafkaError as error:
            return Answer(error=error)


class Answer(NamedTuple):
    """The answer that a client gets to a request."""

    value: Any = None
    error: KafkaError | None = None


class Wire:
    """A worker's connections. A request or its answer gets lost at times, and the client sends it again.

    One that `may_fail` the client gives up at times, which may have arrived, or still will.
    """

    def __init__(self, worker: "SimulatedWorker") -> None:
        """Connect a worker."""
        self._worker, self._world = worker, worker.world

    def send(self, request: Request, told: Callable[[Answer], None], *, may_fail: bool = False) -> None:
        """Put a request on its way; `told` is called with the answer, if the worker still runs when it comes."""
        number = self._world.put_on_wire(request)
        is_failing = may_fail and self._world.chance.faults_happen(self._world.setting.failed_deliveries)
        self._later(0.01, partial(self._arrive, number, request, told, is_failing))

    def _arrive(self, number: int, request: Request, told: Callable[[Answer], None], is_failing: bool) -> None:
        world, again = self._world, partial(self._arrive, number, request, told, is_failing)
        if not self._worker.is_alive:
            # what a dead worker had on the wire: late, or never
            if not world.chance.happens(0.5):
                return
            if world.chance.happens(0.5):
                self._later(LATE_S, partial(self._come, request))
                return
        if world.chance.faults_happen(world.setting.lost_requests):
            self._later(0.1, again)
            return
        if is_failing and world.chance.happens(0.5):
            self._later(0.5, partial(self._answer, told, Answer(error=KafkaTimeoutError())))
            if world.chance.happens(0.5):
                self._later(LATE_S, partial(self._come, request))
            return
        if not self._worker.survives(f"before arrival of {request.name}") and world.chance.happens(0.5):
            return
        world.take_off_wire(number)
        answer = request.apply(world.brokers)
        self._worker.survives(f"after arrival of {request.name}")
        if is_failing:
            self._later(0.5, partial(self._answer, told, Answer(error=KafkaTimeoutError())))
        elif world.chance.faults_happen(world.setting.lost_requests):
            self._later(0.1, again)
        else:
            self._later(0.01, partial(self._answer, told, answer))

    def _come(self, request: Request) -> None:
        request.apply(self._world.brokers)

    def _answer(self, told: Callable[[Answer], None], answer: Answer) -> None:
        if not self._worker.is_alive:
            return
        if self._worker.is_paused:
            self._worker.when_awake(partial(self._answer, told, answer))
            return
        told(answer)

    def _later(self, seconds_max: float, call: Callable[[], object]) -> None:
        self._world.loop.call_later(self._world.chance.random.uniform(0.0, seconds_max), call)
