# SPDX-License-Identifier: BSD-3-Clause
"""What one eager call costs beside its arithmetic: a 1x1x4x4 tensor, validation included."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from resample_layers import UpFirDnSmooth
from resample_layers.ops import extension, upfirdn2d

from .measure import (
    SPREAD,
    Row,
    about,
    deviation,
    digits,
    interleaved,
    median,
    table,
    timing,
    widest,
)

CALLS = 200
COMPOSITE = "pad + conv2d"


def measure(seconds: float) -> list[Row]:
    """Time calls without and with gradient."""
    torch.set_num_threads(1)  # nothing here is worth a second one
    x = torch.randn(1, 1, 4, 4)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(taps, taps)
    weight = kernel.flip(0, 1)[None, None]
    layer = UpFirDnSmooth()  # of taps that sum to 1, so are those above
    rows: list[Row] = []
    for learn in (False, True):
        image = x.clone().requires_grad_(learn)
        calls = {
            COMPOSITE: lambda x=image, weight=weight: F.conv2d(F.pad(x, (2, 1, 2, 1)), weight),
            "upfirdn2d, 4x4": lambda x=image: upfirdn2d(x, kernel, pad=(2, 1)),
            "upfirdn2d, 4 taps": lambda x=image: upfirdn2d(x, taps, pad=(2, 1)),
            "UpFirDnSmooth": lambda x=image: layer(x),
        }

        def repeat(call):  # type: ignore[no-untyped-def]
            for _ in range(CALLS):
                call()

        times = interleaved(
            {name: lambda call=call: repeat(call) for name, call in calls.items()}, seconds
        )
        truth = calls[COMPOSITE](image.double(), weight.double())
        for name, values in times.items():
            found = calls[name]()
            rows.append(
                {
                    "gradient": "with" if learn else "without",
                    "call": name,
                    "backend": extension.choices["cpu"].backend,
                    **timing("time [us]", values, 1e-6 * CALLS),
                    "/ pad + conv2d": digits(median(values) / median(times[COMPOSITE])),
                    "deviation": deviation(found, truth),
                }
            )
            print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def report(rows: list[Row]) -> str:
    names = ("gradient", "call", "time [us]", "/ pad + conv2d", "deviation")
    lines = [[*(row.get(name, "") for name in names), widest([row])] for row in rows]
    return f"""\
Backend: {rows[0]["backend"]}. One thread; forward only, validation included. Goal: at most 0.25 of
`pad` and `conv2d` without gradient, 0.33 with it.
{about(rows, "from the composite in float64")}

{table([*names, SPREAD], lines)}
"""
