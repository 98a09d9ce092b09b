"""Tests run each line of the operators, as far as it runs when interpreted."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.streams.logs_for_tests import ROOT

PERCENT = 97
PLAIN = "tests/fold/test_plain.py::test_the_fold_scores_as_its_specification_does"
CONFIGURATIONS = (
    "shipped",
    "own scores",
    "admission",
    "any context",
    "expiry",
    "long histories",
    "negative sampling",
    "objectives",
)
TESTS = [f"{PLAIN}[{name}-generated]" for name in CONFIGURATIONS]
TESTS += [
    f"tests/{test}"
    for test in (
        "fold/test_actions.py",
        "fold/test_facts.py::test_a_later_fact_replaces_field_by_field_and_null_removes",
        "fold/test_facts.py::test_one_owners_facts_are_limited",
        "fold/test_facts.py::test_the_items_whose_facts_were_used_least_recently_make_room",
        "fold/test_facts.py::test_a_fact_without_room_in_an_impression_is_left_out_and_counted",
        "fold/test_lessons.py::test_numbers_never_fall",
        "fold/test_lessons.py::test_sampled_negatives_count_for_the_others",
        "fold/test_lessons.py::test_merges_are_ignored_where_lessons_are_off",
        "fold/test_pages.py::test_the_order_of_a_pages_rows_changes_no_score",
        "fold/test_pages.py::test_facts_that_one_page_used_last_are_evicted_together",
        "fold/test_shown.py",
        "fold/test_state.py",
        "operators/edges/test_few.py",
        "operators/estimators/test_river.py",
        "operators/machine/test_hashing.py",
        "operators/machine/test_normal.py",
        "operators/machine/test_plain.py",
        "operators/machine/test_reserve.py",
        "operators/structures/test_index.py",
        "operators/test_admission.py",
        "operators/test_behaviors.py",
        "operators/test_delay.py",
        "operators/test_features.py",
        "operators/test_ftrl.py",
        "operators/test_policies.py",
        "operators/test_sdim.py",
        "operators/test_seen.py",
        "streams/test_driver.py",
        "streams/test_exploration.py::test_what_is_filtered_out_has_no_probability_and_caps_have",
        "streams/test_objectives.py",
        "streams/test_ranking.py::test_what_a_request_may_ask_for",
        "streams/test_ranking.py::test_a_bad_candidate_is_refused_by_itself",
        "test_doctests.py",
    )
]
# What takes long when interpreted and runs no line that the others leave out.
SLOW = (
    "finds_nothing",
    "order_of_a_pages_rows and not shipped",
    "erased_user_leaves",
    "shows_is_the_request or how_the_log_is_cut_and_a_checkpoint or embeddings_share_no_row",
    "restored_snapshot",
    "crash_is_not_seen",
    "propensities_are_those",
    "thousand_cases",
    "thompson_draws",
    "examples_in_docstrings and estimators",
    "crafted_keys_lose",
    "65535 or exact_up_to or share_that_has_come",
    "same_seed_gives or standard_normal",
    "kuairand",
    "ten_million or neighbours_of_a_million",
)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nearly_all_lines_of_the_operators_are_run(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """At least 97% of the lines that are not machine code itself; those that are left are printed where it is less."""
    environment = os.environ | {"THALWEG_INTERPRETED": "1", "COVERAGE_FILE": str(tmp_path / "coverage")}
    coverage = [sys.executable, "-m", "coverage"]
    wanted = ["-m", "not broker and not large", "-k", " and ".join(f"not ({words})" for words in SLOW)]
    runs = [["pytest", "-q", "-p", "no:cacheprovider", *wanted, *TESTS], ["tests.streams.limits_process", "1200", "1"]]
    for arguments in runs:
        command = [*coverage, "run", "--parallel-mode", "-m", *arguments]
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout[-3_000:] + run.stderr[-3_000:]
    subprocess.run([*coverage, "combine", "--quiet"], cwd=ROOT, env=environment, check=True)
    command = [*coverage, "report", "--skip-covered", "--show-missing", "--precision", "1"]
    report = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    percent = report.partition("\nTOTAL")[2].split("%")[0].split()[-1]
    record_property("lines of operators/ that interpreted tests run, percent", percent)
    assert float(percent) >= PERCENT, report
