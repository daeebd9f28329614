# SPDX-License-Identifier: BSD-3-Clause
"""Train a StyleGAN2 or a StyleGAN3: ``python -m examples.stylegan.train --out runs/demo``.

It learns what ``--data`` says, scikit-learn's handwritten digits by default; ``--config`` takes
settings from a file, such as config-f-256, which other options change. On several GPUs, or
processes of a CPU: ``torchrun --nproc-per-node 8 -m examples.stylegan.train ...``.

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
``diverged.pt``       networks and optimisers before the update that was not finite
"""

from __future__ import annotations

if not __package__:  # the imports below would fail without saying why
    raise SystemExit(
        "train.py must be run as a module, from the root of the clone: "
        "python -m examples.stylegan.train --out FOLDER"
    )

import argparse
import contextlib
import importlib.util
import math
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .console import Parser, ending_without_output, parse_folder
from .data import load
from .decode import ImageError
from .device import is_out_of_memory
from .evaluate import check_inception, evaluate, find_inception, format_report
from .files import explain_write, say
from .processes import World, join
from .run import Run
from .settings import CONFIGS, FIXED, Settings, absolute, load_config
from .training import DivergedError, Training

STOPPED = 130  # the exit status of a run that was asked to stop


def parse(argv: Sequence[str] | None) -> tuple[Parser, argparse.Namespace]:
    parser = Parser(
        prog="python -m examples.stylegan.train",
        description="Train a StyleGAN2 or StyleGAN3 on digits, photographs or a folder of images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    names = ", ".join(path.stem for path in sorted(CONFIGS.glob("*.toml")))
    add("--out", type=parse_folder, required=True, metavar="FOLDER", help="where results go")
    add("--config", metavar="NAME", help=f"settings from a file, or one of {names}")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--overwrite", action="store_true", help="delete the run in --out, and start anew")
    add("--device", default="auto", help="cpu, cuda or cuda:N; auto: a GPU where there is one")
    add("--threads", type=int, default=1, help="CPU threads; 0: all cores, for larger networks")
    add("--accumulate", type=int, default=1, help="rounds to a step, for less memory")
    add("--workers", type=int, default=0, help="processes that read --data's images when needed")
    add("--compile", action="store_true", help="compile the networks first")
    add("--cuda-graphs", action="store_true", help="repeat CUDA graphs of a step: GPU, one process")
    add("--tensorboard", action="store_true", help="write for TensorBoard too")
    add("--samples", type=int, default=1000, help="samples to evaluate")
    add("--inception", metavar="FILE", help="weights for FID; else where torch-fidelity keeps them")
    add("--log-every", type=int, default=10, metavar="STEPS", help="line of metrics")
    add("--save-every", type=int, default=500, metavar="STEPS", help="checkpoint and samples")
    for f in fields(Settings):
        name, default = "--" + f.name.replace("_", "-"), argparse.SUPPRESS  # only what is said
        help = f"{f.metadata['help']} (default: {f.default!r})"
        if isinstance(f.default, bool):
            add(name, action=argparse.BooleanOptionalAction, default=default, help=help)
        else:
            choices = f.metadata["choices"]
            add(name, type=type(f.default), default=default, choices=choices, help=help)
    args = parser.parse_args(argv)
    try:
        said = {} if args.config is None else load_config(args.config)
        names_of_settings = {f.name for f in fields(Settings)}
        args.said = said | {k: v for k, v in vars(args).items() if k in names_of_settings}
        if "data" in args.said:
            args.said["data"] = absolute(args.said["data"])
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for name, low, high in (
        ("samples", 2, 1_000_000),
        ("log_every", 1, math.inf),
        ("save_every", 1, math.inf),
        ("threads", 0, 1024),
        ("accumulate", 1, math.inf),
        ("workers", 0, 1024),
    ):
        value, option = getattr(args, name), "--" + name.replace("_", "-")
        if value < low:
            parser.error(f"{option} must be >= {low}, got {value}")
        if value > high:
            parser.error(f"{option} must be <= {high:,}, got {value}")
    return parser, args


def prepare(
    args: argparse.Namespace, run: Run, world: World, device: torch.device
) -> tuple[Training, Path | None]:
    """Everything that can be at fault before the first step; and Inception's weights, if any."""
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs the package tensorboard, got none installed")
    inception = pick_inception(args.inception, run.main)
    if not (args.resume or args.overwrite):
        run.check_free()
    state = run.read() if args.resume else None
    settings = Settings(**args.said) if state is None else resumed_settings(state, args.said, run)
    settings.check()
    run.check_apart(settings.data)
    try:
        images = load(
            settings.data,
            settings.resolution,
            args.workers,
            settings.background,
            settings.skip_broken,
            world,
        )
    except (OSError, ValueError) as error:
        if state is None or "data" in args.said:
            raise
        raise ValueError(
            f"{error}; that is the --data of the checkpoint {run.checkpoint}: say --data to name "
            "another place"
        ) from error
    if state is not None and images.fingerprint() != state["images"] and "data" not in args.said:
        raise ValueError(
            f"--resume needs the images of the earlier run, got {images.fingerprint()} for "
            f"{state['images']}: say --data to go on with other images"
        )
    how = (args.accumulate, args.workers, args.compile, args.cuda_graphs)
    training = Training(settings, images, device, world, *how)
    if state is not None:
        try:
            training.load_state_dict(state)
        except (ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
            raise ValueError(f"--resume cannot go on with {run.checkpoint}: {reason}") from error
    run.begin(training, resumed=state is not None)
    return training, inception


def resumed_settings(state: dict[str, Any], said: dict[str, Any], run: Run) -> Settings:
    """The settings of the earlier run, but for what the command line or the config says."""
    try:
        before = Settings.restore(state["settings"])
    except ValueError as error:
        raise ValueError(f"--resume cannot go on with {run.checkpoint}: {error}") from error
    settings = replace(before, **said)
    changed = {
        f.name: (getattr(before, f.name), getattr(settings, f.name))
        for f in fields(Settings)
        if getattr(before, f.name) != getattr(settings, f.name)
    }
    fixed = ", ".join(f"{n}={new!r} for {old!r}" for n, (old, new) in changed.items() if n in FIXED)
    if fixed:
        raise ValueError(f"--resume needs networks like those of the earlier run, got {fixed}")
    if changed and run.main:
        listed = ", ".join(f"{name}={new!r} for {old!r}" for name, (old, new) in changed.items())
        say(f"going on with {listed}")
    return settings


def pick_inception(given: str | None, main: bool = True) -> Path | None:
    """Inception's weights for FID, or None; those that are found need the package too.

    Those that are found and cannot serve are left out, for nobody has asked for them.

    Args:
        given: a file that must serve; None to look for one.
        main: whether this process says what it leaves out.

    Raises:
        FileNotFoundError, ValueError: if what is given cannot serve.
    """
    installed = importlib.util.find_spec("torch_fidelity") is not None
    if given is None:
        found = find_inception() if installed else None
        try:
            if found is not None:
                check_inception(found)
        except ValueError as error:
            if main:
                print(f"note: FID is left out: {error}", file=sys.stderr, flush=True)
            return None
        return found
    if not installed:
        raise ValueError("--inception needs the package torch-fidelity, got none installed")
    if not Path(given).is_file():
        raise FileNotFoundError(f"--inception must be a file of weights, got {given!r}")
    check_inception(Path(given))
    return Path(given)


class Stop:
    """Whether Ctrl-C or SIGTERM asked to stop; the step under way is finished first.

    A second Ctrl-C does not wait for it.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self) -> Stop:
        self.asked = False
        self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        return self

    def _ask(self, number: int, _: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step", file=sys.stderr, flush=True)

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


SHOWN = ("d_loss", "g_loss", "r1", "path_length")


def shown(latest: dict[str, float]) -> dict[str, str]:
    """What the progress line shows, in its order: a penalty that is never taken has no figure."""
    return {name: f"{latest[name]:.2f}" for name in SHOWN if name in latest}


def train(training: Training, run: Run, args: argparse.Namespace) -> bool:
    """Step until the last step, or until asked to stop; whether the last was reached."""
    start, steps = time.perf_counter(), training.settings.steps
    bar = tqdm(
        total=steps,
        initial=training.steps,
        desc="training",
        unit="step",
        mininterval=0.2 if sys.stderr.isatty() else 10,  # a log wants few lines
        disable=not run.main,
    )
    with bar, Stop() as stop:
        last = training.steps >= steps
        while not last:
            training.step()
            bar.update()
            last = training.world.any(stop.asked, training.device)
            last = last or training.steps >= steps
            if training.steps % args.log_every == 0 or last:
                latest = run.log(training, time.perf_counter() - start)
                bar.set_postfix(shown(latest), refresh=False)
            if training.steps % args.save_every == 0 or last:
                training.check_finite()
                run.save(training)
                run.save_samples(training)
    return training.steps >= steps


def report(training: Training, run: Run, samples: int, inception: Path | None) -> None:
    """Evaluate, print the table, save it."""
    s = training.settings
    training.call.reset()  # for its memory
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
    say(format_report(figures))


def announce(training: Training) -> None:
    images = training.images
    networks = (training.ema, training.discriminator)
    generator, discriminator = (sum(p.numel() for p in n.parameters()) for n in networks)
    if images.summary:
        say(images.summary)
    processes = f", {training.world.size} processes" if training.world.size > 1 else ""
    say(
        f"{len(images.train):,} images of {images.name} to learn from, {len(images.held_out):,} "
        f"held out; {training.settings.resolution} pixels, {images.channels} channel(s); "
        f"parameters: generator {generator:,}, discriminator {discriminator:,}; "
        f"on {training.device}{processes}"
    )
    if training.steps >= training.settings.steps:
        say(
            f"{training.steps:,} of {training.settings.steps:,} steps are done: a higher --steps "
            "would go on"
        )


def explain(error: Exception, training: Training, run: Run) -> str | None:
    """What a failure of the training means and what to do, or None where it is none that is known.

    Where all processes fail alike they all come here, and one speaks.

    Raises:
        OSError: if what came before a failure cannot be written.
    """
    s = training.settings
    if isinstance(error, DivergedError):
        path = run.save(training, "diverged.pt")
        return (
            f"{error}; what came before that update is in {path}, {kept(run)}: go on with --resume "
            "and a lower --lr, a higher --r1-gamma or --precision float32"
        )
    if isinstance(error, ImageError):
        run.save(training)
        sentence = str(error).strip().splitlines()[-1]  # from a worker, below its traceback
        return (
            f"{sentence.rpartition('ImageError: ')[2]}; {training.steps} steps are saved: mend or "
            "remove it, and go on with --resume and --data"
        )
    if isinstance(error, OSError):
        go_on = "go on with --resume" if run.checkpoint.exists() else "start again with --overwrite"
        return f"{explain_write(error)}, after {training.steps} steps; {kept(run)}: {go_on}"
    if is_out_of_memory(error):
        share = s.batch // (training.world.size * training.accumulate)
        return (
            f"out of memory after {training.steps} steps, with {share} of {s.batch} images a round "
            f"at {s.resolution} pixels; {kept(run)}: try --accumulate {2 * training.accumulate}, a "
            f"lower --batch or --path-batch ({s.path_batch}), or --precision bfloat16 on a GPU"
        )
    return None


def kept(run: Run) -> str:
    """What an earlier save left, in words."""
    return f"{run.checkpoint} is as it was" if run.checkpoint.exists() else "nothing was saved yet"


def end_quietly(run: Run) -> None:
    """End a run that has failed: a disk that is full has been told already."""
    with contextlib.suppress(OSError):
        run.end()


@ending_without_output
def main(argv: Sequence[str] | None = None) -> int:
    parser, args = parse(argv)
    with contextlib.ExitStack() as stack:
        return go(parser, args, stack)


def go(parser: Parser, args: argparse.Namespace, until_the_end: contextlib.ExitStack) -> int:
    """All that the command does; its exit status."""
    start = time.perf_counter()

    def fail(sentence: str) -> int:
        print(f"{parser.prog}: error: {sentence}", file=sys.stderr, flush=True)
        return 1

    with contextlib.ExitStack() as stack:
        try:
            world, device = stack.enter_context(join(args.device))
            run = Run(args.out, world.rank == 0, args.tensorboard)
            until_the_end.callback(run.release)
            with run.claim():
                training, inception = prepare(args, run, world, device)
        except (OSError, ValueError) as error:
            parser.fail(str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            parser.fail(f"out of memory before the first step: {str(error).splitlines()[0]}")
        except KeyboardInterrupt:
            print("stopped before the first step", file=sys.stderr)
            return STOPPED
        stack.callback(end_quietly, run)
        # Workers that Python itself ends, when it exits, make the loader complain
        stack.callback(training.close)
        if run.main:
            announce(training)
        try:
            finished = train(training, run, args)
            run.end()
        except KeyboardInterrupt:  # the second, which does not wait for the step's end
            if run.main:
                print(f"stopped in the middle of a step; {kept(run)}", file=sys.stderr)
            return STOPPED
        except Exception as error:
            alike = isinstance(error, (DivergedError, ImageError))
            try:
                explanation = explain(error, training, run)
            except OSError as failure:
                explanation = f"{error}; {explain(failure, training, run)}"
            if explanation is None:
                raise
            if run.main or not alike:
                fail(explanation)
            return 0 if alike and not run.main else 1  # torchrun stops all where one fails
    if not run.main:  # the others have nothing to wait for
        return 0
    stopped = "stopped before the evaluation's end; --resume repeats it"
    go_on = "--resume repeats the evaluation"
    if not finished:
        stopped = f"stopped after {training.steps:,} steps; go on with --resume"
        go_on = "go on with --resume"
    try:
        run.plot_losses()
        if finished:
            report(training, run, args.samples, inception)
    except KeyboardInterrupt:
        finished = False
    except OSError as error:
        return fail(f"{explain_write(error)}; {kept(run)}: {go_on}")
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return fail(
            f"out of memory in the evaluation; {kept(run)}: try a lower --samples with --resume, "
            "which repeats it"
        )
    if not finished:
        print(stopped, file=sys.stderr)
        return STOPPED
    say(f"{time.perf_counter() - start:.0f} s in all; see {run.folder}/samples.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
