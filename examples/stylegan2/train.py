# SPDX-License-Identifier: BSD-3-Clause
"""Train a StyleGAN2: ``python -m examples.stylegan2.train --out runs/demo``.

Without ``--data`` it learns scikit-learn's handwritten digits, with ``--data FOLDER`` any folder
of images. It leaves in ``--out``:

``checkpoint.pt``     everything, to go on with ``--resume``; on the CPU a run that was stopped and
                      resumed, with as many threads, equals one that ran through, bit for bit
``metrics.jsonl``     losses and penalties, one JSON object a line
``losses.png``        the same as curves
``samples/*.png``     the averaged generator's images of the same latents, as training goes on
``samples.png``       the last of them
``evaluation.json``   the table that the run ends with
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.utils import save_image
from tqdm import tqdm

from . import losses
from .data import Images, Order, load_digits, load_folder, to_pixels
from .device import pick_device
from .discriminator import Discriminator
from .evaluate import evaluate, format_report
from .generator import Generator, channel_table

GRID = 8  # samples.png shows GRID * GRID images


def option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Settings:
    """What decides the result of a run, each an option of the command line.

    The defaults suit five minutes of two cores: StyleGAN2 itself has a learning rate of 0.002,
    a mapping network of 8 layers at a rate of 0.01, mixing of 0.9, and channels by 2 up to 512.
    """

    data: str = option("", "folder of images; without it scikit-learn's handwritten digits")
    resolution: int = option(32, "side of the images, a power of two >= 8")
    seed: int = option(0, "of weights, latents, noise and the order of the images")
    batch: int = option(16, "images in a step")
    style_dim: int = option(64, "length of latents and styles")
    mapping_layers: int = option(2, "depth of the mapping network")
    mapping_lr: float = option(0.1, "learning-rate multiplier of the mapping network")
    channel_multiplier: float = option(1 / 64, "channels: min(MAX, 16384 * MULTIPLIER / side)")
    channel_max: int = option(64, "most channels of a layer")
    lr: float = option(0.012, "learning rate of both networks")
    r1_gamma: float = option(1.0, "weight of R1: gamma / 2 * the squared gradient; 0: none")
    r1_every: int = option(16, "steps from one R1 step to the next")
    path_weight: float = option(2.0, "weight of the path-length penalty; 0: none")
    path_every: int = option(4, "steps from one path-length step to the next")
    path_batch: int = option(8, "samples in a path-length step")
    mixing: float = option(0.2, "share of samples with styles of two latents")
    ema_images: float = option(4000.0, "half-life of the generator's average, in images")
    mirror: bool = option(False, "show each image mirrored half of the time")

    def check(self) -> None:
        """Raise a ValueError that names the first option out of its range."""
        rules = [
            (("batch", "style_dim", "r1_every", "path_every", "path_batch"), 1, math.inf),
            (("mapping_layers", "seed", "r1_gamma", "path_weight", "ema_images"), 0, math.inf),
            (("mixing",), 0, 1),
        ]
        for names, low, high in rules:
            for name in names:
                value = getattr(self, name)
                if not low <= value <= high:
                    limit = f">= {low}" if high == math.inf else f"between {low} and {high}"
                    raise ValueError(f"{name} must be {limit}, got {value}")
        for name in ("lr", "mapping_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        self.channels()

    def channels(self) -> dict[int, int]:
        return channel_table(self.resolution, self.channel_multiplier, self.channel_max)


class Training:
    """Networks, optimisers and counters, and what one step does to them."""

    def __init__(self, settings: Settings, images: Images, device: torch.device) -> None:
        settings.check()
        self.settings, self.device = settings, device
        torch.manual_seed(settings.seed)
        self.generator = self.new_generator(images.channels)
        self.discriminator = channels_last(
            Discriminator(settings.resolution, images.channels, settings.channels())
        ).to(device)
        self.ema = self.new_generator(images.channels).requires_grad_(False)
        self.ema.load_state_dict(self.generator.state_dict())
        self.g_optim = lazy_adam(
            self.generator, settings.lr, settings.path_weight, settings.path_every
        )
        self.d_optim = lazy_adam(
            self.discriminator, settings.lr, settings.r1_gamma, settings.r1_every
        )
        self.train_images = images.train.to(device)
        self.order = Order(len(images.train), settings.batch, settings.seed)
        self.path_mean = torch.zeros((), device=device)
        self.steps = 0
        self.counts = {"r1": 0, "path_length": 0}
        self.latest: dict[str, float] = {}

    def new_generator(self, image_channels: int) -> Generator:
        s = self.settings
        generator = Generator(
            s.resolution, s.style_dim, s.mapping_layers, image_channels, s.channels(), s.mapping_lr
        )
        return channels_last(generator).to(self.device)

    def step(self) -> None:
        """One step of each network, the penalties where they are due, and the average."""
        s = self.settings
        real = to_pixels(self.train_images[self.order.batch(self.steps).to(self.device)])
        if s.mirror:
            mirrored = torch.rand(len(real), device=self.device) < 0.5
            real = torch.where(mirrored[:, None, None, None], real.flip(3), real)

        self.discriminator_step(real)
        if s.r1_gamma > 0 and self.steps % s.r1_every == 0:
            self.r1_step(real)
        self.discriminator.requires_grad_(False)
        self.generator_step()
        self.discriminator.requires_grad_(True)
        if s.path_weight > 0 and self.steps % s.path_every == 0:
            self.path_length_step()
        self.average()
        self.steps += 1

    def discriminator_step(self, real: Tensor) -> None:
        with torch.no_grad():
            fake = self.generator.synthesis(self.random_styles(len(real)))
        real_scores, fake_scores = self.score_both(real, fake)
        loss = losses.discriminator_loss(real_scores, fake_scores)
        self.update(self.d_optim, loss)
        self.note(d_loss=loss, real_score=real_scores.mean(), fake_score=fake_scores.mean())

    def score_both(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of both batches, from one pass.

        Real and fake images alternate, so that the groups of the minibatch standard deviation,
        every so-manieth sample, hold images of one kind, as in two passes; so long as the batch
        is a multiple of the group.
        """
        if len(real) % self.discriminator.stddev.group_size:
            return self.discriminator(real), self.discriminator(fake)
        scores = self.discriminator(torch.stack((real, fake), 1).flatten(0, 1))
        return scores[0::2], scores[1::2]

    def r1_step(self, real: Tensor) -> None:
        real = real.detach().requires_grad_()
        penalty = losses.r1_penalty(self.discriminator(real), real)
        self.update(self.d_optim, penalty * (self.settings.r1_gamma / 2 * self.settings.r1_every))
        self.counts["r1"] += 1
        self.note(r1=penalty)

    def generator_step(self) -> None:
        fake = self.generator.synthesis(self.random_styles(self.settings.batch))
        loss = losses.generator_loss(self.discriminator(fake))
        self.update(self.g_optim, loss)
        self.note(g_loss=loss)

    def path_length_step(self) -> None:
        styles = self.random_styles(self.settings.path_batch)
        lengths = losses.path_lengths(self.generator.synthesis(styles), styles)
        penalty, self.path_mean = losses.path_length_penalty(lengths, self.path_mean)
        self.update(self.g_optim, penalty * (self.settings.path_weight * self.settings.path_every))
        self.counts["path_length"] += 1
        self.note(path_length=lengths.mean(), path_penalty=penalty)

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged generator towards the generator."""
        half_life = min(self.settings.ema_images, 0.05 * self.steps * self.settings.batch)
        weight = 1 - 0.5 ** (self.settings.batch / max(half_life, 1e-8))
        for mean, new in zip(self.ema.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(new, weight)

    def random_styles(self, n: int) -> Tensor:
        """Styles [n, num_styles, style_dim] of random latents, some of two of them."""
        w, other = self.generator.mapping(
            torch.randn(2 * n, self.generator.style_dim, device=self.device)
        ).chunk(2)
        layers = self.generator.num_styles
        crossover = torch.randint(1, layers, (n,), device=self.device)
        mixed = torch.rand(n, device=self.device) < self.settings.mixing
        return self.generator.mix(w, other, torch.where(mixed, crossover, layers))

    def update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"the loss must stay finite, got {loss.item()} in step {self.steps}; "
                f"the last checkpoint is as it was: try a lower --lr or a higher --r1-gamma"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def note(self, **values: Tensor) -> None:
        self.latest.update({name: value.item() for name, value in values.items()})

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, and nothing that weights_only would refuse."""
        cuda = self.device.type == "cuda"
        return {
            "settings": asdict(self.settings),
            "steps": self.steps,
            "counts": self.counts,
            "latest": self.latest,
            "g": self.generator.state_dict(),
            "d": self.discriminator.state_dict(),
            "g_ema": self.ema.state_dict(),
            "g_optim": self.g_optim.state_dict(),
            "d_optim": self.d_optim.state_dict(),
            "path_mean": self.path_mean,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.counts, self.latest = state["steps"], state["counts"], state["latest"]
        self.generator.load_state_dict(state["g"])
        self.discriminator.load_state_dict(state["d"])
        self.ema.load_state_dict(state["g_ema"])
        self.g_optim.load_state_dict(state["g_optim"])
        self.d_optim.load_state_dict(state["d_optim"])
        self.path_mean = state["path_mean"].to(self.device)
        torch.set_rng_state(state["rng"])
        if state["rng_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng_cuda"], self.device)


