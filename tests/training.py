# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of the training share: small options and small trainings."""

from __future__ import annotations

from pathlib import Path

import torch

from examples.stylegan import data
from examples.stylegan.settings import Settings
from examples.stylegan.training import Training

ROOT = Path(__file__).parent.parent
TINY = [
    *("--resolution", "8", "--channel-max", "4", "--style-dim", "4", "--mapping-layers", "1"),
    *("--batch", "4", "--path-batch", "2", "--samples", "20", "--device", "cpu"),
]
MANY = {
    **{"batch": 16, "path_batch": 8, "mixing": 0.5, "mirror": True, "augment": "ada"},
    **{"lr": 1e-30, "r1_every": 1, "channel_max": 8, "style_dim": 8},  # the weights stay
}
ALIAS_FREE = {"network": "stylegan3-t", "input": "fourier", "path_weight": 0.0, "mixing": 0.0}


def start(how=None, device="cpu", **options):
    how = how or {}
    settings = Settings(
        **{
            **{"resolution": 8, "channel_max": 4, "style_dim": 4, "mapping_layers": 1},
            **{"batch": 4, "path_batch": 2},
            **options,
        }
    )
    return Training(settings, data.load_digits(settings.resolution), torch.device(device), **how)


def assert_same(a, b, path="state"):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def parts_of_a_step(training):
    """Run each part of a step from the same weights; the gradients it stepped against."""
    found, hooks = {}, []
    for player in (training.d, training.g):

        def record(optimizer, *_, player=player):
            names = dict(player.network.named_parameters())
            found[part] = {k: p.grad.clone() for k, p in names.items() if p.grad is not None}

        hooks.append(player.optimizer.register_step_pre_hook(record))
    real = training.next_real()
    parts = {
        "discriminator": lambda: training.discriminator_step(real),
        "r1": lambda: training.r1_step(real),
        "generator": training.generator_step,
        "path_length": training.path_length_step,
    }
    for part in parts:  # `record` reads it
        parts[part]()
    for hook in hooks:
        hook.remove()
    return found, {**training.latest(), "path_mean": float(training.path_mean)}
