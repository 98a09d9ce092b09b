"""Paths into foreign records: `a.b`, `items.0.id`, `tags.*`, `params[key=page].value`, and alternatives, `a|b`."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

Get = Callable[[Any], Any]

_PART = re.compile(r'(?:"([^"]+)"|([^.\[\]|"]+))(?:\[([^=\]]+)=([^\]]*)\])?(\.|\||$)')
EACH = "*"


class Part(NamedTuple):
    """One step of a path: a name or an index, and which member of the list there is meant, by a field's value."""

    name: str
    key: str = ""
    value: str = ""


def parse(path: str) -> list[list[Part]]:
    """Return the alternatives of a path, each as its steps.

    Raises ValueError where it is no path.

    >>> parse('a."b.c"|items[kind=x].0')
    [[Part(name='a', key='', value=''), Part(name='b.c', key='', value='')], \
[Part(name='items', key='kind', value='x'), Part(name='0', key='', value='')]]
    """
    alternatives: list[list[Part]] = [[]]
    position = 0
    end = "."
    while position < len(path) or end:
        found = _PART.match(path, position)
        if found is None:
            raise ValueError(f"{path!r} is no path: names with a dot between them, as user.id")
        quoted, plain, key, value, end = found.groups()
        alternatives[-1].append(Part(quoted or plain, key or "", value or ""))
        if end == "|":
            alternatives.append([])
        position = found.end()
    return alternatives


def getter(path: str) -> Get:
    """Return a function that returns what lies at a path in a record; None is nothing.

    >>> get = getter("user.id|user.cookie")
    >>> get({"user": {"id": None, "cookie": "c"}}), get({"user": 5})
    ('c', None)
    >>> getter("params[key=page].value.text")({"params": [{"key": "page", "value": {"text": "home"}}]})
    'home'
    >>> getter("items.*.tags.*")({"items": [{"tags": ["a", "b"]}, {}, {"tags": ["c"]}]})
    ['a', 'b', 'c']
    """
    gets = [_getter(parts) for parts in parse(path)]
    if len(gets) == 1:
        return gets[0]

    def first(record: Any) -> Any:
        for get in gets:
            if (found := get(record)) is not None:
                return found
        return None

    return first


def _getter(parts: list[Part]) -> Get:
    names = [part.name for part in parts]
    if any(part.key or part.name == EACH or part.name.isdigit() for part in parts):
        return lambda record: _follow(record, parts)
    if len(names) == 1:
        (name,) = names
        return lambda record: record.get(name) if type(record) is dict else None

    def get(record: Any) -> Any:
        for name in names:
            if type(record) is not dict:
                return None
            record = record.get(name)
        return record

    return get


def _follow(record: Any, parts: list[Part]) -> Any:
    for number, part in enumerate(parts):
        if part.name == EACH:
            members = record if type(record) is list else []
            found: list[Any] = []
            for member in members:
                value = _follow(member, parts[number + 1 :])
                found += value if type(value) is list else [] if value is None else [value]
            return found if type(record) is list else None
        if type(record) is dict:
            record = record.get(part.name)
        elif type(record) is list and part.name.isdigit() and int(part.name) < len(record):
            record = record[int(part.name)]
        else:
            return None
        if part.key:
            record = _selected(record, part)
    return record


def _selected(members: Any, part: Part) -> Any:
    if type(members) is not list:
        return None
    for member in members:
        if type(member) is dict and str(member.get(part.key)) == part.value:
            return member
    return None
