"""A `[mapping]` for a foreign file, guessed from names and values of its first records, with a reason a line."""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from thalweg.schemas.events import EARLIEST_TS_MS, END_TS_MS
from thalweg.schemas.mapper import milliseconds_of
from thalweg.schemas.reasons import Unusable

USER: tuple[str, ...] = (
    "user_?id",
    "user",
    "visitor_?id",
    "customer_?id",
    "member_?id",
    "client_?id",
    "account_?id",
    "domain_?userid",
)
USER += ("user_?pseudo_?id", "anonymous_?id", "visitor", "customer", "uid", "who(_?id)?", "cookie(_?id)?", "device_?id")
ITEM: tuple[str, ...] = (
    "item_?id",
    "product_?id",
    "sku",
    "article_?id",
    "content_?id",
    "video_?id",
    "movie_?id",
    "listing_?id",
    "asin",
)
ITEM += ("track_?id", "post_?id", "item", "product", "article", "video", "movie", "click_article_id", "iid", "pid")
TIME: tuple[str, ...] = (
    "(event_?)?time_?stamp(_?(ms|us|micros))?",
    "(event_?)?time(_?ms)?",
    "ts",
    "collector_tstamp",
    "derived_tstamp",
)
TIME += ("created_?at", "occurred_?at", "date_?time", "date", "sent_?at", ".*tstamp", ".*time.*")
TYPE: tuple[str, ...] = (
    "event_?name",
    "event_?type",
    "event",
    "action(_?type)?",
    "behaviou?r(_?type)?",
    "interaction(_?type)?",
    "type",
    ".*type",
)
ID: tuple[str, ...] = ("event_?id", "message_?id", "insert_?id", "uuid", "id")
IMPRESSION: tuple[str, ...] = (".*impression_?id", "impression", "view_?id", "view", "exposure_?id", "request_?id")
SHOWN = re.compile(r"view|impression|shown?$|display|exposure|^pv$|recommend|serve|^pageview$", re.IGNORECASE)
DONE = re.compile(r"click|cart|buy|purchase|transaction|order|like|fav|play|watch|rat(e|ing)|select|share|book", re.I)
OUTCOME = re.compile(
    r"click|purchase|label|target|conver|dwell|watch_?time|play_?time|transaction|order_?id", re.IGNORECASE
)
ACTIONS = {"click|select": "click", "cart": "cart", "buy|purchase|transaction|order": "purchase", "like|fav": "like"}
SHARE_MIN = 0.8
CONTEXT_MAX = 16
VALUES_MAX = 2_000
TEXT_BYTES_MAX = 256


class Line(NamedTuple):
    """A key of a mapping as TOML, and why; without a key only a remark."""

    key: str
    value: str
    reason: str


class Guess(NamedTuple):
    """A path that was chosen, and why."""

    path: str
    reason: str


def suggest(columns: dict[str, list[Any]]) -> str:
    """Return a `[mapping]` as TOML for records whose values lie at these paths, a reason at each line."""
    lines = suggested(columns)
    width = max((len(f"{line.key} = {line.value}") for line in lines if line.key), default=0)
    width = min(width, 60)
    texts = [
        f"{f'{line.key} = {line.value}'.ljust(width)}  # {line.reason}" if line.key else f"# {line.reason}"
        for line in lines
    ]
    return "\n".join(["[mapping]", *texts]) + "\n"


def suggested(columns: dict[str, list[Any]]) -> list[Line]:
    """Return the lines of a mapping for records whose values lie at these paths."""
    taken: set[str] = set()

    def chosen(key: str, names: Iterable[str], fits: Callable[[list[Any]], str | None], missing: str) -> Line:
        guess = _best({path: values for path, values in columns.items() if path not in taken}, names, fits)
        if guess is None:
            return Line("", "", f"{key}: {missing}")
        taken.add(guess.path)
        return Line(key, _toml(guess.path), guess.reason)

    kind = _kinds(columns)
    taken |= {line.value.strip('"') for line in kind if line.key == "type"}
    time = _time(columns, taken)
    taken |= {line.value.strip('"') for line in time if line.key == "time"}
    lines = [
        *kind,
        chosen("id", ID, _is_unique, "no path is different in every record: ids are made from the origin"),
        chosen("user", USER, _is_repeated, "no path looks like a user's id: name it here, user = …"),
        chosen("item", ITEM, _is_repeated, "no path looks like an item's id: name it here, item = …"),
        *time,
        chosen("impression", IMPRESSION, _is_present, "no path looks like the id of what feedback answers"),
    ]
    return lines + _context(columns, taken)


