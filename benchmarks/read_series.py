"""Seconds to read one DICOM series: m2net against SimpleITK's series reader (given the folder, single-threaded by itself).

python benchmarks/read_series.py FOLDER [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from m2net.studies import read_image


def by_simpleitk(folder: Path) -> np.ndarray:
    """The series as SimpleITK reads it."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.GetArrayFromImage(reader.Execute())


def seconds(function: Callable[[Path], object], folder: Path, repeats: int) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    function(folder)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(folder)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Time both and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--repeats", type=int, default=7)
    given = options.parse_args()
    ours = seconds(read_image, given.folder, given.repeats)
    theirs = seconds(by_simpleitk, given.folder, given.repeats)
    for name, times in (("m2net", ours), ("SimpleITK", theirs)):
        print(f"{name:10} median {statistics.median(times):.3f} s ({min(times):.3f} to {max(times):.3f}, n = {len(times)})")
    print(f"ratio      {statistics.median(ours) / statistics.median(theirs):.2f}")


if __name__ == "__main__":
    main()
