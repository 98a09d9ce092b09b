"""What the pages on replay and testing show must be what happens."""

import doctest

import pytest

from tests.streams.logs_for_tests import ROOT


@pytest.mark.parametrize("page", ["testing.md"])
@pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")
def test_the_code_of_a_page_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example of a page must give what the page says."""
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testfile(str(ROOT / "docs" / page), module_relative=False, verbose=False)
    assert tried > 0
    assert not failed
