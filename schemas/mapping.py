"""The section `[mapping]`: where the fields of our events are in a foreign record."""

import re
from dataclasses import dataclass, field, fields

from thalweg.schemas.paths import parse

AVRO = "avro"
CODECS = ("json", AVRO, "cloudevents")
TIME_UNITS = ("s", "ms", "us", "ns", "iso")
LEAVE_OUT, CATEGORY, NUMBER = "leave out", "category", "number"
REST = "*"
_NAMED = re.compile(r"([\w\-]+)\s*=\s*(.+)")
_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True, kw_only=True, slots=True)
class MappingConfiguration:
    """The section `[mapping]`: where the fields of our events are in the records of another system.

    Paths have dots between names, and quotes around a name that has a dot:

    - `user.id`, `items.0.sku`;
    - `tags.*`: each member of a list;
    - `params[key=page].value`: the member of a list whose field has this value;
    - `a|b`: the first that is there.

    A record without what is needed is a dead letter, with its bytes untouched.

    Raises ValueError where a path is none, or keys contradict each other.
    """

    codec: str = "json"
    """What a record's bytes are: `json`; `avro`, Confluent's wire format; or `cloudevents`, in structured or binary
    mode. Without `user` the record has our own fields."""
    registry: str = ""
    """URL of the schema registry of `avro`; THALWEG_REGISTRY_USERNAME and THALWEG_REGISTRY_PASSWORD have the login."""
    type: str = ""
    """Path of the value that gives a record's kind; empty: all are impressions."""
    impressions: tuple[str, ...] = ()
    """Values of `type` that are impressions."""
    feedback: dict[str, str] = field(default_factory=dict)
    """Values of `type` that are feedback, each with its action."""
    requests: tuple[str, ...] = ()
    """Values of `type` that are requests."""
    erase: tuple[str, ...] = ()
    """Values of `type` that ask to forget the user."""
    facts: tuple[str, ...] = ()
    """Values of `type` that are facts: about the item if the record has an item and no user, else about the user. The
    fields are those of the context; null is left out, so it removes nothing."""
    ignore: tuple[str, ...] = ()
    """Values of `type` that are left alone, with the fate `ignored`; `*` is every value that is not named, and none at
    all."""
    id: str = ""
    """Path of the event's id; empty: it is made from the record's origin."""
    impression: str = ""
    """Path of the impression's id, in feedback and in impressions; one that has nothing there has the `id`."""
    request: str = ""
    """Path of the id of the request that an impression answers, or that showed the item of a feedback."""
    user: str = ""
    """Path of the user's id. The mapping is on where this is given."""
    item: str = ""
    """Path of the item's id."""
    candidates: str = ""
    """Path of the list of items in a request."""
    shown: str = ""
    """Path of how many items of the answer a request shows; one that has nothing there only asks."""
    time: str = ""
    """Path of the event's time; empty: the Kafka record's own timestamp."""
    time_unit: str = "ms"
    """Unit of the time: `s`, `ms`, `us` or `ns` since 1970, or `iso` for ISO 8601 (UTC where it has no zone)."""
    context: tuple[str, ...] = ()
    """Paths of the context's fields, each `path` or `name = path`; `*` is everything but what the other keys name."""
    context_except: tuple[str, ...] = ()
    """Paths that `*` leaves out, with all below them."""
    base_score: str = ""
    """Path of a slower model's probability."""
    value: str = ""
    """Path of a feedback's value."""
    nulls: str = LEAVE_OUT
    """What null in a context becomes: `leave out`, or `category` for the text `null`."""
    booleans: str = CATEGORY
    """What true and false in a context become: `category` for texts, `number` for 1 and 0, or `leave out`."""

    @property
    def is_on(self) -> bool:
        """Whether records are anything but our own events in JSON."""
        return bool(self.user) or self.codec != CODECS[0]

    def named_context(self) -> list[tuple[str, str]]:
        """Return the context's fields as (name, path), `*` left out.

        >>> MappingConfiguration(user="u", item="i", context=("a.b", '"c.d"', "tab = p[key=tab].value")).named_context()
        [('a.b', 'a.b'), ('c.d', '"c.d"'), ('tab', 'p[key=tab].value')]
        """
        named = [
            found.groups() if (found := _NAMED.fullmatch(each)) else (_QUOTED.sub(r"\1", each), each)
            for each in self.context
        ]
        return [(name, path) for name, path in named if path != REST]

    def paths(self) -> list[str]:
        """Return the paths of all but the context."""
        single = (self.type, self.id, self.impression, self.request, self.user, self.item, self.candidates, self.shown)
        return [path for path in (*single, self.time, self.base_score, self.value) if path]

    def __post_init__(self) -> None:
        """Raise ValueError where a value makes no sense."""
        self._check_choices()
        self._check_registry()
        if not self.user:
            given = [
                each.name
                for each in fields(self)
                if getattr(self, each.name) and each.default in ("", ()) and each.name != "registry"
            ]
            if given or self.feedback:
                raise ValueError(f"user is missing: {(given or ['feedback'])[0]} belongs to a mapping, which names it")
            return
        if not self.item and (self.impressions or self.feedback or not self.type):
            raise ValueError("item is missing: impressions and feedback have one")
        for path in (*self.paths(), *(path for _, path in self.named_context()), *self.context_except):
            parse(path)
        names = [name for name, _ in self.named_context()]
        if len(set(names)) < len(names):
            raise ValueError("context has a name twice: give one of the paths another, as name = path")
        if self.context_except and REST not in self.context:
            raise ValueError('context_except leaves paths out of context = ["*"]')
        self._check_values()

    def _check_choices(self) -> None:
        choices = {
            "codec": CODECS,
            "time_unit": TIME_UNITS,
            "nulls": (LEAVE_OUT, CATEGORY),
            "booleans": (CATEGORY, NUMBER, LEAVE_OUT),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}")

    def _check_registry(self) -> None:
        if (self.codec == AVRO) != bool(self.registry):
            raise ValueError("registry is the URL of the schema registry: codec avro needs one, and nothing else does")
        if self.registry and not re.fullmatch(r"https?://[^@\s]+", self.registry):
            raise ValueError("registry must be a URL, http://… or https://…, without a user or a password in it")

    def _check_values(self) -> None:
        values = [*self.impressions, *self.feedback, *self.requests, *self.erase, *self.facts, *self.ignore]
        if values and not self.type:
            raise ValueError(f"type is missing: the path whose value may be {values[0]!r}")
        if self.type and not values:
            raise ValueError("type has no values: name them in impressions, feedback, ignore")
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise ValueError(f"{twice!r} is named twice among impressions, feedback, requests, erase, facts and ignore")
        if not all(self.feedback.values()):
            raise ValueError("feedback has a value without an action")
        if self.requests and not self.candidates:
            raise ValueError("candidates is missing: the path of a request's items")
