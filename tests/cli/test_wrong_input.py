"""Wrong input gives one clear line and exit code 2, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from m2net.cli.main import COMMANDS, main
from m2net.training import read_checkpoint
from m2net.training.weighting import WEIGHTINGS


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "text.nii.gz").write_text("not an image")
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 15).save(tmp_path / "picture.png")
    (tmp_path / "nopatient.csv").write_text("study_id,modality,image\ns1,ct,text.nii.gz\n")
    torch.save({"state_dict": {"w": torch.zeros(2)}, "epoch": 3}, tmp_path / "other.ckpt")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("m2net: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("missing.nii.gz", "does not exist"),
        ("text.nii.gz", "cannot be read as an image"),
        ("empty", "holds no DICOM image"),
        ("picture.png", "picture.png: "),
    ],
)
def test_bad_studies(files: Path, trained: Path, capsys: pytest.CaptureFixture[str], study: str, message: str) -> None:
    assert main(["assess", str(files / study), "--model", str(trained / "best.ckpt"), "--out", str(files / "out")]) == 2
    assert message in said(capsys)


@pytest.mark.parametrize(("model", "message"), [("other.ckpt", "written by another program"), ("none.ckpt", "does not exist")])
def test_bad_checkpoints(files: Path, trained: Path, capsys: pytest.CaptureFixture[str], model: str, message: str) -> None:
    assert main(["assess", str(files / "empty"), "--model", str(files / model), "--out", str(files / "out")]) == 2
    assert message in said(capsys)
    assert main(["test", "--config", str(trained / "config.in.yaml"), "--ckpt_path", str(files / model)]) == 2
    assert message in said(capsys)


@pytest.mark.parametrize("command", [["prepare", "{}", "--store", "s"], ["split", "{}", "--folds", "3"]])
def test_manifest_without_patients(files: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main([w.replace("{}", str(files / "nopatient.csv")) for w in command]) == 2
    assert "has no column patient_id" in said(capsys)


def test_a_patch_that_the_decoder_cannot_join(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--model.network.encoder={name: residual, width: 4}",
        "--model.network.decoder={name: smp_unetplusplus}",
        "--data.input.patch=48",
    ]
    assert main(["fit", "--config", str(trained / "config.in.yaml"), *words]) == 2
    assert "smp_unetplusplus on a patch of 48 pixels; expected data.input.patch a multiple of 32" in said(capsys)


def test_fit_on_a_bad_manifest(files: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(trained / "config.in.yaml"), "--data.manifest", str(files / "nopatient.csv")]) == 2
    assert "has no column patient_id" in said(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frobnicate"], "frobnicate"),
        (["phantom", "--out", "x"], "required: --patients, --seed"),
        (["phantom", "--out", "x", "--patients", "0", "--seed", "1"], "0 patients"),
        (["phantom", "--out", "x", "--patients", "1", "--seed", "1", "--site", "mars"], "mars"),
        (["split", "none.csv", "--folds", "2"], "none.csv does not exist"),
        (["crossval", "--config", "some.yaml", "--folds", "2", "--out", "x"], "2 folds; expected at least 3"),
        (["crossval", "--config", "none.yaml", "--folds", "3", "--out", "x"], "none.yaml does not exist"),
    ],
)
def test_wrong_words(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.yaml").touch()
    assert main(words) == 2
    assert message in said(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.accelerator=cudaa"], "cudaa"),
        (["--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=900"], "val_check_interval"),
        (["--model.tasks={lobes: {head: dense, objective: {name: segmentation, mask: lobes}}}"], "the head of lobes is 'dense'"),
        (["--model.tasks={lobes: {head: {name: dense}, objective: {name: segmentation, mask: lobes}, weight: heavy}}"], "is 'heavy'"),
    ],
)
def test_settings_that_cannot_be_run(trained: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["fit", "--config", str(trained / "config.in.yaml"), *words]) == 2
    assert message in said(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.max_stepz=3"], "--trainer.max_stepz=3. Perhaps trainer.max_steps is meant."),
        (["--trainer.max-steps=3"], "--trainer.max-steps=3. Perhaps trainer.max_steps is meant."),
        (["--trainer.callbacks={class_path: ModelCheckpoint, init_args: {filenam: best}}"], "filenam"),
        (["--data.instanses", "3"], "--data.instanses 3. Perhaps data.instances is meant."),
        (["--model.nothing_alike", "3"], "--model.nothing_alike 3. See m2net fit --help."),
        (["--data.instances", "many"], "Got value: many. See m2net fit --help."),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_settings_that_lightning_does_not_know(trained: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["fit", "--config", str(trained / "config.in.yaml"), *words]) == 2
    err = capfd.readouterr().err
    assert [line for line in err.splitlines() if line.startswith("m2net: ") and message in line]
    assert "usage" not in err


def test_a_misspelt_setting_in_a_file(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "more.yaml").write_text("data: {studies_per_bach: 2}\n")
    assert main(["fit", "--config", str(trained / "config.in.yaml"), "--config", str(tmp_path / "more.yaml")]) == 2
    assert "'data.studies_per_bach'. Perhaps data.studies_per_batch is meant." in said(capsys)
    words = ["crossval", "--config", str(trained / "config.in.yaml"), "--folds", "3", "--out", str(tmp_path / "cv"), "--data.sead", "1"]
    assert main(words) == 2
    assert "--data.sead 1. Perhaps data.seed is meant." in said(capsys)


def test_a_fault_of_ours_within_lightning_is_no_setting(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning refuses to log two losses as one: that is a bug, and its traceback is wanted."""
    monkeypatch.setattr(WEIGHTINGS["fixed"], "forward", lambda *_: torch.zeros(2))
    with pytest.raises(ValueError, match="single element"):
        main(["fit", "--config", str(trained / "config.in.yaml"), "--trainer.default_root_dir", str(tmp_path)])


