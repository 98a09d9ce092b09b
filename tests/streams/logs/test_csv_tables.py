"""CSV files that are no tables, or not such as they seem: one line says which row is wrong and what to do."""

import gzip
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from thalweg.streams.commands import main
from thalweg.streams.logs import csv_tables

T = 1_650_000_000_000
NAMES = "user,item,time,click,x\n"
ROW = f"u,i,{T},1,a\n"


def run(table: Path, *options: str) -> Result:
    columns = ("--user", "user", "--item", "item", "--time", "time", "--label", "click")
    return CliRunner().invoke(main, ["import", str(table), *columns, *options, "--out", "-"])


def imported(folder: Path, data: str | bytes, *options: str) -> Result:
    table = folder / "table.csv"
    table.write_bytes(data if isinstance(data, bytes) else data.encode())
    return run(table, *(options or ("--context", "x")))


def refusal(result: Result, status: int = 1) -> str:
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr


FAULTS = {
    "semicolons": (NAMES.replace(",", ";") + ROW.replace(",", ";"), "has semicolons between its columns"),
    "tabs": (NAMES.replace(",", "\t") + ROW.replace(",", "\t"), "has tabs between its columns"),
    "bars": (NAMES.replace(",", "|") + ROW.replace(",", "|"), "has vertical bars between its columns"),
    "another encoding below": (
        (NAMES + "é" + ROW).encode("latin1"),
        "not UTF-8 (it has a byte e9): save it as UTF-8",
    ),
    "another encoding above": (NAMES.replace("x", "é").encode("latin1"), "is not UTF-8 (it has a byte e9)"),
    "UTF-16 without a mark": ((NAMES + ROW).encode("utf-16-le"), "if it is UTF-16, save it as UTF-8"),
    "names alone": (NAMES, "has no rows"),
    "names alone, without an end": (NAMES.strip(), "has no rows"),
    "empty lines alone": ("\n\n", "is empty"),
    "a value too few": (NAMES + ROW + f"u,i,{T},1\n", "has 5 columns, and 4 values in row 1"),
    "a value too many": (NAMES + ROW + ROW.replace("a", "a,b"), "has 5 columns, and 6 values in row 1"),
    "a quote that is never closed": (NAMES + ROW + f'u,i,{T},1,"a\n' + ROW * 3, "quote in row 1 that is never closed"),
    "the same, at the end": (NAMES + ROW + f'u,i,{T},1,"a', "quote in row 1 that is never closed"),
    "the same, in another column": ("z," + NAMES + "1," + ROW + '"2,' + ROW, "quote in row 1 that is never closed"),
    "very many columns": (
        NAMES.strip() + "".join(f",c{n}" for n in range(9_000)) + "\n" + ROW.strip() + ",1" * 9_000 + "\n",
        "has no column 'missing': there are user, item, time, click, x, c0",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    """The message must say what is wrong, the row where one is, and stay a line of readable length."""
    data, expected = FAULTS[name]
    told = refusal(imported(tmp_path, data, "--context", "missing" if name == "very many columns" else "x"))
    assert expected in told
    assert told.count("\n") == 1
    assert len(told) < 600


def test_quotes_within_a_value_are_no_fault(tmp_path: Path) -> None:
    """An odd number of quotes must not refuse a table in which each is a sign of its own, such as an inch."""
    result = imported(tmp_path, NAMES + ROW.replace("a\n", '5" pipe\n') + ROW.replace("a\n", '"5"" pipe, ""new"""\n'))
    assert result.exit_code == 0, result.output
    assert '"context":{"x":"5\\" pipe"}' in result.stdout
    assert '"context":{"x":"5\\" pipe, \\"new\\""}' in result.stdout


def test_large_rows_and_empty_lines_are_read(tmp_path: Path) -> None:
    """A row of some MiB in a column that nobody asks for, and empty lines around the names, must not be in the way."""
    long = "b" * 5_000_000
    result = imported(tmp_path, f"\n{NAMES.strip()},y\n{ROW.strip()},{long}\n\n{ROW.strip()},1\n")
    assert result.exit_code == 0, result.output
    assert result.stdout.count('"type":"impression"') == 2


def test_a_quote_that_is_never_closed_is_found_in_compressed_tables(tmp_path: Path) -> None:
    """Counting quotes must see the text, not the compressed bytes."""
    table = tmp_path / "table.csv.gz"
    table.write_bytes(gzip.compress((NAMES + f'u,i,{T},1,"a\n').encode()))
    assert "quote in row 0 that is never closed" in refusal(run(table))


def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """What would be left unread must be refused, and a delay beyond all times, too."""
    both = imported(tmp_path, NAMES + ROW, "--context", "x", "--text", "x", "--number", "x")
    assert "--text and --number both name 'x'" in refusal(both, 2)
    assert "belong to a [mapping]" in refusal(imported(tmp_path, NAMES + ROW, "--action", "buy"), 2)
    for delay in (2**63 - 1, 10**30):
        late = refusal(imported(tmp_path, NAMES + ROW, "--feedback-delay-ms", str(delay)))
        assert "the feedback of row 0 would lie beyond 2099" in late
    lines = tmp_path / "log.jsonl"
    lines.write_text("{}\n")
    assert "is no table but JSON" in refusal(run(lines))


def test_a_row_beyond_what_is_read_at_once_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value without end must be told as one, whether it is long or a quote is open."""
    monkeypatch.setattr(csv_tables, "ROW_BYTES_MAX", 1 << 20)
    told = refusal(imported(tmp_path, NAMES + ROW + f'u,i,{T},1,"{"a" * (3 << 20)}"\n'))
    assert "has a value of more than 1 MiB: shorten it, or close a quote that is open" in told
