"""The configuration: one TOML file, environment and flags over it, into frozen sections that know their bounds.

A value is looked for in the flags (`--set section.key=value`), then the environment (`THALWEG_SECTION__KEY`), then the
file, then the section's defaults. The loader knows no section by name: any tree of frozen dataclasses and msgspec
structs will do, types and bounds are theirs (annotations, `msgspec.Meta`, ValueError from `__post_init__`).
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin

import click
import msgspec
from thalweg.schemas.bounds import MS_MAX, allowed, bounds, refuse_infinite, within, without_bounds
from thalweg.streams.configuration.sections import (
    Key,
    Member,
    bare,
    child,
    free,
    from_text,
    is_secret,
    is_table,
    is_tree,
    members,
    names,
    shown,
)
from thalweg.streams.refusal import Refusal

if TYPE_CHECKING:
    from thalweg.operators.configuration import Configuration
    from thalweg.streams.kafka.security import KafkaSection
    from thalweg.streams.kafka.topics import TopicsSection

ENVIRONMENT_PREFIX = "THALWEG_"
KAFKA_MS_MAX = (1 << 31) - 1
"""Kafka's own settings of this kind are 32 bits."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ConfigurationError(ValueError):
    """The configuration can't be used; the message is one line that names key, value, source and what is allowed."""


class Source(NamedTuple):
    """Where an effective value comes from: the kind, and the file's line, the variable's name or the flag."""

    kind: Literal["default", "file", "environment", "flag"]
    where: str = ""

    def __str__(self) -> str:
        """Return the place, as messages and tables show it."""
        return self.where or self.kind


DEFAULT = Source("default")


class CheckpointSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `[checkpoint]`: where a worker's checkpoints lie, how often one is written and how many are kept."""

    directory: Annotated[str, msgspec.Meta(min_length=1)] = "thalweg-checkpoints"
    """Folder of the checkpoints, with a folder for each partition in it; workers of a group share it. Also a URL that
    fsspec knows, such as `s3://bucket/folder`."""
    generation: Annotated[int, within(0, 1_000_000)] = 0
    """Which generation of states in the folder is meant: another one for each configuration that states follow from."""
    keep: Annotated[int, within(1, 10_000)] = 3
    """How many of the newest checkpoints stay."""
    interval_ms: Annotated[int, within(1, MS_MAX)] = 30_000
    """A partition's checkpoint is written so long after the one before, if it has events that are not in it."""
    interval_events: Annotated[int, within(1, 1 << 53)] = 1_000_000
    """And after so many events."""
    hmac_key_file: str = ""
    """File that holds the key which a River classifier in a checkpoint is signed with, and nothing else;
    THALWEG_CHECKPOINT_HMAC_KEY goes before it."""


class WorkerSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `[worker]`: how a worker takes part in its group."""

    group: Annotated[str, msgspec.Meta(min_length=1)] = "thalweg"
    """Consumer group: its workers share the partitions, and the folder of checkpoints."""
    session_timeout_ms: Annotated[int, within(1_000, KAFKA_MS_MAX)] = 10_000
    """How long after its death a worker's partitions go to others."""
    pending_bytes_max: Annotated[int, within(1 << 16, 1 << 40)] = 8 << 20
    """Bytes of records of one partition that are fetched and not folded yet."""
    block_records_max: Annotated[int, within(1, 1_000_000)] = 10_000
    """Records that are folded in one go: what waits is joined up to so many. It changes no output."""
    block_bytes_max: Annotated[int, within(1 << 12, 1 << 30)] = 8 << 20
    """Bytes of records that are folded in one go."""
    fetch_pause_ms: Annotated[int, within(0, 1_000)] = 2
    """How long after a fetch of few records the next one begins: a fetch of one costs as much as one of a hundred."""
    silence_ms: Annotated[int, msgspec.Meta(ge=3_000, le=600_000)] = 10_000
    """Brokers that have not answered for so long are taken to be gone: `/readyz` answers 503, and no lag is shown."""
    stop_timeout_ms: Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)] = 15_000
    """A stopping worker waits so long for brokers that are gone. It then ends without a checkpoint."""
    lessons_bytes_max: Annotated[int, within(1 << 16, 1 << 40)] = 64 << 20
    """Bytes of lessons that a worker keeps in memory for all its partitions, and once more for the block that a
    partition folds. What is older is read from its topic again."""
    lessons_wait_ms: Annotated[int, within(0, MS_MAX)] = 60_000
    """A partition waits so long for lessons that its log names; then the worker ends with the numbers."""
    merge_lessons_max: Annotated[int, within(1, 1 << 53)] = 200_000
    """Lessons that one merge lets a partition learn, from all sources: the fold answers nothing meanwhile."""


