"""Make the golden bundle and its prediction anew: ``python tests/golden/make.py`` from the checkout.

Only for a new bundle format: the committed one must load and give the same score in every later version.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hybriduad.config import files as configs
from hybriduad.core import plugins, rng
from hybriduad.core.types import Case
from hybriduad.detector import bundle as bundles
from hybriduad.detector.loading import load_detector
from hybriduad.networks.segmenter import Segmenter
from hybriduad.phantom.subject import make_subject
from hybriduad.scan.preparation import Prepared, prepare
from hybriduad.scan.volumes import VolumeGrid, write_volume

HERE = Path(__file__).parent
BUNDLE, PREDICTION = HERE / "detector", HERE / "prediction.npz"
SLICES = slice(8, 12)
RECONSTRUCTOR = {
    "kind": "reconstructor",
    "seed": 11,
    "anatomy": {"contrasts": ["FLAIR"], "size": 32},
    "model": {
        "name": "ddpm",
        "widths": [16],
        "blocks": 1,
        "unshuffle": 2,
        "levels": [100, 300],
        "noise": "simplex",
        "condition": "none",
    },
    "residual": {"kind": "absolute", "combine": "geometric"},
    "train": {"steps": 1, "lr": 1.0e-3},
}
DETECTOR = {
    "kind": "detector",
    "seed": 12,
    "segmenter": {"layout": "siamese", "encoder": "tu-test_resnet", "decoder_channels": [8, 8]},
    "fusion": {"form": "sum", "weight": 1.0},
    "train": {"steps": 1, "lr": 1.0e-3},
}
THRESHOLDS = {"default": "best-dice", "rules": {"best-dice": {"values": {"score": 0.4}}}}


def main() -> None:
    """Write the bundle, untrained but with weights of some size, and its prediction of a phantom on the model grid."""
    shutil.rmtree(BUNDLE, ignore_errors=True)
    phantom = make_subject(21, 1, pathology="glioma", contrasts=("FLAIR",), spacing_mm=(5.0, 5.0, 8.0))
    first = configs.parse(RECONSTRUCTOR, "golden", "reconstructor")
    second = configs.parse(DETECTOR, "golden", "detector")
    torch.manual_seed(rng.fold(0, "golden"))
    model = plugins.load("reconstructors", "ddpm").Model(first.model, 1, 32)
    segmenter = Segmenter(second.segmenter, 1)
    statistics = {"histogram_edges": torch.linspace(0, 1, 82)}
    about = {"anatomy": first.anatomy, "direction": "axial", "precision": "float32", "identities": {}, "training": {}}
    alone = HERE / "alone"
    parent = bundles.save(alone, first, model.state_dict(), statistics, bundles.Description(**about))
    description = bundles.Description(**about, thresholds=THRESHOLDS)
    bundles.save(BUNDLE, second, segmenter.state_dict(), statistics, description, parent)
    shutil.rmtree(alone)
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "sub-golden_FLAIR.nii.gz"
        write_volume(scan, phantom.images["FLAIR"], VolumeGrid.make(phantom.brain.shape, phantom.affine))
        case = prepare(Case("golden", "golden", {"FLAIR": scan}), first.anatomy, "axial")
    write_prediction(case)


def write_prediction(case: Prepared) -> None:
    """Write some slices of a case and what the bundle says of them; to be run alone where a mend moves the score."""
    few = np.zeros_like(case.brain)
    few[..., SLICES] = case.brain[..., SLICES]
    prediction = load_detector(BUNDLE, "cpu").predict_volume(replace(case, brain=few))
    parts = {name: getattr(prediction, name)[..., SLICES] for name in ("score", "probability", "map")}
    np.savez_compressed(
        PREDICTION,
        image=case.image[..., SLICES],
        brain=few[..., SLICES],
        first=SLICES.start,
        depth=few.shape[2],
        spacing_mm=case.spacing_mm,
        **parts,
    )


if __name__ == "__main__":
    main()
