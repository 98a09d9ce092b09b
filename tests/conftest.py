"""What holds for every test: the session's brokers, failures told when they happen, and processes one can interrupt."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Generator, Iterator

import hypothesis
import pytest
from thalweg.operators.machine.compiled import INTERPRETED

from tests.kafka import broker as real

INTERPRETED_EXAMPLES = 20  # of what hypothesis tries

NODES: dict[str, real.Broker] = {}
"""The brokers that run, by the fixture that gives them."""


@pytest.fixture(scope="session")
def compiled_fold() -> None:
    """The machine code that workers load: whatever is waited for in a test, it is not the compiler."""
    code = "from thalweg.operators.configuration import Configuration\n"
    code += "from thalweg.streams.partition.partition import Partition\n"
    subprocess.run([sys.executable, "-c", f"{code}Partition(Configuration()).warm_up()"], check=True)


@pytest.fixture(scope="session")
def session_broker(compiled_fold: None) -> Iterator[real.Running]:
    """A real broker; without one the test fails and says what to install, it is never skipped."""
    try:
        with real.running() as running:
            if running.node is not None:
                NODES["broker"] = running.node
            yield running
    except real.BrokerUnavailableError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def broker(session_broker: real.Running) -> str:
    """Bootstrap servers of the session's broker."""
    refuse_dead(session_broker.node)
    return session_broker.bootstrap_servers


@pytest.fixture(scope="session")
def session_own_broker(compiled_fold: None) -> Iterator[real.Broker]:
    """A broker of the suite's own, with SASL_SSL on a second listener."""
    try:
        with real.Broker(secure=True) as mine:
            NODES["own_broker"] = mine
            yield mine
    except real.BrokerUnavailableError as error:
        pytest.fail(f"no broker with SASL_SSL ({error}): install Java 17, Maven and openssl", pytrace=False)


@pytest.fixture
def own_broker(session_own_broker: real.Broker) -> real.Broker:
    """The broker with SASL_SSL, that a test may kill and must restart."""
    refuse_dead(session_own_broker)
    return session_own_broker


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Make a name that no other test uses, so that tests can share one broker."""
    suffix = uuid.uuid4().hex[:8]
    return lambda name: f"{name}-{suffix}"


def refuse_dead(node: real.Broker | None) -> None:
    """Fail at once, where the test would otherwise wait for each of its limits in turn."""
    if node is not None and not node.is_running:
        pytest.fail(f"the broker has ended since; the last that it said:\n{node.last_words()}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the broker said last to the failure of a test that uses it."""
    report = yield
    if report.failed:
        for fixture in sorted(NODES.keys() & set(getattr(item, "fixturenames", ()))):
            report.sections.append((f"the end of the log of {fixture}", NODES[fixture].last_words()))
    return report


def pytest_configure() -> None:
    """Have processes of tests end on SIGINT, which what a shell starts in the background ignores; time no example."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # the first example of many a test compiles
    examples = INTERPRETED_EXAMPLES if INTERPRETED else 100
    hypothesis.settings.register_profile("untimed", deadline=None, max_examples=examples)
    hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what plain Python would take minutes for, where the fold is interpreted."""
    for item in items:
        if INTERPRETED and item.get_closest_marker("large") is not None:
            item.add_marker(pytest.mark.skip("only compiled code works through so much"))


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell what a test measured, and a failure at once: whoever ends a run that takes too long learns of it so."""
    if report.when == "call" and report.user_properties:
        sys.stdout.write(f"\n{report.nodeid}: {dict(report.user_properties)}\n")
    if report.failed:
        sys.stdout.write(f"\n{report.nodeid} ({report.when}, {report.duration:.0f} s)\n{report.longreprtext}\n")
        for title, text in report.sections:
            sys.stdout.write(f"--- {title}\n{text[-4000:]}\n")
        sys.stdout.flush()
