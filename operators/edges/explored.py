"""Rankings that explore: what a policy chose among the candidates of a request, as an answer."""

import numpy as np
import numpy.typing as npt
from thalweg.operators import policies
from thalweg.operators.edges.requests import Answered, Asked, parts_of, shown_of, with_scores
from thalweg.operators.fold.emitted import Emitted, Ranked
from thalweg.operators.policies import Candidates, Parameters, Policy
from thalweg.schemas.events import POLICY_NAMES, Request
from thalweg.schemas.outputs import RankedItem, Ranking

RequestKeys = tuple[int, npt.NDArray[np.uint64]]
"""The key of a request's id, and those of its candidates' items."""


def explored_answer_of(
    request: Request, asked: Asked, emitted: Emitted, entries: slice, origin: str, policy: Parameters, keys: RequestKeys
) -> Answered:
    """Return the answer under a policy to a request whose candidates are these entries of `emitted`.

    What the request excludes, and what it drops because the user acted on it, is no candidate: it has no probability.
    Caps hold at each place, for what is left. `top` only cuts the answer.
    """
    shown = np.flatnonzero(shown_of(request, asked, emitted, entries))
    numbers = emitted.ranked[entries][shown]
    items = [asked.items[place] for place in shown.tolist()]
    scores = np.ascontiguousarray(numbers[:, Ranked.SCORE])
    candidates = Candidates(
        logits=scores if asked.is_score else policies.logits_of(scores),
        exposures=np.ascontiguousarray(numbers[:, Ranked.EXPOSURES]),
        keys=keys[1][shown],
        repeats=repeats_of(items),
        capped=emitted.ranked_keys[entries][shown],
    )
    top = len(items) if request.top is None else request.top
    caps = np.fromiter(request.at_most.values(), np.int64, len(request.at_most))
    chosen = policies.choose(policy, keys[0], candidates, top, caps)
    found = []
    order = chosen.candidate[: chosen.size[0]]
    for place, candidate in enumerate(order.tolist()):
        propensity = float(chosen.propensity[place])
        if policy.policy == Policy.THOMPSON and place == 0:
            propensity = float(chosen.first[candidate])
        own = numbers[candidate].tolist()
        item = RankedItem(
            items[candidate],
            own[Ranked.SCORE],
            model_score=own[Ranked.MODEL] if request.explain else None,
            correction=own[Ranked.CORRECTION] if request.explain else None,
            parts=parts_of(own) if request.explain else None,
            probability=float(chosen.first[candidate]),
            propensity=propensity if propensity == propensity else None,
        )
        found.append(item)
    if asked.objectives:
        found = with_scores(found, asked, emitted.ranked_scores[entries][shown[order]].tolist())
    ranking = Ranking(
        id=request.id,
        user=request.user,
        ts=request.ts,
        policy=POLICY_NAMES[policy.policy],  # type: ignore[arg-type]
        items=found,
        refused=asked.refused,
        origin=origin,
        cause=f"{origin}:0",
    )
    return Answered(ranking, shown[order])


def repeats_of(items: list[str]) -> npt.NDArray[np.int64]:
    """Return how many before each item are the same, int64 [items].

    >>> repeats_of(["a", "b", "a", "a"]).tolist()
    [0, 0, 1, 2]
    """
    repeats = np.zeros(len(items), np.int64)
    if len(set(items)) < len(items):
        counts: dict[str, int] = {}
        for place, item in enumerate(items):
            repeats[place] = counts.get(item, 0)
            counts[item] = counts.get(item, 0) + 1
    return repeats
