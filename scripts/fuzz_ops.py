# SPDX-License-Identifier: BSD-3-Clause
"""Random calls of every op on every backend, against a definition that shares nothing with them.

    python scripts/fuzz_ops.py --examples 100000
    python scripts/fuzz_ops.py --seconds 600 --backends native avx512

Hypothesis draws the calls: the op, its door, dtypes, layouts, sizes, rates, pads, constants, and
whose gradients are asked for. Compared with ``tests/vector_oracle.py`` are the results, the
gradients in every tensor, and the gradients of those gradients. A call that fails is made as small
as it goes, and printed as Python that draws the same one again. Each backend runs in a process of
its own: the CPU kernels choose their vector units once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from resample_layers import ops  # noqa: E402
from resample_layers.ops.op import OPS  # noqa: E402
from scripts.options import count, positive  # noqa: E402
from tests import oracle, vector_oracle  # noqa: E402
from tests.vector_oracle import Arrays, Call, Filter, each  # noqa: E402

BACKENDS = ("native", "baseline", "avx2", "avx512")
ROUND = 500  # calls of one run of Hypothesis
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "expanded")
# A public function; the registered operator, which compilers call; the plain torch that
# transforms differentiate. Signals and volumes are views of images behind the first
DOORS = ("public", "registered", "functional")
SLACK = {0: 1, 1: 4, 2: 16}  # roundings by order, in those of a result
NEAR = {torch.float64: 1e-12, torch.float32: 1e-5}  # of a kink, in its addends' size

Tensors = dict[str, tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """One call. Arguments by axis are given x first."""

    op: str  # "upfirdn2d", "upfirdn1d", "upfirdn3d", "bias_act", "filtered_lrelu", "filtered_snake"
    door: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    kernels: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]  # kind, lengths by axis, dtype
    up: tuple[int, ...]
    down: tuple[int, ...]
    pads: tuple[tuple[int, ...], ...]
    needs: tuple[str, ...]  # whose gradients are asked for; of taps, by their filter
    second: bool
    values: int  # the seed of the values
    operands: tuple[str, ...] = ()
    operand_dtype: torch.dtype | None = None  # None: float32, or float64 for an input of it
    constants: tuple[float, float, float | None] = (1.0, 1.0, None)  # slope, gain, clamp
    replicate: bool = False
    noises: int = 1  # samples of the noise
    grad_layout: str = "contiguous"

    @property
    def dims(self) -> int:
        return len(self.shape) - 2

    @property
    def is_filtered(self) -> bool:
        return self.op.startswith("filtered")


@dataclass
class Counts:
    """What was compared."""

    by: Counter[str] = field(default_factory=Counter)

    def add(self, case: Case, what: str) -> None:
        self.by[f"{case.op}: {what}"] += 1


# Drawing


@st.composite
def cases(draw: Any, door: str | None = None) -> Case:
    def integer(low: int, high: int) -> int:
        return int(draw(st.integers(low, high)))

    def pick(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    op = pick("upfirdn2d", "bias_act", "filtered_lrelu", "filtered_snake", "upfirdn1d", "upfirdn3d")
    dims = {"upfirdn1d": 1, "filtered_snake": 1, "upfirdn3d": 3}.get(op, 2)
    doors = (
        DOORS if op in ("upfirdn2d", "bias_act", "filtered_lrelu", "filtered_snake") else DOORS[:1]
    )
    door = pick(*doors) if door is None else door
    is_filtered = op.startswith("filtered")
    replicate = is_filtered and pick(False, True)
    most = {1: 40, 2: 12, 3: 5}[dims]
    size = [integer(1 if replicate else 0, most) for _ in range(dims)]
    channels = integer(0, 5)
    long = pick(*[None] * 6, "row", "channels")  # beyond a tile or a vector
    if long == "row":
        size[-1] = integer(13, 300)
    elif long == "channels":
        channels = integer(6, 70)
    shape = (integer(0, 3), channels, *size)
    factor = {1: 8, 2: 6, 3: 3}[dims]
    if is_filtered:
        factor = 4
    far = pick(*[False] * 7, True)  # rates that only a plan of many phases serves
    up, down = (
        tuple(integer(1, 50 if far and dims < 3 and not long else factor) for _ in range(dims))
        for _ in range(2)
    )
    longest = 12 if dims == 3 or long else 33
    kernels, pads = [], []
    sides = list(size[::-1])  # x first
    for stage in range(2 if is_filtered else 1):
        kind = (
            pick("taps", "pair", "planar")
            if dims == 2
            else pick("taps", "pair")
            if dims == 3
            else "pair"
        )
        if is_filtered and not pick(True, True, True, False):
            kind = "none"
        lengths = tuple(1 if kind == "none" else integer(1, pick(4, longest)) for _ in range(dims))
        if kind == "taps":
            lengths = lengths[:1] * dims
        kernels.append((kind, lengths, pick(*DTYPES)))
        ups = up if stage == 0 else (1,) * dims
        pad, after = [], []
        for a in range(dims):
            before, behind = (
                integer(-9, 36 if stage == 0 else 12),
                integer(-9, 36 if stage == 0 else 12),
            )
            behind = max(behind, lengths[a] - sides[a] * ups[a] - before)  # an output there is
            pad += [before, behind]
            after.append(sides[a] * ups[a] + before + behind - lengths[a] + 1)
        sides = after
        pads.append(tuple(pad))
    operands: tuple[str, ...] = ()
    operand_dtype = None
    constants: tuple[float, float, float | None] = (1.0, 1.0, None)
    names = ["input", "first"]
    if op == "bias_act":
        operands = pick(
            (), ("bias",), ("bias", "noise"), ("bias", "noise", "noise_strength"), ("noise",),
        )  # fmt: skip
        operands += pick(("scale",), ())
        constants = pick(0.2, 0.0, 1.0, 1.5), pick(math.sqrt(2.0), 1.0, 0.5), pick(None, 0.7, 2.0)
    elif op == "filtered_lrelu":
        operands = pick((), ("bias_before",))
        constants = pick(0.2, 0.0, 1.0, 1.5), pick(math.sqrt(2.0), 1.0, 0.5), pick(None, 0.7, 2.0)
    elif op == "filtered_snake":
        operands = pick(("alpha", "beta"), ("bias_before", "alpha", "beta"))
    if operands:
        operand_dtype = pick(None, None, *DTYPES)
    if is_filtered:
        names.append("second")
    # Without the kernels, or without a graph, other code computes the gradients
    needs = pick(
        ("input",), ("input", *operands), (*names, *operands), ("first",), (*names[1:], *operands)
    )
    return Case(
        op, door, shape, pick(*DTYPES), pick(*LAYOUTS), tuple(kernels), up, down,
        tuple(pads), needs, pick(True, False), integer(0, 2**31), operands, operand_dtype,
        constants, replicate, pick(1, shape[0]), pick("contiguous", "channels_last", "expanded"),
    )  # fmt: skip


def tensors_of(case: Case) -> Tensors:
    """The values of a call, by the names of the oracle."""
    generator = torch.Generator().manual_seed(case.values)

    def normal(*size: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    found: Tensors = {"input": (laid_out(normal(*case.shape, dtype=case.dtype), case.layout),)}
    for name, (kind, lengths, dtype), factors in zip(
        ("first", "second"), case.kernels, (case.up, (1,) * case.dims), strict=False
    ):
        scales = [(f / k) ** 0.5 for f, k in zip(factors, lengths, strict=True)]  # keep the scale
        if kind == "planar":
            found[name] = (normal(*lengths[::-1], dtype=dtype) * math.prod(scales),)
        elif kind == "taps":
            found[name] = (normal(lengths[0], dtype=dtype) * scales[0],)
        elif kind == "pair":
            found[name] = tuple(
                normal(k, dtype=dtype) * s for k, s in zip(lengths, scales, strict=True)
            )
    channels = case.shape[1]
    wide = case.operand_dtype or torch.promote_types(case.dtype, torch.float32)
    for name in case.operands:
        if name == "noise":
            size = (case.noises, 1, *output_size(case))
        elif name == "noise_strength":
            size = (1,)
        elif name == "scale":
            size = case.shape[:2]
        else:
            size = (channels,)
        values = normal(*size, dtype=case.dtype if name == "noise" else wide)
        if name in ("alpha", "beta"):
            values = values.abs() + 0.4
        found[name] = (values,)
    return found


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The tensor, or one of its shape, in memory as asked for."""
    if layout == "channels_last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "transposed":
        return x.mT.contiguous().mT
    if layout == "sliced":
        return torch.stack([x, -x], -1)[..., 0]
    if layout == "expanded" and x.numel():
        return x[:1, :1].expand(x.shape)
    return x


