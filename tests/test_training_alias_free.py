# SPDX-License-Identifier: BSD-3-Clause
"""The training of StyleGAN3, and of a StyleGAN2 with Fourier features, by the same trainer."""

from __future__ import annotations

import json
import math

import pytest
import torch

from examples.stylegan import augment, train
from examples.stylegan.alias_free import AliasFreeGenerator
from examples.stylegan.checkpoints import load
from examples.stylegan.discriminator import Discriminator
from examples.stylegan.generator import Generator
from examples.stylegan.run import Run
from examples.stylegan.settings import Settings, load_config
from examples.stylegan.training import DivergedError, make_generator

from .test_training_settings import FIXTURES
from .training import ALIAS_FREE, TINY, assert_same, start

pytestmark = pytest.mark.usefixtures("one_thread")

PUBLISHED = {  # of both configurations
    **{"batch": 32, "lr": 0.002, "generator_lr": 0.0025, "mapping_layers": 2, "mapping_lr": 0.01},
    **{"path_weight": 0.0, "mixing": 0.0, "clamp": 256.0, "augment": "ada", "r1_every": 16},
}


@pytest.mark.parametrize("kind", ["t", "r"])
def test_configurations_are_as_published(kind):
    values = load_config(f"stylegan3-{kind}-256")
    settings = Settings(**values)
    for name, value in PUBLISHED.items():
        assert getattr(settings, name) == value, name
    assert settings.blur_sigma == (10 if kind == "r" else 0)
    if kind == "r":
        assert values["blur_images"] == settings.batch * 200 / 32 * 1000
    with torch.device("meta"):
        generator = make_generator(settings, 3)
        discriminator = Discriminator(256, 3, settings.channels())
    counts = [sum(p.numel() for p in n.parameters()) for n in (generator, discriminator)]
    originals = json.loads((FIXTURES / "parameter_counts.json").read_text())
    assert counts == originals[f"stylegan3-{kind}"]["256"]


def test_the_settings_say_which_generator_it_is():
    made = {
        network: make_generator(Settings(network=network, input="fourier", resolution=16), 1)
        for network in ("stylegan2", "stylegan3-t", "stylegan3-r")
    }
    assert type(made["stylegan2"]) is Generator
    assert [made[f"stylegan3-{kind}"].kind for kind in "tr"] == ["t", "r"]
    assert all("transform" in dict(g.input.named_buffers()) for g in made.values())
    plain = make_generator(Settings(), 1)
    assert type(plain) is Generator
    assert not hasattr(plain.input, "transform")
    old = Settings.restore({"lr": 0.01})  # of a version without networks to choose from
    assert (old.network, old.input, old.generator_lr) == ("stylegan2", "constant", 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"network": "stylegan3-r"}, "input must be fourier for network stylegan3-r, got 'constan"),
        ({"network": "stylegan4"}, "network must be one of stylegan2, stylegan3-t, stylegan3-r, g"),
        ({"input": "noise"}, "input must be one of constant, fourier, got 'noise'"),
        ({"blur_sigma": -1.0}, "blur_sigma must be between 0 and 100, got -1.0"),
        ({"blur_sigma": math.nan}, "blur_sigma must be between 0 and 100, got nan"),
        ({"blur_images": 0.0}, "blur_images must be finite and >= 1, got 0.0"),
        ({"generator_lr": -0.1}, "generator_lr must be finite and >= 0, got -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Settings(**options).check()


def test_learning_rates_of_both_networks():
    training = start(lr=0.25, generator_lr=0.5, r1_gamma=0.0, path_weight=0.0)
    assert [p.optimizer.param_groups[0]["lr"] for p in (training.g, training.d)] == [0.5, 0.25]
    training = start(lr=0.25, r1_gamma=0.0, path_weight=0.0)
    assert [p.optimizer.param_groups[0]["lr"] for p in (training.g, training.d)] == [0.25, 0.25]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_magnitudes_move_with_what_the_discriminator_step_draws(accumulate):
    training = start({"accumulate": accumulate}, batch=8, **ALIAS_FREE)
    magnitudes = training.magnitudes
    assert len(magnitudes) == 15  # of 14 layers and to-RGB
    assert all(float(m) == 1 for m in magnitudes)
    seen = []
    layer = training.generator.layers[5]
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].square().mean()))
    training.discriminator_step(training.next_real())
    expected, decay = 1.0, 0.5 ** (8 / accumulate / 20_000)
    for square in seen:
        expected = decay * expected + (1 - decay) * float(square)
    assert len(seen) == accumulate
    assert float(layer.magnitude) == pytest.approx(expected, abs=1e-7)
    assert abs(expected - 1) > 1e-5
    before = [m.clone() for m in magnitudes]
    training.generator_step()
    assert_same(before, magnitudes)
    assert all(float(m) == 1 for m in training.ema_magnitudes)
    training.average()
    assert_same(magnitudes, training.ema_magnitudes)
    assert not training.generator.training


