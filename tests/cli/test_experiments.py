"""Every configuration that the project ships is read by the command line and builds its model, data and trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from m2net.cli.lightning import make_cli

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
LAID_OVER = {
    "demo/plain": ["demo/joint"], "demo/strong_positions": ["demo/joint"], "lobes/patches": ["lobes/position_aware"],
    "joint/few_labels": ["joint/joint"],
    "severity/lobe_aware": ["severity/four_grades"],
    "new_hospital/scratch": ["new_hospital/base"],
    "real_lobes/drawn": ["real_lobes/pictures"], "real_lobes/slices": ["real_lobes/pictures"],
    "real_lobes/both": ["real_lobes/pictures", "real_lobes/slices"], "real_lobes/volumes": ["lobes/position_aware"],
    "real_lobes/volumes_drawn": ["lobes/position_aware", "real_lobes/volumes"],
    "unlabelled/few_labels": ["unlabelled/restore"],
    "weakly_supervised/train_only": ["weakly_supervised/covid_ct"], "weakly_supervised/restored": ["weakly_supervised/covid_ct"],
    "weakly_supervised/pictures_hull": ["weakly_supervised/pictures"], "weakly_supervised/rich": ["weakly_supervised/pictures"],
    "weakly_supervised/rich_start": ["weakly_supervised/covid_ct"],
    "weakly_supervised/paintings": ["weakly_supervised/pictures"], "weakly_supervised/paintings_real_lobes": ["weakly_supervised/pictures"],
}  # fmt: skip
"""What a configuration that is none by itself is laid over, as the README beside it says."""
SWEEPS = "sweeps"  # of Weights & Biases: tests/training/test_wandb.py reads them


def configurations() -> list[str]:
    found = [path.relative_to(EXPERIMENTS).with_suffix("") for path in sorted(EXPERIMENTS.rglob("*.yaml"))]
    return [path.as_posix() for path in found if path.parts[0] != SWEEPS and path.as_posix() != "tables/common"]


def below(name: str) -> list[str]:
    return ["tables/common"] if name.startswith("tables/rows/") else LAID_OVER.get(name, [])


def test_there_are_configurations() -> None:
    assert len(configurations()) > 30
    assert set(LAID_OVER) <= set(configurations())


@pytest.mark.parametrize("name", configurations())
def test_a_configuration_builds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without weights to start from, which another fit makes."""
    monkeypatch.chdir(tmp_path)
    words = [word for path in (*below(name), name) for word in ("--config", str(EXPERIMENTS / f"{path}.yaml"))]
    built = make_cli([*words, "--trainer.logger=false", "--trainer.accelerator=cpu"], run_now=False)
    tasks = set(built.config["model"]["tasks"])
    assert set(built.model.objectives) == tasks
    assert set(built.model.network.heads) <= tasks
    assert built.trainer.max_steps > 0 or built.trainer.max_epochs
    assert not list(tmp_path.iterdir())
