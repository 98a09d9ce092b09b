"""Thalweg with parts switched off, or set otherwise: what each of them brings."""

import gc

from benchmarks.quality.replays import replayed
from benchmarks.quality.tables import HEADER, Options, row, said
from benchmarks.real_logs import RealLog

OFF = "1e12"  # pseudo-exposures beside which nothing that is counted shows

SETTINGS: list[tuple[str, list[str]]] = [
    ("the defaults", []),
    ("without the error memory's correction", ["correction.lambda_max=0"]),
    ("without the cross network", ["learner.cross_rank=0"]),
    ("without recent items", ["learner.recent_items=0"]),
    ("without shown items", ["learner.shown_items=0"]),
    ("without sequences: no interests, no recent items", ["behaviors.kinds=[]"]),
    ("without rates and residuals", [f"learner.rate_prior={OFF}"]),
    ("without residuals", ["learner.residual_half_life_ms=1"]),
    ("without latent vectors to speak of", ["learner.latent_size=1"]),
    ("short sequences of 8, longer ones in SDIM", ["behaviors.short_length=8"]),
    ("skipped items as a second sequence", ['behaviors.kinds=["acted","skipped"]']),
    ("rows after 2 sightings", ["table.occurrence_threshold=2"]),
    ("rows after 5 sightings", ["table.occurrence_threshold=5"]),
    ("half of the negatives learned", ["joiner.negative_sample_rate=0.5"]),
]


def tables(options: Options) -> str:
    """Return a table for each log."""
    return "\n".join(line for log in options.logs() for line in with_settings(log))


def with_settings(log: RealLog) -> list[str]:
    """Return a log's figures, setting by setting."""
    records = log.records()
    rows = []
    for name, flags in SETTINGS:
        rows.append(row(f"{name} {said(flags)}".strip(), replayed(log, records, flags).figures))
        gc.collect()
    return [f"### {log.name}", "", HEADER, *rows, ""]
