"""Write docs/configuration.md from the configuration's own types, defaults and docstrings.

python docs/make_configuration.py            write it
python docs/make_configuration.py --check    say whether it is current, by the exit status
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

sys.path.insert(0, str(Path(__file__).parent.parent))

from thalweg.operators.configuration import Configuration
from thalweg.schemas.bounds import bounds, shown_number
from thalweg.streams.commands.config_command import _toml_value as toml_value
from thalweg.streams.configuration.loading import io_sections
from thalweg.streams.configuration.sections import Member, bare, free, is_tree, members

PAGE = Path(__file__).parent / "configuration.md"
HEAD = """\
# Configuration

One TOML file configures everything. Give it by `--config FILE` or in `THALWEG_CONFIG`. A flag `--set
section.key=value` goes before the environment variable `THALWEG_SECTION__KEY`, that before the file, the file
before the defaults. An unknown key is refused with the nearest known name. `thalweg config show` prints every value
in effect and where it comes from.

Every number has bounds, and what is outside of them is refused in one line; so are infinities. If a state within
the bounds does not fit into memory, one line names the settings that make it so large and their bytes.

Names end in their unit: `_ms` is milliseconds, `_bytes` bytes. What the fold computes depends on the sections from
`[features]` to `[mapping]` and on `seed`; a checkpoint made with others is refused. `[topics]`, `[kafka]`,
`[checkpoint]` and what follows them only say where records come from and go.

This page is written by `python docs/make_configuration.py`.
"""

# What a docstring says together with another key, or leaves to the name.
MEANINGS = {
    "seed": "Goes into every hash and every initial value.",
    "features.utc_offset_ms": "Added to `ts` before the hour is taken: local time less UTC.",
    "table.expire_time_ms_by_field": "The same for single fields, by name.",
    "learner.latent_initial": "The largest initial coordinate; the value derives from the key.",
    "learner.pair_initial": "Initial weight of two fields.",
    "learner.user_item_initial": "Initial weight of user and item.",
    "learner.derived_initial": "Initial weight of two fields, one of which is derived.",
    "learner.interest_initial": "Initial weight of a field and an interest.",
    "learner.rate_prior": "Pseudo-exposures of rates at the overall rate.",
    "learner.residual_half_life_ms": "Half-life of the residuals.",
    "learner.alpha_weight": "Learning rate of weights.",
    "learner.alpha_latent": "Learning rate of latent vectors.",
    "learner.alpha_pair": "Learning rate of the weights of pairs of fields.",
    "learner.alpha_dense": "Learning rate of the dense level.",
    "joiner.feedback_limit": "Feedback kept at most, in all.",
    "joiner.feedbacks_per_impression": "Feedback kept at most for one impression.",
    "sdim.groups": "G groups of sign bits (paper: 16).",
    "sdim.tau": "Sign bits of a group (paper: 3).",
    "error_memory.arrays": "K arrays of buckets for each of the three memories.",
    "error_memory.bits": "L: each array has 2**L buckets; 4 arrays of 2**16 take about 16 MiB.",
    "error_memory.half_life_impressions": "So many later impressions halve what is remembered of one.",
    "topics.interactions": "Input topic.",
    "topics.scores": "Output topic of scores.",
    "topics.examples": "Output topic of impressions with their outcome.",
    "topics.dead_letters": "Output topic of records that could not be used.",
    "topics.rankings": "Output topic of answers to requests.",
    "topics.lessons": "Output topic of what partitions teach each other.",
    "topics.partitions": "Partitions of every topic; with more than one they learn from each other.",
    "topics.replication_factor": "Copies of every partition.",
    "kafka.security_protocol": "How the brokers are spoken to.",
    "kafka.sasl_mechanism": "How a user name and a password are shown.",
    "kafka.sasl_username": "The user name.",
    "kafka.ssl_check_hostname": "Whether a broker's certificate must be of its host.",
}


def page() -> str:
    """Return the page as it must be."""
    tree: dict[str, Any] = {name: member.form for name, member in members(Configuration).items()}
    parts = [HEAD]
    top = {name: member for name, member in members(Configuration).items() if not is_tree(member.form)}
    parts.append(f"## Top level\n\n{collapsed(inspect.getdoc(Configuration))}\n\n{table(top, '')}")
    for name, form in (tree | io_sections()).items():
        if is_tree(form):
            parts.append(section(name, form))
    return "\n".join(parts)


def section(name: str, form: type) -> str:
    """Return one section: its first sentence, its keys, their types, defaults and meanings."""
    doc = inspect.getdoc(form) or ""
    first, _, rest = doc.partition("\n\n")
    told = meanings(collapsed(rest)) | below_fields(form)
    first = re.sub(r" \(`\[\w+\]`\)|; part of `\[\w+\]`", "", collapsed(first))
    first = re.sub(r"^(The section|Section) `\[\w+\]`[:;] (.)", lambda found: found[2].upper(), first)
    for base in form.__mro__[1:]:
        told = meanings(collapsed((inspect.getdoc(base) or "").partition("\n\n")[2])) | told
    keys = {key: member for key, member in members(form).items() if key != free(form)}
    text = f"## `[{name}]`\n\n{first}\n\n{table(keys, f'{name}.', told)}"
    if (rest := free(form)) is not None:
        inner = get_args(bare(members(form)[rest].form))[1]
        its = meanings(collapsed((inspect.getdoc(inner) or "").partition("\n\n")[2]))
        text += f"\n{told['NAME']}\n\n{table(members(inner), f'{name}.NAME.', its)}"
    return text


def table(keys: dict[str, Member], prefix: str = "", told: dict[str, str] | None = None) -> str:
    """Return the keys as a table; each must be explained."""
    rows = ["| key | type | allowed | default | meaning |", "|---|---|---|---|---|"]
    for key, member in keys.items():
        default = "" if member.default is None else f"`{toml_value(member.default)}`"
        meaning = MEANINGS.get(prefix + key) or (told or {}).get(key)
        if meaning is None:
            raise SystemExit(f"{prefix}{key} is not explained: say what it is in its section's docstring")
        limits = span(prefix + key, member.form)
        rows.append(f"| `{key}` | {kind(member.form)} | {limits} | {default} | {meaning} |".replace("|  |", "| |"))
    return "\n".join(rows) + "\n"


def span(key: str, form: Any) -> str:
    """Return the bounds of a key's numbers; each must have both."""
    if (found := bounds(form)) is not None:
        return " to ".join(map(shown_number, found))
    if kind(form) in ("integer", "number"):
        raise SystemExit(f"{key} has no bounds: annotate it with within(least, most)")
    return ""