def output_size(case: Case) -> tuple[int, ...]:
    """The sides of the result of ``bias_act``, y first."""
    ((_, lengths, _),), (pad,) = case.kernels, case.pads
    sides = [
        (side * up + pad[2 * a] + pad[2 * a + 1] - taps) // down + 1
        for a, (side, up, down, taps) in enumerate(
            zip(case.shape[:1:-1], case.up, case.down, lengths, strict=True)
        )
    ]
    return tuple(sides[::-1])


# Calling


def run(case: Case, t: Tensors) -> torch.Tensor:
    """The call through its door."""
    kernels: list[Any] = []
    for name, (kind, _, _) in zip(("first", "second"), case.kernels, strict=False):
        taps = t.get(name, (None,))
        is_pair = kind == "pair" and case.dims > 1
        kernels.append(tuple(taps) if is_pair else taps[0])
    (x,) = t["input"]
    bias, noise, strength, scale, before, alpha, beta = (
        t.get(name, (None,))[0]
        for name in ("bias", "noise", "noise_strength", "scale", "bias_before", "alpha", "beta")
    )
    mode = "replicate" if case.replicate else "zeros"
    if case.door == "public":
        rates = case.up, case.down, *case.pads
        if case.op == "upfirdn2d":
            return ops.upfirdn2d(x, *kernels, *rates)
        if case.op == "bias_act":
            return ops.upfirdn2d_bias_act(
                x, *kernels, bias, noise, strength, *rates, *case.constants, scale
            )
        if case.op == "filtered_lrelu":
            up, down, pad, down_pad = rates
            return ops.filtered_lrelu(
                x, *kernels, before, up, down, pad, *case.constants, down_pad, mode
            )
        if case.op == "filtered_snake":
            return ops.filtered_snake(x, alpha, beta, *kernels, before, *rates, mode)
        return (ops.upfirdn1d if case.op == "upfirdn1d" else ops.upfirdn3d)(x, *kernels, *rates)
    flat = (1,) * (2 - case.dims)
    rates = (*case.up, *flat), (*case.down, *flat)
    pads = [(*pad, *(0, 0) * len(flat)) for pad in case.pads]
    operands: list[Any] = []
    for kernel in kernels:
        if kernel is None:
            kernel = x.new_ones(1, 1, dtype=torch.promote_types(x.dtype, torch.float32))
        elif case.dims == 1:
            kernel = kernel.unsqueeze(0)
        operands += (
            kernel if isinstance(kernel, tuple) else [kernel, kernel if kernel.dim() == 1 else None]
        )
    if case.op == "upfirdn2d":
        op, args = OPS["upfirdn2d"], (x, *operands, *rates, *pads, False)
    elif case.op == "bias_act":
        op = OPS["upfirdn2d_bias_act"]
        args = (x, *operands, bias, noise, strength, scale, *rates, *pads, *case.constants)
    else:
        op = OPS["filtered_act"]
        images = x.unsqueeze(2) if case.dims == 1 else x
        activation = int(case.op == "filtered_snake")  # 0 is the leaky ReLU
        args = (
            images,
            before,
            alpha,
            beta,
            *operands,
            *rates,
            *pads,
            case.replicate,
            activation,
            *case.constants,
        )
    out = (op.registered if case.door == "registered" else op.native)(*args)
    return out.squeeze(2) if case.dims == 1 else out


