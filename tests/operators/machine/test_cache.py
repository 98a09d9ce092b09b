"""The cache of compiled code is its owner's alone, and a run without one still runs."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from thalweg.operators.machine import cache
from thalweg.operators.machine.cache import Folder, refuse_others
from thalweg.operators.machine.refusal import CacheError

ADDER = """
from thalweg.operators.machine.compiled import compiled

@compiled
def add(a, b):
    return a + b

print(add(2, 3), sum(add.stats.cache_misses.values()))
"""


def add_in(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program with one compiled function, its cache in a folder."""
    (folder / "adder.py").write_text(ADDER)
    environment = {**os.environ, "THALWEG_CACHE": str(folder / "cache"), **settings}
    command = [sys.executable, str(folder / "adder.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache that has code in it; a test leaves it as it is."""
    folder = tmp_path_factory.mktemp("filled")
    assert add_in(folder).returncode == 0
    return folder


def modes(folder: Path) -> set[str]:
    return {f"{'d' if path.is_dir() else '-'}{stat.S_IMODE(path.stat().st_mode):o}" for path in folder.rglob("*")}


def test_folders_and_files_are_their_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask, folders must be 0700 and files 0600; the second process must load what the first wrote."""
    before = os.umask(0)
    try:
        first, second = add_in(tmp_path), add_in(tmp_path)
    finally:
        os.umask(before)
    assert (first.stdout, second.stdout) == ("5 1\n", "5 0\n"), first.stderr + second.stderr
    assert modes(tmp_path / "cache") == {"d700", "-600"}
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize("which", ["cache", "compiled", "digest", "digests", "remembered", "*.nbi", "*.nbc"])
def test_what_others_may_write_is_refused(filled: Path, which: str) -> None:
    """A folder or file of the cache that others may write must be refused, with its name and what to do."""
    [digest] = (filled / "cache" / "compiled").iterdir()
    digests = filled / "cache" / "digests"
    [remembered] = digests.iterdir()
    named = {"cache": filled / "cache", "compiled": digest.parent, "digest": digest}
    named |= {"digests": digests, "remembered": remembered}
    path = named[which] if which in named else next(digest.glob(which))
    mode = path.stat().st_mode
    path.chmod(mode | stat.S_IWOTH)
    refused = add_in(filled)
    path.chmod(mode)
    assert refused.returncode != 0
    assert f"{path} can be written by others" in refused.stderr.splitlines()[-1]
    assert "set THALWEG_CACHE" in refused.stderr.splitlines()[-1]


def test_what_belongs_to_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another user owns must be refused, and so must a link of another user's."""
    refuse_others(tmp_path)
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 12345)
    else:
        monkeypatch.setattr(cache.os, "geteuid", lambda: 12345)
    with pytest.raises(CacheError, match="belongs to another user"):
        refuse_others(tmp_path)


@pytest.mark.parametrize("reason", ["a file in the way", "no home"])
def test_a_cache_that_cannot_be_written_is_replaced(tmp_path: Path, reason: str) -> None:
    """A temporary folder must take its place with one line of warning, and keep the code for the next run."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").write_text("")
    settings = {"TMPDIR": str(tmp_path / "tmp")}
    settings |= {"THALWEG_CACHE": str(tmp_path / "file")} if reason == "a file in the way" else {"THALWEG_CACHE": ""}
    program = ADDER
    if reason == "no home":
        program = "from pathlib import Path\n\ndef none():\n    raise RuntimeError\n\nPath.home = none\n" + ADDER
        settings["XDG_CACHE_HOME"] = ""
    (tmp_path / "adder.py").write_text(program)
    command = [sys.executable, str(tmp_path / "adder.py")]
    for misses in (1, 0):
        run = subprocess.run(
            command, env={**os.environ, **settings}, capture_output=True, text=True, check=True, timeout=120
        )
        assert run.stdout == f"5 {misses}\n"
        [line] = run.stderr.splitlines()
        assert line.startswith("Warning: ")
        assert str(tmp_path / "tmp" / f"thalweg-{os.geteuid()}") in line


def test_a_full_cache_that_is_read_only_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an image was built with must be loaded, though nothing can be added; an empty one is no use."""
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path))
    monkeypatch.setattr(cache.os, "access", lambda path, mode: False)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    folder = tmp_path / "compiled" / "d"
    folder.mkdir(parents=True)
    (folder / "code.nbi").write_text("")
    assert Folder(lambda: "raw", lambda: "d").path == folder
    (folder / "code.nbi").unlink()
    with pytest.raises(CacheError, match="can't be written either"):
        _ = Folder(lambda: "raw", lambda: "d").path


def test_a_digest_is_worked_out_once_for_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is remembered by the digest of the bytes; a file that has none in it counts as none, and the oldest go."""
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path))
    worked_out: list[str] = []

    def digest() -> str:
        worked_out.append(f"{len(worked_out):024x}")
        return worked_out[-1]

    paths = [Folder(lambda raw=raw: raw, digest).path for raw in ("a", "a", "b", "a")]  # type: ignore[misc]
    assert [path.name for path in paths] == [worked_out[0], worked_out[0], worked_out[1], worked_out[0]]
    (tmp_path / "digests" / "a").write_text("no digest")
    assert Folder(lambda: "a", digest).path.name == worked_out[2]
    for number in range(2 * cache.DIGESTS_MAX):
        assert Folder(lambda: f"r{number}", lambda: "d").path.name == "d"  # noqa: B023
    assert len(list((tmp_path / "digests").iterdir())) <= cache.DIGESTS_MAX