def lazy_adam(module: nn.Module, lr: float, weight: float, every: int) -> torch.optim.Adam:
    """Adam for a network that has a penalty's step of its own at every ``every``-th step.

    Those make ``every + 1`` steps of ``every``; learning rate and decay are taken to the power
    that leaves them as they were per ``every`` steps. Source: StyleGAN2, appendix B.
    """
    share = every / (every + 1) if weight > 0 else 1.0
    return torch.optim.Adam(
        module.parameters(), lr=lr * share, betas=(0.0, 0.99**share), fused=True
    )


def channels_last(module: nn.Module) -> nn.Module:
    """Lay 4-D parameters out as channels_last; activations follow. A quarter less time on a CPU.

    ``module.to(memory_format=...)`` would refuse the 5-D weights of the modulated convolutions.
    """
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


# Files of a run


class Run:
    """A folder and what a training leaves in it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.metrics = self.folder / "metrics.jsonl"

    def save(self, training: Training) -> None:
        """Write the checkpoint beside the old one, then put it in its place: never half a file."""
        temporary = self.checkpoint.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            torch.save(training.state_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.checkpoint)

    def load(self, training: Training) -> None:
        """Read the checkpoint, which must be of the same settings, and cut the metrics to it."""
        if not self.checkpoint.exists():
            raise FileNotFoundError(
                f"--resume needs the checkpoint of an earlier run, got none at {self.checkpoint}"
            )
        state = torch.load(self.checkpoint, map_location=training.device, weights_only=True)
        ours, theirs = asdict(training.settings), state["settings"]
        differing = [name for name in ours if ours[name] != theirs.get(name)]
        if differing:
            pairs = ", ".join(f"{n}={ours[n]!r} for {theirs.get(n)!r}" for n in differing)
            raise ValueError(f"--resume needs the settings of the earlier run, got {pairs}")
        state["rng"] = state["rng"].cpu()
        if state["rng_cuda"] is not None:
            state["rng_cuda"] = state["rng_cuda"].cpu()
        training.load_state_dict(state)
        kept = [line for line in self.read_metrics() if line["step"] <= training.steps]
        self.metrics.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def log(self, training: Training, seconds: float) -> None:
        line = {
            "step": training.steps,
            "images": training.steps * training.settings.batch,
            "seconds": round(seconds, 3),
            **training.latest,
        }
        with open(self.metrics, "a") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> list[dict[str, float]]:
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]

    @torch.no_grad()
    def save_samples(self, training: Training) -> None:
        """A grid of the averaged generator's images, of the same latents and noise each time."""
        ema = training.ema
        z = torch.randn(GRID * GRID, ema.style_dim, generator=torch.Generator().manual_seed(1))
        images = ema(z.to(training.device), ema.fixed_noise())
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        for path in (folder / f"{training.steps:06d}.png", self.folder / "samples.png"):
            save_image(images, path, nrow=GRID, normalize=True, value_range=(-1, 1))

    def plot_losses(self) -> None:
        """The metrics as curves."""
        from matplotlib.figure import Figure

        lines = self.read_metrics()
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        panels = {
            "loss": ("d_loss", "g_loss"),
            "score": ("real_score", "fake_score"),
            "penalty": ("r1", "path_penalty", "path_length"),
        }
        for axes, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            for name in names:
                points = [(line["step"], line[name]) for line in lines if name in line]
                if points:
                    axes.plot(*zip(*points, strict=True), label=name, linewidth=0.8)
            axes.set(title=title, xlabel="step", yscale="log" if title == "penalty" else "linear")
            if axes.lines:
                axes.legend()
        figure.savefig(self.folder / "losses.png", dpi=120)


