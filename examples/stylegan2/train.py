# SPDX-License-Identifier: BSD-3-Clause
"""Train a StyleGAN2: ``python -m examples.stylegan2.train --out runs/demo``.

It learns what ``--data`` says, scikit-learn's handwritten digits by default; ``--config`` takes
settings from a file, such as config-f-256, which other options change. On several GPUs, or
processes of a CPU: ``torchrun --nproc-per-node 8 -m examples.stylegan2.train ...``.

It leaves in ``--out``:

``checkpoint.pt``     everything, to go on with ``--resume``, on any number of processes; on one
                      process of the CPU a run that was stopped, or killed, and resumed, with as
                      many threads, equals one that ran through, bit for bit
``metrics.jsonl``     losses and penalties, one JSON object a line
``losses.png``        the same as curves
``samples/*.png``     the averaged generator's images of the same latents, as training goes on
``samples.png``       the last of them
``evaluation.json``   the table that the run ends with
``tensorboard/``      with ``--tensorboard``
``diverged.pt``       networks and optimisers before the step whose loss was not finite
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .data import ImageError, load
from .evaluate import evaluate, find_inception, format_report
from .processes import World, join
from .run import Run
from .settings import CONFIGS, Settings, load_config
from .training import DivergedError, Training

STOPPED = 130  # the exit status of a run that was asked to stop


def parse(argv: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m examples.stylegan2.train",
        description="Train a StyleGAN2 on handwritten digits, photographs or a folder of images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    names = ", ".join(path.stem for path in sorted(CONFIGS.glob("*.toml")))
    add("--out", required=True, metavar="FOLDER", help="where results go")
    add("--config", metavar="NAME", help=f"settings from a file, or one of {names}")
    add("--steps", type=int, default=2500, help="steps to train for, those before a resume too")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--overwrite", action="store_true", help="start anew though --out holds a run")
    add("--device", default="auto", help="cpu, cuda or cuda:N; auto: a GPU where there is one")
    add("--threads", type=int, default=1, help="CPU threads; 0: all cores, for larger networks")
    add("--accumulate", type=int, default=1, help="rounds to a step: less memory, same result")
    add("--workers", type=int, default=0, help="processes that read --data's images when needed")
    add("--compile", action="store_true", help="compile the networks first")
    add("--tensorboard", action="store_true", help="write for TensorBoard too")
    add("--samples", type=int, default=1000, help="samples to evaluate")
    add("--inception", metavar="FILE", help="weights for FID; else where torch-fidelity keeps them")
    add("--log-every", type=int, default=10, metavar="STEPS", help="line of metrics")
    add("--save-every", type=int, default=500, metavar="STEPS", help="checkpoint and samples")
    for f in fields(Settings):
        name, help = "--" + f.name.replace("_", "-"), f.metadata["help"]
        if isinstance(f.default, bool):
            add(name, action=argparse.BooleanOptionalAction, default=f.default, help=help)
        else:
            choices = f.metadata["choices"]
            add(name, type=type(f.default), default=f.default, choices=choices, help=help)
    args = parser.parse_args(argv)
    if args.config is not None:
        try:
            parser.set_defaults(**load_config(args.config))
        except (OSError, ValueError) as error:
            parser.error(str(error))
        args = parser.parse_args(argv)  # what the command line says stands
    for name, low in (
        ("steps", 1),
        ("samples", 2),
        ("log_every", 1),
        ("save_every", 1),
        ("threads", 0),
        ("accumulate", 1),
        ("workers", 0),
    ):
        if getattr(args, name) < low:
            option = "--" + name.replace("_", "-")
            parser.error(f"{option} must be >= {low}, got {getattr(args, name)}")
    return parser, args


def prepare(
    args: argparse.Namespace, world: World, device: torch.device
) -> tuple[Training, Run, Path | None]:
    """Everything that can be at fault before the first step; and Inception's weights, if any."""
    settings = Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})
    settings.check()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs the package tensorboard, got none installed")
    inception = find_inception() if args.inception is None else Path(args.inception)
    if inception is not None and not inception.is_file():
        raise FileNotFoundError(f"--inception must be a file of weights, got {args.inception!r}")
    if args.inception is not None and importlib.util.find_spec("torch_fidelity") is None:
        raise ValueError("--inception needs the package torch-fidelity, got none installed")
    run = Run(args.out, world.rank == 0, args.tensorboard)
    if run.checkpoint.exists() and not (args.resume or args.overwrite):
        raise FileExistsError(
            f"--out must not hold a run, got {run.checkpoint}: add --resume to go on with it, "
            "--overwrite to start anew, or choose another folder"
        )
    images = load(settings.data, settings.resolution, args.workers)
    training = Training(
        settings, images, device, world, args.accumulate, args.workers, args.compile
    )
    if args.resume:
        run.load(training)
    run.begin(training)
    return training, run, inception


