"""The numbers that the learner saw are told by name, the same of few events and of many, to the last bit."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.few import FEW
from thalweg.operators.edges.named_inputs import NamedInputs
from thalweg.operators.fold.layout import input_count
from thalweg.operators.objectives import ObjectiveConfiguration, ObjectivesConfiguration

NAMES = ["user", "item", "tab", 'a "b"\\\n é']
SHIPPED = Configuration()
BOTH = ObjectivesConfiguration(
    named={"click": ObjectiveConfiguration(actions=("click",)), "like": ObjectiveConfiguration(actions=("like",))}
)
CONFIGURATIONS = {
    "shipped": SHIPPED,
    "no cross network": replace(SHIPPED, learner=replace(SHIPPED.learner, cross_rank=0)),
    "objectives": replace(SHIPPED, objectives=BOTH),
}


def rows(c: Configuration, count: int) -> np.ndarray[Any, Any]:
    """Return inputs of all sizes."""
    chance = np.random.default_rng(5)
    return (chance.normal(size=(count, input_count(c))) * 10.0 ** chance.integers(-30, 30, (count, 1))).astype(
        np.float32
    )


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_texts_read_back_to_the_numbers(name):
    """Each text is the numbers by name, and each number reads back to the same float32."""
    c = CONFIGURATIONS[name]
    inputs = rows(c, 2 * FEW)
    named = NamedInputs(c)
    texts = named.texts(inputs, NAMES)
    for row, text in zip(inputs, texts, strict=True):
        read = json.loads(b"{%s}" % text)
        expected = named.numbers(row.tolist(), NAMES)
        assert list(read) == list(expected)
        for key, value in expected.items():
            assert np.array(read[key], np.float32).tolist() == value
    assert named.texts(inputs[:0], NAMES) == []
    few = [named.texts(inputs[start : start + size], NAMES) for size in (1, FEW - 1) for start in range(FEW)]
    assert few == [texts[start : start + size] for size in (1, FEW - 1) for start in range(FEW)]


def test_a_number_is_told_where_it_is():
    """By the places that docs/wire.md and docs/model.md give: rates first, then logits, interests and statistics."""
    c = Configuration()
    count = input_count(c)
    numbers = NamedInputs(c).numbers([float(n) for n in range(count)], NAMES)
    assert numbers["rates.user"] == [0, 1]
    assert numbers["rates." + NAMES[3]] == [6, 7]
    first_derived = 2 * c.features.places()
    assert numbers["rates.recent"] == [first_derived, first_derived + 1]
    assert numbers["rates.user_exposures"] == [first_derived + 6, first_derived + 7]
    assert numbers["overall_log_odds"] == numbers["machine_logit"] + 1
    size = c.learner.latent_size
    assert numbers["interest.acted.short"] == [numbers["overall_log_odds"] + 1 + n for n in range(size)]
    assert numbers["interest.acted.long"][-1] + 1 == numbers["statistics.user"][0]
    assert numbers["statistics.item"][0] == numbers["statistics.user"][-1] + 1
    assert numbers["pairs." + NAMES[3]][0] == numbers["pairs.tab"][-1] + 1


def test_a_field_that_appears_gets_its_name():
    """Names are taken notice of as they appear in the log."""
    c = Configuration()
    named, inputs = NamedInputs(c), rows(c, 1)
    assert "rates.tab" not in json.loads(b"{%s}" % named.texts(inputs, NAMES[:2])[0])
    assert "rates.tab" in json.loads(b"{%s}" % named.texts(inputs, NAMES[:3])[0])
