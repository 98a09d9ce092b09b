"""Pages, docstrings, help texts and messages are in plain English: short sentences, and the field's own terms."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *ROOT.glob("benchmarks/*.md"),
    *ROOT.glob("examples/**/*.md"),
]
MODULES = sorted(path for package in ("schemas", "operators", "streams") for path in (ROOT / package).rglob("*.py"))
WORDS_MAX = 25
BETTER = {
    r"(go|goes|going|went|gone) on( from)?": "resume, continue",
    r"let(s|ting)? (\w+ )?go": "delete, evict, release",
    r"set(s|ting)? right|made good|make(s)? good": "correct",
    r"told": "reported, returned",
    r"(say|said|tell)s? (so|how|that|what|which|whether)": "states, reports, returns",
    r"(stand|lie)s? in": "is in",
    r"things?": "name it",
    r"of (its|their|our) own": "own, or leave it out",
    r"anew": "again",
    r"as ever": "as before",
    r"at hand": "current, available",
    r"to speak of": "leave it out",
    r"be had": "is available",
    r"whoever|somebody|nobody": "name the actor",
    r"lost, twice or different": "lost, duplicated or changed",
}
WRONG = {re.compile(rf"\b({words})\b", re.IGNORECASE): better for words, better in BETTER.items()}


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a page or a docstring; code, tables of figures and links' targets are left out."""
    text = re.sub(r"```.*?```|<!--.*?-->", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"^\s*(>>>|\.\.\.).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"`[^`]*`", "`X`", text)
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*#>]|\d+\.)\s)|\n(?=\|)|\n-{3,}|(?<=\|)\s", text)
    for block in blocks:
        for part in block.split("|"):
            yield from re.split(r"(?<=[.!?:;])\s+", " ".join(part.split()))


def complaints(text: str) -> list[str]:
    """Return what is wrong with the sentences of a text."""
    found = []
    for sentence in sentences(text):
        words = re.findall(r"[A-Za-z][\w'’-]*", sentence)
        if len(words) > WORDS_MAX:
            found.append(f"{len(words)} words: {sentence}")
        found += [
            f"{match[0]!r} ({better}): {sentence}"
            for wrong, better in WRONG.items()
            if (match := wrong.search(sentence))
        ]
    return found


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a module, its help texts and its messages, each with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                yield getattr(node, "lineno", 1), docstring
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            spoken = [keyword.value for keyword in node.keywords if keyword.arg == "help"]
            if name.endswith(("Refusal", "Error")) or name in ("echo", "warning", "error", "info"):
                spoken += node.args[:1]
            yield from ((node.lineno, "".join(literals(value))) for value in spoken)


def literals(node: ast.expr) -> Iterator[str]:
    """Yield the text of a message, `X` for what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield value.value if isinstance(value, ast.Constant) else "`X`"
    elif isinstance(node, ast.BinOp):
        yield from literals(node.left)
        yield from literals(node.right)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_in_plain_english(page: Path) -> None:
    """No sentence of a page may have more than 25 words, or a word for which there is a better one."""
    assert not complaints(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_help_and_messages_are_in_plain_english(path: Path) -> None:
    """The same holds for what a module's docstrings, help texts and messages say."""
    assert not [f"line {line}: {wrong}" for line, text in texts(path) for wrong in complaints(text)]


def test_the_rules_find_what_they_are_for() -> None:
    """A long sentence and a word of the list are found; short plain sentences are not."""
    assert not complaints("The worker resumes from its checkpoint. It sends each output once.")
    assert len(complaints("It goes on from there.")) == 1
    assert len(complaints("word " * 26)) == 1
    assert not complaints("word " * 25)
