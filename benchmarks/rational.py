# SPDX-License-Identifier: BSD-3-Clause
"""Resampling of signals by rational rates beside julius and torchaudio, filters of equal length."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

import numpy as np
import torch
from scipy.signal import resample_poly

from resample_layers import UpFirDnResample1d
from resample_layers.filters import kaiser_lowpass

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

SHAPES = ((1, 1, 441000), (16, 2, 44100))
RATES = ((48000, 44100), (16000, 44100), (44100, 48000), (16000, 48000))  # (to, from)
ZEROS = 24  # zero crossings on each side of the filter: julius' default


def peers(up: int, down: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    found: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    try:
        import julius

        found["julius"] = julius.ResampleFrac(down, up, zeros=ZEROS, rolloff=1.0)
    except ImportError:
        print("NOT RUN: julius, not installed")
    try:
        import torchaudio

        found["torchaudio"] = torchaudio.transforms.Resample(
            down, up, lowpass_filter_width=ZEROS, rolloff=1.0
        )
    except ImportError:
        print("NOT RUN: torchaudio, not installed")
    return found


def measure(seconds: float) -> list[Row]:
    """Time every cell."""
    rows: list[Row] = []
    for shape in SHAPES:
        x = torch.randn(shape)
        for to, of in RATES:
            up, down = to // gcd(to, of), of // gcd(to, of)
            numtaps = 2 * ZEROS * max(up, down) + 1
            taps = kaiser_lowpass(numtaps, 1 / max(up, down), 5.0)
            calls = {"ours": UpFirDnResample1d(up, down, taps), **peers(up, down)}
            with torch.no_grad():
                found = calls["ours"](x)
                for name, call in calls.items():
                    assert abs(call(x).shape[-1] - found.shape[-1]) <= 1, name
                times = interleaved({n: lambda c=c, x=x: c(x) for n, c in calls.items()}, seconds)
            signal = x[0, 0].double().numpy()
            truth = torch.from_numpy(resample_poly(signal, up, down, window=np.array(taps)))
            rows.append(
                {
                    "shape": "x".join(map(str, shape)),
                    "rate [Hz]": f"{of} to {to}",
                    "taps": numtaps,
                    **timing("ours [ms]", times["ours"], 1e-3, *times.values()),
                    **{
                        f"{name} / ours": digits(median(times[name]) / median(times["ours"]))
                        if name in times
                        else "NOT RUN"
                        for name in ("julius", "torchaudio")
                    },
                    "deviation": deviation(found[0, 0], truth),
                }
            )
            print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def report(rows: list[Row]) -> str:
    names = (
        *("shape", "rate [Hz]", "taps", "ours [ms]", "julius / ours", "torchaudio / ours"),
        "deviation",
    )
    explained = (
        "of ours from scipy's `resample_poly` in float64, with the same taps, relative to the "
        "largest output"
    )
    return f"""\
`UpFirDnResample1d` beside `julius.ResampleFrac` and `torchaudio.transforms.Resample`, all float32,
forward, with {ZEROS} zero crossings on each side of the filter; medians. The window functions
differ, so the samples do too. {about(rows, explained)}

{table([*names, SPREAD], [[*(row.get(name, "") for name in names), widest([row])] for row in rows])}
"""
