"""The frozen extractor, and the distances between features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import generators
from torchvision.models import resnet18

from hybriduad.config import files as configs
from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError
from hybriduad.reconstructors._features import CHANNELS, Extractor, distance_map, mean_distance
from hybriduad.reconstructors.fae import similarity


def slices(count: int = 2, contrasts: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, contrasts, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor()


def test_random_weights_are_the_same_in_every_training(extractor: Extractor) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)
        before = generators()
        other = Extractor()
        assert generators() == before
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in extractor.state_dict().items())


def test_it_stays_frozen_and_in_evaluation_mode_whatever_is_said(extractor: Extractor) -> None:
    """Published mistake: a frozen network left in train mode, whose BatchNorm statistics drift."""
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    holder = torch.nn.Sequential(extractor).train()
    assert not any(part.training for part in extractor.modules())
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in extractor.modules())
    with torch.no_grad():
        first, again = holder(slices()), holder(slices())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())
    assert not any(weight.requires_grad for weight in extractor.parameters())


def test_every_contrast_passes_by_itself(extractor: Extractor) -> None:
    image = slices()
    with torch.inference_mode():
        levels = extractor(image)
        second = extractor(image[:, 1:])
    assert [tuple(level.shape) for level in levels] == [
        (2, 2 * channels, side, side) for channels, side in zip(CHANNELS, (16, 8, 4), strict=True)
    ]
    for both, alone, channels in zip(levels, second, CHANNELS, strict=True):
        torch.testing.assert_close(both[:, channels:], alone, atol=1e-4, rtol=1e-4)
        assert float(both.min()) >= 0


def test_random_features_tell_brightness_apart(extractor: Extractor) -> None:
    """Without statistics of its own a random network only scales its features: the angle between them says nothing."""
    with torch.inference_mode():
        dark, bright = (extractor(torch.full((1, 1, 32, 32), value))[0].mean(dim=(2, 3)) for value in (-0.5, 0.5))
    assert float(torch.cosine_similarity(dark, bright)) < 0.8


class TestWeights:
    @pytest.fixture(scope="class")
    def network(self) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return resnet18(weights=None).eval()

    def test_of_a_file_are_taken(self, network: torch.nn.Module, tmp_path: Path) -> None:
        save_file(network.state_dict(), tmp_path / "weights.safetensors")
        loaded = Extractor()
        loaded.load(tmp_path / "weights.safetensors")
        grey = (slices(contrasts=1) + 1) / 2
        normalised = (grey - loaded.mean) / loaded.deviation
        with torch.inference_mode():
            stem = network.bn1(network.conv1(normalised)).relu()
            second = network.layer2(network.layer1(network.maxpool(stem)))
            levels = loaded(slices(contrasts=1))
        torch.testing.assert_close(levels[0], stem, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(levels[2], second, atol=1e-4, rtol=1e-4)

    def test_are_loaded_strictly(self, network: torch.nn.Module, tmp_path: Path) -> None:
        state = network.state_dict()
        without = {name: value for name, value in state.items() if name != "layer4.1.bn2.bias"}
        for name, content in {"short": without, "long": state | {"extra": torch.zeros(1)}}.items():
            save_file(content, tmp_path / f"{name}.safetensors")
        (tmp_path / "text.safetensors").write_text("no weights")
        for name in ("short", "long", "text", "nothing"):
            with pytest.raises(ConfigError, match=rf"unusable weights of the extractor in .*{name}"):
                Extractor().load(tmp_path / f"{name}.safetensors")

    def test_are_never_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a download was tried")

        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
        monkeypatch.setattr("socket.socket.connect", refuse)
        Extractor()


def test_similarity_is_ssim_over_windows_of_five_cells() -> None:
    a, b = (slices(1, 1, seed=seed).abs() for seed in (1, 2))
    x, y = (values[0, 0, 10:15, 20:25].double().numpy() for values in (a, b))
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    luminance = (2 * x.mean() * y.mean() + 1e-4) / (x.mean() ** 2 + y.mean() ** 2 + 1e-4)
    expected = luminance * (2 * covariance + 9e-4) / (x.var() + y.var() + 9e-4)
    assert float(similarity(a, b)[0, 0, 12, 22]) == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(similarity(a, a), torch.ones_like(a), atol=1e-4, rtol=0)


def test_distances_count_where_a_contrast_covers_the_slice() -> None:
    distance = torch.stack([torch.full((1, 8, 8), 0.2), torch.full((1, 8, 8), 1.4)], dim=1)
    valid = torch.ones(1, 2, 8, 8, dtype=torch.bool)
    valid[:, 1, :4] = False
    brain = torch.ones(1, 8, 8, dtype=torch.bool)
    brain[:, :, 0] = False
    values = distance_map(distance, valid, brain)
    np.testing.assert_allclose(values[0, :4, 1:], 0.2, rtol=1e-6)
    np.testing.assert_allclose(values[0, 4:, 1:], 0.6, rtol=1e-6)  # the mean of 0.2 and 1, where 1.4 is clipped
    assert not values[..., 0].any()
    assert float(mean_distance(distance, valid)) == pytest.approx((64 * 0.2 + 32 * 1.4) / 96)


@pytest.mark.parametrize(("name", "millions"), [("fae", 1.75), ("rd", 1.13)])
def test_the_shipped_configs_are_small_and_have_random_extractors(name: str, millions: float) -> None:
    run = configs.load(name, kind="reconstructor")
    with torch.device("meta"):
        model = plugins.load("reconstructors", name).Model(run.model, 1, run.anatomy.size)
    assert sum(weight.numel() for weight in model.parameters_of("model")) / 1e6 == pytest.approx(millions, abs=0.05)
    assert model.pretrained is None
