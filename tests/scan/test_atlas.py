"""An atlas that a user names: read as BIDS has it, and the region of a lesion through the affines."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny import write_nifti

from hybriduad.core.errors import DataError
from hybriduad.scan.atlas import NOWHERE, read_atlas
from hybriduad.scan.volumes import VolumeGrid

AFFINE = np.array([[-4.0, 0, 0, 78], [0, 4.0, 0, -110], [0, 0, 4.0, -70], [0, 0, 0, 1]])


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Left and right halves of a box in an image that runs from right to left, with their table beside it."""
    data = np.zeros((40, 50, 40), np.int16)
    data[5:20, 5:45, 5:35], data[20:35, 5:45, 5:35] = 2001, 1001
    (tmp_path / "halves_dseg.tsv").write_text(
        "index\tname\tcolor\n1001\tleft half\t#ff0000\n2001\tright half\t#00ff00\n"
    )
    return write_nifti(tmp_path / "halves_dseg.nii.gz", data, AFFINE)


def test_the_region_that_holds_most_of_a_lesion(labels: Path) -> None:
    """In a scan of another grid and orientation, moved against the template."""
    atlas = read_atlas(labels)
    grid = VolumeGrid.make((60, 30, 60), np.array([[0, 0, 2.5, -70], [0, 5.0, 0, -80], [-2.5, 0, 0, 60], [0, 0, 0, 1]]))
    matrix = np.eye(4)
    matrix[:3, 3] = 6.0, -4.0, 3.0
    places = np.indices(grid.shape).reshape(3, -1).T @ grid.affine[:3, :3].T + grid.affine[:3, 3] + matrix[:3, 3]
    box = ((places >= (-12, -40, -20)) & (places < (28, 10, 20))).all(axis=1).reshape(grid.shape)
    across = places[:, 0].reshape(grid.shape)
    edge = AFFINE[0, 0] * 19.5 + AFFINE[0, 3]  # between the halves
    name, share = atlas.region(box, grid, matrix)
    assert name == "right half"
    assert share == pytest.approx((across[box] > edge).mean(), abs=0.02)
    assert atlas.region(box & (across < edge - 4), grid, matrix) == ("left half", 1.0)
    far = np.zeros(grid.shape, bool)
    far[0, 0, 0] = True
    assert atlas.region(far, grid, matrix) == (NOWHERE, 0.0)


def test_what_is_wrong_with_an_atlas_is_said_in_a_sentence(labels: Path, tmp_path: Path) -> None:
    def named(text: str) -> Path:
        (tmp_path / "names.tsv").write_text(text)
        return tmp_path / "names.tsv"

    with pytest.raises(DataError, match=r"labels of the atlas without a name.*got \[2001\]"):
        read_atlas(labels, named("index\tname\n1001\tleft\n"))
    for text in ("number\tname\n1001\tleft\n", "index\tname\nx\tleft\n", "index,name\n1,left\n"):
        with pytest.raises(DataError, match="unusable names of an atlas"):
            read_atlas(labels, named(text))
    with pytest.raises(DataError, match=r"with an index twice.*got 7"):
        read_atlas(labels, named("index\tname\n7\tleft\n7\tright\n"))
    with pytest.raises(DataError, match=r"no names of the atlas's labels.*--atlas-names"):
        read_atlas(labels, tmp_path / "nothing.tsv")
    data = np.asarray(nib.load(labels).dataobj).astype(np.float32)
    with pytest.raises(DataError, match="values that are no labels"):
        read_atlas(write_nifti(tmp_path / "halves_dseg.nii.gz", data / 3, AFFINE))