class DeliverySection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `[delivery]`: how outputs reach their topics. All workers of a group have the same mode."""

    mode: Literal["suppress", "transactional"] = "suppress"
    """`suppress`: at once; readers drop what is not above the highest cause seen. `transactional`: outputs and the
    input's offset in one transaction; every `read_committed` reader gets each output once."""
    transaction_interval_ms: Annotated[int, within(0, 60_000)] = 100
    """How long outputs wait for others to be committed with them; readers see them then."""
    transaction_timeout_ms: Annotated[int, within(1_000, KAFKA_MS_MAX)] = 60_000
    """After so long the brokers abort an abandoned transaction; until then it blocks readers. It can't be more
    than the brokers' `transaction.max.timeout.ms`."""

    def __post_init__(self) -> None:
        """Raise ValueError where transactions would be aborted before they are due."""
        if self.transaction_interval_ms >= self.transaction_timeout_ms:
            raise ValueError(
                f"transaction_timeout_ms must be above transaction_interval_ms, {self.transaction_interval_ms}"
            )


class DeadLettersSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `[dead_letters]`: what `thalweg dead-letters redrive` sends back."""

    redrives_max: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 3
    """How often one record is sent back at most; it counts its rounds in the header `thalweg.redrives`."""


class MetricsSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `[metrics]`: where a worker answers `/metrics`, `/healthz` and `/readyz`."""

    enabled: bool = True
    """Whether it answers at all."""
    host: str = "127.0.0.1"
    """Address to listen on; nothing there asks for a password, so it is the machine itself by default."""
    port: Annotated[int, within(0, 65_535)] = 9464
    """Port to listen on; 0: any that is free, which the worker's log tells."""
    timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=600_000)] = 10_000
    """A connection is closed after so long, whether it was answered or not."""
    connections_max: Annotated[int, msgspec.Meta(ge=1, le=1_024)] = 32
    """Connections at a time; one more closes the oldest."""


class HttpSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `[http]`: where a worker answers questions, and what a client may take."""

    enabled: bool = True
    """Whether it answers at all."""
    host: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    """Address to listen on. Another one than the machine itself needs a `token_file`."""
    port: Annotated[int, within(0, 65_535)] = 9465
    """Port to listen on; 0: any that is free, which the worker's log names."""
    token_file: str = ""
    """File with the token that clients must send as `Authorization: Bearer`, and nothing else; empty: none is asked
    for. All workers of a group have the same."""
    advertised_url: str = ""
    """URL by which the group's other workers reach this one; empty: made of host and port."""
    timeout_ms: Annotated[int, within(100, 600_000)] = 5_000
    """How long a request may take, from its first byte to the last of its answer; its connection is cut then."""
    idle_ms: Annotated[int, within(100, 3_600_000)] = 60_000
    """How long a connection may stay open between requests."""
    connections_max: Annotated[int, within(1, 1_024)] = 64
    """Connections at a time; one more closes the one that was idle for longest, or else the oldest."""
    header_bytes_max: Annotated[int, within(1_024, 65_536)] = 8_192
    """Bytes of the request line, and of each header. A body is at most `limits.record_bytes`."""
    fold_share_max: Annotated[float, within(0.01, 1.0)] = 0.25
    """Share of the fold's time that questions may take; beyond it the answer is 503."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """The effective configuration: the fold's sections, those of input and output, and every value's source.

    The fold's configuration decides what is computed, and nothing else does: it alone is compared with a checkpoint's.
    `sources` has an entry for every value that is not a default, by its dotted name.
    """

    configuration: "Configuration"
    topics: "TopicsSection"
    kafka: "KafkaSection"
    checkpoint: CheckpointSection
    delivery: DeliverySection
    worker: WorkerSection
    metrics: MetricsSection
    http: HttpSection
    dead_letters: DeadLettersSection
    sources: Mapping[str, Source]


class Assignment(NamedTuple):
    """One value given by a file, a variable or a flag; `text` is still to be read as its type wants."""

    path: Key
    value: Any
    source: Source
    text: bool = True


def load(path: Path | None, *, environment: Mapping[str, str], flags: Sequence[str]) -> Loaded:
    """Load Thalweg's configuration.

    Parameters
    ----------
    path
        The TOML file; None for defaults only.
    environment
        Usually `os.environ`; `THALWEG_SECTION__KEY` is read, other names are not looked at.
    flags
        Texts `section.key=value`.

    Raises
    ------
    ConfigurationError
        Unreadable file, malformed TOML, unknown section or key, a value of the wrong type or out of its bounds.

    """
    from thalweg.operators.configuration import Configuration

    parts = io_sections()
    tree = dict(members(Configuration)) | {name: Member(form, form()) for name, form in parts.items()}
    given = read(tree, path, environment=environment, flags=flags)
    io = {name: build(form, form(), (name,), given) for name, form in parts.items()}
    return Loaded(
        configuration=build(Configuration, Configuration(), (), given),
        sources={".".join(key): value.source for key, value in given.items()},
        **io,
    )


def io_sections() -> dict[str, type]:
    """Return the sections of input and output by name, which the fold never sees."""
    # The Kafka clients behind these take a fifth of a second to import: only where a configuration is loaded.
    from thalweg.streams.kafka.security import KafkaSection
    from thalweg.streams.kafka.topics import TopicsSection

    return {
        "topics": TopicsSection,
        "kafka": KafkaSection,
        "checkpoint": CheckpointSection,
        "delivery": DeliverySection,
        "worker": WorkerSection,
        "metrics": MetricsSection,
        "http": HttpSection,
        "dead_letters": DeadLettersSection,
    }


def read(
    tree: Mapping[str, Any], path: Path | None, *, environment: Mapping[str, str], flags: Sequence[str]
) -> dict[Key, Assignment]:
    """Return what is given for a tree of sections, converted, the strongest source of each value winning.

    A table of free names (`dict[str, ...]`) in the file stands for the whole default table: its own path is given too,
    with the value None. Variables and flags add single names to it.

    Raises
    ------
    ConfigurationError
        As `load` does, bounds across keys excepted.

    """
    assignments: list[Assignment] = []
    if path is not None:
        table, lines = read_toml(path)
        assignments += _flatten(tree, table, (), lambda key: Source("file", _place(path, lines, key)))
    assignments += _from_environment(tree, environment)
    assignments += [_from_flag(flag) for flag in flags]
    given: dict[Key, Assignment] = {}
    for assignment in assignments:
        key, form = _resolve(tree, assignment)
        given[key] = assignment._replace(path=key, value=_convert(key, form, assignment), text=False)
    return given


def build(form: Any, default: Any, path: Key, given: Mapping[Key, Assignment]) -> Any:
    """Return a section with the given values in it, its own checks passed.

    Raises
    ------
    ConfigurationError
        The section's `__post_init__` raised ValueError, or a value without a default is missing.

    """
    below = {key for key in given if key[: len(path)] == path}
    values: dict[str, Any] = {}
    for name, member in members(form).items():
        if name == free(form):
            inner = get_args(bare(member.form))[1]
            its = dict.fromkeys(key[len(path)] for key in given if key in below and key[len(path)] not in names(form))
            if its:
                values[name] = {key: build(inner, None, (*path, key), given) for key in its}
            continue
        key = (*path, name)
        inner = bare(member.form)
        if key in below and not (is_tree(inner) or is_table(inner)):
            values[name] = given[key].value
        elif any(other[: len(key)] == key for other in below):
            current = member.default if default is None else getattr(default, name)
            values[name] = (_build_table if is_table(inner) else build)(inner, current, key, given)
    if default is not None and not values:
        return default
    try:
        if default is None:
            return form(**values)
        if dataclasses.is_dataclass(form):
            return dataclasses.replace(default, **values)
        return msgspec.structs.replace(default, **values)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(_blame(str(error), path, values, given)) from None


def _build_table(form: Any, default: Any, path: Key, given: Mapping[Key, Assignment]) -> dict[str, Any]:
    table = {} if path in given else dict(default or {})
    inner = bare(get_args(form)[1])
    for key, assignment in given.items():
        if key[: len(path)] == path and len(key) > len(path):
            name = key[len(path)]
            table[name] = (
                build(inner, table.get(name), key[: len(path) + 1], given) if is_tree(inner) else assignment.value
            )
    return table


def configuration_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command `--config` and `--set`, and call it with `loaded`, the `Loaded` they make.

    Refusals end the command with one line and exit status 1; a `--set` without `=` is a usage error.
    """

    @click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        envvar="THALWEG_CONFIG",
        help="TOML file of the configuration (or THALWEG_CONFIG).",
    )
    @click.option(
        "--set",
        "config_flags",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        callback=_check_flags,
        help="Set one value of the configuration; goes before environment and file. Can be repeated.",
    )
    @wraps(command)
    def wrapper(*args: Any, config_path: Path | None, config_flags: tuple[str, ...], **kwargs: Any) -> Any:
        import os

        try:
            loaded = load(config_path, environment=os.environ, flags=config_flags)
        except ConfigurationError as error:
            raise Refusal(str(error)) from None
        return command(*args, loaded=loaded, **kwargs)

    return wrapper


