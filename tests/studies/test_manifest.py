from __future__ import annotations

import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from m2net.cli.crossval import has_folds
from m2net.cli.main import main
from m2net.errors import ConfigError, ManifestError
from m2net.studies import Study, assign_folds, assign_parts, part_of, read_manifest
from m2net.studies.fingerprint import files_of
from m2net.vocabulary import Diagnosis, Modality, Split

HEAD = "study_id,patient_id,modality,image,diagnosis,severity,severity_scheme,split,colour"


def write(folder: Path, *lines: str, head: str = HEAD) -> Path:
    (folder / "a.mha").touch()
    (folder / "m.csv").write_text("\n".join([head, *lines]))
    return folder / "m.csv"


def test_labels_and_further_columns(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, "s1,p1,ct,a.mha,non_pneumonia|cap,2,ordinal:4,train,red", "s2,p2,ct,a.mha,,,,,"))
    first, second = manifest
    assert first.diagnosis == {Diagnosis.NON_PNEUMONIA, Diagnosis.CAP}
    assert (first.severity, first.severity_scheme, first.split) == (2.0, "ordinal:4", Split.TRAIN)
    assert first.extra == {"colour": "red"}
    assert (second.severity, second.diagnosis, second.split) == (None, frozenset(), None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("s1,p1,mr,a.mha,,,,,", "row 2: modality is 'mr'.*ct, cxr"),
        ("s1,p1,ct,b.mha,,,,,", "row 2: image .*b.mha does not exist"),
        ("s1,,ct,a.mha,,,,,", "row 2: patient_id is empty"),
        ("s1,p1,ct,a.mha,flu,,,,", "row 2: diagnosis is 'flu'"),
        ("s1,p1,ct,a.mha,,1,,,", "row 2: severity is 1 without a severity_scheme"),
        ("s1,p1,ct,a.mha,,2,binary,,", "whole number from 0 to 1"),
        ("s1,p1,ct,a.mha,,4,ordinal:4,,", "whole number from 0 to 3"),
        ("s1,p1,ct,a.mha,,1,ordinal:x,,", "ordinal:GRADES"),
        ("s1,p1,ct,a.mha,,bad,binary,,", "severity is 'bad'"),
        ("s1,p1,ct,a.mha,,,,holdout,", "split is 'holdout'"),
        (f"s1,p1,ct,{'a' * 300}.mha,,,,,", "row 2: image .* cannot be reached .*Check the path and the rights"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path, line))


def test_rows_that_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="row 3: study_id s1 is in row 2 too"):
        read_manifest(write(tmp_path, "s1,p1,ct,a.mha,,,,,", "s1,p2,ct,a.mha,,,,,"))
    with pytest.raises(ManifestError, match="patient p1 is in split test.*train.*row 2"):
        read_manifest(write(tmp_path, "s1,p1,ct,a.mha,,,,train,", "s2,p1,ct,a.mha,,,,test,"))


@pytest.mark.parametrize(
    ("head", "line", "message"),
    [
        ("study_id,patient_id,modality,image, series", "s1,p1,ct,a.mha,2", "a column ' series'; expected 'series'"),
        ("study_id,patient_id,modality,image,Split", "s1,p1,ct,a.mha,train", "a column 'Split'; expected 'split'"),
        ("study_id,patient_id,modality,image,Score_brixia", "s1,p1,cxr,a.mha,4", "a column 'Score_brixia'; expected 'score_brixia'"),
        ("study_id,patient_id,modality,image,site,site", "s1,p1,ct,a.mha,a,b", "2 columns 'site'"),
        ("study_id,patient_id,modality,image,site", "s1,p1,ct,a.mha,Bern, Insel", "row 2: ' Insel' stands beyond the last column"),
    ],
)
def test_columns_that_would_be_passed_over_are_named(tmp_path: Path, head: str, line: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path, line, head=head))


@pytest.mark.parametrize("closed", ["", '"'])
def test_a_quotation_mark_that_swallows_rows_is_told(tmp_path: Path, closed: str) -> None:
    """Left open to the end, or closed by another stray one two rows below: either way three patients would be one."""
    lines = ['s1,p1,ct,a.mha,"slight motion', "s2,p2,ct,a.mha,", f"s3,p3,ct,a.mha,well{closed}", "s4,p4,ct,a.mha,"]
    with pytest.raises(ManifestError, match="its quotation marks in pairs" if not closed else "row 4: the cell note holds whole rows"):
        read_manifest(write(tmp_path, *lines, head="study_id,patient_id,modality,image,note"))


def test_a_note_may_have_lines_and_commas(tmp_path: Path) -> None:
    lines = ['s1,p1,ct,a.mha,"Findings:', 'No effusion, no pneumothorax, heart normal, aorta normal, no nodes"', "s2,p2,ct,a.mha,"]
    studies = list(read_manifest(write(tmp_path, *lines, head="study_id,patient_id,modality,image,note")))
    assert [s.study_id for s in studies] == ["s1", "s2"]
    assert studies[0].extra["note"].splitlines() == ["Findings:", "No effusion, no pneumothorax, heart normal, aorta normal, no nodes"]


