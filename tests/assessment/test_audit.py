"""A planted shortcut is found and takes its model's success away; a model of the disease keeps it."""

from __future__ import annotations

import csv
import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m2net.assessment.audit import ALL, ClassAudit, Strongest, _numbers, _single_facts, _strata, _strongest, _tables, audit, pooled_auc
from m2net.assessment.shortcuts import as_fact
from m2net.bags.store import spacings
from m2net.cli.main import main
from m2net.errors import ConfigError
from m2net.objectives import Interval
from m2net.recipes.table import read_table
from m2net.reports.audit import show_audit
from m2net.reports.results import write_table


def test_pooled_auc_is_the_share_of_pairs_won_within_strata(rng: np.random.Generator) -> None:
    score, positive, stratum = rng.normal(size=60).round(1), rng.random(60) < 0.4, rng.integers(0, 3, 60)
    won = pairs = 0.0
    for i in np.flatnonzero(positive):
        for j in np.flatnonzero(~positive):
            if stratum[i] == stratum[j]:
                pairs += 1
                won += float(score[i] > score[j]) + 0.5 * float(score[i] == score[j])
    assert pooled_auc(score, positive, stratum) == pytest.approx(won / pairs)


def test_a_model_of_the_shortcut_loses_and_a_model_of_the_disease_does_not(rng: np.random.Generator) -> None:
    label = rng.random(300) < 0.5
    white = label + rng.normal(0, 0.7, 300)
    sites = rng.choice(["a", "b"], 300)
    facts = [{"saturation": {"white_share": float(w)}, "site": {"site": str(n)}} for w, n in zip(white, sites, strict=True)]
    disease = label + rng.normal(0, 0.7, 300)
    names, patients = ["sick" if v else "well" for v in label], [str(k // 2) for k in range(300)]
    for score, kept in ((white, False), (disease, True)):
        (found,) = audit(names, patients, facts, {"sick": score, "well": -score})
        assert found.strongest.name == "saturation/white_share"
        assert found.families["saturation"].value > 0.75
        assert abs(found.families["site"].value - 0.5) < 0.12
        assert found.families[ALL].value > 0.75
        assert found.model.value > 0.8
        assert (found.lost.value < 0.06) if kept else (found.lost.value > 0.12)
        assert found.lost.low <= found.lost.value <= found.lost.high


def test_a_date_is_a_day_however_it_is_written(rng: np.random.Generator) -> None:
    """Every case after the first of March and every control before: a perfect shortcut, as text or as a number."""
    days = rng.permutation(200)
    written = [date(2020, 1, 1) + timedelta(days=int(day)) for day in days]
    for texts in ([d.isoformat() for d in written], [f"{d.isoformat()}T08:30" for d in written], [f"{d:%Y%m%d}" for d in written]):
        facts = [{"column date": {"date": as_fact(text)}} for text in texts]
        assert _strongest(_single_facts(facts), days >= 60) == Strongest("column date/date", 1.0)
        assert _tables(facts)["column date"].shape == (200, 1)
        assert len(np.unique(_strata(_single_facts(facts)["column date/date"]))) == 3
        facts[7] = {"column date": {"date": as_fact("unknown")}}  # below every day, and no category of its own
        assert _strongest(_single_facts(facts), days >= 60).auc > 0.99
        assert _tables(facts)["column date"].shape == (200, 1)
    assert as_fact("2020-01-02T12:00") == pytest.approx(float(as_fact("2020-01-01")) + 1.5)
    assert as_fact("LightSpeed 16") == "LightSpeed 16"


def test_a_column_may_have_a_slash_in_its_name() -> None:
    facts = [{"column date/time": {"date/time": float(k % 2)}} for k in range(8)]
    assert _single_facts(facts) == {"column date/time/date/time": [float(k % 2) for k in range(8)]}
    np.testing.assert_array_equal(_tables(facts)["column date/time"][:, 0], np.arange(8) % 2)


def test_pairs_of_two_folds_say_nothing(rng: np.random.Generator) -> None:
    """Of a cross-validated model each fold is another model: what they say of everyone must not win or lose pairs."""
    label, fold = rng.random(240) < 0.5, np.repeat([0, 1, 2], 80)
    score = label + rng.normal(0, 0.7, 240)
    facts = [{"border": {"mean": float(v)}} for v in rng.random(240)]
    names, patients = ["sick" if v else "well" for v in label], [str(k) for k in range(240)]
    (plain,) = audit(names, patients, facts, {"sick": score}, fold)
    (moved,) = audit(names, patients, facts, {"sick": score + 3.0 * fold}, fold)
    (pooled,) = audit(names, patients, facts, {"sick": score + 3.0 * fold})
    assert (moved.model, moved.within, moved.lost) == (plain.model, plain.within, plain.lost)
    assert pooled.model.value < plain.model.value - 0.1


def test_forests_of_two_folds_are_not_compared(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """What a forest says of everyone hangs on the folds that it learnt from; its ranks within its own fold do not."""
    grown: list[object] = []

    class Shifted:
        def __init__(self, *args: object, **options: object) -> None:
            grown.append(self)
            self.shift = float(len(grown))

        def fit(self, table: np.ndarray, positive: np.ndarray) -> Shifted:
            return self

        def predict_proba(self, table: np.ndarray) -> np.ndarray:
            return np.stack([-table[:, 0], table[:, 0] + self.shift], axis=1)

    monkeypatch.setattr("sklearn.ensemble.RandomForestClassifier", Shifted)
    value = rng.random(60)
    facts, names = [{"border": {"mean": float(v)}} for v in value], ["sick" if v > 0.5 else "well" for v in value]
    (found,) = audit(names, [str(k) for k in range(60)], facts)
    assert len(grown) > 1
    assert found.families["border"].value == 1.0


def test_values_that_many_share_are_a_stratum(rng: np.random.Generator) -> None:
    """Most pictures have no white at all: a model that reads the rest off their white must still lose by the strata."""
    label = rng.random(400) < 0.5
    white = np.where(rng.random(400) < np.where(label, 0.3, 0.85), 0.0, rng.random(400))
    facts = [{"saturation": {"white_share": float(w)}} for w in white]
    (found,) = audit(["sick" if v else "well" for v in label], [str(k) for k in range(400)], facts, {"sick": white})
    assert found.model.value > 0.7
    assert abs(found.within.value - 0.5) < 0.1


@pytest.mark.parametrize("n", [30, 31, 32])
def test_one_study_is_no_stratum(n: int) -> None:
    """Of 31 different values the tertiles' edges are two of them: these still belong to a tertile, and to pairs."""
    strata = _strata([float(v) for v in np.random.default_rng(n).permutation(n)])
    assert sorted(np.unique(strata, return_counts=True)[1].tolist()) == sorted([n // 3 + (k < n % 3) for k in range(3)])


def test_of_two_classes_the_one_that_the_model_speaks_of_is_audited(rng: np.random.Generator) -> None:
    label = rng.random(60) < 0.5
    facts = [{"border": {"mean": float(v)}} for v in rng.random(60)]
    names, patients = ["sick" if v else "well" for v in label], [str(k) for k in range(60)]
    (found,) = audit(names, patients, facts, {"well": -label.astype(float)})
    assert (found.name, found.positives, found.model.value) == ("well", int((~label).sum()), 1.0)


def test_a_family_that_one_class_lacks_is_shown_empty(capsys: pytest.CaptureFixture[str]) -> None:
    figure = Interval(0.5, 0.4, 0.6)
    one = ClassAudit("cap", 3, {"site": figure, "border": figure}, Strongest("site/site", 0.5))
    other = ClassAudit("covid19", 3, {"border": figure, "date": figure}, Strongest("border/mean", 0.5))
    show_audit("diagnosis", [one, other])
    lines = capsys.readouterr().out.splitlines()
    assert {word for line in lines for word in ("site", "border", "date") if line.strip("│ ").startswith(word)} == {
        "site",
        "border",
        "date",
    }


def test_a_fact_that_a_class_lacks_is_one_stratum(rng: np.random.Generator) -> None:
    """Kernels are known of one site only, whose studies say that it is one of two diseases: those are no part of the audit of either."""
    label = np.array(["covid19", "cap", "non_pneumonia"])[rng.integers(0, 3, 90)]
    names = [*label, *["covid19|cap"] * 20]
    facts = [{"border": {"mean": float(v)}} for v in rng.random(90)] + [{"acquisition": {"kernel": "sharp"}}] * 20
    scores = {name: np.array([float(n == name) for n in names]) for name in ("covid19", "cap", "non_pneumonia")}
    found = {one.name: one for one in audit(names, [str(k) for k in range(110)], facts, scores, strata="acquisition/kernel")}
    assert found["covid19"].within.value == found["covid19"].model.value == 1.0
    assert found["covid19"].lost.value == 0


def test_few_of_a_class_have_no_interval(rng: np.random.Generator) -> None:
    names = ["sick"] * 6 + ["well"] * 60
    facts = [{"border": {"mean": float(v)}} for v in rng.random(66)]
    (found,) = audit(names, [str(k) for k in range(66)], facts, {"sick": rng.random(66)})
    assert np.isnan([found.model.low, found.lost.low, found.families["border"].low]).all()
    assert np.isfinite(found.model.value)


def test_folds_of_the_forest_keep_patients_together(rng: np.random.Generator) -> None:
    """Facts that only identify the patient tell nothing, once patients are not in two folds."""
    patients = [str(k // 5) for k in range(300)]
    label = rng.choice(["a", "b"], 60)
    facts = [{"border": {"mean": float(number), "spread": 0.0}} for number in np.repeat(rng.permutation(60), 5)]
    (found,) = audit([str(label[k // 5]) for k in range(300)], patients, facts)
    assert abs(found.families["border"].value - 0.5) < 0.2  # with a patient in two folds it is 1.0
    assert found.model is None


def test_one_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 classes"):
        audit(["a", "a", ""], ["1", "2", "3"], [{}, {}, {}])


def test_scores_are_no_classes(tmp_path: Path, cohort: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"severity": str(k), "severity_scheme": "score:ctss"} for k, row in enumerate(read_table(cohort))]
    for row in rows:
        row |= {c: str(cohort.parent / row[c]) for c in ("image", "lobes", "lungs", "infection") if row[c]}
    write_table(tmp_path / "m.csv", rows)
    assert main(["audit", str(tmp_path / "m.csv"), "--store", str(store), "--spacing", "6", "--label", "severity"]) == 2
    assert "severity is given in score:ctss" in capsys.readouterr().err


def test_the_command_finds_a_printed_letter(tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for k in range(60):
        plane = np.full((90, 110), 20.0)
        y, x = np.mgrid[:90, :110]
        plane[((y - 45) / 38) ** 2 + ((x - 55) / 48) ** 2 < 1] = 170
        for side in (-22, 22):
            plane[((y - 45) / 24) ** 2 + ((x - 55 - side) / 15) ** 2 < 1] = 60
        plane += rng.normal(0, 4, plane.shape)
        sick = k % 2 == 0
        plane = plane.clip(0, 254)
        if sick:
            plane[4:10, 4:7] = 255
        Image.fromarray(plane.astype(np.uint8)).save(tmp_path / f"{k}.png")
        rows.append({"study_id": f"s{k}", "patient_id": f"p{k}", "modality": "ct", "image": f"{k}.png",
                     "diagnosis": "covid19" if sick else "non_pneumonia|cap", "seen": f"{k % 28 + 1}. March 2020 at {k}",
                     "study_date": f"{2020 if sick else 2018}-03-{k % 28 + 1:02d}", "report_date": "last year"})  # fmt: skip
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with (tmp_path / "p.csv").open("w") as file:
        file.write("study_id,diagnosis_p_covid19\n" + "".join(f"s{k},{rng.random():.3f}\n" for k in range(60)))
    words = ["audit", str(tmp_path / "m.csv"), "--store", str(tmp_path / "store"), "--out", str(tmp_path / "a.json")]
    assert main([*words, "--predictions", str(tmp_path / "p.csv")]) == 0
    (found,) = json.loads((tmp_path / "a.json").read_text())["classes"]
    assert found["name"] == "covid19"
    assert found["families"]["marks"]["value"] > 0.95
    assert "image size" not in found["families"]  # all are of one size
    assert found["families"]["border"]["value"] < 0.7
    assert found["families"]["column study_date"]["value"] > 0.95  # unasked
    assert "column report_date" not in found["families"]
    assert abs(found["model"]["value"] - 0.5) < 0.25
    assert main([*words, "--strata", "marks/nothing"]) == 2
    assert main([*words, "--columns", "diagnosis"]) == 2
    capsys.readouterr()
    assert main([*words, "--columns", "seen"]) == 2
    assert "dates as 2020-03-31" in capsys.readouterr().err
    (tmp_path / "other.csv").write_text("study_id,diagnosis_p_covid19\nanother,0.5\n")
    assert main([*words, "--predictions", str(tmp_path / "other.csv")]) == 2
    table = (tmp_path / "p.csv").read_text()
    (tmp_path / "excel.csv").write_text("\ufeff" + table, encoding="utf-8")  # as a spreadsheet saves it
    assert main([*words, "--predictions", str(tmp_path / "excel.csv")]) == 0
    (tmp_path / "comma.csv").write_text("study_id;diagnosis_p_covid19\n".replace(";", ",") + "".join(f's{k},"0,5"\n' for k in range(60)))
    capsys.readouterr()
    assert main([*words, "--predictions", str(tmp_path / "comma.csv")]) == 2
    assert "diagnosis_p_covid19 holds no number" in capsys.readouterr().err


def test_the_audit_takes_the_pixel_size_that_the_store_has(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(cohort), "--store", str(tmp_path / "store")]
    assert main(["prepare", *words, "--spacing", "4"]) == 0
    prepared = {path.name for path in (tmp_path / "store").iterdir()}
    assert main(["audit", *words]) == 0
    assert {path.name for path in (tmp_path / "store").iterdir()} == prepared  # nothing was prepared a second time
    assert main(["prepare", *words, "--spacing", "3"]) == 0
    assert main(["audit", *words]) == 2
    assert "is prepared at 3, 4 mm" in capsys.readouterr().err
    (tmp_path / "store" / "spacings.json").unlink()  # as a store of before
    assert main(["audit", *words]) == 2
    assert "prepared at a pixel size that it does not tell" in capsys.readouterr().err


def test_a_pixel_size_at_which_nothing_could_be_prepared_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    (tmp_path / "m.csv").write_text("study_id,patient_id,modality,image\ns,p,ct,broken.nii.gz\n")
    assert main(["prepare", str(tmp_path / "m.csv"), "--store", str(tmp_path / "store"), "--spacing", "4"]) == 2
    assert spacings(tmp_path / "store") == []


def test_what_tertiles_leave_of_a_fact_is_said(rng: np.random.Generator) -> None:
    """A model that is the strongest fact and nothing else keeps within its tertiles what the fact keeps, which is far above 0.5."""
    n = 600
    fact = rng.normal(size=n)
    positive = rng.random(n) < 1 / (1 + np.exp(-2 * fact))
    labels = np.where(positive, "covid19", "non_pneumonia").tolist()
    facts = [{"border": {"mean": float(v)}} for v in fact]
    (found,) = audit(labels, [f"p{k}" for k in range(n)], facts, {"covid19": fact, "non_pneumonia": -fact})
    assert None not in (found.within, found.fact, found.lost, found.model)
    assert found.fact.value == pytest.approx(found.within.value)
    assert 0.6 < found.fact.value < found.model.value - 0.1
    assert found.lost.value == pytest.approx(found.model.value - found.within.value)


def test_folds_of_other_prevalence_lose_nothing_by_one_stratum(rng: np.random.Generator) -> None:
    """Pairs are what strata are counted by, on both sides of what is lost."""
    positive = np.concatenate([np.arange(200) < 100, np.arange(200) < 10])
    fold = np.repeat([0, 1], 200)
    score = rng.normal(size=400) + positive * np.where(fold == 0, 2.0, 0.5)
    labels = np.where(positive, "covid19", "non_pneumonia").tolist()
    facts = [{"site": {"site": "one"}, "border": {"mean": float(v)}} for v in rng.normal(size=400)]
    (found,) = audit(labels, [f"p{k}" for k in range(400)], facts, {"covid19": score}, fold, strata="site/site")
    assert found.lost is not None
    assert (found.lost.value, found.lost.low, found.lost.high) == (0, 0, 0)


def test_what_is_unknown_is_a_stratum() -> None:
    strata = _strata([*map(float, range(9)), "", ""])
    assert len(np.unique(strata)) == 4
    assert strata[-1] == strata[-2]
    assert strata[-1] not in strata[:-2]


def test_what_is_not_finite_is_unknown(rng: np.random.Generator) -> None:
    """A logarithm of nothing in a column of the manifest."""
    numbers = _numbers([1.0, float("-inf"), "", 3.0, float("inf")])
    np.testing.assert_array_equal(numbers[:, 0], [1, 0, 0, 3, 0])
