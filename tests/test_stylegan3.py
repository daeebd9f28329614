# SPDX-License-Identifier: BSD-3-Clause
"""StyleGAN3's generator: its plan, its input, what moves with it, and its state in training.

``tests/fixtures/checkpoints/layers.json`` was recorded from the original's networks
(scripts/checkpoint_fixtures.py). Outputs beside the original's are in ``test_checkpoints.py``.
"""

import json
import math
from pathlib import Path

import pytest
import torch

from examples.stylegan import describe
from examples.stylegan.alias_free import (
    LAYERS,
    AliasFreeGenerator,
    FilteredConv,
    layer_channels,
    plan_layers,
)
from examples.stylegan.generator import Generator
from examples.stylegan.inputs import FourierInput
from examples.stylegan.styles import half_sides

RECORDED = json.loads(
    (Path(__file__).parent / "fixtures" / "checkpoints" / "layers.json").read_text()
)
CASES = [(kind, side) for kind in ("t", "r") for side in (256, 512, 1024)]
# Our numbers, by the original's names of the same
EXACT = {
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "conv_kernel": "kernel_size",
    "in_sampling_rate": "in_sampling_rate",
    "out_sampling_rate": "out_sampling_rate",
    "up_factor": "up",
    "down_factor": "down",
    "up_taps": "up_taps",
    "down_taps": "down_taps",
    "is_critically_sampled": "critical",
    "is_torgb": "to_rgb",
}
BANDS = ("in_cutoff", "out_cutoff", "in_half_width", "out_half_width")


def small(kind="t", **options):
    return AliasFreeGenerator(16, 6, 1, kind=kind, channels=[4] * LAYERS, **options).eval()


# The plan


@pytest.mark.parametrize(("kind", "resolution"), CASES)
def test_every_number_of_a_layer_equals_the_originals(kind, resolution):
    recorded = RECORDED[f"stylegan3-{kind}"][str(resolution)]["layers"]
    plans = plan_layers(resolution, kind, layer_channels(resolution, kind))
    assert len(plans) == len(recorded) == 15
    for n, (plan, (name, theirs)) in enumerate(zip(plans, recorded.items(), strict=True)):
        ours = plan._asdict()
        assert name == f"L{n}_{plan.out_size}_{plan.out_channels}"
        assert {key: ours[own] for key, own in EXACT.items()} == {key: theirs[key] for key in EXACT}
        for key in BANDS:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-12), (name, key)
        assert theirs["in_size"] == [plan.in_size] * 2
        assert theirs["out_size"] == [plan.out_size] * 2
        assert theirs["padding"] == [*plan.pad, *plan.pad]
        assert plan.radial == (theirs["down_radial"] and theirs["down_taps"] > 1)
        assert (plan.out_sampling_rate in half_sides(resolution)) == theirs["use_fp16"]


@pytest.mark.parametrize(("kind", "resolution"), CASES)
def test_the_number_of_parameters_equals_the_originals(kind, resolution):
    with torch.device("meta"):
        generator = AliasFreeGenerator(resolution, kind=kind)
    count = sum(parameter.numel() for parameter in generator.parameters())
    assert count == RECORDED[f"stylegan3-{kind}"][str(resolution)]["parameters"]


@pytest.mark.parametrize(("kind", "millions"), [("t", 23.320), ("r", 15.780)])
def test_half_of_the_channels_at_256_pixels_have_the_published_parameters(kind, millions):
    with torch.device("meta"):
        channels = layer_channels(256, kind, channel_multiplier=1.0)
        generator = AliasFreeGenerator(256, kind=kind, channels=channels)
    count = sum(parameter.numel() for parameter in generator.parameters())
    assert round(count / 1e6, 3) == millions


