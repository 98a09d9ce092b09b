"""The broker of the session, and topics of one's own in it."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.kafka import broker as real


def pytest_configure(config: pytest.Config) -> None:
    """Let kafka-python be imported: it reads its own data files by a deprecated way."""
    config.addinivalue_line("filterwarnings", "ignore:(read|open)_text is deprecated:DeprecationWarning")


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Bootstrap servers of a real broker; without one the test fails and says what to install, it is never skipped."""
    try:
        with real.bootstrap_servers() as servers:
            yield servers
    except real.BrokerUnavailableError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Make a name that no other test uses, so that tests can share one broker."""
    suffix = uuid.uuid4().hex[:8]
    return lambda name: f"{name}-{suffix}"


@pytest.fixture(scope="session")
def own_broker() -> Iterator[real.Broker]:
    """A broker of the suite's own, with SASL_SSL on a second listener, that a test may kill and must restart."""
    try:
        with real.Broker(secure=True) as mine:
            yield mine
    except real.BrokerUnavailableError as error:
        pytest.fail(f"no broker with SASL_SSL ({error}): install Java 17, Maven and openssl", pytrace=False)
