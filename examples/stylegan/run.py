# SPDX-License-Identifier: BSD-3-Clause
"""A folder and what a training leaves in it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torchvision.utils import make_grid, save_image

from .checkpoints import CheckpointError, read_values
from .device import is_out_of_memory
from .files import UNFINISHED, NoLockError, append, left_over, locked, sync_folder, whole, writable
from .settings import BUNDLED
from .training import Training

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

GRID = 8  # samples.png shows GRID * GRID images,
GRID_PIXELS = 2048  # and fewer where it would be wider than this
STATE = {  # of a training
    *("settings", "images", "steps", "counts", "latest", "g", "d", "g_ema", "g_optim", "d_optim"),
    *("g_scaler", "d_scaler", "augmentation", "path_mean", "rng", "device"),
}


# Files in the folder of a run. A new run removes the checkpoint first
FILES = (
    *("checkpoint.pt", "diverged.pt", "metrics.jsonl", "evaluation.json"),
    *("losses.png", "samples.png"),
)
FOLDERS = ("samples", "tensorboard")
LOCK = ".run.lock"  # the file that a run holds locked while it works in its folder
WORKING: set[tuple[int, int]] = set()
"""The device and the number of each folder that a run of this process works in. The system gives a
process the lock that it has once more, and takes both when one of them ends."""


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
        self._held = contextlib.ExitStack()

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Make the folder, make sure that it takes files, and keep other runs out of it.

        They are kept out until :meth:`release`, or until this process ends, however it ends. If the
        body fails, other runs are let in again, and the folder is removed if it was made here.

        Raises:
            OSError: if files cannot be written in it, or another run works there.
        """
        if not self.main:
            yield
            return
        with contextlib.ExitStack() as stack:
            stack.enter_context(writable(self.folder, FILES))
            for name in FOLDERS:
                if os.path.lexists(self.folder / name):
                    stack.enter_context(writable(self.folder / name, ()))
            with contextlib.ExitStack() as held:
                held.enter_context(self._alone())
                yield
                self._held = held.pop_all()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of the folder until the body has ended."""
        path = self.folder.absolute() / LOCK  # the working directory may change
        status = path.parent.stat()
        folder = status.st_dev, status.st_ino
        busy = (
            f"--out must be free of a run that still works, got {str(self.folder)!r}: stop it, "
            "wait for its end, or choose another folder"
        )
        if folder in WORKING:
            raise OSError(busy)
        with contextlib.ExitStack() as stack:
            try:
                free = stack.enter_context(locked(path, of_process=True))
            except NoLockError as error:
                free = True
                print(
                    f"note: --out {self.folder} takes no locks ({error.strerror}): make sure that "
                    "no other run works there",
                    file=sys.stderr,
                    flush=True,
                )
            except OSError as error:
                raise OSError(
                    "--out must be a folder that can be written to, got "
                    f"{str(path)!r}: {error.strerror}"
                ) from error
            if not free:
                raise OSError(busy)
            WORKING.add(folder)
            try:
                yield
            finally:
                WORKING.discard(folder)
                with contextlib.suppress(OSError):  # a file that stays does no harm
                    path.unlink()

    def release(self) -> None:
        """Let other runs work in the folder."""
        self._held.close()

    def check_free(self) -> None:
        """Make sure that a new run replaces no file.

        Raises:
            FileExistsError: if the folder holds a file or folder of a name that a run writes.
        """
        if not self.main:  # the main process may have begun before the others
            return
        names = (self.folder / name for name in (*FILES, *FOLDERS))
        taken = [*(path for path in names if os.path.lexists(path)), *self._left_over()]
        if not taken:
            return
        resume = "--resume to go on with it, " if self.checkpoint.exists() else ""
        raise FileExistsError(
            f"--out must not hold a run or files of the same names, got {taken[0]}: add {resume}"
            "--overwrite to delete what a run writes and start anew, or choose another folder"
        )

    def _left_over(self) -> list[Path]:
        """What a kill in the middle of writing has left."""
        return [path for name in FILES for path in left_over(self.folder / name)]

    def _remove_left_over(self) -> None:
        """Of the pictures of samples too, which have a name for each step."""
        samples = self.folder / "samples"
        pictures = [] if samples.is_symlink() else samples.glob("*.tmp")
        named = re.compile(r"\d{6,}\.png" + UNFINISHED)
        left = (path for path in pictures if named.fullmatch(path.name) and path.is_file())
        for path in (*self._left_over(), *left):
            path.unlink(missing_ok=True)

    def check_apart(self, data: str) -> None:
        """Make sure that a run neither learns from its own pictures nor deletes its images.

        Args:
            data: the folder or archive of images.

        Raises:
            ValueError: if the run's folder, or a folder in it that is a link, lies in that of the
                images, or the images lie where the run writes.
        """
        if data in BUNDLED or not os.path.exists(data):
            return
        images, folder = (Path(os.path.realpath(path)) for path in (data, self.folder))
        places = {name: Path(os.path.realpath(folder / name)) for name in FOLDERS}  # links, perhaps
        for name, place in {"": folder, **places}.items():
            said = f"got --out {folder}"
            if place != folder / name:
                said += f", whose {name} leads to {place},"
            said += f" and --data {images}"
            if name and images.is_relative_to(place):
                raise ValueError(f"--data must not lie where the run writes, {said}")
            if place.is_relative_to(images):
                raise ValueError(
                    "--out must not lie in the folder of images, which would then hold generated "
                    f"images too, {said}"
                )

    def begin(self, training: Training, resumed: bool = False) -> None:
        """Make the folder, or make room in it; cut the metrics to what the training has done.

        Args:
            training: what the run is to step.
            resumed: keep what an earlier run has left; a new run deletes it, but of a folder that
                is a link the link alone.

        Raises:
            OSError: if a folder of an earlier run cannot be deleted, or a file not be written.
        """
        if not self.main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_left_over()
        if not resumed:  # the checkpoint first, or a kill would leave two runs mixed
            for name in FILES:
                (self.folder / name).unlink(missing_ok=True)
                sync_folder(self.folder)
            for name in FOLDERS:
                _delete(self.folder / name)
        kept = [line for line in self.read_metrics() if line["step"] <= training.steps]
        with whole(self.metrics, durable=True) as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept).encode())
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # What an earlier run wrote beyond this step is hidden
            folder = str(self.folder / "tensorboard")
            self._writer = SummaryWriter(folder, purge_step=training.steps + 1)

    def end(self) -> None:
        """Have all that was reported on the disk.

        Raises:
            OSError: if it cannot be written.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def save(self, training: Training, name: str = "checkpoint.pt") -> Path:
        """Write a checkpoint, whole or not at all; all processes call it, and wait for it.

        Raises:
            OSError: if it cannot be written.
        """
        path = self.folder / name
        if self.main:
            with whole(path, durable=True) as file:
                torch.save(training.state_dict(), file)
        training.world.wait()
        return path

    def read(self) -> dict[str, Any]:
        """The checkpoint's content, tensors on the CPU; nothing in it is executed.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it cannot be read, is damaged, or asks for anything but data.
        """
        if not self.checkpoint.is_file():
            raise FileNotFoundError(
                f"--resume needs the checkpoint of an earlier run, got none at {self.checkpoint}"
            )
        try:
            reason = lacking(self.checkpoint)
            if reason is None:
                state = read_values(self.checkpoint)
                missing = STATE - state.keys() if isinstance(state, dict) else STATE
                if not missing:
                    return state
                reason = f"it is without {', '.join(sorted(missing))}"
        except CheckpointError as error:
            if error.__cause__ is not None and is_out_of_memory(error.__cause__):
                raise error.__cause__ from None
            reason = f"it {str(error).removeprefix(f'{self.checkpoint} ')}"
        except OSError as error:
            reason = f"it cannot be read: {error.strerror or error}"
        raise ValueError(
            f"--resume needs a whole checkpoint of a training, got {self.checkpoint}: {reason}"
        )

    def log(self, training: Training, seconds: float) -> dict[str, float]:
        """Write a line of metrics; all processes call it. Returns the losses and penalties."""
        latest = training.latest()
        if not self.main:
            return latest
        images = training.steps * training.settings.batch
        line = {"step": training.steps, "images": images, "seconds": round(seconds, 3), **latest}
        append(self.metrics, json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in latest.items():
                self._writer.add_scalar(name, value, training.steps)
        return latest

    def read_metrics(self) -> list[dict[str, float]]:
        """The lines written so far; one that a kill cut off is left out.

        Raises:
            ValueError: if another line is damaged.
        """
        if not self.metrics.is_file():
            return []
        whole = self.metrics.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
        lines = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                content = json.loads(line)
            except ValueError:
                content = None
            if not (isinstance(content, dict) and type(content.get("step")) is int):
                raise ValueError(
                    "metrics must be one JSON object a line, with a step, got "
                    f"{line[:40]!r} in line {number} of {self.metrics}: remove it"
                )
            lines.append(content)
        return lines

    @torch.no_grad()
    def save_samples(self, training: Training) -> None:
        """A grid of the averaged generator's images, of the same latents and noise each time."""
        if self.main:
            self._save_samples(training)
        training.world.wait()

    def _save_samples(self, training: Training) -> None:
        ema = training.ema
        side = min(GRID, max(GRID_PIXELS // ema.resolution, 1))
        z = torch.randn(side * side, ema.style_dim, generator=torch.Generator().manual_seed(1))
        batch = max(side * side * 64**2 // ema.resolution**2, 1)  # by memory
        images = torch.cat(
            [ema(part, ema.fixed_noise()).cpu() for part in z.to(training.device).split(batch)]
        )
        grid = make_grid(images, nrow=side, normalize=True, value_range=(-1, 1))
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        png = io.BytesIO()
        save_image(grid, png, format="png")
        for path in (folder / f"{training.steps:06d}.png", self.folder / "samples.png"):
            with whole(path) as file:
                file.write(png.getvalue())
        if self._writer is not None:
            self._writer.add_image("samples", grid, training.steps)

    def save_json(self, name: str, content: Any) -> None:
        with whole(self.folder / name) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())

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
        with whole(self.folder / "losses.png") as file:
            figure.savefig(file, dpi=120, format="png")


def _delete(folder: Path) -> None:
    """Delete a folder with all that is in it, or a link to one, and not what the link leads to."""
    try:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise OSError(
            f"--overwrite must be able to delete {folder}, got {error.filename}: {error.strerror}"
        ) from error


def lacking(path: Path) -> str | None:
    """Why a file cannot be what ``torch.save`` wrote, or None: an archive whose list is at its end.

    Torch's own words for a file that was cut off depend on where ("Invalid argument").
    """
    with open(path, "rb") as file:
        start = file.read(4)
    if not start:
        return "it is empty"
    if start != b"PK\x03\x04":
        return "it does not begin as one"
    if not zipfile.is_zipfile(path):
        return "it is truncated, its end is missing"
    return None
