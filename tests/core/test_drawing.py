"""Pictures of slices: each in its cell, front up, over the range of its kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from hybriduad.core.drawing import slice_grid


def cells(picture: np.ndarray, rows: int, columns: int) -> list[list[np.ndarray]]:
    """The inner half of each cell of a picture without titles and labels, grey."""
    high, wide = picture.shape[0] / rows, picture.shape[1] / columns
    return [
        [
            picture[
                int((row + 0.25) * high) : int((row + 0.75) * high),
                int((col + 0.25) * wide) : int((col + 0.75) * wide),
                :3,
            ]
            for col in range(columns)
        ]
        for row in range(rows)
    ]


def test_every_slice_lies_in_its_cell_over_the_range_of_its_kind(tmp_path: Path) -> None:
    rows = [
        [np.full((20, 30), -1, np.float32), np.full((20, 30), 0.6, np.float32)],
        [np.ones((20, 30), bool), np.zeros((20, 30), bool)],
        [np.zeros((20, 30)), np.ones((20, 30))],
    ]
    slice_grid(tmp_path / "grid.png", rows, ["", ""])
    shown = cells(imread(tmp_path / "grid.png"), 3, 2)
    level = [[float(cell.mean()) for cell in row] for row in shown]
    np.testing.assert_allclose(level[:2], [[0, 1], [1, 0]], atol=0.01)
    dark, light = shown[2]
    assert dark.max() < 0.05
    assert light[..., 0].mean() > 0.9 > light[..., 2].mean()  # in colour


def test_front_is_up(tmp_path: Path) -> None:
    """Slices are (x to the right, y to the front)."""
    half = np.full((20, 20), -1, np.float32)
    half[:10, 10:] = 0.6
    slice_grid(tmp_path / "grid.png", [[half]], [""])
    shown = imread(tmp_path / "grid.png")[..., 0]
    middle = shown.shape[0] // 2
    corner = shown[middle // 4 : middle * 3 // 4, middle // 4 : middle * 3 // 4]
    assert corner.mean() > 0.99
    assert shown[middle + 15 : -25, 25:-25].max() < 0.01
