# SPDX-License-Identifier: BSD-3-Clause
"""``python -m resample_layers.info``: what runs on this machine, and why the rest does not."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import os
import platform
import warnings
from pathlib import Path

import torch

from .ops import extension, library_file
from .ops.owner import OWNER
from .version import __version__

VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
OWN_VARIABLES = (extension.VARIABLE, "RESAMPLE_LAYERS_CPU")
"""Those of the package that are read when it runs; all others of its prefix are not."""


def report() -> str:
    """The whole report, as text."""
    return "\n".join([*_versions(), *_libraries(), *_backends(), *_environment()])


def _versions() -> list[str]:
    here, owner = str(Path(__file__).resolve().parent), OWNER.folder
    return [
        "versions",
        f"  resample_layers  {__version__}  ({here})",
        *([] if owner == here else [f"                   its operators are those of {owner}"]),
        f"  torch            {torch.__version__}",
        f"  Python           {platform.python_version()}  ({platform.platform()})",
        f"  CUDA             {_cuda()}",
    ]


def _cuda() -> str:
    if torch.version.hip is not None:
        return f"none: torch is built for ROCm {torch.version.hip}"
    if torch.version.cuda is None:
        return "none: torch is built for the CPU only"
    driver = extension.driver_version()
    served = f"serves up to {driver // 1000}.{driver % 1000 // 10}" if driver else "not found"
    return f"{torch.version.cuda} in torch; driver: {served}"


def _libraries() -> list[str]:
    lines = ["libraries"]
    for device in ("cpu", "cuda"):
        path = extension.library_path(device)
        lines.append(f"  {device:<5} {path}")
        if device == "cuda" and extension.is_absent(path) and not extension.finds_gpu():
            lines.append("        does not exist; it is for NVIDIA GPUs, and none is found here")
            continue
        if differs_from_record(path):
            lines.append(
                "        its bytes are not those that were installed: a tool has rewritten it, or "
                f"it is damaged; to have it anew: {extension.REBUILD}"
            )
        try:
            _, info = extension.open_library(device)
        except extension.UnavailableError as error:
            lines.append(f"        {error}")
            continue
        lines.append(
            f"        for torch {info['target']} and newer; built with the headers of torch "
            f"{info['headers']}, compiler {info['compiler']}"
        )
        if device == "cuda":
            lines.append(
                f"        CUDA {info['cuda']}, architectures {info['architectures']}; needs a "
                f"driver that serves CUDA {info['cuda'].split('.')[0]}.0"
            )
    return lines


def differs_from_record(path: Path) -> bool:
    """Whether a file has another digest than the installer wrote down; False where it wrote none.

    The list of installed files and their digests: PEP 376 and
    https://packaging.python.org/specifications/recording-installed-packages/#the-record-file
    """
    if library_file.find_fault(path) is not None:  # told elsewhere; reading a FIFO would not end
        return False
    site = extension.SITE
    record = site / f"resample_layers-{__version__}.dist-info" / "RECORD"
    try:
        for name, digest, *_ in csv.reader(record.read_text().splitlines()):
            method, _, expected = digest.partition("=")
            if site / name == path and method == "sha256":
                found = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
                return found.rstrip(b"=").decode() != expected
    except (OSError, ValueError):  # no such list, or one in another form
        pass
    return False


def _backends() -> list[str]:
    lines = ["backends"]
    if "cuda" in extension.deferred and torch.cuda.is_available():
        # A warning, or the error of a backend forced in vain: the reason is printed below
        with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
            warnings.simplefilter("ignore")
            extension.deferred["cuda"].decide()
    for device in ("cpu", "cuda"):
        if device in extension.choices:
            choice = extension.choices[device]
            lines.append(f"  {device:<5} {choice.backend}: {choice.reason}")
        else:
            lines.append(f"  {device:<5} no such device is visible")
    lines.append("  other devices  native")
    return lines


def _environment() -> list[str]:
    names = sorted(n for n in os.environ if n.startswith("RESAMPLE_LAYERS_") or n in VARIABLES)
    lines = [f"  {name}={os.environ[name]}{_say_unread(name)}" for name in names]
    return ["environment", *(lines or ["  no variable that matters is set"])]


def _say_unread(name: str) -> str:
    return "" if name in OWN_VARIABLES + VARIABLES else "  (not read when the package runs)"


if __name__ == "__main__":
    print(report())
