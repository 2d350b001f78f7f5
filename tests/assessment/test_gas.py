"""Gas outside the lungs against a drawn chest: what is called lung in it goes, what lung holds stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from m2net.assessment.gas import without_gas
from m2net.phantoms import Phantom
from m2net.studies import Volume
from m2net.studies.geometry import Geometry
from m2net.vocabulary import Intensity, Lobe


def disc(centre: tuple[int, int], radius: float) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:128, :160]
    return np.asarray((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2)


TRACHEA, BOWEL, BULLA, BRONCHUS = disc((64, 80), 8), disc((110, 60), 7), disc((64, 120), 8), disc((40, 40), 2)
LUNGS = disc((64, 40), 25) | disc((64, 120), 25)


def chest(rng: np.random.Generator, lung_hu: float = -850, *gases: NDArray[np.bool_]) -> tuple[Volume, dict[str, NDArray[np.uint8]]]:
    """Two lungs, one with a bulla, one with a thin bronchus; trachea and bowel in tissue, drawn as lung in four of twelve slices."""
    plane = np.where(disc((64, 80), 62), 40.0, -1000.0)
    plane[LUNGS] = lung_hu
    for gas in (TRACHEA, BOWEL, BULLA, BRONCHUS, *gases):
        plane[gas] = -1000
    hu = (np.stack([plane] * 12) + rng.normal(0, 25, (12, 128, 160))).astype(np.int16)
    geometry = Geometry.build((4.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3))
    lobes, infection = np.stack([LUNGS * int(Lobe.RIGHT_UPPER)] * 12), np.zeros((12, 128, 160), int)
    lobes[4:8, TRACHEA | BOWEL], infection[5, TRACHEA] = int(Lobe.RIGHT_UPPER), 1
    return Volume.from_own(hu, geometry), {"lobes": lobes.astype(np.uint8), "infection": infection.astype(np.uint8)}


def test_airways_and_bowel_go_and_a_bulla_stays(rng: np.random.Generator) -> None:
    volume, maps = chest(rng)
    cleaned, voxels = without_gas(maps, volume)
    np.testing.assert_array_equal(cleaned["lobes"] > 0, np.stack([LUNGS] * 12))
    assert voxels == 4 * int((TRACHEA | BOWEL).sum())
    assert not cleaned["infection"].any()


@pytest.mark.parametrize("lung_hu", [-965.0, -990.0])
def test_lungs_of_emphysema_stay(rng: np.random.Generator, lung_hu: float) -> None:
    """All of both is below the threshold, and tissue is around it."""
    volume, maps = chest(rng, lung_hu)
    cleaned, _ = without_gas(maps, volume)
    np.testing.assert_array_equal(cleaned["lobes"][:, LUNGS], maps["lobes"][:, LUNGS])


@pytest.mark.parametrize(
    "bulla", [disc((64, 138), 6), disc((64, 135), 9), LUNGS & ~(disc((64, 40), 21) | disc((64, 120), 21)), disc((42, 120), 4)]
)
def test_bullae_at_the_chest_wall_stay(rng: np.random.Generator, bulla: NDArray[np.bool_]) -> None:
    volume, maps = chest(rng, -850, bulla & LUNGS)
    cleaned, _ = without_gas(maps, volume)
    np.testing.assert_array_equal(cleaned["lobes"][:, LUNGS], maps["lobes"][:, LUNGS])


def test_a_trachea_beside_the_lung_takes_its_wall_at_most(rng: np.random.Generator) -> None:
    """Drawn to the wall between: two pixels of what was drawn as lung around it go, no more."""
    volume, maps = chest(rng)
    maps["lobes"][4:8] = np.where(disc((64, 80), 14), int(Lobe.RIGHT_UPPER), maps["lobes"][4:8])
    cleaned, _ = without_gas(maps, volume)
    gone = (maps["lobes"] > 0) & (cleaned["lobes"] == 0)
    assert not gone[:, ~(disc((64, 80), 11) | BOWEL)].any()
    assert gone[4:8, TRACHEA].all()


def test_without_hu_or_lungs_nothing_is_left_out(rng: np.random.Generator) -> None:
    volume, maps = chest(rng)
    for other in (replace(volume, intensity=Intensity.RELATIVE), replace(volume, geometry=None)):
        assert without_gas(maps, other) == (maps, 0)
    assert without_gas({"infection": maps["infection"]}, volume)[1] == 0


def test_no_gas_is_found_in_a_patient_of_lungs_alone(phantom: Phantom) -> None:
    """The true lobes of a synthetic patient: less than a hundredth goes."""
    volume = Volume.from_own(phantom.image, phantom.geometry)
    cleaned, voxels = without_gas({"lobes": phantom.lobes}, volume)
    assert voxels < 0.01 * (phantom.lobes > 0).sum()
    assert voxels == (phantom.lobes > 0).sum() - (cleaned["lobes"] > 0).sum()