def test_describe_prints_a_line_for_each_layer(capsys):
    assert describe.main(["--config", "stylegan3-r-256"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Fourier features of 1024 channels, 36 pixels, rate 16, up to 2 ")
    assert [line.split()[0] for line in lines[2:-1]] == [*(f"L{n}" for n in range(14)), "to-RGB"]
    last = (
        "to-RGB 256 -> 3 256 -> 256 256 -> 256 128.000 -> 128.000 29.586 -> 29.586 1 1 1 1 1 0, 0"
    )
    assert " ".join(lines[-2].split()) == last
    assert lines[4].split()[-4:] == ["2", "12x12", "11,", "10"]
    assert lines[-1] == "18,816,387 parameters with the mapping network"


@pytest.mark.parametrize("config", ["stylegan2-t-256", "stylegan3-x-256", "stylegan3-t-100"])
def test_describe_says_what_is_no_config(config, capsys):
    with pytest.raises(SystemExit):
        describe.main(["--config", config])
    said = capsys.readouterr().err
    assert "must be" in said
    assert (config if config[-1] == "6" else "100") in said


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: AliasFreeGenerator(12), "resolution must be a power of two >= 8, got 12"),
        (lambda: AliasFreeGenerator(16, kind="x"), "kind must be 't' or 'r', got 'x'"),
        (
            lambda: AliasFreeGenerator(16, channels=[4] * 13),
            "channels must be 14 numbers >= 1, one for each layer, got",
        ),
        (lambda: layer_channels(16, "t", math.inf), "channel_multiplier must be finite, got inf"),
        (lambda: layer_channels(1024, "t", 1e-4), "must leave a channel in every layer, got"),
        (lambda: Generator(8, input="image"), "input must be 'constant' or 'fourier', got 'image'"),
        (
            lambda: small().synthesis(torch.zeros(1, 16, 6), [torch.zeros(1)]),
            "noise must hold one image for each of 0 layers, got 1",
        ),
    ],
)
def test_errors_name_what_is_wrong(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


# The input


def test_frequencies_are_spread_evenly_over_the_disc():
    torch.manual_seed(0)
    source = FourierInput(4000, 4, 16, 2.0)
    radii = source.frequencies.norm(dim=1)
    assert radii.max() <= 2
    for share in (0.25, 0.5, 0.75):  # of the disc's area
        assert (radii < 2 * math.sqrt(share)).float().mean() == pytest.approx(share, abs=0.03)
    assert source.frequencies.mean(0).abs().max() < 0.06
    assert source.phases.min() >= -0.5
    assert source.phases.max() < 0.5


def test_the_input_is_the_sum_of_waves_that_the_formula_gives():
    torch.manual_seed(1)
    source = FourierInput(3, 5, 4.0, 1.5, style_dim=2).double()
    with torch.no_grad():
        source.affine.weight.normal_()
        source.affine.bias.copy_(torch.tensor([0.8, -0.5, 0.1, 0.2]))
        source.transform.copy_(torch.tensor([[1.1, 0.4, 0.3], [-0.2, 0.9, -0.6], [0, 0, 1]]))
    style = torch.randn(2, 2, dtype=torch.float64)
    out = source(style)
    assert out.shape == (2, 3, 5, 5)
    for n in range(2):
        c, s, right, down = (v.item() for v in source.affine(style)[n])
        norm = math.hypot(c, s)
        c, s, right, down = c / norm, s / norm, right / norm, down / norm
        rotation = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
        shift = torch.eye(3, dtype=torch.float64)
        shift[0, 2], shift[1, 2] = -right, -down
        matrix = rotation @ shift @ source.transform
        for row, column in ((0, 0), (1, 4), (3, 2)):
            pixel = [(column - 2) / 4, (row - 2) / 4, 1]
            x, y, _ = (matrix @ torch.tensor(pixel, dtype=torch.float64)).tolist()
            waves = []
            for (fx, fy), phase in zip(
                source.frequencies.tolist(), source.phases.tolist(), strict=True
            ):
                moved = torch.tensor([fx, fy], dtype=torch.float64) @ matrix[:2, :2]
                fade = min(max(1 - (moved.norm().item() - 1.5) / (4 / 2 - 1.5), 0), 1)
                waves.append(fade * math.sin(2 * math.pi * (fx * x + fy * y + phase)))
            wanted = source.weight @ torch.tensor(waves, dtype=torch.float64) / math.sqrt(3)
            torch.testing.assert_close(out[n, :, row, column], wanted)


def test_the_input_of_a_fresh_network_does_not_depend_on_the_style():
    source = FourierInput(3, 6, 4.0, 1.5, style_dim=2)
    a, b = source(torch.randn(2, 2))
    torch.testing.assert_close(a, b)


WIDTHS = {4: 8, 8: 8, 16: 8}


def with_features():
    return Generator(16, 6, 1, channels=WIDTHS, input="fourier").eval()


@pytest.mark.parametrize("make", [small, with_features])
def test_the_transform_moves_the_image(make):
    """By a quarter of the width to the right; StyleGAN2's borders let it move less well."""
    torch.manual_seed(0)
    generator = make()
    w, shifted = generator.repeat(torch.randn(2, 6)), torch.eye(3)
    shifted[0, 2] = -0.25
    with torch.no_grad():
        before = generator.synthesis(w, generator.fixed_noise())
        generator.input.transform.copy_(shifted)
        after = generator.synthesis(w, generator.fixed_noise())
    middle = after[..., 4:12, 6:12]
    error = (middle - before[..., 4:12, 2:8]).square().mean() / middle.var()
    assert error < (1e-3 if isinstance(generator, AliasFreeGenerator) else 0.6)
    assert (middle - before[..., 4:12, 6:12]).square().mean() > 2 * error * middle.var()


def test_stylegan2s_fourier_features_have_no_transform_of_their_own():
    generator = with_features()
    assert generator.input.affine is None
    assert generator.input(torch.zeros(3, 6)).shape == (3, 8, 4, 4)
    generator.input.transform[0, 0] = 2.0  # shrinks, so that fast waves would alias
    with torch.no_grad():
        generator.input.weight.copy_(torch.eye(8) * math.sqrt(8))
        waves = generator.input(torch.zeros(1, 6))
    fast = (generator.input.frequencies * torch.tensor([2.0, 1.0])).norm(dim=1) > 2
    assert fast.any()
    assert not fast.all()
    assert not waves[0, fast].any()
    assert waves[0, ~fast].flatten(1).any(1).all()


# Layers


@pytest.mark.parametrize("kind", ["t", "r"])
def test_shapes_styles_and_noise(kind):
    generator = small(kind, image_channels=1)
    assert generator.num_styles == 16
    assert generator.fixed_noise() == list(generator.fresh_noise(3)) == []
    z = torch.randn(3, 6)
    images = generator(z)
    assert images.shape == (3, 1, 16, 16)
    w = generator.mapping(z)
    torch.testing.assert_close(generator.synthesis(generator.mix(w, w.flip(0), 16), []), images)
    # Each style has a layer that it changes
    styles = generator.repeat(w)
    with torch.no_grad():
        generator.input.affine.weight.normal_()
        images = generator.synthesis(styles)
        for n in range(16):
            other = styles.clone()
            other[:, n] = torch.randn(3, 6)
            assert not torch.allclose(generator.synthesis(other), images, atol=1e-4), n


def test_the_batch_does_not_change_a_sample():
    generator, z = small(), torch.randn(3, 6)
    torch.testing.assert_close(generator(z)[1:2], generator(z[1:2]), rtol=1e-4, atol=1e-5)


def test_the_magnitude_is_averaged_in_training_alone():
    torch.manual_seed(0)
    plan = plan_layers(16, "t", [4] * LAYERS)[0]
    layer = FilteredConv(plan, 6)
    x, style = 3 * torch.randn(2, 4, 36, 36), torch.randn(2, 6)
    wanted = 0.75 + 0.25 * x.square().mean()
    layer.eval()
    layer(x, style)
    assert layer.magnitude == 1
    layer.train().magnitude_decay = 0.75
    first = layer(x, style)
    torch.testing.assert_close(layer.magnitude, wanted)
    # The layer's input is divided by the new average's root; the leaky ReLU scales with it
    layer.eval().magnitude.fill_(1.0)
    torch.testing.assert_close(first * wanted.sqrt(), layer(x, style), rtol=1e-4, atol=1e-4)


def test_the_decay_of_all_layers_is_set_at_once():
    generator = small().train()
    generator.set_magnitude_decay(0.0)
    generator(torch.randn(4, 6))
    magnitudes = [layer.magnitude for layer in (*generator.layers, generator.to_rgb)]
    assert all(magnitude != 1 for magnitude in magnitudes)
    assert {key for key in generator.state_dict() if key.endswith("magnitude")} == {
        *(f"layers.{n}.magnitude" for n in range(LAYERS)),
        "to_rgb.magnitude",
    }


def test_training_mode_has_gradients_of_every_parameter():
    generator = small("r").train()
    generator(torch.randn(2, 6)).square().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("kind", ["t", "r"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(kind, dtype):
    """Styles of 1000 would overflow float16 without a scaling."""
    torch.manual_seed(0)
    generator = small(kind, clamp=256.0)
    styles = generator.repeat(torch.randn(2, 6) * 1000)
    with torch.no_grad():
        whole, half = generator.synthesis(styles), generator.synthesis(styles, dtype=dtype)
    assert half.dtype == torch.float32
    error = (half - whole).abs().max() / whole.abs().max()
    assert 0 < error < (0.1 if dtype == torch.bfloat16 else 0.02)
