# SPDX-License-Identifier: BSD-3-Clause
"""A folder and what a training leaves in it."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torchvision.utils import make_grid, save_image

from .training import Training

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

GRID = 8  # samples.png shows GRID * GRID images


class Run:
    """A folder and what a training leaves in it.

    Args:
        folder: made when the training begins.
        main: false in all processes but one, which then write nothing.
        tensorboard: write scalars and images for TensorBoard too.
    """

    def __init__(self, folder: str | Path, main: bool = True, tensorboard: bool = False) -> None:
        self.folder, self.main, self.tensorboard = Path(folder), main, tensorboard
        self.checkpoint = self.folder / "checkpoint.pt"
        self.metrics = self.folder / "metrics.jsonl"
        self._writer: SummaryWriter | None = None

    def begin(self, training: Training) -> None:
        """Make the folder, cut the metrics to what the training has behind it."""
        if not self.main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in self.read_metrics() if line["step"] <= training.steps]
        self.metrics.write_text("".join(json.dumps(line) + "\n" for line in kept))
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # What an earlier run wrote beyond this step is hidden
            folder = str(self.folder / "tensorboard")
            self._writer = SummaryWriter(folder, purge_step=training.steps + 1)

    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def save(self, training: Training, name: str = "checkpoint.pt") -> Path:
        """Write a checkpoint beside the old one, then put it in its place: never half a file."""
        path = self.folder / name
        if not self.main:
            return path
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            torch.save(training.state_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == "posix":  # the new name too is on the disk
            descriptor = os.open(self.folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        return path

    def load(self, training: Training) -> None:
        """Read the checkpoint, which must be of the same settings.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is damaged, or of other settings.
        """
        if not self.checkpoint.exists():
            raise FileNotFoundError(
                f"--resume needs the checkpoint of an earlier run, got none at {self.checkpoint}"
            )
        try:
            state = torch.load(self.checkpoint, map_location=training.device, weights_only=True)
            theirs = state["settings"]
        except (
            OSError,
            RuntimeError,
            pickle.UnpicklingError,
            EOFError,
            KeyError,
            TypeError,
        ) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"--resume needs a whole checkpoint of a training, got {self.checkpoint}: {reason}"
            ) from error
        ours = asdict(training.settings)
        differing = [name for name in ours if ours[name] != theirs.get(name)]
        if differing:
            pairs = ", ".join(f"{n}={ours[n]!r} for {theirs.get(n)!r}" for n in differing)
            raise ValueError(f"--resume needs the settings of the earlier run, got {pairs}")
        training.load_state_dict(state)

    def log(self, training: Training, seconds: float) -> dict[str, float]:
        """Write a line of metrics; all processes call it. Returns the losses and penalties."""
        latest = training.latest()
        if not self.main:
            return latest
        images = training.steps * training.settings.batch
        line = {"step": training.steps, "images": images, "seconds": round(seconds, 3), **latest}
        with open(self.metrics, "a") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in latest.items():
                self._writer.add_scalar(name, value, training.steps)
        return latest

    def read_metrics(self) -> list[dict[str, float]]:
        """The lines written so far; one that a kill cut off is left out."""
        if not self.metrics.exists():
            return []
        whole = self.metrics.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    @torch.no_grad()
    def save_samples(self, training: Training) -> None:
        """A grid of the averaged generator's images, of the same latents and noise each time."""
        if not self.main:
            return
        ema = training.ema
        z = torch.randn(GRID * GRID, ema.style_dim, generator=torch.Generator().manual_seed(1))
        batch = max(GRID * GRID * 64**2 // ema.resolution**2, 1)  # by memory
        images = torch.cat(
            [ema(part, ema.fixed_noise()).cpu() for part in z.to(training.device).split(batch)]
        )
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        for path in (folder / f"{training.steps:06d}.png", self.folder / "samples.png"):
            save_image(images, path, nrow=GRID, normalize=True, value_range=(-1, 1))
        if self._writer is not None:
            grid = make_grid(images, nrow=GRID, normalize=True, value_range=(-1, 1))
            self._writer.add_image("samples", grid, training.steps)

    def save_json(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(json.dumps(content, indent=2) + "\n")

    def plot_losses(self) -> None:
        """The metrics as curves."""
        from matplotlib.figure import Figure

        if not self.main:
            return
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
