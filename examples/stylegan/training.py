# SPDX-License-Identifier: BSD-3-Clause
"""What one step does to the two networks; :mod:`.train` repeats it."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Adam
from torch.utils.data import DataLoader

from . import augment, losses
from .alias_free import AliasFreeGenerator, layer_channels
from .blocks import ModulatedConv2d
from .data import Images, to_pixels
from .decode import ImageError
from .discriminator import Discriminator
from .generator import Generator
from .graphs import CudaGraphs, Eager, Inputs, Outputs
from .order import Order, Shares, worker_signals
from .processes import World
from .settings import DTYPES, Settings, brief
from .styles import StyledGenerator

GROUP = 4  # images that the minibatch standard deviation compares
MAGNITUDE_IMAGES = 20_000  # half-life of StyleGAN3's averages of magnitudes, in images
LATENTS = 0x5EED_1A7E  # makes the seed of latents and noise differ from that of weights
# The setting that weighs the penalty which each of these figures belongs to
WEIGHTS = {"r1": "r1_gamma", "path_length": "path_weight", "path_penalty": "path_weight"}


class DivergedError(FloatingPointError):
    """A loss, a gradient or a weight is not finite; an update that was to come was not made."""


@dataclass
class Player:
    """A network and what updates it."""

    name: str
    network: nn.Module
    optimizer: Adam
    scaler: torch.amp.GradScaler  # of the loss, for float16; else switched off

    def update(self) -> Outputs:
        """Step against the gradients in the weights, unless the scaler found one not finite."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {}


class Latents(NamedTuple):
    """The random numbers behind a batch of generated images, or a share of them."""

    z: Tensor  # [n, 2, style_dim], a pair for each sample
    crossover: Tensor  # [n], first layer with the style of the second latent
    noise: list[Tensor]  # [n, 1, side, side] for each layer


