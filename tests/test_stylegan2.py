# SPDX-License-Identifier: BSD-3-Clause
"""The StyleGAN2 of the examples: blocks against their definitions, and whole runs in small."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from examples.stylegan import blocks, data, evaluate, losses
from examples.stylegan.discriminator import Discriminator
from examples.stylegan.generator import Generator, channel_table
from examples.stylegan.order import Order
from examples.stylegan.training import channels_last

CHANNELS = {4: 8, 8: 6, 16: 5, 32: 4, 64: 3}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread, and for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_generator(resolution=16, **options):
    return Generator(resolution, style_dim=6, mapping_layers=2, channels=CHANNELS, **options)


def is_reached(parameter):
    return parameter.grad is not None and bool(parameter.grad.abs().max() > 0)


# Blocks


def test_equal_linear_stores_unit_variance_and_gives_unit_variance():
    for lr_multiplier in (1.0, 0.01):
        layer = blocks.EqualLinear(512, 256, bias_init=3.0, lr_multiplier=lr_multiplier)
        out = layer(torch.randn(64, 512))
        assert layer.weight.std().item() * lr_multiplier == pytest.approx(1.0, rel=0.02)
        assert out.mean().item() == pytest.approx(3.0, abs=0.05)
        assert out.std().item() == pytest.approx(1.0, rel=0.05)


def test_lr_multiplier_slows_a_layer_down():
    def moved(lr_multiplier):
        torch.manual_seed(0)
        layer = blocks.EqualLinear(8, 8, lr_multiplier=lr_multiplier)
        x = torch.randn(4, 8)
        before = layer(x).detach()
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
        layer(x).square().sum().backward()
        optimizer.step()
        return (layer(x) - before).norm().item()

    assert moved(0.01) == pytest.approx(0.01 * moved(1.0), rel=0.01)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("resample", [None, "up", "down"])
def test_modulated_convolution_is_each_sample_with_its_own_weights(resample, demodulate):
    conv = blocks.ModulatedConv2d(5, 7, 3, 4, demodulate, resample).double()
    x, style = torch.randn(3, 5, 8, 6).double(), torch.randn(3, 4).double()
    expected = []
    for i in range(3):
        factors = style[i] @ conv.modulation.weight.T / 2 + conv.modulation.bias  # 2: sqrt(4)
        weight = conv.weight[0] / math.sqrt(5 * 9) * factors[None, :, None, None]
        if demodulate:
            weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        if resample == "up":
            out = conv.blur(F.conv_transpose2d(x[i : i + 1], weight.transpose(0, 1), stride=2))
        elif resample == "down":
            out = F.conv2d(conv.blur(x[i : i + 1]), weight, stride=2)
        else:
            out = F.conv2d(x[i : i + 1], weight, padding=1)
        expected.append(out)
    out = conv(x, style)
    assert out.shape == (3, 7, *{None: (8, 6), "up": (16, 12), "down": (4, 3)}[resample])
    torch.testing.assert_close(out, torch.cat(expected), rtol=1e-6, atol=1e-6)


def test_demodulation_gives_unit_variance_whatever_the_style():
    conv = blocks.ModulatedConv2d(64, 64, 3, 8)
    out = conv(
        torch.randn(4, 64, 32, 32), torch.randn(4, 8) * torch.tensor([[0.1], [1], [10], [100]])
    )
    inside = out[:, :, 1:-1, 1:-1]  # the border sees zeros
    torch.testing.assert_close(inside.var((1, 2, 3)), torch.ones(4), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kernel_size": 2}, "kernel_size must be odd, got 2"),
        ({"kernel_size": 3, "resample": "left"}, "resample must be 'up', 'down' or None"),
    ],
)
def test_modulated_convolution_refuses(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        blocks.ModulatedConv2d(1, 1, style_dim=1, **options)


@pytest.mark.parametrize("upsample", [False, True])
def test_fresh_noise_is_one_image_for_all_channels_and_one_for_each_sample(upsample):
    layer = blocks.StyledConv(3, 3, 4, upsample=upsample)
    x, style = torch.randn(1, 3, 4, 5).expand(2, -1, -1, -1), torch.zeros(2, 4)
    layer.activate.scale, layer.activate.negative_slope = 1.0, 1.0
    quiet = layer(x, style)
    assert torch.equal(quiet, layer(x, style))
    torch.nn.init.constant_(layer.noise.weight, 0.5)
    added = layer(x, style) - quiet
    torch.testing.assert_close(added[:, :1].expand(-1, 3, -1, -1), added, atol=1e-5, rtol=0)
    assert 0.3 < added.std() < 0.7
    assert not torch.allclose(added[0], added[1])


@pytest.mark.parametrize("upsample", [False, True])
def test_styled_convolution_adds_noise_before_bias_and_activation(upsample):
    layer = blocks.StyledConv(5, 7, 4, upsample=upsample)
    torch.nn.init.normal_(layer.activate.bias)
    torch.nn.init.constant_(layer.noise.weight, 0.3)
    x, style = torch.randn(2, 5, 4, 4), torch.randn(2, 4)
    noise = torch.randn(1, 1, *layer.conv(x, style).shape[2:])
    before = layer.conv(x, style) + 0.3 * noise + layer.activate.bias[None, :, None, None]
    expected = torch.where(before > 0, before, 0.2 * before) * math.sqrt(2)
    torch.testing.assert_close(layer(x, style, noise), expected)


def test_to_rgb_adds_to_the_upsampled_skip():
    layer = blocks.ToRGB(5, 3, 4)
    torch.nn.init.normal_(layer.bias)
    x, style, skip = torch.randn(2, 5, 8, 8), torch.randn(2, 4), torch.randn(2, 3, 4, 4)
    weight = layer.conv.weight[0, :, :, 0, 0] / math.sqrt(5)  # not demodulated
    modulated = x * layer.conv.modulation(style)[:, :, None, None]
    alone = torch.einsum("oi,nihw->nohw", weight, modulated) + layer.bias
    torch.testing.assert_close(layer(x, style), alone)
    torch.testing.assert_close(layer(x, style, skip), alone + layer.upsample(skip))


def test_residual_block_keeps_variance_and_decimates_its_skip_like_a_strided_convolution():
    block = blocks.ResBlock(5, 7)
    x = torch.randn(2, 5, 8, 6)
    strided = blocks.UpFirDnSmooth((1, 3, 3, 1), downsample_factor=2, kernel_size=1)
    skip = F.conv2d(strided(x), block.skip[-1].weight / math.sqrt(5), stride=2)
    smooth, conv, activate = block.conv2
    torch.nn.init.normal_(activate.bias)
    before = conv(smooth(block.conv1(x))) + activate.bias[None, :, None, None]
    expected = (F.leaky_relu(before, 0.2) * math.sqrt(2) + skip) / math.sqrt(2)
    assert expected.shape == (2, 7, 4, 3)
    torch.testing.assert_close(block(x), expected)


def test_a_residual_block_clamps_before_its_division():
    block = blocks.ResBlock(5, 7, clamp=0.25)
    x = torch.randn(2, 5, 8, 6)
    block.conv2[1].weight.data *= 20
    inside = block(x) - block.skip(x)
    assert inside.abs().max().item() == pytest.approx(0.25 / math.sqrt(2))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("demodulate", [True, False])
def test_a_1x1_convolution_scales_its_weights_and_computes_the_same(demodulate, layout):
    conv = blocks.ModulatedConv2d(5, 3, 1, 4, demodulate)
    x, style = torch.randn(2, 5, 8, 6).contiguous(memory_format=layout), torch.randn(2, 4)
    factors = conv.modulation(style) / math.sqrt(5)
    expected = F.conv2d(x * factors[:, :, None, None], conv.weight[0])
    if demodulate:
        energy = (conv.weight * factors[:, None, :, None, None]).square().sum((2, 3, 4))
        expected = expected / energy.sqrt()[:, :, None, None]
    torch.testing.assert_close(conv(x, style), expected)


@pytest.mark.parametrize(("n", "size"), [(8, 4), (4, 4), (6, 3), (2, 2), (1, 1), (7, 1)])
def test_minibatch_stddev_is_the_plain_loop(n, size):
    x = torch.randn(n, 3, 2, 5)
    out = blocks.MinibatchStdDev(group_size=4)(x)
    assert torch.equal(out[:, :3], x)
    groups = n // size
    for i in range(n):
        members = [x[j].numpy() for j in range(n) if j % groups == i % groups]
        assert len(members) == size
        expected = np.sqrt(np.var(members, axis=0) + 1e-8).mean()
        np.testing.assert_allclose(out[i, 3].numpy(), np.full((2, 5), expected), rtol=1e-5)


# Networks


@pytest.mark.parametrize(("resolution", "image_channels"), [(8, 1), (16, 3), (64, 3)])
def test_shapes(resolution, image_channels):
    generator = tiny_generator(resolution, image_channels=image_channels)
    discriminator = Discriminator(resolution, image_channels, CHANNELS)
    images = generator(torch.randn(4, 6))
    assert images.shape == (4, image_channels, resolution, resolution)
    assert discriminator(images).shape == (4, 1)
    assert generator.num_styles == 2 * int(math.log2(resolution)) - 2
    sides = [noise.shape[-1] for noise in generator.fixed_noise()]
    assert sides == [4, 8, 8, 16, 16, 32, 32, 64, 64][: 2 * int(math.log2(resolution)) - 3]


def test_mapping_normalises_then_alternates_linear_and_leaky_relu():
    generator, z = tiny_generator(8), torch.randn(3, 6)
    w = z / z.square().mean(1, keepdim=True).sqrt()
    for layer in generator.style[1:]:
        w = w @ layer.weight.T / math.sqrt(6) * 0.01 + layer.bias * 0.01
        w = torch.where(w > 0, w, 0.2 * w) * math.sqrt(2)
    torch.testing.assert_close(generator.mapping(z), w)


def test_discriminator_ends_in_statistics_convolution_and_two_linear_layers():
    discriminator, images = Discriminator(8, channels=CHANNELS), torch.randn(4, 3, 8, 8)
    x = discriminator.convs(images)
    x = torch.cat((x, (x.var(0, correction=0) + 1e-8).sqrt().mean().expand(4, 1, 4, 4)), 1)
    x = F.conv2d(x, discriminator.final_conv[0].weight / 9, padding=1)  # 9: sqrt(9 * 3 * 3)
    x = F.leaky_relu(x, 0.2) * math.sqrt(2)
    x = x.flatten(1) @ discriminator.final_linear[0].weight.T / math.sqrt(8 * 16)
    x = F.leaky_relu(x, 0.2) * math.sqrt(2)
    x = x @ discriminator.final_linear[1].weight.T / math.sqrt(8)
    torch.testing.assert_close(discriminator(images), x)


def test_taps_reach_every_resampling_layer():
    networks = (
        tiny_generator(resample_kernel=(1, 2, 1)),
        Discriminator(16, channels=CHANNELS, resample_kernel=(1, 2, 1)),
    )
    taps = [m.taps for network in networks for m in network.modules() if hasattr(m, "taps")]
    assert taps == [(0.25, 0.5, 0.25)] * 8  # two for each doubling and each halving


def test_gradients_reach_every_parameter():
    generator, discriminator = tiny_generator(), Discriminator(16, channels=CHANNELS)
    discriminator(generator(torch.randn(4, 6))).sum().backward()
    for module in (generator, discriminator):
        for name, parameter in module.named_parameters():
            assert is_reached(parameter), name


def test_penalties_reach_the_parameters_through_the_layers():
    """Double backward: what the penalties teach is a derivative of a derivative."""
    generator, discriminator = tiny_generator(), Discriminator(16, channels=CHANNELS)
    real = torch.randn(4, 3, 16, 16, requires_grad=True)
    losses.r1_penalty(discriminator(real), real).backward()
    for name, parameter in discriminator.named_parameters():
        if name.endswith("weight"):
            assert is_reached(parameter), name
    styles = generator.repeat(generator.mapping(torch.randn(4, 6)))
    losses.path_lengths(generator.synthesis(styles), styles).sum().backward()
    for name, parameter in generator.named_parameters():
        if "weight" in name and "noise" not in name:
            assert is_reached(parameter), name


def test_r1_gradient_equals_finite_differences():
    discriminator = Discriminator(8, 1, {4: 3, 8: 3}).double()
    real = torch.randn(2, 1, 8, 8).double().requires_grad_()
    weight = discriminator.convs[1].conv2[1].weight

    def penalty():
        return losses.r1_penalty(discriminator(real), real)

    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction, step = torch.randn_like(weight), 1e-6
    with torch.no_grad():
        weight += step * direction
    above = penalty().item()
    with torch.no_grad():
        weight -= 2 * step * direction
    slope = (above - penalty().item()) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-4)


def test_state_dict_has_the_names_and_shapes_of_rosinality():
    generator = Generator(8, style_dim=6, mapping_layers=2, channels={4: 8, 8: 5})
    discriminator = Discriminator(8, channels={4: 8, 8: 5})

    def styled(name, out, into):
        return {
            f"{name}.conv.weight": (1, out, into, 3, 3),
            f"{name}.conv.modulation.weight": (into, 6),
            f"{name}.conv.modulation.bias": (into,),
            f"{name}.noise.weight": (1,),
            f"{name}.activate.bias": (out,),
        }

    def to_rgb(name, into):
        return {
            f"{name}.conv.weight": (1, 3, into, 1, 1),
            f"{name}.conv.modulation.weight": (into, 6),
            f"{name}.conv.modulation.bias": (into,),
            f"{name}.bias": (1, 3, 1, 1),
        }

    expected = {f"style.{n}.weight": (6, 6) for n in (1, 2)}
    expected |= {f"style.{n}.bias": (6,) for n in (1, 2)}
    expected |= {"input.input": (1, 8, 4, 4), "noises.noise_0": (1, 1, 4, 4)}
    expected |= {f"noises.noise_{j}": (1, 1, 8, 8) for j in (1, 2)}
    expected |= styled("conv1", 8, 8) | styled("convs.0", 5, 8) | styled("convs.1", 5, 5)
    expected |= to_rgb("to_rgb1", 8) | to_rgb("to_rgbs.0", 5)
    assert {k: tuple(v.shape) for k, v in generator.state_dict().items()} == expected
    expected = {
        "convs.0.0.weight": (5, 3, 1, 1),
        "convs.0.1.bias": (5,),
        "convs.1.conv1.0.weight": (5, 5, 3, 3),
        "convs.1.conv1.1.bias": (5,),
        "convs.1.conv2.1.weight": (8, 5, 3, 3),
        "convs.1.conv2.2.bias": (8,),
        "convs.1.skip.1.weight": (8, 5, 1, 1),
        "final_conv.0.weight": (8, 9, 3, 3),
        "final_conv.1.bias": (8,),
        "final_linear.0.weight": (8, 128),
        "final_linear.0.bias": (8,),
        "final_linear.1.weight": (1, 8),
        "final_linear.1.bias": (1,),
    }
    assert {k: tuple(v.shape) for k, v in discriminator.state_dict().items()} == expected

    # Its filters, which it stores and we do not, are checked and accepted
    taps = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64
    theirs = generator.state_dict() | {
        "convs.0.conv.blur.kernel": 4 * taps,
        "to_rgbs.0.upsample.kernel": 4 * taps,
    }
    generator.load_state_dict(theirs)
    theirs = discriminator.state_dict() | {
        "convs.1.conv2.0.kernel": taps,
        "convs.1.skip.0.kernel": taps,
    }
    discriminator.load_state_dict(theirs)


def test_each_layer_reads_its_own_style_and_noise():
    generator = tiny_generator()
    read = {}
    for name, module in generator.named_modules():
        if isinstance(module, (blocks.StyledConv, blocks.ToRGB)):
            module.register_forward_hook(
                lambda module, args, out, name=name: read.update({name: args[1:]})
            )
    styles = torch.arange(6.0).reshape(1, 6, 1).expand(2, 6, 6)
    noise = generator.fixed_noise()
    generator.synthesis(styles, noise)
    convolutions = ["conv1", *(f"convs.{i}" for i in range(4))]
    expected = dict(zip(convolutions, range(5), strict=True))
    expected |= {"to_rgb1": 1, "to_rgbs.0": 3, "to_rgbs.1": 5}
    for name, style in expected.items():
        assert read[name][0].tolist() == [[style] * 6] * 2, name
    for name, image in zip(convolutions, noise, strict=True):
        assert read[name][1] is image, name


def test_each_style_reaches_its_own_layers_and_those_after():
    generator = tiny_generator()
    noise = generator.fixed_noise()
    seen = []
    for to_rgb in (generator.to_rgb1, *generator.to_rgbs):
        to_rgb.register_forward_hook(lambda module, args, out: seen.append(out.detach()))
    w, other = generator.mapping(torch.randn(4, 6)).chunk(2)

    def pictures(crossover):
        seen.clear()
        generator.synthesis(generator.mix(w, other, crossover), noise)
        return list(seen)

    pure = pictures(generator.num_styles)
    torch.testing.assert_close(pure[-1], generator.synthesis(generator.repeat(w), noise))
    # The first layer that reads style i feeds the picture of 4x4, 8x8 or 16x16 pixels
    for style, first in enumerate((0, 0, 1, 1, 2, 2)):
        changed = [not torch.equal(a, b) for a, b in zip(pictures(style), pure, strict=True)]
        assert changed == [i >= first for i in range(3)], style
    everything = generator.synthesis(generator.repeat(other), noise)
    torch.testing.assert_close(pictures(0)[-1], everything)


def test_mix_takes_a_crossover_for_each_sample():
    generator = tiny_generator(8)
    w, other = torch.zeros(3, 6), torch.ones(3, 6)
    styles = generator.mix(w, other, torch.tensor([0, 1, 4]))
    assert styles.shape == (3, 4, 6)
    assert styles[:, :, 0].tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]]
    assert torch.equal(generator.mix(w, other, 1)[:, :, 0], torch.tensor([[0.0, 1, 1, 1]] * 3))


def test_truncation_pulls_towards_the_mean_style():
    generator = tiny_generator(8)
    mean = generator.mean_style(4096, torch.Generator().manual_seed(1))
    w = generator.mapping(torch.randn(4096, 6)).detach()
    torch.testing.assert_close(mean, w.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(generator.truncate(w, mean, 1.0), w)
    torch.testing.assert_close(generator.truncate(w, mean, 0.0), mean.expand_as(w))
    torch.testing.assert_close(generator.truncate(w, mean, 0.5), (w + mean) / 2)


def test_fixed_noise_repeats_and_fresh_noise_does_not():
    generator, z = tiny_generator(8), torch.randn(2, 6)
    torch.nn.init.ones_(generator.convs[1].noise.weight)
    noise = generator.fixed_noise()
    assert torch.equal(generator(z, noise), generator(z, noise))
    assert not torch.equal(generator(z), generator(z))
    with pytest.raises(ValueError, match="noise must hold one image for each of 3 layers, got 2"):
        generator(z, noise[:2])


def test_channels_last_parameters_change_the_layout_and_not_the_result():
    generator, z = tiny_generator(), torch.randn(2, 6)
    before = generator(z, generator.fixed_noise())
    layouts = []
    channels_last(generator).convs[-1].register_forward_hook(
        lambda module, args, out: layouts.append(out.stride(1))
    )
    torch.testing.assert_close(generator(z, generator.fixed_noise()), before)
    assert layouts == [1]
    for layer in generator.modules():
        if isinstance(layer, blocks.ModulatedConv2d):  # no call has to copy its weights
            weight = layer.weight.squeeze(0)
            weight = weight.transpose(0, 1) if layer.resample == "up" else weight
            assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Generator(12), "resolution must be a power of two >= 8, got 12"),
        (lambda: Discriminator(4), "resolution must be a power of two >= 8, got 4"),
        (lambda: Generator(16, channels={4: 1, 8: 1}), r"from 4 to 16, got .* without \[16\]"),
        (lambda: channel_table(1024, 1 / 64), "must leave a channel at every resolution"),
    ],
)
def test_networks_refuse(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_channel_table_is_configuration_f():
    assert channel_table(1024) == {
        **{4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
    }


# Losses


def test_logistic_losses():
    real, fake = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [-3.0]])

    def minus_log_sigmoid(x):
        return -math.log(1 / (1 + math.exp(-x)))

    expected = (minus_log_sigmoid(2) + minus_log_sigmoid(-1)) / 2
    expected += (minus_log_sigmoid(-0.5) + minus_log_sigmoid(3)) / 2
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(expected)
    expected = (minus_log_sigmoid(0.5) + minus_log_sigmoid(-3)) / 2
    assert losses.generator_loss(fake).item() == pytest.approx(expected)


def test_r1_of_a_known_score():
    """score = p * |x|^2: gradient 2 p x, penalty 4 p^2 mean |x|^2, its derivative 8 p mean."""
    x = torch.randn(3, 2, 4, 5, requires_grad=True)
    p = torch.tensor(0.7, requires_grad=True)
    penalty = losses.r1_penalty(p * x.square().sum((1, 2, 3))[:, None], x)
    energy = x.detach().square().sum((1, 2, 3)).mean().item()
    assert penalty.item() == pytest.approx(4 * 0.49 * energy, rel=1e-5)
    penalty.backward()
    assert p.grad.item() == pytest.approx(8 * 0.7 * energy, rel=1e-5)


def test_path_lengths_of_a_linear_generator():
    """image = sum over layers l of A_l w_l: the derivative in w_l is A_l."""
    n, layers, dim, side = 3, 2, 4, 5
    a = torch.randn(layers, 2 * side * side, dim)
    styles, noise = torch.randn(n, layers, dim, requires_grad=True), torch.randn(n, 2, side, side)
    images = torch.einsum("lpd,nld->np", a, styles).reshape(n, 2, side, side)
    lengths = losses.path_lengths(images, styles, noise)
    for i in range(n):
        y = noise[i].flatten() / side
        norms = [(a[layer].T @ y).square().sum().item() for layer in range(layers)]
        assert lengths[i].item() == pytest.approx(math.sqrt(sum(norms) / layers), rel=1e-4)


def test_path_length_penalty_moves_its_mean_first():
    lengths = torch.tensor([1.0, 3.0], requires_grad=True)
    mean = losses.path_length_mean(torch.tensor(1.0), lengths.detach().mean(), decay=0.5)
    assert mean.item() == 1.5
    penalty = losses.path_length_penalty(lengths, mean)
    assert penalty.item() == pytest.approx((0.25 + 2.25) / 2)
    penalty.backward()
    assert lengths.grad.tolist() == [-0.5, 1.5]


# Data


def test_digits_are_upsampled_and_split():
    small, large = data.load_digits(8), data.load_digits(32)
    assert small.train.shape == (1437, 1, 8, 8)
    assert large.train.shape == (1437, 1, 32, 32)
    assert large.held_out.shape == (360, 1, 32, 32)
    assert large.train.dtype == torch.uint8
    assert torch.bincount(large.held_out_labels, minlength=10).min() > 20
    everything = torch.cat((small.train, small.held_out)).flatten(1)
    from sklearn.datasets import load_digits

    digits = load_digits()
    assert sorted(everything.sum(1).tolist()) == sorted(
        np.round(digits.data / 16 * 255 + 1e-6).sum(1).astype(int).tolist()
    )
    # What was upsampled is, averaged over 4x4 pixels, nearly what it was
    blurred = F.avg_pool2d(large.train.float(), 4)
    assert (blurred - small.train.float()).abs().mean() < 15  # 18 and more where a pixel off
    assert torch.equal(small.train_labels, large.train_labels)


def test_bytes_and_pixels_are_inverse_and_clamped():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.to_bytes(data.to_pixels(values)), values)
    assert data.to_pixels(values)[[0, 255]].tolist() == [-1.0, 1.0]
    assert data.to_bytes(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_order_shows_every_image_once_an_epoch_and_depends_on_step_alone():
    order = Order(count=7, batch=3, seed=5)
    batches = [order.batch(step) for step in range(14)]
    shown = torch.cat(batches).reshape(6, 7)
    assert (shown.sort(1).values == torch.arange(7)).all()
    assert len({tuple(epoch) for epoch in shown.tolist()}) > 1
    assert torch.equal(Order(7, 3, 5).batch(9), batches[9])
    assert not torch.equal(Order(7, 14, 6).batch(0), torch.cat(batches)[:14])


# Evaluation


def samples_with(mean, covariance, n):
    """n samples whose mean and (unbiased) covariance are exactly these."""
    x = torch.randn(n, len(mean), dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return x @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_normal_distributions_in_closed_form():
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    a = samples_with(zero, torch.diag(torch.tensor([1.0, 4.0, 9.0]).double()), 50)
    b = samples_with(2 * one, torch.diag(torch.tensor([4.0, 1.0, 16.0]).double()), 31)
    # |2, 2, 2|^2 and the squares of 1 - 2, 2 - 1, 3 - 4
    assert evaluate.frechet_distance(a, b) == pytest.approx(12 + 3, rel=1e-9)
    assert evaluate.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="a and b must hold two samples or more, got 1 and 31"):
        evaluate.frechet_distance(a[:1], b)


def test_frechet_distance_where_covariances_do_not_commute():
    linalg = pytest.importorskip("scipy.linalg")
    roots = torch.randn(2, 5, 5, dtype=torch.float64)
    first, second = (root @ root.T + torch.eye(5) for root in roots)
    zero = torch.zeros(5, dtype=torch.float64)
    a, b = samples_with(zero, first, 40), samples_with(zero, second, 40)
    expected = torch.trace(first + second) - 2 * np.trace(linalg.sqrtm((first @ second).numpy()))
    assert evaluate.frechet_distance(a, b) == pytest.approx(float(expected.real), rel=1e-8)


def test_frechet_distance_with_fewer_samples_than_dimensions():
    """A factor of the covariances is enough: embedding in more dimensions changes nothing."""
    a, b = torch.randn(6, 3).double(), torch.randn(5, 3).double() * 2
    frame = torch.linalg.qr(torch.randn(50, 3).double()).Q
    expected = evaluate.frechet_distance(a, b)
    assert evaluate.frechet_distance(a @ frame.T, b @ frame.T) == pytest.approx(expected)


def test_nearest_distance():
    a, b = torch.tensor([[0.0, 0.0], [10.0, 0.0]]), torch.tensor([[3.0, 4.0], [10.0, 1.0]])
    assert evaluate.nearest_distance(a, b) == pytest.approx((5 + 1) / 2)


def test_samples_depend_on_the_seed_alone_and_leave_random_numbers_alone():
    generator = tiny_generator(8)
    state = torch.get_rng_state()
    samples = evaluate.generate(generator, 5, seed=3, batch=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert samples.shape == (5, 3, 8, 8)
    assert samples.dtype == torch.uint8
    torch.randn(7)
    assert torch.equal(evaluate.generate(generator, 5, seed=3, batch=2), samples)
    assert not torch.equal(evaluate.generate(generator, 5, seed=4, batch=2), samples)


def test_real_digits_pass_the_evaluation_and_an_untrained_generator_does_not():
    images = data.load_digits(8)

    class Cheat(torch.nn.Module):
        """Shows the training images."""

        style_dim, resolution, device = 1, 8, torch.device("cpu")

        def __init__(self):
            super().__init__()
            self.shown = 0

        def forward(self, z):
            self.shown += len(z)
            return data.to_pixels(images.train[self.shown - len(z) : self.shown])

    untrained = Generator(8, 4, 1, 1, {4: 4, 8: 4})
    report = evaluate.evaluate(Cheat(), untrained, images, samples=500)
    assert report["classifier"]["held_out_accuracy"] > 0.95
    assert report["confident"]["samples"] > 0.9
    assert report["confident"]["real"] > 0.8
    assert min(report["class_share"]["samples"]) > 0.05
    assert sum(report["class_share"]["untrained"]) == pytest.approx(1)
    assert report["frechet_distance"]["samples"] == report["frechet_distance"]["real"]
    assert report["frechet_distance"]["untrained"] > 5 * report["frechet_distance"]["real"]
    distances = report["nearest_distance"]
    assert distances["samples"] == pytest.approx(0, abs=1e-2)  # memorising would show
    assert 1 < distances["real"] < distances["untrained"]
