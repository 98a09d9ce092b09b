"""Objectives: several actions that are learned together, each with its probability.

The first objective is the one that `[joiner]` names where there are no others. Each further one is a *head*
(`operators.heads`): it shares rows, latent vectors and the network's layers with the first.
"""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

from thalweg.operators.joiner import JoinerConfiguration
from thalweg.schemas.bounds import FACTOR_MAX, FREE_NAMES, MS_MAX, SHARE_MIN, check, within

OBJECTIVES_MAX = 8
"""A feedback has a bit for each objective that its action is a positive of."""
Weight = Literal["none", "value"]
NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
TERM = re.compile(r"\s*([+-]?)\s*(?:([\d.]+(?:[eE][+-]?\d+)?)\s*\*\s*)?([A-Za-z_]\w*)\s*", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfiguration:
    """One objective (`[objectives.NAME]`).

    `actions`: the actions that are positives of it. `window_ms`: how long after the impression they count. `weight`:
    "value" lets a feedback's `value` weigh its positive, such as a price or a watch time; "none": each weighs 1.
    `weight_max`: a value weighs no more.
    """

    actions: tuple[str, ...] = ()
    window_ms: Annotated[int, within(1, MS_MAX)] = 600_000
    weight: Weight = "none"
    weight_max: Annotated[float, within(SHARE_MIN, FACTOR_MAX)] = 10.0

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds, or no action is named."""
        check(self)
        if not self.actions or not all(self.actions) or len(set(self.actions)) < len(self.actions):
            raise ValueError('actions must name the positive actions, each once, as in actions = ["click"]')


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectivesConfiguration:
    """Actions that are learned together, each with its probability (`[objectives]`).

    `NAME`: each other key is an objective, such as `click = {actions = ["click"], window_ms = 600000}`. The first one
    takes the place of `joiner.positive_actions` and `joiner.attribution_window_ms`. With several, scores have the
    probability of each. `order`: what scores and rankings go by, such as "click + 20 * purchase - 5 * hide"; by default
    the probability of the first objective.
    """

    order: str = ""
    named: Annotated[dict[str, ObjectiveConfiguration], FREE_NAMES] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError where a name is none, objectives are too many or the same, or the order is none."""
        for name in self.named:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"the objective {name!r} must have a name of letters, digits and _, so that order can name it"
                )
        if len(self.named) > OBJECTIVES_MAX:
            raise ValueError(f"there are {len(self.named)} objectives, at most {OBJECTIVES_MAX}")
        meanings = [(frozenset(each.actions), each.window_ms) for each in self.named.values()]
        if len(set(meanings)) < len(meanings):
            twice = next(name for name, mine in zip(self.named, meanings, strict=True) if meanings.count(mine) > 1)
            raise ValueError(f"the objective {twice!r} has the actions and the window of another one")
        if self.order or self.named:
            weights_of(self.order, self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The first objective, and the others by their names: in which order a file has those makes no difference."""
        first, *others = self.named or ("",)
        return (first, *sorted(others)) if self.named else ()

    @property
    def heads(self) -> tuple[ObjectiveConfiguration, ...]:
        """All objectives but the first, in the order of `names`."""
        return tuple(self.named[name] for name in self.names[1:])

    @property
    def several(self) -> tuple[str, ...]:
        """The names of several objectives, none where there is one."""
        return self.names if self.heads else ()

    @property
    def is_weighed(self) -> bool:
        """Whether values weigh positives of any objective."""
        return any(each.weight == "value" for each in self.named.values())

    @property
    def is_joint(self) -> bool:
        """Whether there is more than one label that weighs 1 to learn."""
        return len(self.named) > 1 or self.is_weighed

    def weights_max(self) -> list[float]:
        """Return how much a value may weigh for each objective, 0 where it weighs nothing."""
        every = [self.named[name] for name in self.names]
        return [each.weight_max if each.weight == "value" else 0.0 for each in every] or [0.0]

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the joiner's arrays for several objectives, and for what positives weigh."""
        heads, is_weighed = len(self.heads), self.is_weighed
        windows = {each.window_ms for each in self.named.values()}
        sizes = {"heads": heads, "stages": int(heads > 0), "closings_most": max(0, len(windows) - 1)}
        return sizes | {"valued": int(is_weighed), "weighed": (heads + 1) * is_weighed}

    def order_weights(self) -> tuple[float, ...]:
        """Return what each objective's probability is multiplied by in the order."""
        return weights_of(self.order, self.names) if self.named else (1.0,)

    def joined(self, joiner: JoinerConfiguration) -> JoinerConfiguration:
        """Return the joiner's section with the first objective in it.

        Raises ValueError where it names other actions or another window.
        """
        if not self.named:
            return joiner
        first, plain = self.named[self.names[0]], JoinerConfiguration()
        for key, own in (("positive_actions", first.actions), ("attribution_window_ms", first.window_ms)):
            given = getattr(joiner, key)
            if given not in (own, getattr(plain, key)):
                raise ValueError(
                    f"joiner.{key} is not that of the first of the objectives, {self.names[0]}: leave it out"
                )
        if joiner.attribution_window_ms_by_action:
            raise ValueError("joiner.attribution_window_ms_by_action is not for objectives: each has its own window_ms")
        return replace(joiner, positive_actions=first.actions, attribution_window_ms=first.window_ms)


class Acted(NamedTuple):
    """What an action is: a bit for each objective that it is a positive of, and until when it counts.

    `weighs`: a feedback's value weighs for any of them.
    """

    objectives: int
    window_ms: int
    weighs: bool = False


class Actions(dict[str, Acted]):
    """What each positive action is; any other is a positive of nothing, and counts until the last window closes."""

    @cached_property
    def other(self) -> Acted:
        """What an action is that no objective names."""
        return Acted(0, max(each.window_ms for each in self.values()))

    def __missing__(self, action: str) -> Acted:
        """Return what an action is that no objective names."""
        return self.other


def actions_of(joiner: JoinerConfiguration, objectives: ObjectivesConfiguration) -> Actions:
    """Return what each action is.

    >>> click = ObjectiveConfiguration(actions=("click",))
    >>> buy = ObjectiveConfiguration(actions=("click", "buy"), window_ms=9, weight="value")
    >>> actions_of(JoinerConfiguration(), ObjectivesConfiguration(named={"click": click, "buy": buy}))["click"]
    Acted(objectives=3, window_ms=600000, weighs=True)
    """
    weighs = bool(objectives.weights_max()[0])
    found = Actions({action: Acted(1, window_ms, weighs) for action, window_ms in joiner.windows_ms().items()})
    for number, head in enumerate(objectives.heads, 1):
        for action in head.actions:
            before, weighs = found.get(action, Acted(0, 0)), head.weight == "value"
            window_ms = max(before.window_ms, head.window_ms)
            found[action] = Acted(before.objectives | 1 << number, window_ms, before.weighs or weighs)
    return found


def weights_of(order: str, names: Sequence[str]) -> tuple[float, ...]:
    """Return the weight of each objective in an order; one that it does not name has 0.

    Raises ValueError where it is no sum of objectives.

    >>> weights_of("click + 20 * purchase - .5*hide", ["click", "hide", "purchase"])
    (1.0, -0.5, 20.0)
    """
    if not names:
        raise ValueError('order is of objectives, and there are none: name them, as in click = {actions = ["click"]}')
    if not order:
        return (1.0, *(0.0 for _ in names[1:]))
    found: dict[str, float] = {}
    at = 0
    while at < len(order) or not found:
        term = TERM.match(order, at)
        if term is None or (found and not term[1]):
            rest = order[at:].strip() or "nothing"
            raise ValueError(f'order must be a sum such as "click + 20 * purchase": {rest!r} is no term of one')
        sign, number, name = term.groups()
        if name not in names:
            near = difflib.get_close_matches(name, names, 1, 0.5)
            known = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise ValueError(f"order names {name!r}, which is no objective: {known}")
        if name in found:
            raise ValueError(f"order names {name} twice")
        found[name] = _number(number) * (-1.0 if sign == "-" else 1.0)
        at = term.end()
    return tuple(found.get(name, 0.0) for name in names)


def _number(text: str | None) -> float:
    try:
        number = 1.0 if text is None else float(text)
    except ValueError:
        raise ValueError(f"order has {text!r}, which is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"order has {text}, which no number is as large as")
    return number
