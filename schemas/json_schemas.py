"""JSON Schemas of everything on the wire; `python -m thalweg.schemas.json_schemas` writes them to `schemas/json/`.

They list the fields and their types. Limits that the configuration sets are not in them.
"""

from inspect import cleandoc
from pathlib import Path
from typing import Any

from msgspec import json
from thalweg.schemas.events import Erase, Event, Feedback, Impression, Item, Merge, Request, User
from thalweg.schemas.outputs import DeadLetter, Example, Ranking, Score

DIRECTORY = Path(__file__).parent / "json"
TYPES = {
    "event": Event,
    "impression": Impression,
    "feedback": Feedback,
    "request": Request,
    "item": Item,
    "user": User,
    "erase": Erase,
    "merge": Merge,
    "score": Score,
    "example": Example,
    "ranking": Ranking,
    "dead_letter": DeadLetter,
}


def json_schema(name: str) -> bytes:
    """Return the JSON Schema of one of TYPES as indented text.

    >>> '"Forget this user entirely."' in json_schema("erase").decode()
    True
    """
    schema: dict[str, Any] = json.schema(TYPES[name])
    for definition in schema["$defs"].values():
        # Python 3.13 takes the indentation out of docstrings, earlier versions leave it in.
        if "description" in definition:
            definition["description"] = cleandoc(definition["description"])
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.format(json.encode(head | schema), indent=2) + b"\n"


def write(directory: Path = DIRECTORY) -> None:
    """Write every schema to `directory`, one file each."""
    directory.mkdir(exist_ok=True)
    for name in TYPES:
        (directory / f"{name}.json").write_bytes(json_schema(name))


if __name__ == "__main__":
    write()
