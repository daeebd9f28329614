# SPDX-License-Identifier: BSD-3-Clause
"""The StyleGAN2 demo with compiled kernels and with native, at the same time, a thread each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from .measure import Row, digits, table

BACKENDS = ("native", "extension")


def measure(steps: int) -> list[Row]:
    """Train twice, side by side."""
    torch.set_num_threads(1)  # as each training has, for the head of the section
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for backend in BACKENDS:
            arguments = ["-m", "examples.stylegan.train", "--steps", str(steps)]
            environment = {**os.environ, "RESAMPLE_LAYERS_BACKEND": backend}
            runs[backend] = subprocess.Popen(
                [sys.executable, *arguments, "--out", f"{folder}/{backend}"],
                env=environment,
                stdout=subprocess.DEVNULL,
            )
        failed = [backend for backend, process in runs.items() if process.wait() != 0]
        if failed:
            raise RuntimeError(f"the demo failed with {failed}")
        seconds = {}
        for backend in BACKENDS:
            lines = (Path(folder) / backend / "metrics.jsonl").read_text().splitlines()
            seconds[backend] = json.loads(lines[-1])["seconds"]
    return [
        {
            "steps": steps,
            "backend": backend,
            "time [s]": f"{seconds[backend]:.0f}",
            "/ native": digits(seconds[backend] / seconds["native"]),
        }
        for backend in BACKENDS
    ]


def report(rows: list[Row]) -> str:
    lines = [[row[name] for name in ("backend", "time [s]", "/ native")] for row in rows]
    return f"""\
`python -m examples.stylegan.train --steps {rows[0]["steps"]}` with `RESAMPLE_LAYERS_BACKEND` as
given, both at once, one thread each; time of the training steps.

{table(["backend", "time [s]", "/ native"], lines)}
"""