class Training:
    """Networks, optimisers and counters, and what one step does to them.

    A step's batch is dealt to the processes of ``world``, and in each to ``accumulate`` rounds
    whose gradients are added up, so that the activations in memory are those of one round; noise
    is drawn for all. The result is the same for any number of processes and rounds, up to the
    order of sums, as long as each round's share is a multiple of the discriminator's group.

    Args:
        settings: what decides the result.
        images: what there is to learn from.
        device: where this process computes.
        world: this process among others.
        accumulate: rounds to a step.
        workers: of this process, which read images in the background; 0: none.
        compile: compile both networks, where no penalty needs a second derivative of them.
        cuda_graphs: record each part of a step as a CUDA graph, and repeat that. Needs a GPU and
            one process.

    Raises:
        ValueError: for a setting out of its range, batches that cannot be dealt so, or
            ``cuda_graphs`` where there can be none.

    Warns:
        UserWarning: if a round's share is no multiple of the group and the batch is larger, or if
            it leaves groups of one image.
    """

    def __init__(
        self,
        settings: Settings,
        images: Images,
        device: torch.device,
        world: World | None = None,
        accumulate: int = 1,
        workers: int = 0,
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        settings.check()
        self.settings, self.device, self.images = settings, device, images
        self.world = World() if world is None else world
        self.accumulate, self.workers = accumulate, workers
        for name, parts in (
            ("batch", self.world.size * accumulate),
            ("path_batch", self.world.size),
        ):
            if getattr(settings, name) % parts:
                raise ValueError(
                    f"{name} must be a multiple of {parts}, for {self.world.size} processes"
                    f"{f' and {accumulate} rounds' if name == 'batch' else ''}, "
                    f"got {getattr(settings, name)}"
                )
        if cuda_graphs and self.world.size > 1:
            raise ValueError(
                f"cuda_graphs needs one process, got {self.world.size}: sums over processes are "
                "not recorded"
            )
        if cuda_graphs and device.type != "cuda":
            raise ValueError(f"cuda_graphs needs a device of type cuda, got {device.type}")
        self.capturable = cuda_graphs
        self.dtype = DTYPES[settings.precision]
        torch.manual_seed(settings.seed)
        self.generator = self.new_generator()
        self.discriminator = channels_last(
            Discriminator(
                settings.resolution,
                images.channels,
                settings.channels(),
                GROUP,
                clamp=settings.clamp or None,
            )
        ).to(device)
        self._warn_of_groups()
        self.ema = self.new_generator().requires_grad_(False)
        self.ema.load_state_dict(self.generator.state_dict())
        self.magnitudes, self.ema_magnitudes = (
            [buffer for name, buffer in g.named_buffers() if name.endswith("magnitude")]
            for g in (self.generator, self.ema)
        )
        s = settings
        lr = s.generator_lr or s.lr
        self.g = self._player("generator", self.generator, lr, s.path_weight, s.path_every)
        self.d = self._player("discriminator", self.discriminator, s.lr, s.r1_gamma, s.r1_every)
        # Compiled functions serve the steps without a penalty: penalties differentiate twice, which
        # torch.compile cannot do
        self.synthesis: Callable[..., Tensor] = self.generator.synthesis
        self.score: Callable[..., Tensor] = self.discriminator
        if compile:
            self.synthesis, self.score = map(torch.compile, (self.synthesis, self.score))
        self.augment = augment.Augment().to(device)
        self.augmentation = augment.Controller(
            s.augment_target, s.augment_images, self.world.average
        )
        # The latents have a seed of their own, so as not to repeat the numbers of the weights
        self.rng = torch.Generator(device).manual_seed(settings.seed ^ LATENTS)
        self.call = CudaGraphs(device, self.rng) if cuda_graphs else Eager()
        self.order = Order(len(images.train), settings.batch, settings.seed)
        self.path_mean = torch.zeros((), device=device)
        self.steps = 0
        self.counts = {"r1": 0, "path_length": 0}
        self._batches: Iterator[Tensor] | None = None
        self._latest: dict[str, Tensor] = {}  # figures of the latest steps, by name

    def _warn_of_groups(self) -> None:
        """Warn, in one process, where the minibatch standard deviation has unusual groups."""
        if self.world.rank > 0:
            return
        share = self.settings.batch // (self.world.size * self.accumulate)
        if self.discriminator.stddev.size_of(share) == 1:
            warnings.warn(
                f"a round of {share} images has groups of one image, whose minibatch standard "
                f"deviation tells the discriminator nothing: use a multiple of {GROUP}",
                UserWarning,
                stacklevel=3,
            )
        elif share % GROUP and share < self.settings.batch:
            warnings.warn(
                f"a round of {share} images, no multiple of {GROUP}, has other groups of the "
                f"minibatch standard deviation than the batch of {self.settings.batch} in one "
                "process",
                UserWarning,
                stacklevel=3,
            )

    def new_generator(self) -> StyledGenerator:
        """A generator as the settings say, in evaluation mode: it moves no averages."""
        generator = make_generator(self.settings, self.images.channels)
        if isinstance(generator, AliasFreeGenerator):  # its averages move once in each round
            images = self.settings.batch / self.accumulate
            generator.set_magnitude_decay(0.5 ** (images / MAGNITUDE_IMAGES))
        return channels_last(generator).to(self.device).eval()

    def _player(
        self, name: str, network: nn.Module, lr: float, weight: float, every: int
    ) -> Player:
        optimizer = lazy_adam(network, lr, weight, every, self.capturable)
        half = self.dtype == torch.float16
        return Player(
            name, network, optimizer, torch.amp.GradScaler(self.device.type, enabled=half)
        )

    # One step
    #
    # Each part of a step has a method `..._gradients`, which leaves gradients in the weights and
    # can be recorded: it reads and writes tensors that stay where they are, and no values of them.
    # What is decided by values is decided by `minimise`, after it and before the update.

    def step(self) -> None:
        """One step of each network, the penalties where they are due, and the average."""
        s = self.settings
        real = self.next_real()
        self.discriminator_step(real)
        if s.r1_gamma > 0 and self.steps % s.r1_every == 0:
            self.r1_step(real)
        self.generator_step()
        if s.path_weight > 0 and self.steps % s.path_every == 0:
            self.path_length_step()
        self.average()
        self.steps += 1

    def discriminator_step(self, real: Sequence[Tensor]) -> None:
        """Tell real images, one batch for each round, from generated ones."""
        inputs = (self.chance(), self.blur(), *real)
        before = [magnitude.clone() for magnitude in self.magnitudes]
        try:
            found = self.minimise(self.d, "loss", self.discriminator_gradients, inputs)
        except DivergedError:
            for magnitude, value in zip(self.magnitudes, before, strict=True):
                magnitude.copy_(value)
            raise
        if self.settings.augment == "ada":
            self.augmentation.see(found["real_scores"], self.settings.batch)
        scores = {f"{kind}_score": found[f"{kind}_scores"].mean() for kind in ("real", "fake")}
        self.note(d_loss=found["loss"], **scores)

    def discriminator_gradients(
        self, chance: Tensor | None, blur: Tensor | None, *real: Tensor
    ) -> Outputs:
        scores: list[tuple[Tensor, Tensor]] = []

        def rounds() -> Iterator[Tensor]:
            drawn = self.draw(self.settings.batch), self.changes(chance), self.changes(chance)
            for images, latents, real_changes, fake_changes in zip(real, *drawn, strict=True):
                with torch.no_grad(), self.moving_averages():
                    fake = self.synthesis(self.styles(latents), latents.noise, self.dtype)
                fake = self.change(fake, fake_changes, blur)
                images = self.change(images, real_changes, blur)
                real_scores, fake_scores = self.score_both(images, fake)
                scores.append((real_scores.detach(), fake_scores.detach()))
                yield losses.discriminator_loss(real_scores, fake_scores)

        found = self.gradients(self.d, rounds(), self.accumulate)
        if self.magnitudes:
            self.world.average(self.magnitudes)
        real_scores, fake_scores = (torch.cat(both) for both in zip(*scores, strict=True))
        return {**found, "real_scores": real_scores, "fake_scores": fake_scores}

    @contextlib.contextmanager
    def moving_averages(self) -> Iterator[None]:
        """Let the generator's averages of magnitudes, if it has any, follow what it computes."""
        self.generator.train()
        try:
            yield
        finally:
            self.generator.eval()

    def score_both(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of both batches, from one pass.

        Real and fake images alternate, so that the groups of the minibatch standard deviation,
        which are dealt in turns, hold images of one kind, as in two passes; so long as the batch
        is a multiple of the group.
        """
        if len(real) % self.discriminator.stddev.group_size:
            return self.score(real, self.dtype), self.score(fake, self.dtype)
        scores = self.score(torch.stack((real, fake), 1).flatten(0, 1), self.dtype)
        return scores[0::2], scores[1::2]

    def r1_step(self, real: Sequence[Tensor]) -> None:
        """Make the scores of real images, or of what ADA makes of them, flat; in full precision."""
        inputs = (self.chance(), self.blur(), *real)
        found = self.minimise(self.d, "R1 penalty", self.r1_gradients, inputs)
        self.counts["r1"] += 1
        self.note(r1=found["loss"])

    def r1_gradients(self, chance: Tensor | None, blur: Tensor | None, *real: Tensor) -> Outputs:
        def rounds() -> Iterator[Tensor]:
            for images, changes in zip(real, self.changes(chance), strict=True):
                if changes is None:
                    images = images.detach().requires_grad_()
                    seen = self.change(images, None, blur)
                else:  # torch's grid_sample has no second derivative
                    images = seen = self.change(images, changes, blur).detach().requires_grad_()
                yield losses.r1_penalty(self.discriminator(seen), images)

        weight = self.settings.r1_gamma / 2 * self.settings.r1_every
        return self.gradients(self.d, rounds(), self.accumulate, weight)

    def generator_step(self) -> None:
        """Make images that the discriminator takes for real."""
        inputs = (self.chance(), self.blur())
        found = self.minimise(self.g, "loss", self.generator_gradients, inputs)
        self.note(g_loss=found["loss"])

    def generator_gradients(self, chance: Tensor | None, blur: Tensor | None) -> Outputs:
        def rounds() -> Iterator[Tensor]:
            drawn = self.draw(self.settings.batch), self.changes(chance)
            for latents, changes in zip(*drawn, strict=True):
                fake = self.synthesis(self.styles(latents), latents.noise, self.dtype)
                fake = self.change(fake, changes, blur)
                yield losses.generator_loss(self.score(fake, self.dtype))

        self.discriminator.requires_grad_(False)  # its weights need no gradient here
        try:
            return self.gradients(self.g, rounds(), self.accumulate)
        finally:
            self.discriminator.requires_grad_(True)

    def path_length_step(self) -> None:
        """Make steps of the same length in ``w`` change images as much; in full precision."""
        found = self.minimise(self.g, "path-length penalty", self.path_length_gradients)
        self.counts["path_length"] += 1
        self.note(path_length=found["path_length"], path_penalty=found["loss"])

    def path_length_gradients(self) -> Outputs:
        s = self.settings
        rounds = math.gcd(self.accumulate, s.path_batch // self.world.size)
        channels, side = self.images.channels, s.resolution
        shares = list(
            zip(
                self.draw(s.path_batch, rounds),
                self.world.share(self.normal(s.path_batch, channels, side, side), rounds),
                strict=True,
            )
        )

        def lengths_of(latents: Latents, noise: Tensor) -> Tensor:
            styles = self.styles(latents)
            if not styles.requires_grad:  # without a mapping layer they depend on no weight
                styles.requires_grad_()
            images = self.generator.synthesis(styles, latents.noise)
            return losses.path_lengths(images, styles, noise)

        # The penalty needs the mean over all rounds, so that several rounds compute their lengths
        # twice
        kept = [lengths_of(*shares[0])] if rounds == 1 else None
        seen = kept or [lengths_of(*share).detach() for share in shares]
        mean = torch.cat(seen).detach().mean()
        self.world.average([mean])
        self.path_mean.copy_(losses.path_length_mean(self.path_mean, mean))
        lengths = kept or (lengths_of(*share) for share in shares)
        penalties = (losses.path_length_penalty(part, self.path_mean) for part in lengths)
        weight = s.path_weight * s.path_every
        return {**self.gradients(self.g, penalties, rounds, weight), "path_length": mean}

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged generator towards the generator."""
        half_life = min(self.settings.ema_images, 0.05 * self.steps * self.settings.batch)
        weight = 1 - 0.5 ** (self.settings.batch / max(half_life, 1e-8))
        means, news = (list(network.parameters()) for network in (self.ema, self.generator))
        torch._foreach_lerp_(means, news, weight)  # a few kernels instead of one for each tensor
        if self.magnitudes:
            torch._foreach_copy_(self.ema_magnitudes, self.magnitudes)

    def minimise(
        self,
        player: Player,
        name: str,
        gradients: Callable[..., Outputs],
        inputs: Inputs = (),
    ) -> Outputs:
        """Step against the gradients of a loss; a part of a step.

        Args:
            player: whose network steps.
            name: of the loss.
            gradients: leaves the gradients in the weights, and returns what :meth:`gradients` does.
            inputs: of ``gradients``.

        Returns:
            What ``gradients`` returns.

        Raises:
            DivergedError: where the loss, or the gradient, is not finite, in any process.
        """
        part = (gradients.__name__, *(x is None for x in inputs))
        found = self.call(part, gradients, inputs)
        # Here the host waits for the device
        value, length = torch.stack((found["loss"], found["norm"])).tolist()
        if not math.isfinite(value):
            raise self._diverged(player, name, value)
        if not math.isfinite(length) and not player.scaler.is_enabled():
            raise self._diverged(player, f"gradient of the {name}", length)
        self.call((*part, "update"), player.update)
        if player.scaler.is_enabled() and player.scaler.get_scale() < 1:
            raise self._diverged(player, f"gradient of the {name} in float16", length)
        return found

    def gradients(
        self, player: Player, rounds: Iterable[Tensor], count: int, weight: float = 1.0
    ) -> Outputs:
        """Leave the gradients of ``weight`` times a loss in a player's weights.

        Args:
            player: whose weights.
            rounds: the loss of each round.
            count: of the rounds.
            weight: of the loss.

        Returns:
            ``loss``: its mean over rounds and processes, without the weight; ``norm``: that of all
            gradients.
        """
        player.optimizer.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=self.device)
        for loss in rounds:
            player.scaler.scale(loss * (weight / count)).backward()
            mean += loss.detach() / count
        gradients = [p.grad for p in player.network.parameters() if p.grad is not None]
        self.world.average([*gradients, mean])
        if player.scaler.is_enabled():
            player.scaler.unscale_(player.optimizer)
        return {"loss": mean, "norm": get_total_norm(gradients)}

    def _diverged(self, player: Player, name: str, value: float) -> DivergedError:
        return DivergedError(
            f"the {player.name}'s {name} must stay finite, got {value} in step {self.steps}"
        )

    # Parts of a step

    def close(self) -> None:
        """End the workers that read images; a further step would start others."""
        self._batches = None

    def next_real(self) -> list[Tensor]:
        """Real images of the step for this process, [n, C, side, side] for each round."""
        if self._batches is None:
            shares = Shares(self.order, self.steps, self.world)
            loader = DataLoader(
                self.images.train,
                batch_sampler=shares,
                num_workers=self.workers,
                pin_memory=self.device.type == "cuda",
                worker_init_fn=worker_signals,
            )
            self._batches = iter(loader)
        real = to_pixels(self._read().to(self.device, non_blocking=True))
        if self.settings.mirror:
            (mirrored,) = self.world.share(self.uniform(self.settings.batch) < 0.5)
            real = torch.where(mirrored[:, None, None, None], real.flip(3), real)
        return World().share(real, self.accumulate)

    def _read(self) -> Tensor:
        """The next bytes; an image that cannot be read ends the step in all processes."""
        assert self._batches is not None
        batch, failure = None, None
        try:
            batch = next(self._batches)
        except ImageError as error:
            failure = error
        if self.workers and self.world.any(failure is not None, self.device):
            self._batches = None  # no random number was drawn yet, so the step can start again
            raise failure or ImageError("every image must be readable, got one in another process")
        assert batch is not None
        return batch

    def draw(self, n: int, rounds: int | None = None) -> list[Latents]:
        """A batch of ``n``, this process's share, for each round."""
        rounds = self.accumulate if rounds is None else rounds
        layers = self.generator.num_styles
        z = self.normal(n, 2, self.generator.style_dim)
        crossover = torch.randint(1, layers, (n,), generator=self.rng, device=self.device)
        mixed = self.uniform(n) < self.settings.mixing
        crossover = torch.where(mixed, crossover, layers)
        share = self.world.share
        noise = [share(images, rounds) for images in self.generator.fresh_noise(n, self.rng)]
        layers_of = [[images[i] for images in noise] for i in range(rounds)]
        parts = zip(share(z, rounds), share(crossover, rounds), layers_of, strict=True)
        return [Latents(*part) for part in parts]

    def styles(self, latents: Latents) -> Tensor:
        """Styles [n, num_styles, style_dim]: of a sample's first latent, then of its second."""
        w, other = self.generator.mapping(latents.z.flatten(0, 1)).view_as(latents.z).unbind(1)
        return self.generator.mix(w, other, latents.crossover)

    def chance(self) -> Tensor | None:
        """The probability of each kind of augmentation [], None for no augmentation."""
        p = self.augmentation.p
        return torch.full((), p, device=self.device) if p > 0 else None

    def changes(self, chance: Tensor | None) -> list[augment.Changes | None]:
        """A batch's augmentations, this process's share, for each round; None for none."""
        if chance is None:
            return [None] * self.accumulate
        changes = augment.draw(self.settings.batch, self.settings.resolution, chance, self.rng)
        shares = (self.world.share(part, self.accumulate) for part in changes)
        return [augment.Changes(*parts) for parts in zip(*shares, strict=True)]

    def blur(self) -> Tensor | None:
        """Taps of the blur of the first images, None for none. Their number stays the same."""
        s = self.settings
        left = max(1 - self.steps * s.batch / s.blur_images, 0.0)
        taps = augment.blur_taps(left * s.blur_sigma, s.blur_sigma)
        return None if taps is None else taps.to(self.device)

    def change(
        self, images: Tensor, changes: augment.Changes | None, blur: Tensor | None
    ) -> Tensor:
        """What the discriminator is to see of images: blurred, then augmented."""
        if blur is not None:
            images = augment.blur(images, blur)
        return images if changes is None else self.augment(images, changes)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.rng, device=self.device)

    def uniform(self, *size: int) -> Tensor:
        return torch.rand(size, generator=self.rng, device=self.device)

    def note(self, **values: Tensor) -> None:
        self._latest.update({name: value.detach() for name, value in values.items()})

    def latest(self) -> dict[str, float]:
        """Losses and penalties of the latest steps, averaged over all processes, which all ask."""
        names = sorted(self._latest)
        values = torch.stack([self._latest[name].float().to(self.device) for name in names])
        self.world.average([values])
        numbers = dict(zip(names, values.tolist(), strict=True))
        if self.settings.augment == "ada":
            numbers |= {"augment_p": self.augmentation.p, "real_sign": self.augmentation.sign}
        return numbers

    # The whole state

    def check_finite(self) -> None:
        """Raise a :class:`DivergedError` if a weight is not finite."""
        for player in (self.g, self.d):
            if not math.isfinite(get_total_norm(player.network.parameters()).item()):
                raise self._diverged(player, "weights", math.nan)
        if self.magnitudes and not torch.stack(self.magnitudes).isfinite().all():
            raise self._diverged(self.g, "averages of magnitudes", math.nan)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on: numbers, strings and tensors, in dicts and lists."""
        return {
            "settings": asdict(self.settings),
            "images": self.images.fingerprint(),
            "steps": self.steps,
            "counts": dict(self.counts),
            "latest": {name: value.item() for name, value in self._latest.items()},
            "g": self.generator.state_dict(),
            "d": self.discriminator.state_dict(),
            "g_ema": self.ema.state_dict(),
            "g_optim": self.g.optimizer.state_dict(),
            "d_optim": self.d.optimizer.state_dict(),
            "g_scaler": self.g.scaler.state_dict(),
            "d_scaler": self.d.scaler.state_dict(),
            "augmentation": self.augmentation.state_dict(),
            "path_mean": self.path_mean,
            "rng": self.rng.get_state(),
            "device": self.device.type,
        }

    def check_state(self, state: dict[str, Any]) -> None:
        """Make sure that a state has the parts that this training's own state has.

        Its settings are not looked at: they are checked where they are read.

        Raises:
            ValueError: that names the first part that is missing, unknown, or of another type,
                shape or dtype, or out of its range.
        """
        own = self.state_dict()
        for name in ("steps", "counts", "device", "g", "d", "g_ema", "augmentation", "path_mean"):
            check_like(name, state[name], own[name])
        if state["steps"] < 0:
            raise ValueError(f"steps must be >= 0, got {state['steps']}")
        if not 0 <= state["augmentation"]["p"] <= 1:
            raise ValueError(
                f"augmentation.p must be between 0 and 1, got {state['augmentation']['p']}"
            )
        latest = state["latest"]  # this training may not have stepped yet, and has none
        names = map(str, latest) if isinstance(latest, dict) else ()
        check_like("latest", latest, dict.fromkeys(names, 0.0))
        for player in (self.g, self.d):
            name = f"{player.name[0]}_optim"
            moments = {
                i: {"step": torch.zeros(()), "exp_avg": p, "exp_avg_sq": p}
                for i, p in enumerate(player.network.parameters())
            }
            found = state[name].get("state") if isinstance(state[name], dict) else state[name]
            check_like(f"{name}.state", found, moments, partial=True)
            name = f"{player.name[0]}_scaler"
            if own[name] and state[name]:  # it is empty where the precision is not float16
                check_like(name, state[name], own[name])
        if state["device"] == self.device.type:
            check_like("rng", state["rng"], own["rng"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; random numbers too, where it comes from the same kind of device.

        Raises:
            ValueError: if the state is not that of a training like this one.
        """
        self.check_state(state)
        self.steps, self.counts = state["steps"], dict(state["counts"])
        self._latest = {
            name: torch.tensor(value)
            for name, value in state["latest"].items()
            if name not in WEIGHTS or getattr(self.settings, WEIGHTS[name]) > 0
        }
        self.generator.load_state_dict(state["g"])
        self.discriminator.load_state_dict(state["d"])
        self.ema.load_state_dict(state["g_ema"])
        for player, name in ((self.g, "g_optim"), (self.d, "d_optim")):
            # The settings of this training decide learning rate and decay, not the stored ones
            groups = player.optimizer.state_dict()["param_groups"]
            weights = list(player.network.parameters())
            # A fused optimiser goes through memory, so that moments need the layout of the weights
            moments = {
                i: {
                    k: torch.empty_like(weights[i]).copy_(v) if v.dim() else v.clone()
                    for k, v in m.items()
                }
                for i, m in state[name]["state"].items()
            }
            player.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for player, name in ((self.g, "g_scaler"), (self.d, "d_scaler")):
            if state[name]:  # it is empty where the earlier precision was not float16
                player.scaler.load_state_dict(state[name])
        self.augmentation.load_state_dict(state["augmentation"])
        self.path_mean.copy_(state["path_mean"])
        if state["device"] == self.device.type:
            self.rng.set_state(state["rng"].cpu())
        else:  # the state of another kind of device does not fit this generator
            self.rng.manual_seed(self.settings.seed ^ LATENTS ^ self.steps)
        self._batches = None
        self.call.reset()


