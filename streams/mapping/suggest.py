"""A `[mapping]` for a foreign file, guessed from names and values of its first records, with a reason a line."""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

from thalweg.schemas.events import EARLIEST_TS_MS, END_TS_MS
from thalweg.schemas.mapper import milliseconds_of
from thalweg.schemas.paths import parse
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
USER += ("(profile|subscriber|buyer|shopper|reader|listener|player|viewer|person)_?id", "email", "session_?id")
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
ITEM += ("(song|news|story|document|doc|offer|goods|game|book|recipe|course|job|ad|campaign)_?id",)
ITEM += ("(product|item)_?(code|number|no)", "ean|gtin|upc|isbn")
TIME: tuple[str, ...] = (
    "(event_?)?time_?stamp(_?(ms|us|micros))?",
    "(event_?)?time(_?ms)?",
    "ts",
    "collector_tstamp",
    "derived_tstamp",
)
TIME += ("created_?at", "occurred_?at", "date_?time", "date", "sent_?at", ".*tstamp", ".*time.*")
TIME += ("at", "when", "t", "epoch.*")
TYPE: tuple[str, ...] = (
    "event_?name",
    "event_?type",
    "event",
    "(.*_)?action(_?type|_?name)?",
    "kind",
    "verb",
    "activity(_?type)?",
    "behaviou?r(_?type)?",
    "interaction(_?type)?",
    "type",
    ".*type",
)
ID: tuple[str, ...] = ("event_?id", "message_?id", "insert_?id", "uuid", "id")
IMPRESSION: tuple[str, ...] = (".*impression_?id", "impression", "view_?id", "view", "exposure_?id", "request_?id")
SHOWN = re.compile(r"view|impression|^imp$|shown?$|display|exposure|^pv$|recommend|serve|^pageview$", re.IGNORECASE)
DONE = re.compile(
    r"click|^tap|cart|basket|buy|bought|purchase|transaction|order|checkout|like|fav|wishlist|save|play|watch|rat(e|ing)"
    r"|select|share|book|subscri",
    re.IGNORECASE,
)
OUTCOME = re.compile(
    r"click|purchase|label|target|conver|dwell|watch_?time|play_?time|transaction|order_?id", re.IGNORECASE
)
ACTIONS = {
    "click|select|^tap": "click",
    "cart|basket": "cart",
    "buy|bought|purchase|transaction|order": "purchase",
    "like|fav": "like",
}
KINDS_MAX = 100
FLAGS = ({"0", "1"}, {"true", "false"})
LIKE_TIME = re.compile(r"time|date|_at$|stamp", re.IGNORECASE)
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

    kind = _kinds(columns, taken)
    time = _time(columns, taken)
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


@cache
def last_name(path: str) -> str:
    """Return the name that tells most in a path.

    >>> last_name("user.id"), last_name("p[key=page_id].value.string_value"), last_name("items.0.sku")
    ('user_id', 'page_id', 'sku')
    >>> last_name('"User ID"'), last_name('"event.time"')
    ('User_ID', 'event_time')
    """
    keyed = re.findall(r"\[key=([^\]]+)\]", path)
    if keyed:
        return str(keyed[-1])
    names = [part.name for part in parse(path)[0] if not part.name.isdigit()]
    names = [re.sub(r"\W+", "_", name).strip("_") for name in names] or [path]
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


def _kinds(columns: dict[str, list[Any]], taken: set[str]) -> list[Line]:
    """Return the lines that define what a record is; its path is then taken."""

    def few(values: list[Any]) -> str | None:
        found = _present(values)
        kinds = set(map(str, found)) if _are_ids(found) else set()
        is_text = any(type(value) is str and not value.isdigit() for value in found)
        fits = len(found) >= SHARE_MIN * len(values) and 2 <= len(kinds) <= KINDS_MAX and is_text
        return f"{len(kinds)} kinds" if fits else None

    # A path whose kinds speak of what was shown and done, then one of what was shown, then one that is named like it.
    telling = {path: values for path, values in columns.items() if tells_outcomes(values)}
    speaking = {path: values for path, values in columns.items() if any(map(SHOWN.search, _kinds_of(values)))}
    guess = _best(telling, TYPE, few) or _best(speaking, TYPE, few) or _best(columns, TYPE, few)
    if guess is None:
        return [Line("", "", "type: no path says what a record is: all are impressions"), *_labels(columns)]
    taken.add(guess.path)
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


