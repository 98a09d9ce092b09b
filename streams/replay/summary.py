"""What a replay came to: the keys of `--summary`, and the table at its end."""

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table
from thalweg.operators.fold.fates import FATES, Tallied
from thalweg.operators.fold.snapshot import state_bytes
from thalweg.operators.fold.state import State
from thalweg.operators.joiner import Status
from thalweg.operators.structures.pool import Stock
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.tally import Tally
from thalweg.streams.replay.figures import NO_FIGURES, Figures, baselines, figures_of
from thalweg.streams.replay.rankings import Rankings, rankings_of
from thalweg.streams.replay.regret import Regret

NONE = "–"


class ObjectiveFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The quality of one objective's scores, over the impressions whose windows have all closed."""

    positives: int
    auc: float | None
    log_loss: float | None
    calibration: float | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a partition since its log's beginning, and the quality of its scores; None is undefined.

    The fates sum to `events`. `waiting`: impressions whose window is open. `calibration`: mean score over mean label.
    `auc_by_user`, `auc_by_page`: AUC within users and within pages; `calibration_error`: expected calibration error in
    20 bins. `objectives`: the figures of each of several objectives by name; all others are of the first. `baselines`:
    the figures of plain rates, by name, over the same impressions under the same rules. `rankings`: the figures of the
    orders of requests' candidates, see `thalweg.streams.replay.rankings`; None without requests. `seconds`,
    `events_per_second`: of this run, without compilation. `state_bytes`: the part of the state ever used. `warnings`:
    what the log's owner should look at, see `thalweg.streams.partition.findings`.
    """

    events: int
    scored: int
    joined: int
    late: int
    duplicate: int
    early: int
    orphaned: int
    erased: int
    ranked: int
    dead_lettered: int
    ignored: int
    known: int
    behaviour: int
    merged: int
    impressions: int
    feedback: int
    waiting: int
    labelled: int
    positives: int
    auc: float | None
    log_loss: float | None
    model_auc: float | None
    model_log_loss: float | None
    base_auc: float | None
    base_log_loss: float | None
    calibration: float | None
    auc_by_user: float | None
    auc_by_page: float | None
    calibration_error: float | None
    model_auc_by_user: float | None
    model_auc_by_page: float | None
    model_calibration_error: float | None
    base_auc_by_user: float | None
    base_auc_by_page: float | None
    base_calibration_error: float | None
    objectives: dict[str, ObjectiveFigures] | None
    baselines: dict[str, Figures]
    rankings: Rankings | None
    digest: str
    seconds: float
    events_per_second: float | None
    state_bytes: int
    warnings: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Return it as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class SummaryWithRegret(Summary, frozen=True, kw_only=True):
    """A summary, and the regret against the truth of a made-up log, see `thalweg.streams.replay.regret`."""

    regret: float | None
    model_regret: float | None
    truth_log_loss: float | None
    regret_impressions: int


def with_regret(summary: Summary, regret: Regret) -> SummaryWithRegret:
    """Return a summary with the regret of its scores."""
    return SummaryWithRegret(
        **msgspec.structs.asdict(summary),
        regret=regret.regret,
        model_regret=regret.model_regret,
        truth_log_loss=regret.truth_log_loss,
        regret_impressions=regret.impressions,
    )


def summarize(partition: Partition, tally: Tally, *, events_now: int, seconds: float, letters: str = "") -> Summary:
    """Return the summary of a partition; `events_now` were folded in `seconds`."""
    state = partition.state
    fates = dict(zip(FATES, state.fates.tolist(), strict=True))
    tallies = state.tallies.tolist()
    final, model, base = tally.qualities()
    known = tally.known()
    by_group = [NO_FIGURES] * 3 if known is None else [figures_of(known, known.scores[:, which]) for which in range(3)]
    plain = {} if known is None else {name: figures_of(known, scores) for name, scores in baselines(known).items()}
    return Summary(
        events=sum(fates.values()),
        **fates,
        impressions=tallies[Tallied.IMPRESSIONS],
        feedback=tallies[Tallied.FEEDBACK],
        waiting=waiting_count(state),
        labelled=tallies[Tallied.LABELLED],
        positives=tallies[Tallied.POSITIVES],
        auc=final.auc,
        log_loss=final.log_loss,
        model_auc=model.auc,
        model_log_loss=model.log_loss,
        base_auc=base.auc,
        base_log_loss=base.log_loss,
        calibration=tally.calibration(),
        auc_by_user=by_group[0].auc_by_user,
        auc_by_page=by_group[0].auc_by_page,
        calibration_error=by_group[0].calibration_error,
        model_auc_by_user=by_group[1].auc_by_user,
        model_auc_by_page=by_group[1].auc_by_page,
        model_calibration_error=by_group[1].calibration_error,
        base_auc_by_user=by_group[2].auc_by_user,
        base_auc_by_page=by_group[2].auc_by_page,
        base_calibration_error=by_group[2].calibration_error,
        objectives=objectives_of(partition, tally),
        baselines=plain,
        rankings=rankings_at(partition, tally),
        digest=partition.digest(),
        seconds=round(seconds, 3),
        events_per_second=round(events_now / seconds, 1) if events_now and seconds > 0 else None,
        state_bytes=state_bytes(state),
        warnings=tuple(finding.message for finding in partition.findings(letters)),
    )


def objectives_of(partition: Partition, tally: Tally) -> dict[str, ObjectiveFigures] | None:
    """Return the figures of each of several objectives by its name, None where there is one."""
    objectives = partition.configuration.objectives
    if not objectives.heads:
        return None
    found = {}
    for name, each in zip(objectives.names, (tally, *tally.others), strict=False):
        final = each.qualities()[0]
        found[name] = ObjectiveFigures(
            positives=each.positives, auc=final.auc, log_loss=final.log_loss, calibration=each.calibration()
        )
    return found


def rankings_at(partition: Partition, tally: Tally) -> Rankings | None:
    """Return the figures of requests as stream time is now, None where nothing was asked."""
    windows_ms = partition.configuration.joiner.windows_ms()
    now_ms = int(partition.state.clock.stream_time_ms[0])
    return rankings_of(tally.asked, tally.known(), tally.shown(), now_ms, max(windows_ms.values()))


def waiting_count(state: State) -> int:
    """Return how many impressions wait for their outcome."""
    used = int(state.waiting.pool.counts[Stock.EVER_USED])
    return int(np.count_nonzero(state.waiting.status[:used] == Status.WAITING))


def print_table(summary: Summary, tally: Tally, console: Console) -> None:
    """Print a summary as people read it."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for row in rows(summary, tally):
        table.add_row(*row)
    console.print(table)
    for warning in summary.warnings:
        console.print(f"Warning: {warning}", style="yellow", soft_wrap=True, markup=False, highlight=False)


