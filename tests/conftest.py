"""What holds for every test: failures are told when they happen, and processes can be interrupted."""

import signal
import sys

import pytest


def pytest_configure() -> None:
    """Have processes of tests end on SIGINT: whatever a shell starts in the background ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell a failure at once: whoever ends a run that takes too long would otherwise never learn of it."""
    if report.failed:
        sys.stdout.write(f"\n{report.nodeid} ({report.when}, {report.duration:.0f} s)\n{report.longreprtext}\n")
        sys.stdout.flush()
