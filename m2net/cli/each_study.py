"""What ``m2net assess`` and ``m2net explain`` share: a trained model on studies given by path, one after the other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from m2net.cli.options import Parser, folder, progress
from m2net.errors import BROKE, M2NetError
from m2net.vocabulary import Modality

if TYPE_CHECKING:
    from m2net.assessment.applied import AppliedModel
    from m2net.studies import Volume


def add_studies(options: Parser, kinds: str, model: str) -> None:
    """Studies, the model, where results go, and how DICOM is read."""
    options.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help=kinds)
    options.add_argument("--model", type=Path, required=True, help=model)
    options.add_argument("--out", type=folder, required=True, help="folder for the results, one folder a study")
    options.add_argument("--series", default="", help="UID or number of the DICOM series to read, where a folder holds several")
    options.add_argument("--kernel", default="", choices=["", "soft", "lung"], help="reconstruction to prefer, where there are several")
    options.add_argument("--repair", action="store_true", help="resample uneven, missing or sheared slices instead of refusing them")


def check_studies(given: argparse.Namespace) -> None:
    """Tell of a single path that does not exist before a model is loaded.

    Raises:
        StudyError: there is no such file.
    """
    from m2net.studies import read_image

    if len(given.studies) == 1 and not given.studies[0].exists():
        read_image(given.studies[0])


def each_study(given: argparse.Namespace, doing: str, model: AppliedModel, one: Callable[[Volume, Path, str], Path]) -> int:
    """Read every study as the model does and hand it on.

    Args:
        given: options of ``add_studies``.
        doing: word for the progress bar.
        model: that is applied; it says the modality.
        one: takes a study, the folder of its results and its name, and returns the page to name.

    Returns:
        Exit code: 2 if a study failed. It is told and does not stop the others.
    """
    from m2net.machine import keep_big_blocks
    from m2net.reports.assessment import output_names
    from m2net.reports.head import refuse_another
    from m2net.studies import ReadOptions, read_image

    keep_big_blocks()
    reading, modality = ReadOptions(given.series, given.kernel, given.repair), Modality(model.spec.modality)
    failed = 0
    names = output_names(given.studies)
    for study, name in progress(list(zip(given.studies, names, strict=True)), doing, len(names)):
        try:
            volume = read_image(study, reading, modality)
            refuse_another(given.out / name, volume, study)
            print(one(volume, given.out / name, name))
        except (M2NetError, OSError) as error:
            failed += 1
            named = "" if str(study) in str(error) else f"{study}: "
            print(f"m2net: {named}{error}", file=sys.stderr)
        except BROKE as error:  # a bug, or a lack of memory, must not cost the other studies
            failed += 1
            print(f"m2net: {study} broke the model or the reader ({type(error).__name__}: {error})", file=sys.stderr)
    return 2 if failed else 0
