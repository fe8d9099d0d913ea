"""The segmenter: layouts, sizes, normalisation, and what it needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hybriduad.config.runs import Segmenter as SegmenterConfig
from hybriduad.config.strict import checked
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import BACKGROUND
from hybriduad.networks.segmenter import Segmenter, replace_batchnorm

ALL = ("image", "reconstruction", "residual")
DRAEM: dict[str, Any] = {
    "layout": "draem",
    "inputs": ["image", "reconstruction"],
    "decoder_channels": [16, 8, 8, 8],
}


def make(contrasts: int = 1, **changes: Any) -> Segmenter:
    config = checked(SegmenterConfig, {"decoder_channels": [16, 16, 16, 16, 16], **changes}, "tests")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return Segmenter(config, contrasts)


def slices(count: int, contrasts: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, contrasts, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize("layout", ["siamese", "stacked"])
@pytest.mark.parametrize(("contrasts", "height", "width"), [(1, 32, 32), (3, 40, 52), (2, 33, 96)])
def test_logits_have_the_size_of_the_slice(layout: str, contrasts: int, height: int, width: int) -> None:
    model = make(contrasts, layout=layout, inputs=ALL).eval()
    image, reconstruction = slices(2, contrasts, height, width), slices(2, contrasts, height, width, seed=1)
    with torch.inference_mode():
        assert model(image, reconstruction).shape == (2, height, width)


@pytest.mark.parametrize("layout", ["siamese", "stacked"])
def test_a_size_that_is_no_multiple_of_32_is_seen_with_more_background(layout: str) -> None:
    model = make(layout=layout, inputs=ALL).eval()
    image, reconstruction = slices(1, 1, 40, 52), slices(1, 1, 40, 52, seed=1)
    larger = [torch.full((1, 1, 64, 64), BACKGROUND) for _ in range(2)]
    for whole, part in zip(larger, (image, reconstruction), strict=True):
        whole[..., :40, :52] = part
    with torch.inference_mode():
        expected = model(*larger)[:, :40, :52]
        torch.testing.assert_close(model(image, reconstruction), expected, atol=1e-5, rtol=0)


def test_one_encoder_serves_every_input_of_a_siamese_network() -> None:
    single, double, triple = (make(layout="siamese", inputs=ALL[:n]) for n in (1, 2, 3))
    assert count(single.encoder) == count(double.encoder) == count(triple.encoder)
    assert count(single.decoder) < count(double.decoder) < count(triple.decoder)
    assert make(2, layout="stacked", inputs=ALL).encoder.conv1.in_channels == 6
    assert make(2, layout="siamese", inputs=ALL).encoder.conv1.in_channels == 2


def test_the_paper_network_has_about_its_size() -> None:
    """16.7 million in the paper."""
    with torch.device("meta"):
        model = Segmenter(SegmenterConfig(), 1)
    assert 14e6 < count(model) < 20e6


@pytest.mark.parametrize("layout", ["siamese", "stacked"])
def test_the_residual_is_that_of_image_and_reconstruction(layout: str) -> None:
    residual = make(layout=layout, inputs=["residual"]).eval()
    as_image = make(layout=layout, inputs=["image"]).eval()
    image, reconstruction = slices(2, 1, 32, 32), slices(2, 1, 32, 32, seed=1)
    with torch.inference_mode():
        torch.testing.assert_close(residual(image, reconstruction), as_image(image - reconstruction), atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "tu-test_byobnet"])
def test_no_batchnorm_so_the_mode_and_the_batch_change_nothing(encoder: str) -> None:
    """Published mistakes: statistics that drift in train mode, and that fit neither of a siamese encoder's inputs."""
    model = make(encoder=encoder, layout="siamese")
    assert any(isinstance(part, torch.nn.GroupNorm) for part in model.modules())
    assert not any(isinstance(part, torch.nn.modules.batchnorm._NormBase) for part in model.modules())
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    image, reconstruction = slices(4, 1, 32, 32), slices(4, 1, 32, 32, seed=1)
    with torch.no_grad():
        together = model.eval()(image, reconstruction)
        torch.testing.assert_close(model.train()(image, reconstruction), together, atol=0, rtol=0)
        for row in range(4):
            alone = model(image[row : row + 1], reconstruction[row : row + 1])
            torch.testing.assert_close(alone[0], together[row], atol=1e-4, rtol=0)


