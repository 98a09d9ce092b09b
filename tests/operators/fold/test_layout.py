"""Machine code depends on the types of arrays alone, and those are the same under every configuration."""

from dataclasses import replace
from typing import Any

import numba
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.fold.emitted import new_emitted
from thalweg.operators.fold.fold import NO_COLUMNS
from thalweg.operators.fold.layout import input_count
from thalweg.operators.fold.state import new_state, parameters_of
from thalweg.operators.machine.progress import Progress
from thalweg.operators.objectives import ObjectiveConfiguration, ObjectivesConfiguration
from thalweg.schemas.records import Record
from thalweg.streams.partition.partition import Partition

from tests.streams.logs_for_tests import sample, small

TYPE_OF: Any = numba.typeof


CLICK, BUY = ObjectiveConfiguration(actions=("click",)), ObjectiveConfiguration(actions=("buy",), weight="value")
OBJECTIVES = [
    ObjectivesConfiguration(),
    ObjectivesConfiguration(named={"buy": BUY}),
    ObjectivesConfiguration(named={"click": CLICK, "buy": BUY}),
    ObjectivesConfiguration(named={"click": CLICK, "like": replace(CLICK, actions=("like",)), "buy": BUY}),
]


@st.composite
def configurations(draw: Any) -> Configuration:
    """Draw a configuration whose arrays have any shapes."""
    c = small(waiting=draw(st.sampled_from([128, 512])), histories=draw(st.sampled_from([1, 16])))
    fields = draw(st.integers(4, 40))
    objectives = draw(st.sampled_from(OBJECTIVES))
    built_in = ["fwfm"] if objectives.is_joint else ["fwfm", "river:linear_model.LogisticRegression"]
    return replace(
        c,
        objectives=objectives,
        seed=draw(st.integers(0, 9)),
        features=replace(
            c.features,
            fields_limit=fields,
            values_limit=draw(st.integers(max(24, fields), 60)),
            crosses=draw(st.sampled_from([(), (("user", "tab"),)])),
            emit=draw(st.booleans()),
        ),
        behaviors=replace(
            c.behaviors,
            kinds=draw(st.sampled_from([(), ("acted",), ("acted", "skipped")])),
            short_length=draw(st.integers(1, 64)),
        ),
        learner=replace(
            c.learner,
            model=draw(st.sampled_from(built_in)),
            latent_size=draw(st.integers(1, 64)),
            recent_items=draw(st.integers(0, 32)),
            interests=draw(st.booleans()),
            frozen_from_ms=draw(st.sampled_from([0, 1])),
        ),
        correction=replace(c.correction, base=draw(st.sampled_from(["model", "base_score"]))),
    )


def types_of(configuration: Configuration, events: int) -> list[Any]:
    """Return the types of all that the fold is given."""
    state = new_state(configuration)
    columns = Columnizer(configuration, state.names, 0, 0).columns(sample(100)[:events]).columns
    emitted = new_emitted(configuration, max(events, 1), input_count(configuration))
    return [TYPE_OF(each) for each in (state, parameters_of(configuration, []), columns, emitted)]


DEFAULT = types_of(Configuration(), 50)


@given(configuration=configurations(), events=st.sampled_from([0, 1, 2, 50]))
@settings(max_examples=60)
def test_types_are_those_of_the_default_configuration(configuration: Configuration, events: int) -> None:
    """Whatever is configured, and however many events a block has, what compiled code takes has the same types."""
    assert types_of(configuration, events) == DEFAULT
    assert TYPE_OF(NO_COLUMNS) == DEFAULT[2]


def test_another_configuration_compiles_nothing() -> None:
    """Once the fold is ready, other configurations must run through it, close and be saved with no compilation."""
    Partition(Configuration()).warm_up()
    records: list[Record] = list(sample(200))
    compiled = Progress.functions
    for size, model in ((15, "fwfm"), (3, "river:linear_model.LogisticRegression"), (16, "fwfm")):
        c = small()
        partition = Partition(replace(c, learner=replace(c.learner, latent_size=size, model=model)))
        partition.process(records)
        partition.close_all()
        partition.digest()
    assert Progress.functions == compiled
