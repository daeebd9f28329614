# SPDX-License-Identifier: BSD-3-Clause
"""Resampling of signals by rational rates beside julius and torchaudio, filters of equal length."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

import torch

from resample_layers import UpFirDnResample1d
from resample_layers.filters import kaiser_lowpass

from .measure import command, interleaved, median, provenance, spread, table, write_section

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


def run(seconds: float) -> None:
    """Time every cell and write the section ``rational``."""
    rows = []
    for shape in SHAPES:
        x = torch.randn(shape)
        for to, of in RATES:
            up, down = to // gcd(to, of), of // gcd(to, of)
            numtaps = 2 * ZEROS * max(up, down) + 1
            taps = kaiser_lowpass(numtaps, 1 / max(up, down), 5.0)
            calls = {"ours": UpFirDnResample1d(up, down, taps), **peers(up, down)}
            with torch.no_grad():
                length = calls["ours"](x).shape[-1]
                for name, call in calls.items():
                    assert abs(call(x).shape[-1] - length) <= 1, name
                times = interleaved({n: lambda c=c, x=x: c(x) for n, c in calls.items()}, seconds)
            row = ["x".join(map(str, shape)), f"{of} to {to}", f"{numtaps}"]
            row.append(f"{1e3 * median(times['ours']):.2f} ({spread(times['ours'])})")
            for name in ("julius", "torchaudio"):
                ratio = median(times[name]) / median(times["ours"]) if name in times else 0.0
                row.append(f"{ratio:.1f}" if ratio else "NOT RUN")
            rows.append(row)
            print(*row, sep=" | ", flush=True)
    head = ["shape", "rate [Hz]", "taps", "ours [ms]", "julius / ours", "torchaudio / ours"]
    write_section(
        "rational",
        f"""## Rational rates

{provenance()}. Command: `{command()}`. `UpFirDnResample1d` beside `julius.ResampleFrac` and
`torchaudio.transforms.Resample`, all float32, forward, with {ZEROS} zero crossings on each side of
the filter; medians. The window functions differ, so the samples do too.

{table(head, rows)}
""",
    )