class Stop:
    """Whether Ctrl-C or SIGTERM asked to stop; the step under way is finished first."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self) -> Stop:
        self.asked = False
        self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        return self

    def _ask(self, *_: Any) -> None:
        self.asked = True

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def train(training: Training, run: Run, args: argparse.Namespace) -> bool:
    """Step until the last step, or until asked to stop; whether the last was reached."""
    start = time.perf_counter()
    bar = tqdm(
        total=args.steps,
        initial=training.steps,
        desc="training",
        unit="step",
        mininterval=0.2 if sys.stderr.isatty() else 10,  # a log wants few lines
        disable=not run.main,
    )
    with bar, Stop() as stop:
        last = training.steps >= args.steps
        while not last:
            training.step()
            bar.update()
            last = training.world.any(stop.asked, training.device)
            last = last or training.steps >= args.steps
            if training.steps % args.log_every == 0 or last:
                latest = run.log(training, time.perf_counter() - start)
                shown = ("d_loss", "g_loss", "r1", "path_length")
                values = {name: f"{latest.get(name, 0):.2f}" for name in shown}
                bar.set_postfix(values, refresh=False)
            if training.steps % args.save_every == 0 or last:
                run.save(training)
                run.save_samples(training)
    return training.steps >= args.steps


def report(training: Training, run: Run, samples: int, inception: Path | None) -> None:
    """Evaluate, print the table, save it."""
    s = training.settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(s.seed)
        untrained = training.new_generator()
    figures = evaluate(training.ema, untrained, training.images, samples, inception=inception)
    figures["training"] = {
        "steps": training.steps,
        "images": training.steps * s.batch,
        **{f"{name}_steps": count for name, count in training.counts.items()},
    }
    run.save_json("evaluation.json", figures)
    print(format_report(figures))


def announce(training: Training) -> None:
    images = training.images
    networks = (training.ema, training.discriminator)
    generator, discriminator = (sum(p.numel() for p in n.parameters()) for n in networks)
    processes = f", {training.world.size} processes" if training.world.size > 1 else ""
    print(
        f"{len(images.train):,} images of {images.name} to learn from, {len(images.held_out):,} "
        f"held out; {training.settings.resolution} pixels, {images.channels} channel(s); "
        f"parameters: generator {generator:,}, discriminator {discriminator:,}; "
        f"on {training.device}{processes}",
        flush=True,
    )


def explain(error: Exception, training: Training, run: Run) -> str | None:
    """What a failed step means and what to do, or None where it is no failure that is known."""
    words = str(error)
    s = training.settings
    kept = f"{run.checkpoint} is as it was" if run.checkpoint.exists() else "nothing was saved yet"
    if isinstance(error, DivergedError):
        path = run.save(training, "diverged.pt")
        return (
            f"{words}; its state is in {path}, {kept}: try a lower --lr, a higher --r1-gamma or "
            "--precision float32"
        )
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in words:
        share = s.batch // (training.world.size * training.accumulate)
        return (
            f"out of memory in step {training.steps}, with {share} of {s.batch} images a round at "
            f"{s.resolution} pixels; {kept}: try --accumulate {2 * training.accumulate}, a lower "
            f"--batch or --path-batch ({s.path_batch}), or --precision bfloat16 on a GPU"
        )
    if isinstance(error, ImageError):
        sentence = words.strip().splitlines()[-1]  # from a worker, below its traceback
        return f"{sentence.rpartition('ImageError: ')[2]}; in step {training.steps}, {kept}"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    parser, args = parse(argv)
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        try:
            world, device = stack.enter_context(join(args.device))
            training, run, inception = prepare(args, world, device)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        stack.callback(run.end)
        if run.main:
            announce(training)
        try:
            finished = train(training, run, args)
        except Exception as error:
            explanation = explain(error, training, run)
            if explanation is None:
                raise
            print(f"{parser.prog}: error: {explanation}", file=sys.stderr)
            return 1
    if not run.main:  # the others have nothing to wait for
        return 0 if finished else STOPPED
    run.plot_losses()
    if not finished:
        print(f"stopped after {training.steps:,} steps; go on with --resume", file=sys.stderr)
        return STOPPED
    try:
        report(training, run, args.samples, inception)
    except KeyboardInterrupt:
        print("stopped before the evaluation's end; --resume repeats it", file=sys.stderr)
        return STOPPED
    print(f"{time.perf_counter() - start:.0f} s in all; see {run.folder}/samples.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