def rows(summary: Summary, tally: Tally) -> list[tuple[str, str, str]]:
    """Return the table's rows: name, value, what it means."""
    s = summary
    counts = [("events", s.events, "")]
    counts += [(f"  {fate}", getattr(s, fate), "") for fate in FATES]
    counts += [
        ("impressions", s.impressions, ""),
        ("feedback", s.feedback, ""),
        ("waiting", s.waiting, "impressions whose window is open"),
        ("labelled", s.labelled, "impressions whose window has closed"),
        ("positives", s.positives, share(s.positives, s.labelled)),
    ]
    told = "" if tally.is_exact else "AUC in bins of the log-odds"
    if tally.labelled < s.labelled:
        told = f"of the last {tally.labelled:,} labels"
    regrets: list[tuple[str, str, str]] = []
    if isinstance(s, SummaryWithRegret):
        regrets = [
            ("regret", number(s.regret), f"log loss beyond the truth's own, of {s.regret_impressions:,} scores"),
            ("  model alone", number(s.model_regret), ""),
            ("  log loss of truth", number(s.truth_log_loss), "what chance alone costs"),
        ]
    return [
        *((name, f"{value:,}", note) for name, value, note in counts),
        ("AUC", number(s.auc), told),
        ("  within users", number(s.auc_by_user), "of users with both labels"),
        ("  within pages", number(s.auc_by_page), "of one user and one time"),
        ("  model alone", number(s.model_auc), ""),
        ("  base score", number(s.base_auc), ""),
        ("log loss", number(s.log_loss), ""),
        ("  model alone", number(s.model_log_loss), ""),
        ("  base score", number(s.base_log_loss), ""),
        ("calibration", number(s.calibration), "mean score / mean label"),
        ("calibration error", number(s.calibration_error), "expected, in 20 bins"),
        *objective_rows(s),
        *(
            (f"AUC of {name}", number(plain.auc), f"baseline, log loss {number(plain.log_loss)}{beats(plain, s)}")
            for name, plain in s.baselines.items()
        ),
        *(() if s.rankings is None else ranking_rows(s.rankings)),
        *regrets,
        ("events/s", NONE if s.events_per_second is None else f"{s.events_per_second:,.0f}", f"{s.seconds:.1f} s"),
        ("resident state", f"{s.state_bytes / (1 << 20):,.1f} MiB", ""),
        ("digest", s.digest[:16], "of the state"),
    ]


def objective_rows(summary: Summary) -> list[tuple[str, str, str]]:
    """Return a row of the table for each of several objectives."""
    if summary.objectives is None:
        return []
    return [
        (
            f"AUC of {name}",
            number(its.auc),
            f"objective, log loss {number(its.log_loss)}, calibration {number(its.calibration)}, {its.positives:,}",
        )
        for name, its in summary.objectives.items()
    ]


def ranking_rows(rankings: Rankings) -> list[tuple[str, str, str]]:
    """Return the table's rows of rankings: the final order's figure, and beside it those of the others."""
    names = {"ndcg_5": "nDCG@5", "ndcg_10": "nDCG@10", "mrr": "MRR", "hit_rate": "hit rate@10"}
    names |= {"coverage": "coverage@10", "novelty": "novelty@10"}
    told = f"{rankings.relevant:,} have a candidate that was acted on, {rankings.waiting:,} more are waiting"
    told += f"; {rankings.left_out:,} later ones are in no figure, as memory for candidates is full" * bool(
        rankings.left_out
    )
    rows = [("requests", f"{rankings.requests:,}", told)]
    for field, name in names.items():
        values = {order: number(getattr(figures, field)) for order, figures in rankings.figures.items()}
        others = ", ".join(f"{order} {value}" for order, value in values.items() if order != "final")
        rows.append((name, values["final"], others))
    return rows


def beats(plain: Figures, summary: Summary) -> str:
    """Return what to say of a baseline that is better than the scores, nothing where it is not."""
    is_better = plain.auc is not None and summary.auc is not None and plain.auc > summary.auc
    return ": better than the model" if is_better else ""


def number(value: float | None) -> str:
    """Return a figure to five places, a dash where it is undefined."""
    return NONE if value is None else f"{value:.5f}"


def share(part: int, whole: int) -> str:
    """Return a share in percent, nothing where there is no whole."""
    return f"{100 * part / whole:.1f}% of them" if whole else ""
