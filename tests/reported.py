"""What the tests of reports share: predictions with known lesions, and what a page holds, read as a browser would."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

THRESHOLD = 0.4
HEIGHTS = (0.9, 0.55)
"""The highest score of either lesion."""
HOSTILE = 'sub-<img src=x onerror="window.injected=1">'
SCRIPT = "</script><script>window.injected=2</script>"


def give_lesions(folder: Path, case: str) -> None:
    """Put two lesions into the score of a case, and into its mask, its table and its record accordingly."""
    (score_file,) = folder.glob(f"{case}_desc-anomaly_probseg.nii.gz")
    (mask_file,) = folder.glob(f"{case}_label-lesion_desc-anomaly_mask.nii.gz")
    (brain_file,) = folder.glob(f"{case}_desc-brain_mask.nii.gz")
    image = nib.load(brain_file)
    brain, affine = np.asarray(image.dataobj) > 0, image.affine
    places = np.stack(np.nonzero(brain), -1) @ affine[:3, :3].T + affine[:3, 3]
    middle = places.mean(axis=0)
    score = np.full(brain.shape, 0.02, dtype=np.float32)
    for height, aside in zip(HEIGHTS, (-30.0, 30.0), strict=True):
        away = np.linalg.norm(places - middle - np.array([aside, 10.0, 5.0]), axis=1)
        score[brain] = np.maximum(score[brain], height * np.exp(-((away / 18.0) ** 2))).astype(np.float32)
    score[~brain] = 0
    mask = (score >= THRESHOLD) & brain
    nib.save(nib.Nifti1Image(score, affine), score_file)
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), mask_file)
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert count == 2
    lines = ["number\tvolume_ml\tx_mm\ty_mm\tz_mm\tmean_score\tmaximum_score\tnear_blind_spot"]
    sizes = np.bincount(labels.ravel())[1:]
    for number, label in enumerate(np.argsort(-sizes) + 1, start=1):
        spot = np.array(ndimage.center_of_mass(labels == label)) @ affine[:3, :3].T + affine[:3, 3]
        inside = score[labels == label]
        ml = sizes[label - 1] * abs(np.linalg.det(affine[:3, :3])) / 1000
        cells = [f"{ml:.3f}", *(f"{x:.1f}" for x in spot), f"{inside.mean():.4f}", f"{inside.max():.4f}", "no"]
        lines.append("\t".join([str(number), *cells]))
    (folder / f"{case}_desc-anomaly_lesions.tsv").write_text("\n".join(lines) + "\n")
    edit(folder / f"{case}_desc-anomaly_probseg.json", threshold=THRESHOLD)


def edit(record: Path, **changes: object) -> None:
    """Change entries of a record."""
    record.write_text(json.dumps(json.loads(record.read_text()) | changes))


def data_of(page: Path) -> dict[str, Any]:
    """The JSON that a page hands to its script."""
    (text,) = re.findall(r'<script type="application/json" id="page-data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)


def layer_of(page: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A volume of a page, in the unit of its map, and its affine."""
    entry = data_of(page)["layers"][name]
    image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(entry["data"])))
    return np.asarray(image.dataobj) * entry["scale"], image.affine


def words_of(page: Path) -> str:
    """The text of a page, without elements, its scripts and style left out."""
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", page.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())
