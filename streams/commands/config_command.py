"""`thalweg config`: the effective configuration and where each value comes from."""

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import click
import msgspec
from thalweg.streams.configuration.loading import DEFAULT, Loaded, Source, configuration_options, io_sections
from thalweg.streams.configuration.sections import Key, is_secret, leaves
from thalweg.streams.printable import printable, redacted


@click.group(name="config")
def command() -> None:
    """Show the effective configuration and where each value comes from.

    \b
    Example:
      thalweg config show --config thalweg.toml --set learner.alpha_weight=0.05
    """


@command.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: dotted name to value, source and place.")
@configuration_options
def show(loaded: Loaded, as_json: bool) -> None:
    """Print every value in effect, as TOML that can be used as a configuration again.

    A flag (`--set section.key=value`) goes before the environment (THALWEG_SECTION__KEY), the environment before the
    file, the file before the defaults. Tables of free names, such as features.buckets, are replaced whole by the file;
    flags and variables add single names to them. Secrets are not shown.

    \b
    Example:
      THALWEG_LEARNER__ALPHA=0.05 thalweg config show --config thalweg.toml
    """
    from thalweg.operators.machine.compiled import INTERPRETED

    if not INTERPRETED:
        from thalweg.operators.machine.jit import CACHE_FOLDER

        CACHE_FOLDER.make()  # where it lies is in effect, too: one that can't be written is warned of
    values = dict(effective(loaded))
    click.echo(_json(values, loaded.sources) if as_json else _toml(values, loaded.sources))


def effective(loaded: Loaded) -> Iterator[tuple[Key, Any]]:
    """Give every effective value with its path: the fold's sections, then those of input and output."""
    yield from leaves(loaded.configuration)
    for name in io_sections():
        yield from leaves(getattr(loaded, name), (name,))


def _json(values: Mapping[Key, Any], sources: Mapping[str, Source]) -> str:
    shown_values = {}
    for key, value in values.items():
        source = sources.get(".".join(key), DEFAULT)
        plain = "***" if is_secret(key) else msgspec.to_builtins(value, enc_hook=str)
        if isinstance(plain, str):
            plain = redacted(plain)
        shown_values[".".join(key)] = {"value": plain, "source": source.kind, "where": source.where or None}
    return printable(json.dumps(shown_values, indent=2, ensure_ascii=False), lines=True)


def _toml(values: Mapping[Key, Any], sources: Mapping[str, Source]) -> str:
    """Write values as TOML, a table for each path above a value, with the sources as comments in one column."""
    tables: dict[Key, list[tuple[str, str]]] = {(): []}
    for key, value in values.items():
        source = sources.get(".".join(key), DEFAULT)
        if is_secret(key):
            text = f"# {_name(key[-1])} is not shown"
        elif value is None:
            text = f"# {_name(key[-1])} is not set"
        else:
            text = f"{_name(key[-1])} = {_toml_value(value)}"
        place = source.where if source.kind == "environment" else str(source)
        tables.setdefault(key[:-1], []).append((text, place))
    width = min(60, max((len(text) for lines in tables.values() for text, _ in lines), default=0))
    blocks = []
    for table, lines in tables.items():
        header = [f"[{'.'.join(map(_name, table))}]"] if table else []
        blocks.append("\n".join([*header, *(f"{text:<{width}}  # {place}" for text, place in lines)]))
    return "\n\n".join(filter(None, blocks))


def _name(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | PurePath):
        return printable(json.dumps(redacted(str(value)), ensure_ascii=False))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_name(str(name))} = {_toml_value(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        ordered = sorted(value) if isinstance(value, set | frozenset) else value
        return "[" + ", ".join(map(_toml_value, ordered)) + "]"
    return _toml_value(msgspec.to_builtins(value, enc_hook=str))
