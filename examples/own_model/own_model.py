"""Somebody else's model, corrected: its probabilities go on the events as `base_score`, Thalweg corrects them.

python examples/own_model/own_model.py [--model river|vw] [--log LOG] [--config TOML] [--out SCORED.jsonl]

The model learns from the first half of a log and is frozen, as one that was trained last night. The second half gets
its probabilities and goes through the fold. By default the log is the shipped sample of KuaiRand.

To try a model of your own: write a class with `learn` and `predict` like the two below, and add it to MODELS.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from thalweg.schemas.records import LogRecord
from thalweg.streams.configuration.loading import load
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.writer import LogWriter
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.tally import Quality, Tally

ROOT = Path(__file__).parent.parent.parent
SAMPLE = ROOT / "examples" / "kuairand" / "kuairand_sample.jsonl.gz"
CONFIG = ROOT / "examples" / "kuairand" / "thalweg.toml"

Event = dict[str, Any]


class Model(Protocol):
    """What is asked of a model: that it learns from impressions with their labels, and gives probabilities."""

    def learn(self, impression: Event, label: bool) -> None:
        """Learn from an impression and whether it was clicked."""

    def predict(self, impression: Event) -> float:
        """Return the probability that an impression is clicked."""


class River:
    """River's logistic regression over user, item and every value of the context."""

    def __init__(self) -> None:
        """Start untrained."""
        from river import linear_model, optim

        self._model = linear_model.LogisticRegression(optim.AdaGrad(0.1))

    def learn(self, impression: Event, label: bool) -> None:
        """Take one step."""
        self._model.learn_one(dict.fromkeys(values_of(impression), 1.0), label)

    def predict(self, impression: Event) -> float:
        """Ask; River's answer has a probability for each label."""
        answer: dict[bool, float] = self._model.predict_proba_one(dict.fromkeys(values_of(impression), 1.0))
        return answer[True]


class VowpalWabbit:
    """Vowpal Wabbit over the same values, each under its own name."""

    def __init__(self) -> None:
        """Start untrained; `pip install vowpalwabbit` brings it."""
        from vowpalwabbit import Workspace

        self._model = Workspace("--quiet --loss_function logistic --link logistic -b 22 --random_seed 1")

    def learn(self, impression: Event, label: bool) -> None:
        """Take one step."""
        self._model.learn(f"{1 if label else -1} {self._line(impression)}")

    def predict(self, impression: Event) -> float:
        """Ask."""
        return float(self._model.predict(self._line(impression)))

    def _line(self, impression: Event) -> str:
        return "| " + " ".join(value.translate(_PLAIN) for value in values_of(impression))


_PLAIN = str.maketrans({" ": "_", ":": "_", "|": "_"})
MODELS: dict[str, type[Model]] = {"river": River, "vw": VowpalWabbit}


class Outcome(NamedTuple):
    """Quality over the second half: of the frozen model, of its corrected scores, of Thalweg's own from nothing."""

    frozen: Quality
    corrected: Quality
    own: Quality


def values_of(impression: Event) -> Iterator[str]:
    """Give what an impression says as names with values: `user=12`, `tag=music`."""
    for name, value in {"user": impression["user"], "item": impression["item"], **impression["context"]}.items():
        for each in value if isinstance(value, list) else (value,):
            yield f"{name}={each}"


def halves(events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """Cut a log in the middle of its impressions; a feedback goes with its impression."""
    ids = [event["id"] for event in events if event["type"] == "impression"]
    first = set(ids[: len(ids) // 2])
    early, late = [], []
    for event in events:
        which = event["id"] if event["type"] == "impression" else event["impression"]
        (early if which in first else late).append(event)
    return early, late


def trained(model: Model, events: Iterable[Event]) -> Model:
    """Let a model learn a log's impressions in their order, and freeze it."""
    events = list(events)
    clicked = {event["impression"] for event in events if event["type"] == "feedback"}
    for event in events:
        if event["type"] == "impression":
            model.learn(event, event["id"] in clicked)
    return model


def with_base_scores(model: Model, events: Iterable[Event]) -> Iterator[Event]:
    """Give a log's events, each impression with the model's probability as its `base_score`."""
    for event in events:
        yield event | {"base_score": model.predict(event)} if event["type"] == "impression" else event


def corrected(events: Iterable[Event], config: Path | None) -> Outcome:
    """Fold a log with base scores and correct these, as `thalweg replay` does with `correction.base=base_score`."""
    configuration = load(config, environment={}, flags=["correction.base=base_score"]).configuration
    partition = Partition(configuration, tally=(tally := Tally()), examples=False)
    partition.process([LogRecord(number, json.dumps(event).encode()) for number, event in enumerate(events)])
    partition.close_all()
    final, own, base = tally.qualities()
    return Outcome(base, final, own)


def read_events(log: str) -> list[Event]:
    """Return the events of a log."""
    with LogReader(log, block_lines=10_000) as reader:
        return [json.loads(record.value or b"") for block in reader for record in block]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, freeze, score, correct, and print how good the scores were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="river")
    parser.add_argument("--log", default=str(SAMPLE), help="events, .jsonl, .jsonl.gz or .jsonl.zst")
    parser.add_argument("--config", type=Path, default=CONFIG, help="how Thalweg reads them")
    parser.add_argument("--out", help="write the second half with its base scores to this log")
    options = parser.parse_args(arguments)
    first, second = halves(read_events(options.log))
    scored = list(with_base_scores(trained(MODELS[options.model](), first), second))
    if options.out:
        with LogWriter(options.out) as log:
            log.write("".join(f"{json.dumps(event)}\n" for event in scored).encode())
    outcome = corrected(scored, options.config)
    print(f"{'':34}{'AUC':>8}{'log loss':>10}")
    names = (f"{options.model}, frozen", "  corrected by Thalweg", "Thalweg's own model, from nothing")
    for name, quality in zip(names, outcome, strict=True):
        print(f"{name:34}{quality.auc:>8.4f}{quality.log_loss:>10.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
