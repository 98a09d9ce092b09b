"""Every setting at its edges: a run, or one line that says what is wrong."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.schemas.bounds import bounds
from thalweg.schemas.outputs import Score, decode_score
from thalweg.streams.configuration.loading import ConfigurationError, io_sections, load
from thalweg.streams.configuration.sections import Member, bare, is_table, is_tree, members
from thalweg.streams.partition import memory
from thalweg.streams.partition.partition import Partition
from thalweg.streams.refusal import Refusal

from tests.operators.fold.test_layout import DEFAULT, TYPE_OF
from tests.streams.logs_for_tests import sample

EVENTS = 60
SMALL = {
    "table.rows_limit": 1_024,
    "behaviors.users_limit": 256,
    "joiner.waiting_limit": 128,
    "joiner.feedback_limit": 128,
    "joiner.text_bytes": 1 << 19,
    "joiner.attribution_window_ms": 5_000,
    "sdim.histories_limit": 16,
    "error_memory.bits": 4,
    "error_memory.keyed_bits": 6,
}


class Number(NamedTuple):
    """A setting that is a number, or a table or list of them, and the values at its edges."""

    key: str
    is_whole: bool
    is_table: bool
    least: float
    most: float

    def flag(self, value: float) -> str:
        return f"{self.key}{'.a' if self.is_table else ''}={value!r}"


def numbers() -> Iterator[Number]:
    """Give every number of the configuration; each must have bounds on both sides."""
    tree: dict[str, Any] = {name: member.form for name, member in members(Configuration).items()}
    tree |= io_sections()
    for section, form in tree.items():
        found = members(form) if is_tree(form) else {"": Member(form, None)}
        for name, member in found.items():
            key = f"{section}.{name}".rstrip(".")
            limits = bounds(member.form)
            if limits is None:
                assert bare(member.form) not in (int, float), f"{key} has no bounds"
                continue
            yield Number(key, isinstance(limits[0], int), is_table(bare(member.form)), *limits)


NUMBERS = list(numbers())
FOLDED = [number for number in NUMBERS if number.key.partition(".")[0] not in io_sections()]


def run(flags: list[str]) -> str:
    """Fold a short log under some settings; return what was refused, in one line, or nothing."""
    small = [f"{key}={value}" for key, value in SMALL.items() if not any(flag.startswith(f"{key}=") for flag in flags)]
    try:
        partition = Partition(load(None, environment={}, flags=[*small, *flags]).configuration)
        outputs = partition.process(sample(EVENTS))
        outputs.examples.extend(partition.close_all().examples)
    except (ConfigurationError, Refusal) as error:
        return str(error)
    assert TYPE_OF(partition.state) == DEFAULT[0], f"{flags}: all is compiled anew"
    assert int(partition.state.fates.sum()) == EVENTS
    for output in outputs.scores:
        score: Score = decode_score(output.value or b"")
        assert 0.0 < score.score < 1.0, flags
    assert len(partition.digest()) == 64
    return ""


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.key)
def test_beyond_its_bounds_a_number_is_refused(number: Number) -> None:
    """One step beyond either bound, infinities and no numbers: one line that names the setting."""
    beyond: list[Any] = (
        [number.least - 1, number.most + 1]
        if number.is_whole
        else [number.least - 1.0, number.most * 2, math.inf, math.nan]
    )
    beyond += [2**63 - 1, -(2**63)] if number.most < 2**63 - 1 else []
    for value in beyond:
        with pytest.raises(ConfigurationError) as refused:
            load(None, environment={}, flags=[number.flag(value)])
        assert number.key in str(refused.value)
        assert str(refused.value).isprintable()


@pytest.mark.long  # each makes two states, some of them as large as may be
@pytest.mark.parametrize("number", FOLDED, ids=lambda number: number.key)
def test_at_its_bounds_a_number_runs_or_is_refused(number: Number) -> None:
    """The least and the most of each number: scores that are probabilities, or one line."""
    for value in (number.least, number.most):
        refused = run([number.flag(value)])
        assert not refused or refused.isprintable()
        assert not refused or number.key in refused or "must" in refused, refused


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_several_numbers_at_their_bounds(data: st.DataObject) -> None:
    """Edges of several settings at once: a run, or one line."""
    chosen = data.draw(st.lists(st.sampled_from(FOLDED), min_size=2, max_size=8, unique=True))
    run([number.flag(data.draw(st.sampled_from((number.least, number.most)))) for number in chosen])


def test_memory_that_is_not_there_is_one_line() -> None:
    """A state that no machine holds is refused with the settings that ask for it, and their bytes."""
    told = run(["table.rows_limit=1073741824", "learner.latent_size=64"])
    assert told.startswith("there is no memory for a partition's state of ")
    assert "table.rows_limit = 1,073,741,824 takes " in told
    assert "learner.latent_size = 64 takes " in told
    assert memory.shown_bytes(3 << 39) == "1.5 TiB"