def test_tables_that_are_no_predictions(cohort: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", str(cohort), "--store", str(store), "--spacing", "6", "--label", "severity", "--predictions"]
    (tmp_path / "binary.csv").write_bytes(b"study_id\n\xff\xfe\x00")
    assert main([*words, str(tmp_path / "binary.csv")]) == 2
    assert "is no table of text" in said(capsys)
    (tmp_path / "fold.csv").write_text("study_id,fold,severity_ge1\ns,first,0.5\n")
    assert main([*words, str(tmp_path / "fold.csv")]) == 2
    assert "has the fold 'first'; expected numbers from 0" in said(capsys)
    (tmp_path / "quoted.csv").write_text('study_id,patient_id,severity_ge1\n"s,p,0.5\nt,q,0.5\n')
    assert main([*words, str(tmp_path / "quoted.csv")]) == 2
    assert "is no table of text (unexpected end of data)" in said(capsys)
    (tmp_path / "short.csv").write_text("study_id,patient_id,severity_ge1\ns,p,0.5\nt,q\n")
    assert main([*words, str(tmp_path / "short.csv")]) == 2
    assert "row 2: more or fewer cells than the table has columns" in said(capsys)


def test_a_checkpoint_of_a_later_version(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = torch.load(trained / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["telepathy"] = True
    torch.save(checkpoint, tmp_path / "later.ckpt")
    assert main(["assess", str(tmp_path), "--model", str(tmp_path / "later.ckpt"), "--out", str(tmp_path / "out")]) == 2
    assert "holds a setting that this m2net does not know" in said(capsys)


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("m2net.cli.split.run", interrupted)
    assert main(["split", str(tmp_path / "m.csv"), "--folds", "3"]) == 130
    assert said(capsys) == "m2net: stopped."


@pytest.mark.parametrize("spacing", ["0", "-1", "nan"])
def test_an_impossible_spacing(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spacing: str) -> None:
    for command in ("prepare", "audit"):
        assert main([command, str(cohort), "--store", str(tmp_path / "s"), "--spacing", spacing]) == 2
        assert f"a spacing of {float(spacing)} mm" in capsys.readouterr().err


def test_a_missing_configuration_leaves_with_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "m2net.cli.main", "fit", "--config", "none.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys; from m2net.cli.main import main; main(['--help']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'SimpleITK', 'pytorch_lightning')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("fit", "validate", "test", "predict")])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "usage: m2net" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "a.png", "--model", "m", "--out", "o", "--overlays", "-1"],
        ["localise", "m.csv", "--store", "s", "--model", "m", "--out", "o", "--most", "-9"],
        ["split", "m.csv", "--folds", "3", "--seed", "-1"],
        ["phantom", "--out", "o", "--patients", "1", "--seed", "-1"],
    ],
)
def test_counts_begin_at_0(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """Minus one picture is not nearly all of them."""
    assert main(words) == 2
    assert f"'{words[-1]}' is no whole number from 0" in said(capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {max_steps: 2}\ntrainer: {logger: false}\n", "trainer stands 2 times in one place; expected once"),
        ("data:\n  instances: 2\n  workers: 0\n  instances: 3\n", "instances stands 2 times"),
        ("# Klinikum f\xfcr Radiologie\ntrainer: {max_steps: 2}\n", "is no UTF-8"),
        ("trainer: {max_steps: 2\n", "is no YAML"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "crossval", "finetune"])
def test_what_yaml_passes_over(
    trained: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, text: str, message: str
) -> None:
    (tmp_path / "more.yaml").write_bytes(text.encode("latin-1"))
    words = {
        "fit": ["--config", str(trained / "config.in.yaml"), f"--config={tmp_path / 'more.yaml'}"],
        "crossval": ["--config", str(trained / "config.in.yaml"), "--config", str(tmp_path / "more.yaml"), "--folds", "3"],
        "finetune": [
            "--from", str(trained / "best.ckpt"), "--manifest", str(cohort), "--store", str(tmp_path / "s"), "--out", str(tmp_path / "o"),
            "--config", str(tmp_path / "more.yaml"),
        ],
    }  # fmt: skip
    assert main([command, *words[command]]) == 2
    told = said(capsys)
    assert message in told
    assert "more.yaml" in told


@pytest.mark.parametrize("setting", ["--data.workers=-1", "--data.seed=-1", "--data.prepare_workers=0"])
def test_numbers_that_cannot_be(trained: Path, capsys: pytest.CaptureFixture[str], setting: str) -> None:
    assert main(["fit", "--config", str(trained / "config.in.yaml"), setting]) == 2
    assert "expected workers and seed from 0, prepare_workers from 1" in said(capsys)


def test_a_callback_that_waits_for_no_figure_of_ours(
    configure: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning finds it out at the first validation: what was learnt until then is not lost."""
    stopper = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/scor", "mode": "max"}}
    config = configure(tmp_path, trainer={"callbacks": [stopper], "enable_checkpointing": False, "max_steps": 4})
    with pytest.warns(UserWarning, match="before a checkpoint was kept: the weights of step 2"):
        assert main(["fit", "--config", str(config)]) == 2
    assert "val/scor" in said(capsys)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 2


def test_checkpoints_that_cannot_be_kept_are_told_before_the_first_step(
    configure: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    keeper = {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": {"dirpath": str(tmp_path / "taken" / "best")}}
    assert main(["fit", "--config", str(configure(tmp_path, trainer={"callbacks": [keeper]}))]) == 2
    told = said(capsys)
    assert "checkpoints cannot be kept in" in told
    assert "Change dirpath" in told
    assert not (tmp_path / "config.yaml").exists()


def test_what_is_read_is_not_written_over(
    trained: Path, cohort: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = cohort.read_bytes()
    words = ["audit", str(cohort), "--store", str(store), "--label", "severity", "--out"]
    assert main([*words, str(cohort)]) == 2
    assert "--out is" in said(capsys)
    (tmp_path / "p.csv").write_text("study_id\ns\n")
    assert main([*words, str(tmp_path / "p.csv"), "--predictions", str(tmp_path / "p.csv")]) == 2
    assert "p.csv itself, which is read" in said(capsys)
    for name in ("localise", "phantom"):
        words = {"localise": [str(cohort), "--store", str(store), "--model", "m"], "phantom": ["--patients", "1", "--seed", "1"]}[name]
        for out in (cohort, cohort / "deeper"):
            assert main([name, *words, "--out", str(out)]) == 2
            assert "is a file, expected a folder" in said(capsys)
    assert cohort.read_bytes() == before


def test_a_manifest_of_a_recipe_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.json").write_text("{}")
    (tmp_path / "m.csv").write_text("study_id,patient_id\n")
    assert main(["recipe", "monai", str(tmp_path / "list.json"), "--out", str(tmp_path / "m.csv")]) == 2
    assert "m.csv is there already" in said(capsys)
    assert main(["recipe", "monai", str(tmp_path / "list.json"), "--out", str(tmp_path / "none" / "m.csv")]) == 2
    assert "is a folder, or lies in none" in said(capsys)
