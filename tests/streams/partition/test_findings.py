"""A run whose labels, events or feedback go astray says so in its table, with what to do, and `--strict` refuses it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from thalweg.streams.commands import main

from tests.streams.logs_for_tests import SAMPLE, SAMPLE_CONFIGURATION

pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")
START_MS = 1_700_000_000_000
SMALL = ["--set", "table.rows_limit=4096", "--set", "behaviors.users_limit=4096", "--set", "joiner.waiting_limit=1024"]


def impression(number: int) -> str:
    event = {"type": "impression", "id": f"i{number}", "user": f"u{number % 9}", "item": "a", "ts": START_MS + number}
    return json.dumps(event | {"context": {}})


def feedback(number: int, *, action: str = "click", after_ms: int = 1_000, of: str = "i") -> str:
    event = {"type": "feedback", "id": f"f{number}", "impression": f"{of}{number}", "user": f"u{number % 9}"}
    return json.dumps(event | {"item": "a", "ts": START_MS + number + after_ms, "action": action})


def replayed(folder: Path, lines: list[str], *options: str) -> tuple[Result, list[str]]:
    """Replay a log; return its result and the warnings of its summary, which must be those on the terminal."""
    (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines))
    summary = folder / "summary.json"
    outputs = ["--out", str(folder / "scores.jsonl"), "--summary", str(summary), *SMALL]
    result = CliRunner().invoke(main, ["replay", str(folder / "log.jsonl"), *outputs, *options])
    warnings = json.loads(summary.read_bytes())["warnings"]
    assert [line for line in result.stderr.splitlines() if line.startswith("Warning: ")] == [
        f"Warning: {warning}" for warning in warnings
    ]
    return result, warnings


def test_feedback_without_a_positive_action_is_reported(tmp_path: Path) -> None:
    """The actions that came must be named with their counts, beside the setting that takes none of them."""
    actions = ["addtocart"] * 39 + ["purchase"] * 13 + ["\x1b[2Jevil"]
    lines = [impression(n) for n in range(53)] + [feedback(n, action=action) for n, action in enumerate(actions)]
    result, warnings = replayed(tmp_path, lines, "--until-end-of-windows")
    assert result.exit_code == 0
    assert warnings == [
        (
            "no feedback has an action in joiner.positive_actions (click), so nothing is learned; seen: addtocart 39, "
            "purchase 13, \\x1b[2Jevil 1"
        )
    ]
    result, warnings = replayed(
        tmp_path, lines, "--until-end-of-windows", "--set", 'joiner.positive_actions=["purchase"]', "--strict"
    )
    assert (result.exit_code, warnings) == (0, [])


def test_positives_that_reach_no_impression_are_reported(tmp_path: Path) -> None:
    """Clicks that name no impression must be reported twice: nothing is positive, and they are orphaned."""
    lines = [impression(n) for n in range(20)] + [feedback(n, of="x", after_ms=9) for n in range(20)]
    _, warnings = replayed(tmp_path, lines, "--until-end-of-windows")
    assert warnings == [
        (
            "none of 20 labelled impressions is a positive, though 20 feedback came: does it name the impressions, and "
            "within joiner.attribution_window_ms (600,000)?"
        ),
        (
            "20 of 20 feedback found no open impression; orphaned: 20, whose impression did not come within "
            "joiner.attribution_window_ms (600,000): do the ids agree?"
        ),
    ]


@pytest.mark.parametrize(("bad", "is_reported"), [(2, False), (3, True)])
def test_dead_letters_above_a_hundredth_are_reported(tmp_path: Path, bad: int, is_reported: bool) -> None:
    """More than 1% must be reported with reasons and counts and where to see them; 1% must not."""
    lines = ["{", "[]", "{"][:bad] + [impression(n) for n in range(200 - bad)]
    result, warnings = replayed(tmp_path, lines, "--strict")
    assert result.exit_code == int(is_reported)
    assert warnings == is_reported * [
        (
            "3 of 200 events are dead letters: not_json 2, not_an_object 1; --dead-letters F.jsonl writes them "
            "with reason and bytes"
        )
    ]
    if is_reported:
        assert result.stderr.splitlines()[-1].startswith("Error: --strict: ")
        assert (tmp_path / "scores.jsonl").read_bytes().count(b"\n") == 197
        letters = tmp_path / "letters.jsonl"
        _, warnings = replayed(tmp_path, lines, "--dead-letters", str(letters))
        assert warnings[0].endswith(f"they are in {letters}")


@pytest.mark.parametrize(("late", "is_reported"), [(1, False), (2, True)])
def test_late_feedback_above_a_twentieth_is_reported(tmp_path: Path, late: int, is_reported: bool) -> None:
    """More than 5% late must be reported with the window that can be raised; 5% must not."""
    lines = [impression(n) for n in range(20)] + [feedback(n) for n in range(20 - late)]
    lines += [feedback(n, after_ms=700_000) for n in range(20 - late, 20)]
    _, warnings = replayed(tmp_path, lines)
    assert warnings == is_reported * [
        (
            "2 of 20 feedback found no open impression; late: 2, after joiner.attribution_window_ms (600,000), which "
            "can be raised"
        )
    ]


def test_a_log_that_fits_is_silent(tmp_path: Path) -> None:
    """The shipped sample must have no warning, and `--strict` end with status 0."""
    outputs = ["--out", str(tmp_path / "scores.jsonl"), "--config", str(SAMPLE_CONFIGURATION), "--strict"]
    result = CliRunner().invoke(main, ["replay", str(SAMPLE), *outputs])
    assert result.exit_code == 0, result.stderr
    assert "Warning" not in result.stderr


def test_an_empty_log_is_refused_in_one_line(tmp_path: Path) -> None:
    """A log without a line must be refused by name."""
    (tmp_path / "log.jsonl").write_bytes(b"")
    result = CliRunner().invoke(main, ["replay", str(tmp_path / "log.jsonl"), "--out", str(tmp_path / "s.jsonl")])
    assert result.exit_code == 1
    assert "log.jsonl is empty" in result.stderr.splitlines()[-1]


def test_a_log_without_any_feedback_is_reported(tmp_path: Path) -> None:
    """A log of impressions alone teaches that nobody ever clicks: its owner forgot the feedback, or maps none."""
    lines = [impression(n) for n in range(150)]
    result, warnings = replayed(tmp_path, lines, "--until-end-of-windows", "--strict")
    assert result.exit_code == 1
    assert len(warnings) == 1
    assert warnings[0].startswith("150 labelled impressions and no feedback at all, so every label is a negative")
    assert replayed(tmp_path, lines[:99], "--until-end-of-windows")[1] == []


def test_context_fields_without_a_place_are_reported(tmp_path: Path) -> None:
    """Fields beyond the limit are read by nobody: they must be named, with the settings that let them in."""
    names = [f"f{number:02}" for number in range(20)]
    event = json.loads(impression(0))
    lines = [json.dumps(event | {"id": f"i{n}", "context": dict.fromkeys(names, "x")}) for n in range(3)]
    result, warnings = replayed(tmp_path, lines)
    assert result.exit_code == 0
    assert warnings == [
        (
            "context fields that are not read, as all 16 places (features.fields_limit) were taken before them: "
            "f14, f15, f16, f17, f18 and 1 more; name the fields that matter in features.context, or raise the limit"
        )
    ]
    for flag in (
        "features.fields_limit=22",
        'features.context=["f19"]',
        'features.exclude=["f00","f01","f02","f03","f04","f05"]',
    ):
        options = ["--set", flag, "--set", "features.values_limit=64"]
        assert replayed(tmp_path, lines, *options)[1] == []
