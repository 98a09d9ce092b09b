"""Trees of configuration sections: which keys they have, their types, and text read as a type wants it."""

import dataclasses
import json
import re
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from thalweg.schemas.bounds import FREE_NAMES
from thalweg.streams.printable import redacted

_SECRET = re.compile(r"(^|_)(passw(or)?d|passphrase|secret|token|credentials?|(api|access|private|hmac)_?key)$")
_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

Key = tuple[str, ...]


class Member(NamedTuple):
    """A key of a section: its type with annotations, and its default (None where it has none)."""

    form: Any
    default: Any


def names(form: Any) -> list[str]:
    """Return the keys of a section, or of a whole tree's sections given by name."""
    if isinstance(form, Mapping):
        return list(form)
    rest = free(form)
    return [name for name in members(form) if name != rest]


def child(form: Any, name: str) -> Any | None:
    """Return the annotated type of a member, None where there is none."""
    form = form if isinstance(form, Mapping) else bare(form)
    if not isinstance(form, Mapping) and is_table(form):
        return get_args(form)[1]
    if isinstance(form, Mapping):
        return form[name].form if name in form else None
    its, rest = members(form), free(form)
    if name in its and name != rest:
        return its[name].form
    return None if rest is None else get_args(bare(its[rest].form))[1]


def free(form: Any) -> str | None:
    """Return the field of a section that takes all keys which are no other field's, None where there is none."""
    return _free(form) if is_tree(form) else None


@cache
def _free(form: Any) -> str | None:
    for name, hint, *_ in _fields(form):
        if get_origin(hint) is Annotated and FREE_NAMES in hint.__metadata__:
            return name
    return None


def members(form: Any) -> dict[str, Member]:
    """Return the fields of a dataclass or struct with their types and defaults; nothing for another type."""
    if not is_tree(form):
        return {}
    return {name: Member(hint, default if made is None else made()) for name, hint, default, made in _fields(form)}


@cache
def _fields(form: Any) -> list[tuple[str, Any, Any, Callable[[], Any] | None]]:
    """Return each field of a dataclass or struct: its name, its type, and its default or what makes one."""
    hints = get_type_hints(form, include_extras=True)
    unset: tuple[Any, ...] = (dataclasses.MISSING, msgspec.NODEFAULT)
    fields: Sequence[Any] = dataclasses.fields(form) if dataclasses.is_dataclass(form) else msgspec.structs.fields(form)
    found = []
    for field in fields:
        default = None if field.default in unset else field.default
        made = None if default is not None or field.default_factory in unset else field.default_factory
        found.append((field.name, hints[field.name], default, made))
    return found


def is_tree(form: Any) -> bool:
    """Return whether a type is a section: a dataclass or a struct."""
    return isinstance(form, type) and (dataclasses.is_dataclass(form) or issubclass(form, msgspec.Struct))


def is_table(form: Any) -> bool:
    """Return whether a type is a table whose keys the user names."""
    return (get_origin(form) in (dict, Mapping)) and len(get_args(form)) == 2


def _unannotated(form: Any) -> Any:
    return get_args(form)[0] if get_origin(form) is Annotated else form


def bare(form: Any) -> Any:
    """Strip annotations and `| None` from a type."""
    form = _unannotated(form)
    if get_origin(form) in (Union, types.UnionType):
        arms = [arm for arm in get_args(form) if arm is not type(None)]
        if len(arms) == 1:
            return bare(arms[0])
    return form


def from_text(text: str, form: Any) -> Any:
    """Read a variable's or flag's text as its type wants it; what doesn't read stays text, for the type to refuse."""
    inner = bare(form)
    word = text.strip()
    if inner is not form and word.lower() in ("", "none") and type(None) in get_args(_unannotated(form)):
        return None
    if get_origin(inner) in (Union, types.UnionType):
        for arm in (bool, int, float, str):
            if arm in get_args(inner):
                value = from_text(text, arm)
                if isinstance(value, arm):
                    return value
        return text
    if inner is bool:
        return _BOOLEANS.get(word.lower(), text)
    if inner in (int, float):
        try:
            return inner(word)
        except ValueError:
            return text
    if get_origin(inner) is Literal:
        return next((choice for choice in get_args(inner) if str(choice) == word), text)
    if (get_origin(inner) or inner) in (list, tuple, set, frozenset):
        return _list_from_text(word, inner)
    return text


def _list_from_text(text: str, form: Any) -> Any:
    if text.startswith("["):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    parts = [part.strip() for part in text.split(",")] if text else []
    arms = [arm for arm in get_args(form) if arm is not Ellipsis] or [str]
    if len(arms) == 1:
        arms = arms * len(parts)
    return [from_text(part, arm) for part, arm in zip(parts, arms, strict=False)] + parts[len(arms) :]


def leaves(value: Any, path: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Give every effective value of a configuration with its path, in the order of the fields."""
    if is_tree(type(value)):
        for name in members(type(value)):
            inner = getattr(value, name)
            if name != free(type(value)):
                yield from leaves(inner, (*path, name))
            elif inner:
                yield from leaves(inner, path)
    elif isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, (*path, str(name)))
    else:
        yield path, value


def is_secret(path: Key) -> bool:
    """Return whether a value must not be shown: the last word of its name decides."""
    return bool(path) and _SECRET.search(path[-1].lower()) is not None


def shown(path: Key, value: Any) -> str:
    """Return a value as messages show it: as JSON, secrets as stars."""
    if is_secret(path):
        return "'***'"
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = redacted(text)
    return text if len(text) <= 100 else text[:97] + "..."


def without_secrets(value: Any, path: Key = ()) -> Any:
    """Return builtins as they may be shown: secrets as stars, URLs without credentials."""
    if isinstance(value, Mapping):
        return {name: without_secrets(inner, (*path, str(name))) for name, inner in value.items()}
    if is_secret(path):
        return "***"
    return redacted(value) if isinstance(value, str) else value