# Comparing


def call_of(case: Case) -> Call:
    slope, gain, clamp = case.constants
    ones = (1,) * case.dims
    if not case.is_filtered:
        first = Filter(case.up, case.down, case.pads[0])
        return Call(first, None, "leaky" if case.op == "bias_act" else None, slope, gain, clamp)
    first = Filter(case.up, ones, case.pads[0], case.replicate)
    second = Filter(ones, case.down, case.pads[1], case.replicate)
    kind = "leaky" if case.op == "filtered_lrelu" else "snake"
    return Call(first, second, kind, slope, gain, clamp)


def arrays_of(case: Case, t: Tensors) -> Arrays:
    """Tensors as the oracle wants them: taps for every axis."""
    found = {name: tuple(a.detach().double().numpy() for a in group) for name, group in t.items()}
    names = ("first", "second")[: len(case.kernels)]
    for name, (kind, _, _) in zip(names, case.kernels, strict=True):
        if kind == "none":
            found[name] = (np.ones(1),) * case.dims
        elif kind == "taps":
            found[name] *= case.dims
    return found


def for_tensors(case: Case, grads: Arrays) -> Arrays:
    """Gradients of what the oracle was given, as those of the call's tensors."""
    found = dict(grads)
    for name, (kind, _, _) in zip(("first", "second"), case.kernels, strict=False):
        if kind == "none":
            del found[name]
        elif kind == "taps":  # they serve all axes
            found[name] = (np.sum(grads[name], axis=0),)
    return found


