from __future__ import annotations

import gzip
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybriduad.cohort import manifest, splits
from hybriduad.core.errors import ConfigError, DataError, LeakageError
from hybriduad.core.types import Case


def table(folder: Path, *rows: str, files: str = "a.nii.gz b.nii.gz m.nii.gz") -> Path:
    """Empty ``files`` in a folder, and ``rows`` as its ``cohort.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files.split():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder / "cohort.csv"


def complaint(path: Path, **options: Path) -> str:
    with pytest.raises(DataError) as error:
        manifest.read_manifest(path, **options)
    return str(error.value)


def test_a_file_name_that_is_no_utf_8_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"Jos" + bytes([0xE9]))
    case = Case("d", "1", {"FLAIR": folder / "a.nii.gz"})
    with pytest.raises(DataError, match=r"file name that is no UTF-8 .*got a row with .*Jos\\udce9.*; rename those"):
        manifest.write_manifest([case], tmp_path / "cohort.csv")
    assert list(tmp_path.iterdir()) == []
    folder.mkdir()
    manifest.write_manifest([case], folder / "cohort.csv")
    assert "a.nii.gz" in (folder / "cohort.csv").read_text()


class TestReading:
    def test_every_column(self, tmp_path: Path) -> None:
        path = table(
            tmp_path,
            "dataset,subject,session,run,FLAIR,T1w,reference,brain,lesion,ignore,lesion_free_T1w,health,split,site,age",
            "D,sub-p_01,ses-1,2,a.nii.gz,b.nii.gz,T1w,m.nii.gz,m.nii.gz,m.nii.gz,a.nii.gz,,train,Ulm,",
            ",,,,,,,,,,,,,,",
            "D,2,,,,b.nii.gz,,,m.nii.gz,,,healthy,,,40",
        )
        first, second = manifest.read_manifest(path)
        mask = tmp_path / "m.nii.gz"
        images = {"FLAIR": tmp_path / "a.nii.gz", "T1w": tmp_path / "b.nii.gz"}
        told = Case("D", "p01", images, "1", "2", "T1w", mask, mask, mask, "lesion", "train", {"site": "Ulm"})
        assert first == replace(told, lesion_free={"T1w": tmp_path / "a.nii.gz"})
        assert (second.health, second.attributes, second.split) == ("healthy", {"age": "40"}, "")
        assert second.lesion_free == {}

    def test_a_missing_mask_is_not_healthy(self, tmp_path: Path) -> None:
        (case,) = manifest.read_manifest(table(tmp_path, "dataset,subject,FLAIR", "D,1,a.nii.gz"))
        assert case.health == "unknown"

    def test_byte_order_mark_of_spreadsheets(self, tmp_path: Path) -> None:
        path = table(tmp_path, "\ufeffdataset,subject,FLAIR", "D,1,a.nii.gz")
        assert len(manifest.read_manifest(path)) == 1

    def test_every_bad_row_is_named(self, tmp_path: Path) -> None:
        text = complaint(
            table(
                tmp_path,
                "dataset,subject,FLAIR,T1w,reference,lesion,health,split,lesion_free_T1w",
                "D,1,a.nii.gz,,,,,,",
                "D,2,gone.nii.gz,,,gone_too.nii.gz,,,",
                "D,3,,,,,,,",
                "D,sub-1,b.nii.gz,,,,,,",
                "",
                "D,4,a.nii.gz,,,,ill,holdout,",
                "D,5,a.nii.gz,,T1w,,,,b.nii.gz",
                "D,6,a.nii.gz",
                ",-,a.nii.gz,,,,,,",
                "D,7_7,a.nii.gz,,,,,,",
                "D,77,a.nii.gz,,,,,,",
            )
        )
        for fact in (
            "row 3: FLAIR: missing file",
            "row 3: lesion: missing file",
            "row 4: no image",
            "row 5: duplicate case sub-1 of 'D', first in row 2",
            "row 7: health 'ill'",
            "row 7: split 'holdout'",
            "row 8: reference 'T1w'",
            "row 8: lesion_free_T1w, but no T1w",
            "row 9: 3 cells",
            "row 10: no dataset",
            "row 10: subject '-'",
            "row 12: subjects '7_7' and '77' both become '77'",
        ):
            assert fact in text
        assert "row 2:" not in text
        assert "row 11:" not in text

    @pytest.mark.parametrize(
        ("header", "fact"),
        [
            ("dataset,FLAIR", "'subject' is missing"),
            ("subject,FLAIR", "'dataset' is missing"),
            ("dataset,subject,T1", "no image column"),
            ("dataset,subject,flair", "'flair' must be 'FLAIR'"),
            ("dataset,subject,FLAIR,Lesion_free_FLAIR", "'Lesion_free_FLAIR' must be 'lesion_free_FLAIR'"),
            ("dataset,subject,FLAIR,FLAIR", "'FLAIR' stands twice"),
            ("dataset,subject,FLAIR,", "column 4 has no name"),
            ("dataset;subject;FLAIR", "separated by semicolons"),
        ],
    )
    def test_bad_header(self, header: str, fact: str, tmp_path: Path) -> None:
        assert fact in complaint(table(tmp_path, header, "D,1,a.nii.gz"))

    def test_unknown_contrast(self, tmp_path: Path) -> None:
        text = complaint(table(tmp_path, "dataset,subject,FLAIR,T1", "D,1,a.nii.gz,b.nii.gz"))
        assert "column 'T1' holds images, but is none of ['FLAIR', 'T1w'" in text

    def test_empty_missing_and_no_text(self, tmp_path: Path) -> None:
        assert "empty cohort" in complaint(table(tmp_path, "dataset,subject,FLAIR", ",,"))
        assert "cannot read manifest" in complaint(tmp_path / "gone.csv")
        (tmp_path / "scan.csv").write_bytes(gzip.compress(b"x"))
        assert "not a CSV" in complaint(tmp_path / "scan.csv")
        (tmp_path / "nothing.csv").touch()
        assert "empty or not text" in complaint(tmp_path / "nothing.csv")


class TestRoot:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "inside").mkdir()
        (tmp_path / "a.nii.gz").touch()
        return tmp_path / "inside"

    def test_relative_path_that_leaves(self, folder: Path) -> None:
        path = table(folder, "dataset,subject,FLAIR", "D,1,../a.nii.gz", "D,2,x/../../a.nii.gz", "D,3,b.nii.gz")
        text = complaint(path)
        assert "row 2: FLAIR: path outside its root" in text
        assert "row 3: FLAIR: path outside its root" in text
        assert "row 4" not in text

    def test_link_that_leaves(self, folder: Path) -> None:
        (folder / "link.nii.gz").symlink_to(folder.parent / "a.nii.gz")
        (folder / "up").symlink_to(folder.parent)
        text = complaint(table(folder, "dataset,subject,FLAIR", "D,1,link.nii.gz", "D,2,up/a.nii.gz"))
        assert text.count("path outside its root") == 2

    def test_link_inside_and_loop(self, folder: Path) -> None:
        (folder / "link.nii.gz").symlink_to("b.nii.gz")
        (folder / "loop.nii.gz").symlink_to("loop.nii.gz")
        path = table(folder, "dataset,subject,FLAIR", "D,1,link.nii.gz", files="b.nii.gz")
        assert manifest.read_manifest(path)[0].images["FLAIR"].name == "link.nii.gz"
        assert "row 2" in complaint(table(folder, "dataset,subject,FLAIR", "D,1,loop.nii.gz", files=""))

    def test_absolute_path_is_express_unless_a_root_is_named(self, folder: Path) -> None:
        path = table(folder, "dataset,subject,FLAIR", f"D,1,{folder.parent / 'a.nii.gz'}")
        assert manifest.read_manifest(path)[0].images["FLAIR"] == folder.parent / "a.nii.gz"
        assert "path outside its root" in complaint(path, root=folder)
        assert manifest.read_manifest(path, root=folder.parent)

    def test_named_root(self, folder: Path) -> None:
        path = table(folder, "dataset,subject,FLAIR", "D,1,a.nii.gz", files="")
        assert "missing file" in complaint(path)
        assert manifest.read_manifest(path, root=folder.parent)[0].images["FLAIR"] == folder.parent / "a.nii.gz"


class TestWriting:
    words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8).filter(
        lambda text: text == text.strip() and not text.endswith((".nii", ".nii.gz"))
    )

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        rows=st.lists(
            st.tuples(
                words,
                st.from_regex("[0-9A-Za-z]{1,4}", fullmatch=True),
                st.sampled_from(["healthy", "lesion", "unknown"]),
                st.sampled_from(["train", "validation", "test", ""]),
                st.dictionaries(st.sampled_from(["site", "age", "a,b", 'quo"te']), words),
            ),
            min_size=1,
            max_size=4,
            unique_by=lambda row: row[:2],
        )
    )
    def test_round_trip(self, rows: list, tmp_path: Path) -> None:
        inside, outside = tmp_path / "in" / "x y.nii.gz", tmp_path / "out.nii.gz"
        inside.parent.mkdir(exist_ok=True)
        inside.touch()
        outside.touch()
        cases = [
            Case(
                d,
                s,
                {"FLAIR": inside, "T1w": outside},
                "1",
                "2",
                "T1w",
                brain=inside,
                health=h,
                split=p,
                attributes=a,
                lesion_free={"T1w": outside} if h == "lesion" else {},
            )
            for d, s, h, p, a in rows
        ]
        manifest.write_manifest(cases, inside.parent / "cohort.csv")
        assert manifest.read_manifest(inside.parent / "cohort.csv") == cases

    def test_a_folder_can_be_moved(self, tmp_path: Path) -> None:
        path = table(tmp_path / "old", "dataset,subject,FLAIR", "D,1,scans/a.nii.gz", files="scans/a.nii.gz")
        manifest.write_manifest(manifest.read_manifest(path), path)
        (tmp_path / "old").rename(tmp_path / "new")
        (case,) = manifest.read_manifest(tmp_path / "new" / "cohort.csv")
        assert case.images["FLAIR"] == tmp_path / "new/scans/a.nii.gz"

    def test_refusals(self, tmp_path: Path) -> None:
        case = Case("D", "1", {"FLAIR": tmp_path / "a.nii.gz"})
        for cases, fact in (
            ([], "empty cohort"),
            ([case, replace(case, health="healthy")], "duplicate case"),
            ([replace(case, attributes={"Lesion": "no"})], "name of a manifest column"),
        ):
            with pytest.raises(DataError, match=fact):
                manifest.write_manifest(cases, tmp_path / "out.csv")
        assert list(tmp_path.iterdir()) == []


class TestCohort:
    def test_one_image(self, tmp_path: Path) -> None:
        table(
            tmp_path / "Study",
            files="sub-07/ses-2/anat/sub-07_ses-2_ce-gad_T1w.nii.gz sub-07/ses-2/anat/sub-07_ses-2_FLAIR.nii.gz",
        )
        for case in manifest.read_cohort(tmp_path / "Study"):
            for contrast, path in case.images.items():
                (read,) = manifest.read_cohort(path)
                assert read == replace(case, images={contrast: path})  # so that leakage by subject is seen

    @pytest.mark.parametrize(
        ("name", "contrast", "subject"),
        [("my-scan 7_FLAIR.nii.gz", None, "myscan7"), ("FLAIR.nii", None, "box"), ("t2.nii.gz", "T2w", "t2")],
    )
    def test_one_image_of_any_name(self, name: str, contrast: str | None, subject: str, tmp_path: Path) -> None:
        table(tmp_path / "box", files="")
        (tmp_path / "box" / name).touch()
        (case,) = manifest.read_cohort(tmp_path / "box" / name, contrast=contrast)
        assert (case.dataset, case.subject, list(case.images)) == ("box", subject, [contrast or "FLAIR"])

    def test_refusals(self, tmp_path: Path) -> None:
        files = "a.nii.gz t2.nii.gz scan.nii.gz notes.txt"
        table(tmp_path, "dataset,subject,FLAIR,split", "D,1,a.nii.gz,train", files=files)
        for name, options, fact in (
            ("t2.nii.gz", {}, "unknown contrast .* name it, as in --contrast T2w"),
            ("t2.nii.gz", {"contrast": "flare"}, "unknown contrast .* as in --contrast FLAIR"),
            ("scan.nii.gz", {}, "unknown contrast .* as in --contrast FLAIR"),
            ("gone_FLAIR.nii.gz", {}, "missing file"),
            ("gone", {}, "no such cohort"),
            ("notes.txt", {}, "cohort of unknown kind"),
            ("", {}, "no scan in BIDS layout"),
            ("cohort.csv", {"split": "test"}, r"no case of the split .* got splits \['train'\], expected test"),
        ):
            with pytest.raises(DataError, match=fact):
                manifest.read_cohort(tmp_path / name, **options)
        with pytest.raises(ConfigError, match="contrast without an image"):
            manifest.read_cohort(tmp_path / "cohort.csv", contrast="FLAIR")
        assert len(manifest.read_cohort(tmp_path / "cohort.csv", split="train")) == 1


SPLITS = ("train", "validation", "test")


def people(sites: dict[str, int], sessions: int = 1) -> list[Case]:
    return [
        Case("D", f"{site}{i}", {"FLAIR": Path("x")}, session=str(s), attributes={"site": site})
        for site, count in sites.items()
        for i in range(count)
        for s in range(sessions)
    ]


class TestSplits:
    @settings(max_examples=100, deadline=None)
    @given(
        sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
        sessions=st.integers(1, 2),
        seed=st.integers(0, 5),
        data=st.data(),
    )
    def test_counts_are_exact_people_whole_and_sites_in_proportion(self, sizes, sessions, seed, data) -> None:
        sites = {f"s{i}": size for i, size in enumerate(sizes)}
        cases, total = people(sites, sessions), sum(sizes)
        train = data.draw(st.integers(0, total))
        test = data.draw(st.integers(0, total - train))
        drawn = manifest.split_cases(cases, {"train": train, "test": test}, seed)
        assert [replace(case, split="") for case in drawn] == cases
        splits: dict[str, set[str]] = {}
        for case in drawn:
            splits.setdefault(case.subject, set()).add(case.split)
        assert all(len(names) == 1 for names in splits.values())
        counts = Counter(split for names in splits.values() for split in names)
        assert (counts["train"], counts["test"]) == (train, test)
        for site, size in sites.items():
            inside = Counter(case.split for case in drawn if case.attributes["site"] == site)
            assert abs(inside["train"] / sessions - train * size / total) < 1
            assert abs(inside["test"] / sessions - test * size / total) < 2  # of what the first draw left over
        order = np.random.default_rng(seed).permutation(len(cases))
        again = manifest.split_cases([cases[i] for i in order], {"train": train, "test": test}, seed)
        assert again == [drawn[i] for i in order]

    def test_fractions(self) -> None:
        drawn = manifest.split_cases(people({"a": 7, "b": 3}), {"train": 0.7, "validation": 0.15, "test": 0.15}, 0)
        counts = Counter(case.split for case in drawn)
        assert sum(counts.values()) == 10
        assert counts["train"] == 7
        assert sorted((counts["validation"], counts["test"])) == [1, 2]
        assert "" not in counts

    def test_phantoms_of_one_head_stay_together(self) -> None:
        heads = [f"person-{i % 5}" for i in range(20)]
        cases = [
            replace(case, attributes={"labelmap": head}, health="lesion" if i % 3 else "healthy")
            for i, (case, head) in enumerate(zip(people({"a": 20}), heads, strict=True))
        ]
        drawn = manifest.split_cases(cases, {"train": 3, "test": 2}, 0)
        of_head = {head: {case.split for case in drawn if case.attributes["labelmap"] == head} for head in heads}
        assert sorted(map(sorted, of_head.values())) == [["test"]] * 2 + [["train"]] * 3
        parts = [{case.attributes["labelmap"] for case in part} for part in manifest.folds(cases, 5, 0)]
        assert sorted(map(len, parts)) == [1] * 5
        assert set.union(*parts) == set(heads)
        with pytest.raises(ConfigError, match="expected 2 to 5"):
            manifest.folds(cases, 6, 0)

    def test_the_seed_matters_and_health_stratifies(self) -> None:
        cases = people({"a": 30})
        first, second = (manifest.split_cases(cases, {"test": 10}, seed) for seed in (0, 1))
        assert first != second
        mixed = [replace(case, health="healthy" if i < 6 else "lesion") for i, case in enumerate(cases)]
        drawn = manifest.split_cases(mixed, {"test": 10}, 0, stratify=("health",))
        assert Counter(case.health for case in drawn if case.split == "test") == {"healthy": 2, "lesion": 8}

    def test_health_is_balanced_within_sites_by_default(self) -> None:
        cases = people({"a": 10, "b": 10})
        mixed = [replace(case, health="healthy" if i % 2 else "lesion") for i, case in enumerate(cases)]
        drawn = manifest.split_cases(mixed, {"train": 12, "validation": 4, "test": 4}, 0)
        inside = Counter((case.split, case.attributes["site"], case.health) for case in drawn)
        assert set(inside.values()) == {3, 1}
        assert splits.split_summary(drawn)[1] == "validation: 4 subjects, 4 cases (2 healthy, 2 lesion)"

    def test_folds_are_the_test_parts_and_the_rest_is_shared_out(self) -> None:
        cases = people({"a": 7, "b": 6}, sessions=2)
        tested: list[str] = []
        for number in (1, 2, 3):
            drawn = manifest.split_cases(cases, {"train": 0.75, "validation": 0.25}, 5, fold=(number, 3))
            parts = {split: {case.subject for case in drawn if case.split == split} for split in SPLITS}
            assert len(parts["validation"]) == 2
            assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 13
            tested += parts["test"]
        assert sorted(tested) == sorted({case.subject for case in cases})
        for shares, fold in (({"train": 0.5, "test": 0.5}, (1, 3)), ({"train": 1.0}, (4, 3)), ({"train": 1.0}, (1, 1))):
            with pytest.raises(ConfigError, match="fold"):
                manifest.split_cases(cases, shares, 5, fold=fold)

    def test_a_column_with_one_value_changes_nobody(self) -> None:
        cases = people({"a": 7, "b": 5})
        drawn = manifest.split_cases(cases, {"train": 0.5, "test": 0.5}, 3, stratify=("site",))
        assert manifest.split_cases(cases, {"train": 0.5, "test": 0.5}, 3) == drawn

    def test_warns_of_splits_without_lesions(self) -> None:
        cases = [replace(case, split=split) for case, split in zip(people({"a": 3}), SPLITS, strict=True)]
        assert splits.split_warnings(cases) == []
        sick = [replace(case, health="lesion" if case.split == "train" else "healthy") for case in cases]
        assert [warning.split(":")[0] for warning in splits.split_warnings(sick)] == [
            "no case of the split validation has a lesion",
            "no case of the split test has a lesion",
        ]

    def test_golden(self) -> None:
        """Nobody changes sides between versions: a test case of yesterday is no training case of today."""
        drawn = manifest.split_cases(people({"a": 5, "b": 3}), {"train": 4, "validation": 2, "test": 2}, seed=7)
        assert (
            " ".join(f"{case.subject}:{case.split[:2]}" for case in drawn)
            == "a0:tr a1:tr a2:va a3:te a4:tr b0:tr b1:va b2:te"
        )

    @pytest.mark.parametrize(
        "shares",
        [{"holdout": 1}, {"train": 11}, {"train": 0.7, "test": 0.4}, {"train": 5, "test": 0.5}, {"train": -1}, {}],
    )
    def test_refusals(self, shares: dict) -> None:
        with pytest.raises(ConfigError):
            manifest.split_cases(people({"a": 10}), shares, 0)

    def test_folds(self) -> None:
        cases = people({"a": 9, "b": 4, "c": 1}, sessions=2)
        parts = manifest.folds(cases, 3, seed=4)
        assert sorted((c.subject, c.session) for part in parts for c in part) == sorted(
            (c.subject, c.session) for c in cases
        )
        subjects = [{case.subject for case in part} for part in parts]
        assert sorted(map(len, subjects)) == [4, 5, 5]
        assert not subjects[0] & subjects[1] | subjects[1] & subjects[2] | subjects[0] & subjects[2]
        assert all(sum(s.startswith("a") for s in part) == 3 for part in subjects)
        for k in (1, 15):
            with pytest.raises(ConfigError, match="impossible number of folds"):
                manifest.folds(cases, k, seed=0)


class TestLeakage:
    @pytest.fixture
    def scan(self, tmp_path: Path) -> Path:
        data = np.random.default_rng(0).integers(0, 200, (5, 6, 4)).astype(np.uint8)
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "sub-01_FLAIR.nii.gz")
        return tmp_path / "sub-01_FLAIR.nii.gz"

    def used(self, case: Case) -> dict[str, str]:
        digests = manifest.identity_digests(case)
        return dict.fromkeys([*digests["voxels"], digests["subject"]], "fit")

    def test_renamed_and_compressed_again(self, scan: Path, tmp_path: Path) -> None:
        used = self.used(Case("A", "01", {"FLAIR": scan}))
        copy = tmp_path / "other.nii"
        copy.write_bytes(gzip.decompress(scan.read_bytes()))
        with pytest.raises(LeakageError, match=r"1 of 1 cases.*sub-99 of 'B' .same voxels, role fit"):
            manifest.check_leakage([Case("B", "99", {"T1w": copy})], used)

    def test_same_person_in_another_session(self, scan: Path, tmp_path: Path) -> None:
        used = self.used(Case("A", "01", {"FLAIR": scan}, session="1"))
        image = tmp_path / "later.nii.gz"
        nib.save(nib.Nifti1Image(np.arange(8.0).reshape(2, 2, 2), np.eye(4)), image)
        later = Case("A", "01", {"FLAIR": image}, session="2")
        with pytest.raises(LeakageError, match=r"sub-01_ses-2 of 'A' .same subject"):
            manifest.check_leakage([later], used)
        manifest.check_leakage([replace(later, dataset="B")], used)  # another cohort's sub-01 is another person

    def test_a_contrast_that_nobody_uses_need_not_be_readable(self, scan: Path, tmp_path: Path) -> None:
        used = self.used(Case("A", "01", {"FLAIR": scan}))
        broken = tmp_path / "broken.nii.gz"
        broken.write_bytes(scan.read_bytes()[:-20])
        case = Case("B", "99", {"FLAIR": scan, "T1w": broken})
        assert (
            manifest.identity_digests(case, ["FLAIR"])["voxels"]
            == manifest.identity_digests(Case("B", "99", {"FLAIR": scan}))["voxels"]
        )
        with pytest.raises(LeakageError, match="same voxels"):
            manifest.check_leakage([case], used, ["FLAIR"])
        manifest.check_leakage([case], {}, ["FLAIR"])
        # Under another name what is readable is looked at all the same, and what is used must be.
        with pytest.raises(LeakageError, match="same voxels"):
            manifest.check_leakage([Case("B", "99", {"FLAIR": broken, "T1w": scan})], used, ["PDw"])
        for arguments in ((), (["T1w"],)):
            with pytest.raises(DataError, match=r"broken\.nii\.gz"):
                manifest.check_leakage([case], {}, *arguments)
        with pytest.raises(DataError, match=r"broken\.nii\.gz"):  # its grid is used
            manifest.check_leakage([replace(case, reference="T1w")], {}, ["FLAIR"])

    def test_digests_hold_no_names(self, scan: Path) -> None:
        digests = manifest.identity_digests(Case("Clinic", "Smith", {"FLAIR": scan, "T1w": scan}))
        assert len(digests["voxels"]) == 2
        assert all(len(digest) == 64 for digest in [*digests["voxels"], digests["subject"]])
        # A border between data set and subject, so that ("a", "bc") is not ("ab", "c").
        first, second = (manifest.identity_digests(Case(d, s, {})) for d, s in (("a", "bc"), ("ab", "c")))
        assert first["subject"] != second["subject"]


class TestIndex:
    def test_split_continue_and_refuse(self, tmp_path: Path) -> None:
        table(tmp_path / "set", files=" ".join(f"sub-{i}/anat/sub-{i}_FLAIR.nii.gz" for i in range(6)))
        out = tmp_path / "new" / "cohort.csv"
        cases = manifest.index("bids", tmp_path / "set", out, split={"train": 4, "test": 2}, seed=3)
        assert Counter(case.split for case in manifest.read_manifest(out)) == {"train": 4, "test": 2}
        assert manifest.index("bids", tmp_path / "set", out, split={"train": 4, "test": 2}, seed=3) == cases
        with pytest.raises(DataError, match=r"another manifest is there.*--overwrite"):
            manifest.index("bids", tmp_path / "set", out)
        assert manifest.read_manifest(out) == cases
        manifest.index("bids", tmp_path / "set", out, overwrite=True)
        assert manifest.read_manifest(out) != cases
        assert [path.name for path in out.parent.iterdir()] == ["cohort.csv"]

    def test_unknown_layout(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="perhaps brats2021 is meant"):
            manifest.index("brats21", tmp_path, tmp_path / "cohort.csv")
