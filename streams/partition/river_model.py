"""A River classifier in the learner's place: the same fold, stopped wherever a score is wanted.

    1. Fold up to an impression that is to be scored.
2. Learn each label whose window has closed since, in the order of release.
3. Give the impression the classifier's probability, and continue.

So the classifier sees each label before anything that comes after it, however the log is cut. What it learns from is
the example as it is emitted, see `ModelFeatures`. It lives outside the compiled loop, which is what it costs.
"""

import hashlib
import importlib
import pickle
import struct
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.contexts import Field, category
from thalweg.operators.edges.named_inputs import NamedInputs
from thalweg.operators.facts import Filling, Size
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.emitted import Emitted, Made
from thalweg.operators.fold.fold import close_all, complete, fold
from thalweg.operators.fold.scoring import SCORE_MIN
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.learner import BUILT_IN, LearnerConfiguration
from thalweg.operators.machine.hashing import Keys
from thalweg.schemas.kept import decode_kept
from thalweg.streams.partition.seal import KEY_VARIABLE, Seal, SignedHeader
from thalweg.streams.refusal import Refusal

PICKLE, HISTORY, VERSION, SIGNATURE = ARRAYS = ("river.pickle", "river.history", "river.version", "river.hmac")
"""A classifier's part of a snapshot, bytes all of it."""
SHA_BYTES = 32
PLACE = -1  # of a field outside the fold

Arrays = Mapping[str, npt.NDArray[Any]]


class RiverModel:
    """The classifier of a configuration, and its connection to the fold.

    Parameters
    ----------
    configuration
        The fold's; `learner.model` names the classifier.
    seal
        What its part of snapshots is signed with; None: there are none.
    arrays
        A snapshot's arrays to resume from.

    Raises
    ------
    Refusal
        There is no such classifier, or the snapshot is not one that was signed with the same key and for this place.

    """

    def __init__(self, configuration: Configuration, seal: Seal | None = None, arrays: Arrays | None = None) -> None:
        """Make the classifier or load it; the parameters are the class's."""
        self._name = configuration.learner.model
        self._seal = seal
        self._features = ModelFeatures(configuration)
        self._classifier = new_classifier(configuration.learner)
        self._history = bytes(SHA_BYTES)
        if arrays is not None:
            self._restore(arrays)

    def fold(
        self,
        state: State,
        parameters: Parameters,
        scratch: Scratch,
        columns: Columns,
        emitted: Emitted,
        first: int,
        names: list[str],
    ) -> int:
        """Fold the events from `first` on as `processor.fold` does, the classifier scoring and learning.

        Raises Refusal where the classifier fails.
        """
        learned = int(emitted.counts[Made.EXAMPLES])
        while True:
            event = fold(state, parameters, scratch, columns, emitted, first)
            learned = self._learn(emitted, learned, names)
            slot = int(emitted.counts[Made.UNSCORED]) - 1
            if slot < 0:
                return event
            text = kept_text(scratch.filling, columns, event)
            x = self._features.read(text, state.features_seen.inputs[slot].tolist(), names)
            complete(state, parameters, scratch, columns, emitted, event, self._probability(x, columns.offset[event]))
            first = event + 1

    def close_all(
        self, state: State, parameters: Parameters, scratch: Scratch, emitted: Emitted, names: list[str]
    ) -> bool:
        """Close every window as `processor.close_all` does, the classifier learning."""
        learned = int(emitted.counts[Made.EXAMPLES])
        is_done = close_all(state, parameters, scratch, emitted)
        self._learn(emitted, learned, names)
        return is_done

    def digest(self, of_state: str) -> str:
        """Return the digest of a state and of all that the classifier was taught and answered.

        What the classifier is follows from that. Its pickle would not do: equal objects have different ones.
        """
        return digest_of(of_state, self._history)

    def snapshot(self, header: SignedHeader | None = None) -> dict[str, npt.NDArray[Any]]:
        """Return the classifier's part of a snapshot, signed for a header. Raises ValueError without a seal."""
        if self._seal is None:
            raise ValueError(f"no key: a snapshot of learner.model = {self._name!r} must be signed")
        parts = (pickled(self._classifier, self._name), self._history, river_version())
        signed = (*parts, self._seal.bound(header).sign(self._name.encode(), *parts))
        return {name: np.frombuffer(part, np.uint8) for name, part in zip(ARRAYS, signed, strict=True)}

    def _restore(self, arrays: Arrays) -> None:
        if self._seal is None:
            raise Refusal(f"the snapshot holds the pickle of {self._name}, and no key to verify it with was given")
        refuse_unsigned(arrays, self._name, self._seal)
        made_by = arrays[VERSION].tobytes()
        if made_by != river_version():
            raise Refusal(
                f"the checkpoint's {self._name} was made by River {made_by.decode()}, this is "
                f"{river_version().decode()}: install that one, or rebuild from the log into another "
                "checkpoint.generation"
            )
        try:
            loaded = pickle.loads(arrays[PICKLE].tobytes())
        except Exception as error:
            raise Refusal(f"the checkpoint's {self._name} can't be loaded: {one_line(error)}") from error
        self._classifier = loaded
        self._history = arrays[HISTORY].tobytes()

    def _learn(self, emitted: Emitted, first: int, names: list[str]) -> int:
        """Learn the examples emitted from `first` on, and return how many there are."""
        count = int(emitted.counts[Made.EXAMPLES])
        for place in range(first, count):
            if not emitted.example_learned[place]:
                continue
            start, end = emitted.example_text[place].tolist()
            text = emitted.text[start:end].tobytes()
            x = self._features.read(text, emitted.example_inputs[place].tolist(), names)
            label = bool(emitted.example_label[place])
            offset = int(emitted.example_offset[place])
            try:
                self._classifier.learn_one(x, label)
            except Exception as error:
                raise self._failed("learn from", offset, error) from error
            self._remember(struct.pack("<q?", offset, label))
        return count

    def _probability(self, x: dict[str, Any], offset: int) -> float:
        """Return the classifier's probability of True, a half before it knows both labels, and never 0 or 1."""
        try:
            found = self._classifier.predict_proba_one(x)
            probability = float(found[True] if True in found else 1.0 - found.get(False, 0.5))
            if not 0.0 <= probability <= 1.0:
                raise ValueError(f"its probability is {probability}")
        except Exception as error:
            raise self._failed("score", offset, error) from error
        probability = min(max(probability, SCORE_MIN), 1.0 - SCORE_MIN)
        self._remember(struct.pack("<d", probability))
        return probability

    def _remember(self, what: bytes) -> None:
        self._history = hashlib.sha256(self._history + what).digest()

    def _failed(self, what: str, offset: int, error: Exception) -> Refusal:
        return Refusal(f"{self._name} can't {what} the impression at offset {offset}: {one_line(error)}")


