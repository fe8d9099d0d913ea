"""What pages say and hold, read without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from reported import HOSTILE, SCRIPT, THRESHOLD, data_of, edit, layer_of, words_of
from scipy import ndimage
from skimage.measure import block_reduce
from typer.testing import CliRunner

from hybriduad.cli.app import app
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.report import embedding, group, rendering
from hybriduad.report.build import page_names, without_paths, write_report
from hybriduad.report.records import read_records
from hybriduad.scan.volumes import VolumeGrid

RECORD = "anat/{0}_desc-anomaly_probseg.json"


def test_a_page_says_what_the_record_says(report: Path, predictions: Path) -> None:
    words = words_of(report / "sub-01.html")
    (record, *_) = read_records(predictions, {})
    assert words.count("Research use only. Not a medical device; not for diagnosis or treatment.") == 1
    assert "Lesions outlined 2" in words
    assert f"score reaches {THRESHOLD}, by the rule “best-dice”, the same for all scans" in words
    assert "Dice 0.731" in words
    assert "AUPRC 0.842" in words
    assert "near blind spot" in words
    assert f"Brain mask: {record.brain['method']}" in words
    assert "Flags unchecked" in words, "no check is no clean bill"
    full = words_of(report / "sub-02.html")
    assert "low contrast : Grey and white matter look alike." in full
    assert "Flags 2" in full
    assert "Distance 31 from the training scans, limit 20." in full
    assert "p of the scan 0.04" in full
    assert "Predicted Dice, if there is a lesion 0.71 0.42 to 0.93 (80% interval, 8 annotated cases)" in full
    assert "Predicted Dice" not in words
    assert "predicted Dice" in words_of(report / "index.html")
    assert "mean uncertainty" in words_of(report / "index.html")
    assert "At most 4 % of healthy scans look so. (24 controls)" in full
    assert "Space: MNI152, overlap 0.93." in full
    assert "0.731" not in full, "figures of another case"


def test_the_methods_name_what_was_used(report: Path, predictions: Path) -> None:
    record = json.loads((predictions / "sub-01" / RECORD.format("sub-01")).read_text())
    words = words_of(report / "sub-01.html")
    (methods,) = re.findall(r"Methods, to cite (.*?) Copy", words)
    for fact in (record["versions"]["hybriduad"], record["bundle"][:12], "FLAIR", "best-dice", str(THRESHOLD)):
        assert fact in methods
    assert "is the mean of the reconstruction's anomaly map (weight 1) and of the segmenter's probability" in methods
    assert "(after Behrendt et al., Combining Reconstruction-based" in methods
    assert "modelled by a diffusion model with simplex noise (AnoDDPM, doi:10.1109/CVPRW56347.2022.00080)" in methods
    for digest in (record["bundle"], record["inputs"]["FLAIR"]["sha256"]):
        assert digest in words


def test_the_index_lists_cases_failures_and_what_was_not_predicted(report: Path) -> None:
    words = words_of(report / "index.html")
    assert "3 cases, 1 failed" in words
    assert "sub-09 damaged file in scan.nii.gz: got nothing." in words
    assert "2026-11-27" not in words
    text = (report / "index.html").read_text()
    assert [name for name in ("sub-01", "sub-02", "sub-03") if f'href="{name}.html"' not in text] == []
    assert "low contrast" in text


def test_a_page_holds_the_brain_alone(report: Path, predictions: Path) -> None:
    """Every volume is 0 where the prediction's brain is not; the mosaic is drawn from the same volumes."""
    brain = nib.load(predictions / "sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    inside = np.asarray(brain.dataobj) > 0
    assert not inside.all()
    layers = data_of(report / "sub-01.html")["layers"]
    assert sorted(layers) == ["mask", "reconstruction", "scan", "score", "uncertainty"]
    for name in layers:
        values, affine = layer_of(report / "sub-01.html", name)
        places = np.stack(np.nonzero(values), -1) @ affine[:3, :3].T + affine[:3, 3]
        voxels = (places - brain.affine[:3, 3]) @ np.linalg.inv(brain.affine[:3, :3]).T
        assert np.allclose(voxels, np.rint(voxels), atol=1e-3)
        assert inside[tuple(np.rint(voxels).astype(int).T)].all(), name
        assert len(places) or name == "uncertainty"


def test_the_embedded_score_and_mask_are_those_of_the_prediction(report: Path, predictions: Path) -> None:
    folder = predictions / "sub-01" / "anat"
    score = np.asarray(nib.load(folder / "sub-01_desc-anomaly_probseg.nii.gz").dataobj)
    mask = np.asarray(nib.load(folder / "sub-01_label-lesion_desc-anomaly_mask.nii.gz").dataobj) > 0
    shown, _ = layer_of(report / "sub-01.html", "score")
    outlined, _ = layer_of(report / "sub-01.html", "mask")
    np.testing.assert_allclose(np.sort(shown[shown > 0]), np.sort(score[score > 0]), atol=score.max() / 2000)
    assert outlined.sum() == mask.sum()
    assert ndimage.label(outlined, np.ones((3, 3, 3)))[1] == 2


def test_coarse_layers_are_means_over_the_brain_in_the_right_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against blocks of scikit-image, on a grid whose axes run forward, left and up."""
    monkeypatch.setattr(embedding, "MOST_VOXELS", 40)
    rng = np.random.default_rng(0)
    affine = np.array([[0, -1.0, 0, 7], [1, 0, 0, -9], [0, 0, 2, 3], [0, 0, 0, 1]])
    brain = np.zeros((9, 11, 6), dtype=bool)
    brain[2:9, 3:9, 1:5] = rng.random((7, 6, 4)) < 0.8
    score, forward = rng.random(brain.shape), np.indices(brain.shape)[0] - 9.0  # millimetres
    volumes = {"score": score, "scan": forward, "mask": score > 0.5}
    layers = embedding.coarse_layers(volumes, brain, VolumeGrid.make(brain.shape, affine))
    assert (layers.factors, layers.spacing_mm) == ((2, 2, 1), (2.0, 2.0, 2.0))

    def blocks(values: np.ndarray) -> np.ndarray:
        right = np.transpose(values, (1, 0, 2))[::-1].astype(float)
        return block_reduce(right, (2, 2, 1), np.sum)

    counted = blocks(brain)
    whole = counted >= 2
    assert layers.brain.sum() == whole.sum() > 20
    for name, values in volumes.items():
        means = blocks(values * brain)[whole] / counted[whole]
        np.testing.assert_allclose(layers.values[name][layers.brain], means >= 0.5 if name == "mask" else means, 1e-5)
        assert not layers.values[name][~layers.brain].any()
    middles = np.stack(np.nonzero(layers.brain), -1) @ layers.affine[:3, :3].T + layers.affine[:3, 3]
    full = counted[whole] == 4
    np.testing.assert_allclose(layers.values["scan"][layers.brain][full], middles[full, 1], atol=1e-5)
    rightmost = np.nonzero(brain)[1].min()
    assert middles[:, 0].max() == pytest.approx(7 - rightmost, abs=1.01)


def test_a_scan_that_is_not_the_predicted_one_is_refused(predictions: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    source = tmp_path / "predictions"
    shutil.copytree(predictions, source)
    path = source / "sub-02" / RECORD.format("sub-02")
    inputs = json.loads(path.read_text())["inputs"]
    inputs["FLAIR"]["sha256"] = "0" * 64
    edit(path, inputs=inputs)
    shutil.rmtree(source / "sub-03")
    result = CliRunner().invoke(app, ["report", str(source), str(tiny_cohort), "--out", str(tmp_path / "out")])
    assert result.exit_code == 3
    assert "1 pages, 1 failed" in result.stdout
    assert "failed: sub-02: scan that is not the predicted one in sub-02, FLAIR: got sha256" in result.stderr
    assert not (tmp_path / "out" / "sub-02.html").exists()
    words = words_of(tmp_path / "out" / "index.html")
    assert "scan that is not the predicted one" in words
    assert "Without a prediction: 1" in words


def test_a_record_cannot_name_files_elsewhere(predictions: Path, tmp_path: Path) -> None:
    source = tmp_path / "predictions"
    shutil.copytree(predictions, source)
    path = source / "sub-01" / RECORD.format("sub-01")
    edit(path, parts={"score": "../../elsewhere.nii.gz"})
    (record, *_) = read_records(source, {})
    with pytest.raises(DataError, match="names a file outside the predictions"):
        record.part("score")


def test_pages_without_a_scan_or_a_mask(predictions: Path, tmp_path: Path) -> None:
    source = tmp_path / "predictions"
    shutil.copytree(predictions / "sub-01", source / "sub-01")
    shutil.copy(predictions / "model.json", source)
    path = source / "sub-01" / RECORD.format("sub-01")
    edit(path, parts={"score": json.loads(path.read_text())["parts"]["score"]}, threshold=None, rule=None)
    (source / "sub-01/anat/sub-01_desc-anomaly_lesions.tsv").unlink()
    write_report(source, out=tmp_path / "out")
    page = tmp_path / "out" / "sub-01.html"
    assert sorted(data_of(page)["layers"]) == ["score"]
    words = words_of(page)
    for sentence in ("Not calibrated", "No mask was written", "The scan itself was not given", "score is above 0"):
        assert sentence in words


def test_without_niivue_a_page_still_has_its_slices(
    predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "predictions"
    shutil.copytree(predictions / "sub-01", source / "sub-01")
    shutil.copy(predictions / "model.json", source)
    monkeypatch.setattr(rendering, "VIEWER", ("_assets", "js", "nothing.js"))
    rendering.viewer_source.cache_clear()
    try:
        write_report(source, out=tmp_path / "out")
    finally:
        rendering.viewer_source.cache_clear()
    text = (tmp_path / "out" / "sub-01.html").read_text()
    assert "holds no NiiVue" in text
    assert 'id="niivue"' not in text
    assert "data:image/png;base64,iVBOR" in text


def test_markup_in_names_and_tables_is_text(hostile: Path) -> None:
    (page,) = [path for path in hostile.iterdir() if path.name != "index.html"]
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.html", page.name)
    for path in (page, hostile / "index.html"):
        text = path.read_text()
        assert "<img src=x" not in text
        assert "<script>window" not in text
        words = words_of(path)
        assert HOSTILE in words
        assert SCRIPT in words
    assert text.count("<script") == 2


def test_the_policy_allows_the_pages_own_scripts_and_nothing_else(report: Path) -> None:
    for page in sorted(report.glob("*.html")):
        text = page.read_text()
        (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
        policy = policy.replace("&#39;", "'")
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert not {"unsafe", "http", "*", "connect-src"} & set(re.split(r"[-:;/ ]", policy))
        for script in re.findall(r"<script>(.*?)</script>", text, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
        assert not re.findall(
            r"""(?:src|href)=["'](?!data:|[\w-]+\.html|#)""", re.sub(r"<script.*?</script>", "", text)
        )


def test_no_page_names_a_folder(report: Path, predictions: Path, tiny_cohort: Path) -> None:
    for page in report.glob("*.html"):
        text = page.read_text()
        assert str(predictions.parent) not in text
        assert str(tiny_cohort.parent) not in text
        assert "Doe, Jane" not in text
    assert without_paths("bad file in /data/John Doe/a b.nii: got /x/y, expected z.") == (
        "bad file in a b.nii: got y, expected z."
    )
    assert without_paths("missing file in /d/Roe, J.: E/s.nii; copy it") == "missing file in s.nii; copy it"
    assert without_paths("a ratio of 1/2 and and/or") == "a ratio of 1/2 and and/or"


def test_page_names_are_safe_and_never_the_same() -> None:
    names = page_names(["sub-1", "sub-<1", "sub->1", "SUB-1", "index", "../x", ""])
    assert len({name.lower() for name in names.values()} | {"index.html"}) == 8
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.html", name) for name in names.values())
    assert names["sub-1"] == "sub-1.html"


def test_another_folder_is_left_alone_and_old_pages_go(predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "page.html").write_text("<!doctype html>mine")
    with pytest.raises(ConfigError, match="holds something else"):
        write_report(predictions, out=tmp_path / "other")
    with pytest.raises(DataError, match="no predictions"):
        write_report(tmp_path / "other", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    source = tmp_path / "predictions"
    shutil.copytree(predictions / "sub-01", source / "sub-01")
    shutil.copy(predictions / "model.json", source)
    write_report(source, out=tmp_path / "out")
    (tmp_path / "out" / "sub-01.html").rename(tmp_path / "out" / "sub-77.html")
    write_report(source, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "sub-01.html"]


def test_an_evaluation_of_another_bundle_is_refused(predictions: Path, scores: Path, tmp_path: Path) -> None:
    shutil.copytree(scores, tmp_path / "scores")
    (tmp_path / "scores" / "request.json").write_text(json.dumps({"bundle": "other"}))
    with pytest.raises(ConfigError, match="evaluation of another bundle"):
        write_report(predictions, out=tmp_path / "out", scores=tmp_path / "scores")


def test_outliers_are_those_beyond_the_fences() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 30.0])
    low, high = np.quantile(values, [0.25, 0.75])
    expected = [bool(value < low - 1.5 * (high - low) or value > high + 1.5 * (high - low)) for value in values]
    assert group.outliers(values).tolist() == expected
    assert expected == [False] * 5 + [True]
    assert not group.outliers(np.array([1.0, 1.0, 1.0, 99.0])).any(), "too few to say"
    rows = [group.Row(f"sub-{k}", f"sub-{k}.html", "", {"v": value}) for k, value in enumerate(values)]
    rows.append(group.Row("sub-none", "sub-none.html", "", {"v": None}))
    chart = group.distribution("v", rows, "v")
    assert chart is not None
    assert chart.outliers == ["sub-5"]
    assert len(chart.dots) == 6
    assert [dot.x for dot in chart.dots] == sorted(dot.x for dot in chart.dots)
    assert all(0 < dot.x < group.WIDTH and 0 < dot.y < group.HEIGHT for dot in chart.dots)