def check_like(name: str, found: Any, like: Any, partial: bool = False) -> None:
    """Make sure that a part of a state is made as another one.

    Args:
        name: of the part.
        found: a tensor, number, string, or a dict of such.
        like: another one. Of a tensor, shape and dtype count; of a number or string, the type.
        partial: ``found`` may lack keys of the dict ``like``.

    Raises:
        ValueError: that names the first part that is missing, unknown or made otherwise.
    """
    if isinstance(like, dict) and isinstance(found, dict):
        missing = [] if partial else [key for key in like if key not in found]
        unknown = [key for key in found if key not in like]
        if missing or unknown:
            raise ValueError(
                f"{name}.{(missing or unknown)[0]} must {'exist' if missing else 'not exist'}"
            )
        for key, value in found.items():
            check_like(f"{name}.{key}", value, like[key])
    elif isinstance(like, Tensor) and isinstance(found, Tensor):
        ours, theirs = (
            f"{part.dtype} {part.layout} {list(part.shape)}".replace("torch.", "")
            for part in (like, found)
        )
        if ours != theirs:
            raise ValueError(f"{name} must be a tensor {ours}, got {theirs}")
    elif isinstance(like, (dict, Tensor)) or type(found) is not type(like):
        kind = next(k for k in (dict, Tensor, type(like)) if isinstance(like, k))
        raise ValueError(f"{name} must be of type {kind.__name__}, got {brief(found)}")


