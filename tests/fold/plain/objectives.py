"""Several objectives of an impression: labels that close by themselves, and one step of all that close together."""

import math
from typing import Any

import numpy as np
from thalweg.operators.configuration import Configuration

from tests.fold.plain.cross import Cross
from tests.fold.plain.delay import Delays
from tests.fold.plain.fold import Plain, Slot
from tests.fold.plain.learner import Coordinates, Learner, Vector, by_field, log_odds, sigmoid
from tests.fold.plain.rates import LATELY_ACTED, Rates, odds


class Own:
    """What a head has of a value: its rates, its weight, and the network's lin and running mean of labels."""

    def __init__(self, value: Any, configuration: Configuration) -> None:
        c = configuration.learner
        self.value, self.latent = value, value.latent
        self.weight = Coordinates(np.zeros(1), c.alpha_weight, c.l1, c.l2)
        self.sums, self.at_ms = np.zeros(5), 0
        self.lin = self.lin_squares = self.labels = 0.0


class Objective:
    """One objective; the first (0) has what `Plain` has, each other one what is its alone."""

    def __init__(self, plain: Plain, number: int, window_ms: int) -> None:
        c, cross, self.number, self.window_ms = plain.c, plain.cross, number, window_ms
        self.c, self.cross, is_first = c, cross, number == 0
        self.rates = plain.rates if is_first else Rates(c)
        self.learner = plain.learner if is_first else Learner(c, plain.fields, 2 * len(plain.kinds))
        self.delays = plain.delays if is_first else Delays(c)
        self.delays.window_ms = window_ms
        n, r = len(cross.w), cross.rank
        self.w, self.w_squares = (cross.w, cross.w_squares) if is_first else (np.zeros(n), np.zeros(n))
        self.a, self.a_squares = np.ones(r), np.zeros(r)
        self.mix, self.mix_squares = (cross.mix, cross.mix_squares) if is_first else (np.full(2, 0.5), np.zeros(2))
        self.own: dict[Any, Own] = {}

    def of(self, value: Any) -> Any:
        """What this objective has of a value."""
        if value is None or self.number == 0:
            return value
        return self.own.setdefault(value, Own(value, self.c))

    def view(self, present: Any) -> Any:
        return [(field, self.of(value)) for field, value in present]

    def lin(self, value: Any) -> Any:
        """What has the network's lin of a value, and the mean of its labels."""
        return self.cross.of(value) if self.number == 0 else self.of(value)


class Of:
    """What an impression is to one objective."""

    def __init__(self) -> None:
        self.label, self.learned, self.weight = 0, None, 1.0  # type: tuple[int, float | None, float]
        self.numbers, self.parts, self.model = np.zeros(0), np.zeros(2), 0.0


