"""m2net verify finds every planted fault and nothing else."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from m2net.cli.main import main
from m2net.phantoms import SCANNERS, SEVERITY_MODELS, make_phantom, write_dicom_series
from m2net.vocabulary import Diagnosis
from tests.conftest import REAL
from tests.studies.made import volume, write_series

PATIENTS = 16


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    command = ["phantom", "--out", str(folder), "--patients", str(PATIENTS), "--seed", "8", "--matrix", "80", "--slice-mm", "5"]
    assert main(command) == 0
    return folder


def change(path: Path, function) -> None:
    """Rewrite a NIfTI with other values (LPS array in and out), its grid kept."""
    image = nibabel.load(path)
    values = function(np.asanyarray(image.dataobj).T)
    nibabel.save(nibabel.Nifti1Image(values.T, image.affine), path)


def run(manifest: Path, *more: str) -> tuple[int, dict[str, dict]]:
    out = manifest.with_name("verdicts.json")
    code = main(["verify", str(manifest), "--json", str(out), *more])
    return code, {v["study_id"]: v for v in json.loads(out.read_text())}


def test_a_clean_cohort_passes(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, verdicts = run(clean / "manifest.csv")
    assert code == 0
    assert {v["status"] for v in verdicts.values()} == {"pass"}, verdicts
    assert f"{PATIENTS} studies: {PATIENTS} pass, 0 warn, 0 rejected" in capsys.readouterr().out


def test_a_misspelt_column_is_told(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (clean / "manifest.csv").read_text().splitlines()
    misspelt = clean / "misspelt.csv"
    misspelt.write_text("\n".join([lines[0].replace("diagnosis", "diagnoses").replace("phantom_version", "sites"), *lines[1:3]]) + "\n")
    assert "diagnoses" in misspelt.read_text()
    assert run(misspelt)[0] == 0
    said = capsys.readouterr().out
    assert "The column 'diagnoses' is not read; if diagnosis is meant, rename it." in said
    assert said.count("is not read") == 1  # not "sites", which stands beside "site"
    assert run(clean / "manifest.csv")[0] == 0
    assert "is not read" not in capsys.readouterr().out


def test_every_planted_fault_is_found_and_nothing_else(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    shutil.copytree(clean, folder, ignore=shutil.ignore_patterns("*.jsonl", "verdicts.json"))
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["study_id"] for row in rows]
    image = {k: folder / name / "image.nii.gz" for k, name in enumerate(names)}
    planted: dict[str, tuple[str, str]] = {}

    def plant(k: int, check: str, status: str = "reject") -> Path:
        planted[names[k]] = (status, check)
        return image[k]

    plant(0, "unreadable").write_bytes(image[0].read_bytes()[:2000])
    change(plant(1, "units", "warn"), lambda a: (a.astype(np.int32) + 1024).astype(np.uint16))
    change(plant(2, "hu"), lambda a: np.clip(a, -160, 240))
    change(plant(3, "lungs"), lambda a: np.where((a < -300) & (np.indices(a.shape)[1] > 12), 30, a).astype(np.int16))
    for k, part in ((4, slice(None, -16)), (5, slice(18, None))):
        plant(k, "field_of_view")
        for file in sorted((folder / names[k]).glob("*.nii.gz")):
            source = nibabel.load(file)
            nibabel.save(source.slicer[:, :, part], file)
    plant(6, "field_of_view")
    for file in sorted((folder / names[6]).glob("*.nii.gz")):
        nibabel.save(nibabel.load(file).slicer[26:], file)
    plant(7, "spacing")
    for file in sorted((folder / names[7]).glob("*.nii.gz")):
        nibabel.save(nibabel.load(file).slicer[:, :, ::3], file)
    planted[names[7]] = ("reject", "spacing")
    plant(8, "laterality")
    change(folder / names[8] / "lobes.nii.gz", lambda a: np.array([0, 3, 5, 1, 1, 2], np.uint8)[a])
    shutil.copy(image[9], plant(10, "duplicate"))
    for mask in ("lobes", "lungs", "infection"):
        shutil.copy(folder / names[9] / f"{mask}.nii.gz", folder / names[10] / f"{mask}.nii.gz")
    rows[10]["infected"] = rows[9]["infected"]
    rows[11]["diagnosis"] = "flu"
    plant(11, "label")
    plant(12, "file").unlink()
    plant(13, "mask")
    change(folder / names[13] / "lobes.nii.gz", lambda a: np.roll(a, 24, axis=1))
    made = make_phantom((3, 9), SCANNERS["home"], Diagnosis.COVID19, SEVERITY_MODELS[2], matrix=80, slice_mm=5.0)
    for k in (14, 15):
        write_dicom_series(folder / names[k] / "series", made if k == 14 else make_phantom(
            (3, 10), SCANNERS["home"], Diagnosis.CAP, SEVERITY_MODELS[2], matrix=80, slice_mm=5.0), SCANNERS["home"], names[k])  # fmt: skip
        rows[k] |= {"image": f"{names[k]}/series", "lobes": "", "lungs": "", "infection": ""}
    files = sorted((folder / names[14] / "series").iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])
    files[20].unlink()
    plant(14, "geometry")
    for file in (folder / names[15] / "series").iterdir():
        data = pydicom.dcmread(file)
        data.ContrastBolusAgent = "yes"
        data.save_as(file)
    plant(15, "contrast", "warn")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

    code, verdicts = run(folder / "manifest.csv", "--clean", str(folder / "clean.csv"))
    assert code == 1
    told = {name: (v["status"], sorted({f["check"] for f in v["findings"]})) for name, v in verdicts.items()}
    expected = {name: ("pass", []) for name in names} | {name: (status, [check]) for name, (status, check) in planted.items()}
    assert told == expected
    assert all(f["reason"] and f["remedy"] for v in verdicts.values() for f in v["findings"])
    assert run(folder / "clean.csv")[0] == 0

    # resumable: what the journal holds is not read again, and a changed file is
    journal = folder / "manifest.verify.jsonl"
    lines = journal.read_text().splitlines()
    run(folder / "manifest.csv")
    assert journal.read_text().splitlines() == lines
    shutil.copy(clean / names[2] / "image.nii.gz", image[2])
    assert run(folder / "manifest.csv")[1][names[2]]["status"] == "pass"


@pytest.mark.skipif(not (REAL / "ct_volumes").is_dir(), reason="the real images are not here")
def test_real_studies_pass(tmp_path: Path) -> None:
    lines = ["study_id,patient_id,modality,image,lobes,lungs,infection"]
    lines += [f"{n},{n},ct,{REAL / 'ct_volumes' / n},,," for n in ("P001", "cap002", "normal001")]
    slices = sorted((REAL / "ct_slices").rglob("*.png"))
    lines += [f"{p.stem},{p.stem},ct,{p},,," for p in slices]
    lines += [
        f"{p.stem},{p.stem},ct,{p},{REAL / 'ct_lobes' / 'masks' / p.name},," for p in sorted((REAL / "ct_lobes" / "images").iterdir())
    ]
    radiographs = sorted((REAL / "cxr_infection" / "images").iterdir())
    lines += [f"x{k},x{k},cxr,{p},,{REAL / 'cxr_infection' / 'lung' / p.name}," for k, p in enumerate(radiographs)]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    code, verdicts = run(tmp_path / "manifest.csv")
    assert code == 0
    odd = {name: v["findings"] for name, v in verdicts.items() if v["findings"]}
    assert {f["check"] for findings in odd.values() for f in findings} == {"size"}  # one slice of 148 x 61 pixels
    assert len(odd) == 1


def test_rejected_studies_never_reach_training_unless_allowed(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cohort"
    shutil.copytree(clean, folder, ignore=shutil.ignore_patterns("*.jsonl", "verdicts.json"))
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:3]
    for file in sorted((folder / rows[1]["study_id"]).glob("*.nii.gz")):
        nibabel.save(nibabel.load(file).slicer[:, :, 18:], file)
    with (folder / "few.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    command = ["prepare", str(folder / "few.csv"), "--store", str(tmp_path / "store"), "--spacing", "4"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"study {rows[1]['study_id']} is rejected: the lowest slice shows" in said
    assert main(command) == 2  # also when nothing is left to prepare
    assert main([*command, "--allow", rows[1]["study_id"]]) == 0
    assert main([*command, "--allow", "nobody"]) == 2


def test_rejected_studies_are_judged_in_a_test_but_said(
    trained: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metrics of a held-back set never stop at one odd study; fitting does, and names the row of two that are alike."""
    with cohort.open(newline="") as file:
        rows = [row | {"split": split} for row, split in zip(csv.DictReader(file), ("test", "train", "val"), strict=False)]
    for row in rows:
        for column in ("image", "lobes", "lungs", "infection"):
            row[column] = str(cohort.parent / row[column]) if row[column] else ""
    twin = rows[0] | {"study_id": "twin", "patient_id": "another"}
    with (tmp_path / "twins.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([*rows, twin])
    command = ["--config", str(trained / "config.in.yaml"), "--data.manifest", str(tmp_path / "twins.csv")]
    with pytest.warns(UserWarning, match=r"rejects 1 of these 4 studies \(twin\)"):
        assert main(["test", *command, "--ckpt_path", str(trained / "best.ckpt"), "--trainer.default_root_dir", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["fit", *command, "--trainer.default_root_dir", str(tmp_path)]) == 2
    assert "study twin is rejected" in capsys.readouterr().err


def test_clean_drops_a_row_without_a_study_id(clean: Path) -> None:
    lines = (clean / "manifest.csv").read_text().splitlines()
    broken = clean / "broken.csv"
    broken.write_text("\n".join([*lines[:3], lines[3][lines[3].index(",") :]]) + "\n")
    assert run(broken, "--clean", str(clean / "kept.csv"))[0] == 1
    assert (clean / "kept.csv").read_text().splitlines() == lines[:3]


def test_brackets_in_names_are_no_markup(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (clean / "manifest.csv").read_text().splitlines()
    first = lines[1].split(",")
    odd = clean / "odd.csv"
    odd.write_text("\n".join([lines[0], ",".join(["s[/old]", *first[1:3], "[thin]/no.nii.gz", *first[4:]])]) + "\n")
    assert run(odd)[0] == 1
    assert "s[/old]" in capsys.readouterr().out


class Dying:
    """Stands for a pool whose worker the system killed."""

    def __init__(self, *_: object, **__: object) -> None:
        self.future: Future[object] = Future()
        self.future.set_exception(BrokenProcessPool("killed"))

    def submit(self, *_: object) -> Future[object]:
        return self.future

    def shutdown(self, **_: object) -> None:
        """Nothing runs."""


def test_a_killed_worker_condemns_no_study(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("m2net.machine.ProcessPoolExecutor", Dying)
    journal = tmp_path / "journal"
    assert main(["verify", str(clean / "manifest.csv"), "--journal", str(journal), "--clean", str(clean / "never.csv")]) == 2
    assert "fewer --workers" in capsys.readouterr().err
    assert not journal.exists()
    assert not (clean / "never.csv").exists()
    assert main(["prepare", str(clean / "manifest.csv"), "--store", str(tmp_path / "store"), "--spacing", "4"]) == 2


def test_a_damaged_zip_is_one_studys_fault(tmp_path: Path) -> None:
    """A byte overwritten within the packed data: zlib, not zipfile, says so."""
    write_series(tmp_path / "s", volume())
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((tmp_path / "s").iterdir()):
            archive.write(file, file.name)
    whole = (tmp_path / "s.zip").read_bytes()
    for place in range(60, 600, 9):
        (tmp_path / f"{place}.zip").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    names = sorted(p.stem for p in tmp_path.glob("[0-9]*.zip"))
    (tmp_path / "m.csv").write_text("\n".join(["study_id,patient_id,modality,image", *(f"s{n},p{n},ct,{n}.zip" for n in names)]) + "\n")
    code, verdicts = run(tmp_path / "m.csv")
    assert code == 1
    assert set(verdicts) == {f"s{n}" for n in names}
    assert not [v for v in verdicts.values() for f in v["findings"] if "broke the reader" in f["reason"]]


@pytest.mark.parametrize("option", ["--clean", "--json", "--journal"])
def test_the_manifest_is_not_written_over(clean: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    before = (clean / "manifest.csv").read_bytes()
    assert main(["verify", str(clean / "manifest.csv"), option, str(clean / "manifest.csv")]) == 2
    assert f"{option} is {clean / 'manifest.csv'} itself, which is read" in capsys.readouterr().err
    assert (clean / "manifest.csv").read_bytes() == before