def kept_text(filling: Filling, columns: Columns, event: int) -> bytes:
    """Return the text of an impression that was just read, facts that fill in included."""
    whole = int(filling.sizes[Size.WHOLE])
    if whole:
        return filling.text[:whole].tobytes()
    return columns.text[columns.text_start[event] : columns.text_end[event]].tobytes()


class ModelFeatures:
    """An example's features as a flat dict: what River's classifiers take.

    Numbers that the fold made of the past are those of the example: rates, residuals, interests, the overall log-odds.
    A list of them gives one feature an entry: `rates.tab.0`. Zeros are left out. Values of user, item, context
    and crosses are, by `learner.model_features`,

    - `indicators`: 1.0 under the name of field and bucket, `tab=17`: the bucket of a number that has edges, a
      hash of everything else, so that there are at most `learner.indicator_buckets` of a field;
    - `original`: under the field's name as they came in; of a list 1.0 for each text in it, `tag=music`.
    """

    def __init__(self, configuration: Configuration) -> None:
        """Read examples of a configuration."""
        self._inputs = NamedInputs(configuration)
        self._is_original = configuration.learner.model_features == "original"
        self._buckets = configuration.learner.indicator_buckets
        self._crosses = configuration.features.crosses
        self._edges = configuration.features.buckets
        self._seed = configuration.seed
        self._fields: dict[str, Field] = {}

    def read(self, kept: bytes, inputs: list[float], names: list[str]) -> dict[str, Any]:
        """Return the features of an impression by what is kept of it and its inputs; `names` are the fields."""
        impression = decode_kept(kept)
        values = {"user": impression.user, "item": impression.item} | impression.features
        x: dict[str, Any] = {}
        if self._is_original:
            for name, value in values.items():
                x |= {f"{name}={each}": 1.0 for each in value} if isinstance(value, list) else {name: value}
        else:
            self._add_indicators(x, values)
        for name, number in self._inputs.numbers(inputs, names).items():
            if isinstance(number, list):
                x |= {f"{name}.{place}": each for place, each in enumerate(number) if each}
            elif number:
                x[name] = number
        return x

    def _add_indicators(self, x: dict[str, Any], values: dict[str, Any]) -> None:
        first: dict[str, str] = {}
        for name, value in values.items():
            field = self._field(name)
            for each in value if isinstance(value, list) else (value,):
                bucket = category(field, each)
                if field.edges is None or isinstance(each, str):
                    bucket = field.keys[bucket] % self._buckets
                first.setdefault(name, str(bucket))
                x[f"{name}={bucket}"] = 1.0
        for one, other in self._crosses:
            if one in first and other in first:
                name = f"{one}*{other}"
                x[f"{name}={self._field(name).keys[f'{first[one]} {first[other]}'] % self._buckets}"] = 1.0

    def _field(self, name: str) -> Field:
        field = self._fields.get(name)
        if field is None:
            field = self._fields[name] = Field(PLACE, Keys(name, self._seed), self._edges.get(name))
        return field


