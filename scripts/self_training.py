#!/usr/bin/env python3
"""A manifest for a round of self-training: a detector's own masks of the training cases in the place of lesion masks.

No annotation is used. Training cases whose mask is empty stay as they were without one. Afterwards
"hybriduad fit-detector few-labels OUT/cohort.csv --init DETECTOR --out ..." learns from these masks as it would from
labels; the cases of the other splits are left as they are, so that calibration and figures rest on the truth.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.errors import DataError, HybridUADError
from hybriduad.core.types import Case
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.prediction.files import SUFFIXES, record_of
from hybriduad.scan.volumes import read_mask

LEAST_ML = 1.0
"""Masks of less are left out: what is confident is worth learning from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector", type=Path, help="calibrated, learnt without a lesion mask")
    parser.add_argument("cohort", type=Path, help="manifest with splits")
    parser.add_argument("out", type=Path, help="a second call continues there")
    parser.add_argument("--rule", help="which calibrated rule cuts the masks; default: the detector's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    arguments = parser.parse_args()
    try:
        manifest, labelled = self_labelled(**vars(arguments))
    except HybridUADError as error:
        sys.exit(f"self_training: {error}")
    print(f"{labelled} training cases with a mask of their own in {manifest}")


def self_labelled(detector: Path, cohort: Path, out: Path, rule: str | None, device: str) -> tuple[Path, int]:
    """Predict the training cases into ``out/predictions`` and write ``out/cohort.csv``; how many cases have a mask.

    Raises:
        DataError: no case of the training split, or none with a mask of :data:`LEAST_ML`.
    """
    outcome = predict_cohort(detector, cohort, out=out / "predictions", split="train", rule=rule, device=device)
    cases = [_labelled(out / "predictions", case) if case.split == "train" else case for case in read_cohort(cohort)]
    cases = [case for case in cases if case.name not in outcome.failed]
    labelled = sum(case.split == "train" and case.lesion is not None for case in cases)
    if not labelled:
        raise DataError("no mask to learn from", where=out / "predictions", expected=f"one of {LEAST_ML} ml or more")
    write_manifest(cases, out / "cohort.csv")
    return out / "cohort.csv", labelled


def _labelled(predictions: Path, case: Case) -> Case:
    """The case with the predicted mask alone, or without any; what an annotator wrote of it is gone."""
    blind = replace(case, lesion=None, ignore=None, lesion_free={}, health="unknown")
    blind = replace(blind, attributes={k: v for k, v in case.attributes.items() if not k.endswith("_labels")})
    record = record_of(predictions, case)
    path = record.with_name(f"{case.name}_{SUFFIXES['mask']}.nii.gz")
    if not path.is_file():
        return blind
    mask = read_mask(path)
    if mask.data.sum() * math.prod(mask.grid.spacing_mm) / 1000 < LEAST_ML:
        return blind
    return replace(blind, lesion=path, health="lesion")


if __name__ == "__main__":
    main()
