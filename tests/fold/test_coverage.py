"""Tests run each line of the operators, as far as it runs when interpreted."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.streams.logs_for_tests import ROOT

PERCENT = 97
# What takes little when interpreted. Other tests compare the interpreted fold with the compiled one, to the last bit.
TESTS = [
    f"tests/{test}"
    for test in (
        "fold/test_actions.py",
        "fold/test_facts.py",
        "fold/test_lessons.py::test_sampled_negatives_count_for_the_others",
        "fold/test_lessons.py::test_merges_are_ignored_where_lessons_are_off",
        "fold/test_pages.py::test_facts_that_one_page_used_last_are_evicted_together",
        "fold/test_several.py",
        "fold/test_shown.py",
        "fold/test_state.py",
        "operators/edges/test_few.py",
        "operators/edges/test_named_inputs.py",
        "operators/estimators/test_river.py",
        "operators/machine/test_hashing.py",
        "operators/machine/test_normal.py",
        "operators/machine/test_numerics.py",
        "operators/machine/test_reserve.py",
        "operators/structures/test_deadlines.py",
        "operators/structures/test_index.py",
        "operators/structures/test_table.py",
        "operators/test_admission.py",
        "operators/test_behaviors.py",
        "operators/test_clock.py",
        "operators/test_delay.py",
        "operators/test_error_memory.py",
        "operators/test_features.py",
        "operators/test_ftrl.py",
        "operators/test_joiner.py",
        "operators/test_lessons.py",
        "operators/test_policies.py",
        "operators/test_rates.py",
        "operators/test_sdim.py",
        "operators/test_seen.py",
        "streams/test_driver.py",
        "streams/test_exploration.py::test_what_is_filtered_out_has_no_probability_and_caps_have",
        "streams/test_objectives.py",
        "streams/test_ranking.py::test_what_a_request_may_ask_for",
        "streams/test_ranking.py::test_a_bad_candidate_is_refused_by_itself",
        "streams/test_scoring_time.py::test_a_skipped_item_whose_row_was_taken_again_is_not_remembered_as_its_next_owner",
        "test_doctests.py",
    )
]
# Of these files what takes long when interpreted and runs no line that the others leave out.
SLOW = (
    "all_users_facts or candidate_gets_facts or give_the_scores or dictionarys or however_it_is_cut",
    "shows_is_the_request or a_checkpoint or is_not_answered or contradict and not 7 or counts_once or finds_what",
    "erased_user_leaves or restored_snapshot or learner.pairs or crash_is_not_seen",
    "finds_nothing or embeddings_share_no_row or a_copy_goes_on and ErrorMemory or leaves_a_tenth",
    "any_order_gives or refuses_takes_no_row or dictionary_of_buckets or many_candidates_read",
    "keys_of_a_block or crafted_keys or ten_million or neighbours_of_a_million or AgainstDictionary",
    "65535 or exact_up_to or share_that_has_come or some_users_hours or makes_room",
    "changes_no_estimate or bias_is_made_good or one_believed or next_to_nothing or switches_the_correction_off",
    "reads_equals or what_remains or rarely_taken or propensities_are_those or thousand_cases or thompson_draws",
    "ranking_goes_by or bits_of_an_impression or same_seed_gives or standard_normal or kuairand",
    "examples_in_docstrings and (estimators or streams or schemas)",
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
    runs = [["pytest", "-q", "-p", "no:cacheprovider", *wanted, *TESTS], ["tests.streams.limits_process", "300", "1"]]
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
