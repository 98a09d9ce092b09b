"""Run in a copy of the sources that declares a field of each kind more: is each of them taken in everywhere?"""

import json
import re
import sys
from typing import Any

import pytest
from thalweg.operators.fold.consistency import InconsistentError
from thalweg.operators.fold.digest import Rows, digest
from thalweg.operators.fold.snapshot import restore, snapshot
from thalweg.operators.machine.declare import Declared, walk
from thalweg.schemas.records import LogRecord
from thalweg.streams.partition.partition import Partition

from tests.operators.fold.test_consistency import crowded, crowded_log
from tests.streams.private_state import unwiped


def main() -> None:
    """Mark each array of `sys.argv` in the rows in use and see who notices."""
    partition = Partition(crowded())
    records = [*crowded_log(400), *reading(400)]
    partition.process(records[:430])
    state = partition.state
    marked = {name: next(each for each in walk(state) if each.path.endswith(f".{name}")) for name in sys.argv[1:]}
    for name, each in marked.items():
        before = digest(state)
        mark(state, each)
        assert digest(state) != before, name
        sys.stdout.write(f"{name} digested\n")
    whole, arrays = digest(state), snapshot(state)
    restored = restore(crowded(), arrays)
    assert digest(restored) == whole
    for name, each in marked.items():
        saved = {path: array.copy() for path, array in arrays.items()}
        assert arrays[each.path].any()
        sys.stdout.write(f"{name} restored\n")
        saved[each.path].reshape(-1)[0] = 1 << 20
        with pytest.raises(InconsistentError, match=re.escape(each.path)):
            restore(crowded(), saved)
        sys.stdout.write(f"{name} verified\n")
    partition.process(records[430:])
    assert not unwiped(state)
    events = [json.loads(record.value) for record in records if record.value and record.value.startswith(b"{")]
    users = sorted({event["user"] for event in events})
    last_ms = int(state.clock.stream_time_ms[0])
    erases = [{"type": "erase", "id": f"mark{user}", "user": user, "ts": last_ms} for user in users]
    partition.process(
        [LogRecord(len(records) + number, json.dumps(each).encode()) for number, each in enumerate(erases)]
    )
    assert not unwiped(state)
    for name, each in marked.items():
        if each.field.shape[0] in ("users", "slots", "nodes", "histories"):
            assert not each.array.any(), name
            sys.stdout.write(f"{name} erased\n")


def reading(first: int) -> list[LogRecord]:
    """A user who acts on the same two items again and again, so that there is a long history; behind the log."""
    ts = json.loads(crowded_log(400)[-1].value or b"")["ts"]
    found = []
    for number in range(30):
        seen = {
            "type": "impression",
            "id": f"r{number}",
            "user": "reader",
            "item": f"i{number % 2}",
            "ts": ts,
            "context": {},
        }
        acted = seen | {"type": "feedback", "id": f"f{number}", "impression": f"r{number}", "action": "click"}
        found += [json.dumps(event).encode() for event in (seen, acted)]
    return [LogRecord(first + number, value) for number, value in enumerate(found)]


def mark(state: Any, each: Declared) -> None:
    """Write something to all rows in use; a reference is to the first row of a value that is in use."""
    rows = getattr(Rows(state), str(each.field.shape[0]), None)
    if each.field.refers:
        row = Rows(state).values[0]
        each.array[rows] = row
        each.owner.generation[rows] = state.features.generation[row]
    else:
        each.array[slice(None) if rows is None else rows] = 7


if __name__ == "__main__":
    main()
