"""What a run config holds: frozen pydantic models that refuse unknown keys. Files: :mod:`hybriduad.config.files`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hybriduad.config.strict import AnomalyConfig, PluginConfig, Strict, checked
from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError
from hybriduad.datasets._layout import CONTRASTS

Precision = Literal["float32", "bfloat16"]
TrainingLevels = Literal["inference", "all"]
"""Which noise levels stage 2 sees reconstructions of: those that inference uses, or all that stage 1 was trained on."""
Target = Literal["mask", "visibility"]
"""What the segmenter learns of a painted slice: its mask, or how visible its anomaly is at each voxel, in [0, 1]."""
BrainWay = Literal["auto", "estimate", "deepbet", "hd-bet", "command"]
"""How the brain of a head is found that has no mask: by what is installed, our own estimate, a package, a command."""
Space = Literal["native", "MNI152NLin2009aSym"]
"""Where slices lie: those of the scan itself, or axial slices of the template that it is registered to."""
NATIVE = "native"
TEMPLATE_SPACING_MM = 2.0
"""Side of a voxel in template space where none is stated: the default size covers the template's brain with it."""
TEMPLATE_BRAIN_MM = 182.0
"""The longest side of the template's brain, from front to back."""
MEDIAN_MM = 11.5
"""Side of the median filter's window: 5 pixels of 2.3 mm, those of the shipped grid."""


def _plugin_block(kind: plugins.Kind) -> BeforeValidator:
    """Resolve ``{name: perlin, ...}`` to the plug-in's Config before pydantic looks at it."""

    def resolve(value: Any) -> Any:
        if isinstance(value, PluginConfig):
            return value
        if not isinstance(value, dict) or "name" not in value:
            raise ConfigError(f"block without a plug-in name for {kind}", got=value, expected="a mapping with 'name'")
        config: type[PluginConfig] = plugins.load(kind, str(value["name"])).Config
        return checked(config, value, f"block {kind} {value['name']!r}")

    return BeforeValidator(resolve)


ReconstructorBlock = Annotated[PluginConfig, _plugin_block("reconstructors")]
AnomalyBlock = Annotated[AnomalyConfig, _plugin_block("anomalies")]


class Augmentation(Strict):
    """How often a training slice is altered: probabilities in [0, 1]; ``absent`` hides some of several contrasts,
    never all (contrast dropout): without it a bundle refuses a case without a contrast that all training cases had.

    ``stripped`` leaves nothing but the brain. It is not written where it is left out: trainings from before it
    was there are continued.
    """

    flip: float = Field(0.5, ge=0, le=1)
    affine: float = Field(0.5, ge=0, le=1)
    gamma: float = Field(0.3, ge=0, le=1)
    bias: float = Field(0.3, ge=0, le=1)
    blur: float = Field(0.1, ge=0, le=1)
    noise: float = Field(0.2, ge=0, le=1)
    ghosting: float = Field(0.0, ge=0, le=1)
    absent: float = Field(0.2, ge=0, le=1)
    stripped: float = Field(0.0, ge=0, le=1, exclude_if=lambda chance: chance == 0)


