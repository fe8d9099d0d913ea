"""Typed and strict configuration: one flat YAML a run, frozen pydantic models, unknown keys are errors."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hybriduad import plugins
from hybriduad.datasets._layout import CONTRASTS
from hybriduad.errors import ConfigError


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PluginConfig(Strict):
    """The YAML block of a plug-in; ``name`` says which file it is for. Each plug-in subclasses it."""

    name: str


M = TypeVar("M", bound=BaseModel)


def checked(model: type[M], data: Any, where: str) -> M:
    """Validate ``data`` as ``model``.

    Raises:
        ConfigError: one sentence with the dotted key at fault; for an unknown key, the nearest known one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        if first["type"] == "extra_forbidden":
            known = sorted(_siblings(model, first["loc"][:-1]))
            near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
            dotted = ".".join([*(str(part) for part in first["loc"][:-1]), *near])
            mend = f"perhaps {dotted!r} is meant" if near else "remove it"
            raise ConfigError(
                "unknown key", where=where, got=repr(key), expected=f"one of {known}", mend=mend
            ) from error
        raise ConfigError(
            f"bad value for {key!r}", where=where, got=repr(first.get("input")), mend=str(first["msg"])
        ) from error


def _siblings(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in path:
        info = getattr(current, "model_fields", {}).get(str(part))
        if info is None:
            return []
        options = [one for one in get_args(info.annotation) if hasattr(one, "model_fields")]  # of "Block | None"
        current = options[0] if options else info.annotation
    return list(getattr(current, "model_fields", {}))


def _plugin_block(kind: plugins.Kind) -> BeforeValidator:
    """Resolve ``{name: perlin, ...}`` to the plug-in's own Config before pydantic looks at it."""

    def resolve(value: Any) -> Any:
        if isinstance(value, PluginConfig):
            return value
        if not isinstance(value, dict) or "name" not in value:
            raise ConfigError(f"block without a plug-in name for {kind}", got=value, expected="a mapping with 'name'")
        config: type[PluginConfig] = plugins.load(kind, str(value["name"])).Config
        return checked(config, value, f"block {kind} {value['name']!r}")

    return BeforeValidator(resolve)


ReconstructorBlock = Annotated[PluginConfig, _plugin_block("reconstructors")]
AnomalyBlock = Annotated[PluginConfig, _plugin_block("anomalies")]


class Augmentation(Strict):
    """How often a training slice is altered: probabilities in [0, 1]; ``absent`` hides some of several contrasts."""

    flip: float = Field(0.5, ge=0, le=1)
    affine: float = Field(0.5, ge=0, le=1)
    gamma: float = Field(0.3, ge=0, le=1)
    bias: float = Field(0.3, ge=0, le=1)
    blur: float = Field(0.1, ge=0, le=1)
    noise: float = Field(0.2, ge=0, le=1)
    ghosting: float = Field(0.0, ge=0, le=1)
    absent: float = Field(0.2, ge=0, le=1)


class Train(Strict):
    """A budget in steps. Time is reported, never a stopping rule."""

    steps: int = Field(ge=1)
    batch: int = Field(16, ge=1)
    lr: float = Field(gt=0)
    warmup: int = Field(50, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_every: int = Field(200, ge=1)
    picture_every: int = Field(500, ge=1)
    workers: int = Field(0, ge=0)


class Anatomy(Strict):
    """What is read from a cohort and on which grid."""

    contrasts: tuple[str, ...] = Field(min_length=1)
    space: Literal["native"] = "native"
    size: int = Field(96, ge=32)
    lesion_margin_mm: float = Field(10.0, ge=0)

    @model_validator(mode="after")
    def _known(self) -> Anatomy:
        if set(self.contrasts) - set(CONTRASTS) or len(set(self.contrasts)) != len(self.contrasts):
            raise ValueError(f"each of {', '.join(CONTRASTS)} at most once")
        return self


class Residual(Strict):
    """How reconstructions become an anomaly map: which residual, how the levels combine, and the median filter."""

    kind: Literal["ssim", "absolute", "positive", "negative"] = "ssim"
    combine: Literal["arithmetic", "geometric"] = "arithmetic"
    median_voxels: int = Field(5, ge=1)


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
    """The network of stage 2."""

    layout: Literal["siamese", "stacked"] = "siamese"
    inputs: tuple[Literal["image", "reconstruction", "residual"], ...] = ("image", "residual")
    encoder: str = "resnet18"
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)

    @model_validator(mode="after")
    def _unique(self) -> Segmenter:
        if not self.inputs or len(set(self.inputs)) != len(self.inputs):
            raise ValueError("inputs must be a non-empty list without repeats")
        return self


class Loss(Strict):
    """Weights beside the cross-entropy: ``dice`` of soft Dice, ``false_alarm`` of alarms on lesion-free slices."""

    dice: float = Field(1.0, ge=0)
    false_alarm: float = Field(0.5, ge=0)


class Fusion(Strict):
    """Score = (w x̃ + ŷ) / (w + 1) for ``sum``, x̃^w ŷ for ``product``.

    ``smooth_mm``: ŷ is smoothed by a Gaussian of that standard deviation along the slice axis, so that neighbouring
    slices confirm each other; 0 leaves every slice to itself, as in the paper.
    """

    form: Literal["sum", "product"] = "sum"
    weight: float = Field(1.0, ge=0)
    smooth_mm: float = Field(0.0, ge=0)


class DetectorRun(_Run):
    """``fit-detector``: stage 2 and few-label fine-tuning. ``anatomy`` is only for a segmenter of the image alone; with
    a reconstructor it is that of its bundle, whose ``mirror`` does not count here.
    """

    kind: Literal["detector"]
    anatomy: Anatomy | None = None
    segmenter: Segmenter = Segmenter()
    loss: Loss = Loss()
    fusion: Fusion = Fusion()


RUNS: dict[str, type[ReconstructorRun | DetectorRun]] = {"reconstructor": ReconstructorRun, "detector": DetectorRun}


def shipped_folder() -> Path:
    """Where the shipped configs are: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def shipped() -> list[str]:
    """The names of the shipped configs."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def load(config: str | Path, overrides: list[str] | None = None, kind: str | None = None) -> Any:
    """Read a run config: a path, or the name of a shipped one; ``overrides`` are ``dotted.key=value`` in YAML.

    Raises:
        ConfigError: no such config, not YAML, unknown key or bad value, or another ``kind`` than asked for.
    """
    path = Path(config)
    if path.suffix not in {".yaml", ".yml"}:
        path = shipped_folder() / f"{config}.yaml"
        if not path.is_file():
            near = difflib.get_close_matches(str(config), shipped(), n=1)
            mend = f"perhaps {near[0]!r} is meant" if near else "or give a path that ends in .yaml"
            raise ConfigError("unknown config", got=repr(str(config)), expected=f"one of {shipped()}", mend=mend)
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError("cannot read config", where=path, got=error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("config is not YAML", where=path, got=" ".join(str(error).split())) from error
    try:
        return parse(override(data, overrides or []), str(path), kind)
    except ConfigError:
        # Whoever is at fault is named: the file if it is wrong by itself, else what was set.
        parse(data, str(path), kind)
        return parse(override(data, overrides or []), " ".join(f"--set {one}" for one in overrides or []), kind)


def parse(data: Any, where: str, kind: str | None = None) -> Any:
    """Check a mapping as the run config that its ``kind`` names.

    Raises:
        ConfigError: as :func:`load`.
    """
    if not isinstance(data, dict) or data.get("kind") not in list(RUNS):
        found = data.get("kind") if isinstance(data, dict) else type(data).__name__
        raise ConfigError("config without a known kind", where=where, got=found, expected=f"kind: one of {list(RUNS)}")
    if kind is not None and data["kind"] != kind:
        raise ConfigError("config of the wrong kind", where=where, got=data["kind"], expected=kind)
    return checked(RUNS[data["kind"]], data, where)


def override(data: Any, assignments: list[str]) -> Any:
    """Apply ``dotted.key=value`` assignments (values in YAML) to a nested mapping; returns a new mapping.

    Raises:
        ConfigError: an assignment without ``=``, through something that is no mapping, or of no YAML.
    """
    result = yaml.safe_load(yaml.safe_dump(data))
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError("bad override", got=repr(assignment), expected="dotted.key=value")
        *path, last = dotted.strip().split(".")
        target = result
        for part in path:
            target = target.setdefault(part, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise ConfigError("override through a value that is no mapping", got=repr(dotted))
        try:
            target[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError("override whose value is not YAML", got=repr(assignment)) from error
    return result


def dump(run: BaseModel) -> str:
    """The resolved config as YAML, readable by :func:`load`."""
    return yaml.safe_dump(run.model_dump(mode="json", serialize_as_any=True), sort_keys=False)
