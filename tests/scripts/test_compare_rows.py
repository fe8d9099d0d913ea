"""scripts/compare_rows.sh: every row of every fold is made alike, and compared with the row that it must beat."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from verbs import TINY, script

from hybriduad.config import files as configs

ROWS = ["cddpm", "cddpm-healthy", "dae", "pair", "pair-sum", "dae-pair", "image", "pair-few", "image-few"]
SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_rows.sh"


@pytest.mark.parametrize("arguments", [[], ["x"], ["/nonexistent", "out"], [".", "out", "3"]])
def test_wrong_calls_get_the_usage(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(["bash", SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: scripts/compare_rows.sh BIDS_DIR OUT")
    assert list(tmp_path.iterdir()) == []


def test_every_row_of_every_fold_alike(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for fold in (2, 3):
        for row in ROWS:
            (out / f"fold-{fold}" / row).mkdir(parents=True)
            (out / f"fold-{fold}" / f"{row}-expected").mkdir()
    code, calls = script(tmp_path, str(tmp_path), str(out), *TINY, run=False, of=SCRIPT, ONLY="2 3", DEVICE="cpu")
    assert code == 0
    assert [call[call.index("--fold") + 1] for call in calls if call[0] == "index"] == ["2/3", "3/3"]
    fits = [call for call in calls if call[0].startswith("fit-")]
    assert len(fits) == 2 * len(ROWS)
    for call in fits:
        assert (call[-4:] == TINY) == (call[1] != "paper-score")  # which keeps the weights of pair
        configs.load(call[1], [word for before, word in pairwise(call) if before == "--set"])
    for verb in ("calibrate", "predict", "evaluate"):
        named = [Path(call[call.index("--out") + 1]) for call in calls if call[0] == verb]
        rules = ("", "-expected") if verb == "evaluate" else ("",)
        assert [path.name.split(".")[0] for path in named] == [row + rule for row in ROWS for rule in rules] * 2
        splits = {call[call.index("--split") + 1] for call in calls if call[0] == verb}
        assert splits == {"validation" if verb == "calibrate" else "test"}
    comparisons = [call[1 : call.index("--out")] for call in calls if call[0] == "compare"]
    assert [f"dae={out}/fold-2/dae", f"dae={out}/fold-3/dae"] == comparisons[0][:2]
    assert [name.partition("=")[0] for name in comparisons[0]] == ["dae", "dae", "cddpm", "cddpm"]
    assert len(comparisons) == 11


def test_some_rows_and_what_they_start_from(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for row in ("dae", "pair-few", "pair", "pair-expected", "pair-few-expected"):
        (out / "fold-1" / row).mkdir(parents=True)
    rows = {"ROWS": "dae pair-few pair", "FOLDS": "2", "ONLY": "1"}
    code, calls = script(tmp_path, str(tmp_path), str(out), run=False, of=SCRIPT, **rows)
    assert code == 0

    def names(verb: str) -> list[str]:
        return [Path(call[call.index("--out") + 1]).name for call in calls if call[0] == verb]

    assert names("fit-reconstructor") == ["cddpm.model", "dae.model"]
    assert names("fit-detector") == ["pair.model", "pair-few.model"]
    assert names("evaluate") == ["dae", "dae-expected", "pair-few", "pair-few-expected", "pair", "pair-expected"]
    assert names("compare") == [
        "comparison-pair-few-pair",
        "comparison-pair-expected-pair",
        "comparison-pair-few-expected-pair-few",
    ]


def test_an_unknown_row_gets_the_usage(tmp_path: Path) -> None:
    code, calls = script(tmp_path, str(tmp_path), str(tmp_path / "out"), run=False, of=SCRIPT, ROWS="pair unet")
    assert (code, calls) == (2, [])
