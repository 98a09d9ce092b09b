"""River classifiers of one's own, as `learner.model = "river:tests.streams.partition.river_models:NAME"` names them."""

from typing import Any

from river import base, linear_model, preprocessing


class Recorder(base.Classifier):  # type: ignore[misc]
    """Gives one probability, and keeps what it was asked and taught."""

    last: "Recorder"

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = probability
        self.calls: list[tuple[str, dict[str, Any], bool | None]] = []
        Recorder.last = self

    def learn_one(self, x: dict[str, Any], y: bool) -> None:
        self.calls.append(("learn", x, y))

    def predict_proba_one(self, x: dict[str, Any]) -> dict[bool, float]:
        self.calls.append(("score", x, None))
        return {True: self.probability}


class Undecided(Recorder):
    """Gives a probability that is none; no configuration may hold one."""

    def __init__(self) -> None:
        super().__init__(float("nan"))


class Mean(base.Classifier):  # type: ignore[misc]
    """Gives the mean of the labels."""

    def __init__(self) -> None:
        self.counts = [1, 1]

    def learn_one(self, x: dict[str, Any], y: bool) -> None:
        self.counts[y] += 1

    def predict_proba_one(self, x: dict[str, Any]) -> dict[bool, float]:
        return {False: self.counts[0] / sum(self.counts)}


class Failing(Mean):
    """Fails at the first label."""

    def learn_one(self, x: dict[str, Any], y: bool) -> None:
        raise RuntimeError("out\nof order")


class Silent(base.Classifier):  # type: ignore[misc]
    """Knows labels, but no probabilities."""

    def learn_one(self, x: dict[str, Any], y: bool) -> None:
        pass

    def predict_one(self, x: dict[str, Any]) -> bool:
        return True


class Unpicklable(Mean):
    """Has a part that no pickle can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.part = lambda: None


CALLS: list[str] = []


def make() -> base.Classifier:
    """Make a classifier, which nobody may have it do."""
    CALLS.append("make")
    return Mean()


scaler = preprocessing.StandardScaler() | preprocessing.StandardScaler()
scaled = preprocessing.StandardScaler() | linear_model.LogisticRegression(l2=0.01)