def test_a_label_that_leaves_everything_open_is_unknown(tmp_path: Path) -> None:
    lines = ["s1,p1,ct,a.mha,covid19|non_pneumonia|cap", "s2,p2,ct,a.mha,cap|covid19"]
    studies = list(read_manifest(write(tmp_path, *lines, head="study_id,patient_id,modality,image,diagnosis")))
    assert [len(s.possible) for s in studies] == [0, 2]


def test_empty_columns_of_a_spreadsheet_are_none(tmp_path: Path) -> None:
    assert len(read_manifest(write(tmp_path, "s1,p1,ct,a.mha,,,", head="study_id,patient_id,modality,image,,"))) == 1


def test_split_mends_what_it_sets_anew(tmp_path: Path) -> None:
    """A follow-up without a part beside the patient's first study: the remedy that is named must lead out."""
    manifest = write(tmp_path, "s1,p1,ct,a.mha,,,,train,", "s2,p1,ct,a.mha,,,,,", "s3,p2,ct,a.mha,,,,odd,")
    assert main(["split", str(manifest), "--parts", "0.5", "0.5", "0"]) == 0
    parts = {s.study_id: s.split for s in read_manifest(manifest.with_suffix(".split.csv"))}
    assert parts["s1"] == parts["s2"] is not None
    assert main(["split", str(manifest), "--folds", "2"]) == 2  # the other column stays as wrong as it was


def test_folds_that_a_manifest_has_are_its_own(tmp_path: Path) -> None:
    head = "study_id,patient_id,modality,image,fold"
    lines = [f"s{k},p{k},ct,a.mha,{k % 3}" for k in range(6)]
    whole = read_manifest(write(tmp_path, *lines, head=head))
    assert has_folds(whole, 3)
    with pytest.raises(ConfigError, match="has the folds 0, 1, 2; expected 0 to 3 with --folds 4, in every row"):
        has_folds(whole, 4)
    with pytest.raises(ConfigError, match="0, 1, 2, none"):
        has_folds(read_manifest(write(tmp_path, *lines, "s9,p9,ct,a.mha,", head=head)), 3)
    assert not has_folds(read_manifest(write(tmp_path, *[line[:-1] for line in lines], head=head)), 3)


def test_missing_column_and_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no column patient_id"):
        read_manifest(write(tmp_path, "s1,ct,a.mha", head="study_id,modality,image"))
    with pytest.raises(ManifestError, match="does not exist"):
        read_manifest(tmp_path / "none.csv")


def test_folds_keep_patients_and_strata(tmp_path: Path) -> None:
    lines = [f"s{i},p{i // 2},ct,a.mha,,{(i // 2) % 2},binary,," for i in range(80)]
    studies = read_manifest(write(tmp_path, *lines)).studies
    folds = assign_folds(studies, 4, seed=0)
    assert set(folds) == {f"p{i}" for i in range(40)}
    for fold in range(4):
        grades = [s.severity for s in studies if folds[s.patient_id] == fold]
        assert len(grades) == 20
        assert sum(g == 1 for g in grades) == 10
    assert folds == assign_folds(studies, 4, seed=0)
    assert folds != assign_folds(studies, 4, seed=1)
    with pytest.raises(ManifestError, match="40 patients in 41 folds"):
        assign_folds(studies, 41, seed=0)


def test_a_name_of_two_spellings_is_one_patient(tmp_path: Path) -> None:
    """An accent of its own behind the letter, as some systems write it, and the letter with its accent."""
    names = [unicodedata.normalize(form, f"J\u00f6rg {k}") for k in range(6) for form in ("NFC", "NFD")]
    path = write(tmp_path, *[f"s{k},{name},ct,a.mha,,,,," for k, name in enumerate(names)])
    assert main(["split", str(path), "--folds", "3"]) == 0
    folds: dict[str, set[int | None]] = {}
    for study in read_manifest(path.with_suffix(".split.csv")):
        folds.setdefault(study.patient_id, set()).add(study.fold)
    assert sorted(folds) == names[::2]
    assert all(len(one) == 1 for one in folds.values())


