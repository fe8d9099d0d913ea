"""What several tests of networks need: the tiny cohort on the model grid, and the state of the global generators."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from hybriduad.cohort.manifest import read_cohort
from hybriduad.config.runs import Anatomy
from hybriduad.core.types import Batch
from hybriduad.scan.preparation import Prepared, prepare
from hybriduad.scan.slices import slices_of

SPACING_MM = (5.0, 5.0, 8.0)

PATHOLOGIES = {"01": "glioma", "02": "glioma", "03": None}

CONTRASTS = ("FLAIR", "T1w")

RECONSTRUCTOR = {
    "kind": "reconstructor",
    "anatomy": {"contrasts": ["FLAIR"], "size": 32},
    "model": {"name": "ddpm", "widths": [16, 16], "blocks": 1, "unshuffle": 2, "levels": [250, 500]},
    "mirror": True,
    "train": {"steps": 2, "lr": 1.0e-3, "batch": 2},
}
"""The config of the tiny reconstructor; training it for two steps takes seconds."""

DETECTOR = {
    "kind": "detector",
    "segmenter": {"encoder": "tu-test_resnet", "decoder_channels": [16, 8]},
    "mix": {"healthy": 1.0, "synthetic": 1.0},
    "anomalies": [{"name": "perlin"}],
    "mirror": True,
    "train": {"steps": 2, "lr": 1.0e-3, "batch": 2},
}
"""The config of the tiny detector. Its encoder has a hundredth of the weights of the smallest common one: bundles and
checkpoints are written, digested and copied at every turn."""


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an array as NIfTI, folders included; for tests that need files of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cropped(path: Path, slices: int, out: Path) -> Path:
    """A copy of a scan that ends after so many slices along its third axis."""
    out.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.load(path).slicer[:, :, :slices], out)
    return out


ANATOMY = Anatomy(contrasts=("FLAIR",), size=32)


def prepared_cases(manifest: Path, anatomy: Anatomy = ANATOMY) -> list[Prepared]:
    """Every case of a manifest on the model grid."""
    return [prepare(case, anatomy) for case in read_cohort(manifest)]


def lesion_slices(prepared: Prepared, least: int = 12) -> list[int]:
    """Slices with at least so many lesion voxels in the brain."""
    return [int(k) for k in np.flatnonzero((prepared.lesion & prepared.brain).sum(axis=(0, 1)) >= least)]


def brain_slices(prepared: Prepared, least: int = 60) -> list[int]:
    """Slices with at least so many brain voxels."""
    return [int(k) for k in np.flatnonzero(prepared.brain.sum(axis=(0, 1)) >= least)]


def some_batch(prepared: Prepared, count: int, contrasts: int = 1) -> Batch:
    """``count`` slices from the middle of a case; further contrasts are other versions of the first one."""
    batch = slices_of(prepared, brain_slices(prepared)[:count], seed=5)
    versions = [batch.image[:, :1], -batch.image[:, :1], batch.image[:, :1].roll(3, dims=2)][:contrasts]
    batch.image = batch.healthy = torch.cat(versions, dim=1)
    batch.valid = torch.ones_like(batch.image, dtype=torch.bool)
    return batch


def generators() -> dict[str, str]:
    """A digest of the state of every global generator."""
    _, words, *rest = np.random.get_state()  # noqa: NPY002 - it is the one that nothing may touch
    states = {
        "random": repr(random.getstate()),
        "numpy": repr((np.asarray(words).tolist(), rest)),
        "torch": repr(torch.get_rng_state().tolist()),
    }
    return {name: hashlib.sha256(state.encode()).hexdigest() for name, state in states.items()}
