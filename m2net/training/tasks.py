"""The tasks that a configuration names, and whether anything teaches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pytorch_lightning.utilities import rank_zero_warn
from torch import nn

from m2net.bags import InputSpec
from m2net.errors import ConfigError
from m2net.networks import build
from m2net.objectives import OBJECTIVES, Objective, Reading, RestorationObjective, ScoreObjective, SegmentationObjective


class Tasks(NamedTuple):
    """Objectives of all tasks; heads (as settings) and weights of those that have a head; the task that restores, "" without one."""

    objectives: dict[str, Objective]
    heads: dict[str, dict[str, Any]]
    weights: dict[str, float]
    restoring: str


def read_tasks(configured: Mapping[str, Mapping[str, Any]], spec: InputSpec) -> Tasks:
    """Build objectives and check what stands beside them.

    Args:
        configured: per task ``objective`` and, unless it only reads other tasks' maps, ``head`` and ``weight`` (1 without).
        spec: what an instance shows.

    Raises:
        ConfigError: no task, a part that there is not, two tasks that answer one mask or score or restore, a restoration that cannot be, or
            a reading of a task that is not there.
    """
    if not configured:
        raise ConfigError("the model has no task", expected="at least one under model.tasks")
    tasks = Tasks({}, {}, {}, "")
    for task, parts in configured.items():
        if "." in task or hasattr(nn.ModuleDict(), task):
            raise ConfigError(f"a task is named {task!r}", expected="a name without a dot that torch does not use itself")
        if unknown := set(parts) - {"head", "objective", "weight"}:
            raise ConfigError(f"task {task} has {', '.join(sorted(unknown))}", expected="only head, objective and weight")
        tasks.objectives[task] = objective = build(OBJECTIVES, parts.get("objective"), f"objective of {task}")
        objective.task = task
        if not isinstance(objective, Reading):
            tasks.heads[task], tasks.weights[task] = _head(task, parts, objective.classes), _weight(task, parts)
        elif more := set(parts) - {"objective"}:
            raise ConfigError(f"task {task} has {', '.join(sorted(more))}", expected="an objective only")
    drawn = [o.target for o in tasks.objectives.values() if isinstance(o, SegmentationObjective | ScoreObjective)]
    if twice := {target for target in drawn if drawn.count(target) > 1}:
        raise ConfigError(f"several tasks answer {', '.join(sorted(twice))}", expected="one task a mask or score")
    for objective in tasks.objectives.values():
        if isinstance(objective, Reading):
            objective.accept({task: tasks.objectives[task] for task in tasks.heads})
    return tasks._replace(restoring=_restoring(tasks, spec))


def _restoring(tasks: Tasks, spec: InputSpec) -> str:
    """One task restores at most, on the decoder's map; it chooses the checkpoint where no other task that learns does."""
    restoring = {task: objective for task, objective in tasks.objectives.items() if isinstance(objective, RestorationObjective)}
    if len(restoring) > 1:
        raise ConfigError(f"the tasks {', '.join(restoring)} restore", expected="one of them")
    for task, objective in restoring.items():
        if (found := tasks.heads[task].get("name")) != "dense":
            raise ConfigError(f"the head of {task}, which restores pictures, is {found}", expected="name: dense")
        objective.look_at(spec)
        objective.primary = "" if any(weight and tasks.objectives[t].primary for t, weight in tasks.weights.items()) else "r2"
    return next(iter(restoring), "")


def _head(task: str, parts: Mapping[str, Any], classes: int) -> dict[str, Any]:
    head = parts.get("head") or {}
    if not isinstance(head, Mapping):
        raise ConfigError(f"the head of {task} is {head!r}", expected="settings, as {name: hierarchical}")
    return {**head, "classes": classes}


def _weight(task: str, parts: Mapping[str, Any]) -> float:
    weight = parts.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ConfigError(f"the weight of {task} is {weight!r}", expected="a number")
    return float(weight)


def check_labels(learning: Sequence[tuple[str, str]], counts: Mapping[str, int], only: Mapping[str, str]) -> None:
    """Refuse a task that no training study teaches, and say of one that all teach the same.

    Args:
        learning: tasks that learn, each with its target.
        counts: training studies that carry each target.
        only: targets with one label in all training studies that carry them, and that label.

    Raises:
        ConfigError: a task without a label.
    """
    for task, target in learning:
        if not counts.get(target):
            known = ", ".join(f"{k} ({n})" for k, n in sorted(counts.items()) if n) or "nothing"
            raise ConfigError(
                f"no training study has a label {target} for the task {task} (labelled: {known})",
                expected="at least one", remedy="Mend the manifest, data.masks or the task's objective, or remove the task",
            )  # fmt: skip
        if target in only:
            rank_zero_warn(
                f"Every training study with a label for the task {task} has the same one ({only[target]}): it learns to say so of all."
            )


def check_kept(kept: Sequence[str], start_from: str | None) -> None:
    """Refuse tasks that shall stay as they were taken over where nothing is.

    Raises:
        ConfigError: a weight of 0 without a start.
    """
    if kept and not start_from:
        raise ConfigError(
            f"{', '.join(kept)} of weight 0 would stay untrained", expected="model.start_from: whence they are taken",
            remedy="Give them a weight, or leave them out",
        )  # fmt: skip


def tell_idle(learning: Sequence[tuple[str, Objective]], *, validates: bool) -> None:
    """Say which settings do nothing because no part validates."""
    idle = [task for task, objective in learning if objective.wants_validation]
    if idle and not validates:
        rank_zero_warn(f"No part validates: what {', '.join(idle)} would fit there (calibrate, coverage) is left out.")
