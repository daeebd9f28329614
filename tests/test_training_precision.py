# SPDX-License-Identifier: BSD-3-Clause
"""Half precision, compiled networks and recorded steps."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch.optim import Adam
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from examples.stylegan import alias_free, losses
from examples.stylegan.graphs import Recorder
from examples.stylegan.processes import World
from examples.stylegan.training import DivergedError

from .training import ALIAS_FREE, MANY, assert_same, parts_of_a_step, start

pytestmark = pytest.mark.usefixtures("one_thread")


def half(precision, device, network):
    options = {"resolution": 16, "clamp": 256.0, "lr": 1e-30, "channel_max": 8}
    if network != "stylegan2":
        options |= {**ALIAS_FREE, "network": network, "channel_max": 4, "path_weight": 2.0}
    training = start(device=device, precision=precision, **options)
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        return training, parts_of_a_step(training)[0]


@pytest.mark.parametrize(
    ("precision", "network"),
    [("bfloat16", "stylegan2"), ("float16", "stylegan2"), ("float16", "stylegan3-r")],
)
def test_half_precision_rounds_the_losses_gradients_and_not_the_penalties(
    precision, network, device
):
    _, full = half("float32", device, network)
    training, gradients = half(precision, device, network)
    used = []
    generator, discriminator = training.generator, training.discriminator
    last = generator.convs[-1] if network == "stylegan2" else generator.layers[-1]
    for layer in (last, discriminator.convs[0]):
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


def test_a_compiled_stylegan3_has_the_gradients_and_averages_of_the_eager_one(monkeypatch):
    """It has fewer layers, and its traces run as they are: machine code is made of them above."""
    monkeypatch.setattr(alias_free, "LAYERS", 4)
    traced = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", traced)
    torch._dynamo.utils.counters.clear()
    options = {**MANY, **ALIAS_FREE, "augment": "none", "batch": 4, "channel_max": 4}
    gradients, magnitudes = [], []
    for compile in (True, False):
        training = start({"compile": compile}, **options)
        training.score = training.discriminator  # whose compilation StyleGAN2's test shows
        training.discriminator_step(training.next_real())  # which moves the averages
        training.generator_step()
        weights = training.generator.parameters()
        gradients.append([p.grad.clone() for p in weights if p.grad is not None])
        magnitudes.append(torch.stack(training.magnitudes))
        if compile:
            assert torch._dynamo.utils.counters["frames"]["ok"] == 2  # with gradients and without
    assert (magnitudes[0] != 1).all()
    torch.testing.assert_close(*magnitudes)
    assert any(gradient.any() for gradient in gradients[1])
    for found, expected in zip(*gradients, strict=True):
        atol = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=atol)


class Tape(TorchDispatchMode):
    """The calls of torch's operators, to be made again on the same tensors, without Python.

    A CUDA graph does the same with kernels. What it cannot record is refused: to read values, and
    to compute with tensors made of Python's numbers, which lie on the host.
    """

    REFUSED = ("_local_scalar_dense", "nonzero", "_linalg_check_errors")

    def __init__(self):
        super().__init__()
        self.calls, self.done = [], False
        self.host = {}  # tensors made of Python's numbers, by address; Python may read them

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if any(x.data_ptr() in self.host for x in tensors if x.numel()):
            assert name == "_local_scalar_dense", name
        else:
            assert name not in self.REFUSED, name
        out = func(*args, **(kwargs or {}))
        if name == "lift_fresh":
            self.host[out.data_ptr()] = out
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def repeat(self):
        """Make the calls; the first time they have been made already."""
        for func, args, kwargs, out in self.calls if self.done else ():
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():  # no view
                    old.copy_(new)
        self.done = True


class Taped(Recorder):
    """What CudaGraphs does, on the CPU."""

    def record(self, call):
        with Tape() as tape:
            outputs = call()
        return tape.repeat, outputs


# StyleGAN3, whose averages of magnitudes move, and R's blur, which weakens at each step
BLURRED = {**ALIAS_FREE, "network": "stylegan3-r", "blur_sigma": 2.0, "blur_images": 128.0}


@pytest.mark.parametrize(
    ("options", "chances", "parts"),
    [
        # Three parts with and without augmentation, and the path lengths
        ({}, (0.0, 0.0, 0.0, 0.5, 0.5, 0.7), 7),
        ({"precision": "float16"}, (0.0, 0.0, 0.0), 4),
        (BLURRED, (0.0, 0.0, 0.0), 3),
    ],
)
def test_recorded_steps_equal_others_bit_for_bit(options, chances, parts, monkeypatch):
    """Each part of a step is a function of tensors that stay where they are.

    Of the steps with one probability the first runs, the second is recorded, the third is repeated.
    """
    monkeypatch.setattr(Taped, "FIRST", 1)
    common = {**MANY, "batch": 8, "lr": 1e-3, "path_every": 1, "channel_max": 4, "clamp": 256.0}
    plain, taped = (start({"accumulate": 2}, **{**common, **options}) for _ in range(2))
    taped.call = Taped()
    for chance in chances:
        for training in (plain, taped):
            training.augmentation.p = chance
            training.step()
        assert_same(plain.state_dict(), taped.state_dict())
    assert plain.latest() == taped.latest()
    assert len(taped.call._recorded) == 2 * parts  # each with its update


def test_a_recorded_part_reads_no_value():
    """The tape would tell."""
    for function, name in (
        (lambda x: {"y": x * x.item()}, "_local_scalar_dense"),
        (lambda x: {"y": x * torch.tensor(3.0)}, "mul"),
    ):
        call = Taped()
        for _ in range(Taped.FIRST):
            assert call("key", function, [torch.ones(())])["y"] in (1, 3)
        with pytest.raises(AssertionError, match=name):
            call("key", function, [torch.ones(())])


def test_a_load_forgets_what_was_recorded():
    training = start()
    training.call = Taped()
    for _ in range(Taped.FIRST + 1):
        training.generator_step()
    assert training.call._recorded
    state = copy.deepcopy(training.state_dict())
    stored = copy.deepcopy(state["g_optim"]["state"])
    training.load_state_dict(state)
    assert not training.call._recorded
    training.generator_step()
    assert not training.call._recorded  # it counts from the start
    for i, moments in stored.items():  # the step was taken on copies
        for name, value in moments.items():
            assert torch.equal(state["g_optim"]["state"][i][name], value)


def test_cuda_graphs_are_refused_where_there_can_be_none():
    with pytest.raises(ValueError, match="cuda_graphs needs a device of type cuda, got cpu"):
        start({"cuda_graphs": True})
    with pytest.raises(ValueError, match="cuda_graphs needs one process, got 2: sums over process"):
        start({"cuda_graphs": True, "world": World(0, 2)})


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize(
    ("changed", "parts"), [({}, 7), ({"precision": "float16"}, 7), (BLURRED, 6)]
)
def test_cuda_graphs_train_as_other_steps_do(changed, parts, device):
    options = {**MANY, "batch": 8, "path_every": 1, "resolution": 16, "clamp": 256.0, **changed}
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        plain, graphs = (start({"cuda_graphs": on}, device, **options) for on in (False, True))
        for training in (plain, graphs):
            for chance in (0.0,) * 4 + (0.5,) * 4:
                training.augmentation.p = chance
                training.step()
    assert len(graphs.call._recorded) == 2 * parts
    assert torch.equal(plain.rng.get_state(), graphs.rng.get_state())
    assert graphs.latest() == pytest.approx(plain.latest(), rel=1e-3, abs=1e-4)
    for mine, theirs in ((plain.g, graphs.g), (plain.d, graphs.d)):
        states = (player.optimizer.state.values() for player in (mine, theirs))
        for own, other in zip(*states, strict=True):
            assert own["step"] == other["step"]
            size = float(own["exp_avg_sq"].abs().max())
            torch.testing.assert_close(
                other["exp_avg_sq"], own["exp_avg_sq"], rtol=0.05, atol=0.01 * size
            )


@pytest.mark.parametrize("change", ["layout", "not fused"])
def test_moments_of_other_optimisers_and_layouts_go_on(change):
    """As of runs from before the optimiser was fused, or before weights had their layout."""
    before, after = start(batch=8, path_every=1), start(batch=8, path_every=1)
    if change == "not fused":
        for player in (before.d, before.g):
            weights = player.network.parameters()
            player.optimizer = Adam(weights, **{**player.optimizer.defaults, "fused": None})
    before.step()
    state = copy.deepcopy(before.state_dict())
    for name in ("g", "d"):
        for moments in state[f"{name}_optim"]["state"].values():
            moments.update({key: value.contiguous() for key, value in moments.items()})
    after.load_state_dict(state)
    for training in (before, after):
        training.step()
    for name, weight in before.generator.state_dict().items():
        torch.testing.assert_close(after.generator.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    if change == "not fused":  # and back
        before.load_state_dict(after.state_dict())
        before.step()
