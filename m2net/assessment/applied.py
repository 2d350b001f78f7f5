"""A trained model made ready for new studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from m2net.bags import InputSpec, Prepared, cover, cut_bag, prepare_judged, to_input
from m2net.batch import BagBatch
from m2net.errors import ConfigError
from m2net.studies import Volume
from m2net.training import M2NetModule, file_hash, load_model
from m2net.vocabulary import PAINTED, Intensity


class AppliedModel:
    """One checkpoint on one device, and how studies are cut for it.

    Attributes:
        module: in evaluation mode.
        spec: what an instance shows.
        facts: of the model, in plain values, for reports.
    """

    def __init__(self, checkpoint: Path, device: str | None = None) -> None:
        """Load; the accelerator is taken if there is one and no device is named.

        Raises:
            CheckpointError: not one of m2net's.
            ConfigError: no task of it says anything of a study.
        """
        self.module: M2NetModule = load_model(checkpoint)
        telling = [task for task, objective in self.module.named_objectives() if objective.needs_labels]
        if not telling:
            raise ConfigError(
                f"{checkpoint} has learnt from studies without labels only, and has nothing to say of a study",
                expected="a model with tasks that learn from labels", remedy="Start one from it: m2net fit with model.start_from",
            )  # fmt: skip
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.module.to(self.device)
        self.spec: InputSpec = self.module.spec
        self.facts: dict[str, Any] = {
            "checkpoint_sha256": file_hash(checkpoint),
            "m2net_version": self.module.about.get("version", ""),
            "trained_on": self.module.about.get("trained_on", {}),
            "input": self.spec.plain(),
            "tasks": sorted(task for task in self.module.weights if task in telling),
        }
        if cuts := {task: o.calibration["cut"] for task, o in self.module.named_objectives() if "cut" in o.calibration}:
            self.facts["called_from"] = cuts

    def prepare(self, volume: Volume) -> Prepared:
        """A study at the model's pixel size, judged as ``m2net verify`` does.

        Raises:
            StudyError: no lung found.
            ConfigError: the model reads another modality or intensity.
        """
        if volume.modality != self.spec.modality:
            raise ConfigError(f"the study is {volume.modality}", expected=f"{self.spec.modality}, as the model was trained on")
        self._refuse_other(volume.intensity)
        return prepare_judged(volume, {}, self.spec.spacing_mm)

    def bag(self, prepared: Prepared) -> tuple[BagBatch, BagBatch]:
        """A prepared study, fully covered: as stored, and as the network reads it, on the device.

        Raises:
            ConfigError: the model reads another intensity.
            StudyError: the model keeps the manifest's lungs only, and the study has no such mask.
        """
        self._refuse_other(prepared.intensity)
        batch = cut_bag(prepared, cover(prepared, self.spec), self.spec, "study", 0)
        return batch, to_input(batch.to(self.device), self.spec)

    def _refuse_other(self, intensity: Intensity) -> None:
        if str(intensity) != self.spec.intensity:
            raise ConfigError(
                f"the study has {intensity} intensity", expected=f"{self.spec.intensity}, as the model was trained on",
                remedy="Choose a model of the same kind; HU and pictures never share one",
            )  # fmt: skip

    def doubts(self) -> list[str]:
        """What a reader must know of the model, one sentence each."""
        versions = self.facts["trained_on"].get("phantom_versions")
        if not versions:
            return []
        real = self.facts["trained_on"].get("real_studies", 0)
        if real:
            told = f"{self.facts['trained_on']['studies'] - real} synthetic studies ({{}}) beside {real} of patients"
        elif any(version.startswith(PAINTED) for version in versions):
            told = "synthetic disease ({}), painted in part into real lungs, not on patients' own"
        else:
            told = "synthetic phantoms ({}), not on patients"
        return [f"The model was trained on {told.format('version ' + ', '.join(versions))}."]
