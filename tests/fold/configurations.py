"""Nine configurations that between them switch on all that a score is made of."""

from dataclasses import replace
from functools import cache

from thalweg.operators.configuration import Configuration
from thalweg.operators.objectives import ObjectiveConfiguration, ObjectivesConfiguration

from tests.streams.logs_for_tests import shipped, small


@cache
def configurations() -> dict[str, Configuration]:
    """Return the configurations by name; all are small, so that a state is quickly made."""
    base = small(rows=16_384, users=4_096, waiting=2_048, histories=256, base=shipped())
    memory = replace(base.error_memory, arrays=2, bits=6, keyed_bits=12)
    first = replace(base, error_memory=memory)
    # Most positives of the generated log come late: at .9 of them no label would be provisional.
    base = replace(first, joiner=replace(base.joiner, provisional_share=0.5))
    learner, joiner, table, sdim = base.learner, base.joiner, base.table, base.sdim
    both = replace(base.behaviors, kinds=("acted", "skipped"), short_length=3)
    any_field = replace(base.features, context=(), exclude=("genre",), buckets={"price": (2.0, 10.0)}, crosses=())
    return {
        "shipped": first,
        "any context": replace(base, features=replace(any_field, hour_of_day=False, fields_limit=14)),
        "long histories": replace(
            base,
            behaviors=both,
            sdim=replace(sdim, groups=5, tau=2, window_behaviors=8, window_ms=3_600_000, window_generations=2),
            learner=replace(learner, latent_size=5, recent_items=1),
        ),
        "admission": replace(
            base,
            table=replace(table, occurrence_threshold=3, admission="geometric", filter_cells=1 << 14),
            learner=replace(learner, latent_size=16, l1=0.001, l2=0.01),
        ),
        "expiry": replace(
            base,
            table=replace(table, expire_time_ms=900_000, expire_time_ms_by_field={"item": 120_000}),
            behaviors=replace(base.behaviors, short_length=2, expire_time_ms=1_800_000),
        ),
        "negative sampling": replace(
            base,
            joiner=replace(joiner, negative_sample_rate=0.3, late_window_ms=1_200_000, provisional_share=1.0),
            error_memory=replace(memory, gamma=0.4, crosses=("user",)),
        ),
        "own scores": replace(
            base,
            features=replace(any_field, crosses=(("user", "device"),)),
            correction=replace(base.correction, base="base_score", lambda_initial=0.5),
            joiner=replace(
                joiner,
                attribution_window_ms=300_000,
                attribution_window_ms_by_action={"buy": 30_000},
                positive_actions=("click", "buy"),
            ),
        ),
        "objectives": replace(
            base,
            objectives=ObjectivesConfiguration(
                order="click + 20 * buy - 0.5 * like",
                named={
                    "click": ObjectiveConfiguration(actions=("click",), window_ms=300_000, weight="value"),
                    "like": ObjectiveConfiguration(actions=("like", "click"), window_ms=300_000),
                    "buy": ObjectiveConfiguration(actions=("buy",), window_ms=420_000, weight="value", weight_max=3.0),
                },
            ),
            behaviors=both,
        ),
        "no interests": replace(
            base,
            learner=replace(learner, interests=False, recent_items=2, frozen_from_ms=1_700_001_000_000),
            behaviors=replace(base.behaviors, short_length=4),
        ),
    }
