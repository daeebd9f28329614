# SPDX-License-Identifier: BSD-3-Clause
"""The ops and layers of test_devices.py on the device of other_device.cpp, in a process of its own:
a process has one device under PrivateUse1, and keeps it.

Its argument is the compiled library. It prints the name of each case that passed.
"""

import copy
import sys
import types

import pytest
import torch

from resample_layers.ops import extension

from .test_devices import CALLS, LAYERS, X, first_and_second_order

NAME = "pretend"
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def register(library: str) -> None:
    """As torch's documentation has it for the maker of a device."""
    torch.ops.load_library(library)
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(f"torch.{NAME}")
    module.is_initialized = module.is_available = lambda: True
    module.current_device, module.device_count = lambda: 0, lambda: 1
    module._is_in_bad_fork = lambda: False
    module.manual_seed_all = lambda seed: None
    module.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()


def check_strictness() -> None:
    """The device refuses what it says: else the cases below would show nothing."""
    x = X.to(NAME)
    assert x.device == torch.device(NAME, 0)
    for refused, words in (
        (lambda: x.double(), "no float64"),
        (lambda: torch.zeros(3, dtype=torch.float64, device=NAME), "no float64"),
        (
            lambda: torch.nn.functional.conv2d(x, torch.ones(1, 3, 2, 2, device=NAME)),
            "convolution_overrideable not",
        ),
        (lambda: x + X, "pretend"),
    ):
        with pytest.raises((TypeError, RuntimeError), match=words):
            refused()


def check_call(call, tensors, dtype) -> None:
    """Values and the gradients of both orders are the CPU's, without autocast and under it."""
    tensors = [tensors[0].to(dtype), *tensors[1:]]
    ours = first_and_second_order(call, tensors)
    there = [x.to(NAME) for x in tensors]
    theirs = first_and_second_order(call, there)
    for one, other in zip(theirs, ours, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            check_close(one, other, BOUNDS[dtype])
    with torch.no_grad():
        values = call(*there)  # by the raw operator
        check_close(values, ours[0], BOUNDS[dtype])
        with torch.autocast(NAME, torch.bfloat16):
            assert torch.equal(call(*there).cpu(), values.cpu())


def check_layer(make, x) -> None:
    """A layer that was moved there, with its filters, gives and learns what it does on the CPU."""
    ours = make()
    theirs = copy.deepcopy(ours).to(NAME)
    assert all(t.device.type == NAME for t in [*theirs.parameters(), *theirs.buffers()])
    results = []
    for module, given in ((theirs, x.to(NAME)), (ours, x.clone())):
        given.requires_grad_()
        out = module(given)
        leaves = [given, *module.parameters()]
        first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        results.append([out, *first, *second])
    for one, other in zip(*results, strict=True):
        check_close(one, other, 1e-5)
    with torch.device(NAME):
        made = make()
    check_close(made(x.to(NAME)), ours(x), 1e-5)
    with torch.autocast(NAME, torch.bfloat16):
        check_close(theirs(x.to(NAME)), ours(x), 1e-5)


def check_close(one, other, bound) -> None:
    assert one.device.type == NAME
    assert one.stride() == other.stride()
    scale = float(other.detach().abs().max())
    torch.testing.assert_close(
        one.detach().cpu(), other.detach(), rtol=bound, atol=bound * max(scale, 1)
    )


def main(library: str) -> None:
    assert extension.choices["cpu"].backend == "native"
    register(library)
    check_strictness()
    print("strictness")
    for name, (call, *tensors) in CALLS.items():
        for dtype in BOUNDS if tensors[0].shape[1] == 3 else (torch.float32,):
            check_call(call, tensors, dtype)
        print(name)
    for name, (make, x) in LAYERS.items():
        check_layer(make, x)
        print(name)


if __name__ == "__main__":
    torch.manual_seed(0)
    main(*sys.argv[1:])
