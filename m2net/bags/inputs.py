"""What an instance shows the network; stored in every checkpoint, so that new studies are cut the same way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from m2net.bags.plain import check_plain
from m2net.errors import ConfigError
from m2net.vocabulary import DEFAULT_SPACING_MM, Intensity, Modality


def _window(value: Any) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"input.window is {value!r}", expected="two rising numbers, as [-1200, 700]") from error


class View(StrEnum):
    """What an instance is: a patch of the prepared pixels, or a whole slice, its lungs' square resized to the patch size."""

    PATCHES = "patches"
    SLICES = "slices"


class Normalise(StrEnum):
    """What the window is laid on: stored values, or (relative intensity only) values on a scale of the study's own chest.

    A radiograph's lungs are not known beforehand: its scale is that of the picture within its frame.
    """

    WINDOW = "window"
    LUNGS = "lungs"
    RANKS = "ranks"


class LungsFrom(StrEnum):
    """Which lungs ``lungs_only`` keeps."""

    FOUND = "found"
    HULL = "hull"
    MANIFEST = "manifest"


@dataclass(frozen=True)
class InputSpec:
    """How studies become instances.

    Attributes:
        modality: ct or cxr; a radiograph is a bag of one instance, the whole picture, so its view is slices and its intensity relative.
        intensity: hu or relative; the two never share a normalisation.
        spacing_mm: in-plane pixel size of the prepared store, mm; pictures keep their pixels, but are looked for in the store of that size.
        patch: height and width of an instance in pixels.
        slices: neighbouring slices seen as channels, odd; 1 is plain 2-D.
        slice_gap_mm: wanted distance between these slices, mm; the nearest whole number of slices, at least one, is taken.
        positions: whether coordinates (x, y, z) and their validity flags are channels.
        position_scale: factor on the coordinate channels; far below 1, since coordinates as strong as the picture slow the
            learning of the lobes (measured: experiments/demo/README.md).
        window: lowest and highest HU that the network tells apart; of relative intensity all, [0, 32767], unless given.
        view: patches, or slices: the square around the study's lungs in each slice, resized to ``patch``.
        lungs_only: whether everything outside the lungs is painted over: with air, or around their hull with soft tissue.
        lungs_from: found (by m2net, in every study, without what is as dense as soft tissue); hull: the convex hull of those in each slice
            and a rim, so that dense lesions stay, and so do heart and mediastinum; or manifest: the mask of its ``lungs`` column, a
            model's for instance, which then every study must have; new studies are assessed only with found lungs or their hull.
        normalise: window, lungs or ranks; see Normalise.
    """

    intensity: str = "hu"
    spacing_mm: float = DEFAULT_SPACING_MM
    patch: int = 128
    slices: int = 1
    slice_gap_mm: float = 5.0
    positions: bool = False
    position_scale: float = 0.1
    window: tuple[float, float] = (-1200.0, 700.0)
    view: str = "patches"
    lungs_only: bool = False
    normalise: str = "window"
    lungs_from: str = "found"
    modality: str = "ct"

    @staticmethod
    def of(values: dict[str, Any] | None) -> InputSpec:
        """Build from plain values.

        Raises:
            ConfigError: unknown name or impossible value.
        """
        values = dict(values or {})
        check_plain(InputSpec, values, "input")
        if values.get("intensity") == Intensity.RELATIVE:
            values.setdefault("window", (0.0, 32767.0))
        if "window" in values:
            values["window"] = _window(values["window"])
        spec = InputSpec(**values)
        if spec.intensity not in set(Intensity):
            raise ConfigError(f"intensity is {spec.intensity!r}", expected=f"one of {', '.join(Intensity)}")
        words = (
            ("modality", spec.modality, Modality), ("view", spec.view, View), ("normalise", spec.normalise, Normalise),
            ("lungs_from", spec.lungs_from, LungsFrom),
        )  # fmt: skip
        for name, value, allowed in words:
            if value not in set(allowed):
                raise ConfigError(f"input.{name} is {value!r}", expected=f"one of {', '.join(allowed)}")
        spec._check_radiograph()
        if spec.normalise != Normalise.WINDOW and spec.intensity == Intensity.HU:
            raise ConfigError(f"normalise is {spec.normalise} for HU", expected="window: HU mean the same in every study")
        if spec.slices < 1 or spec.slices % 2 == 0:
            raise ConfigError(f"{spec.slices} slices a patch", expected="an odd number")
        if spec.patch < 16 or spec.patch % 16:
            raise ConfigError(f"a patch of {spec.patch} pixels", expected="a multiple of 16 (the encoder halves it four times)")
        if spec.intensity == Intensity.HU and spec.spacing_mm <= 0:
            raise ConfigError(f"a pixel size of {spec.spacing_mm} mm", expected="more than 0")
        if spec.position_scale <= 0:
            raise ConfigError(f"a position_scale of {spec.position_scale}", expected="more than 0")
        if len(spec.window) != 2 or spec.window[0] >= spec.window[1]:
            raise ConfigError(f"a window of {spec.window}", expected="two rising values")
        return spec

    @property
    def keeps_hull(self) -> bool:
        """Whether the convex hull of the lungs is all that is seen of a slice."""
        return self.lungs_only and self.lungs_from == LungsFrom.HULL

    def _check_radiograph(self) -> None:
        if self.modality != Modality.CXR:
            return
        if self.view != View.SLICES or self.intensity != Intensity.RELATIVE or self.slices != 1:
            raise ConfigError(
                f"radiographs with view {self.view}, intensity {self.intensity} and {self.slices} slices",
                expected="view: slices, intensity: relative, slices: 1",
            )
        if self.lungs_only and self.lungs_from != LungsFrom.MANIFEST:
            raise ConfigError(
                "lungs_only for radiographs", expected="lungs_from: manifest with it: no lungs are found before a model sees them"
            )

    @property
    def channel_names(self) -> list[str]:
        """Channels that the network sees: slices from the lowest, then x, y, z and their three validity flags."""
        around = range(-(self.slices // 2), self.slices // 2 + 1)
        places = [*"xyz", *(f"{axis} known" for axis in "xyz")] if self.positions else []
        return [f"slice {offset:+d}" for offset in around] + places

    @property
    def channels(self) -> int:
        """How many channels the network sees."""
        return len(self.channel_names)

    def plain(self) -> dict[str, Any]:
        """Plain values for YAML and checkpoints."""
        return {**asdict(self), "window": list(self.window)}