class Several(Plain):
    """The fold with several objectives."""

    def __init__(self, configuration: Configuration, names: list[str]) -> None:
        super().__init__(configuration, names)
        heads = configuration.objectives.heads
        self.each = 8 * math.ceil((5 + 2 * (self.cross.paired - 2)) / 8)
        self.cross = Cross(configuration, self.cross.fields, len(heads) * self.each)
        windows = [self.delays.window_ms, *(head.window_ms for head in heads)]
        self.objectives = [Objective(self, number, window_ms) for number, window_ms in enumerate(windows)]
        self.closing_ms = sorted(set(windows))
        self.order, self.most = configuration.objectives.order_weights(), configuration.objectives.weights_max()
        self.worth: dict[int, float] = {}
        self.names = configuration.objectives.names

    # What is open, what is known

    def on_feedback(self, columns: Any, event: int, user_key: int) -> None:
        self.worth.setdefault(int(columns.key[event]), float(columns.value[event]))
        super().on_feedback(columns, event, user_key)

    def weight_of(self, slot: Any, number: int, grace_ms: int) -> float:
        """What a positive weighs: the largest value of those in time; without one it is 1."""
        within = [self.worth[key] for key, *_ in slot.feedback if self.is_positive(slot, key, number, grace_ms)]
        found = [1.0 if math.isnan(value) else min(value, self.most[number]) for value in within]
        return max(found) if self.most[number] and found else 1.0

    def is_positive(self, slot: Any, key: int, number: int, grace_ms: int) -> bool:
        latest_ms = slot.ts_ms + self.objectives[number].window_ms + grace_ms
        return any(key == its and bits >> number & 1 and ts_ms <= latest_ms for its, ts_ms, bits, _ in slot.feedback)

    def open_slot(self, key: int, user: int) -> Slot:
        slot: Any = super().open_slot(key, user)
        slot.of, slot.closings = [Of() for _ in self.objectives], 0
        return slot  # type: ignore[no-any-return]

    def positives(self, slot: Any, grace_ms: int, number: int = 0) -> list[int]:
        return [ts_ms for key, ts_ms, *_ in slot.feedback if self.is_positive(slot, key, number, grace_ms)]

    def count_delay(self, slot: Any, number: int = 0) -> None:
        delay_ms = min(self.positives(slot, 0, number)) - slot.ts_ms
        self.objectives[number].delays.count(delay_ms, self.now_ms)

    def on_impression(self, columns: Any, event: int, user_key: int) -> None:
        before = len(self.scored)
        super().on_impression(columns, event, user_key)
        if len(self.scored) > before:
            slot: Any = self.slots[int(columns.key[event])]
            for number, of in enumerate(slot.of):
                of.label = int(bool(self.positives(slot, 0, number)))
                if of.label and number:
                    self.count_delay(slot, number)

    def join(self, slot: Any, feedback: Any, item: int) -> None:
        slot.feedback.append(feedback)
        for number, objective in enumerate(self.objectives):
            is_open = slot.status == "waiting" and objective.window_ms >= self.closing_ms[slot.closings]
            if is_open and not slot.of[number].label and self.positives(slot, 0, number):
                self.set_label(slot, number)
                self.count_delay(slot, number)
            elif not is_open and slot.status != "early":
                self.drop_gone(slot, self.now_ms)
                self.take_late_of(slot, number, is_out=slot.status == "closed")
        self.extend(slot.user, self.values.find(item, self.now_ms), feedback[1])

    def set_label(self, slot: Any, number: int) -> None:
        slot.of[number].label = 1
        slot.label = slot.of[0].label

    def foresee(self, slot: Any, elapsed_ms: int) -> None:
        labels = {}
        for number, (objective, of) in enumerate(zip(self.objectives, slot.of, strict=True)):
            is_due = not number or objective.delays.come(elapsed_ms) >= self.c.joiner.provisional_share
            if is_due and of.learned is None and objective.window_ms >= self.closing_ms[slot.closings]:
                labels[number] = 1.0 if of.label else objective.delays.provisional(of.model, elapsed_ms, 0.96)
        self.step(slot, labels)

    def close(self, slot: Any) -> None:
        """A window of an impression is over; with the last one its example is out."""
        over_ms, is_last = self.closing_ms[slot.closings], slot.closings + 1 == len(self.closing_ms)
        numbers = [number for number, each in enumerate(self.objectives) if each.window_ms == over_ms]
        self.step(slot, {number: float(slot.of[number].label) for number in numbers})
        if 0 in numbers and not slot.label:
            self.skip(slot)
        if is_last:
            self.tell(slot, 0)
        for number in numbers:
            self.take_late_of(slot, number, is_out=is_last)
        if is_last:
            self.end(slot)
        else:
            slot.closings += 1
            slot.due = (slot.due[0] + self.closing_ms[slot.closings] - over_ms, *slot.due[1:])

    def tell(self, slot: Any, revision: int) -> None:
        labels = {name: of.label for name, of in zip(self.names, slot.of, strict=True)}
        self.labels.append((labels, revision))

    def take_late_of(self, slot: Any, number: int, *, is_out: bool) -> None:
        """One more step for a positive that comes too late, if there is one."""
        of = slot.of[number]
        if of.label or not self.positives(slot, self.c.joiner.late_window_ms, number):
            return
        self.set_label(slot, number)
        of.learned = None
        weight = self.weight_of(slot, number, self.c.joiner.late_window_ms)
        self.count_of(slot, number, 0.0, weight)
        self.learn_all(slot, {number: 1.0}, {number: weight})
        if is_out:
            self.tell(slot, 1)

    # One impression

    def score(self, slot: Any, keys: dict[int, int], base_score: float) -> None:
        """All heads are read before the network is: their statistics are among its inputs."""
        super_read, self.read_heads = self.cross.read, []

        def read(*arguments: Any) -> Any:
            statistics, pairs = super_read(*arguments)
            for head in self.objectives[1:]:
                self.read_head(slot, head, statistics, pairs)
            return statistics, pairs

        self.cross.read = read  # type: ignore[method-assign]
        super().score(slot, keys, base_score)
        self.cross.read = super_read  # type: ignore[method-assign]
        slot.of[0].numbers, slot.of[0].parts, slot.of[0].model = slot.numbers, slot.parts, slot.model
        layers = Layers(self.cross, slot.present, slot.crossed[0]) if self.cross.rank else None
        scores = [self.scored.pop()[1]]
        for head, of in zip(self.objectives[1:], slot.of[1:], strict=True):
            if layers is not None:
                of.parts[1] = layers.score(head, slot.present)
            logit = float(head.mix @ of.parts) if layers is not None else of.parts[0]
            of.model = sigmoid(of.overall + logit)
            scores.append(min(max(of.model, 1e-6), 1 - 1e-6))
        self.scored.append((slot.model, float(np.dot(self.order, scores)), *scores))

    def read_head(self, slot: Any, head: Objective, statistics: Vector, pairs: list[Any]) -> None:
        of, view = slot.of[head.number], head.view(slot.present)
        rates, of.overall = head.rates.read(view, self.fields, self.now_ms)
        of.numbers = np.append(rates, head.learner.machine(view, slot.interests))
        of.parts[0] = head.learner.dense_logit(of.numbers)
        at, p = self.cross.size - (len(self.objectives) - head.number) * self.each, 1 / (1 + math.exp(-of.overall))
        for which, (_, own) in enumerate(view[:2]):
            statistics[at + which], statistics[at + 2 + which] = rates[2 * which], own.labels if own else 0.0
        statistics[at + 4] = of.parts[0]
        for place, pair in enumerate(pairs):
            if pair is not None:
                known, acted = pair.of_heads.get(head.number, (0.0, 0.0))
                statistics[at + 5 + place] = odds(known, acted, p, self.cross.prior) - of.overall

    # Learning

    def step(self, slot: Any, labels: dict[int, float]) -> None:
        """Take labels, or by how much they changed: each counts, and all are learned in one step."""
        weights = {n: self.weight_of(slot, n, 0) if slot.of[n].label else 1.0 for n in labels}
        for number, label in labels.items():
            before, learned = self.before(slot.of[number])
            weight = weights[number]
            self.count_of(slot, number, weight - before, weight * label - before * learned)
        self.learn_all(slot, labels, weights)

    def before(self, of: Of) -> tuple[float, float]:
        """What the label learned before weighs, and the label."""
        return (0.0, 0.0) if of.learned is None else (of.weight, of.learned)

    def count_of(self, slot: Any, number: int, shown: float, acted: float) -> None:
        if number == 0:
            self.count(slot, shown, acted, self.now_ms)
        elif shown or acted:
            head, of = self.objectives[number], slot.of[number]
            view = head.view(slot.present)
            head.rates.count(view, shown, acted, of.model, self.now_ms)
            for holder in (head.rates, *(own for _, own in view if own is not None)):
                holder.sums[LATELY_ACTED] = max(holder.sums[LATELY_ACTED], 0.0)
            for _, own in view[:2]:
                if own is not None:
                    share = 0.1 / (1 + 0.1 * max(shown - 1, 0))
                    own.labels += share * (acted - shown * (own.labels + head.rates.overall()))
            for pair in slot.crossed[1]:
                if pair is not None and pair.is_alive:
                    known, before = pair.of_heads.get(number, (0.0, 0.0))
                    pair.of_heads[number] = known + shown, before + acted

    def learn_all(self, slot: Any, labels: dict[int, float], weights: dict[int, float]) -> None:
        """One step of the objectives whose labels are new, or have changed."""
        changed = {n: y for n, y in labels.items() if (y, weights[n]) != (slot.of[n].learned, slot.of[n].weight)}
        if not changed:
            return
        frozen, sampled = self.c.learner.frozen_from_ms, self.is_sampled(slot)
        stepping = {n: y for n, y in changed.items() if not 0 < frozen <= self.now_ms and (y == 1 or sampled)}
        moved = self.move_all(slot, stepping, weights, sampled=sampled) if stepping else 0.0
        for number, label in changed.items():
            of, weight = slot.of[number], weights[number]
            if number == 0 and of.learned is None:
                self.memory.write(slot.recalled, label, None, moved, weight)
            elif number == 0:
                self.memory.amend(slot.recalled, weight * label - of.weight * of.learned, weight - of.weight)
            of.learned, of.weight = label, weight
        for _, value in slot.present:
            if value is not None:
                value.updated_ms = self.now_ms

    def move_all(self, slot: Any, labels: dict[int, float], weights: dict[int, float], *, sampled: bool) -> float:
        """Step each objective's weights by its errors, and what is shared against their sum.

        Return how far the first objective's probability has moved since it was served.
        """
        layers = Layers(self.cross, slot.present, slot.crossed[0]) if self.cross.rank else None
        rate, moved, shared = math.log(self.c.joiner.negative_sample_rate), 0.0, []
        machines = [each.learner.machine(each.view(slot.present), slot.interests) for each in self.objectives]
        crosses = {} if layers is None else {n: layers.score(self.objectives[n], slot.present) for n in labels}
        cross_errors = {}
        for number, label in labels.items():
            each, of = self.objectives[number], slot.of[number]
            before, learned = self.before(of) if sampled else (0.0, 0.0)
            shown, acted = weights[number] - before, weights[number] * label - before * learned
            base = log_odds(each.rates.overall()) - rate
            linear = each.learner.dense_logit(of.numbers)
            logit = linear + each.learner.dense.w[2 * self.fields] * (machines[number] - of.numbers[-1])

            def error(logit: float, shown: float = shown, acted: float = acted) -> float:
                return shown * sigmoid(logit) - acted

            shared.append((each, of, error(base + logit), error(base + linear)))
            if layers is not None:
                cross_errors[number] = error(base + crosses[number])
                gradient = error(base + float(each.mix @ of.parts)) * of.parts
                each.mix_squares += gradient**2
                each.mix -= 0.05 * gradient / np.sqrt(10 + each.mix_squares)
                logit = float(each.mix @ [logit, crosses[number]])
            if number == 0 and not slot.corrects:
                moved = sigmoid(base + rate + logit) - slot.model
        if layers is not None:
            layers.learn(self.objectives, cross_errors, slot.present)
            if 0 in labels and (slot.of[0].learned is None or not sampled):
                self.cross.learn_moments(slot.present, slot.crossed[0])
        self.move_machines(slot, shared)
        return moved

    def move_machines(self, slot: Any, errors: list[Any]) -> None:
        apart = [
            each.learner.learn_apart(each.view(slot.present), slot.interests, of.numbers, error, dense_error)
            for each, of, error, dense_error in errors
        ]
        for same in zip(*apart, strict=True):
            same[0][0].step(sum(gradient for _, gradient in same))


