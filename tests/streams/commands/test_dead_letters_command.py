"""`thalweg dead-letters` on a file: what is asked for is a place, or is refused."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from thalweg.streams.commands import main


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A file of two dead letters, as a replay writes it."""
    path = tmp_path / "letters.jsonl"
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"not JSON\n[]\n")
    arguments = ["replay", log, "--out", tmp_path / "scores.jsonl", "--dead-letters", path]
    assert CliRunner().invoke(main, [str(each) for each in arguments]).exit_code == 0
    return path


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["list", "--origin", "interactions-0-1"], 0, "1 dead letters"),
        (["list", "--first-offset", "0", "--last-offset", "0"], 0, "1 dead letters"),
        (["list", "--origin", "17"], 2, "'17' is no place of a record: write TOPIC-P-N"),
        (["list", "--origin", "interactions-0--1"], 2, "is no place of a record"),
        (["list", "--first-offset", "5", "--last-offset", "1"], 2, "--last-offset 1 is before --first-offset 5"),
        (["show", "interactions"], 2, "'interactions' is no place of a record"),
        (["show", "interactions-0-9"], 1, "has no dead letter interactions-0-9"),
        (["show", "interactions-0-1"], 0, "not_an_object"),
    ],
)
def test_places_are_found_or_refused(letters: Path, arguments: list[str], status: int, told: str) -> None:
    """What can mean no letter must be refused with the form, in place of none that is found."""
    result = CliRunner().invoke(main, ["dead-letters", *arguments, "--file", str(letters)])
    assert result.exit_code == status, result.output
    assert told in result.stderr
