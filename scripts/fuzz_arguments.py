# SPDX-License-Identifier: BSD-3-Clause
"""Odd values for every argument of every public function and layer.

    python scripts/fuzz_arguments.py --runs 200000              # needs atheris, the extra "fuzz"
    python scripts/fuzz_arguments.py --runs 20000 --random      # the same without coverage

A call either works, or it raises a TypeError or a ValueError that the package itself states, on one
line of at most 400 characters. Memory that is lacking for what was validly asked is no fault of the
arguments. With atheris, values that reach new code in the package are kept and changed further.
``tests/test_fuzz.py`` does the same with Hypothesis.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import linecache
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if "--random" not in sys.argv:  # it changes the code as it is imported
        import atheris

        with atheris.instrument_imports(include=["resample_layers"], enable_loader_override=False):
            import resample_layers  # noqa: F401

import numpy as np  # noqa: E402
import torch  # noqa: E402

from scripts.options import count  # noqa: E402
from tests import test_compat  # noqa: E402
from tests.test_public_calls import CASES, PUBLIC  # noqa: E402

PACKAGE = str(ROOT / "resample_layers")
LONGEST = 400  # characters of a sentence

# What checks nothing: formulas over ints, the Functions, and sums over taps that normalise_taps has
# checked; and normalise_taps itself, which takes the name that its sentences begin with.
# docs/reliability.md names those that the site shows
UNCHECKED = {name for name in PUBLIC if name.startswith("geometry.")} | {
    "ops.UpFirDn2d",
    "ops.UpFirDn2dBackward",
    "filters.normalise_taps",
    "filters.marginals",
    "filters.deviation_from_rank_one",
    "filters.centroid",
}

# Of the conventions of other codes, torch's own functions
UNCHECKED_OF_COMPAT = {"conv2d", "conv_transpose2d", "no_weight_gradients"}
# With both factors 1 it raises a NotImplementedError, as the original does
SMOOTH = "compat.basicsr.UpFirDnSmooth"
# It calls any function that it was given, whose errors are its own
ACTIVATION = "compat.bigvgan.Activation1d"


class Odd:
    """Its repr is long."""

    def __repr__(self) -> str:
        return "Odd(" + "x" * 1000 + ")"


class Index:
    """What stands for an int, as numpy's integers do."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


ATOMS: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, 5, -1, -7, 2**40, -(2**40), 2**62, 10**400, -(10**400),
    0.0, -0.0, 0.25, 0.5, 1.0, 2.0, 2.5, -1.0, 60.0, 1e308, 5e-324, float("nan"), float("inf"),
    -float("inf"), Fraction(1, 3), Fraction(10**400), Decimal("0.5"), Decimal("NaN"), 1j, "",
    "zeros", "reflect", "replicate", "circular", "lrelu", "linear", "same", "x" * 500, b"x",
    np.int64(2), np.uint8(3), np.float32(0.5), np.float64("nan"), np.bool_(True), np.array(3),
    np.array([1.0, 2.0]), np.ones((2, 3)), np.array(["a"]), np.array([], float), Ellipsis,
    torch.float32, torch.device("meta"), slice(0), range(3), {}, {1: 2}, set(), object(), Odd(),
    Index(2), Index(2**70), len, int,
)  # fmt: skip
SHAPES = (
    (), (0,), (1,), (2,), (3,), (12,), (3, 2), (1, 1), (0, 2), (3, 9), (2, 3, 9), (2, 3, 8, 7),
    (2, 3, 4, 5, 6), (0, 3, 8, 7), (2, 0, 8, 7), (2, 3, 0, 7), (1, 1, 1, 1), (1, 1, 1, 1, 1, 1),
)  # fmt: skip
DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool,
    torch.complex64, torch.uint8,
)  # fmt: skip

Choose = Callable[[int], int]  # of so many


def odd_value(choose: Choose, depth: int = 2) -> Any:
    kind = choose(8)
    if kind < 4:
        return ATOMS[choose(len(ATOMS))]
    if kind < 6:
        device = ("cpu", "cpu", "cpu", "meta", "sparse")[choose(5)]
        x = torch.ones(SHAPES[choose(len(SHAPES))], dtype=DTYPES[choose(len(DTYPES))])
        x = x.to_sparse() if device == "sparse" else x.to(device)
        return x.requires_grad_() if x.is_floating_point() and choose(4) == 0 else x
    length = choose(8)
    values = [
        odd_value(choose, depth - 1) if depth else ATOMS[choose(len(ATOMS))] for _ in range(length)
    ]
    return values if kind == 6 else tuple(values)