def test_replacing_batchnorm_keeps_the_number_of_channels() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(12), torch.nn.Sequential(torch.nn.BatchNorm3d(7)))
    replace_batchnorm(module)
    assert (module[0].num_groups, module[0].num_channels) == (6, 12)
    assert (module[1][0].num_groups, module[1][0].num_channels) == (7, 7)


@pytest.mark.parametrize("layout", ["siamese", "stacked"])
def test_every_weight_learns(layout: str) -> None:
    model = make(2, layout=layout)
    model(slices(2, 2, 32, 32), slices(2, 2, 32, 32, seed=1)).square().mean().backward()
    unused = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not unused
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())
    first = next(iter(model.parameters()))
    assert float(first.grad.abs().max()) > 0


def test_what_needs_a_reconstruction_says_so() -> None:
    model = make()
    assert model.needs_reconstruction
    with pytest.raises(ConfigError, match=r"without a reconstruction.*residual"):
        model(slices(1, 1, 32, 32))
    assert not make(inputs=["image"]).needs_reconstruction


def test_a_norm_that_holds_its_activation_keeps_it() -> None:
    from timm.layers import BatchNormAct2d

    module = torch.nn.Sequential(BatchNormAct2d(16, act_layer=torch.nn.ReLU))
    replace_batchnorm(module)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules())
    assert float(module(slices(2, 16, 8, 8)).detach().min()) == 0


class TestDraem:
    """A stacked network that makes its reconstruction itself."""

    @pytest.mark.parametrize(("contrasts", "height", "width"), [(1, 32, 32), (2, 40, 52)])
    def test_it_needs_the_image_alone(self, contrasts: int, height: int, width: int) -> None:
        model = make(contrasts, **DRAEM).eval()
        image = slices(2, contrasts, height, width)
        assert not model.needs_reconstruction
        with torch.inference_mode():
            restored = model.restored(image)
            assert restored.shape == image.shape
            logits = model(image)
            assert logits.shape == (2, height, width)
            assert torch.equal(model(image, restored), logits)
            assert not torch.equal(model(image, restored + 0.5), logits)

    def test_every_weight_learns_from_the_outline_alone(self) -> None:
        model = make(2, **DRAEM, encoder="tu-resnet18")
        model(slices(2, 2, 32, 32)).square().mean().backward()
        assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
        assert float(next(model.restorer.parameters()).grad.abs().max()) > 0
        assert not any(isinstance(part, torch.nn.modules.batchnorm._NormBase) for part in model.modules())

    def test_nothing_passes_the_restorer_but_its_coarsest_level(self) -> None:
        """With skip connections it could copy the anomaly."""
        model = make(**DRAEM).eval()
        code = {}
        model.restorer.encoder.register_forward_hook(lambda _, __, levels: code.update(levels=levels))
        with torch.inference_mode():
            restored = model.restored(slices(1, 1, 32, 32))
            levels = [torch.rand_like(level) for level in code["levels"][:-1]]
            again = model.restorer.head(
                model.restorer.decoder([*(level[:, :0] for level in levels), code["levels"][-1]])
            )
        assert code["levels"][-1].shape[-2:] == (2, 2)
        torch.testing.assert_close(again, restored)

    def test_the_other_layouts_have_no_restorer(self) -> None:
        for layout in ("siamese", "stacked"):
            assert {name.partition(".")[0] for name in make(layout=layout).state_dict()} == {
                "encoder",
                "decoder",
                "head",
            }

    def test_other_inputs_are_refused(self) -> None:
        for inputs in (["image"], ["image", "residual"]):
            with pytest.raises(ConfigError, match=r"\[image, reconstruction\] for the layout draem"):
                make(layout="draem", inputs=inputs)


def test_bad_configurations() -> None:
    for name in ("resnet17", "tu-nonsense"):
        with pytest.raises(ConfigError, match=f"unusable encoder.*{name}"):
            make(encoder=name)
    with pytest.raises(ConfigError, match="without repeats"):
        make(inputs=["image", "image"])
    with pytest.raises(ConfigError, match="inputs"):
        make(inputs=[])


def test_no_weights_are_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    make()
