"""What holds for every test: the session's brokers, failures told when they happen, and processes one can interrupt."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from thalweg.operators.machine.compiled import INTERPRETED

from tests.kafka import broker as real
from tests.soak import SOAK

INTERPRETED_EXAMPLES = 20  # of what hypothesis tries
KILLED, SHARED, POOL = "a broker that dies", "a broker", "a pool of processes"
ORDER = (KILLED, SHARED, POOL, "")
WHOLE = "of the whole"  # how tests report which part of `make soak` they have run

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what plain Python would take minutes for, where the fold is interpreted; begin with what takes long.

    Processes that share the tests (`make test`) get them in this order: what needs a broker, in two parts that mostly
    wait; what has a pool of processes; then each long test by itself; then the others, a module at a time.
    """
    for item in items:
        if INTERPRETED and item.get_closest_marker("large") is not None:
            item.add_marker(pytest.mark.skip("only compiled code works through so much"))
    kills = {item.path for item in items if "session_own_broker" in getattr(item, "fixturenames", ())}
    for item in items:
        if together := part_of(item, kills):
            item.add_marker(pytest.mark.xdist_group(together))
        if (soak := item.get_closest_marker("soak")) is not None:
            count, whole, what = soak.args
            item.user_properties.append((WHOLE, f"{count:,} of {whole:,} {what}"))
    items.sort(key=lambda item: ORDER.index(part_of(item, kills)) if part_of(item, kills) in ORDER else len(ORDER))


def part_of(item: pytest.Item, kills: set[Path]) -> str:
    """Return which tests a test stays together with; none if it is long. `kills`: modules that kill their broker."""
    if {"session_broker", "session_own_broker"} & set(getattr(item, "fixturenames", ())):
        return KILLED if item.path in kills else SHARED
    if "executor" in getattr(item, "fixturenames", ()):
        return POOL
    return "" if item.get_closest_marker("long") is not None else item.nodeid.partition("::")[0]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print which part of `make soak` was run."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, [])]
    parts = [(report.nodeid, value) for report in reports for name, value in report.user_properties if name == WHOLE]
    if parts:
        terminalreporter.section("the whole" if SOAK else "a part of what `make soak` runs whole")
    for nodeid, value in sorted(parts):
        terminalreporter.write_line(f"{value}: {nodeid}")


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell what a test measured, and a failure at once: whoever ends a run that takes too long learns of it so."""
    told = {name: value for name, value in report.user_properties if name != WHOLE}
    if report.when == "call" and told:
        sys.stdout.write(f"\n{report.nodeid}: {told}\n")
    if report.failed:
        sys.stdout.write(f"\n{report.nodeid} ({report.when}, {report.duration:.0f} s)\n{report.longreprtext}\n")
        for title, text in report.sections:
            sys.stdout.write(f"--- {title}\n{text[-4000:]}\n")
        sys.stdout.flush()
