# SPDX-License-Identifier: BSD-3-Clause
"""Texture sticking, and its cure: ``python -m examples.stylegan.sticking --out runs/sticking``.

1. It trains two small networks on handwritten digits, each on a core of its own, with the same
   settings: a StyleGAN3 (``digits-t``), and a StyleGAN2 whose constant is replaced by the same kind
   of Fourier features (``digits-fourier``), so that it can be moved too.
2. It prints the equivariance of both, in decibels.
3. It writes ``strip.png``: for each network, images that are drawn farther and farther to the
   right; and below each, how far it is from the first one, moved: black where they are equal.

A run that was stopped, by Ctrl-C or SIGTERM, goes on when the command is given again, and so does
one that was killed after its first checkpoint. Where there is no checkpoint yet, ``--overwrite``
deletes what is there and starts anew.
"""

from __future__ import annotations

if not __package__:  # the imports below would fail without saying why
    raise SystemExit(
        "sticking.py must be run as a module, from the root of the clone: "
        "python -m examples.stylegan.sticking --out FOLDER"
    )

import argparse
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import equivariance
from .checkpoints import load
from .console import Parser, ending_without_output, parse_folder
from .data import to_bytes
from .files import explain_write, say, writable
from .generate import Sampler, parse_seeds, save_png, tile, to_picture
from .run import Run
from .settings import Settings, load_config
from .transforms import moved, translation

CONFIGS = ("digits-t", "digits-fourier")  # from the top of the picture to its bottom
SHIFTS = 5  # images of each seed in the strip, each a pixel farther to the right
ENLARGED = 2  # times, in the strip
ROOT = Path(__file__).parents[2]
REPORT_SECONDS = 30
STOPPED = 130  # the exit status after Ctrl-C


class TrainingFailedError(RuntimeError):
    """A training ended with an error, which its log has."""


