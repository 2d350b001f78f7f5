"""Whether a label, and a model's success at it, can be had from shortcuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from m2net.assessment.shortcuts import Facts
from m2net.errors import ConfigError
from m2net.objectives import Interval, auc, intervals, within_folds
from m2net.objectives.base import Statistic
from m2net.objectives.bootstrap import fewer

Scores = NDArray[np.float64]
ALL = "all together"
_FOLDS = 5
_STRATA = 3


@dataclass(frozen=True)
class Strongest:
    """The single fact that tells the label best, and its AUC (direction chosen in hindsight)."""

    name: str
    auc: float


@dataclass(frozen=True)
class ClassAudit:
    """What shortcuts tell of one class against the rest.

    Attributes:
        name: the class, as the manifest spells it.
        positives: studies of the class.
        families: AUC of each family of facts, by a random forest, out of fold by patient, within each fold.
        strongest: the single strongest fact.
        model: the model's AUC, within each fold where it was cross-validated, None without predictions.
        within: its AUC within strata of the strongest fact (tertiles, or categories), pairs within a stratum (and fold) pooled.
        lost: what is gone within the strata, of the AUC over the same kind of pairs (within a fold, all strata).
        strata: the fact that the strata were made from.
        fact: AUC of that fact itself within its strata, direction chosen in hindsight: tertiles leave some of it. What of the model's AUC
            lies below this may be the fact still.
    """

    name: str
    positives: int
    families: dict[str, Interval]
    strongest: Strongest
    model: Interval | None = None
    within: Interval | None = None
    lost: Interval | None = None
    strata: str = ""
    fact: Interval | None = None


def audit(
    labels: Sequence[str],
    patients: Sequence[str],
    facts: Sequence[Facts],
    scores: dict[str, Scores] | None = None,
    folds: NDArray[np.int64] | None = None,
    strata: str = "",
    seed: int = 0,
) -> list[ClassAudit]:
    """Audit every class of a label against the rest; two classes are audited once.

    A label may be a set (``non_pneumonia|cap``); studies whose set overlaps the audited one without being it are left out.

    Args:
        labels: the label's text of each study; "" is left out.
        patients: patient of each study.
        facts: trivial facts of each study.
        scores: per class the model's score of each study, NaN where it has none.
        folds: (studies,) the fold whose model gave the scores of each study; None if all are of one model.
        strata: the fact to stratify by, as ``saturation/white_share``; the strongest by default.
        seed: seeds folds and forests.

    Raises:
        ConfigError: fewer than two classes, or an unknown fact.
    """
    known = [k for k, label in enumerate(labels) if label]
    classes = sorted({labels[k] for k in known})
    if len(classes) < 2:
        raise ConfigError(f"the label has {len(classes)} classes ({', '.join(classes)})", expected="at least two")
    if strata and strata not in _single_facts(facts):
        raise ConfigError(f"the fact {strata!r} is unknown", expected=f"one of {', '.join(_single_facts(facts))}")
    done = []
    judged = next((name for name in classes if scores and name in scores), classes[0])  # of two classes the one that the model speaks of
    for name in [judged] if len(classes) == 2 else classes:
        clear = [k for k in known if labels[k] == name or not set(labels[k].split("|")) & set(name.split("|"))]
        score = None if scores is None or name not in scores else scores[name][clear]
        fold = np.zeros(len(clear), np.int64) if folds is None else folds[clear]
        one = [facts[k] for k in clear], [patients[k] for k in clear], np.array([labels[k] == name for k in clear])
        done.append(_audit_class(name, *one, score, fold, strata, seed))
    return done


def _audit_class(
    name: str, facts: list[Facts], patients: list[str], positive: NDArray[np.bool_], score: Scores | None, fold: NDArray[np.int64],
    strata: str, seed: int,
) -> ClassAudit:  # fmt: skip
    singles = _single_facts(facts)
    strongest = _strongest(singles, positive)
    by = strata or strongest.name
    entry: dict[str, Any] = {}
    if score is not None and by:
        entry = _stratified(score, positive, singles.get(by, [""] * len(positive)), fold, patients) | {"strata": by}
    families = {family: _forest(table, positive, patients, seed) for family, table in _tables(facts).items()}
    return ClassAudit(name, int(positive.sum()), families, strongest, **entry)


def pooled_auc(score: Scores, positive: NDArray[np.bool_], stratum: NDArray[np.int64]) -> float:
    """AUC over the pairs of a positive and a negative that lie in one stratum; NaN without such pairs."""
    won = pairs = 0.0
    for k in np.unique(stratum):
        here = stratum == k
        count = float(positive[here].sum() * (~positive[here]).sum())
        if count:
            won += _auc(score[here], positive[here]) * count
            pairs += count
    return won / pairs if pairs else float("nan")


def _auc(score: Scores, positive: NDArray[np.bool_]) -> float:
    return auc(torch.from_numpy(np.ascontiguousarray(score)), torch.from_numpy(np.ascontiguousarray(positive)))


def _stratified(
    score: Scores, positive: NDArray[np.bool_], column: list[float | str], fold: NDArray[np.int64], patients: list[str]
) -> dict[str, Any]:
    have = np.flatnonzero(np.isfinite(score))
    score, positive, fold = score[have], positive[have], fold[have]
    both = _strata(column)[have] * (fold.max(initial=0) + 1) + fold
    numbers = _numbers(column)[have]
    fact = numbers[:, 0] if numbers.shape[1] == 1 else np.zeros(len(have))  # within a category a category tells nothing
    sign = -1.0 if _auc(fact, positive) < 0.5 else 1.0

    def pooled(values: Scores, stratum: NDArray[np.int64]) -> Statistic:
        return lambda chosen: pooled_auc(values[chosen], positive[chosen], stratum[chosen])

    within, pairs = pooled(score, both), pooled(score, fold)
    figures = {
        "model": within_folds(lambda c: _auc(score[c], positive[c]), fold),
        "within": within,
        "lost": lambda c: pairs(c) - within(c),
        "fact": pooled(sign * fact, both),
    }
    return dict(intervals(figures, [patients[k] for k in have], fewer(positive, ~positive)))


def _single_facts(facts: Sequence[Facts]) -> dict[str, list[float | str]]:
    """Every fact as a column, by ``family/name``."""
    return {f"{family}/{name}": _column(facts, family, name) for family, name in _places(facts)}


def _places(facts: Sequence[Facts]) -> list[tuple[str, str]]:
    """Family and name of every fact; a column of the manifest may have a slash in its name."""
    return list(dict.fromkeys((family, name) for one in facts for family, values in one.items() for name in values))


def _column(facts: Sequence[Facts], family: str, name: str) -> list[float | str]:
    return [one.get(family, {}).get(name, "") for one in facts]


def _is_text(column: list[float | str]) -> bool:
    """Whether most of what is known in a column is text; a word among numbers or dates, as ``unknown``, is not known."""
    texts = sum(isinstance(v, str) and bool(v) for v in column)
    return texts > sum(not isinstance(v, str) for v in column)


def _numbers(column: list[float | str]) -> NDArray[np.float64]:
    """(n, k) numbers of a column: itself, or one column a category; what is unknown is put below everything."""
    if _is_text(column):
        texts = np.array([str(v) for v in column])
        return np.stack([texts == v for v in np.unique(texts)], axis=1).astype(np.float64)
    values = np.array([float("nan") if isinstance(v, str) else v for v in column])
    lowest = values[np.isfinite(values)].min() if np.isfinite(values).any() else 0.0
    return np.where(np.isfinite(values), values, lowest - 1)[:, None]


def _tables(facts: Sequence[Facts]) -> dict[str, NDArray[np.float64]]:
    """Per family, and of all together, the facts as numbers; families that are the same in every study are left out."""
    families: dict[str, list[NDArray[np.float64]]] = {}
    for family, name in _places(facts):
        numbers = _numbers(_column(facts, family, name))
        if np.ptp(numbers, axis=0).any():
            families.setdefault(family, []).append(numbers)
    tables = {family: np.concatenate(parts, axis=1) for family, parts in families.items()}
    return {**tables, ALL: np.concatenate(list(tables.values()), axis=1)} if tables else {}


def _strongest(singles: dict[str, list[float | str]], positive: NDArray[np.bool_]) -> Strongest:
    best = Strongest("", 0.5)
    for name, column in singles.items():
        for numbers in _numbers(column).T:
            value = _auc(numbers, positive)
            if max(value, 1 - value) > best.auc:
                best = Strongest(name, max(value, 1 - value))
    return best


def _strata(column: list[float | str]) -> NDArray[np.int64]:
    """Tertiles of a number, or its values where these are few; categories as they are. What is unknown is a stratum of its own.

    Two studies or more that share a value at the edge of a tertile, as a third of them without any white, are a stratum of their own.
    """
    if _is_text(column):
        return np.unique([str(v) for v in column], return_inverse=True)[1]
    values, known = _numbers(column)[:, 0], np.array([not isinstance(v, str) and bool(np.isfinite(v)) for v in column])
    if len(np.unique(values)) <= _STRATA:
        return np.unique(values, return_inverse=True)[1]
    edges = np.quantile(values[known], [k / _STRATA for k in range(1, _STRATA)])
    shared = [edge for edge in edges if (values == edge).sum() > 1]
    return np.where(known, 1 + 2 * np.digitize(values, edges) - np.isin(values, shared), 0)


def _forest(table: NDArray[np.float64], positive: NDArray[np.bool_], patients: list[str], seed: int) -> Interval:
    """AUC of a random forest on these facts, within folds by patient, with its patient-bootstrap interval."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(_FOLDS, len(set(patients)), int(min(positive.sum(), (~positive).sum())))
    if folds < 2:
        return Interval(float("nan"), float("nan"), float("nan"))
    score, fold = np.full(len(positive), np.nan), np.zeros(len(positive), np.int64)
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(table, positive, patients)
    for k, (train, held) in enumerate(parts):
        fold[held] = k
        if len(set(positive[train])) == 2:
            forest = RandomForestClassifier(200, min_samples_leaf=5, class_weight="balanced", random_state=seed)
            score[held] = forest.fit(table[train], positive[train]).predict_proba(table[held])[:, 1]
    have = np.flatnonzero(np.isfinite(score))
    figure = within_folds(lambda chosen: _auc(score[have][chosen], positive[have][chosen]), fold[have])
    told = positive[have]
    return intervals({"auc": figure}, [patients[k] for k in have], fewer(told, ~told))["auc"]