# Command line


def parse(argv: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m examples.stylegan2.train",
        description="Train a StyleGAN2 on handwritten digits or on a folder of images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", required=True, metavar="FOLDER", help="where results go")
    add("--steps", type=int, default=2500, help="steps to train for, those before a resume too")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--overwrite", action="store_true", help="start anew though --out holds a run")
    add("--device", default="auto", help="cpu, cuda or cuda:N; auto: a GPU where there is one")
    add("--threads", type=int, default=1, help="CPU threads; 0: all cores, for larger networks")
    add("--samples", type=int, default=1000, help="samples to evaluate")
    add("--log-every", type=int, default=10, metavar="STEPS", help="line of metrics")
    add("--save-every", type=int, default=500, metavar="STEPS", help="checkpoint and samples")
    for f in fields(Settings):
        name, help = "--" + f.name.replace("_", "-"), f.metadata["help"]
        if isinstance(f.default, bool):
            add(name, action="store_true", help=help)
        else:
            add(name, type=type(f.default), default=f.default, help=help)
    args = parser.parse_args(argv)
    for name, low in (
        ("steps", 1),
        ("samples", 2),
        ("log_every", 1),
        ("save_every", 1),
        ("threads", 0),
    ):
        if getattr(args, name) < low:
            option = "--" + name.replace("_", "-")
            parser.error(f"{option} must be >= {low}, got {getattr(args, name)}")
    return parser, args


