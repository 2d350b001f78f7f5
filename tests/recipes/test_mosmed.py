from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from m2net.cli.main import main
from m2net.studies import read_image, read_manifest, read_mask
from m2net.vocabulary import Column, Diagnosis


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def test_a_miniature_of_the_layout(tmp_path: Path) -> None:
    image = np.full((3, 6, 5), -900, np.int16)
    image[:, 0] = 40
    for grade, number in ((0, 1), (1, 255), (4, 1109)):
        write(tmp_path / "studies" / f"CT-{grade}" / f"study_{number:04d}.nii.gz", image)
    mask = np.zeros((3, 6, 5), np.uint8)
    mask[1, 2:4] = 1
    write(tmp_path / "masks" / "study_0255_mask.nii.gz", mask)
    (tmp_path / "studies" / "CT-0" / "README.txt").write_text("no study")
    assert main(["recipe", "mosmed", str(tmp_path)]) == 0
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert [(s.study_id, s.severity, s.severity_scheme) for s in manifest] == [
        ("study_0001", 0.0, "ordinal:5"), ("study_0255", 1.0, "ordinal:5"), ("study_1109", 4.0, "ordinal:5"),
    ]  # fmt: skip
    assert [set(s.diagnosis) for s in manifest] == [{Diagnosis.NON_PNEUMONIA}, {Diagnosis.COVID19}, {Diagnosis.COVID19}]
    second = manifest.studies[1]
    found = read_mask(second.masks[Column.INFECTION], Column.INFECTION, read_image(second.image)).array
    assert set(np.unique(found)) == {0, 3}
    assert (found > 0).sum() == mask.sum()


def test_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "mosmed", str(tmp_path)]) == 2
    assert "holds no studies/CT-*" in capsys.readouterr().err