IMAGES, SIGNALS = torch.ones(2, 3, 8, 7), torch.ones(2, 3, 9)


def targets() -> dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], Any]]:
    """Functions by name: required arguments, optional ones, and the input of a layer."""
    found: dict[str, Any] = {}
    for name, function in PUBLIC.items():
        if name not in UNCHECKED:
            case = CASES[name]
            required = tuple(
                x.detach() if isinstance(x, torch.Tensor) else x for x in case.required
            )
            x = None if case.input is None else case.input.detach().float()
            found[name] = function, required, case.defaults, x
    for module, function_name in test_compat.PUBLIC:
        module_of = importlib.import_module(f"resample_layers.compat.{module}")
        function = getattr(module_of, function_name)
        if not callable(function) or function_name in UNCHECKED_OF_COMPAT:
            continue
        signature = inspect.signature(function).parameters.values()
        required = tuple(test_compat.GIVEN[p.name] for p in signature if p.default is p.empty)
        defaults = {p.name: p.default for p in signature if p.default is not p.empty}
        is_layer = isinstance(function, type)
        x = SIGNALS if module == "bigvgan" else IMAGES
        found[f"compat.{module}.{function_name}"] = (
            function, required, defaults, x if is_layer else None
        )  # fmt: skip
    return found


TARGETS = targets()
NAMES = sorted(TARGETS)


def call(choose: Choose, outcomes: Counter[str]) -> None:
    """One call; an AssertionError says what came out that should not."""
    name = NAMES[choose(len(NAMES))]
    function, required, defaults, x = TARGETS[name]
    args, kwargs = list(required), dict(defaults)
    for _ in range(1 + choose(3)):
        i = choose(len(args) + len(kwargs) + (x is not None))
        if i < len(args):
            args[i] = odd_value(choose)
        elif i < len(args) + len(kwargs):
            kwargs[list(kwargs)[i - len(args)]] = odd_value(choose)
        else:
            x = odd_value(choose)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = function(*args, **kwargs)
            is_foreign = name == ACTIVATION and not isinstance(out.act, torch.nn.Module)
            if isinstance(out, torch.nn.Module) and x is not None and not is_foreign:
                out(x)
        outcomes["worked"] += 1
    except Exception as error:
        if name == SMOOTH and type(error) is NotImplementedError:
            outcomes["NotImplementedError"] += 1
            return
        if fault := fault_of(error):
            raise AssertionError(fault, f"{name}(*{args}, **{kwargs}) of {x}", error) from error
        outcomes[type(error).__name__] += 1


def fault_of(error: Exception) -> str:
    """Why an error should not have come out, or nothing."""
    text = str(error)
    lacks_memory = ("memory", "Storage size calculation overflowed", "too big", "overflow")
    if isinstance(error, (RuntimeError, MemoryError)) and any(w in text for w in lacks_memory):
        return ""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    assert frame is not None
    file = frame.tb_frame.f_code.co_filename
    line = linecache.getline(file, frame.tb_lineno).strip()
    where = f" ({Path(file).name}:{frame.tb_lineno}, {line})"
    if type(error) not in (TypeError, ValueError):
        return f"it is a {type(error).__name__}{where}"
    if not file.startswith(PACKAGE) or not line.startswith("raise "):
        return f"it is not the package's own{where}"
    if len(text) > LONGEST or not text.isprintable():
        return f"it is no short sentence{where}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--runs", type=count, default=100_000)
    add("--seed", type=int, default=0)
    add("--random", action="store_true", help="without atheris; goes on after a fault")
    args = parser.parse_args()
    torch.set_num_threads(1)
    outcomes: Counter[str] = Counter()
    if args.random:
        faults: Counter[str] = Counter()
        for number in range(args.runs):
            rng = random.Random(f"{args.seed} {number}")
            try:
                call(rng.randrange, outcomes)
            except AssertionError as error:
                fault, what, cause = error.args
                if not faults[fault]:
                    print(
                        f"FAILED [{args.seed}, {number}]: {fault}: {str(cause)[:200]}; {what[:300]}"
                    )
                faults[fault] += 1
        print(f"{args.runs:,} calls of {len(NAMES)} functions: {dict(outcomes)}")
        print(f"{sum(faults.values()):,} faults")
        return int(bool(faults))

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        call(lambda n: provider.ConsumeIntInRange(0, n - 1), outcomes)
        if sum(outcomes.values()) == args.runs:
            print(f"{args.runs:,} calls of {len(NAMES)} functions: {dict(outcomes)}", flush=True)

    atheris.Setup(
        [sys.argv[0], f"-runs={args.runs}", f"-seed={args.seed + 1}", "-max_len=400"], one
    )
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