def _best(columns: dict[str, list[Any]], names: Iterable[str], fits: Callable[[list[Any]], str | None]) -> Guess | None:
    """Return the first path whose last name is one of `names`, in their order, and whose values fit."""
    for name in names:
        pattern = re.compile(name, re.IGNORECASE)
        for path, values in columns.items():
            if pattern.fullmatch(last_name(path)) and (reason := fits(values)) is not None:
                return Guess(path, f"named {last_name(path)!r}, {reason}")
    return None


def last_name(path: str) -> str:
    """Return the name that tells most in a path.

    >>> last_name("user.id"), last_name("p[key=page_id].value.string_value"), last_name("items.0.sku")
    ('user_id', 'page_id', 'sku')
    """
    keyed = re.findall(r"\[key=([^\]]+)\]", path)
    if keyed:
        return str(keyed[-1])
    names = [name.strip('"') for name in path.split(".") if not name.isdigit()]
    return "_".join(names[-2:]) if names[-1].lower() in ("id", "name", "type") and len(names) > 1 else names[-1]


def _present(values: list[Any]) -> list[Any]:
    return [value for value in values if value is not None and value != ""]


def _are_ids(values: list[Any]) -> bool:
    return all(type(value) in (str, int) for value in values)


def _is_unique(values: list[Any]) -> str | None:
    found = _present(values)
    if len(found) < len(values) or not _are_ids(found) or len(set(found)) < len(found):
        return None
    return f"different in all of the {len(found):,} records"


def _is_repeated(values: list[Any]) -> str | None:
    found = _present(values)
    if len(found) < SHARE_MIN * len(values) or not _are_ids(found):
        return None
    return f"{len(set(found)):,} different in {len(found):,} records"


def _is_present(values: list[Any]) -> str | None:
    found = _present(values)
    return f"in {len(found):,} of {len(values):,} records" if found and _are_ids(found) else None


def _kinds(columns: dict[str, list[Any]]) -> list[Line]:
    """Return the lines that define what a record is."""

    def few(values: list[Any]) -> str | None:
        found = _present(values)
        kinds = set(map(str, found)) if _are_ids(found) else set()
        is_text = any(type(value) is str and not value.isdigit() for value in found)
        fits = len(found) >= SHARE_MIN * len(values) and 2 <= len(kinds) <= 100 and is_text
        return f"{len(kinds)} kinds" if fits else None

    # The path whose kinds speak of what was shown, before those that are only named like it.
    speaking = {path: values for path, values in columns.items() if any(map(SHOWN.search, map(str, _present(values))))}
    guess = _best(speaking, TYPE, few) or _best(columns, TYPE, few)
    if guess is None:
        return [Line("", "", "type: no path says what a record is: all are impressions")]
    counts = Counter(map(str, _present(columns[guess.path])))
    shown = [kind for kind in counts if SHOWN.search(kind)]
    done = [kind for kind in counts if kind not in shown and DONE.search(kind)]
    rest = [kind for kind in counts if kind not in shown and kind not in done]
    lines = [Line("type", _toml(guess.path), guess.reason)]
    if shown:
        lines.append(Line("impressions", _list(shown), _counted(shown, counts)))
    else:
        lines.append(Line("", "", "impressions: no kind is named like something that was shown: name it here"))
    if done:
        pairs = ", ".join(f"{_toml(kind)} = {_toml(_action(kind))}" for kind in done)
        lines.append(Line("feedback", f"{{ {pairs} }}", _counted(done, counts)))
    lacking = len(columns[guess.path]) - counts.total()
    told = [f"named like neither: {_counted(rest, counts)}"] if rest else []
    told += [f"* for {lacking:,} records without a kind"] if lacking else []
    if told:
        lines.append(Line("ignore", _list([*rest, *["*"][: bool(lacking)]]), ", ".join(told)))
    actions = {_action(kind) for kind in done}
    if actions and actions != {"click"}:
        told_actions = _list(sorted(actions))
        lines.append(
            Line("", "", f"only click makes a label positive, unless [joiner] positive_actions = {told_actions}")
        )
    return lines


