"""Any order of impressions and actions: several objectives are labelled and scored as their specification has it."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.edges.contexts import field_names
from thalweg.operators.fold.state import new_state
from thalweg.operators.objectives import ObjectiveConfiguration, ObjectivesConfiguration
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

from tests.fold.agreement import outcome_of
from tests.fold.plain.objectives import Several
from tests.streams.logs_for_tests import small

WINDOWS_MS = {"click": 10, "hide": 4, "buy": 25}
events = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["impression", "impression", *WINDOWS_MS, "pause"]),
            "of": st.integers(0, 3),
            "user": st.sampled_from(["ann", "ann", "bob", "cid"]),
            "step": st.sampled_from([0, 0, 1, 3, 5, 10, 11, 26]),
            "back": st.sampled_from([0, 0, 0, 1, 6]),
            "value": st.sampled_from([None, None, 0.0, 0.5, 3.0, 99.0]),
        }
    ),
    min_size=1,
    max_size=30,
)


def configuration(late_window_ms: int) -> Configuration:
    c = small(rows=1_024, users=256, waiting=128, histories=4)
    named = {name: ObjectiveConfiguration(actions=(name,), window_ms=ms) for name, ms in WINDOWS_MS.items()}
    named["buy"] = replace(named["buy"], weight="value", actions=("buy", "click"))
    return replace(
        c,
        features=replace(c.features, context=("tab",)),
        objectives=ObjectivesConfiguration(order="click - 3 * hide + 2 * buy", named=named),
        joiner=replace(c.joiner, late_window_ms=late_window_ms),
        learner=replace(c.learner, latent_size=2, cross_rank=2),
        error_memory=replace(c.error_memory, arrays=1, bits=3, keyed_bits=6),
    )


@settings(max_examples=40, deadline=None)
@given(events, st.sampled_from([0, 5, 30]))
def test_any_order_gives_the_labels_and_scores_of_the_specification(drawn: list[Any], late_window_ms: int) -> None:
    """Examples with all labels and revisions, in order, and every probability to 1e-5."""
    records, now_ms = [], START_MS
    for number, each in enumerate(drawn):
        now_ms += each["step"]
        event = {"id": str(each["of"]), "user": each["user"], "item": f"i{each['of'] % 2}", "ts": now_ms - each["back"]}
        if each["kind"] == "impression":
            event |= {"type": "impression", "context": {"tab": "a"}}
        else:
            event |= {"type": "feedback", "impression": str(each["of"]), "action": each["kind"], "id": f"f{number}"}
            event |= {} if each["value"] is None else {"value": each["value"]}
        records.append(LogRecord(number, msgspec.json.encode(event)))
    c = configuration(late_window_ms)
    found = outcome_of(Partition(c).process(records))
    names = new_state(c).names
    plain = Several(c, field_names(names))
    plain.run(Columnizer(c, names, 0, 0).columns(records).columns)
    assert found.labels == plain.labels
    if plain.scored:
        assert np.abs(found.scores - np.array(plain.scored)).max() < 1e-5
