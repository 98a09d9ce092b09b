"""What users install: one name at the top, beside whatever packages they have, with the versions that were tested."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs.make_lock import LOCK, needed, text

ROOT = Path(__file__).parent.parent
LOG = b"""{"type":"impression","id":"1","user":"u","item":"i","ts":1700000000000,"context":{}}\n"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy so that nothing is left beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("schemas", "operators", "streams"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(folder)]
    run = subprocess.run([*build, str(source)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with the wheel in it; what it depends on is read from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    install = [*pip, "install", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", str(wheel)]
    run = subprocess.run(install, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder


def test_the_wheel_has_one_name_at_the_top(wheel: Path, installed: Path) -> None:
    """In the wheel, and in the environment it is installed into, there must be `thalweg` and nothing else."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"thalweg"}
    parts = {name.split("/")[1] for name in names if name.startswith("thalweg/")}
    assert parts == {"schemas", "operators", "streams"}
    assert any(re.fullmatch(r"thalweg/schemas/json/\w+\.json", name) for name in names)
    assert "thalweg/streams/serving/ui.html" in names
    [site] = installed.glob("lib/python*/site-packages")
    found = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert found == {"thalweg"}
    modules = {str(path.relative_to(ROOT)) for top in parts for path in (ROOT / top).rglob("*.py")}
    assert {name.removeprefix("thalweg/") for name in names if name.endswith(".py")} == modules


@pytest.mark.parametrize("command", ["replay", "faust"])
def test_it_runs_beside_a_users_own_packages(installed: Path, tmp_path: Path, command: str) -> None:
    """`schemas`, `operators` and `streams` of a user's own on the path must neither be taken for ours nor be hidden."""
    for name in ("schemas", "operators", "streams"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = 1\n")
    (tmp_path / "log.jsonl").write_bytes(LOG)
    [site] = installed.glob("lib/python*/site-packages")
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    # behind the wheel: what this environment has of thalweg, editable, must not be what runs
    (site / "libraries.pth").write_text(f"{libraries}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("THALWEG_")}
    environment |= {"PYTHONPATH": ".", "THALWEG_CACHE": os.environ.get("THALWEG_CACHE", "")}
    python = str(installed / "bin" / "python")
    where = "import schemas, thalweg.schemas as ours; print(schemas.MINE, ours.__file__)"
    run = subprocess.run(
        [python, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["1", str(site / "thalweg" / "schemas" / "__init__.py")]
    if command == "replay":
        line = [str(installed / "bin" / "thalweg"), "replay", "log.jsonl", "--out", "-"]
        run = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert '"origin":"interactions-0-0"' in run.stdout
    else:
        line = [python, "-m", "faust", "-A", "thalweg.streams.app", "worker", "--help"]
        run = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert "--web-port" in run.stdout
        load = [python, "-c", "from thalweg.streams.app import app; print(app.conf.id)"]
        run = subprocess.run(load, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert run.stdout == "thalweg\n", run.stderr


def locked() -> dict[str, str]:
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_the_lock_fits_what_is_asked_for() -> None:
    """Each dependency must be locked within its bounds, and all but one pinned exactly must have an upper one."""
    versions = locked()
    for requirement in map(Requirement, needed()):
        name = canonicalize_name(requirement.name)
        assert versions.get(name), f"{name} is not locked: run python docs/make_lock.py"
        assert requirement.specifier.contains(versions[name]), f"{requirement} does not allow {versions[name]}"
        operators = {each.operator for each in requirement.specifier}
        assert operators & {"<", "=="}, f"{name} has no upper bound"


def test_the_lock_is_whole_and_is_what_the_tests_run_with() -> None:
    """Nothing that is needed may be missing, and what is installed here must be what is locked."""
    assert LOCK.read_text() == text(), "run python docs/make_lock.py"
    assert {name: version(name) for name in locked()} == locked()