class Layers:
    """The network's layers over one impression: x0, x1 and the products of the second one."""

    def __init__(self, cross: Cross, present: Any, statistics: Vector) -> None:
        self.cross, (v1, u1, v2, u2) = cross, cross.m
        self.x0, _ = cross.inputs(present, statistics)
        self.h1 = v1.T @ self.x0
        self.z1 = u1 @ self.h1
        self.x1 = self.x0 * self.z1 + self.x0
        self.h2, self.g2 = v2.T @ self.x1, u2.T @ self.x0

    def groups(self, present: Any) -> list[tuple[int, list[Any]]]:
        return [(f, members) for f, members in by_field(present).items() if f < self.cross.fields]

    def score(self, each: Objective, present: Any) -> float:
        """w x0 + sum of lin + sum of a_k (U2' x0)_k (V2' x1)_k."""
        lin = sum(each.lin(v).lin / len(members) for _, members in self.groups(present) for v in members)
        return float(np.clip(each.w @ self.x0 + lin + each.a @ (self.g2 * self.h2), -22, 22))

    def learn(self, objectives: list[Objective], errors: dict[int, float], present: Any) -> None:
        """Each objective's own weights by its error; the layers and embeddings once, by the sum of the gradients."""
        cross, whole = self.cross, math.sqrt(sum(error**2 for error in errors.values()))
        v1, u1, v2, u2 = cross.m
        if not whole:
            return
        shares = [(objectives[number], error / whole) for number, error in errors.items()]
        a = sum((share * each.a for each, share in shares), np.zeros(cross.rank))
        left, right = a * self.g2, a * self.h2
        gx = v2 @ left
        gz = gx * self.x0
        g1 = u1.T @ gz
        gradient = sum((share * each.w for each, share in shares), np.zeros(len(self.x0)))
        gradient = gradient + u2 @ right + gx * (self.z1 + 1) + v1 @ g1
        for which, (row, column) in enumerate(((self.x0, g1), (gz, self.h1), (self.x1, left), (self.x0, right))):
            cross.m_squares[which] += (whole * row) ** 2 * (column @ column)
            rate = 0.03 / np.sqrt(10 + cross.m_squares[which])
            damped = whole / (1 + (rate * row**2).sum() * (column @ column))
            cross.m[which] -= damped * np.outer(rate * row, column)
        for number, error in errors.items():
            self.move(objectives[number], error, present)
        for field, members in self.groups(present):
            for value in members:
                of, g = cross.of(value), 4 * whole / len(members) * gradient[8 * field : 8 * field + 8]
                of.e_squares += g**2
                of.e -= 0.03 * g / np.sqrt(0.1 + of.e_squares)

    def move(self, each: Objective, error: float, present: Any) -> None:
        """What one objective reads the layers by; the first reads the products as they are."""
        each.w_squares += (error * self.x0) ** 2
        rate = 0.03 / np.sqrt(10 + each.w_squares)
        each.w -= error * rate * self.x0 / (1 + (rate * self.x0**2).sum())
        if each.number:
            g = error * self.g2 * self.h2
            each.a_squares += g**2
            each.a -= 0.03 * g / np.sqrt(10 + each.a_squares)
        for _, members in self.groups(present):
            for value in members:
                of, share = each.lin(value), error / len(members)
                of.lin_squares += share**2
                of.lin -= 0.03 * share / math.sqrt(0.1 + of.lin_squares)