def _action(kind: str) -> str:
    for pattern, action in ACTIONS.items():
        if re.search(pattern, kind, re.IGNORECASE):
            return action
    return re.sub(r"\W+", "_", kind.strip().lower())


def _counted(kinds: list[str], counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {counts[kind]:,}" for kind in kinds)


def _time(columns: dict[str, list[Any]], taken: set[str]) -> list[Line]:
    """Return where the time is, and its unit."""
    free = {path: values for path, values in columns.items() if path not in taken}
    for name in TIME:
        pattern = re.compile(name, re.IGNORECASE)
        for path, values in free.items():
            if pattern.fullmatch(last_name(path)) and (unit := _unit_of_most(values)) is not None:
                return _time_lines(path, unit, values, f"named {last_name(path)!r}, all are times as {unit}")
    for path, values in free.items():  # whatever it is named: a text in ISO 8601 is nothing else
        if _unit_of_most(values) == "iso":
            return _time_lines(path, "iso", values, "all are times in ISO 8601")
    return [Line("", "", "time: no path holds times: the record's own Kafka timestamp is taken")]


def _time_lines(path: str, unit: str, values: list[Any], reason: str) -> list[Line]:
    example = str(_present(values)[0])[:40]
    return [Line("time", _toml(path), reason), Line("time_unit", _toml(unit), f"for instance {example}")]


def _unit_of_most(values: list[Any]) -> str | None:
    """Return the unit of times that nearly all records have."""
    found = _present(values)
    return _unit(found) if found and len(found) >= SHARE_MIN * len(values) else None


def _unit(values: list[Any]) -> str | None:
    """Return the unit in which all values are times within the wire's years."""
    for unit in ("iso", "ms", "s", "us", "ns"):
        read = milliseconds_of("time", unit)
        try:
            times = [read(value if not hasattr(value, "isoformat") else value.isoformat()) for value in values]
        except Unusable:
            continue
        if times and all(EARLIEST_TS_MS <= ts < END_TS_MS for ts in times):
            return unit
    return None


def _context(columns: dict[str, list[Any]], taken: set[str]) -> list[Line]:
    """Return the context's fields, and what is left out of it."""
    fields: list[tuple[str, str]] = []
    left: list[Line] = []
    for path, values in columns.items():
        if path in taken:
            continue
        why, reason = _unfit(path, values), _told(values)
        if why is None and len(fields) >= CONTEXT_MAX - 2:
            why = f"beyond features.fields_limit, {CONTEXT_MAX} fields in all"
        if why is None:
            fields.append((path, reason))
        else:
            left.append(Line("", "", f"left out {path}: {why}"))
    if not fields:
        return [Line("", "", "context: nothing is left for it"), *left]
    entries = "\n".join(f"  {_toml(path)},  # {reason}" for path, reason in fields)
    return [Line("context", f"[\n{entries}\n]", "what else may tell"), *left]


def _told(values: list[Any]) -> str:
    found = _present(values)
    if any(type(value) is list for value in found):
        return "lists"
    return f"{len(set(map(str, found))):,} different, for instance {str(found[0])[:30]!r}" if found else ""


def _unfit(path: str, values: list[Any]) -> str | None:
    """Return why a path is no context, None where it may be."""
    found = _present(values)
    if len(found) < len(values) / 100:
        return "nearly always empty"
    if OUTCOME.search(last_name(path)):
        return "it may follow the outcome, which it must not tell: add it if it is known before"
    texts = [value for value in found if type(value) is str]
    if any(len(text.encode()) > TEXT_BYTES_MAX for text in texts):
        return f"texts beyond {TEXT_BYTES_MAX} bytes"
    if any(type(value) not in (str, int, float, bool, list) for value in found):
        return "neither texts, numbers nor lists of them"
    different = {str(value) for value in found}
    if len(different) == 1:
        return f"always {found[0]!r}"
    if len(texts) == len(found) and len(different) > max(VALUES_MAX, len(found) // 2):
        return f"{len(different):,} different texts in {len(found):,} records"
    if len(different) == len(found) and len(found) > 20 and not any(type(value) is float for value in found):
        return "different in every record"
    if _unit(found) is not None and statistics.median(map(len, map(str, found))) >= 10:
        return "times; features.hour_of_day = true takes the hour of the event's own"
    return None


def _toml(text: str) -> str:
    return (
        "'" + text + "'"
        if '"' in text and "'" not in text
        else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_toml, texts))}]"
