"""The configuration of a fine-tuning: a trained model, new studies, and settings that hold for few of them.

Why these settings: docs/explanation/few_labels.md.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2net.bags.beside import LUNG_MASKS
from m2net.bags.dataset import score_target, severity_target
from m2net.bags.transforms import PAINTED
from m2net.configuration import read_yaml
from m2net.errors import ConfigError
from m2net.networks.registry import build
from m2net.objectives import OBJECTIVES, DetectionReading, Objective, Reading
from m2net.studies import Study
from m2net.training.loading import CHECKPOINT_MARK, hyper_parameters
from m2net.vocabulary import Column, SeverityScheme

TUNING = {"frozen": 0.5, "layer_decay": 0.3, "anchor": 0.1, "norm": "keep"}
OPTIMIZER = {"name": "adamw", "lr": 0.01, "weight_decay": 0.01}
EPOCHS, LEAST_STEPS = 16, 200
FEW = 50
"""Patients below which no part can be spared: repeated folds judge, and nothing chooses a checkpoint."""
_CHECKS = 8  # validations in a run
_PATIENCE = 5  # more than fall into the frozen half, which a run must not end in
_EMA = 0.98


@dataclass(frozen=True)
class Plan:
    """What is going to be trained, and what is said of it.

    Attributes:
        config: what ``m2net fit`` takes.
        trained: tasks that learn.
        kept: tasks with too few labels in the new data, whose heads stay as they are.
        changed: what differs from the checkpoint's tasks, one sentence each.
    """

    config: dict[str, Any]
    trained: list[str]
    kept: list[str]
    changed: list[str]


def read_changes(path: Path | None) -> dict[str, Any]:
    """What shall differ from the checkpoint's settings, from a YAML file; nothing without one.

    Raises:
        ConfigError: no YAML, or not built as a configuration of ``m2net fit``.
    """
    if path is None:
        return {}
    found = read_yaml(path) or {}
    parts = found if isinstance(found, dict) else {"it": found}
    for name, value in parts.items():
        if name != "seed_everything" and not isinstance(value, dict):
            raise ConfigError(f"{path}: {name} is {value!r}", expected="settings by name, as m2net fit takes them")
    tasks = found.get("model", {}).get("tasks") or {}
    if not isinstance(tasks, dict):
        raise ConfigError(f"{path}: model.tasks is {tasks!r}", expected="tasks by name, as m2net fit takes them")
    for task, own in tasks.items():
        if not isinstance(own, dict) or not isinstance(own.get("objective"), dict):
            raise ConfigError(f"{path}: the task {task} has no objective", expected="objective: {name: ...}, and a head or weight")
    return dict(found)


def labelled_patients(checkpoint: Mapping[str, Any], studies: Sequence[Study], more: Mapping[str, Any]) -> int:
    """Patients with the commonest label among those that the model's tasks, or those given, learn from."""
    tasks, _ = _fitted_tasks(_tasks_of(checkpoint, more), studies)
    targets = {o.target for o in (_objective(task, parts) for task, parts in tasks.items()) if not isinstance(o, Reading)}
    carried: dict[str, set[str]] = {}
    for study in studies:
        for target in _targets([study]) & targets:
            carried.setdefault(target, set()).add(study.patient_id)
    return max((len(patients) for patients in carried.values()), default=0)


