"""The machine, the dense level above it, and FTRL-Proximal, by which both learn."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration

Vector = npt.NDArray[np.float64]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-min(max(logit, -30.0), 30.0)))


def log_odds(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))


class Coordinates:
    """Weights with a learning rate each: w = w0 - shrunk(z) / (beta / alpha + D + l2), with beta = 1."""

    def __init__(self, initial: Vector, alpha: float, l1: float = 0.0, l2: float = 0.0) -> None:
        self.initial, self.alpha, self.l1, self.l2 = initial, alpha, l1, l2
        self.w = initial.copy()
        self.z, self.n, self.d = (np.zeros(initial.shape) for _ in range(3))

    def step(self, gradient: Vector) -> None:
        """One step against a gradient; where that is 0 nothing changes."""
        squares = self.n + gradient**2
        sigma = (np.sqrt(squares) - np.sqrt(self.n)) / self.alpha
        self.z = self.z + gradient - sigma * (self.w - self.initial)
        self.n, self.d = squares, self.d + sigma
        shrunk = np.sign(self.z) * np.maximum(np.abs(self.z) - self.l1, 0.0)
        self.w = self.initial - shrunk / (1 / self.alpha + self.d + self.l2)


class Learner:
    """`fields` F of an impression, the derived ones last, and `interests` I behind them."""

    def __init__(self, configuration: Configuration, fields: int, interests: int) -> None:
        c = configuration.learner
        self.fields, self.size = fields, c.latent_size
        pairs = np.full((fields, fields + interests), c.pair_initial)
        pairs[0, 1] = c.user_item_initial
        pairs[fields - 4 :] = pairs[:, fields - 4 : fields] = c.derived_initial
        pairs[:, fields:] = c.interest_initial
        self.pairs = Coordinates(pairs, c.alpha_pair)
        dense = np.zeros(2 * fields + 2)
        dense[0 : 2 * fields : 2], dense[2 * fields] = c.rate_initial, 1.0
        self.dense = Coordinates(dense, c.alpha_dense)
        self.above = np.triu(np.ones((fields, fields + interests)), 1)

    def vectors(self, present: Any, interests: Vector) -> tuple[Vector, float]:
        """v [F + I, d], of each field the mean of its values, and the sum of the fields' mean weights."""
        v, total = np.zeros((self.fields + len(interests), self.size)), 0.0
        for field, members in by_field(present).items():
            v[field] = sum(member.latent.w for member in members) / len(members)
            total += sum(member.weight.w[0] for member in members) / len(members)
        v[self.fields :] = interests
        return v, total

    def machine(self, present: Any, interests: Vector) -> float:
        """Sum of w_f, of r_fg <v_f, v_g> and of r_fi <v_f, interest_i>."""
        v, total = self.vectors(present, interests)
        return total + float(np.sum(self.above * self.pairs.w * (v[: self.fields] @ v.T)))

    def dense_logit(self, numbers: Vector) -> float:
        """Weights of rates and residuals, trust in the machine, bias."""
        return float(self.dense.w @ np.append(numbers, 1.0))

    def learn(self, present: Any, interests: Vector, numbers: Vector, error: float, dense_error: float) -> None:
        """One step of all that an impression touches."""
        for latent, gradient in self.learn_apart(present, interests, numbers, error, dense_error):
            latent.step(gradient)

    def learn_apart(self, present: Any, interests: Vector, numbers: Vector, error: float, dense_error: float) -> Any:
        """One step of all but the latent vectors: return each of them with its gradient."""
        v, _ = self.vectors(present, interests)
        r = self.above * self.pairs.w
        gradient = r @ v
        gradient += (r.T @ v[: self.fields])[: self.fields]
        has = np.abs(v).any(axis=1)
        self.pairs.step(error * self.above * (v[: self.fields] @ v.T) * np.outer(has[: self.fields], has))
        for members in by_field(present).values():
            for member in members:
                member.weight.step(np.array([error / len(members)]))
        self.dense.step(dense_error * np.append(numbers, 1.0))
        groups = by_field(present).items()
        return [(each.latent, gradient[f] * error / len(members)) for f, members in groups for each in members]


def by_field(present: Any) -> dict[int, list[Any]]:
    """The values that have a row, by their field."""
    found: dict[int, list[Any]] = {}
    for field, value in present:
        if value is not None:
            found.setdefault(field, []).append(value)
    return found
