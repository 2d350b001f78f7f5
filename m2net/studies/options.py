"""How a study is to be read where its files leave a choice."""

from __future__ import annotations

from dataclasses import dataclass

from m2net.errors import ConfigError

KERNELS = ("soft", "lung")


@dataclass(frozen=True)
class ReadOptions:
    """Choices that a user may make.

    Attributes:
        series: SeriesInstanceUID or series number of the series to read; "" leaves the choice to the stated rules.
        kernel: reconstruction to prefer, soft or lung; "" for the one with most slices.
        repair: resample uneven, missing or sheared slices instead of refusing them.
    """

    series: str = ""
    kernel: str = ""
    repair: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown kernel."""
        if self.kernel and self.kernel not in KERNELS:
            raise ConfigError(f"the kernel {self.kernel!r} is unknown", expected=f"one of {', '.join(KERNELS)}")