def new_classifier(learner: LearnerConfiguration) -> Any:
    """Return the River classifier that a configuration names; what it names is called only if it is one.

    Raises Refusal where there is none of this name.
    """
    kind, _, name = learner.model.partition(":")
    assert kind == "river", "the learner is built in"
    try:
        made = _made(_named(name), learner)
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(f"learner.model = {learner.model!r} can't be made: {one_line(error)}") from error
    pickled(made, learner.model)
    return made


def _named(name: str) -> list[Any]:
    """Return what a name stands for: one's own, or a class of River's behind those of the transformers before it."""
    module, colon, own = name.rpartition(":")
    if colon:
        return [getattr(importlib.import_module(module), own)]
    return [_in_river(part.strip()) for part in name.split("|")]


def _in_river(name: str) -> Any:
    """Return a class of River by its name in it."""
    module, _, last = name.rpartition(".")
    found = importlib.import_module(f"river.{module}" if module else "river")
    return getattr(found, last)


def _made(named: Sequence[Any], learner: LearnerConfiguration) -> Any:
    """Return the classifier that is named, or that a named class makes, behind transformers."""
    from river import base

    *before, last = named
    for each in before:
        if not (isinstance(each, type) and issubclass(each, base.Transformer)):
            raise Refusal(f"learner.model = {learner.model!r}: {named_as(each)} is no transformer of River's")
    _refuse_other(_last_step(last), learner.model)
    if not isinstance(last, type):
        if learner.model_arguments:
            raise Refusal("learner.model names a model that is made already: it takes no learner.model_arguments")
        return last.clone()
    made = last(**learner.model_arguments)
    for transformer in reversed(before):
        made = transformer() | made
    return made


def _last_step(what: Any) -> Any:
    """Return the last step of a pipeline, and anything else as it is."""
    from river import compose

    while isinstance(what, compose.Pipeline) and what.steps:
        what = list(what.steps.values())[-1]
    return what


def _refuse_other(what: Any, model: str) -> None:
    """Raise Refusal where something is no classifier of River's that gives probabilities, made or still to be made."""
    from river import base

    form = what if isinstance(what, type) else type(what)
    if not issubclass(form, base.Classifier):
        raise Refusal(
            f"learner.model = {model!r} is no River classifier, but {named_as(what)}: name a subclass of "
            "river.base.Classifier, or a model that is made"
        )
    if form.predict_proba_one is base.Classifier.predict_proba_one:
        raise Refusal(f"learner.model = {model!r} gives no probabilities: choose a classifier that does")


def named_as(what: Any) -> str:
    """Return what a message calls an object: the name of a class or function, and of all else that of its class."""
    return str(getattr(what, "__name__", type(what).__name__))


def pickled(classifier: Any, name: str) -> bytes:
    """Return a classifier's pickle. Raises Refusal where it has none."""
    try:
        return pickle.dumps(classifier, 5)
    except Exception as error:
        raise Refusal(f"learner.model = {name!r} can't be pickled, as a checkpoint does: {one_line(error)}") from error


def river_version() -> bytes:
    """Return River's version: a pickle of one is not promised to mean the same in another."""
    return version("river").encode()


def refuse_unsigned(arrays: Arrays, name: str, seal: Seal) -> None:
    """Raise Refusal where a snapshot's classifier was not signed under a key; nothing of it is looked at before."""
    parts = [arrays[each].tobytes() if each in arrays else b"" for each in ARRAYS]
    if not seal.verifies(parts.pop(), name.encode(), *parts):
        raise Refusal(
            f"the checkpoint's {name} was not signed with this key for this topic, partition, offset and state, so it "
            f"is not loaded: set {KEY_VARIABLE} as it was, or rebuild from the log into another checkpoint.generation"
        )


def without_model(arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a snapshot that are the fold's own state."""
    return {name: array for name, array in arrays.items() if name not in ARRAYS}


def digest_of(of_state: str, history: bytes) -> str:
    """Return the digest of a state and a classifier's history."""
    return hashlib.sha256(of_state.encode() + history).hexdigest()


def digest_in(of_state: str, model: str, arrays: Arrays) -> str:
    """Return the digest of a snapshot whose state has this one; nothing is loaded. Raises ValueError if it has none."""
    if model == BUILT_IN:
        return of_state
    if HISTORY not in arrays:
        raise ValueError(f"it holds no {model}")
    return digest_of(of_state, arrays[HISTORY].tobytes())


def one_line(error: BaseException) -> str:
    """Return an error's name and text on one line, and not a long one."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
