"""The networks of a bundle: weights are loaded strictly, and no global generator is advanced."""

from __future__ import annotations

from pathlib import Path

import torch

from hybriduad.core import plugins
from hybriduad.core.errors import BundleError
from hybriduad.detector.appearance import Appearance, appearance_of
from hybriduad.detector.bundle import STATISTICS, WEIGHTS, Bundle, verify
from hybriduad.detector.device import resolve_device, usable_precision
from hybriduad.detector.familiarity import Reference, reference_of
from hybriduad.detector.inference import Detector
from hybriduad.networks.segmenter import Segmenter
from hybriduad.reconstructors._base import Reconstructor


def load_weights(folder: Path, module: torch.nn.Module) -> None:
    """Load ``weights.safetensors`` strictly.

    Raises:
        BundleError: a weight is missing, unknown or of another shape.
    """
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (RuntimeError, OSError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise BundleError("weights do not fit the configured network", where=folder / WEIGHTS, got=text) from error


def load_reconstructor(bundle: Bundle) -> Reconstructor:
    """The reconstructor of a bundle of either kind, on the CPU.

    Raises:
        BundleError: the bundle has none, or its weights do not fit.
    """
    source = bundle if bundle.kind == "reconstructor" else bundle.reconstructor
    if source is None:
        raise BundleError("bundle without a reconstructor", where=bundle.folder)
    block, anatomy = source.run.model, source.anatomy
    family = plugins.load("reconstructors", block.name)
    with torch.random.fork_rng(devices=[]):  # initial weights, soon replaced, must not advance the generator
        model: Reconstructor = family.Model(block, len(anatomy.contrasts), anatomy.size)
    load_weights(source.folder, model)
    return model


def load_reference(bundle: Bundle) -> tuple[Reference | None, Appearance | None]:
    """What the bundle knows of its training slices' features, and of the looks of its contrasts; None for bundles
    without, as those of earlier versions.

    Raises:
        BundleError: statistics that cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        statistics = load_file(bundle.folder / STATISTICS)
        return reference_of(statistics), appearance_of(statistics)
    except (OSError, SafetensorError) as error:
        text = " ".join(str(error).split())[:200]
        raise BundleError("unusable reference statistics", where=bundle.folder / STATISTICS, got=text) from error


def load_segmenter(bundle: Bundle) -> Segmenter:
    """The segmenter of a detector's bundle, on the CPU.

    Raises:
        BundleError: a reconstructor's bundle, or weights that do not fit.
    """
    if bundle.kind != "detector":
        raise BundleError("bundle without a segmenter", where=bundle.folder, got=bundle.kind, expected="a detector")
    with torch.random.fork_rng(devices=[]):
        model = Segmenter(bundle.run.segmenter, len(bundle.anatomy.contrasts))
    load_weights(bundle.folder, model)
    return model


def load_detector(folder: str | Path, device: str = "auto") -> Detector:
    """The detector of a bundle: a detector's, or a reconstructor's, whose map alone is then the score.

    It runs in the bundle's precision, or in float32 where the device would only emulate that.

    Raises:
        BundleError: as :func:`verify` and the loaders.
        ConfigError: an unknown device.
    """
    bundle = verify(folder)
    stage1 = bundle if bundle.kind == "reconstructor" else bundle.reconstructor
    reference, appearance = load_reference(bundle)
    place = resolve_device(device)
    return Detector(
        anatomy=bundle.anatomy,
        direction=bundle.record["direction"],
        reconstructor=load_reconstructor(bundle) if stage1 is not None else None,
        segmenter=load_segmenter(bundle) if bundle.kind == "detector" else None,
        residual=bundle.residual,
        fusion=bundle.run.fusion if bundle.kind == "detector" else None,
        thresholds=bundle.thresholds,
        mirror=bundle.run.mirror,
        needed=bundle.needed,
        seed=bundle.record["seed"],
        precision=usable_precision(bundle.record["precision"], place),
        device=place,
        reference=reference,
        appearance=appearance,
    )
