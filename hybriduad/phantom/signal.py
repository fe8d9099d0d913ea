"""Relaxation times to images: tissue values, protocols, signal equations, coil shading, noise.

Tissue values: BrainWeb (Kwan et al. 1999, doi:10.1109/42.816072). Signal equations: Bernstein et al. 2004, Handbook of
MRI Pulse Sequences, doi:10.1016/B978-0-12-092861-3.X5000-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hybriduad.core.errors import ConfigError
from hybriduad.core.rng import numpy_rng
from hybriduad.phantom.anatomy import Anatomy
from hybriduad.phantom.lattice import Grid

CONTRASTS = ("T1w", "T2w", "FLAIR", "PDw")
"""Not T2starw: T2* depends on the field at borders of tissue, air and iron, which maps of T1, T2 and PD do not hold."""
GREY, WHITE, CSF = 0, 1, 2
BRAINWEB = np.array([[833.0, 83.0, 0.86], [500.0, 70.0, 0.77], [2569.0, 329.0, 1.00]])
"""T1 in ms, T2 in ms and proton density of grey matter, white matter and CSF."""
SPREAD = np.array([0.05, 0.05, 0.02])
"""Coefficient of variation between people of T1, T2 and proton density."""

# Where healthy brains are brighter or darker on T2w and FLAIR than their tissue class says, in MNI mm:
# centre (mirrored to the other side), radius, change of log T2.
REGIONS = (
    ((38.0, 6.0, 0.0), 13.0, 0.16),  # insula
    ((5.0, 22.0, 30.0), 14.0, 0.14),  # cingulate cortex
    ((24.0, -14.0, -20.0), 12.0, 0.18),  # hippocampus and amygdala
    ((25.0, -24.0, 12.0), 8.0, 0.14),  # posterior limb, corticospinal tract
    ((6.0, 40.0, -16.0), 12.0, 0.10),  # subcallosal cortex
    ((21.0, 0.0, -1.0), 9.0, -0.28),  # pallidum: iron
    ((12.0, -18.0, 6.0), 9.0, -0.10),  # thalamus
    ((8.0, -14.0, -12.0), 7.0, -0.18),  # red nucleus, substantia nigra
)


@dataclass(frozen=True)
class Relaxation:
    """``t1_ms``, ``t2_ms``, ``pd``, each (3, N) float32: for grey matter, white matter and CSF at each point."""

    t1_ms: np.ndarray
    t2_ms: np.ndarray
    pd: np.ndarray


@dataclass(frozen=True)
class Protocol:
    """How a site acquires one contrast. Times in ms; ``noise`` and ``shading`` relative to the brain's mean signal."""

    contrast: str
    repetition_ms: float
    echo_ms: float
    flip_deg: float
    inversion_ms: float
    noise: float
    shading: float
    gain: float

    @staticmethod
    def draw(rng: np.random.Generator, contrast: str) -> Protocol:
        """A plausible protocol of ``contrast``.

        Raises:
            ConfigError: unknown contrast.
        """
        noise, shading, gain = rng.uniform(0.015, 0.045), rng.uniform(0.04, 0.11), rng.uniform(300, 900)
        if contrast == "T1w":
            return Protocol(
                contrast, rng.uniform(18, 25), rng.uniform(4, 9), rng.uniform(26, 36), 0.0, noise, shading, gain
            )
        if contrast == "T2w":
            return Protocol(contrast, rng.uniform(3500, 6000), rng.uniform(85, 115), 90.0, 0.0, noise, shading, gain)
        if contrast == "PDw":
            return Protocol(contrast, rng.uniform(3500, 5500), rng.uniform(10, 25), 90.0, 0.0, noise, shading, gain)
        if contrast == "FLAIR":
            repetition = rng.uniform(8000, 10000)
            # Sites set the inversion time by looking for black CSF, and hit it within a few per cent.
            inversion = null_inversion_ms(BRAINWEB[CSF, 0], repetition) * rng.normal(1.0, 0.03)
            return Protocol(contrast, repetition, rng.uniform(100, 135), 90.0, inversion, noise, shading, gain)
        raise ConfigError("unknown phantom contrast", got=repr(contrast), expected=f"one of {list(CONTRASTS)}")

    def sidecar(self) -> dict[str, float | str]:
        """The BIDS metadata of an image of this protocol (times in seconds)."""
        facts: dict[str, float | str] = {
            "RepetitionTime": round(self.repetition_ms / 1000, 6),
            "EchoTime": round(self.echo_ms / 1000, 6),
            "FlipAngle": round(self.flip_deg, 3),
        }
        return facts | ({"InversionTime": round(self.inversion_ms / 1000, 6)} if self.inversion_ms else {})


def spoiled_gradient_echo(
    t1_ms: np.ndarray, t2_ms: np.ndarray, pd: np.ndarray, repetition_ms: float, echo_ms: float, flip_deg: float
) -> np.ndarray:
    """Steady-state signal of a spoiled gradient echo (T1w), relative to a proton density of 1.

    T2 stands in for T2*: the echo is short against both.
    """
    recovery = np.exp(-repetition_ms / t1_ms)
    angle = np.deg2rad(flip_deg)
    return pd * np.sin(angle) * (1 - recovery) / (1 - np.cos(angle) * recovery) * np.exp(-echo_ms / t2_ms)


def spin_echo(t1_ms: np.ndarray, t2_ms: np.ndarray, pd: np.ndarray, repetition_ms: float, echo_ms: float) -> np.ndarray:
    """Signal of a spin echo (T2w, and PDw of a short echo), relative to a proton density of 1."""
    return pd * (1 - np.exp(-repetition_ms / t1_ms)) * np.exp(-echo_ms / t2_ms)