def _kinds_of(values: list[Any]) -> set[str]:
    """Return the different values of a path with few of them, as texts; none of one with many."""
    found = {value for value in values if type(value) is str}
    return found if len(found) <= KINDS_MAX else set()


def tells_outcomes(values: list[Any]) -> bool:
    """Return whether the values of a path say of some records that an item was shown, and of others what was done.

    >>> tells_outcomes(["view", "cart", "view"]), tells_outcomes(["home", "search"])
    (True, False)
    """
    kinds = _kinds_of(values)
    shown = {kind for kind in kinds if SHOWN.search(kind)}
    return bool(shown) and any(DONE.search(kind) for kind in kinds - shown)


def _labels(columns: dict[str, list[Any]]) -> list[Line]:
    """Return a remark where columns look like labels: a mapping has no feedback then."""
    found = [path for path, values in columns.items() if _is_outcome(path, values) and _are_flags(values)]
    if not found:
        return []
    told = "is the label" if len(found) == 1 else "are labels"
    return [
        Line("", "", f"{', '.join(found)} {told} of its row: a table of such rows needs no mapping, but"),
        Line("", "", f"  thalweg import TABLE --user … --item … --time … --label {found[0]} --context …"),
    ]


def _are_flags(values: list[Any]) -> bool:
    return {str(value).lower() for value in _present(values)} in FLAGS


def _is_outcome(path: str, values: list[Any]) -> bool:
    """Return whether the values of a path may tell the outcome of an impression."""
    name = last_name(path)
    return bool(OUTCOME.search(name) or (DONE.search(name) and _are_flags(values)) or tells_outcomes(values))


def _action(kind: str) -> str:
    for pattern, action in ACTIONS.items():
        if re.search(pattern, kind, re.IGNORECASE):
            return action
    return re.sub(r"\W+", "_", kind.strip().lower())


def _counted(kinds: list[str], counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {counts[kind]:,}" for kind in kinds)


def _time(columns: dict[str, list[Any]], taken: set[str]) -> list[Line]:
    """Return where the time is, and its unit; its path is then taken."""
    free = {path: values for path, values in columns.items() if path not in taken}
    for name in TIME:
        pattern = re.compile(name, re.IGNORECASE)
        for path, values in free.items():
            if pattern.fullmatch(last_name(path)) and (unit := _unit_of_most(values)) is not None:
                taken.add(path)
                return _time_lines(path, unit, values, f"named {last_name(path)!r}, all are times as {unit}")
    for path, values in free.items():  # whatever it is named: a text in ISO 8601 is nothing else
        if _unit_of_most(values) == "iso":
            taken.add(path)
            return _time_lines(path, "iso", values, "all are times in ISO 8601")
    missing = "time: no path holds times: name it here, time = …; without it the Kafka record's own timestamp is taken"
    return [Line("", "", missing), *_unread_times(free, taken)]


def _unread_times(columns: dict[str, list[Any]], taken: set[str]) -> list[Line]:
    """Return a remark for each path that is named like a time, and has none that can be read; it is then taken."""
    lines = []
    for path, values in columns.items():
        found = _present(values)
        if LIKE_TIME.search(last_name(path)) and found and any(map(str.isdigit, str(found[0]))):
            taken.add(path)
            shown = str(found[0])[:40]
            lines.append(Line("", "", f"{path} may be a time, but {shown!r} can't be read: write numbers or ISO 8601"))
    return lines


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
    if _is_outcome(path, values):
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