def prepare(args: argparse.Namespace) -> tuple[Training, Run, Images]:
    """Everything that can be at fault before the first step."""
    settings = Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})
    settings.check()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    run = Run(args.out)
    if run.checkpoint.exists() and not (args.resume or args.overwrite):
        raise FileExistsError(
            f"--out must not hold a run, got {run.checkpoint}: add --resume to go on with it, "
            "--overwrite to start anew, or choose another folder"
        )
    if settings.data:
        images = load_folder(settings.data, settings.resolution)
    else:
        images = load_digits(settings.resolution)
    training = Training(settings, images, device)
    run.folder.mkdir(parents=True, exist_ok=True)
    if args.resume:
        run.load(training)
    else:
        run.metrics.unlink(missing_ok=True)
    return training, run, images


def train(training: Training, run: Run, args: argparse.Namespace) -> bool:
    """Step until the last step, or until Ctrl-C; whether the last was reached."""
    asked_to_stop = False

    def stop(*_: Any) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True  # the step under way is finished first

    before = signal.signal(signal.SIGINT, stop)
    start = time.perf_counter()
    bar = tqdm(
        total=args.steps,
        initial=training.steps,
        desc="training",
        unit="step",
        mininterval=0.2 if sys.stderr.isatty() else 10,  # a log wants few lines
    )
    try:
        while training.steps < args.steps and not asked_to_stop:
            training.step()
            bar.update()
            last = training.steps == args.steps or asked_to_stop
            if training.steps % args.log_every == 0 or last:
                run.log(training, time.perf_counter() - start)
                shown = ("d_loss", "g_loss", "r1", "path_length")
                values = {name: f"{training.latest.get(name, 0):.2f}" for name in shown}
                bar.set_postfix(values, refresh=False)
            if training.steps % args.save_every == 0 or last:
                run.save(training)
                run.save_samples(training)
            if last:
                break
    finally:
        bar.close()
        signal.signal(signal.SIGINT, before)
    return training.steps >= args.steps


def report(training: Training, run: Run, images: Images, samples: int) -> None:
    """Evaluate, print the table, save it."""
    s = training.settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(s.seed)
        untrained = training.new_generator(images.channels)
    figures = evaluate(training.ema, untrained, images, samples)
    figures["training"] = {
        "steps": training.steps,
        "images": training.steps * s.batch,
        **{f"{name}_steps": count for name, count in training.counts.items()},
    }
    (run.folder / "evaluation.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(format_report(figures))


def main(argv: Sequence[str] | None = None) -> int:
    parser, args = parse(argv)
    start = time.perf_counter()
    try:
        training, run, images = prepare(args)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    count = [sum(p.numel() for p in m.parameters()) for m in (training.ema, training.discriminator)]
    print(
        f"{len(images.train):,} images of {images.name} to learn from, {len(images.held_out):,} "
        f"held out; {training.settings.resolution} pixels, {images.channels} channel(s); "
        f"parameters: generator {count[0]:,}, discriminator {count[1]:,}; on {training.device}",
        flush=True,
    )
    try:
        finished = train(training, run, args)
    except FloatingPointError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    run.plot_losses()
    if not finished:
        print(f"stopped after {training.steps:,} steps; go on with --resume", file=sys.stderr)
        return 130
    try:
        report(training, run, images, args.samples)
    except KeyboardInterrupt:
        print("stopped before the evaluation's end; --resume repeats it", file=sys.stderr)
        return 130
    print(f"{time.perf_counter() - start:.0f} s in all; see {run.folder}/samples.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