def compare(
    what: str,
    ours: torch.Tensor,
    wanted: np.ndarray,
    bound: np.ndarray,
    order: int,
    *dtypes: torch.dtype,
) -> None:
    """Within the rounding of the dtypes that the values have gone through."""
    assert tuple(ours.shape) == wanted.shape, (
        f"{what}: shape {tuple(ours.shape)}, not {wanted.shape}"
    )
    tolerance = SLACK[order] * max(oracle.TOLERANCE[dtype] for dtype in dtypes)
    tiny = 0.0 if torch.float16 not in dtypes else 1e-6  # it has no smaller numbers
    # A sum of many terms of one dtype is known to the size of the largest result
    limit = tolerance * (bound + 0.05 * bound.max(initial=0.0)) + tiny * (1 + bound)
    error = abs(ours.detach().double().numpy() - wanted)
    wrong = ~(error <= limit)
    assert not wrong.any(), (
        f"{what}: {int(wrong.sum())} of {wrong.size} are wrong, by up to "
        f"{(error / np.maximum(limit, 1e-300))[wrong].max():.3g} times what is allowed"
    )


def is_near_a_kink(case: Case, call: Call, a: Arrays, wide: torch.dtype) -> bool:
    """Whether rounding may choose another branch than the exact value: nothing says which."""
    if call.activation != "leaky":
        return False
    z = vector_oracle.before_activation(call, a)
    size = vector_oracle.before_activation(call, each(abs, a))
    near = NEAR[wide] * size
    close = (abs(z) < near) & (size > 0)
    if call.clamp is not None:
        f = np.where(z > 0, z, call.slope * z) * call.gain
        close |= abs(abs(f) - call.clamp) < 2 * near
    return bool(close.any())


