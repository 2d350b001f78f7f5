"""Probabilities put right on validation studies: temperature, temperature and class biases, or isotonic regression of each cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax

Values = NDArray[np.float64]
Grades = NDArray[np.int64]
Truth = NDArray[np.int64] | NDArray[np.bool_]
"""Labels (n,), or the classes (n, K) that each label leaves possible."""
_TEMPERATURES = (0.05, 20.0)


def likelihood(log_p: Values, truth: Truth) -> float:
    """Logarithm of the probability of all labels under (n, K) log probabilities; a label that leaves several classes has their sum."""
    if truth.ndim == 1:
        return float(log_p[np.arange(len(truth)), truth].sum())
    return float(logsumexp(np.where(truth, log_p, -np.inf), axis=1).sum())


def fit_temperature(log_p: Values, truth: Truth, pull: float = 1.0) -> dict[str, Any]:
    """T that makes the labels likeliest under softmax(log p / T), log p (n, K) (Guo et al. 2017).

    With few studies a quadratic ``pull`` keeps log T near 0: of a handful that are all called rightly no T is sharp enough.
    """

    def loss(log_t: float) -> float:
        return -likelihood(log_softmax(log_p / np.exp(log_t), axis=1), truth) + pull / 2 * log_t**2

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded")
    return {"temperature": float(np.exp(found.x))}


def fit_isotonic(log_p: Values, grade: Grades) -> dict[str, Any]:
    """Per cut k the isotonic regression of [grade >= k] on P(grade >= k), as knots (Zadrozny and Elkan 2002).

    A cut that all studies lie on one side of keeps its probabilities.
    """
    from sklearn.isotonic import IsotonicRegression

    above = at_or_above(softmax(log_p, axis=1))
    knots = []
    for k in range(above.shape[1]):
        if len(np.unique(grade > k)) < 2:
            knots.append([[0.0, 1.0], [0.0, 1.0]])
            continue
        fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(above[:, k], grade > k)
        knots.append([fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist()])
    return {"isotonic": knots}


def fit_shift(log_p: Values, truth: Truth, pull: float = 1.0) -> dict[str, Any]:
    """Temperature and one bias a class that make the labels likeliest under softmax(log p / T + b), log p (n, K).

    That follows a change of case mix and of confidence without learning anything of images (Alexandari et al. 2020: bias-corrected
    temperature scaling). With few studies a quadratic ``pull`` keeps log T and b near 0.
    """

    def loss(values: Values) -> float:
        fitted = log_softmax(log_p / np.exp(values[0]) + values[1:], axis=1)
        return float(-likelihood(fitted, truth) + pull / 2 * np.square(values).sum())

    start = np.zeros(1 + log_p.shape[1])
    bounds = [tuple(np.log(_TEMPERATURES)), *[(-10.0, 10.0)] * log_p.shape[1]]
    found = minimize(loss, start, bounds=bounds).x
    return {"temperature": float(np.exp(found[0])), "bias": [float(b) for b in found[1:]]}


FITS: dict[str, Callable[[Values, Any], dict[str, Any]]] = {
    "none": lambda log_p, grade: {},
    "temperature": fit_temperature,
    "shift": fit_shift,
    "isotonic": fit_isotonic,
}
"""Ways to calibrate, by name."""


def calibrated(log_p: Values, calibration: dict[str, Any]) -> Values:
    """Probabilities (n, K) of grades from log probabilities or logits, as ``calibration`` says; plain softmax where it says nothing."""
    if "isotonic" in calibration:
        above = at_or_above(softmax(log_p, axis=1))
        put = np.stack([np.interp(above[:, k], *knots) for k, knots in enumerate(calibration["isotonic"])], axis=1)
        return of_grades(np.minimum.accumulate(put, axis=1))  # P(grade >= k) cannot grow with k
    return np.asarray(softmax(log_p / calibration.get("temperature", 1.0) + np.asarray(calibration.get("bias", 0.0)), axis=1))


def at_or_above(probability: Values) -> Values:
    """P(grade >= k), k = 1..K-1, from (n, K) grade probabilities -> (n, K-1)."""
    return np.asarray(np.cumsum(probability[:, ::-1], axis=1)[:, ::-1][:, 1:].clip(0, 1))


def of_grades(above: Values) -> Values:
    """Grade probabilities (n, K) from P(grade >= k) (n, K-1); the inverse of ``at_or_above``."""
    return np.asarray(-np.diff(above, axis=1, prepend=1.0, append=0.0))
