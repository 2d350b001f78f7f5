"""How a fit begins from an earlier run, or from published weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from m2net.errors import ConfigError
from m2net.networks import SmpEncoder
from m2net.training.loading import CHECKPOINT_MARK, hyper_parameters, read_checkpoint
from m2net.training.transfer import take_over
from m2net.training.tuning import Anchor
from m2net.vocabulary import made_from_patients

if TYPE_CHECKING:
    from m2net.training.module import M2NetModule

_OWN = ("look", "drawing", "calibration")
"""What a checkpoint says of its own run only."""


def start_from_run(module: M2NetModule, path: Path) -> dict[str, Any]:
    """Take weights over from a checkpoint, and the calibration of tasks that are kept; what became of it is said and kept.

    Returns:
        What the new model says of its start.

    Raises:
        CheckpointError: not one of m2net's, or the encoder is not whole.
        ConfigError: a task that shall stay as it is has no head there.
    """
    checkpoint = read_checkpoint(path)
    other = type(module)(**hyper_parameters(checkpoint))
    module.transfer = transfer = take_over(module.network, checkpoint, path, module.start_parts, other.meaning, module.meaning)
    held = [*transfer.loaded, *(name for name in transfer.adapted if name.startswith("encoder."))]  # silent channels stay near silence
    module.anchor = Anchor(module.network, held) if module.tuning.anchor else None
    rank_zero_info(f"{path}: {transfer}")
    before = checkpoint[CHECKPOINT_MARK]
    if anew := [task for task in module.kept if any(name.startswith(f"heads.{task}.") for name in (*transfer.fresh, *transfer.adapted))]:
        raise ConfigError(
            f"{', '.join(anew)} of weight 0 would stay as they begin: their heads are not taken over whole from {path}",
            expected="model.start_parts: [encoder, decoder, heads], and the tasks as they were trained",
            remedy="Give them a weight, or leave them out",
        )  # fmt: skip
    known = before.get("calibration", {})
    for task, objective in module.named_objectives():
        if module.is_kept(task) and task in known and objective.answers == other.objectives[task].answers:  # type: ignore[union-attr]
            if objective.holds(known[task]):
                objective.calibration = dict(known[task])
            else:
                rank_zero_warn(f"{task} decides between other groups than {path}: it is not calibrated")
    seen = before.get("trained_on", {})
    versions = seen.get("phantom_versions", [])
    if not versions or seen.get("real_studies") or any(map(made_from_patients, versions)):
        rank_zero_warn(
            f"{path} was trained on real studies, or on what is made of them: figures are honest only if none of their patients is held out"
        )
    told = {k: v for k, v in before.items() if k not in _OWN}
    counts = {name: len(tensors) for name, tensors in transfer.plain().items() if name != "skipped"}
    return {"started_from": told | counts}


def start_published(module: M2NetModule, source: str) -> dict[str, Any]:
    """Load published weights into an encoder of segmentation-models-pytorch.

    Raises:
        ConfigError: the encoder is m2net's own.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    encoder = module.network.encoder
    if not isinstance(encoder, SmpEncoder):
        raise ConfigError("model.encoder_weights is given for an encoder of m2net's own", expected="encoder: {name: smp, ...}")
    encoder.load_weights(source)
    rank_zero_info(f"The encoder starts from {source}.")
    return {"encoder_weights": Path(source).name}