def test_a_resumed_training_goes_on_bit_for_bit():
    options = {**ALIAS_FREE, "augment": "ada", "blur_sigma": 2.0, "blur_images": 100.0}
    straight = start(**options)
    for _ in range(2):
        straight.step()
    state = straight.state_dict()
    assert state["settings"]["network"] == "stylegan3-t"
    resumed = start(**options)
    resumed.load_state_dict(state)
    for training in (straight, resumed):
        training.step()
    assert_same(straight.state_dict(), resumed.state_dict())
    assert straight.counts == {"r1": 1, "path_length": 0}


@pytest.mark.parametrize("network", ["stylegan3-r", "stylegan2"])
def test_all_parts_of_a_step_take_a_fourier_input(network):
    training = start(**{**ALIAS_FREE, "network": network, "path_weight": 2.0, "mixing": 0.5})
    before = [p.clone() for p in training.generator.parameters()]
    training.step()
    assert training.counts == {"r1": 1, "path_length": 1}
    names = [name for name, _ in training.generator.named_parameters()]
    moved = [
        name
        for name, a, b in zip(names, before, training.generator.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    assert "input.weight" in moved
    assert isinstance(training.generator, AliasFreeGenerator) == (network == "stylegan3-r")


def test_a_run_shows_no_figure_of_a_penalty_that_it_does_not_take(tmp_path, capsys, no_report):
    options = [*TINY, "--network", "stylegan3-r", "--input", "fourier", "--blur-sigma", "2"]
    assert train.main(["--out", str(tmp_path), *options, "--path-weight", "0", "--steps", "1"]) == 0
    progress = capsys.readouterr().err
    assert "r1=" in progress
    assert "path_length" not in progress
    assert "path_length" not in Run(tmp_path).read_metrics()[-1]
    assert load(tmp_path / "checkpoint.pt").network == "stylegan3-r"


def test_a_resumed_training_forgets_the_figures_of_a_penalty_that_is_switched_off():
    before = start(path_weight=2.0)
    before.step()
    assert {"r1", "path_length", "path_penalty"} <= before.latest().keys()
    after = start(path_weight=0.0)
    after.load_state_dict(before.state_dict())
    assert before.latest().keys() - after.latest().keys() == {"path_length", "path_penalty"}


def test_taps_of_the_blur():
    taps = augment.blur_taps(1.5, 2.0)
    assert len(taps) == 13  # three times the largest sigma to both sides
    weights = [2 ** -((x / 1.5) ** 2) if abs(x) <= 4 else 0 for x in range(-6, 7)]
    expected = torch.tensor(weights) / sum(weights)
    torch.testing.assert_close(taps, expected, rtol=0, atol=1e-6)
    assert augment.blur_taps(0.3, 2.0) is None
    assert augment.blur_taps(0.0, 0.0) is None
    images = torch.zeros(1, 2, 9, 9)
    images[0, 1, 4, 2] = 1
    blurred = augment.blur(images, taps)
    assert blurred.shape == images.shape
    assert not blurred[0, 0].any()
    torch.testing.assert_close(blurred[0, 1, :, 2], expected[2:11] * expected[6])
    torch.testing.assert_close(blurred[0, 1, 4], expected[4:13] * expected[6])


def test_the_blur_falls_to_none_and_reaches_real_and_generated_images():
    training = start(batch=4, blur_sigma=2.0, blur_images=40.0, r1_every=1)
    seen = []
    training.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    real = training.next_real()
    sharpness = []
    for steps in (0, 5, 10):
        training.steps = steps
        seen.clear()
        training.discriminator_step(real)
        training.r1_step(real)
        training.generator_step()
        edges = [float(images.diff(dim=3).square().mean().detach()) for images in seen]
        sharpness.append(edges[:3])
        taps = training.blur()
        expected = augment.blur_taps({0: 2.0, 5: 1.0, 10: 0.0}[steps], 2.0)
        assert (taps is None) == (expected is None) == (steps == 10)
        if taps is not None:
            assert torch.equal(taps, expected)
    assert len(edges) == 3  # discriminator, R1, generator
    for part in zip(*sharpness, strict=True):
        assert part[0] < part[1] < part[2]


def test_r1_of_blurred_images_is_that_of_the_images_before_the_blur():
    training = start(batch=4, blur_sigma=2.0, blur_images=40.0)
    (real,) = training.next_real()
    images = real.clone().requires_grad_()
    scores = training.discriminator(augment.blur(images, training.blur()))
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    expected = gradient.square().sum((1, 2, 3)).mean()
    found = training.r1_gradients(None, training.blur(), real)["loss"]
    torch.testing.assert_close(found, expected)


def test_a_divergence_leaves_the_averages_of_magnitudes_as_they_were(monkeypatch):
    training = start(**ALIAS_FREE)
    real = training.next_real()
    before = [magnitude.clone() for magnitude in training.magnitudes]
    weight = next(training.generator.parameters())
    monkeypatch.setattr(weight, "data", weight.data * math.nan)
    with pytest.raises(DivergedError, match="discriminator's loss must stay finite"):
        training.discriminator_step(real)
    assert before
    assert all(map(torch.equal, training.magnitudes, before))
    weight.data.fill_(0.1)
    training.magnitudes[0].fill_(math.nan)
    with pytest.raises(DivergedError, match="averages of magnitudes must stay finite, got nan"):
        training.check_finite()
