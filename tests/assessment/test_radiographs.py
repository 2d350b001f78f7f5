"""Radiographs through the front door: fit, test, assess, whatever the picture's kind and size."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pydicom
import pytest
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_sample_image

from m2net.bags.datamodule import BagDataModule
from m2net.bags.transforms import to_input
from m2net.cli.main import main
from m2net.phantoms.files import write_dicom_radiograph
from m2net.training import load_model, read_checkpoint
from tests.assessment.test_assessment import SCHEMA
from tests.conftest import REAL

DENSE = {"name": "dense"}
TASKS = {
    "infection": {"head": DENSE, "objective": {"name": "segmentation", "mask": "infection", "gamma": 1.0}},
    "lungs": {"head": DENSE, "objective": {"name": "segmentation", "mask": "lungs"}},
    "extent": {"head": {"name": "pooled", "source": "both"}, "objective": {"name": "score", "score": "geographic_extent"}},
    "detection": {"objective": {"name": "detection", "lungs": "lungs", "sensitivity": 0.5, "probabilities": [0.02, 0.1, 0.3, 0.5]}},
    "burden": {"objective": {"name": "burden"}},
}
INPUT = {
    "modality": "cxr", "intensity": "relative", "spacing_mm": 1.0, "patch": 64, "view": "slices", "normalise": "lungs",
    "window": [0, 32767],
}  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("radiographs")
    assert main(["phantom", "--modality", "cxr", "--out", str(folder), "--patients", "24", "--seed", "3", "--matrix", "96"]) == 0
    assert main(["split", str(folder / "manifest.csv"), "--parts", "0.5", "0.25", "0.25"]) == 0
    return folder / "manifest.split.csv"


@pytest.fixture(scope="module")
def trained(films: Path, configure: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cxr_run")
    data = {
        "manifest": str(films), "store": str(folder / "store"), "input": INPUT, "masks": ["infection", "lungs"], "instances": 1,
        "studies_per_batch": 4, "augmentation": {"rotation_deg": 5},
    }  # fmt: skip
    network = {"encoder": {"name": "residual", "width": 8}, "decoder": {"name": "smp_unet", "channels": [32, 16, 16, 8]}, "chunk": 8}
    model = {"tasks": TASKS, "network": network}
    config = configure(folder, model=model, data=data, trainer={"max_steps": 40, "val_check_interval": 20})
    assert main(["fit", "--config", str(config)]) == 0
    return folder


def test_thresholds_travel_with_the_checkpoint(trained: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rule of predictions.csv follows from the checkpoint's thresholds and the area beside it."""
    calibration = load_model(trained / "best.ckpt").objectives["detection"].calibration
    assert set(calibration) == {"probability", "area"}
    words = ["test", "--config", str(trained / "config.in.yaml"), "--ckpt_path", str(trained / "best.ckpt")]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 0
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 3
    for row in rows:
        assert (row["detection_rule"] == "1.0") == (float(row["detection_area"]) >= calibration["area"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["infection/pooled_f1"] == pytest.approx(pooled(rows))
    assert metrics["lungs/dice_mean"] > 0.5
    assert metrics["extent/n"] == len(rows)
    assert metrics["extent/scale"].startswith("geographic extent, 0 to 8")
    assert "opacity, 0 to 6" in metrics["burden/scale"]  # these maps tell ground glass from consolidation
    assert "\nextent: geographic extent, 0 to 8 (Cohen et al. 2020" in capsys.readouterr().out


def test_a_map_is_called_from_the_probability_chosen_on_validation(trained: Path, films: Path, tmp_path: Path) -> None:
    """Mirrored in training and evaluation, through the command line: pixels of predictions.csv are those above the checkpoint's cut."""
    config = yaml.safe_load((trained / "config.in.yaml").read_text())
    objective = {"name": "segmentation", "mask": "infection", "merged": True, "calibrate": "f1"}
    config["model"] |= {
        "tasks": {
            "infection": {"head": {"name": "dense", "subpixel": 4}, "objective": objective},
            "lungs": TASKS["lungs"],
            "burden": TASKS["burden"],
        }
    }
    config["model"]["mirror"] = config["data"]["augmentation"]["flip"] = True
    config["trainer"] |= {"default_root_dir": str(tmp_path), "max_steps": 20}
    config["trainer"]["callbacks"][0]["init_args"]["dirpath"] = str(tmp_path)
    (tmp_path / "in.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "in.yaml")]) == 0
    assert main(["test", "--config", str(tmp_path / "in.yaml"), "--ckpt_path", str(tmp_path / "best.ckpt")]) == 0
    with (tmp_path / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert "burden_geographic_extent" in table[0]
    assert "burden_opacity" not in table[0]  # the kinds are not told apart
    claimed = {row["study_id"]: int(row["infection_claimed"]) for row in table}
    model = load_model(tmp_path / "best.ckpt").eval()
    cut = model.objectives["infection"].calibration["cut"]
    data = BagDataModule(str(films), config["data"]["store"], INPUT, masks=["infection", "lungs"], instances=1)
    data.setup("test")
    for stored in data.test_dataloader():
        batch = to_input(stored, data.spec)
        turned = replace(batch, instances=batch.instances.flip(3))
        with torch.no_grad():
            logits = (model.network(batch)["infection"].logits + model.network(turned)["infection"].logits.flip(3)) / 2
        above = (logits.softmax(1)[:, 1] >= cut) & (batch.dense["infection"] >= 0)
        assert abs(claimed[batch.study_ids[0]] - int(above.sum())) <= 1  # a pixel on the cut
    assert len(claimed) >= 3
    out = tmp_path / "said"
    assert (
        main(["assess", str(films.parent / next(iter(claimed)) / "image.png"), "--model", str(tmp_path / "best.ckpt"), "--out", str(out)])
        == 0
    )
    found = json.loads((out / "image" / "assessment.json").read_text())
    jsonschema.validate(found, SCHEMA)
    assert found["model"]["called_from"] == {"infection": cut}


def pooled(rows: list[dict[str, str]]) -> float:
    hit, claimed, present = (sum(int(row[f"infection_{name}"]) for row in rows) for name in ("hit", "claimed", "present"))
    return 2 * hit / (claimed + present)


def test_a_frozen_encoder_stays_frozen_through_a_fit(trained: Path, tmp_path: Path) -> None:
    words = ["fit", "--config", str(trained / "config.in.yaml"), "--model.start_from", str(trained / "best.ckpt")]
    words += ["--model.network.freeze_encoder", "true", "--trainer.default_root_dir", str(tmp_path), "--trainer.max_steps", "6"]
    words += ["--trainer.val_check_interval", "3", "--trainer.callbacks.init_args.dirpath", str(tmp_path)]
    assert main(words) == 0
    before, after = (load_model(folder / "best.ckpt").network for folder in (trained, tmp_path))
    kept = {k: v for k, v in before.encoder.state_dict().items() if not k.endswith("num_batches_tracked")}  # not taken over
    assert all(torch.equal(v, after.encoder.state_dict()[k]) for k, v in kept.items())
    assert not torch.equal(before.heads["lungs"].classify.weight, after.heads["lungs"].classify.weight)


def test_thresholds_of_other_weights_do_not_stay(trained: Path) -> None:
    """A checkpoint without thresholds takes away those that another left in the module."""
    model, checkpoint = load_model(trained / "best.ckpt"), read_checkpoint(trained / "best.ckpt")
    checkpoint["m2net"] = {**checkpoint["m2net"], "calibration": {}}
    model.on_load_checkpoint(checkpoint)
    assert model.objectives["detection"].calibration == {}


def shown(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth picture with two dark fields, 0 to 1."""
    y, x = (np.linspace(-1, 1, n)[(slice(None), None) if k == 0 else (None, slice(None))] for k, n in enumerate(shape))
    lungs = sum(np.exp(-(((x - side) / 0.3) ** 2 + ((y + 0.1) / 0.6) ** 2)) for side in (-0.5, 0.5))
    noise = np.random.default_rng(seed).random(shape) * 0.02
    return np.clip(0.9 - 0.7 * lungs + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize("shape", [(400, 300), (300, 420), (64, 64)])
@pytest.mark.parametrize("kind", ["8 bit", "16 bit", "MONOCHROME1", "MONOCHROME2"])
def test_every_kind_is_drawn_on_its_own_pixels(trained: Path, tmp_path: Path, shape: tuple[int, int], kind: str) -> None:
    picture = shown(shape)
    path = tmp_path / ("a.png" if "bit" in kind else "a.dcm")
    if kind == "8 bit":
        Image.fromarray((picture * 255).astype(np.uint8)).save(path)
    elif kind == "16 bit":
        Image.fromarray((picture * 65535).astype(np.uint16)).save(path)
    else:
        write_dicom_radiograph(path, picture, 0.4, "PA", "someone", inverted=kind == "MONOCHROME1")
    assert main(["assess", str(path), "--model", str(trained / "best.ckpt"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "a" / "assessment.json").read_text())
    jsonschema.validate(found, SCHEMA)
    assert found["image"]["shape_zyx"] == [1, *shape]
    assert set(found["maps"]) == {"infection", "lungs"}
    lungs = np.asarray(Image.open(tmp_path / "out" / "a" / "lungs.png"))
    assert lungs.shape == shape
    assert set(np.unique(lungs)) <= {0, 1, 2}
    assert len(found["infected_shares"]) == 8
    assert sorted(s["source"] for s in found["scores"]) == ["derived", "derived", "regressed"]
    assert sum(s["scheme"].startswith("geographic extent, 0 to 8") for s in found["scores"]) == 2
    assert "someone" not in json.dumps(found)
    page = (tmp_path / "out" / "a" / "report.html").read_text()
    assert "Research use only" in page
    assert "Infected share of the lungs" in page
    assert page.count("data:image/png;base64,") == 2


def test_the_same_picture_in_every_coding_gives_one_answer(trained: Path, tmp_path: Path) -> None:
    picture = shown((256, 256))
    Image.fromarray((picture * 65535).astype(np.uint16)).save(tmp_path / "a.png")
    write_dicom_radiograph(tmp_path / "b.dcm", picture, 0.4, "PA", "p", inverted=True)
    write_16_bit(tmp_path / "c.dcm", picture)
    Image.fromarray((picture * 4095).astype(np.uint16)).save(tmp_path / "d.png")
    names = [str(tmp_path / n) for n in ("a.png", "b.dcm", "c.dcm", "d.png")]
    assert main(["assess", *names, "--model", str(trained / "best.ckpt"), "--out", str(tmp_path / "out")]) == 0
    first, *others = (np.asarray(Image.open(tmp_path / "out" / n / "lungs.png")) for n in "abcd")
    for other in others:
        assert (first != other).mean() < 0.01


def write_16_bit(path: Path, picture: np.ndarray) -> None:
    """White-low, with all 16 bits in use."""
    write_dicom_radiograph(path, picture, 0.1, "PA", "p", inverted=True)
    data = pydicom.dcmread(path)
    data.BitsStored, data.HighBit = 16, 15
    data.PixelData = np.rint((1 - picture) * 65535).astype(np.uint16).tobytes()
    data.save_as(path)


@pytest.mark.parametrize(("bits", "contrast", "code"), [(16, 0.7, 0), (12, 0.7, 0), (16, 0.04, 1), (12, 0.04, 1)])
def test_contrast_is_judged_in_the_bits_that_are_used(tmp_path: Path, bits: int, contrast: float, code: int) -> None:
    """12 bit stored in 16, the usual export, is no flat picture."""
    picture = 0.5 + contrast * (shown((300, 300)) - 0.5)
    Image.fromarray((picture * (2**bits - 1)).astype(np.uint16)).save(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text("study_id,patient_id,modality,image\na,a,cxr,a.png\n")
    assert main(["verify", str(tmp_path / "m.csv"), "--json", str(tmp_path / "v.json")]) == code
    (study,) = json.loads((tmp_path / "v.json").read_text())
    assert [f["check"] for f in study["findings"] if f["status"] == "reject"] == ["contrast"] * code


def test_a_ct_slice_or_photograph_is_warned_of(trained: Path, tmp_path: Path) -> None:
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    body = ((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1) * 0.7
    rng = np.random.default_rng(0)
    slice_like = np.where(((np.abs(x) - 0.45) / 0.3) ** 2 + (y / 0.5) ** 2 < 1, 0.1 + 0.3 * (rng.random(x.shape) > 0.9), body)
    photo = np.kron(rng.random((20, 20)), np.ones((10, 10)))
    temple, flower = (np.asarray(Image.fromarray(load_sample_image(f"{n}.jpg")).convert("L")) / 255 for n in ("china", "flower"))
    rows = ["study_id,patient_id,modality,image"]
    for name, picture in (("slice", slice_like), ("photo", photo), ("temple", temple), ("flower", flower), ("chest", shown((200, 200)))):
        Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
        rows.append(f"{name},{name},cxr,{name}.png")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    assert main(["verify", str(tmp_path / "m.csv"), "--json", str(tmp_path / "v.json")]) == 0
    studies = json.loads((tmp_path / "v.json").read_text())
    warned = {s["study_id"] for s in studies if any(f["check"] == "modality" for f in s["findings"])}
    assert warned == {"slice", "photo", "temple"}  # the flower passes: docs/reference/odd_inputs.md
    Image.fromarray(load_sample_image("china.jpg")).save(tmp_path / "colour.png")
    assert main(["assess", str(tmp_path / "colour.png"), "--model", str(trained / "best.ckpt"), "--out", str(tmp_path / "out")]) == 2
    assert main(["assess", str(tmp_path / "photo.png"), "--model", str(trained / "best.ckpt"), "--out", str(tmp_path / "out")]) == 0
    assert "does not look like a frontal radiograph" in (tmp_path / "out" / "photo" / "report.html").read_text()


@pytest.mark.parametrize("kind", ["png", "dcm"])
def test_six_thousand_pixels_within_four_gigabytes(trained: Path, tmp_path: Path, kind: str) -> None:
    path, picture = tmp_path / f"huge.{kind}", shown((5000, 6000))
    if kind == "png":
        Image.fromarray((picture * 65535).astype(np.uint16)).save(path, compress_level=1)
    else:
        write_16_bit(path, picture)
    (tmp_path / "m.csv").write_text(f"study_id,patient_id,modality,image\nhuge,p,cxr,{path.name}\n")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30)); "
    words = ["assess", str(path), "--model", str(trained / "best.ckpt"), "--out", str(tmp_path)]
    before = [["verify", str(tmp_path / "m.csv")], ["prepare", str(tmp_path / "m.csv"), "--store", str(tmp_path / "s"), "--spacing", "1"]]
    call = f"from m2net.cli.main import main; raise SystemExit(max(main(words) for words in {[*before, words]}))"
    done = subprocess.run([sys.executable, "-c", limit + call], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert Image.open(tmp_path / "huge" / "infection.png").size == (6000, 5000)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4 << 20  # kilobytes


def test_a_model_of_radiographs_refuses_ct_and_the_other_way_round(
    trained: Path, tmp_path: Path, phantom: object, capsys: pytest.CaptureFixture[str]
) -> None:
    from m2net.phantoms import Phantom, write_nifti

    assert isinstance(phantom, Phantom)
    write_nifti(tmp_path / "ct.nii.gz", phantom.image, phantom.geometry)
    assert main(["assess", str(tmp_path / "ct.nii.gz"), "--model", str(trained / "best.ckpt"), "--out", str(tmp_path / "o")]) == 2
    assert "volume while the study is said to be a radiograph" in capsys.readouterr().err


@pytest.mark.skipif(not (REAL / "cxr_infection").is_dir(), reason="the real images are not here")
def test_real_radiographs_look_like_radiographs() -> None:
    from m2net.studies import read_image
    from m2net.studies.radiograph_look import unlike_radiograph
    from m2net.vocabulary import Modality

    paths = [*sorted((REAL / "cxr_infection" / "images").glob("*.png")), *sorted((REAL / "cxr_severity" / "images").glob("*.png"))]
    wrong = [p.name for p in paths if unlike_radiograph(read_image(p, None, Modality.CXR).array[0].astype(np.float32))]
    slices = sorted((REAL / "ct_slices" / "covid").glob("*.png"))[:60]
    flagged = sum(bool(unlike_radiograph(read_image(p, None, Modality.CXR).array[0].astype(np.float32))) for p in slices)
    assert not wrong
    assert flagged >= 57  # of 60; docs/reference/odd_inputs.md


def test_a_radiograph_is_explained_by_a_model_of_radiographs(films: Path, configure: Callable[..., Path], tmp_path: Path) -> None:
    head = {"name": "score_maps", "bag_pool": "max", "activation": "none"}
    config = configure(
        tmp_path,
        model={
            "network": {"encoder": {"name": "residual", "width": 4}},
            "tasks": {"diagnosis": {"head": head, "objective": {"name": "diagnosis"}}},
        },
        data={"manifest": str(films), "store": str(films.parent / "store"), "input": INPUT, "masks": [], "instances": 1},
        trainer={"max_steps": 2, "val_check_interval": 1},
    )
    assert main(["fit", "--config", str(config)]) == 0
    film = next(films.parent.glob("*/image.png"))
    assert main(["explain", str(film), "--model", str(tmp_path / "best.ckpt"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "image" / "explanation.json").read_text())
    assert found["image"]["modality"] == "cxr"
    with Image.open(film) as picture, Image.open(tmp_path / "out" / "image" / "saliency.png") as saliency:
        assert saliency.size == picture.size