def _tasks_of(checkpoint: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The tasks that are given, or the checkpoint's, of those all that learn from labels."""
    given = more.get("model", {}).get("tasks")
    return copy.deepcopy(dict(given or _labelled(hyper_parameters(dict(checkpoint))["tasks"])))


def _labelled(tasks: Mapping[str, Any]) -> dict[str, Any]:
    return {task: parts for task, parts in tasks.items() if _objective(task, parts).needs_labels}


def plan_finetuning(
    checkpoint: Mapping[str, Any], path: Path, studies: Sequence[Study], manifest: Path, store: Path, out: Path, *, validate: bool,
    folds: int = 0, more: Mapping[str, Any] | None = None,
) -> Plan:  # fmt: skip
    """Everything of the checkpoint, its tasks fitted to the labels there are.

    Args:
        checkpoint: as ``read_checkpoint`` gives it.
        path: where it lies.
        studies: the new studies that may be trained on.
        manifest: where they are listed.
        store: where they are prepared.
        out: folder of the run.
        validate: whether a part chooses the checkpoint; otherwise the last weights count.
        folds: that judge; a label must be known of so many patients, so that no fold trains without it.
        more: what shall differ, as a configuration of ``m2net fit``; ``model.tasks`` replaces the checkpoint's.

    Raises:
        ConfigError: no task of the model has enough labels in the new data.
    """
    arguments = copy.deepcopy(hyper_parameters(dict(checkpoint)))
    drawing = dict(checkpoint[CHECKPOINT_MARK].get("drawing") or {})
    own = copy.deepcopy(dict(more or {}))
    if not _labelled(arguments["tasks"]):
        raise ConfigError(
            f"{path} has learnt from studies without labels only", expected="a model with tasks to adapt",
            remedy="Start a fit from it: m2net fit with model.start_from",
        )  # fmt: skip
    tasks, changed = _fitted_tasks(_tasks_of(checkpoint, own), studies)
    changed += [
        f"{task}: left out, it learns from no label" for task in arguments["tasks"].keys() - _labelled(arguments["tasks"]) - tasks.keys()
    ]
    kept = {task for task, parts in (own.get("model", {}).pop("tasks", None) or {}).items() if parts.get("weight") == 0}
    objectives = {task: _objective(task, parts) for task, parts in tasks.items()}
    heads = {task: o for task, o in objectives.items() if not isinstance(o, Reading)}
    least, teaching = max(2, folds), [s for s in studies if not validate or str(s.split) == "train"]
    enough = {o.target for o in heads.values() if len({s.patient_id for s in teaching if o.target in _targets([s])}) >= least}
    trained = [task for task, o in heads.items() if (o.target in enough or not o.needs_labels) and task not in kept]
    if not any(heads[task].needs_labels for task in trained):
        known = ", ".join(o.target for o in heads.values() if o.needs_labels)
        have = ", ".join(sorted(_targets(teaching))) or "none"
        where = "the training part of the new data" if validate else "the new data"
        raise ConfigError(
            f"no task of {path} ({known}) has a label of {least} patients in {where} ({have})",
            expected="at least one", remedy="Mend the manifest, or give the tasks with --config",
        )  # fmt: skip
    for task in heads:
        tasks[task]["weight"] = (tasks[task].get("weight") or 1.0) if task in trained else 0.0
    if not validate:
        changed += _uncalibrated({task: tasks[task] for task in trained})
        ruled = {task: o for task, o in objectives.items() if isinstance(o, DetectionReading) and set(o.reads) & set(trained)}
        changed += [f"{task}: without the rule that validation had set, for no part validates; any pixel still tells" for task in ruled]
    masks = sorted({str(m) for s in studies for m in s.masks} & {o.target for o in heads.values()})
    augmentation = dict(drawing.get("augmentation", {}))
    painted = [name for name in PAINTED if augmentation.get(name)]
    if painted and not set(LUNG_MASKS) & set(masks):
        augmentation |= dict.fromkeys(painted, 0.0)
        changed.append(f"augmentation: no {' and '.join(painted)}, for no mask says where the lungs are")
    model = {
        "network": arguments["network"], "tasks": tasks, "optimizer": OPTIMIZER, "schedule": "cosine", "warmup": 0.1, "tuning": TUNING,
        "weighting": arguments.get("weighting", "fixed"), "start_from": str(path), "start_parts": ["encoder", "decoder", "heads"],
    }  # fmt: skip
    if arguments.get("mirror"):
        model["mirror"] = True
    data = {
        "manifest": str(manifest), "store": str(store), "input": arguments["input"], "masks": masks, "validate": validate,
        "instances": drawing.get("instances", 16), "studies_per_batch": drawing.get("studies_per_batch", 4),
        "augmentation": augmentation,
    }  # fmt: skip
    count = round(len(studies) * (1 - 1 / folds)) if folds else sum(str(s.split) == "train" for s in studies)
    batches = max(1, count // max(1, min(int(data["studies_per_batch"]), count)))
    steps = own.get("trainer", {}).get("max_steps")
    trainer = _trainer(out, validate, steps if isinstance(steps, int) and steps > 0 else max(LEAST_STEPS, EPOCHS * batches))
    config = _merged({"seed_everything": 0, "model": model, "data": data, "trainer": trainer}, own)
    return Plan(config, trained, [task for task in heads if task not in trained], changed)


def _merged(config: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others laid over them, key by key; lists are replaced."""
    merged = dict(config)
    for key, value in more.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _uncalibrated(tasks: dict[str, Any]) -> list[str]:
    """Take out what only a validation part could fit, and say so."""
    said = []
    for task, parts in tasks.items():
        objective = parts["objective"]
        lost = ["not calibrated"] * (objective.pop("calibrate", "none") != "none")
        lost += ["without conformal sets"] * (objective.pop("coverage", None) is not None)
        if lost:
            said.append(f"{task}: {' and '.join(lost)}, for no part validates")
    return said


def _fitted_tasks(tasks: dict[str, Any], studies: Sequence[Study]) -> tuple[dict[str, Any], list[str]]:
    """The checkpoint's tasks, with severity in the scheme that the new studies are graded in where there is only one."""
    schemes = sorted({str(s.severity_scheme) for s in studies if s.severity is not None and SeverityScheme.grades(str(s.severity_scheme))})
    known = {parts["objective"].get("scheme", "binary") for parts in tasks.values() if parts["objective"].get("name") == "severity"}
    changed = []
    for task, parts in tasks.items():
        objective = parts["objective"]
        scheme = objective.get("scheme", "binary")
        if objective.get("name") == "severity" and len(schemes) == 1 and schemes[0] not in known:
            objective["scheme"] = schemes[0]
            known.add(schemes[0])
            changed.append(f"{task}: graded {schemes[0]} instead of {scheme}; its last layer starts anew")
    return tasks, changed


def _objective(task: str, parts: Mapping[str, Any]) -> Objective:
    made: Objective = build(OBJECTIVES, parts["objective"], f"objective of {task}")
    return made


def _targets(studies: Sequence[Study]) -> set[str]:
    found = {str(m) for s in studies for m in s.masks} | {score_target(name) for s in studies for name in s.scores}
    found |= {severity_target(str(s.severity_scheme)) for s in studies if s.severity is not None}
    return found | ({str(Column.DIAGNOSIS)} if any(s.possible for s in studies) else set())


def _trainer(out: Path, validate: bool, steps: int) -> dict[str, Any]:
    decay = round(max(0.0, min(_EMA, 1 - 5 / steps)), 4)
    callbacks: list[dict[str, Any]] = [
        {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": decay}},
    ]
    keeper: dict[str, Any] = {"dirpath": str(out), "filename": "best", "enable_version_counter": False}
    if validate:
        keeper |= {"monitor": "val/score", "mode": "max"}
        stopper = {"monitor": "val/score", "mode": "max", "patience": _PATIENCE, "check_on_train_epoch_end": False, "check_finite": False}
        callbacks.append({"class_path": "pytorch_lightning.callbacks.EarlyStopping", "init_args": stopper})
    callbacks.append({"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": keeper})
    logger = {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": str(out), "name": "csv", "version": ""}}
    trainer: dict[str, Any] = {
        "max_steps": steps, "accelerator": "auto", "devices": 1, "default_root_dir": str(out), "num_sanity_val_steps": 0,
        "log_every_n_steps": 10, "enable_model_summary": False, "logger": logger, "callbacks": callbacks, "gradient_clip_val": 1.0,
    }  # fmt: skip
    if validate:
        return {**trainer, "check_val_every_n_epoch": None, "val_check_interval": max(1, steps // _CHECKS)}
    return {**trainer, "limit_val_batches": 0}
