"""Write requirements.lock: the versions of all that Thalweg needs, as they are installed here and tested.

python docs/make_lock.py [--check]
"""

import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = """\
# What the tests run with and the Dockerfile installs; written by python docs/make_lock.py.
"""


def needed() -> list[str]:
    """Return what pyproject.toml asks for."""
    dependencies: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return dependencies


def closure(requirements: Iterable[str]) -> dict[str, str]:
    """Return the installed version of everything that is required, directly or not, by canonical name."""
    found: dict[str, str] = {}
    rest = [(Requirement(text), frozenset[str]()) for text in requirements]
    while rest:
        requirement, extras = rest.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed: pip install --editable .") from None
        if name in found and not requirement.extras:
            continue
        found[name] = installed.version
        rest += [(Requirement(text), frozenset(requirement.extras)) for text in installed.requires or ()]
    return found


def text() -> str:
    """Return the file."""
    return HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(closure(needed()).items()))


def main() -> int:
    """Write the file, or with `--check` return 1 where it is not up to date."""
    if "--check" in sys.argv[1:]:
        return int(LOCK.read_text() != text())
    LOCK.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
