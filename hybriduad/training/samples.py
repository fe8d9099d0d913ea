"""Training slices: healthy, synthetic and labelled slices become the same :class:`Batch` before training sees them.

A sample is a pure function of (seed, step, index), whatever the workers; an epoch is a fixed number of steps, and a
continued training starts at the step it had reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import ndimage
from torch.utils.data import Dataset

from hybriduad.anomalies._base import VISIBLE_CHANGE, Donor
from hybriduad.config.runs import Augmentation, Mix, Target
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core import plugins, rng
from hybriduad.core.errors import DataError
from hybriduad.core.types import BACKGROUND, Batch, Corruption, Health
from hybriduad.scan.grid import SIDED
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.slices import enough_brain
from hybriduad.training.augmentation import augment

SMALLEST_LESION_VOXELS = 6
KINDS = ("healthy", "synthetic", "labelled")
HEIGHTS = 10
"""Parts of equal depth into which the judged slices of a case are divided, to balance what is drawn."""


@dataclass(frozen=True)
class SlicePool:
    """Which slices of which cases serve as healthy slices, and which as labelled slices.

    ``healthy`` and ``labelled`` list (case index, slice index) into ``prepared``.
    """

    prepared: Sequence[Prepared]
    healthy: tuple[tuple[int, int], ...]
    labelled: tuple[tuple[int, int], ...] = ()


def labelled_slices(case: Prepared) -> np.ndarray:
    """Which slices of an annotated case show enough lesion in enough brain to be learnt from: (S,) bool."""
    size = (case.lesion & case.brain).sum(axis=(0, 1))
    shown: np.ndarray = (size >= SMALLEST_LESION_VOXELS) & enough_brain(case.brain, case.spacing_mm)
    return shown


def build_pool(
    prepared: Sequence[Prepared], health: Sequence[Health], *, lesion_margin_mm: float, labelled: Sequence[int] = ()
) -> SlicePool:
    """Sort slices: a healthy slice is of a healthy case, or of an annotated case and clear of every lesion.

    Args:
        prepared: cases on the model grid.
        health: of each case; "unknown" without a lesion mask gives no healthy slice.
        lesion_margin_mm: distance along the slice axis that a healthy slice keeps from every lesion, at least a slice.
        labelled: indices of the cases whose lesion slices may be learnt from.

    Raises:
        DataError: not a single healthy slice, or a labelled case without a lesion mask.
    """
    healthy: list[tuple[int, int]] = []
    lesions: list[tuple[int, int]] = []
    for index, (case, state) in enumerate(zip(prepared, health, strict=True)):
        usable = enough_brain(case.brain, case.spacing_mm)
        if state == "healthy" or case.has_lesion_mask:
            # Voxels marked ignore count neither as lesion nor as healthy tissue.
            touched = (case.lesion | case.ignore).any(axis=(0, 1))
            margin = max(1, math.ceil(lesion_margin_mm / case.spacing_mm[2]))
            near = ndimage.binary_dilation(touched, iterations=margin) if touched.any() else touched
            healthy += [(index, int(k)) for k in np.flatnonzero(usable & ~near)]
        if index in labelled:
            if not case.has_lesion_mask:
                raise DataError("labelled case without a lesion mask", got=f"case number {index}")
            lesions += [(index, int(k)) for k in np.flatnonzero(labelled_slices(case))]
    if not healthy:
        raise DataError(
            "no healthy slice in the cohort",
            got=f"{len(prepared)} cases",
            expected="cases with health 'healthy', or annotated cases with lesion-free slices",
        )
    return SlicePool(prepared, tuple(healthy), tuple(lesions))


def needs_labels(anomaly: AnomalyConfig) -> bool:
    """Whether a generator carries lesions of labelled slices, and so needs labelled slices."""
    return bool(getattr(plugins.load("anomalies", anomaly.name), "NEEDS_LABELS", False))


def for_contrasts(anomalies: Iterable[AnomalyConfig], contrasts: Sequence[str]) -> list[AnomalyConfig]:
    """The anomalies for contrasts of these names: a generator whose keys go by the contrast says what they mean there.

    Raises:
        ConfigError: keys for another number of contrasts.
    """

    def resolved(anomaly: AnomalyConfig) -> AnomalyConfig:
        resolve = getattr(plugins.load("anomalies", anomaly.name), "for_contrasts", None)
        config: AnomalyConfig = anomaly if resolve is None else resolve(anomaly, contrasts)
        return config

    return [resolved(anomaly) for anomaly in anomalies]


def takes_of_others(anomaly: AnomalyConfig) -> bool:
    """Whether a generator asks for tissue of other scans alone (``same_scan: 0``), as FPI and PII do."""
    return getattr(anomaly, "same_scan", None) == 0


def _heights(pool: SlicePool) -> dict[tuple[int, int], int]:
    """Of every judged slice (case index, slice index): in which of the :data:`HEIGHTS` parts of its case it lies."""
    heights: dict[tuple[int, int], int] = {}
    for index, case in enumerate(pool.prepared):
        judged = np.flatnonzero(enough_brain(case.brain, case.spacing_mm))
        heights |= {(index, int(k)): int(HEIGHTS * place / len(judged)) for place, k in enumerate(judged)}
    return heights


def height_weights(pool: SlicePool) -> np.ndarray:
    """How often each healthy slice is to be drawn: (healthy slices,) float64, of sum 1.

    Lesion-free slices of annotated patients lie mostly above and below the lesions. Weighted, every height of the brain
    comes as often as among all judged slices, though it may have to come from fewer cases; of cases that are healthy
    throughout all slices weigh the same.
    """
    height_of = _heights(pool)
    heights = np.array([height_of[key] for key in pool.healthy])
    wanted = np.bincount(list(height_of.values()), minlength=HEIGHTS)
    weights: np.ndarray = (wanted / np.bincount(heights, minlength=HEIGHTS).clip(min=1))[heights]
    return weights / weights.sum()


class SampleStream(Dataset[Batch]):
    """Item ``step`` is that step's whole batch.

    With the ``target`` "visibility" that of a painted slice is its generator's soft target, 0 outside the lesion; that
    of a labelled slice stays its mask.
    """

    def __init__(
        self,
        pool: SlicePool,
        *,
        seed: int,
        batch: int,
        steps: int,
        mix: Mix,
        augmentation: Augmentation,
        anomalies: Sequence[AnomalyConfig] = (),
        target: Target = "mask",
    ) -> None:
        shares = np.array([mix.healthy, mix.synthetic, mix.labelled], dtype=float)
        if mix.labelled > 0 and not pool.labelled:
            raise DataError(
                "no labelled slice in the cohort", got="mix.labelled > 0", mend="give lesion masks or set it to 0"
            )
        if mix.synthetic > 0 and not anomalies:
            raise DataError("no anomaly generator", got="mix.synthetic > 0", mend="name a generator under 'anomalies'")
        if not pool.labelled and (names := [anomaly.name for anomaly in anomalies if needs_labels(anomaly)]):
            mend = "set mix.labelled above 0, or leave it out of 'anomalies'"
            raise DataError("anomaly generator without labelled slices to draw from", got=names, mend=mend)
        self.pool, self.seed, self.batch, self.steps = pool, seed, batch, steps
        self.limits = np.cumsum(shares / shares.sum())
        self.healthy_limits = np.cumsum(height_weights(pool))
        heights = _heights(pool)
        # Case and height of every healthy slice: (healthy slices, 2).
        self.healthy_places = np.array([(key[0], heights[key]) for key in pool.healthy])
        self.augmentation, self.target = augmentation, target
        weights = np.array([config.weight for config in anomalies])
        # Generators of equal weight are drawn as whole numbers: the samples of a seed stay what they were.
        self.anomaly_limits = None if len(set(weights)) < 2 else np.cumsum(weights / weights.sum())
        self.anomalies = tuple((config, plugins.load("anomalies", config.name).corrupt) for config in anomalies)
        for number in range(len(self.anomalies)):  # a generator that cannot serve these contrasts fails here
            case_index, slice_index = pool.healthy[0]
            case = pool.prepared[case_index]
            image, brain = np.array(case.image[..., slice_index]), np.array(case.brain[..., slice_index])
            self._painted(number, image, brain, pool.healthy[0], rng.numpy_rng(seed, "trial", number))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        return self.samples(step, self.batch)

    def samples(self, step: int, count: int) -> Batch:
        """The first ``count`` samples of a step."""
        return Batch.stack([self.sample(step, index) for index in range(count)])

    def sample(self, step: int, index: int) -> Batch:
        """One slice as a Batch of 1."""
        generator = rng.numpy_rng(self.seed, "sample", step, index)
        kind = self._drawn_kind(generator)
        case_index, slice_index = self._labelled(generator) if kind == "labelled" else self._healthy(generator)
        case = self.pool.prepared[case_index]
        clean, valid, brain, lesion, ignore = self._altered(case_index, slice_index, generator)
        shown = valid.any(axis=0)
        lesion &= brain & shown
        ignore |= brain & ~shown  # no contrast tells what is there
        image, target = clean, lesion.astype(np.float32)
        if kind == "synthetic":
            place = (case_index, slice_index)
            painted = self._painted(self._drawn_anomaly(generator), clean, brain & shown, place, generator)
            painted = covered(painted, clean, valid)
            image, lesion, ignore = painted.image, painted.lesion, ignore | painted.ignore
            target = np.where(lesion, painted.visibility if self.target == "visibility" else 1, 0).astype(np.float32)
        return Batch(
            image=_tensor(image),
            healthy=_tensor(clean),
            valid=_tensor(valid),
            brain=_tensor(brain),
            lesion=_tensor(lesion),
            ignore=_tensor(ignore),
            target=_tensor(target),
            spacing_mm=torch.tensor([case.spacing_mm[:2]], dtype=torch.float32),
            keys=torch.tensor([rng.fold(self.seed, "noise", step, index)]),
            case_index=torch.tensor([case_index]),
            slice_index=torch.tensor([slice_index]),
        )

    def kind(self, step: int, index: int) -> str:
        """Of a sample: healthy, synthetic or labelled."""
        return self._drawn_kind(rng.numpy_rng(self.seed, "sample", step, index))

    def _drawn_kind(self, generator: np.random.Generator) -> str:
        return KINDS[int(np.searchsorted(self.limits, generator.random(), side="right"))]

    def _drawn_anomaly(self, generator: np.random.Generator) -> int:
        if self.anomaly_limits is None:
            return int(generator.integers(len(self.anomalies)))
        place = int(np.searchsorted(self.anomaly_limits, generator.random(), side="right"))
        return min(place, len(self.anomalies) - 1)  # the last limit may be rounded to under 1

    def _healthy(self, generator: np.random.Generator) -> tuple[int, int]:
        place = int(np.searchsorted(self.healthy_limits, generator.random(), side="right"))
        return self.pool.healthy[min(place, len(self.pool.healthy) - 1)]  # the last limit may be rounded to under 1

    def _labelled(self, generator: np.random.Generator) -> tuple[int, int]:
        return self.pool.labelled[int(generator.integers(len(self.pool.labelled)))]

    def _painted(
        self,
        number: int,
        clean: np.ndarray,
        brain: np.ndarray,
        place: tuple[int, int],
        generator: np.random.Generator,
    ) -> Corruption:
        config, corrupt = self.anomalies[number]
        spacing_mm = self.pool.prepared[place[0]].spacing_mm[:2]
        donors = partial(self.donor, target=place) if takes_of_others(config) else self.donor
        return corrupt(config, clean, brain, generator, spacing_mm=spacing_mm, donors=donors)

    def _altered(
        self, case_index: int, slice_index: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Image and valid (C, H, W), brain, lesion and ignore (H, W)."""
        case = self.pool.prepared[case_index]
        masks = np.stack([np.array(mask[..., slice_index]) for mask in (case.brain, case.lesion, case.ignore)])
        image, valid = np.array(case.image[..., slice_index]), np.array(case.valid[..., slice_index])
        sided = case.grid.direction in SIDED
        image, valid, masks = augment(self.augmentation, image, valid, masks, generator, sided=sided)
        return image, valid, masks[0], masks[1], masks[2]

    def _healthy_elsewhere(self, target: tuple[int, int], generator: np.random.Generator) -> tuple[int, int]:
        """A healthy slice of another case than that of the healthy slice ``target``, of its height where another case
        has any; of the same case only where the pool has no other."""
        case, height = self.healthy_places[self.pool.healthy.index(target)]
        other = self.healthy_places[:, 0] != case
        alike = other & (self.healthy_places[:, 1] == height)
        places = np.flatnonzero(alike if alike.any() else other)
        if not len(places):
            return self._healthy(generator)
        weights = np.diff(self.healthy_limits, prepend=0.0)[places]
        return self.pool.healthy[int(generator.choice(places, p=weights / weights.sum()))]

    def donor(self, generator: np.random.Generator, *, labelled: bool, target: tuple[int, int] | None = None) -> Donor:
        """Another slice, a labelled slice or a healthy slice. Half of those that show left and right are mirrored.

        With a ``target`` (case index, slice index) a healthy donor is of another case, about as high in its brain. Of a
        labelled slice the lesion is empty where a contrast that the slice has does not cover all of its brain, of a
        healthy slice the brain ends there: carried elsewhere, what is missing would be dark tissue.
        """
        if target is not None and not labelled:
            case_index, slice_index = self._healthy_elsewhere(target, generator)
        else:
            case_index, slice_index = (self._labelled if labelled else self._healthy)(generator)
        case = self.pool.prepared[case_index]
        cut = (case.image[..., slice_index], case.brain[..., slice_index], case.lesion[..., slice_index])
        image, brain, lesion = (np.array(part) for part in cut)
        valid = np.array(case.valid[..., slice_index])
        covered = np.logical_and.reduce(valid[valid.any(axis=(1, 2))], axis=0)
        if labelled:
            lesion &= covered[brain].all()
        else:
            brain &= covered
        if generator.random() < 0.5 and case.grid.direction in SIDED:
            image, brain, lesion = image[:, ::-1], brain[::-1], lesion[::-1]
        return Donor(image, brain, lesion, case.spacing_mm[:2])


def covered(painted: Corruption, clean: np.ndarray, valid: np.ndarray) -> Corruption:
    """What of a painted anomaly the contrasts can show: ``clean`` (C, *space) and ``valid`` (C, *space) bool.

    Where a contrast is not valid the image is background. Lesion that was visible there alone is ignored.
    """
    image = np.where(valid, painted.image, np.float32(BACKGROUND))
    # Only what was visible and no contrast covers is taken from the extent that the generator states.
    hidden = painted.lesion & _visible(painted.image, clean) & ~_visible(image, clean)
    lesion = painted.lesion & ~hidden
    visibility = np.where(lesion, painted.visibility, np.float32(0))
    return Corruption(image, lesion, visibility, painted.ignore | hidden)


def _visible(image: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Where a contrast (C, H, W) differs visibly: (H, W) bool."""
    return np.abs(image - clean).max(axis=0) > VISIBLE_CHANGE


class RemainingSteps:
    """The steps from ``start`` on, for a sampler; ``len`` stays that of the whole training, as the trainer counts."""

    def __init__(self, start: int, steps: int) -> None:
        self.start, self.steps = start, steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.steps))

    def __len__(self) -> int:
        return self.steps


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))[None]