def train(folder: Path, steps: int | None, overwrite: bool = False) -> None:
    """Train the networks of :data:`CONFIGS` at the same time, or go on with it.

    Args:
        folder: where the runs are, or are to be.
        steps: of each training; None for what its config says.
        overwrite: delete the runs, and start anew.

    Raises:
        TrainingFailedError: if one of them fails; the other is stopped then, and saves what it has.
        KeyboardInterrupt: if one of them is stopped from outside, as if this process were.
    """
    with ExitStack() as stack:
        processes, starts = {}, {}
        for config in CONFIGS:
            run = folder / config
            log = stack.enter_context(open(folder / f"{config}.log", "ab"))
            starts[config] = log.tell()  # what stands before is of an earlier call
            command = [sys.executable, "-m", "examples.stylegan.train", "--config", config]
            command += ["--out", str(run.absolute()), "--device", "cpu", "--threads", "1"]
            command += ["--samples", "200", "--save-every", "100"]
            command += [] if steps is None else ["--steps", str(steps)]
            if overwrite:
                command += ["--overwrite"]
            elif (run / "checkpoint.pt").exists():
                command += ["--resume"]
            with uninterrupted():  # or else the training could run on without this process
                process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
                stack.callback(end, process)
            processes[config] = process
        while any(process.poll() is None for process in processes.values()):
            failed = [config for config, process in processes.items() if process.poll()]
            if failed:
                break
            wait(list(processes.values()), REPORT_SECONDS)
            say(", ".join(f"{config}: step {steps_of(folder / config):,}" for config in CONFIGS))
        for config, process in processes.items():
            if process.poll() == STOPPED:
                raise KeyboardInterrupt
            if process.poll():
                said = (folder / f"{config}.log").read_bytes()[starts[config] :]
                lines = [line for line in said.decode(errors="replace").split("\n") if line]
                reason = lines[-1] if lines else f"it ended with status {process.returncode}"
                raise TrainingFailedError(f"the training of {config} failed: {reason}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Let a training that still runs save what it has, and end."""
    if process.poll() is None:
        process.terminate()
        process.wait()


def interrupt(number: int, frame: Any) -> NoReturn:
    """Take a signal for Ctrl-C, or else the trainings would run on without this process."""
    raise KeyboardInterrupt


@contextmanager
def handling(handler: Callable[[int, Any], Any], *numbers: int) -> Iterator[None]:
    """Let ``handler`` take these signals, but for those that are ignored.

    In another thread than the main one, where Python takes no signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    before = {n: earlier for n, earlier in before.items() if earlier not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the body has ended."""
    came: list[int] = []
    with handling(lambda number, _: came.append(number), signal.SIGINT, signal.SIGTERM):
        yield
    if came:
        raise KeyboardInterrupt


def wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait until all processes have ended, or one has failed, or for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        codes = [process.poll() for process in processes]
        if any(codes) or None not in codes:
            return
        time.sleep(0.2)


def steps_of(folder: Path) -> int:
    """Steps that a run has written metrics of."""
    lines = Run(folder).read_metrics()
    return int(lines[-1]["step"]) if lines else 0


@torch.no_grad()
def strip(sampler: Sampler, seeds: Sequence[int]) -> list[Tensor]:
    """Bytes [C, H, W]: the images of all seeds and shifts, then their differences."""
    generator = sampler.generator
    styles, noise = generator.repeat(sampler.w(seeds)), sampler.noise_of(seeds)
    still = generator.synthesis(styles, noise)
    drawn, differences = [], []
    for pixels in range(SHIFTS):
        shift = pixels / generator.resolution
        with moved(generator, translation(shift, 0.0)):
            images = generator.synthesis(styles, noise)
        reference, mask = equivariance.translate_by_pixels(still, shift, 0.0)
        drawn.append(images)
        differences.append((images - reference).abs() * mask - 1)
    rows = (torch.stack(part, 1).flatten(0, 1) for part in (drawn, differences))
    return [image for row in rows for image in to_bytes(row)]


@ending_without_output
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m examples.stylegan.sticking",
        description="Train a small StyleGAN3 and a StyleGAN2 alike, and compare how they move.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--out",
        type=parse_folder,
        required=True,
        metavar="FOLDER",
        help="where both runs and the picture go",
    )
    add("--overwrite", action="store_true", help="delete both runs in --out, and start anew")
    add("--steps", type=int, metavar="N", help="of both trainings; default: those of the configs")
    add("--images", type=int, default=200, metavar="N", help="to measure")
    add("--seeds", type=parse_seeds, default="0-2", help="of the strip: numbers and ranges")
    args = parser.parse_args(argv)
    for name in ("steps", "images"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be >= 1, got {value}")
    start, folder, rows = time.perf_counter(), args.out, list[Tensor]()
    names = ("strip.png", *(f"{config}.log" for config in CONFIGS))
    try:
        with handling(interrupt, signal.SIGTERM):
            with writable(folder, names):
                pass
            train(folder, args.steps, args.overwrite)
            torch.set_num_threads(2)
            for config in CONFIGS:
                settings = Settings(**load_config(config))
                generator = load(folder / config / "checkpoint.pt").generator
                decibels = equivariance.measure(generator, args.images)
                say(
                    f"\n{config}: {settings.network} with Fourier features, "
                    f"{steps_of(folder / config):,} steps of {settings.batch} images\n"
                    f"{equivariance.format_decibels(decibels)}"
                )
                rows += strip(Sampler(generator), args.seeds)
            picture = to_picture(tile(rows, SHIFTS * len(args.seeds)))
            size = (picture.width * ENLARGED, picture.height * ENLARGED)
            path = save_png(picture.resize(size, resample=0), folder / "strip.png")
    except TrainingFailedError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        parser.fail(explain_write(error))
    except (ValueError, FloatingPointError) as error:
        parser.fail(str(error))
    except KeyboardInterrupt:
        runs = [Run(folder / config) for config in CONFIGS]
        if any(run.metrics.exists() and not run.checkpoint.exists() for run in runs):
            print("stopped before the first checkpoint; --overwrite starts anew", file=sys.stderr)
        else:
            how = " without --overwrite" if args.overwrite else ""
            print(f"stopped; the same command{how} goes on", file=sys.stderr)
        return STOPPED
    say(f"\n{time.perf_counter() - start:.0f} s in all; see {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