def check(case: Case, counts: Counts) -> None:
    """Compare results and gradients with the oracle's."""
    t = tensors_of(case)
    call, a = call_of(case), arrays_of(case, t)
    bound_call, sizes = vector_oracle.bound_of(call), each(abs, a)
    bound = vector_oracle.value(bound_call, sizes)
    kernels = [dtype for kind, _, dtype in case.kernels if kind != "none"]
    wide = torch.float64 if torch.float64 in (case.dtype, *kernels) else torch.float32
    wanted = vector_oracle.value(call, a)
    if case.op == "upfirdn3d" and wide != case.dtype:
        wide = torch.float32  # of the taps of each pass, in slices and across them
    out = run(case, t)
    assert out.dtype == case.dtype
    compare("result", out, wanted, bound, 0, case.dtype, wide)
    counts.add(case, "results")
    needed = [name for name in case.needs if name in t]
    if not needed:
        return
    leaves = {
        name: tuple(x.detach().requires_grad_(name in needed) for x in group)
        for name, group in t.items()
    }
    order = [(name, i) for name in needed for i in range(len(leaves[name]))]
    params = [leaves[name][i] for name, i in order]
    out = run(case, leaves)
    compare("result with a graph", out, wanted, bound, 0, case.dtype, wide)
    branches = None
    if case.op == "bias_act" and case.door != "functional":  # a value counts as it was rounded
        seen = out.detach().double().numpy()
        limit = (
            math.inf
            if call.clamp is None
            else torch.tensor(call.clamp, dtype=wide).to(case.dtype).item()
        )
        branches = vector_oracle.Branches(seen > 0, abs(seen) < limit)
    elif is_near_a_kink(case, call, a, wide):
        counts.add(case, "left out, near a kink")
        return
    generator = torch.Generator().manual_seed(case.values + 1)
    g = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(case.dtype)
    g = laid_out(g, case.grad_layout).requires_grad_(case.second)
    weight = g.detach().double().numpy()
    wanted_grads = for_tensors(case, vector_oracle.gradients(call, a, weight, branches))
    bounds = for_tensors(case, vector_oracle.gradients(bound_call, sizes, abs(weight)))
    dtypes = [(case.dtype, wide, leaves[name][i].dtype) for name, i in order]
    grads = torch.autograd.grad(out, params, g, retain_graph=case.second)
    for (name, i), ours, kinds in zip(order, grads, dtypes, strict=True):
        assert ours.dtype == kinds[-1]
        compare(f"gradient in {name}[{i}]", ours, wanted_grads[name][i], bounds[name][i], 1, *kinds)
        counts.add(case, f"gradients in {name}")
    if not case.second:
        return
    grads = torch.autograd.grad(out, params, g, create_graph=True)
    for (name, i), ours, kinds in zip(order, grads, dtypes, strict=True):
        what = f"gradient with a graph in {name}[{i}]"
        compare(what, ours, wanted_grads[name][i], bounds[name][i], 1, *kinds)
    vs = [
        torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype) for p in params
    ]
    seconds = torch.autograd.grad(
        grads, [*params, g], vs, allow_unused=True, materialize_grads=True
    )
    moves: Tensors = {name: tuple(torch.zeros_like(x) for x in group) for name, group in t.items()}
    for (name, i), v in zip(order, vs, strict=True):
        moves[name] = (*moves[name][:i], v, *moves[name][i + 1 :])
    v_arrays = arrays_of(case, moves)
    for name, (kind, _, _) in zip(("first", "second"), case.kernels, strict=False):
        if kind == "none":
            v_arrays[name] = (np.zeros(1),) * case.dims
    hessian, of_g = vector_oracle.second_order(call, a, v_arrays, weight, branches)
    scales, of_g_scale = vector_oracle.second_order(
        bound_call, sizes, each(abs, v_arrays), abs(weight)
    )
    hessian, scales = for_tensors(case, hessian), for_tensors(case, scales)
    all_dtypes = {dtype for kinds in dtypes for dtype in kinds}
    for (name, i), ours in zip(order, seconds[:-1], strict=True):
        compare(
            f"second order in {name}[{i}]", ours, hessian[name][i], scales[name][i], 2, *all_dtypes
        )
    compare("second order in the gradient", seconds[-1], of_g, of_g_scale, 2, *all_dtypes)
    counts.add(case, "second order")


def covers(case: Case, grid: np.ndarray, backwards: tuple[int, ...] | None = None) -> np.ndarray:
    """The results whose windows cover what is marked; ``backwards``: the inputs, of that shape."""
    call = call_of(case)
    stages = [f for f in (call.first, call.second) if f is not None]
    marked = grid.astype(float)
    ones = [
        (np.ones(lengths[::-1]),) if kind == "planar" else tuple(np.ones(k) for k in lengths)
        for kind, lengths, _ in case.kernels
    ]
    if backwards is not None:
        middle = np.broadcast_to(0.0, backwards)
        if len(stages) == 2:
            middle = vector_oracle.resample(middle, ones[0], stages[0])
            marked = vector_oracle.transpose(marked, middle.shape, ones[1], stages[1])
        return vector_oracle.transpose((marked > 0) * 1.0, backwards, ones[0], stages[0]) > 0
    for kernel, stage in zip(ones, stages, strict=True):
        marked = (vector_oracle.resample(marked, kernel, stage) > 0) * 1.0
    return marked > 0


def check_nan(case: Case, counts: Counts) -> None:
    """A NaN in one pixel is in the results whose windows cover it, and in no others.

    A window covers what its taps meet, zeros among the taps too. The gradient of the input has the
    NaN of the gradient that it was given only where windows cover it. Of a kernel that is given
    by axis, the window is the product.
    """
    t = tensors_of(case)
    x = t["input"][0].clone(memory_format=torch.preserve_format)
    x = x.contiguous() if case.layout == "expanded" else x  # every pixel has memory of its own
    if not x.numel():
        return
    draw = np.random.default_rng(case.values)
    place = tuple(int(draw.integers(side)) for side in x.shape)
    x[place] = math.nan
    t["input"] = (x,)
    for name in ("first", "second"):
        if name in t:
            t[name] = tuple(taps.clone() for taps in t[name])
            for taps in t[name]:
                taps[tuple(int(draw.integers(side)) for side in taps.shape)] = 0.0
    marked = np.zeros(x.shape, bool)
    marked[place] = True
    wanted = covers(case, marked)
    if "scale" in t:
        check_nan_of_scale(case, t, wanted, counts)
    for needs in (False, True):
        out = run(case, {**t, "input": (x.detach().requires_grad_(needs),)})
        assert (out.isnan().detach().numpy() == wanted).all(), "a NaN is not where its windows are"
    counts.add(case, "NaN in a pixel")
    whole = torch.zeros_like(x).requires_grad_()
    out = run(case, {**t, "input": (whole,)})
    g = torch.randn(out.shape, dtype=torch.float64).to(out.dtype)
    place = tuple(int(draw.integers(side)) for side in out.shape)
    g[place] = math.nan
    marked = np.zeros(out.shape, bool)
    marked[place] = True
    (grad,) = torch.autograd.grad(out, whole, g)
    reached, wanted = grad.isnan().numpy(), covers(case, marked, tuple(x.shape))
    assert not (reached & ~wanted).any(), "a NaN of the gradient is where no window is"
    if case.op.startswith("upfirdn"):  # an activation may be flat
        assert (reached == wanted).all(), "a NaN of the gradient is lost"
    counts.add(case, "NaN in a gradient")


