"""The page that specifies the score computes its worked example, and the compiled fold gives the same numbers."""

import doctest

from tests.streams.logs_for_tests import ROOT


def test_the_worked_example_is_what_the_fold_computes() -> None:
    """Each term of the formula, from the arrays that the page names, up to the sixth decimal of the score."""
    failed, tried = doctest.testfile(str(ROOT / "docs" / "model.md"), module_relative=False)
    assert tried > 20
    assert not failed
