"""Real shapes in healthy scans: where they lie, what they change, and that a cohort comes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_valid import bids_issues

from hybriduad.cohort.manifest import read_cohort
from hybriduad.phantom.cohort import write_cohort
from hybriduad.scan.volumes import read_mask, read_volume, to_ras

SCRIPT = Path(__file__).parents[2] / "scripts" / "half_real.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two healthy phantoms, and a ball of 20 mm in the left hemisphere in MNI space."""
    root = tmp_path_factory.mktemp("half-real")
    write_cohort(root / "healthy", subjects=2, seed=3, contrasts=("T1w",), spacing_mm=(3.0, 3.0, 4.0), workers=1)
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [90, -126, -72]
    points = np.stack(np.meshgrid(*map(np.arange, (91, 109, 91)), indexing="ij"))
    away = np.tensordot(affine[:3, :3], points, 1) + affine[:3, 3, None, None, None]
    ball = np.linalg.norm(away - np.array([-35.0, -15.0, 20.0])[:, None, None, None], axis=0) < 20
    (root / "masks").mkdir()
    nib.Nifti1Image(ball.astype(np.uint8), affine).to_filename(root / "masks" / "ball.nii.gz")
    return root / "healthy", root / "masks"


def test_a_painted_cohort_is_dark_in_its_lesions_and_untouched_elsewhere(
    sources: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        done = run(*sources, tmp_path / name, "--painted", 1, "--seed", 5)
        assert done.returncode == 0, done.stderr
    healthy, cases = read_cohort(sources[0]), read_cohort(tmp_path / "a")
    assert [case.health for case in cases] == ["lesion", "healthy"]
    assert cases[0].attributes["shape"] == "ball"
    before, after = (read_volume(case.images["T1w"]) for case in (healthy[0], cases[0]))
    lesion, brain = read_mask(cases[0].lesion).data, read_mask(cases[0].brain).data
    assert not (lesion & ~brain).any()
    np.testing.assert_array_equal(after.data[~lesion], before.data[~lesion])
    assert after.data[lesion].mean() < 0.9 * before.data[lesion].mean()
    inside, affine, _ = to_ras(read_mask(cases[0].lesion))
    centre = affine[:3, :3] @ np.argwhere(inside).mean(axis=0)
    middle = affine[:3, :3] @ np.argwhere(to_ras(read_mask(cases[0].brain))[0]).mean(axis=0)
    x, y, z = centre - middle
    assert 20 < abs(x) < 45
    assert abs(y - 5) < 15
    assert abs(z - 12) < 15
    np.testing.assert_array_equal(read_volume(cases[1].images["T1w"]).data, read_volume(healthy[1].images["T1w"]).data)
    assert [set(case.lesion_free) for case in cases] == [{"T1w"}, set()]
    np.testing.assert_array_equal(read_volume(cases[0].lesion_free["T1w"]).data, before.data)
    same = (path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in same)


def test_a_painted_cohort_is_bids_also_without_its_lesions(sources: tuple[Path, Path], tmp_path: Path) -> None:
    assert run(*sources, tmp_path / "out", "--painted", 1).returncode == 0
    assert bids_issues(tmp_path / "out")[0] == []
    assert bids_issues(tmp_path / "out" / "derivatives" / "lesion-free")[0] == []


def test_what_cannot_be_painted_is_a_sentence(sources: tuple[Path, Path], tmp_path: Path) -> None:
    healthy, masks = sources
    assert "nothing to paint: got 0 masks" in run(healthy, tmp_path / "none", tmp_path / "out").stderr
    assert "need a new folder" in run(healthy, masks, tmp_path).stderr
    far = nib.load(masks / "ball.nii.gz")
    (tmp_path / "far").mkdir()
    nib.Nifti1Image(np.asanyarray(far.dataobj), np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(tmp_path / "far" / "a.nii")
    assert "no mask that lies in the brain" in run(healthy, tmp_path / "far", tmp_path / "out").stderr