def check_nan_of_scale(case: Case, t: Tensors, covered: np.ndarray, counts: Counts) -> None:
    """A NaN in one pixel is in the scale's gradient of its sample and channel, and in no other."""
    (scale,) = t["scale"]
    scale = scale.detach().requires_grad_()
    out = run(case, {**t, "scale": (scale,)})
    (grad,) = torch.autograd.grad(out, scale, torch.ones_like(out))
    reached, wanted = grad.isnan().numpy(), covered.any((2, 3))
    assert not (reached & ~wanted).any(), "a NaN is in another scale's gradient"
    slope, _, clamp = case.constants
    if slope and clamp is None:  # no flat piece takes the NaN away
        assert (reached == wanted).all(), "a NaN of the scale's gradient is lost"
    counts.add(case, "NaN in the gradient of a scale")


# Running


def fuzz(examples: int, first_seed: int, seconds: float, counts: Counts) -> int:
    """Compare so many calls; how many there were."""
    start, done = time.monotonic(), 0
    while done < examples and time.monotonic() - start < seconds:

        @settings(
            max_examples=min(ROUND, examples - done),
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        @seed(first_seed + done)
        @given(cases())
        def one(case: Case) -> None:
            nonlocal done
            done += 1
            check(case, counts)
            if case.values % 4 == 0 or "scale" in case.operands:  # few calls have a scale
                check_nan(case, counts)

        one()
    return done


def child(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    counts = Counts()
    done = fuzz(args.examples or sys.maxsize, args.seed, args.seconds or math.inf, counts)
    print(f"COUNTS {json.dumps({'calls': done, **counts.by})}", flush=True)
    return 0


def environment(backend: str) -> dict[str, str]:
    """Variables that choose it; its absence is an error."""
    variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # calls are small
    if backend == "native":
        return {**variables, "RESAMPLE_LAYERS_BACKEND": "native"}
    return {
        **variables,
        "RESAMPLE_LAYERS_BACKEND": "extension",
        "RESAMPLE_LAYERS_CPU": backend,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--examples", type=count, help="calls of each backend; default: 10,000, or --seconds")
    add("--seconds", type=positive, help="for each backend")
    add("--seed", type=int, default=0)
    add("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    add("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    if not args.examples and not args.seconds:
        args.examples = 10_000
    failed = False
    for backend in args.backends:
        variables = {**os.environ, **environment(backend), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, __file__, "--child", "--seed", str(args.seed)]
        command += ["--examples", str(args.examples)] if args.examples else []
        command += ["--seconds", str(args.seconds)] if args.seconds else []
        ended = subprocess.run(command, env=variables, capture_output=True, text=True)
        if ended.returncode and "is not one of the vector units of this processor" in ended.stderr:
            print(f"NOT RUN: fuzzing on {backend}, this processor lacks it")
            continue
        if ended.returncode:
            failed = True
            print(f"{backend}: FAILED\n{ended.stdout[-4000:]}{ended.stderr[-8000:]}")
            continue
        counts = json.loads(ended.stdout.split("COUNTS ")[1])
        calls = counts.pop("calls")
        failed |= calls == 0
        print(f"{backend}: {calls:,} calls" if calls else f"{backend}: FAILED, it made no call")
        for what, times in sorted(counts.items()):
            print(f"  {what}: {times:,}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