def read_toml(path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """Return a TOML file's content and the lines of its keys. Raises ConfigurationError, one line with the position."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text), _key_lines(text)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path} is a folder: name the TOML file in it") from None
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigurationError(f"{path} is not a configuration: its values are nested too deeply") from None


def _key_lines(text: str) -> dict[Key, int]:
    """Find the line of each key, since tomllib tells no positions; a wrong match can only misplace a message."""
    lines: dict[Key, int] = {}
    section: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+([^\]]+)\]", line):
            section = _key_parts(header[1])
            lines.setdefault(section, number)
        elif key := re.match(r"\s*([\w\-.\"' ]+?)\s*=", line):
            lines.setdefault(section + _key_parts(key[1]), number)
    return lines


def _key_parts(text: str) -> Key:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


def _place(path: Path, lines: Mapping[Key, int], key: Key) -> str:
    while key and key not in lines:
        key = key[:-1]
    return f"{path}:{lines[key]}" if key else str(path)


def _flatten(tree: Any, value: Mapping[str, Any], path: Key, source: Callable[[Key], Source]) -> list[Assignment]:
    """Cut a TOML table into its values, as deep as the tree of sections goes."""
    found: list[Assignment] = []
    for name, inner in value.items():
        key = (*path, name)
        # An unknown key stays whole: resolving it raises, with its place.
        form = child(tree, name)
        if isinstance(inner, dict) and form is not None and (is_tree(form) or is_table(form)):
            if is_table(form):
                found.append(Assignment(key, None, source(key), text=False))
            found += _flatten(form, inner, key, source)
        else:
            found.append(Assignment(key, inner, source(key), text=False))
    return found


def _from_environment(tree: Mapping[str, Any], environment: Mapping[str, str]) -> list[Assignment]:
    found: list[Assignment] = []
    flat = {f"{section}_{key}": (section, key) for section in tree for key in names(tree[section].form)}
    for variable in sorted(environment):
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name == variable.lower():
            continue
        if "__" in name:
            found.append(Assignment(tuple(name.split("__")), environment[variable], Source("environment", variable)))
        elif name in tree and not names(tree[name].form):
            found.append(Assignment((name,), environment[variable], Source("environment", variable)))
        elif name in flat:
            wanted = ENVIRONMENT_PREFIX + "__".join(flat[name]).upper()
            raise ConfigurationError(f"unknown variable {variable}: did you mean {wanted}?")
    return found


def _from_flag(flag: str) -> Assignment:
    key, equals, value = flag.partition("=")
    if not equals:
        # The text after the name may be a secret that was typed with a blank or a colon.
        name = re.match(r"[\w.\-]*", flag)
        raise ConfigurationError(f"--set {name[0] if name else ''}: give it as section.key=value")
    return Assignment(_key_parts(key), value, Source("flag", "--set"))


def _check_flags(ctx: click.Context, param: click.Parameter, flags: tuple[str, ...]) -> tuple[str, ...]:
    for flag in flags:
        if "=" not in flag:
            raise click.BadParameter("give it as SECTION.KEY=VALUE", ctx, param)
    return flags


def _resolve(tree: Mapping[str, Any], assignment: Assignment) -> tuple[Key, Any]:
    """Follow a path to its value's type; names are refused with the nearest known one."""
    form: Any = tree
    source = assignment.source
    for depth, name in enumerate(assignment.path):
        key = ".".join(assignment.path[: depth + 1])
        inner = child(form, name)
        if inner is None:
            if not names(form):
                raise ConfigurationError(f"unknown key {key} ({source}): {key.rpartition('.')[0]} has no keys below it")
            kind = "section" if depth == 0 else "key"
            owners = [section for section in tree if name in names(tree[section].form)] if depth == 0 else []
            if owners and len(assignment.path) == 1:
                known = " or ".join(f"{owner}.{name}" for owner in owners)
                raise ConfigurationError(f"unknown section {name} ({source}): did you mean {known}?")
            near = difflib.get_close_matches(name, names(form), 1, 0.5)
            prefix = "".join(f"{part}." for part in assignment.path[:depth])
            known = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(names(form))}"
            raise ConfigurationError(f"unknown {kind} {key} ({source}): {known}")
        full = inner
        form = bare(inner)
    if (is_tree(form) or is_table(form)) and not (is_table(form) and assignment.value is None):
        key = ".".join(assignment.path)
        example = names(form)[0] if names(form) else "name"
        what = f"a table, [{key}]" if source.kind == "file" else f"set key by key, for instance {key}.{example}"
        raise ConfigurationError(f"{key} ({source}) must be {what}")
    return assignment.path, full


