"""The contract of every data-set plug-in, on trees of empty files: a plug-in that opened one would fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from strangers import as_another_user, folder_for_all

from hybriduad.cohort.leakage import identity_digests
from hybriduad.cohort.manifest import index, read_manifest, write_manifest
from hybriduad.cohort.truth import has_truth, read_truth
from hybriduad.config.runs import Anatomy
from hybriduad.core import plugins
from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.evaluation.blind_spots import _Trial
from hybriduad.evaluation.case import truth_key
from hybriduad.evaluation.real_lesions import _measured
from hybriduad.scan.cache import PreparedCache
from hybriduad.scan.digests import file_digest
from hybriduad.scan.preparation import prepare
from hybriduad.scan.volumes import VolumeGrid, read_grid

ATLAS = "R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym"
CUBE = VolumeGrid.make((2, 2, 2), np.eye(4))
BRATS23 = "BraTS-GLI-00000-001/BraTS-GLI-00000-001"


def case(root: Path, dataset: str, subject: str, images: dict[str, str], **fields: object) -> Case:
    for mask in ("brain", "lesion", "ignore"):
        if mask in fields:
            fields[mask] = root / str(fields[mask])
    if isinstance(twins := fields.get("lesion_free"), dict):
        fields["lesion_free"] = {name: root / path for name, path in twins.items()}
    return Case(dataset, subject, {name: root / path for name, path in images.items()}, **fields)  # type: ignore[arg-type]


# By plug-in: the files of a tiny tree, and the cases it holds.
TREES: dict[str, tuple[list[str], list[tuple[str, str, dict[str, str], dict[str, object]]]]] = {
    "bids": (
        [
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "sub-01/anat/sub-01_T1w.nii.gz",
            "sub-01/anat/sub-01_ce-gad_T1w.nii.gz",
            "sub-01/anat/sub-01_FLAIR.json",
            "sub-02/ses-a/anat/sub-02_ses-a_PDw.nii",
            "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
            "derivatives/strip/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-ignore_mask.nii.gz",
            "derivatives/lesion-free/sub-01/anat/sub-01_desc-lesionfree_FLAIR.nii.gz",
            "derivatives/lesion-free/sub-01/anat/sub-01_ce-gad_desc-lesionfree_T1w.nii.gz",
            "derivatives/lesion-free/sub-01/anat/sub-01_desc-other_T1w.nii.gz",
            "derivatives/lesion-free/sub-02/ses-a/anat/sub-02_ses-a_desc-lesionfree_T2w.nii.gz",
        ],
        [
            (
                "tree",
                "01",
                {
                    "FLAIR": "sub-01/anat/sub-01_FLAIR.nii.gz",
                    "T1w": "sub-01/anat/sub-01_T1w.nii.gz",
                    "T1wCE": "sub-01/anat/sub-01_ce-gad_T1w.nii.gz",
                },
                {
                    "lesion": "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
                    "brain": "derivatives/strip/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
                    "ignore": "derivatives/manual/sub-01/anat/sub-01_label-ignore_mask.nii.gz",
                    "health": "lesion",
                    "lesion_free": {
                        "FLAIR": "derivatives/lesion-free/sub-01/anat/sub-01_desc-lesionfree_FLAIR.nii.gz",
                        "T1wCE": "derivatives/lesion-free/sub-01/anat/sub-01_ce-gad_desc-lesionfree_T1w.nii.gz",
                    },
                },
            ),
            ("tree", "02", {"PDw": "sub-02/ses-a/anat/sub-02_ses-a_PDw.nii"}, {"session": "a"}),
        ],
    ),
    "ixi": (
        [
            "IXI-T1/IXI002-Guys-0828-T1.nii.gz",
            "IXI-T2/IXI002-Guys-0828-T2.nii.gz",
            "IXI-PD/IXI002-Guys-0828-PD.nii.gz",
            "IXI-MRA/IXI002-Guys-0828-MRA.nii.gz",
            "IXI-T2/IXI012-HH-1211-T2.nii.gz",
        ],
        [
            (
                "IXI",
                "IXI002",
                {
                    "T1w": "IXI-T1/IXI002-Guys-0828-T1.nii.gz",
                    "T2w": "IXI-T2/IXI002-Guys-0828-T2.nii.gz",
                    "PDw": "IXI-PD/IXI002-Guys-0828-PD.nii.gz",
                },
                {"health": "healthy", "attributes": {"site": "Guys", "scan": "0828"}},
            ),
            (
                "IXI",
                "IXI012",
                {"T2w": "IXI-T2/IXI012-HH-1211-T2.nii.gz"},
                {"health": "healthy", "attributes": {"site": "HH", "scan": "1211"}},
            ),
        ],
    ),
    "brats2021": (
        [f"BraTS2021_00000/BraTS2021_00000_{part}.nii.gz" for part in ("flair", "t1", "t1ce", "t2", "seg")]
        + ["BraTS2021_00001/BraTS2021_00001_flair.nii.gz"],
        [
            (
                "BraTS2021",
                "00000",
                {
                    "FLAIR": "BraTS2021_00000/BraTS2021_00000_flair.nii.gz",
                    "T1w": "BraTS2021_00000/BraTS2021_00000_t1.nii.gz",
                    "T1wCE": "BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz",
                    "T2w": "BraTS2021_00000/BraTS2021_00000_t2.nii.gz",
                },
                {"lesion": "BraTS2021_00000/BraTS2021_00000_seg.nii.gz", "health": "lesion"},
            ),
            ("BraTS2021", "00001", {"FLAIR": "BraTS2021_00001/BraTS2021_00001_flair.nii.gz"}, {"health": "lesion"}),
        ],
    ),
    "brats2023": (
        [f"{BRATS23}-{part}.nii.gz" for part in ("t1n", "t1c", "t2w", "t2f", "seg")],
        [
            (
                "BraTS2023",
                "GLI00000",
                {
                    "FLAIR": f"{BRATS23}-t2f.nii.gz",
                    "T1w": f"{BRATS23}-t1n.nii.gz",
                    "T1wCE": f"{BRATS23}-t1c.nii.gz",
                    "T2w": f"{BRATS23}-t2w.nii.gz",
                },
                {
                    "session": "001",
                    "lesion": f"{BRATS23}-seg.nii.gz",
                    "health": "lesion",
                    "attributes": {"cohort": "GLI"},
                },
            )
        ],
    ),
    "atlas2": (
        [
            f"Training/{ATLAS}_T1w.nii.gz",
            f"Training/{ATLAS}_label-L_desc-T1lesion_mask.nii.gz",
            f"Testing/{ATLAS.replace('001', '003')}_T1w.nii.gz",
        ],
        [
            (
                "ATLAS2",
                "r003s003",
                {"T1w": f"Testing/{ATLAS.replace('001', '003')}_T1w.nii.gz"},
                {"session": "1", "health": "lesion", "attributes": {"site": "R003", "half": "testing"}},
            ),
            (
                "ATLAS2",
                "r001s001",
                {"T1w": f"Training/{ATLAS}_T1w.nii.gz"},
                {
                    "session": "1",
                    "lesion": f"Training/{ATLAS}_label-L_desc-T1lesion_mask.nii.gz",
                    "health": "lesion",
                    "attributes": {"site": "R001", "half": "training"},
                },
            ),
        ],
    ),
    "mslub": (
        [f"patient01/{part}.nii.gz" for part in ("FLAIR", "T1W", "T1WKS", "T2W", "consensus_gt", "brainmask")]
        + ["patient02/patient02_FLAIR.nii.gz", "patient02/patient02_consensus_gt.nii.gz"],
        [
            (
                "MSLUB",
                "patient01",
                {
                    "FLAIR": "patient01/FLAIR.nii.gz",
                    "T1w": "patient01/T1W.nii.gz",
                    "T1wCE": "patient01/T1WKS.nii.gz",
                    "T2w": "patient01/T2W.nii.gz",
                },
                {
                    "brain": "patient01/brainmask.nii.gz",
                    "lesion": "patient01/consensus_gt.nii.gz",
                    "health": "lesion",
                },
            ),
            (
                "MSLUB",
                "patient02",
                {"FLAIR": "patient02/patient02_FLAIR.nii.gz"},
                {"lesion": "patient02/patient02_consensus_gt.nii.gz", "health": "lesion"},
            ),
        ],
    ),
    "wmh2017": (
        [f"training/Utrecht/0/{part}.nii.gz" for part in ("pre/FLAIR", "pre/T1", "orig/FLAIR", "orig/3DT1", "wmh")]
        + [f"test/Amsterdam/GE3T/0/{part}.nii.gz" for part in ("pre/FLAIR", "wmh")]
        + ["additional_annotations/observer_o3/training/Utrecht/0/result.nii.gz"],
        [
            (
                "WMH2017",
                f"{site}0",
                {name: f"{folder}/0/pre/{part}.nii.gz" for name, part in parts.items()},
                {
                    "reference": "FLAIR",
                    "lesion": f"{folder}/0/wmh.nii.gz",
                    "ignore": f"{folder}/0/wmh.nii.gz",
                    "health": "lesion",
                    "attributes": {"site": site, "half": half, "lesion_labels": "1", "ignore_labels": "2"},
                },
            )
            for site, half, folder, parts in (
                ("GE3T", "test", "test/Amsterdam/GE3T", {"FLAIR": "FLAIR"}),
                ("Utrecht", "training", "training/Utrecht", {"FLAIR": "FLAIR", "T1w": "T1"}),
            )
        ],
    ),
}


def grow(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_every_plug_in_has_a_tree() -> None:
    assert plugins.names("datasets") == sorted(TREES)


@pytest.mark.parametrize("name", sorted(TREES))
class TestContract:
    def test_finds_its_cases(self, name: str, tmp_path: Path) -> None:
        names, expected = TREES[name]
        root = grow(tmp_path / "tree", names)
        cases = list(plugins.load("datasets", name).cases(root))
        assert cases == [case(root, *parts, **dict(fields)) for *parts, fields in expected]

    def test_passes_over_files_of_macos(self, name: str, tmp_path: Path) -> None:
        names, expected = TREES[name]
        hidden = [str(Path(file).with_name("._" + Path(file).name)) for file in names]
        cases = list(plugins.load("datasets", name).cases(grow(tmp_path / "tree", names + hidden)))
        assert len(cases) == len(expected)

    def test_empty_folder_names_the_layout(self, name: str, tmp_path: Path) -> None:
        plugin = plugins.load("datasets", name)
        with pytest.raises(DataError) as error:
            list(plugin.cases(tmp_path))
        assert plugin.LAYOUT in str(error.value)

    def test_missing_folder(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such folder"):
            list(plugins.load("datasets", name).cases(tmp_path / "nowhere"))

    def test_says_layout_source_licence_and_traps(self, name: str) -> None:
        text = (plugins.load("datasets", name).__doc__ or "").lower()
        assert all(word in text for word in ("layout:", "where", "licence", "traps:"))

    def test_index_and_back(self, name: str, tmp_path: Path) -> None:
        root = grow(tmp_path / "tree", TREES[name][0])
        cases = index(name, root, tmp_path / "cohort.csv")
        assert read_manifest(tmp_path / "cohort.csv") == cases


@pytest.mark.parametrize("name", ["ixi", "brats2021", "mslub"])
def test_two_copies_of_a_scan_are_an_error(name: str, tmp_path: Path) -> None:
    grow(tmp_path / "a", TREES[name][0])
    grow(tmp_path / "b", TREES[name][0])
    with pytest.raises(DataError, match="two files for"):
        list(plugins.load("datasets", name).cases(tmp_path))


def test_mask_without_a_scan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mask without a scan"):
        list(plugins.load("datasets", "mslub").cases(grow(tmp_path, ["patient01/consensus_gt.nii.gz"])))


def test_links_to_nothing_are_named(tmp_path: Path) -> None:
    link = grow(tmp_path, ["patient01/T1W.nii.gz"]) / "patient01/FLAIR.nii.gz"
    link.symlink_to(tmp_path / "annex")
    with pytest.raises(DataError, match=r"links to nothing.*FLAIR"):
        list(plugins.load("datasets", "mslub").cases(tmp_path))


@pytest.mark.parametrize("layout", ["bids", "mslub"])
def test_a_folder_that_cannot_be_read_is_no_empty_one(layout: str) -> None:
    plugin = plugins.load("datasets", layout)
    with folder_for_all() as folder:
        root = grow(folder / "tree", TREES[layout][0])
        shut = root / ("sub-02" if layout == "bids" else "patient02")
        shut.chmod(0)
        with as_another_user():
            sentence = f"cannot read folder in {shut}: got Permission denied"
            if layout == "bids":
                first, second = plugin.cases(root)
                assert (first.name, second.name, first.faults) == ("sub-01", "sub-02", {})
                assert second.faults[""].startswith(sentence)
            else:
                with pytest.raises(DataError, match=sentence):
                    list(plugin.cases(root))


@pytest.mark.parametrize(
    ("part", "use"),
    [
        ("lesion", lambda case, _: truth_key(case)),
        ("ignore", lambda case, _: read_truth(case, np.ones((2, 2, 2), bool), CUBE, {})),
        ("lesion", lambda case, _: _Trial._own_lesions(None, case, None)),
        ("lesion", lambda case, _: _measured(case, (), "axial", np.ones(3), CUBE, {}, None)),
        ("T1w", lambda case, _: identity_digests(case)),
        ("", lambda case, _: identity_digests(case, ["T2w"])),
        ("brain", lambda case, _: prepare(case, Anatomy(contrasts=("FLAIR",)))),
        ("FLAIR", lambda case, folder: PreparedCache(folder).get(case, Anatomy(contrasts=("FLAIR", "T2w")))),
        ("FLAIR", lambda case, folder: write_manifest([case], folder / "cohort.csv")),
    ],
)
def test_whoever_needs_a_part_with_a_fault_says_so(
    part: str, use: Callable[[Case, Path], object], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"^two of a kind\.$"):
        use(Case("d", "1", {}, health="healthy", faults={part: "two of a kind"}), tmp_path)
    assert identity_digests(Case("d", "1", {}, faults={"T1w": "two of a kind"}), ["FLAIR"])["voxels"] == []


def bids(root: Path, *names: str) -> list[Case]:
    return list(plugins.load("datasets", "bids").cases(grow(root, list(names))))


class TestBids:
    def test_images_that_are_no_known_contrast_are_named(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        files = ["FLAIR", "flair", "SWI"]
        (case,) = bids(tmp_path, *(f"sub-01/anat/sub-01_{suffix}.nii.gz" for suffix in files))
        assert list(case.images) == ["FLAIR"]
        (line,) = caplog.messages
        assert line.startswith("2 images are none of FLAIR, T1w,")
        assert line.endswith("and left out: sub-01_SWI.nii.gz, sub-01_flair.nii.gz")

    def test_a_scan_without_run_is_shared_by_the_runs(self, tmp_path: Path) -> None:
        first, second = bids(
            tmp_path,
            "sub-01/anat/sub-01_run-01_FLAIR.nii.gz",
            "sub-01/anat/sub-01_run-02_FLAIR.nii.gz",
            "sub-01/anat/sub-01_T1w.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_run-02_label-lesion_mask.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-brain_mask.nii.gz",
        )
        assert (first.name, second.name) == ("sub-01_run-01", "sub-01_run-02")
        assert first.images["FLAIR"] != second.images["FLAIR"]
        assert first.images["T1w"] == second.images["T1w"]
        assert (first.lesion, first.health) == (None, "unknown")
        assert second.lesion is not None
        assert (first.brain, second.brain) == (None, None)  # of which run it is, nothing says

    def test_a_mask_without_session_is_of_the_only_session(self, tmp_path: Path) -> None:
        mask = "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz"
        (case,) = bids(tmp_path / "one", "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz", mask)
        assert case.lesion == tmp_path / "one" / mask
        both = [f"sub-01/ses-{i}/anat/sub-01_ses-{i}_FLAIR.nii.gz" for i in (1, 2)]
        assert [case.lesion for case in bids(tmp_path / "two", *both, mask)] == [None, None]

    def test_brains_of_other_pipelines_go_by_session(self, tmp_path: Path) -> None:
        scans = [f"sub-01/ses-{i}/anat/sub-01_ses-{i}_FLAIR.nii.gz" for i in (1, 2, 3)]
        brains = [f"derivatives/prep/sub-01/ses-{i}/anat/sub-01_ses-{i}_desc-brain_mask.nii.gz" for i in (1, 2)]
        elsewhere = "derivatives/prep/sub-01/ses-3/anat/sub-01_ses-3_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz"
        of_all = "derivatives/prep/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
        found = [case.brain for case in bids(tmp_path, *scans, *brains, elsewhere, of_all)]
        assert found == [*(tmp_path / brain for brain in brains), None]

    def test_predictions_and_other_spaces_are_not_truth(self, tmp_path: Path) -> None:
        (case,) = bids(
            tmp_path,
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "derivatives/hybriduad/sub-01/anat/sub-01_label-lesion_desc-anomaly_mask.nii.gz",
            "derivatives/hybriduad/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
            "derivatives/prep/sub-01/anat/sub-01_space-MNI152NLin2009cAsym_label-lesion_mask.nii.gz",
        )
        assert (case.brain, case.lesion, case.health) == (None, None, "unknown")

    def test_no_scan_but_a_map_or_phase(self, tmp_path: Path) -> None:
        (case,) = bids(
            tmp_path,
            "sub-01/anat/sub-01_part-phase_T2starw.nii.gz",
            "sub-01/anat/sub-01_desc-pseudohealthy_FLAIR.nii.gz",
            "sub-01/anat/sub-01_ce-gad_FLAIR.nii.gz",
            "sub-01/anat/sub-01_T1w.nii.gz",
        )
        assert list(case.images) == ["T1w"]

    def test_manual_masks_come_first_and_two_equals_are_an_error(self, tmp_path: Path) -> None:
        names = ["sub-01/anat/sub-01_FLAIR.nii.gz"]
        names += [f"derivatives/{who}/sub-01/anat/sub-01_label-lesion_mask.nii.gz" for who in ("a", "b")]
        (case,) = bids(tmp_path, *names)
        assert (case.lesion, case.health) == (None, "lesion")
        assert has_truth(case)  # so that nobody passes over it
        with pytest.raises(DataError, match="several files for lesion"):
            case.check(["lesion"])
        (case,) = bids(tmp_path, "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz")
        assert case.lesion is not None
        assert "manual" in case.lesion.parts

    def test_two_acquisitions_are_a_fault_of_their_case_unless_one_is_plain(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        names = [f"sub-01/anat/sub-01_acq-{acq}_T1w.nii.gz" for acq in ("thick", "thin")]
        first, second = bids(tmp_path, *names, "sub-01/anat/sub-01_FLAIR.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
        assert (list(first.images), list(second.images)) == (["FLAIR"], ["T1w"])
        assert "1 of 2 cases have files that cannot be used, as sub-01: several files for T1w" in caplog.text
        first.check(["FLAIR"])
        with pytest.raises(DataError, match=r"several files for T1w.*choose one of them by .*--bids-filter-file"):
            first.check(["FLAIR", "T1w"])
        with pytest.raises(DataError, match=r"several files for T1w.*\.$"):
            index("bids", tmp_path, tmp_path / "cohort.csv")
        (tmp_path / "sub-02/anat/sub-02_T1w.nii.gz").unlink()
        (case,) = bids(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
        assert case.images["T1w"].name == "sub-01_T1w.nii.gz"

    def test_a_link_to_nothing_is_a_matter_of_its_case(self, tmp_path: Path) -> None:
        grow(tmp_path, ["sub-02/anat/sub-02_FLAIR.nii.gz"])
        link = grow(tmp_path, ["sub-01/anat/sub-01_T1w.nii.gz"]) / "sub-01/anat/sub-01_FLAIR.nii.gz"
        link.symlink_to(tmp_path / "annex")
        first, second = bids(tmp_path)
        assert (first.images["FLAIR"], second.name) == (link, "sub-02")
        for read in (read_grid, file_digest):
            with pytest.raises(DataError, match=r"links? to nothing in .*fetch"):
                read(link)
        with pytest.raises(DataError, match=r"links to nothing.*sub-01_FLAIR"):
            index("bids", tmp_path, tmp_path / "cohort.csv")

    def test_participants_and_name(self, tmp_path: Path) -> None:
        (tmp_path / "dataset_description.json").write_text('{"Name": "Site B"}')
        (tmp_path / "participants.tsv").write_text(
            "participant_id\tage\tsite\thealth\tsplit\tlesion\n"
            'sub-01\t61\tB "old"\thealthy\ttest\tno\n'
            "02\tn/a\tB\t\t\t\n"
        )
        first, second = bids(tmp_path, "sub-01/anat/sub-01_FLAIR.nii.gz", "sub-02/anat/sub-02_FLAIR.nii.gz")
        assert (first.dataset, first.health, first.split) == ("Site B", "healthy", "test")
        assert first.attributes == {"age": "61", "site": 'B "old"', "participant_lesion": "no"}
        assert (second.health, second.split, second.attributes) == ("unknown", "", {"site": "B"})

    @pytest.mark.parametrize(
        ("rows", "sentence"),
        [
            (b"sub-02\twell\ttest\t61", "row 3: health is 'well', not one of ['healthy', 'lesion', 'unknown']"),
            (b"sub-02\thealthy\tholdout\t61", "row 3: split is 'holdout', not one of ['train', 'validation', 'test']"),
            (b"sub-02\thealthy\t61", "row 3: 3 cells, but the header has 4"),
            (b"sub-02\thealthy\t\t61\tx", "row 3: 5 cells, but the header has 4"),
            (b"02\thealthy\t\t61\n\nsub-02\thealthy\t\t62", "row 5: another is row 3"),
            (b"sub-02\thealthy\t\tJos\xe9", "row 3: no UTF-8"),
        ],
    )
    def test_a_bad_row_is_a_matter_of_its_participant(
        self, rows: bytes, sentence: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It can be predicted, but has no truth; the others go on, and the log names it."""
        content = b"participant_id\thealth\tsplit\tage\nsub-01\thealthy\ttrain\t50\n" + rows + b"\n"
        (tmp_path / "participants.tsv").write_bytes(content)
        good, bad = bids(tmp_path, "sub-01/anat/sub-01_FLAIR.nii.gz", "sub-02/anat/sub-02_FLAIR.nii.gz")
        assert (good.health, good.split, good.attributes, good.faults) == ("healthy", "train", {"age": "50"}, {})
        fault = f"bad row of a participant in {tmp_path / 'participants.tsv'}: got {sentence}; correct it"
        assert bad.faults == {"lesion": fault}
        (line,) = caplog.messages
        assert line == (
            f"bad rows in {tmp_path / 'participants.tsv'}, whose participants can be predicted, "
            f"but not learnt from or evaluated: sub-02 ({sentence})"
        )
        bad.check(["FLAIR", "brain"])
        assert has_truth(bad)  # so that nobody passes over it
        with pytest.raises(DataError, match="bad row of a participant"):
            truth_key(bad)
        with pytest.raises(DataError, match="bad row of a participant"):
            index("bids", tmp_path, tmp_path / "cohort.csv")

    def test_rows_that_do_no_harm(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Empty ones, repeated ones, cells that are empty beyond the header, and a row of nobody, which is said."""
        (tmp_path / "participants.tsv").write_text(
            "participant_id\thealth\nsub-01\thealthy\t\n\t\n01\thealthy\nn/a\thealthy\nsub-99\tlesion\n"
        )
        (case,) = bids(tmp_path, "sub-01/anat/sub-01_FLAIR.nii.gz")
        assert (case.health, case.faults) == ("healthy", {})
        (line,) = caplog.messages
        assert line.endswith("row 5: no participant_id")

    def test_labels_of_masks_in_a_bad_row(self, tmp_path: Path) -> None:
        """Which values of its brain mask count is not known, so the case cannot be predicted by it."""
        (tmp_path / "participants.tsv").write_text("participant_id\tbrain_labels\nsub-01\t1\nsub-01\t2\n")
        (case,) = bids(tmp_path, "sub-01/anat/sub-01_FLAIR.nii.gz")
        assert sorted(case.faults) == ["brain", "lesion"]

    @pytest.mark.parametrize(
        ("content", "got"),
        [
            ("participant_id\tage\nsub-01\t50\n".encode("utf-16"), "columns "),
            (b"subject\tage\nsub-01\t50\n", "columns 'subject', 'age'"),
            (b"participant_id\tGr\xf6\xdfe\nsub-01\t50\n", "columns 'participant_id', 'Gr\\udcf6\\udcdfe'"),
            (b"participant_id\tage\nsub-01\t" + b"5" * 140_000 + b"\n", "field larger than field limit"),
            (None, "No such file or directory"),
        ],
    )
    def test_a_table_that_cannot_be_read(
        self, content: bytes | None, got: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        if content is None:
            (tmp_path / "participants.tsv").symlink_to(tmp_path / "annex")
        else:
            (tmp_path / "participants.tsv").write_bytes(content)
        names = [f"sub-0{k}/anat/sub-0{k}_FLAIR.nii.gz" for k in (1, 2)]
        cases = bids(tmp_path, *names, "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz")
        assert [case.health for case in cases] == ["lesion", "unknown"]
        (line,) = caplog.messages
        sentence = f"unreadable participants in {tmp_path / 'participants.tsv'}: got {got}"
        for case in cases:
            case.check(["FLAIR", "brain"])
            assert case.faults["lesion"].startswith(sentence)
        assert f"can be predicted, but not learnt from or evaluated: {sentence}" in line

    def test_a_folder_whose_name_is_no_utf_8(self, tmp_path: Path) -> None:
        root = tmp_path / os.fsdecode(b"Jos" + bytes([0xE9]))
        (case,) = bids(root, "sub-01/anat/sub-01_FLAIR.nii.gz")
        assert case.dataset == "Jos\N{REPLACEMENT CHARACTER}"

    def test_damaged_description(self, tmp_path: Path) -> None:
        (tmp_path / "dataset_description.json").write_text("{")
        with pytest.raises(DataError, match="cannot read data set description"):
            bids(tmp_path, "sub-01/anat/sub-01_FLAIR.nii.gz")
