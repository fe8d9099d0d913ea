"""The rules of thresholds: what each of them must keep, and what is right for each."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm
from tiny import generators

from hybriduad.core import plugins
from hybriduad.core.errors import DataError
from hybriduad.detector.controls import Controls
from hybriduad.detector.thresholds import EMPTY, Calibration, cutoffs_of, scan_mask, scan_threshold
from hybriduad.evaluation.rules import best_dice, expected_dice
from hybriduad.evaluation.rules import false_positives as false_positives_rule
from hybriduad.evaluation.rules._base import Finding, Observation, Per
from hybriduad.evaluation.rules._single import PLATEAU
from hybriduad.evaluation.rules.expected_dice import _floor
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.clusters import cluster_peak, labelled
from hybriduad.metrics.histogram import key_edges, score_keys


def histogram(scores: np.ndarray, truth: np.ndarray) -> ScoreHistogram:
    counted = ScoreHistogram()
    counted.add(scores, truth)
    return counted


def observation(
    subject: str, scores: np.ndarray, truth: np.ndarray, clear: np.ndarray, *, slices: int = 1, voxel_ml: float = 0.01
) -> Observation:
    alone = histogram(clear, np.zeros(clear.shape, dtype=bool))
    whole = {"score": histogram(scores, truth)}
    peaks = {0.1: {"score": cluster_peak(scores, np.ones(scores.shape, bool), 2)}}
    return Observation(("hand", subject), voxel_ml, slices, whole, {"score": alone}, peaks)


KINDS = ("whole", "clear")
ALPHA = 0.3
"""What three healthy people can promise."""


def found_by(name: str, observed: list[Observation]) -> Finding:
    """What a rule finds; an option that it needs is 1."""
    module = plugins.load("rules", name)
    needed = {key: 1.0 for key, field in module.Config.model_fields.items() if field.is_required()}
    needed |= {"alpha": ALPHA} if "alpha" in needed else {}
    finding = module.find(module.Config(name=name, **needed), observed)
    assert isinstance(finding, Finding)
    return finding


def false_positives(observed: list[Observation], limit_ml: float, per: Per = "slice") -> dict:
    config = false_positives_rule.Config(false_positive_ml=limit_ml, per=per)
    return false_positives_rule.find(config, observed).to_json()


def best(observed: list[Observation]) -> dict:
    return best_dice.find(best_dice.Config(), observed).to_json()


def expected(observed: list[Observation]) -> Finding:
    return expected_dice.find(expected_dice.Config(), observed)


def dice(scores: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    mask = scores >= threshold
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def voxels(seed: int, count: int, share: float, base: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < share
    return np.clip(rng.normal(base + 0.25 * truth, 0.12), 0, 1).astype(np.float32), truth


@pytest.fixture(scope="module")
def study() -> list[Observation]:
    """Six subjects with a lesion, one of them seen twice, and three without, in two parts."""
    observed = []
    for number in range(10):
        scores, truth = voxels(number, 6000, 0.0 if number > 6 else 0.02 + 0.01 * number)
        free = voxels(100 + number, 1500, 0.0)[0]
        case = observation(str(max(number, 1)), scores, truth, free, slices=5)
        noise = np.random.default_rng(1000 + number).random(6000).astype(np.float32)
        part = histogram(np.where(truth, np.sqrt(noise), noise), truth)
        clear = dict.fromkeys(("score", "map"), case.clear["score"])
        peaks = {0.1: dict.fromkeys(("score", "map"), case.peaks[0.1]["score"])}
        observed.append(replace(case, whole=case.whole | {"map": part}, clear=clear, peaks=peaks))
    return observed


@pytest.mark.parametrize("name", plugins.names("rules"))
class TestContract:
    """What every file of ``hybriduad/evaluation/rules`` keeps, whatever it does."""

    def test_a_cutoff_for_each_part_that_a_bundle_can_hold(self, name: str, study: list[Observation]) -> None:
        finding = found_by(name, study)
        assert set(finding.cutoffs) == {"score", "map"} == set(finding.reached)
        entry = json.loads(json.dumps(finding.to_json(), allow_nan=False))
        assert cutoffs_of(entry) == finding.cutoffs
        assert finding.figure
        assert 0 < finding.subjects <= finding.cases <= len(study)

    def test_pure_and_whatever_the_order(self, name: str, study: list[Observation]) -> None:
        before = generators()
        first, again, turned = (found_by(name, observed) for observed in (study, study, study[::-1]))
        assert generators() == before
        assert first == again
        fresh = voxels(50, 6000, 0.05)[0]
        for part, cutoff in first.cutoffs.items():
            reversed_threshold = scan_threshold(turned.cutoffs[part], fresh)
            assert scan_threshold(cutoff, fresh) == pytest.approx(reversed_threshold, rel=1e-5)
            assert first.reached[part] == pytest.approx(turned.reached[part], rel=1e-6)

    def test_its_masks_find_lesions_and_hold_no_background(self, name: str, study: list[Observation]) -> None:
        scores, truth = voxels(60, 6000, 0.06)
        cutoff = found_by(name, study).cutoffs["score"]
        mask = scores >= np.float32(scan_threshold(cutoff, scores))
        assert truth[mask].mean() > 2 * truth.mean(), "a mask is richer in lesion than the brain"
        assert scan_threshold(cutoff, np.zeros(100, np.float32)) > 0

    def test_scores_of_one_scan_are_ranked_by_the_threshold_alone(self, name: str, study: list[Observation]) -> None:
        scores = voxels(70, 3000, 0.05)[0]
        cutoff = found_by(name, study).cutoffs["score"]
        shuffled = np.random.default_rng(0).permutation(scores).reshape(30, 100)
        assert scan_threshold(cutoff, shuffled) == scan_threshold(cutoff, scores)

    def test_nothing_to_use_is_a_sentence(self, name: str) -> None:
        with pytest.raises(DataError, match="to calibrate on"):
            found_by(name, [])

    def test_a_part_that_not_every_case_has_gets_no_cutoff(self, name: str, study: list[Observation]) -> None:
        """As the asymmetry of a cohort of sagittal scans, some of a few slices."""
        more = [
            replace(
                case,
                peaks={0.1: case.peaks[0.1] | {"asymmetry": case.peaks[0.1]["score"]}},
                **{kind: getattr(case, kind) | {"asymmetry": getattr(case, kind)["score"]} for kind in KINDS},
            )
            for case in study
        ]
        assert set(found_by(name, more).cutoffs) == {"score", "map", "asymmetry"}
        for lacking in (0, 1, 5):
            some = [*more[:lacking], study[lacking], *more[lacking + 1 :]]
            assert found_by(name, some).cutoffs == found_by(name, study).cutoffs
        assert set(found_by(name, [*more[:-1], study[-1]]).cutoffs) >= {"score", "map"}  # it may need no healthy scan


class TestBestDice:
    def test_mean_over_subjects_against_every_threshold(self) -> None:
        # A large lesion, a small one seen twice, and a healthy case: pooled voxels or means over cases give others.
        sets = {"a": [voxels(1, 4000, 0.4, base=0.2)], "b": [voxels(2, 900, 0.02), voxels(3, 900, 0.03)]}
        observed = [observation(name, *case, np.zeros(1)) for name, all_of in sets.items() for case in all_of]
        observed.append(observation("c", np.full(50, 0.9, np.float32), np.zeros(50, bool), np.zeros(1)))
        candidates = np.unique(np.concatenate([scores for all_of in sets.values() for scores, _ in all_of]))

        def mean(at: float) -> float:
            return float(np.mean([np.mean([dice(*case, at) for case in all_of]) for all_of in sets.values()]))

        figures = np.array([mean(at) for at in candidates])
        entry = best(observed)
        threshold = entry["values"]["score"]
        assert entry["reached"]["score"] == pytest.approx(mean(threshold), abs=1e-12)
        assert figures.max() - PLATEAU <= mean(threshold) <= figures.max()
        run = candidates[figures >= figures.max() - PLATEAU]
        assert run.min() <= threshold <= run.max()
        assert best(observed[::-1])["values"] == entry["values"]
        assert (entry["cases"], entry["subjects"]) == (3, 2)
        best_dices = [
            max(np.mean([dice(*case, at) for case in all_of]) for at in candidates) for all_of in sets.values()
        ]
        assert entry["subjects_own_best"]["score"] == pytest.approx(np.mean(best_dices), abs=1e-3)
        scores, truth = (
            np.concatenate(values)
            for values in zip(*[values for all_of in sets.values() for values in all_of], strict=True)
        )
        pooled = max(candidates, key=lambda at: dice(scores, truth, at))
        assert abs(threshold - pooled) > 0.01

    def test_subjects_of_two_kinds_get_a_threshold_that_serves_one_of_them(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The mean of far apart best thresholds serves nobody: .089 and a mean Dice of .02 on these."""
        caplog.set_level(logging.WARNING)
        observed, sets = [], []
        for number in range(8):
            rng = np.random.default_rng(number)
            truth = np.arange(4000) < 100
            lesion, rest = (0.9, 0.6) if number < 4 else (0.05, 0.03)
            scores = np.where(truth, rng.normal(lesion, 0.02 * lesion, 4000), rng.uniform(0, rest, 4000))
            sets.append((scores.clip(0, 1).astype(np.float32), truth))
            observed.append(observation(str(number), *sets[-1], np.zeros(1)))
        entry = best(observed)
        at = entry["values"]["score"]
        assert np.mean([dice(*case, at) for case in sets]) == pytest.approx(entry["reached"]["score"], abs=1e-9)
        assert entry["reached"]["score"] > 0.49
        assert entry["subjects_own_best"]["score"] > 0.99
        assert entry["serves_all_subjects"] == {"score": False}
        assert "one threshold does not serve all of these subjects" in caplog.text
        caplog.clear()
        entry = best(observed[:4])
        assert entry["serves_all_subjects"] == {"score": True}
        assert entry["reached"]["score"] > 0.99
        assert not caplog.text

    def test_the_middle_of_a_plateau_and_not_a_peak_at_its_end(self) -> None:
        # 100 lesion voxels; from .5 to .8 the mask errs by single voxels, with a peak of the Dice at .69 alone.
        lesion = np.r_[np.full(99, 0.8), 0.69]
        rest = np.r_[np.linspace(0.001, 0.25, 5000), 0.3, 0.5, 0.68]
        scores = np.r_[lesion, rest].astype(np.float32)
        entry = best([observation("a", scores, np.arange(len(scores)) < 100, np.zeros(1))])
        middle = key_edges((score_keys(np.array([0.8])) + score_keys(np.array([0.5]))) // 2)[0]
        assert entry["values"]["score"] == pytest.approx(middle, rel=1e-3)
        assert entry["reached"]["score"] > 1 - PLATEAU

    def test_never_zero(self) -> None:
        scores, truth = np.zeros(10, np.float32), np.ones(10, dtype=bool)
        assert best([observation("a", scores, truth, scores)])["values"]["score"] > 0

    def test_without_a_lesion(self) -> None:
        with pytest.raises(DataError, match="no lesion to calibrate on"):
            best([observation("a", np.zeros(4), np.zeros(4, bool), np.zeros(4))])


class TestFalsePositives:
    def test_lowest_threshold_within_the_limit_over_voxels_of_different_size(self) -> None:
        rng = np.random.default_rng(0)
        sets = [(rng.random(3000).astype(np.float32), 3, 0.01), (rng.random(500).astype(np.float32) ** 2, 2, 0.05)]
        observed = [
            observation(str(i), scores, np.zeros(scores.shape, bool), scores, slices=slices, voxel_ml=voxel_ml)
            for i, (scores, slices, voxel_ml) in enumerate(sets)
        ]

        def volume(threshold: float) -> float:
            return sum((scores >= threshold).sum() * voxel_ml for scores, _, voxel_ml in sets)

        for per, units in (("slice", 5), ("scan", 2)):
            entry = false_positives(observed, 0.8, per)
            threshold = entry["values"]["score"]
            assert volume(threshold) / units <= 0.8
            assert volume(threshold * (1 - 1 / 2048)) / units > 0.8
            assert entry["reached"]["score"] == pytest.approx(volume(threshold) / units)
            assert entry[f"{per}s"] == units
            assert entry["limit"] == {"false_positive_ml": 0.8, "per": per}

    def test_lesions_and_the_slices_near_them_do_not_matter(self) -> None:
        clear = np.linspace(0, 0.5, 100, dtype=np.float32)
        bright = np.full(1000, 0.99, np.float32)
        with_lesion = observation("a", np.r_[clear, bright], np.r_[clear < 0, bright > 0], clear)
        without = observation("a", clear, np.zeros(100, bool), clear)
        thresholds = [false_positives([case], 0.1)["values"]["score"] for case in (with_lesion, without)]
        assert thresholds[0] == thresholds[1]
        assert clear[89] < thresholds[0] <= clear[90], "ten voxels of 0.01 ml are left"

    def test_no_false_positive_at_all(self) -> None:
        scores = np.ones(5, np.float32)
        entry = false_positives([observation("a", scores, np.zeros(5, bool), scores)], 0.0)
        assert entry["values"]["score"] > 1
        assert entry["reached"]["score"] == 0.0

    def test_the_ill_without_a_lesion_to_be_found_are_no_lesion_free_scans(self) -> None:
        well, other = (observation(str(i), *voxels(i, 900, 0.0), voxels(i, 900, 0.0)[0]) for i in (1, 2))
        ill = replace(other, set_aside=True)
        assert false_positives([well, ill], 0.1, "scan") == false_positives([well], 0.1, "scan")
        assert false_positives([well, ill], 0.1) == false_positives([well, other], 0.1), "their slices are"
        with pytest.raises(DataError, match="no lesion-free scan"):
            false_positives([ill], 0.1, "scan")

    def test_nothing_free_of_lesions(self) -> None:
        scores, truth = voxels(0, 100, 0.5)
        sick = observation("a", scores, truth, np.zeros(0), slices=0)
        for per in ("slice", "scan"):
            with pytest.raises(DataError, match=f"no lesion-free {per}"):
                false_positives([sick], 0.1, per)


class TestConformal:
    """Promises of the conformal rules, of people drawn from a pool: those left out are exchangeable with the others."""

    CONTROLS, POOL = 19, 60

    @pytest.fixture(scope="class")
    def people(self) -> list[tuple[Observation, np.ndarray]]:
        """Healthy people whose scores differ far more between people than within; volumes (12, 12, 12) of 0.05 ml."""
        pool = []
        for number in range(self.POOL):
            rng = np.random.default_rng(number)
            scores = np.clip(rng.beta(1.5, 12, (12, 12, 12)) * rng.lognormal(0, 0.4), 0, 1).astype(np.float32)
            truth = np.zeros(scores.shape, bool)
            case = observation(str(number), scores, truth, scores, voxel_ml=0.05)
            pool.append((replace(case, peaks={0.1: {"score": cluster_peak(scores, ~truth, 2)}}), scores))
        return pool

    def drawn(self, people: list, draws: int) -> Iterator[tuple[list[Observation], np.ndarray]]:
        """Controls, and the scores of another person."""
        rng = np.random.default_rng(0)
        for _ in range(draws):
            *chosen, new = rng.choice(self.POOL, self.CONTROLS + 1, replace=False)
            yield [people[number][0] for number in chosen], people[new][1]

    @pytest.mark.parametrize(("rule", "alpha"), [("scans", 0.05), ("scans", 0.2), ("lesions", 0.05), ("lesions", 0.2)])
    def test_the_share_of_healthy_people_with_a_mask(self, rule: str, alpha: float, people: list) -> None:
        module = plugins.load("rules", f"conformal-{rule}")
        alarms = []
        for controls, scores in self.drawn(people, 1000):
            finding = module.find(module.Config(alpha=alpha), controls)
            mask, _ = scan_mask(finding.cutoffs["score"], scores, np.ones(scores.shape, bool), 0.05)
            alarms.append(mask.any())
            assert finding.reached["score"] <= alpha
        assert np.mean(alarms) == pytest.approx(alpha, abs=4 * np.sqrt(alpha * (1 - alpha) / 1000))

    def test_the_mean_share_of_the_brain(self, people: list) -> None:
        module = plugins.load("rules", "conformal-voxels")
        shares = []
        for controls, scores in self.drawn(people, 150):
            threshold = module.find(module.Config(alpha=0.2), controls).cutoffs["score"]
            shares.append((scores >= np.float32(threshold)).mean())
        assert 0.13 < np.mean(shares) < 0.2 + 4 * np.std(shares) / np.sqrt(150)

    def test_the_bundle_says_what_is_promised_and_remembers_the_controls(self, people: list) -> None:
        module = plugins.load("rules", "conformal-lesions")
        entry = module.find(module.Config(alpha=0.1), [case for case, _ in people[:19]]).to_json()
        assert "19 controls" in entry["guarantee"]
        assert (
            "a share of 0.1 at most, on average over draws of controls, gets a mask that holds a lesion"
            in (entry["guarantee"])
        )
        assert entry["limit"] == {"alpha": 0.1, "least_ml": 0.1}
        controls = Controls.from_json(json.loads(json.dumps(entry["controls"])))
        assert (controls.level, controls.people) == ("lesion", 19)
        # A scan has a lesion in the mask if and only if its p is alpha at most, and so have its lesions.
        cutoff, brain = cutoffs_of(entry)["score"], np.ones((12, 12, 12), bool)
        found = 0
        for _, scores in people[19:]:
            mask, _ = scan_mask(cutoff, scores, brain, 0.05)
            p = controls.scan_p("score", scores, brain, 0.05)
            assert mask.any() == (p <= 0.1)
            lesions = controls.lesion_p("score", scores, mask, 0.05).values()
            assert all(value <= 0.1 for value in lesions)
            assert not lesions or min(lesions) == p
            found += mask.any()
        assert found > 0
        low = scores >= np.quantile(scores, 0.99)
        below = controls.lesion_p("score", scores, low, 0.05)
        assert len(below) == labelled(low)[1].size
        assert [value for value, size in zip(below.values(), labelled(low)[1], strict=True) if size == 1] != []
        assert all(value == 1 for value, size in zip(below.values(), labelled(low)[1], strict=True) if size == 1)

    def test_of_several_scans_of_a_person_the_highest_counts(self, people: list) -> None:
        module = plugins.load("rules", "conformal-scans")
        cases = [case for case, _ in people[:20]]
        twice = [replace(case, subject=cases[number // 2].subject) for number, case in enumerate(cases)]
        finding = module.find(module.Config(alpha=0.1), twice)
        assert (finding.cases, finding.subjects) == (20, 10)
        peaks = [max(first, second) for first, second in zip(*[iter(self.peaks(cases))] * 2, strict=True)]
        assert finding.facts["controls"]["peaks"]["score"] == sorted(peaks, reverse=True)
        with pytest.raises(DataError, match="got 10 controls"):
            module.find(module.Config(alpha=0.05), twice)

    @staticmethod
    def peaks(cases: list[Observation]) -> list[float]:
        module = plugins.load("rules", "conformal-scans")
        return [module.find(module.Config(alpha=0.5), [case]).facts["controls"]["peaks"]["score"][0] for case in cases]

    @pytest.mark.parametrize("rule", ["scans", "lesions", "voxels"])
    def test_what_cannot_be_promised_is_refused(self, rule: str, people: list) -> None:
        module = plugins.load("rules", f"conformal-{rule}")
        with pytest.raises(DataError, match=r"n healthy controls give alpha >= 1 / \(n \+ 1\): got 5 controls"):
            module.find(module.Config(alpha=0.1), [case for case, _ in people[:5]])
        sick = observation("s", *voxels(0, 100, 0.5), np.zeros(0), slices=0)
        with pytest.raises(DataError, match="no healthy control to calibrate on: got 1 cases, all of them ill"):
            module.find(module.Config(alpha=0.1), [sick])

    @pytest.mark.parametrize("rule", ["scans", "lesions", "voxels"])
    def test_the_ill_without_a_lesion_to_be_found_are_no_controls(self, rule: str, people: list) -> None:
        module = plugins.load("rules", f"conformal-{rule}")
        controls, ill = [case for case, _ in people[:9]], [replace(case, set_aside=True) for case, _ in people[9:19]]
        assert module.find(module.Config(alpha=0.1), controls + ill) == module.find(module.Config(alpha=0.1), controls)
        with pytest.raises(DataError, match="got 9 controls"):
            module.find(module.Config(alpha=0.05), controls + ill)
        with pytest.raises(DataError, match="got 10 cases, all of them ill"):
            module.find(module.Config(alpha=0.5), ill)


def poisson_binomial_dice(p: np.ndarray, k: int) -> float:
    """The exact expected Dice of the mask of the k likeliest of independent voxels, p (N,) descending."""
    total = 0.0
    for index in range(k):
        counts = np.ones(1)
        for chance in np.delete(p, index):
            counts = np.convolve(counts, [1 - chance, chance])
        total += 2 * p[index] * float((counts / (k + 1 + np.arange(len(counts)))).sum())
    return total


class TestExpectedDice:
    @pytest.mark.parametrize("count", [1, 3, 10, 60])
    def test_the_mask_has_the_largest_expected_dice_of_all(self, count: int) -> None:
        """Against the exact expectation, every size of mask tried: the best mask is one of the likeliest voxels."""
        plain = Calibration(slope=1.0, intercept=0.0)
        for draw in range(12):
            rng = np.random.default_rng(draw)
            p = np.sort(rng.beta(*rng.choice([0.2, 0.5, 1.0, 3.0], 2), count).clip(1e-4, 0.999))[::-1]
            p = (p * (0.05 if draw % 3 == 0 else 1)).astype(np.float32)
            exact = [poisson_binomial_dice(p, k) for k in range(1, count + 1)]
            size = int((p >= np.float32(plain.threshold(p))).sum())
            assert exact[size - 1] > max(exact) - 0.005
            assert plain.best_mask(p, np.ones(count))[1] == pytest.approx(max(exact), abs=0.1)

    def test_the_largest_expectation_is_not_the_mask_above_one_half(self) -> None:
        p = np.r_[np.full(10, 0.45), np.full(1000, 0.001)].astype(np.float32)
        assert Calibration(1.0, 0.0).threshold(p) == np.float32(0.45)

    def test_scores_become_the_probabilities_that_they_are(self) -> None:
        """Scores that understate: logit(score) = (logit(p) - 1) / 2. Every subject weighs the same."""
        observed = []
        for number, count in enumerate((4000, 4000, 40_000)):
            rng = np.random.default_rng(number)
            logits = rng.normal(-2, 1.5, count)
            truth = rng.random(count) < 1 / (1 + np.exp(-logits))
            scores = (1 / (1 + np.exp(-(logits - 1) / 2))).astype(np.float32)
            observed.append(observation(str(number), scores, truth, np.zeros(0), slices=0))
        calibration = expected(observed).cutoffs["score"]
        assert (calibration.slope, calibration.intercept) == (pytest.approx(2, abs=0.15), pytest.approx(1, abs=0.15))
        assert calibration.probability(np.array([0.5])) == pytest.approx(1 / (1 + np.exp(-calibration.intercept)))

    def test_lesion_voxels_that_no_mask_can_hold_do_not_change_the_calibration(self) -> None:
        """Outside the brain mask every score is 0: a twentieth of the lesion there bent the line of all others."""
        whole, cut = [], []
        for number in range(4):
            rng = np.random.default_rng(number)
            truth = np.arange(21_000) < 1000
            scores = (1 / (1 + np.exp(-rng.normal(np.where(truth, 1, -5), 1.6)))).astype(np.float32)
            outside = np.arange(21_000) < 50
            whole.append(observation(str(number), scores[~outside], truth[~outside], np.zeros(0), slices=0))
            zeroed = np.where(outside, 0, scores)
            cut.append(observation(str(number), zeroed, truth, np.zeros(0), slices=0))
        first, second = expected(whole), expected(cut)
        for name in ("slope", "intercept"):
            values = [getattr(finding.cutoffs["score"], name) for finding in (first, second)]
            assert values[0] == pytest.approx(values[1], rel=1e-6)
        # They are still missed.
        assert second.reached["score"] == pytest.approx(first.reached["score"] * 0.98, abs=0.01)
        assert second.reached["score"] < first.reached["score"] - 0.01

    def test_each_scan_gets_its_own_threshold_and_the_mean_dice_rises(self) -> None:
        """Voxels as doubtful as those of a faint lesion are, beside a bright one, better left out: half of the Dice
        that a scan lets expect is its best threshold."""
        sets = []
        for number, bright in enumerate((2000, 1000, 300, 0)):
            rng = np.random.default_rng(number)
            p = np.r_[rng.uniform(0.001, 0.01, 20_000), rng.uniform(0.1, 0.25, 2000), rng.uniform(0.8, 0.99, bright)]
            sets.append((p.astype(np.float32), rng.random(len(p)) < p))
        observed = [observation(str(number), *case, np.zeros(0), slices=0) for number, case in enumerate(sets)]
        finding = expected(observed)
        thresholds = [scan_threshold(finding.cutoffs["score"], scores) for scores, _ in sets]
        assert min(thresholds[:2]) > 0.7 > 0.3 > thresholds[-1]
        reached = [dice(*case, np.float32(at)) for case, at in zip(sets, thresholds, strict=True)]
        assert finding.reached["score"] == pytest.approx(np.mean(reached), abs=2e-3)
        assert finding.reached["score"] > best(observed)["reached"]["score"] + 0.02

    def test_scans_without_a_lesion_stay_empty_under_the_floor(self, caplog: pytest.LogCaptureFixture) -> None:
        sick = [observation(str(i), *voxels(i, 6000, 0.03, base=0.2), np.zeros(0), slices=0) for i in range(5)]
        free = [voxels(20 + i, 6000, 0.0, base=0.2)[0] for i in range(8)]
        healthy = [
            observation(f"h{i}", scores, np.zeros(6000, bool), scores, slices=9) for i, scores in enumerate(free[:5])
        ]
        finding = expected(sick + healthy)
        cutoff = finding.cutoffs["score"]
        assert cutoff.floor > 0
        assert finding.facts["floor_on"] == {"material": "lesion-free scans", "scans": 5}
        assert finding.facts["scans_with_lesion_left_empty"] == {"score": 0}
        assert sum((scores >= np.float32(scan_threshold(cutoff, scores))).any() for scores in free[:5]) == 0
        assert sum((scores >= np.float32(scan_threshold(cutoff, scores))).any() for scores in free[5:]) <= 1
        # Without healthy scans: on the slices away from lesions.
        slices = [replace(ill, clear=free_case.clear, slices=9) for ill, free_case in zip(sick, healthy, strict=True)]
        assert expected(slices).facts["floor_on"]["material"] == "lesion-free slices of each annotated scan"
        assert expected(slices).cutoffs["score"].floor == pytest.approx(cutoff.floor)
        assert not caplog.text
        # Without either: none, and it is said.
        assert expected(sick).cutoffs["score"].floor == 0
        assert "the rule is for cohorts that are known to be ill" in caplog.text

    def test_the_ill_without_a_lesion_to_be_found_set_no_floor(self) -> None:
        sick = [observation(str(i), *voxels(i, 6000, 0.03, base=0.2), np.zeros(0), slices=0) for i in range(5)]
        free = [observation(f"h{i}", *voxels(20 + i, 6000, 0.0, base=0.2), np.zeros(0), slices=0) for i in range(4)]
        ill = [replace(case, set_aside=True) for case in free[2:]]
        assert expected([*sick, *free[:2], *ill]) == expected([*sick, *free[:2]])
        assert expected([*sick, *ill]).facts["floor_on"]["material"] == "none"

    def test_a_scan_under_a_floor_set_on_slices_may_be_cut_at_the_threshold_of_all(self) -> None:
        sick = [observation(str(i), *voxels(i, 6000, 0.03, base=0.2), np.zeros(0), slices=0) for i in range(5)]
        free = [voxels(20 + i, 6000, 0.0, base=0.2)[0] for i in range(5)]
        healthy = [
            observation(f"h{i}", scores, np.zeros(6000, bool), scores, slices=9) for i, scores in enumerate(free)
        ]
        slices = [replace(ill, clear=case.clear, slices=9) for ill, case in zip(sick, healthy, strict=True)]
        empty = expected(slices)
        kept = expected_dice.find(expected_dice.Config(below="threshold"), slices)
        cutoff = kept.cutoffs["score"]
        assert replace(cutoff, below=EMPTY) == empty.cutoffs["score"]
        assert [scan_threshold(cutoff, scores) for scores in free] == [best(sick)["values"]["score"]] * 5
        assert (kept.limit, empty.limit) == ({"below": "threshold"}, None)
        assert kept.facts["scans_with_lesion_under_floor"] == {"score": 0}
        # Under a floor that healthy scans set, scans stay empty: that is their floor.
        on_scans = expected_dice.find(expected_dice.Config(below="threshold"), sick + healthy)
        assert on_scans.cutoffs == expected(sick + healthy).cutoffs
        assert on_scans.facts["scans_with_lesion_left_empty"] == {"score": 0}

    def test_a_floor_on_slices_of_the_ill_leaves_hardly_any_of_them_empty(self) -> None:
        """Healthy scans may silence faint lesions, since nothing else keeps healthy scans empty; slices may not."""
        shares = [0.006, 0.01, 0.015, 0.08, 0.1, 0.12, 0.15, 0.2]
        sick = [observation(f"{i}", *voxels(i, 6000, share, base=0.2), np.zeros(0)) for i, share in enumerate(shares)]
        loud = [voxels(40 + i, 6000, 0.012, base=0.2)[0] for i in range(8)]
        scans = [observation(f"h{i}", scores, np.zeros(6000, bool), scores) for i, scores in enumerate(loud)]
        slices = [replace(ill, clear=free.clear, slices=9) for ill, free in zip(sick, scans, strict=True)]
        on_scans, on_slices = expected(sick + scans), expected(slices)
        assert on_scans.facts["scans_with_lesion_left_empty"]["score"] > 0
        assert on_slices.facts["scans_with_lesion_left_empty"]["score"] == 0
        assert 0 < on_slices.cutoffs["score"].floor < on_scans.cutoffs["score"].floor

    def test_the_floor_lies_where_two_normal_densities_cross(self) -> None:
        rng = np.random.default_rng(0)
        ill, free = rng.normal(0.7, 0.1, 1000), rng.normal(0.2, 0.05, 1000)
        crossing = brentq(lambda at: norm.pdf(at, 0.7, 0.1) - norm.pdf(at, 0.2, 0.05), 0.2, 0.7)
        assert crossing - 0.04 < _floor(ill, [1.0] * 1000, free, [1.0] * 1000) < crossing + 0.01
        twice = _floor(np.r_[ill, ill], [0.5] * 2000, free, [1.0] * 1000)  # two scans of every subject
        assert twice == _floor(ill, [1.0] * 1000, free, [1.0] * 1000)
        assert _floor(np.array([0.6]), [1.0], np.array([0.2]), [1.0]) == pytest.approx(0.4, abs=0.01)
        assert _floor(free, [1.0] * 1000, ill, [1.0] * 1000) == 0

    def test_single_scans_do_not_set_the_floor(self) -> None:
        """By the shares themselves it would lie at .54 to .59, beside the highest healthy and the second ill scan."""
        ill = np.array([0.35, 0.59, 0.62, 0.64, 0.69, 0.71, 0.71, 0.76, 0.77])
        free = np.array([0.06, 0.08, 0.10, 0.31, 0.35, 0.37, 0.44, 0.49, 0.58])
        floors = [_floor(ill, [1.0] * 9, free[:number], [1.0] * number) for number in (8, 9)]
        assert 0.44 < floors[0] < floors[1] < 0.5

    def test_a_long_tail_of_faint_lesions_does_not_raise_the_floor(self) -> None:
        """Normal distributions would cross near .3, over a quarter of the ill; no lesion-free scan comes near."""
        ill = np.array([0.14, 0.2, 0.28, 0.6, 0.65, 0.7, 0.75, 0.8])
        free = np.array([0.01, 0.02, 0.03, 0.05, 0.06, 0.1, 0.12])
        assert 0.12 < _floor(ill, [1.0] * 8, free, [1.0] * 7) < 0.14

    def test_a_floor_that_would_silence_the_ill_is_not_taken(self) -> None:
        """Lesion-free scans that look just like the others cannot be told from them: the floor stays low."""
        sick = [observation(str(i), *voxels(i, 3000, 0.03), np.zeros(0), slices=0) for i in range(6)]
        loud = voxels(30, 3000, 0.3)[0]
        healthy = [observation("h", loud, np.zeros(3000, bool), loud)]
        assert expected(sick + healthy).facts["scans_with_lesion_left_empty"] == {"score": 0}

    def test_a_part_that_ranks_lesions_low_has_no_calibration(self, caplog: pytest.LogCaptureFixture) -> None:
        scores, truth = voxels(1, 4000, 0.05)
        good, bad = (observation("a", values, truth, np.zeros(0), slices=0) for values in (scores, 1 - scores))
        both = replace(good, whole=good.whole | {"intensity": bad.whole["score"]}, clear=good.clear | bad.clear)
        assert set(expected([both]).cutoffs) == {"score"}
        assert "intensity: higher scores are no likelier lesion" in caplog.text
        with pytest.raises(DataError, match="no part that can be calibrated"):
            expected([bad])

    def test_a_perfect_score_gets_a_finite_slope(self) -> None:
        truth = np.arange(1000) < 50
        finding = expected([observation("a", np.where(truth, 0.9, 0.1), truth, np.zeros(0), slices=0)])
        assert np.isfinite(finding.cutoffs["score"].slope)
        assert finding.reached["score"] == 1.0
