"""Several objectives over KuaiRand's actions: what each one's scores are worth, alone and learned together."""

import gc

from benchmarks import objectives
from benchmarks.quality.tables import Options, number, told
from benchmarks.real_logs import KUAIRAND_ACTIONS, kuairand_actions

HEADER = "| AUC / logloss | alone | together | AUC gained |\n|---|---|---|---|"


def tables(options: Options) -> str:
    """Return a line for each action: figures of a replay with it as the only positive one, and with all of them."""
    log = None if options.names and "KuaiRand" not in options.names else kuairand_actions(options.data)
    if log is None:
        return ""
    records = log.records()
    together = objectives.together(log)
    found = objectives.run(together, records).qualities
    gc.collect()
    rows = []
    for name, joint in zip(together.objectives.names, found, strict=True):
        [alone] = objectives.run(objectives.alone(log, name), records).qualities
        gc.collect()
        figures = [f"{number(each.auc or 0.0)} / {number(each.log_loss or 0.0)}" for each in (alone, joint)]
        gained = number((joint.auc or 0.0) - (alone.auc or 0.0))
        rows.append(told(" | ".join((name, *figures, gained))))
    actions = ", ".join(KUAIRAND_ACTIONS)
    return "\n".join([f"### KuaiRand: {actions}, feedback after 1 s", "", HEADER, *rows])
