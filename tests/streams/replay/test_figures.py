"""Figures within groups, calibration error and baselines are what plain loops over their definitions give."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from thalweg.schemas.origin import parse_cause
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.tally import Known, Tally
from thalweg.streams.replay.figures import PRIOR_EXPOSURES, area_within, baselines, calibration_error, figures_of

from tests.streams.logs_for_tests import sample, shipped

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 6)), max_size=60)


@given(ROWS)
def test_auc_within_groups_is_the_weighted_mean_of_each_groups(rows: list[tuple[int, int, int]]) -> None:
    """Each group with both labels counts with its AUC, ties half, weighted by how many rows it has."""
    by_group = defaultdict(list)
    for group, label, score in rows:
        by_group[group].append((label, score / 7))
    both = [group for group in by_group.values() if len({label for label, _ in group}) == 2]
    expected = None
    if both:
        expected = np.average([roc_auc_score(*zip(*group, strict=True)) for group in both], weights=[*map(len, both)])
    groups, labels, scores = (np.array([row[part] for row in rows]) for part in range(3))
    assert area_within(groups, labels.astype(np.uint8), scores / 7) == (expected and pytest.approx(expected))


@given(ROWS)
def test_calibration_error_is_the_mean_distance_over_bins(rows: list[tuple[int, int, int]]) -> None:
    """Within each twentieth of the scores, mean score and mean label are compared, weighted by rows."""
    bins = defaultdict(list)
    for _, label, score in rows:
        bins[min(int(score / 6 * 20), 19)].append((score / 6, label))
    distances = [abs(sum(score for score, _ in rows) - sum(label for _, label in rows)) for rows in bins.values()]
    labels, scores = (np.array([row[part] for row in rows]) for part in (1, 2))
    found = calibration_error(labels.astype(np.uint8), scores / 6)
    assert found == (pytest.approx(sum(distances) / len(rows), abs=1e-12) if rows else None)


def test_baselines_see_the_labels_that_were_final() -> None:
    """Replayed beside the fold, each baseline must give the rates of the windows that had closed, and no others."""
    tally = Tally()
    partition = Partition(shipped(), tally=tally)
    outputs = partition.process(sample(4_000))
    examples = [json.loads(output.value) for output in [*outputs.examples, *partition.close_all().examples]]
    known = tally.known()
    assert known is not None
    assert len(known.labels) == len(examples)
    plain = baselines(known)
    closings = sorted((parse_cause(one["cause"])[1].offset, number) for number, one in enumerate(examples))
    arrivals = sorted((int(one["origin"].rpartition("-")[2]), number) for number, one in enumerate(examples))
    shown: Counter[tuple[str, str]] = Counter()
    acted: Counter[tuple[str, str]] = Counter()
    for offset, number in arrivals:
        while closings and closings[0][0] <= offset:
            _, closed = closings.pop(0)
            for key in (("all", ""), ("user", examples[closed]["user"]), ("item", examples[closed]["item"])):
                shown[key] += 1
                acted[key] += examples[closed]["label"]
        overall = (acted["all", ""] + 0.5) / (shown["all", ""] + 1.0)
        key = ("item", examples[number]["item"])
        item = (acted[key] + PRIOR_EXPOSURES * overall) / (shown[key] + PRIOR_EXPOSURES)
        key = ("user", examples[number]["user"])
        user = (acted[key] + PRIOR_EXPOSURES * overall) / (shown[key] + PRIOR_EXPOSURES)
        odds = item / (1 - item) * user / (1 - user) * (1 - overall) / overall
        for name, expected in (("overall", overall), ("item rate", item), ("item and user", odds / (1 + odds))):
            [scores] = [scores for each, scores in plain.items() if each.startswith(name)]
            assert scores[number] == pytest.approx(expected, rel=1e-9)
    assert figures_of(known, known.scores[:, 0]).auc_by_user is not None


def test_pages_are_one_user_at_one_time() -> None:
    """Impressions of one user with one time are one page, and of others not."""
    tally = Tally()
    shown = np.array([(0, 7, 1, 100), (1, 7, 2, 100), (2, 7, 3, 101), (3, 8, 3, 100), (4, 8, 6, 102), (4, 8, 5, 102)])
    tally.show(shown)
    scores = np.full((6, 5), 0.5)
    closings = np.array([(0, 9, 1), (1, 9, 2), (4, 9, 5), (2, 9, 3), (3, 9, 3), (4, 9, 6)], np.int64)
    tally.add(np.array([1, 0, 1, 1, 0, 0], np.uint8), scores, closings)
    known = tally.known()
    assert known is not None
    assert known.pages[0] == known.pages[1]
    assert known.pages[2] == known.pages[5]
    assert len(set(known.pages.tolist())) == 4
    assert known.items.tolist() == [1, 2, 5, 3, 3, 6]  # one request shows many items


def test_a_label_of_what_was_never_shown_is_of_no_known_impression() -> None:
    """Then no figure by user or item can be made, and none is."""
    for closing in ((1, 9, 2), (4, 9, 4), (9, 9, 1)):
        tally = Tally()
        tally.show(np.array([(0, 7, 1, 100), (4, 8, 6, 102), (4, 8, 5, 102)]))
        tally.add(np.ones(1, np.uint8), np.full((1, 5), 0.5), np.array([closing]))
        assert tally.known() is None


def test_without_origins_nothing_is_known() -> None:
    """A tally that was restored from a checkpoint of before has labels and scores, and no groups."""
    tally = Tally()
    tally.add(np.ones(3, np.uint8), np.full((3, 5), 0.5))
    assert tally.known() is None
    empty: Known | None = Tally().known()
    assert empty is None
