"""scripts/compare_costs.sh: every variant is made and judged like the shipped network, and its table says what."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from verbs import TINY, script

from hybriduad.config import files as configs

VARIANTS = ["shipped", "wide", "wide-plain", "thin", "folded", "coarse", "quick", "pair", "pair-wide", "pair-light"]
SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_costs.sh"
COLUMNS = "group,system,figure,how,value,low,high,subjects\n"


def results(out: Path, variant: str, auprc: float) -> None:
    """What the verbs, which do nothing here, would leave of a variant."""
    (out / f"{variant}.cost").mkdir(parents=True)
    costs = {"config": "x", "step_gflops": 64.04, "pass_gflops": 1.5, "slice_gflops": 5.126}
    (out / f"{variant}.cost" / "operations.json").write_text(json.dumps(costs, indent=1))
    (out / variant).mkdir()
    rows = [
        f",score,auprc,mean over subjects,{auprc},0.1,0.9,17\n",
        ",score,auprc,pooled,0.77,0.1,0.9,17\n",
        "site=A,score,auprc,mean over subjects,0.66,0.1,0.9,17\n",
        ",map,auprc,mean over subjects,0.55,0.1,0.9,17\n",
    ]
    (out / variant / "summary.csv").write_text(COLUMNS + "".join(rows))


def test_every_variant_alike(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for variant in VARIANTS:
        results(out, variant, 0.5)
        (out / f"comparison-{variant}").mkdir()
        (out / f"comparison-{variant}" / "comparison.csv").write_text(COLUMNS)
    code, calls = script(tmp_path, str(tmp_path), str(out), *TINY, run=False, of=SCRIPT, DEVICE="cpu")
    assert code == 0
    changes = {}
    for call in calls:
        overrides = [word for before, word in pairwise(call) if before == "--set"]
        if call[0] in ("fit-reconstructor", "fit-detector", "speed"):
            configs.load(call[1], overrides)
        if call[0].startswith("fit-"):
            name = Path(call[call.index("--out") + 1]).name
            assert call[-4:] == TINY
            changes[name] = [text for text in overrides if not text.startswith(("anatomy.contrasts", "train."))]
    assert list(changes) == [f"{variant}.model" for variant in VARIANTS]
    assert changes["shipped.model"] == changes["pair.model"] == []
    assert len({tuple(change) for name, change in changes.items()}) == len(VARIANTS) - 1
    compared = [call[1:3] for call in calls if call[0] == "compare"]
    assert [first.partition("=")[0] for first, _ in compared] == ["shipped"] * 6 + ["pair"] * 2


def test_the_table(tmp_path: Path) -> None:
    out = tmp_path / "out"
    results(out, "shipped", 0.5)
    results(out, "thin", 0.4)
    (out / "comparison-thin").mkdir()
    difference = ",thin - shipped (score),auprc,mean over subjects,-0.1,-0.2,0.05,17\n"
    (out / "comparison-thin" / "comparison.csv").write_text(COLUMNS + difference)
    code, _ = script(tmp_path, str(tmp_path), str(out), run=False, of=SCRIPT, VARIANTS="shipped thin")
    assert code == 0
    assert (out / "costs.md").read_text().splitlines()[2:] == [
        "| shipped | 1.50 | 64.04 | 5.13 | 0.500 [0.100, 0.900] |  |",
        "| thin | 1.50 | 64.04 | 5.13 | 0.400 [0.100, 0.900] | -0.100 [-0.200, 0.050] |",
    ]


def test_an_unknown_variant_gets_the_usage(tmp_path: Path) -> None:
    code, calls = script(tmp_path, str(tmp_path), str(tmp_path / "out"), run=False, of=SCRIPT, VARIANTS="tiny")
    assert (code, calls) == (2, [])