class Train(Strict):
    """A budget in steps, 0 to keep the starting weights. Time is reported, never a stopping rule.

    Every ``picture_every`` steps, and at the end, samples are drawn and loss and AUPRC on validation slices are logged,
    painted with the run's anomalies and with others; these figures also after each quarter of the steps.
    """

    steps: int = Field(ge=0)
    batch: int = Field(16, ge=1)
    lr: float = Field(gt=0)
    warmup: int = Field(50, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_every: int = Field(200, ge=1)
    picture_every: int = Field(500, ge=1)
    workers: int = Field(0, ge=0)


class Anatomy(Strict):
    """What is read from a cohort and on which grid.

    ``brain``: how the brain of a head is found that has no mask; a list is a command with ``{in}`` and ``{out}``. In a
    config that leaves it out, a new bundle takes what is installed and states it; in a bundle, it is the estimate. The
    command itself is never written: a bundle from elsewhere must not say what to run here.
    ``spacing_mm`` is the side of a voxel in template space, and is neither stated nor written in native space, where
    ``size`` pixels cover the head of each scan.
    """

    contrasts: tuple[str, ...] = Field(min_length=1)
    space: Space = "native"
    size: int = Field(96, ge=32)
    spacing_mm: float | None = Field(None, gt=0, allow_inf_nan=False, exclude_if=lambda spacing: spacing is None)
    lesion_margin_mm: float = Field(10.0, ge=0)
    brain: BrainWay | None = Field(None, exclude_if=lambda way: way is None)
    brain_command: tuple[str, ...] = Field((), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _list_is_command(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("brain"), list | tuple):
            return data | {"brain": "command", "brain_command": data["brain"]}
        return data

    @model_validator(mode="after")
    def _has_both_files(self) -> Anatomy:
        if self.brain_command and not all(any(f in a for a in self.brain_command) for f in ("{in}", "{out}")):
            raise ValueError("a brain command holds {in} and {out}, as in mri_synthstrip -i {in} -m {out}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _template_spacing(cls, stated: Any) -> Any:
        if isinstance(stated, dict) and stated.get("space", NATIVE) != NATIVE and stated.get("spacing_mm") is None:
            return stated | {"spacing_mm": TEMPLATE_SPACING_MM}
        return stated

    @model_validator(mode="after")
    def _covers_the_template(self) -> Anatomy:
        if self.space == NATIVE and self.spacing_mm is not None:
            raise ValueError("spacing_mm belongs to a template space: set space, or leave spacing_mm out")
        if self.spacing_mm is not None and self.size * self.spacing_mm < TEMPLATE_BRAIN_MM:
            raise ValueError(
                f"size x spacing_mm must cover the {TEMPLATE_BRAIN_MM:g} mm of the template's brain, and "
                f"{self.size} x {self.spacing_mm:g} mm do not: set spacing_mm to {TEMPLATE_BRAIN_MM / self.size:.2f} "
                f"or more, or size to {math.ceil(TEMPLATE_BRAIN_MM / self.spacing_mm)} or more"
            )
        return self

    @model_validator(mode="after")
    def _known(self) -> Anatomy:
        if set(self.contrasts) - set(CONTRASTS) or len(set(self.contrasts)) != len(self.contrasts):
            raise ValueError(f"each of {', '.join(CONTRASTS)} at most once")
        return self


class Residual(Strict):
    """How reconstructions become an anomaly map: which residual, how the levels combine, and the median filter.

    ``combine``: by the arithmetic or geometric mean of the maps of all levels and repeats, or, as in the paper, by the
    map of one ``reconstruction``, the mean of all. ``median_mm`` is the side of the filter's window, 0 for none; it
    alone counts for a reconstructor without an image.
    """

    kind: Literal["ssim", "absolute", "positive", "negative"] = "ssim"
    combine: Literal["arithmetic", "geometric", "reconstruction"] = "arithmetic"
    median_mm: float = Field(MEDIAN_MM, ge=0)


class Mix(Strict):
    """The share of each kind of slice in training: healthy, painted with a synthetic anomaly, labelled."""

    healthy: float = Field(1.0, ge=0)
    synthetic: float = Field(0.0, ge=0)
    labelled: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _positive(self) -> Mix:
        if self.healthy + self.synthetic + self.labelled <= 0:
            raise ValueError("at least one share must be positive")
        return self


class _Run(Strict):
    """What both stages state. ``mirror``: inference judges every slice as it is and mirrored, and averages the two."""

    seed: int = 0
    mix: Mix = Mix()
    anomalies: tuple[AnomalyBlock, ...] = ()
    augmentation: Augmentation = Augmentation()
    mirror: bool = False
    train: Train


class ReconstructorRun(_Run):
    """``fit-reconstructor``: stage 1. No mask is ever learnt from, so ``mix`` has no labelled share.

    A synthetic share paints anomalies into the input and keeps the clean slice as the target, so that the network
    learns to remove what does not belong (the idea of DISYRE, arXiv 2311.15453); the paper's stage 1 has none.
    """

    kind: Literal["reconstructor"]
    anatomy: Anatomy
    model: ReconstructorBlock
    residual: Residual = Residual()


class Segmenter(Strict):
    """The network of stage 2. ``draem`` restores the slice by a second network, and needs no reconstructor."""

    layout: Literal["siamese", "stacked", "draem"] = "siamese"
    inputs: tuple[Literal["image", "reconstruction", "residual"], ...] = ("image", "residual")
    encoder: str = "resnet18"
    decoder_channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (256, 128, 64, 32, 16), min_length=1, max_length=5
    )

    @model_validator(mode="after")
    def _unique(self) -> Segmenter:
        if not self.inputs or len(set(self.inputs)) != len(self.inputs):
            raise ValueError("inputs must be a non-empty list without repeats")
        if self.layout == "draem" and self.inputs != ("image", "reconstruction"):
            raise ValueError("inputs must be [image, reconstruction] for the layout draem, which makes the second")
        return self


class Loss(Strict):
    """Weights beside the cross-entropy: ``dice`` of soft Dice, ``false_alarm`` of alarms on lesion-free slices.

    ``focal``: the exponent of focal cross-entropy, 0 for plain cross-entropy. ``target``: what is learnt of painted
    slices; of labelled slices it is the mask. Neither is written where it is left out: trainings from before they were
    there are continued.
    """

    dice: float = Field(1.0, ge=0)
    false_alarm: float = Field(0.5, ge=0)
    focal: float = Field(0.0, ge=0, allow_inf_nan=False, exclude_if=lambda exponent: exponent == 0)
    target: Target = Field("mask", exclude_if=lambda target: target == "mask")


class Fusion(Strict):
    """Score = (w x̃ + ŷ) / (w + 1) for ``sum``, x̃^w z^v (f + (1 - f) a)^u (f + (1 - f) ŷ) for ``product``.

    ``weight`` is w. Of products alone: ``floor`` f, and the exponents v and u of what learns nothing, plain
    ``intensity`` z and left-right ``asymmetry`` a (:mod:`hybriduad.networks.baselines`). z is plain intensity under the
    filter of the residual; with ``opposite`` k above 0 it is 1 - (1 - plain) (1 - k d), not filtered, where d is how
    far a voxel departs from its pseudo-healthy tissue to the other side than lesions of its contrast are known to:
    cavities are dark on FLAIR, and plain intensity alone would silence them as it silences fluid. With ``departure``
    above 0 what is plain there is a step, half way at that share of the brain's median beyond it
    (:func:`hybriduad.networks.baselines.departure_map`), not filtered either.
    ``smooth_mm``: ŷ is smoothed by a Gaussian of that standard deviation along the slice axis, so that neighbouring
    slices confirm each other, and of no more than ``smooth_slices`` where that is stated; 0 leaves every slice to
    itself, as in the paper. Only form, weight and ``smooth_mm`` are written where they are left out: bundles from
    before the others were there are read.
    """

    form: Literal["sum", "product"] = "sum"
    weight: float = Field(1.0, ge=0)
    floor: float = Field(0.0, ge=0, lt=1, exclude_if=lambda floor: floor == 0)
    intensity: float = Field(0.0, ge=0, allow_inf_nan=False, exclude_if=lambda exponent: exponent == 0)
    opposite: float = Field(0.0, ge=0, allow_inf_nan=False, exclude_if=lambda strength: strength == 0)
    departure: float = Field(0.0, ge=0, allow_inf_nan=False, exclude_if=lambda share: share == 0)
    asymmetry: float = Field(0.0, ge=0, allow_inf_nan=False, exclude_if=lambda exponent: exponent == 0)
    smooth_mm: float = Field(0.0, ge=0)
    smooth_slices: float | None = Field(None, gt=0, exclude_if=lambda slices: slices is None)

    @model_validator(mode="after")
    def _of_products(self) -> Fusion:
        if self.form == "sum" and (self.floor or self.intensity or self.asymmetry):
            raise ValueError("floor, intensity and asymmetry belong to the form product")
        if (self.opposite or self.departure) and not self.intensity:
            raise ValueError("opposite and departure belong to an intensity above 0")
        return self


class DetectorRun(_Run):
    """``fit-detector``: stage 2 and few-label fine-tuning. A reconstructor brings its ``anatomy``, which is stated only
    for a segmenter that needs none, and its ``residual``, unless another is stated; its ``mirror`` does not count.
    A detector to start from brings its ``residual`` as well.

    ``training_levels``: the noise level of the reconstruction beside a training slice is one of those of ``inference``,
    or drawn evenly from ``all`` that stage 1 was trained on, as in the paper; of no effect where a family has none.
    """

    kind: Literal["detector"]
    anatomy: Anatomy | None = None
    segmenter: Segmenter = Segmenter()
    residual: Residual | None = None
    loss: Loss = Loss()
    fusion: Fusion = Fusion()
    training_levels: TrainingLevels = "inference"
