# SPDX-License-Identifier: BSD-3-Clause
"""Half precision and compiled networks."""

from __future__ import annotations

import pytest
import torch

from examples.stylegan2 import losses
from examples.stylegan2.training import DivergedError

from .training import MANY, parts_of_a_step, start

pytestmark = pytest.mark.usefixtures("one_thread")


def half(precision, device):
    options = {"resolution": 16, "clamp": 256.0, "lr": 1e-30, "channel_max": 8}
    training = start(device=device, precision=precision, **options)
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        return training, parts_of_a_step(training)[0]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_rounds_the_losses_gradients_and_not_the_penalties(precision, device):
    _, full = half("float32", device)
    training, gradients = half(precision, device)
    used = []
    for layer in (training.generator.convs[-1], training.discriminator.convs[0]):
        layer.register_forward_hook(lambda _, args, out: used.append(out.dtype))
    training.generator_step()
    assert used == [training.dtype] * 2
    for part, whole in full.items():
        flat, exact = (
            torch.cat([g.flatten() for g in grads.values()]) for grads in (gradients[part], whole)
        )
        error = ((flat - exact).norm() / exact.norm()).item()
        if part in ("discriminator", "generator"):
            # The step's images too come from layers in half
            assert 1e-5 < error < 0.2
        else:
            # The loss is scaled by a power of two, and back
            assert error < (1e-6 if device.type == "cpu" else 1e-4)


def test_float16_skips_a_step_whose_gradient_overflows_and_lowers_its_scale(monkeypatch, device):
    training = start(device=device, precision="float16", clamp=256.0)
    training.step()
    scale = training.g.scaler.get_scale()
    before = {k: v.clone() for k, v in training.generator.state_dict().items()}
    loss = losses.generator_loss
    monkeypatch.setattr(losses, "generator_loss", lambda fake: loss(fake) * 1e37)
    training.generator_step()
    for name, value in training.generator.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert training.g.scaler.get_scale() == scale / 2
    resumed = start(device=device, precision="float16", clamp=256.0)
    resumed.load_state_dict(training.state_dict())
    assert resumed.g.scaler.get_scale() == scale / 2
    for _ in range(20):
        if training.g.scaler.get_scale() > 1:
            training.generator_step()
    with pytest.raises(DivergedError, match="gradient of the loss in float16 must stay finite"):
        training.generator_step()


def test_compiled_networks_have_the_gradients_of_the_eager_ones(device):
    options = {**MANY, "batch": 4, "path_batch": 2, "augment": "none", "r1_gamma": 0.0}
    compiled, eager = (start({"compile": compile}, device, **options) for compile in (True, False))
    torch._dynamo.utils.counters.clear()
    gradients = [parts_of_a_step(training)[0] for training in (compiled, eager)]
    calls = torch._dynamo.utils.counters["frames"]["ok"]
    assert calls >= 2
    for part, whole in gradients[1].items():
        for name, gradient in whole.items():
            torch.testing.assert_close(
                gradients[0][part][name],
                gradient,
                rtol=1e-3,
                atol=1e-5 * float(gradient.abs().max()),
            )
