"""Signal equations against closed forms, and what images must look like."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hybriduad.core.errors import ConfigError
from hybriduad.phantom import signal
from hybriduad.phantom.signal import (
    BRAINWEB,
    CSF,
    GREY,
    WHITE,
    Protocol,
)
from hybriduad.phantom.subject import make_subject

T1, T2, PD = BRAINWEB.T


def test_spoiled_gradient_echo_is_the_steady_state_of_the_bloch_equation() -> None:
    angle, recovery = np.deg2rad(30.0), np.exp(-18.0 / T1)
    magnetisation = PD.copy()
    for _ in range(5000):
        magnetisation = PD + (magnetisation * np.cos(angle) - PD) * recovery
    expected = magnetisation * np.sin(angle) * np.exp(-10.0 / T2)
    np.testing.assert_allclose(signal.spoiled_gradient_echo(T1, T2, PD, 18.0, 10.0, 30.0), expected, rtol=1e-9)


def test_inversion_recovery_is_the_bloch_equation_and_vanishes_at_the_null() -> None:
    inversion, repetition = 1700.0, 9000.0
    before = PD * (1 - np.exp(-repetition / T1))  # long after the 90 degree pulse of the last repetition
    at_pulse = PD + (-before - PD) * np.exp(-inversion / T1)
    expected = at_pulse * np.exp(-120.0 / T2)
    # The closed form lets the echo come at once: before * exp(-TI/T1) holds the difference.
    values = signal.inversion_recovery(T1, T2, PD, repetition + inversion, 120.0, inversion)
    np.testing.assert_allclose(values, expected, atol=2e-3)
    null = signal.null_inversion_ms(T1[CSF], 9000.0)
    assert signal.inversion_recovery(T1, T2, PD, 9000.0, 120.0, null)[CSF] == pytest.approx(0, abs=1e-12)
    assert 1500 < null < T1[CSF] * np.log(2)


def test_spin_echo_decays_with_t2() -> None:
    near, far = (signal.spin_echo(T1, T2, PD, 1e6, echo) for echo in (0.0, 100.0))
    np.testing.assert_allclose(near, PD)
    np.testing.assert_allclose(-100.0 / np.log(far / near), T2)


def test_each_contrast_orders_the_tissues_as_radiologists_know_them() -> None:
    phantom = make_subject(0, 0, spacing_mm=(3.0, 3.0, 3.0))
    mean = {
        name: [image[phantom.brain & (phantom.tissue[tissue] > 0.9)].mean() for tissue in (GREY, WHITE, CSF)]
        for name, image in phantom.images.items()
    }
    assert mean["T1w"][WHITE] > 1.1 * mean["T1w"][GREY] > 1.3 * mean["T1w"][CSF]
    assert mean["T2w"][CSF] > 1.5 * mean["T2w"][GREY] > 1.5 * mean["T2w"][WHITE]
    assert mean["PDw"][CSF] > 1.03 * mean["PDw"][GREY] > 1.08 * mean["PDw"][WHITE]
    assert mean["FLAIR"][GREY] > 1.03 * mean["FLAIR"][WHITE] > 2 * mean["FLAIR"][CSF]


def test_noise_is_rician() -> None:
    drawn = signal.rician(np.full(20000, 2.0, dtype=np.float32), np.random.default_rng(0), 0.8)
    assert stats.kstest(drawn, stats.rice(2.0 / 0.8, scale=0.8).cdf).pvalue > 0.01


def test_sites_have_protocols_of_their_own() -> None:
    a, b = (signal.protocols(0, site, ("FLAIR", "T1w")) for site in ("Aster", "Birch"))
    assert a != b
    assert a["T1w"] == signal.protocols(0, "Aster", ("T1w",))["T1w"]
    assert {"RepetitionTime", "EchoTime", "FlipAngle", "InversionTime"} == set(a["FLAIR"].sidecar())
    assert "InversionTime" not in a["T1w"].sidecar()
    assert 7 < a["FLAIR"].sidecar()["RepetitionTime"] < 11  # seconds


def test_an_unknown_contrast_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown phantom contrast: got 'DWI'"):
        Protocol.draw(np.random.default_rng(0), "DWI")