def test_a_rare_stratum_gives_no_warning_of_another_library(tmp_path: Path) -> None:
    lines = [f"s{i},p{i},ct,a.mha,,{int(i == 0)},binary,," for i in range(12)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(assign_folds(read_manifest(write(tmp_path, *lines)).studies, 3, seed=0).values()) == {0, 1, 2}


def test_parts_have_their_shares_in_each_stratum(tmp_path: Path) -> None:
    studies = read_manifest(write(tmp_path, *[f"s{i},p{i},ct,a.mha,,{i % 2},binary,," for i in range(100)])).studies
    parts = assign_parts(studies, (0.6, 0.1, 0.3), seed=0)
    for grade in (0, 1):
        counts = [sum(parts[s.patient_id] is split and s.severity == grade for s in studies) for split in Split]
        assert counts == [30, 5, 15]
    with pytest.raises(ManifestError, match="sum to 1"):
        assign_parts(studies, (0.6, 0.6, 0.3), seed=0)


def test_few_masks_are_spread(tmp_path: Path) -> None:
    """Masks that a tenth of the studies have lie in every part and fold; masks that all have change neither."""
    (tmp_path / "m.nii.gz").touch()
    head = "study_id,patient_id,modality,image,severity,severity_scheme,lobes"
    drawn = np.random.default_rng(0).permutation(120)
    for kept, spread in ((12, True), (0, False), (120, False)):
        lines = [f"s{k},p{k},ct,a.mha,{k % 2},binary,{'m.nii.gz' if drawn[k] < kept else ''}" for k in range(120)]
        studies = read_manifest(write(tmp_path, *lines, head=head)).studies
        parts, folds = assign_parts(studies, (0.5, 0.25, 0.25), seed=0), assign_folds(studies, 3, seed=0)
        if spread:
            masked = [s.patient_id for s in studies if s.masks]
            assert sorted(Counter(str(parts[p]) for p in masked).items()) == [("test", 3), ("train", 6), ("val", 3)]
            assert sorted(Counter(folds[p] for p in masked).values()) == [4, 4, 4]
        elif not kept:
            without = parts, folds
        else:
            assert (parts, folds) == without


def test_few_masks_do_not_break_small_strata(tmp_path: Path) -> None:
    """Nine severe patients, four with a mask, stay one stratum of five folds; a mask in each stratum of four is not always trained on."""
    (tmp_path / "m.nii.gz").touch()
    head = "study_id,patient_id,modality,image,severity,severity_scheme,lobes,site"
    lines = [f"s{k},p{k},ct,a.mha,{int(k < 9)},binary,{'m.nii.gz' if k < 4 else ''}," for k in range(60)]
    folds = assign_folds(read_manifest(write(tmp_path, *lines, head=head)).studies, 5, seed=0)
    assert sorted(Counter(folds[f"p{k}"] for k in range(9)).values()) == [1, 2, 2, 2, 2]
    lines = [f"s{k},p{k},ct,a.mha,1,binary,{'' if k % 4 else 'm.nii.gz'},site{k // 4}" for k in range(80)]
    parts = assign_parts(read_manifest(write(tmp_path, *lines, head=head)).studies, (0.5, 0.25, 0.25), seed=0)
    assert Counter(str(parts[f"p{k}"]) for k in range(0, 80, 4)) == {"train": 10, "val": 5, "test": 5}


def test_the_fold_that_chooses_is_not_the_one_judged(tmp_path: Path) -> None:
    manifest = read_manifest(
        write(tmp_path, *[f"s{i},p{i},ct,a.mha,{i % 4}" for i in range(8)], head="study_id,patient_id,modality,image,fold")
    )
    for fold in range(4):
        parts = [part_of(s, fold, 4) for s in manifest]
        assert [i for i, p in enumerate(parts) if p is Split.TEST] == [fold, fold + 4]
        assert [i % 4 for i, p in enumerate(parts) if p is Split.VAL] == [(fold + 1) % 4] * 2


def test_leave_one_site_out(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_bytes(b"x")
    rows = [("a", "p1", "north"), ("b", "p1", "north"), ("c", "p2", "home"), ("d", "p3", "south")]

    def write(rows: list[tuple[str, str, str]]) -> Path:
        lines = ["study_id,patient_id,modality,image,site", *(f"{s},{p},ct,i.png,{site}" for s, p, site in rows)]
        (tmp_path / "m.csv").write_text("\n".join(lines))
        return tmp_path / "m.csv"

    assert main(["split", str(write(rows)), "--leave-one-site-out"]) == 0
    assert {s.study_id: s.fold for s in read_manifest(tmp_path / "m.split.csv")} == {"a": 1, "b": 1, "c": 0, "d": 2}
    assert main(["split", str(write([*rows, ("e", "p1", "south")])), "--leave-one-site-out"]) == 2  # a patient at two sites
    assert main(["split", str(write([*rows, ("e", "p5", "")])), "--leave-one-site-out"]) == 2


def test_files_of_a_detached_header_are_its_own(tmp_path: Path) -> None:
    """LUNA16 names scans by UIDs that begin alike."""
    own, others = ["1.mhd", "1.raw", "1.raw.gz", "1.zraw"], ["12.mhd", "12.raw", "1.5.mhd", "1.5.raw"]
    for name in (f"1.3.6.{end}" for end in (*own, *others)):
        (tmp_path / name).write_bytes(b"x")
    study = Study("s", "p", Modality.CT, tmp_path / "1.3.6.1.mhd")
    assert [p.name for _, p in files_of(study)] == [f"1.3.6.{end}" for end in own]


def test_a_fold_is_a_plain_number(tmp_path: Path) -> None:
    """A superscript is a digit to Python, and no number."""
    (tmp_path / "a.mha").touch()
    (tmp_path / "m.csv").write_text("study_id,patient_id,modality,image,fold\ns,p,ct,a.mha,²\n")
    with pytest.raises(ManifestError, match="fold is '²'"):
        read_manifest(tmp_path / "m.csv")