def kind(form: Any) -> str:
    """Return a type as a reader of TOML calls it."""
    origin = get_origin(form)
    if origin is Annotated:
        return kind(get_args(form)[0])
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(form))
    if origin in (tuple, list):
        arms = [arm for arm in get_args(form) if arm is not Ellipsis]
        same = Ellipsis in get_args(form) or origin is list
        return f"list of {kind(arms[0])}" if same else f"pair of {kind(arms[0])}s"
    if origin is dict:
        return f"table of {kind(get_args(form)[1])}"
    if origin is Union or "|" in str(form):
        return " or ".join(kind(arm) for arm in get_args(form) if arm is not type(None))
    names = {int: "integer", float: "number", str: "string", bool: "boolean"}
    return names.get(form) or str(getattr(form, "__name__", form))


def meanings(text: str) -> dict[str, str]:
    """Cut "`a`: what a is. `b` and `c`: what they are." into what each key means."""
    found: dict[str, str] = {}
    pieces = re.split(r"(?:(?<=[.;,:])|^)\s*((?:`[\w…]+`(?:, | and )?)+):\s", text)
    for names, meaning in zip(pieces[1::2], pieces[2::2], strict=True):
        for name in re.findall(r"`([\w…]+)`", names):
            found[name] = sentence(meaning)
    return found


def sentence(text: str) -> str:
    """Return a meaning with its first letter and its end as a sentence's."""
    text = text.strip().rstrip(";,.").strip().replace("|", "\\|")
    return text[:1].upper() + text[1:] + "."


def collapsed(text: str | None) -> str:
    """Return text on one line."""
    return " ".join((text or "").split())


def below_fields(form: type) -> dict[str, str]:
    """Return the docstrings that stand below the fields of a class."""
    body = ast.parse(inspect.getsource(form).strip()).body[0]
    assert isinstance(body, ast.ClassDef)
    return dict(documented(body))


def documented(body: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Give each field that has a docstring below it."""
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            yield field.target.id, sentence(collapsed(str(below.value.value)))


def main() -> int:
    """Write the page, or check it."""
    wanted = page()
    if "--check" in sys.argv:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