def _convert(path: Key, form: Any, assignment: Assignment) -> Any:
    if is_table(bare(form)):
        return None
    value = assignment.value
    try:
        if assignment.text:
            value = from_text(value, form)
        _refuse_numbers(value)
        return msgspec.convert(value, form, strict=True, dec_hook=_decode_other)
    except (ValueError, TypeError) as error:
        name = ".".join(path)
        told = f"must {allowed(form)}" if _fits_but_for_bounds(value, form) else _plain(str(error))
        if (choices := _choices(form)) and any(each not in choices for each in _texts(value)):
            told = f"{'each of them ' if isinstance(value, list) else ''}must be one of {', '.join(choices)}"
        raise ConfigurationError(f"{name} = {shown(path, assignment.value)} ({assignment.source}): {told}") from None


def _choices(form: Any) -> tuple[str, ...]:
    """Return the texts that a type names, itself or of its members; none of one that takes any."""
    if get_origin(form) is Literal:
        return get_args(form)
    return next(filter(None, map(_choices, get_args(form))), ())


def _texts(value: Any) -> list[str]:
    """Return the texts of a value that is a text or a list of them."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]


def _fits_but_for_bounds(value: Any, form: Any) -> bool:
    """Return whether a value is of a type that has bounds, which it does not keep."""
    if bounds(form) is None:
        return False
    try:
        msgspec.convert(value, without_bounds(form), strict=True)
    except (ValueError, TypeError):
        return False
    return True


def _refuse_numbers(value: Any) -> None:
    """Raise ValueError for numbers that no bound would catch, or that no array holds."""
    refuse_infinite(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("expected a whole number of 64 bits")
    if isinstance(value, list):
        for inner in value:
            _refuse_numbers(inner)


def _plain(message: str) -> str:
    """Say msgspec's words as a configuration's reader would."""
    message = " ".join(message.split()).replace("`", "").replace(" - at $", ", at ")
    for word, name in (("str", "text"), ("int", "whole number"), ("float", "number"), ("bool", "true or false")):
        message = re.sub(rf"\b{word}\b", name, message)
    return message[:1].lower() + message[1:]


def _decode_other(form: Any, value: Any) -> Any:
    if isinstance(form, type) and issubclass(form, Path) and isinstance(value, str):
        return form(value)
    raise ValueError(f"expected {getattr(form, '__name__', form)}")


def _blame(message: str, path: Key, values: Mapping[str, Any], given: Mapping[Key, Assignment]) -> str:
    """Put the values that a section's own check speaks of before its words."""
    message = " ".join(message.split())
    for key, assignment in given.items():
        if is_secret(key) and str(assignment.value):
            message = message.replace(str(assignment.value), "***")
    words = set(_WORD.findall(message))
    below = [key for key in given if key[: len(path)] == path and len(key) > len(path)]
    blamed = [key for key in below if key[-1] in words or key[len(path)] in words] or below
    parts = [
        f"{'.'.join(key)} = {shown(key, given[key].value)} ({given[key].source})"
        for key in blamed
        if given[key].value is not None
    ]
    return f"{', '.join(parts) or '.'.join(path)}: {message}"