def make_generator(settings: Settings, image_channels: int) -> StyledGenerator:
    """The generator that settings describe, with new weights."""
    s = settings
    sizes = s.resolution, s.style_dim, s.mapping_layers, image_channels
    options: dict[str, Any] = {"mapping_lr": s.mapping_lr, "clamp": s.clamp or None}
    if s.network == "stylegan2":
        return Generator(*sizes, channels=s.channels(), input=s.input, **options)
    kind = s.network.removeprefix("stylegan3-")
    channels = layer_channels(s.resolution, kind, s.channel_multiplier, s.channel_max)
    return AliasFreeGenerator(*sizes, kind=kind, channels=channels, **options)


def lazy_adam(
    module: nn.Module, lr: float, weight: float, every: int, capturable: bool = False
) -> Adam:
    """Adam for a network that has a penalty's step of its own at every ``every``-th step.

    Those make ``every + 1`` steps of ``every``; learning rate and decay are taken to the power
    that leaves them as they were per ``every`` steps. Source: StyleGAN2, appendix B.
    ``capturable``: its steps can be recorded as CUDA graphs.
    """
    share = every / (every + 1) if weight > 0 else 1.0
    betas = (0.0, 0.99**share)
    return Adam(module.parameters(), lr=lr * share, betas=betas, fused=True, capturable=capturable)


def channels_last(module: nn.Module) -> nn.Module:
    """Lay the weights of convolutions out as channels_last; activations follow.

    A modulated convolution that upsamples reads its weights with both channel dimensions swapped,
    so its weights are laid out for that; else each call would copy them.
    """
    for layer in module.modules():
        if isinstance(layer, ModulatedConv2d):  # [1, out, in, k, k]
            swapped = layer.resample == "up"
            weight = layer.weight.data.squeeze(0)
            weight = weight.transpose(0, 1) if swapped else weight
            weight = weight.contiguous(memory_format=torch.channels_last)
            layer.weight.data = (weight.transpose(0, 1) if swapped else weight).unsqueeze(0)
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
