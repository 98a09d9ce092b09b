"""The documentation is run: every command of README on the real thing, every link, key, field and reason it names."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from thalweg.operators.configuration import Configuration
from thalweg.schemas.events import Erase, Event, Feedback, Impression, Merge, Request
from thalweg.schemas.outputs import DeadLetter, Example, RankedItem, Ranking, RefusedCandidate, Score
from thalweg.schemas.reasons import Reason
from thalweg.streams.commands import COMMANDS, main
from thalweg.streams.configuration.loading import io_sections
from thalweg.streams.configuration.sections import is_tree, members
from thalweg.streams.driver import Driver

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WIRE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/*/*.md")]
)
KAFKA_SECTION = "Your own Kafka"

pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")


def sections() -> dict[str, str]:
    """README's sections by their title."""
    parts = re.split(r"^## (.+)$", README, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(text: str) -> list[str]:
    """Every line of the shell blocks of a text."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def environment(**more: str) -> dict[str, str]:
    """Ours, with the commands of this environment first on the PATH and nothing configured."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("THALWEG_") or name == "THALWEG_CACHE"
    }
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"} | more


def shell(command: str, folder: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a line as a reader would."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=300,
    )


def line(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as a reader would; a command of ours by itself runs here, where all that it imports is imported."""
    settings = environment()
    if not command.startswith("thalweg ") or set(command) & set("|<>&;$`"):
        return shell(command, folder, settings)
    others = dict.fromkeys(os.environ.keys() - settings.keys())
    with contextlib.chdir(folder):
        ran = CliRunner().invoke(main, shlex.split(command)[1:], env=others | settings, catch_exceptions=False)
    return subprocess.CompletedProcess(command, ran.exit_code, ran.stdout, ran.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder in which `examples` is there, as in a clone."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def test_every_section_of_commands_is_run() -> None:
    """A shell block in a section that no test here runs would be a promise that nobody keeps."""
    assert {title for title, text in sections().items() if commands(text)} == {
        "Two commands",
        "Your own log",
        KAFKA_SECTION,
    }


def test_make_demo_ends_with_the_path_of_the_scores() -> None:
    """`make demo` must end with the path of a file that has a score for each impression."""
    assert commands(sections()["Two commands"]) == ["make demo", "make test"]
    # The environment that runs this test is installed already: make must not do it again.
    venv = Path(sys.executable).parent.parent
    command = ["make", "-C", str(ROOT), "-o", f"{venv}/.installed", f"VENV={venv}", "demo"]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    path = Path(re.findall(r"^The scores: (.+)$", run.stdout, flags=re.MULTILINE)[-1])
    assert path.read_bytes().count(b"\n") == 30_000


def test_make_test_is_what_continuous_integration_runs() -> None:
    """`make test` can't run itself here; `.ci/run` must call just that."""
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make test"


def test_every_target_of_make_exists() -> None:
    """Each `make TARGET` that a page names is a target."""
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{page.name} names make {target}"


def test_commands_on_logs_run(folder: Path) -> None:
    """Every command on log files runs as it stands, and writes what it says."""
    for command in commands(sections()["Your own log"]):
        run = shell(command, folder, environment())
        assert run.returncode == 0, f"{command}\n{run.stderr}"
    assert (folder / "scores.jsonl").read_bytes().count(b"\n") == 30_000
    assert json.loads((folder / "summary.json").read_bytes())["scored"] == 30_000
    assert [json.loads(line)["item"] for line in run.stdout.splitlines()] == ["i1", "i1"]


@pytest.mark.parametrize("page", ["your_log.md", "your_topic.md", "mapping.md"])
def test_commands_of_tutorials_run(page: str, folder: Path) -> None:
    """Every command that needs no broker, and no table of the reader's, runs as it stands and scores the whole log."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    text = text.partition("## 3. The same from Kafka")[0].partition("## Keys")[0]
    for command in commands(text):
        run = line(command, folder)
        assert run.returncode == 0, f"{command}\n{run.stderr}"
    scores = (folder / "scores.jsonl").read_bytes().count(b"\n")
    assert scores == (1_417 if page == "mapping.md" else 20_000)


def test_commands_on_ranking_run(folder: Path) -> None:
    """Every command of docs/ranking.md runs as it stands: a replay ranks, and its checkpoint gives the same scores."""
    for command in commands((ROOT / "docs" / "ranking.md").read_text(encoding="utf-8")):
        run = line(command, folder)
        assert run.returncode == 0, f"{command}\n{run.stderr}"
    ranking = json.loads((folder / "rankings.jsonl").read_bytes())
    answer = json.loads(run.stdout)
    assert len(answer["items"]) == 3
    scores = {each["item"]: each["score"] for each in ranking["items"]}
    assert len({each["item"]: each["score"] for each in answer["items"]}.items() & scores.items()) == 2


def test_the_table_and_the_score_are_real() -> None:
    """README must show the table of the sample's replay, and the score of its event, as they are today."""
    command = [sys.executable, str(ROOT / "docs" / "make_readme.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"run python docs/make_readme.py\n{run.stderr}"


@pytest.fixture
def worker() -> Iterator[Callable[[str, Path, dict[str, str]], subprocess.Popen[str]]]:
    """Start a worker in the background; it is told to end, and must end in order, when the test is over."""
    started: list[subprocess.Popen[str]] = []

    def start(command: str, folder: Path, settings: dict[str, str]) -> subprocess.Popen[str]:
        with (folder / "worker.log").open("w") as log:
            started.append(
                subprocess.Popen(shlex.split(command), cwd=folder, env=settings, stdout=log, stderr=log, text=True)
            )
        return started[-1]

    yield start
    try:
        for process in started:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(60) for process in started] == [0] * len(started)
    finally:
        for process in started:
            process.kill()


@pytest.mark.broker
def test_commands_on_kafka_run(
    broker: str, folder: Path, worker: Callable[[str, Path, dict[str, str]], subprocess.Popen[str]]
) -> None:
    """Every command on Kafka runs as it stands, on the suite's broker, and the consumer prints every score."""
    suffix = os.urandom(4).hex()
    topics = ("interactions", "scores", "examples", "dead_letters", "rankings", "lessons")
    settings = environment(**{f"THALWEG_TOPICS__{name.upper()}": f"{name}-{suffix}" for name in topics})
    settings["THALWEG_WORKER__GROUP"] = f"docs-{suffix}"
    settings["THALWEG_METRICS__PORT"] = settings["THALWEG_HTTP__PORT"] = "0"
    printed: list[str] = []
    for command in commands(sections()[KAFKA_SECTION]):
        if found := re.fullmatch(r"export (\w+)=(\S+)", command):
            settings[found[1]] = broker if found[2] == "localhost:9092" else found[2]
        elif command == "thalweg worker":
            worker(command, folder, settings)
        else:
            # what README shows at 2 000 events a second need not take that long here
            run = shell(command.replace("--rate 2000", "--rate 20000"), folder, settings)
            assert run.returncode == 0, f"{command}\n{run.stderr}\n{(folder / 'worker.log').read_text()[-2000:]}"
            printed = run.stdout.splitlines()
    assert len(printed) == 30_000
    assert json.loads(printed[0])["origin"] == f"interactions-{suffix}-0-0"


def test_docker_compose_is_named_with_what_was_not_tried() -> None:
    """README must not promise more of docker compose than that its file is checked."""
    told = " ".join(sections()[KAFKA_SECTION].split())
    assert "docker compose up" in told
    assert "was never run: no Docker daemon was available" in told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page must lead to a file, and to a heading of it where it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        led = (page.parent / path).resolve() if path else page
        assert led.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", led.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_keys_exist(page: Path) -> None:
    """Every `thalweg COMMAND`, and every `section.key` or `operator.name` in code, must exist."""
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`thalweg ([a-z][a-z-]*)[ `\n]", text)) <= set(COMMANDS)
    tree = {name: member.form for name, member in members(Configuration).items()} | io_sections()
    sections_of = {name: members(form) for name, form in tree.items() if is_tree(form)}
    for owner, name in re.findall(r"`([a-z_]+)\.(\w+)[`= (]", text):
        if name != "py" and owner in sections_of and name not in sections_of[owner]:
            [path] = (ROOT / "operators").rglob(f"{owner}.py")
            module = ".".join(("thalweg", *path.relative_to(ROOT).with_suffix("").parts))
            assert hasattr(import_module(module), name), f"{page.name} names {owner}.{name}"


def test_the_memory_page_is_current() -> None:
    """docs/memory.md must be what its script makes of the declarations of the state today."""
    command = [sys.executable, str(ROOT / "docs" / "make_memory.py"), "--check"]
    run = subprocess.run(
        command, env=os.environ | {"THALWEG_INTERPRETED": "1"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, f"run python docs/make_memory.py\n{run.stderr}"


def test_the_configuration_page_is_current() -> None:
    """docs/configuration.md must be what its script makes of the configuration today."""
    command = [sys.executable, str(ROOT / "docs" / "make_configuration.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"run python docs/make_configuration.py\n{run.stderr}"


@pytest.mark.parametrize(
    "struct", [Impression, Feedback, Request, Erase, Score, Example, Ranking, RankedItem, RefusedCandidate, DeadLetter]
)
def test_every_field_on_the_wire_is_explained(struct: type) -> None:
    """docs/wire.md must name each field of each record, in the section of that record."""
    outputs: dict[Any, str] = {Score: "scores", Example: "examples", DeadLetter: "interactions.dlq"}
    outputs |= dict.fromkeys((Ranking, RankedItem, RefusedCandidate), "rankings")
    title = f"Output: `{outputs[struct]}`" if struct in outputs else f"`{struct.__name__.lower()}`:"
    part = re.split(r"^##+ ", WIRE[WIRE.index(f"# {title}") + 2 :], flags=re.MULTILINE)[0]
    for field in msgspec.structs.fields(struct):
        assert f"`{field.encode_name}`" in part, f"{struct.__name__}.{field.encode_name}"


def test_every_reason_is_explained() -> None:
    """docs/wire.md must name each reason for a dead letter, and none that does not exist."""
    rows = WIRE[WIRE.index("| reason | what was wrong |") : WIRE.index("## Time and outcomes")]
    named = [name for row in rows.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1] if row else "")]
    assert sorted(named) == sorted(reason.value for reason in Reason)


def test_events_on_the_wire_page_are_events() -> None:
    """Each example of an event in the documentation must decode, and go through the fold without a dead letter."""
    decode = msgspec.json.Decoder(Event).decode
    for page, count in ((README, 2), (WIRE, 6)):
        shown = re.findall(r"```json\n(\{\"type\".+)\n```", page)
        assert len(shown) == count
        driver = Driver(Configuration())
        driver.pipe(*(text.encode() for text in shown if not isinstance(decode(text), Merge)))  # it has no lessons
        assert len(driver.rankings) == sum(isinstance(decode(text), Request) for text in shown)
        assert driver.fates["dead_lettered"] == 0


def test_decisions_are_listed() -> None:
    """ARCHITECTURE.md must link every decision, and each must have its four parts."""
    architecture = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for page in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        assert f"docs/adr/{page.name}" in architecture
        text = page.read_text(encoding="utf-8")
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Why", "Consequences"))
