"""What holds for every test: failures are told when they happen."""

import sys

import pytest


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell a failure at once: whoever ends a run that takes too long would otherwise never learn of it."""
    if report.failed:
        sys.stdout.write(f"\n{report.nodeid} ({report.when}, {report.duration:.0f} s)\n{report.longreprtext}\n")
        sys.stdout.flush()