def inversion_recovery(
    t1_ms: np.ndarray, t2_ms: np.ndarray, pd: np.ndarray, repetition_ms: float, echo_ms: float, inversion_ms: float
) -> np.ndarray:
    """Signal of an inversion recovery spin echo (FLAIR) before its magnitude is taken: negative below the null."""
    recovered = 1 - 2 * np.exp(-inversion_ms / t1_ms) + np.exp(-repetition_ms / t1_ms)
    return pd * recovered * np.exp(-echo_ms / t2_ms)


def null_inversion_ms(t1_ms: float, repetition_ms: float) -> float:
    """The inversion time at which tissue of ``t1_ms`` gives no signal."""
    return float(t1_ms * (np.log(2) - np.log1p(np.exp(-repetition_ms / t1_ms))))


def signal(protocol: Protocol, fractions: np.ndarray, relaxation: Relaxation) -> np.ndarray:
    """Noise-free signal at each point (N,): the tissues' signals mixed by their fractions (3, N)."""
    maps = (relaxation.t1_ms, relaxation.t2_ms, relaxation.pd)
    if protocol.contrast == "T1w":
        tissues = spoiled_gradient_echo(*maps, protocol.repetition_ms, protocol.echo_ms, protocol.flip_deg)
    elif protocol.contrast in ("T2w", "PDw"):
        tissues = spin_echo(*maps, protocol.repetition_ms, protocol.echo_ms)
    else:
        tissues = inversion_recovery(*maps, protocol.repetition_ms, protocol.echo_ms, protocol.inversion_ms)
    return (tissues * fractions).sum(axis=0)


def draw_relaxation(anatomy: Anatomy, rng: np.random.Generator) -> Relaxation:
    """T1, T2 and PD of a healthy brain: BrainWeb's values, varied between people, regions and from point to point."""
    levels = BRAINWEB * np.exp(SPREAD * rng.standard_normal((3, 3)))
    older = (anatomy.person.age - 20) / 60
    wide, fine = anatomy.noise(rng, 40.0), anatomy.noise(rng, 9.0)
    medium, grain = anatomy.noise(rng, 25.0), anatomy.noise(rng, 4.5)
    log_t1 = 0.035 * wide + 0.02 * fine
    log_t2 = 0.025 * medium + 0.02 * fine + 0.015 * grain + _regional(anatomy, rng)

    # Caps and a rim of brighter white matter around the ventricles come with age, without being a lesion.
    near = np.exp(-np.maximum(anatomy.ventricle_mm, 0) / 3.0)
    rim = (
        near
        * (0.4 + 0.6 * horns(anatomy.template_mm[1]))
        * (1 + 0.4 * medium)
        * np.exp(rng.normal(np.log(0.15 + 0.4 * older), 0.35))
    )
    log_t2 = log_t2 + np.clip(rim, 0, 0.9)
    log_t1 = log_t1 + 0.4 * np.clip(rim, 0, 0.9)

    t1 = levels[:, :1] * np.exp(log_t1)
    t2 = levels[:, 1:2] * np.exp(log_t2)
    t1[CSF], t2[CSF] = levels[CSF, 0] * _pulsation(anatomy, rng), levels[CSF, 1]
    pd = np.broadcast_to(levels[:, 2:], t1.shape)
    return Relaxation(t1.astype(np.float32), t2.astype(np.float32), pd.astype(np.float32))


def horns(y_mm: np.ndarray) -> np.ndarray:
    """About 1 in front of and behind the bodies of the lateral ventricles, where their horns are, and 0 between."""
    return 1 / (1 + np.exp(-(np.abs(y_mm + 15) - 30) / 6))


def _regional(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Change of log T2 by :data:`REGIONS`, each a little different in every person and on either side."""
    x, y, z = anatomy.template_mm
    right = x > 0
    change = np.zeros(x.size, dtype=np.float32)
    for centre, radius, height in REGIONS:
        sides = height * (rng.normal(1.0, 0.3) + rng.normal(0, 0.1, 2)).astype(np.float32)
        distance = (np.abs(x) - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
        change += np.where(right, *sides) * np.exp(distance * np.float32(-1.125 / radius**2))
    return change


def _pulsation(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Factor on the apparent T1 of CSF: fresh CSF around the brain stem has not been inverted (FLAIR artefact)."""
    x, y, z = anatomy.template_mm
    cistern = np.exp(-((x / 16) ** 2 + ((y + 25) / 28) ** 2 + ((z + 32) / 18) ** 2))
    return 1 - rng.uniform(0.0, 0.45) * cistern * np.clip(1 + 0.5 * anatomy.noise(rng, 20.0), 0, 1.5)


def shading(grid: Grid, rng: np.random.Generator, size: float) -> np.ndarray:
    """Coil sensitivity on the voxels (X, Y, Z): exp of a field of 3 control points an axis and deviation ``size``."""
    return np.exp(size * grid.average(grid.noise(rng, 70.0)))


def rician(image: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Magnitude of ``image`` plus complex Gaussian noise (Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618)."""
    real, imaginary = deviation * rng.standard_normal((2, *image.shape), dtype=np.float32)
    return np.hypot(image + real, imaginary)


def protocols(seed: int, site: str, contrasts: tuple[str, ...]) -> Mapping[str, Protocol]:
    """The protocols of a site: a pure function of (seed, site, contrast)."""
    return {name: Protocol.draw(numpy_rng(seed, "phantom-site", site, name), name) for name in contrasts}
