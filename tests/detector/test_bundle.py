"""Bundles: saved, loaded, moved, nested, checked on every load, and the golden one of an earlier version."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import prepared_cases

from hybriduad.core.errors import BundleError, ConfigError
from hybriduad.detector import bundle as bundles
from hybriduad.detector.bundle import Bundle, verify, write_record
from hybriduad.detector.loading import load_detector, load_reconstructor, load_segmenter
from hybriduad.scan.preparation import Prepared
from hybriduad.training.resuming import Workshop

GOLDEN = Path(__file__).parents[1] / "golden"
OWN = ("config.yaml", "weights.safetensors", "statistics.safetensors", "bundle.json")
NESTED = tuple(f"reconstructor/{name}" for name in OWN)


@pytest.fixture(scope="module")
def case(tiny_cohort: Path) -> Prepared:
    return prepared_cases(tiny_cohort)[0]


@pytest.fixture
def copied(tiny_detector: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_detector, tmp_path / "detector"))


def test_a_bundle_says_what_it_is(tiny_detector: Path, tiny_reconstructor: Path) -> None:
    detector, reconstructor = verify(tiny_detector), verify(tiny_reconstructor)
    assert (detector.kind, reconstructor.kind) == ("detector", "reconstructor")
    assert detector.reconstructor is not None
    assert detector.reconstructor.digest == reconstructor.digest
    assert len({detector.digest, reconstructor.digest}) == 2
    assert detector.anatomy == reconstructor.anatomy
    assert detector.thresholds.of("score") == 0.6
    assert set(detector.record) == {
        "format",
        "kind",
        "intended_use",
        "licence",
        "anatomy",
        "direction",
        "precision",
        "seed",
        "generation",
        "training",
        "identities",
        "thresholds",
        "provenance",
        "checksums",
        "digest",
    }
    assert detector.record["provenance"]["versions"]["torch"] == torch.__version__.split("+")[0]


def test_weights_come_back_bit_by_bit(tiny_detector: Path, tiny_reconstructor: Path) -> None:
    bundle = verify(tiny_detector)
    for model, path in ((load_segmenter(bundle), tiny_detector), (load_reconstructor(bundle), tiny_reconstructor)):
        saved = load_file(path / "weights.safetensors")
        assert model.state_dict().keys() == saved.keys()
        assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_no_pickle_and_files_that_others_may_read(tiny_detector: Path) -> None:
    files = {path.relative_to(tiny_detector).as_posix(): path for path in tiny_detector.rglob("*") if path.is_file()}
    assert set(files) == {*OWN, *NESTED}
    mask = os.umask(0)
    os.umask(mask)
    for path in files.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path


def test_a_moved_bundle_predicts_the_same_without_what_it_was_made_from(
    tiny_detector: Path, tiny_reconstructor: Path, case: Prepared, tmp_path: Path
) -> None:
    before = load_detector(tiny_detector, "cpu").predict_volume(case).score
    first = Path(shutil.copytree(tiny_reconstructor, tmp_path / "first"))
    saved = tmp_path / "made"
    bundle = verify(tiny_detector)
    description = bundles.Description(
        anatomy=bundle.anatomy, direction="axial", precision="float32", training={}, identities={}
    )
    statistics = load_file(tiny_detector / "statistics.safetensors")
    bundles.save(saved, bundle.run, load_segmenter(bundle).state_dict(), statistics, description, verify(first))
    shutil.rmtree(first)
    (tmp_path / "elsewhere").mkdir()
    moved = saved.rename(tmp_path / "elsewhere" / "renamed")
    np.testing.assert_array_equal(load_detector(moved, "cpu").predict_volume(case).score, before)


class TestTampering:
    @pytest.mark.parametrize("name", [*OWN, *NESTED])
    @pytest.mark.parametrize("act", ["flip", "truncate", "remove"])
    def test_every_file_is_checked(self, copied: Path, name: str, act: str) -> None:
        path = copied / name
        content = bytearray(path.read_bytes())
        if act == "remove":
            path.unlink()
        elif act == "truncate":
            path.write_bytes(content[: len(content) // 2])
        else:
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        with pytest.raises(BundleError, match=r"\.$"):
            load_detector(copied, "cpu")

    def test_the_damaged_file_is_named(self, copied: Path) -> None:
        path = copied / "reconstructor" / "weights.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"reconstructor.*weights\.safetensors"):
            verify(copied)

    def test_a_file_more(self, copied: Path) -> None:
        (copied / "sub-01_FLAIR.nii.gz").write_bytes(b"")
        with pytest.raises(BundleError, match=r"does not belong.*sub-01_FLAIR\.nii\.gz"):
            verify(copied)

    def test_a_record_edited_by_hand(self, copied: Path) -> None:
        record = json.loads((copied / "bundle.json").read_text())
        record["thresholds"]["rules"]["best-dice"]["values"]["score"] = 0.1
        (copied / "bundle.json").write_text(json.dumps(record))
        with pytest.raises(BundleError, match="changed after it was written"):
            verify(copied)

    def test_another_reconstructor_inside(self, copied: Path) -> None:
        nested = copied / "reconstructor"
        record = json.loads((nested / "bundle.json").read_text())
        write_record(nested, {**record, "seed": 5})
        verify(nested)
        with pytest.raises(BundleError, match=r"reconstructor/bundle\.json"):
            verify(copied)

    def test_another_format(self, copied: Path) -> None:
        record = json.loads((copied / "bundle.json").read_text())
        write_record(copied, {**record, "format": 99})
        with pytest.raises(BundleError, match=r"got 99, expected 1; update"):
            verify(copied)

    @pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"digest": 1, "checksums": 2, "format": 3}'])
    def test_an_unreadable_record(self, copied: Path, content: str) -> None:
        (copied / "bundle.json").write_text(content)
        with pytest.raises(BundleError, match=r"\.$"):
            verify(copied)


class TestStrictWeights:
    """Published mistake: checkpoints loaded with strict=False."""

    @pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
    def test_weights_that_do_not_fit(self, copied: Path, change: str) -> None:
        path = copied / "weights.safetensors"
        weights = load_file(path)
        name = next(iter(weights))
        if change == "missing":
            del weights[name]
        elif change == "unknown":
            weights["extra"] = torch.zeros(1)
        else:
            weights[name] = torch.zeros(2, 2)
        save_file(weights, path)
        write_record(copied, json.loads((copied / "bundle.json").read_text()))
        bundle = verify(copied)
        with pytest.raises(BundleError, match="weights do not fit"):
            load_segmenter(bundle)


def test_what_is_no_bundle(tmp_path: Path, tiny_reconstructor: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle.*no bundle\.json"):
        verify(tmp_path)
    (tmp_path / "run.partial").mkdir()
    with pytest.raises(BundleError, match="unfinished training"):
        verify(tmp_path / "run")
    reconstructor = verify(tiny_reconstructor)
    with pytest.raises(BundleError, match="without a segmenter"):
        load_segmenter(reconstructor)
    with pytest.raises(ConfigError, match="no such device on this machine"):
        load_detector(tiny_reconstructor, "abacus")


def test_a_bundle_is_never_written_over(copied: Path) -> None:
    bundle = verify(copied)
    about = bundles.Description(
        anatomy=bundle.anatomy, direction="axial", precision="float32", training={}, identities={}
    )
    with pytest.raises(BundleError, match="already there"):
        bundles.save(copied, bundle.run, {}, {}, about)


def test_identities_of_the_parents_count(copied: Path) -> None:
    nested = copied / "reconstructor"
    record = json.loads((nested / "bundle.json").read_text())
    write_record(nested, {**record, "identities": {"aa": "fit"}})
    record = json.loads((copied / "bundle.json").read_text())
    write_record(copied, {**record, "identities": {"bb": "calibrate"}})
    assert verify(copied).used == {"aa": "fit", "bb": "calibrate"}


class TestWorkshop:
    def test_the_partial_folder_becomes_the_bundle(self, copied: Path, tmp_path: Path) -> None:
        request: dict[str, Any] = {"config": {"a": (1, 2)}}
        workshop = Workshop(tmp_path / "out", request)
        assert workshop.finished is None
        folder = workshop.open()
        assert folder == tmp_path / "out.partial"
        (folder / "pictures").mkdir()
        (folder / "pictures" / "one.png").write_bytes(b"x")
        (folder / "resume.ckpt").write_bytes(b"x")

        def save(ready: Path) -> None:
            shutil.copytree(copied, ready, dirs_exist_ok=True)
            write_record(ready, json.loads((ready / "bundle.json").read_text()))

        Workshop(tmp_path / "out", request).finish(save)
        assert {path.name for path in tmp_path.iterdir()} == {"detector", "out"}
        assert (tmp_path / "out" / "pictures" / "one.png").exists()
        assert not (tmp_path / "out" / "resume.ckpt").exists()
        assert Workshop(tmp_path / "out", request).finished is not None

    def test_overwriting_replaces_the_old_bundle_at_the_very_end_and_continues(
        self, copied: Path, tmp_path: Path
    ) -> None:
        def save(ready: Path) -> None:
            shutil.copytree(copied, ready, dirs_exist_ok=True)
            write_record(ready, {**json.loads((ready / "bundle.json").read_text()), "intended_use": "new"})

        def fail(ready: Path) -> None:
            shutil.copytree(copied, ready, dirs_exist_ok=True)
            (ready / "weights.safetensors").write_bytes(b"half")

        old = shutil.copytree(copied, tmp_path / "out")
        request = {"config": 1}
        (Workshop(old, request, overwrite=True).open() / "resume.ckpt").write_bytes(b"x")
        workshop = Workshop(old, request, overwrite=True)
        assert workshop.finished is None
        assert (workshop.open() / "resume.ckpt").exists()
        with pytest.raises(BundleError, match=r"out\.ready"):
            workshop.finish(fail)
        assert verify(old).digest == verify(copied).digest
        assert workshop.finish(save).record["intended_use"] == "new"
        assert {path.name for path in tmp_path.iterdir()} == {"detector", "out"}

    @pytest.mark.parametrize("renames", [1, 2])
    def test_killed_while_an_old_bundle_is_replaced(
        self, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
    ) -> None:
        def save(ready: Path) -> None:
            shutil.copytree(copied, ready, dirs_exist_ok=True)
            write_record(ready, {**json.loads((ready / "bundle.json").read_text()), "intended_use": "new"})

        rename, done = Path.rename, []

        def killed(*arguments: Path) -> Path:
            if len(done) == renames or len(arguments) == 1:
                raise KeyboardInterrupt
            done.append(arguments)
            return rename(*arguments)

        out = shutil.copytree(copied, tmp_path / "out")
        workshop = Workshop(out, {"config": 1}, overwrite=True)
        (workshop.open() / "prepared").mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed)
            patch.setattr(Workshop, "_end_replacing", killed)
            with pytest.raises(KeyboardInterrupt):
                workshop.finish(save)
        again = Workshop(out, {"config": 1}, overwrite=renames == 1)
        if renames == 1:  # the old one is back
            assert verify(out).digest == verify(copied).digest
            again.finish(save)
        assert Workshop(out, {"config": 1}).finished is not None
        assert verify(out).record["intended_use"] == "new"
        assert {path.name for path in tmp_path.iterdir()} == {"detector", "out"}

    def test_what_a_kill_at_the_very_end_left_is_removed(self, copied: Path, tmp_path: Path) -> None:
        workshop = Workshop(tmp_path / "out", {"config": 1})
        (workshop.open() / "prepared").mkdir()
        (workshop.prepared / "patient.npy").write_bytes(b"x")
        shutil.copytree(copied, workshop.out)
        (workshop.out / "request.json").write_text(json.dumps({"config": 1}))
        write_record(workshop.out, json.loads((workshop.out / "bundle.json").read_text()))
        assert Workshop(tmp_path / "out", {"config": 1}).finished is not None
        assert not workshop.partial.exists()

    def test_a_partial_folder_that_is_none_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "out.partial").mkdir()
        (tmp_path / "out.partial" / "thesis.txt").write_text("x")
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match="holds something else"):
                Workshop(tmp_path / "out", {"config": 1}, overwrite=overwrite)

    def test_a_save_that_fails_leaves_the_work(self, tmp_path: Path) -> None:
        workshop = Workshop(tmp_path / "out", {"config": 1})
        (workshop.open() / "resume.ckpt").write_bytes(b"x")

        def fail(_: Path) -> None:
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            workshop.finish(fail)
        assert not (tmp_path / "out").exists()
        assert (tmp_path / "out.partial" / "resume.ckpt").exists()

    def test_other_work_in_the_same_place(self, copied: Path, tmp_path: Path) -> None:
        config = {"train": {"steps": 3, "lr": 0.1}, "anomalies": [{"name": "x" * 200}]}
        Workshop(tmp_path / "out", {"config": config, "limit": None}).open()
        with pytest.raises(ConfigError, match=r"got limit None there and 3 now; .*--overwrite"):
            Workshop(tmp_path / "out", {"config": config, "limit": 3})
        changed = {"train": {"steps": 4, "lr": 0.1}, "anomalies": []}
        with pytest.raises(ConfigError, match=r"another config.anomalies, config.train.steps 3 there and 4 now;"):
            Workshop(tmp_path / "out", {"config": changed, "limit": None})
        (tmp_path / "out.partial" / "resume.ckpt").write_bytes(b"x")
        (tmp_path / "out.partial" / "prepared").mkdir()
        workshop = Workshop(tmp_path / "out", {"config": 2}, overwrite=True)
        assert (tmp_path / "out.partial" / "resume.ckpt").exists(), "until there is something to put in its place"
        assert sorted(path.name for path in workshop.open().iterdir()) == ["prepared", "request.json"]
        with pytest.raises(ConfigError, match="bundle of another request"):
            Workshop(copied, {"config": 1})


class TestGolden:
    """A bundle written by an earlier version; a removed option needs a migration, not a new golden bundle."""

    @pytest.fixture(scope="class")
    def parts(self) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / "prediction.npz", allow_pickle=False) as stored:
            return dict(stored)

    def test_it_is_small(self) -> None:
        assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 400_000

    def test_it_gives_its_score(self, parts: dict[str, np.ndarray], case: Prepared) -> None:
        first, count = int(parts["first"]), parts["brain"].shape[2]
        image = np.full((1, 32, 32, int(parts["depth"])), -1.0, np.float32)
        brain = np.zeros(image.shape[1:], bool)
        image[..., first : first + count] = parts["image"]
        brain[..., first : first + count] = parts["brain"]
        empty = np.zeros_like(brain)
        shown = replace(case, image=image, brain=brain, foreground=brain, lesion=empty, ignore=empty)
        shown = replace(shown, spacing_mm=tuple(parts["spacing_mm"].tolist()))
        detector = load_detector(GOLDEN / "detector", "cpu")
        assert detector.residual.median_mm == 11.5  # its config says 5 voxels, of 2.3 mm
        prediction = detector.predict_volume(shown)
        assert parts["brain"].sum() > 500
        for name in ("score", "probability", "map"):
            values = getattr(prediction, name)[..., first : first + count]
            np.testing.assert_allclose(values, parts[name], atol=1e-4, rtol=0, err_msg=name)
            assert parts[name][parts["brain"]].std() > 0.01, name
        assert prediction.threshold == 0.4
        assert detector.thresholds.of("asymmetry") is None  # it is of before that baseline
        assert prediction.asymmetry is not None
        assert prediction.asymmetry[brain].any()


def trained(contrasts: tuple[str, ...], met: dict[str, Any] | None, inner: Bundle | None = None) -> Bundle:
    training = {} if met is None else {"contrasts": met}
    return Bundle(Path("b"), {"anatomy": {"contrasts": contrasts}, "training": training}, None, inner)


def test_a_bundle_needs_the_contrasts_that_its_trainings_never_lacked() -> None:
    both = ("FLAIR", "T1w")
    never, some = {"FLAIR": 0, "T1w": 0}, {"FLAIR": 0, "T1w": 4}
    assert trained(both, {"dropout": 0.0, "lacking_cases": never}).needed == both
    assert trained(both, {"dropout": 0.0, "lacking_cases": some}).needed == ("FLAIR",)
    assert trained(both, {"dropout": 0.2, "lacking_cases": never}).needed == ()
    assert trained(both[:1], {"dropout": 0.0, "lacking_cases": {"FLAIR": 0}}).needed == ()
    assert trained(both, None).needed == (), "bundles from before it was noted"
    strict = trained(both, {"dropout": 0.0, "lacking_cases": never})
    assert trained(both, {"dropout": 0.2, "lacking_cases": never}, strict).needed == both
    assert trained(both, None, strict).needed == both
