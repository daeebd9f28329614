# SPDX-License-Identifier: BSD-3-Clause
"""What a file holds, by its own keys: its dialect, state dicts, and options they do not show.

Codes and frameworks wrap networks in many ways: in dicts with names (``g_ema``, ``state_dict``), in
prefixes of keys (``decoder.``, ``generator.``), and in the names of wrapping modules (``module.``
of DataParallel, ``_orig_mod.`` of torch.compile). A dict in a dict and a prefix are the same here:
words before a key. Keys with the same words before them are one state; which network it is the rest
of its keys says.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from .archives import parse
from .checks import CLAMP, COUNT, POSITIVE, CheckpointError, check, listed, naming, shown
from .keys import COLUMNS, MAPPING_LR, OWNERS, SIGNS, State, is_alias_free
from .nvidia import Attributes, unpack
from .pickles import OTHER_TENSORS, PARAMETERS, TENSORS, Budget, Record
from .records import is_module, tensor, values

# Modules that wrap another, wherever in a key: DataParallel's and AveragedModel's, torch.compile's,
# FSDP's, and that of activation checkpointing
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# What the names of dicts and prefixes around a network are made of, as generator_state_dict is
WORDS = {
    *("g", "gen", "generator", "netg", "d", "disc", "discriminator", "netd", "decoder"),
    *("ema", "averaged", "state", "dict", "params", "weights", "model", "net", "network"),
}
AVERAGED = {"ema", "averaged"}
DISCRIMINATORS = {"d", "disc", "discriminator", "netd"}
BESIDE = ("latent_avg", "n_averaged")  # what may stand among weights: the second, AveragedModel's
DEEPEST = 4  # dicts within dicts around a network
LONGEST = 200  # characters of a key that is taken apart

Groups = dict[tuple[str, ...], Any]  # by the words: a dict of what has them, or NVIDIA's object


class Found(NamedTuple):
    """A network in a file: the words before its keys, whose it is, its state by the rest of them.

    ``state`` is an object of NVIDIA's where the file has that.
    """

    words: tuple[str, ...]
    kind: str  # "generator" or "discriminator"
    dialect: str
    state: dict[str, Any] | Record

    @property
    def place(self) -> str:
        return ".".join(self.words) or "the top"


@dataclass
class Contents:
    """A file as it is, sorted; whether its keys and shapes fit is not checked yet.

    The options are arguments of our networks that keys and shapes do not show; ``resolution`` is
    what the settings of our training say. ``attributes`` are those of the generator's modules, by
    their paths, where it is an object of NVIDIA's. ``places`` are where the networks were, by their
    kind; ``notes`` say what else was done.
    """

    dialect: str
    generator: State | None = None
    discriminator: State | None = None
    latent_avg: Tensor | None = None
    generator_options: dict[str, Any] = field(default_factory=lambda: {"mapping_lr": MAPPING_LR})
    discriminator_options: dict[str, Any] = field(default_factory=dict)
    resolution: int | None = None
    attributes: Attributes = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(path: str | Path) -> Contents:
    """What a file holds, read without executing anything from it.

    Raises:
        CheckpointError: if it is no checkpoint, not a whole one, or asks for execution.
        OSError: if it cannot be read.
    """
    data, budget = _read_bytes(path)
    with naming(path, CheckpointError):
        return _sort(parse(data, budget), budget)


def read_values(path: str | Path) -> Any:
    """All that a file of our training holds: numbers, strings and tensors, in dicts and lists.

    It is read as every other file is, within the same bounds. Tensors are on the CPU; dictionaries
    of all kinds come as dicts.

    Raises:
        CheckpointError: if it is no checkpoint, not a whole one, asks for execution, or holds
            anything else.
        OSError: if it cannot be read.
    """
    data, budget = _read_bytes(path)
    with naming(path, CheckpointError):
        return values(parse(data, budget), budget)


def _read_bytes(path: str | Path) -> tuple[bytes, Budget]:
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a directory says it best
        raise CheckpointError(f"{path} must be a file, got a pipe or a device")
    data = Path(path).read_bytes()
    return data, Budget(len(data))


def _sort(file: Any, budget: Budget) -> Contents:
    groups, wrappers = _group(file, budget)
    networks = [found for found in starmap(_recognise, groups.items()) if found is not None]
    generator, discriminator = (_one(kind, networks) for kind in ("generator", "discriminator"))
    main = generator or discriminator
    if main is None:
        raise CheckpointError(
            "must be a checkpoint of rosinality's, BasicSR's or NVIDIA's StyleGAN2, or of a "
            f"StyleGAN3, got {shown(file)}"
        )
    if discriminator is not None and COLUMNS[discriminator.dialect] != COLUMNS[main.dialect]:
        raise CheckpointError(
            f"must hold a discriminator of {OWNERS[main.dialect]} at {discriminator.place}, got "
            f"one of {OWNERS[discriminator.dialect]}"
        )
    contents = Contents(main.dialect)
    if generator is not None:
        contents.generator, options, contents.attributes = _unpack(generator, budget)
        contents.generator_options |= options
        contents.latent_avg = _latent_avg(groups, generator, budget)
        if contents.latent_avg is None:
            contents.latent_avg = contents.generator.pop("mapping.w_avg", None)
    if discriminator is not None:
        contents.discriminator, options, _ = _unpack(discriminator, budget)
        contents.discriminator_options |= options
    if isinstance(file, dict) and "settings" in file and COLUMNS[main.dialect] == 0:
        _take_settings(contents, file["settings"])
    chosen = [network for network in (generator, discriminator) if network is not None]
    contents.places = {network.kind: network.place for network in chosen}
    if wrappers:
        contents.notes.append(f"prefixes taken off: {listed([f'{w}.' for w in sorted(wrappers)])}")
    if main.dialect == "nvidia" and isinstance(main.state, dict):
        contents.notes.append(
            "clamp and groups are not in the file: no clamp and groups of 4 taken"
        )
    left_out = _left_out(groups, networks, chosen)
    if left_out:
        contents.notes.append(f"left out: {listed(left_out)}")
    return contents


# Words before keys


def _parts(word: str) -> set[str]:
    return set(word.lower().split("_")) - {""}


def _is_known(word: str) -> bool:
    return bool(_parts(word)) and _parts(word) <= WORDS


def _group(file: Any, budget: Budget) -> tuple[Groups, set[str]]:
    """All that a file holds, by the words before it, and what wrapped it."""
    groups: Groups = {}
    wrappers: set[str] = set()
    if is_module(file):
        return {(): file}, wrappers
    pending: list[tuple[tuple[str, ...], Any]] = [((), file)] if isinstance(file, dict) else []
    for words, part in pending:  # which grows
        budget.spend(len(part))
        for key, value in part.items():
            names = key.split(".") if isinstance(key, str) and len(key) <= LONGEST else [str(key)]
            budget.spend(len(names))
            holds = is_module(value) or isinstance(value, dict)
            if holds and all(name in WRAPPERS or _is_known(name) for name in names):
                place, rest = (*words, *names), ""
                if isinstance(value, dict):
                    if len(place) <= DEEPEST:
                        pending.append((place, value))
                    continue
                group = groups.setdefault(place, value)
                twice = group is not value
            else:
                wrappers |= WRAPPERS.intersection(names)
                names = [name for name in names if name not in WRAPPERS]
                known = 0
                while known < len(names) - 1 and _is_known(names[known]):
                    known += 1
                place, rest = (*words, *names[:known]), ".".join(names[known:])
                group = groups.setdefault(place, {})
                twice = not isinstance(group, dict) or rest in group
            if twice:
                raise CheckpointError(
                    f"must name each part once, got two for {shown('.'.join((*place, rest)))}"
                )
            if isinstance(group, dict):
                group[rest] = value
    return groups, wrappers


def _recognise(words: tuple[str, ...], state: dict[str, Any] | Record) -> Found | None:
    """The network that a group is, if it is one: the keys of its tensors say so."""
    if isinstance(state, Record):
        discriminates = any(_parts(word) & DISCRIMINATORS for word in words)
        return Found(words, "discriminator" if discriminates else "generator", "nvidia", state)
    for (kind, dialect), signs in SIGNS.items():
        if any(key.startswith(signs) and _is_tensor(value) for key, value in state.items()):
            return Found(words, kind, dialect, state)
    return None


def _one(kind: str, networks: list[Found]) -> Found | None:
    """The network of a kind, averaged where there is such a one."""
    found = [network for network in networks if network.kind == kind]
    found = [
        network for network in found if any(_parts(word) & AVERAGED for word in network.words)
    ] or found
    if len(found) > 1:
        raise CheckpointError(
            f"must hold one {kind}, got {len(found)}, at "
            f"{shown([network.place for network in found])}"
        )
    return found[0] if found else None


# What is in them


def _unpack(network: Found, budget: Budget) -> tuple[State, dict[str, Any], Attributes]:
    """A network's tensors, and options and attributes that it says besides.

    What is no tensor is no weight, such as a number of iterations among the weights: it is left
    out. Where a weight should be instead, that is missing.
    """
    if isinstance(network.state, Record):
        return unpack(network.kind, network.state, budget)
    state: State = {}
    others = []
    for key, value in network.state.items():
        if key in BESIDE:
            continue
        found = tensor(value, budget)
        if found is not None:
            state[key] = found
        elif _is_tensor(value):
            others.append(key)
    if others:
        raise CheckpointError(f"must hold floating-point tensors, got others at {shown(others)}")
    return state, {}, {}


def _is_tensor(value: Any) -> bool:
    """Whether it is a tensor of any kind, also of those that are no weights."""
    return isinstance(value, Record) and value.name in TENSORS | PARAMETERS | OTHER_TENSORS


def _latent_avg(groups: Groups, generator: Found, budget: Budget) -> Tensor | None:
    """The mean style that is among the generator's weights, or else anywhere around."""
    for group in (generator.state, *groups.values()):
        value = group.get("latent_avg") if isinstance(group, dict) else None
        if value is not None:
            found = tensor(value, budget)
            if found is None:
                raise CheckpointError(
                    f"must have floating-point numbers in latent_avg, got {shown(value)}"
                )
            return found
    return None


def _take_settings(contents: Contents, settings: Any) -> None:
    """What a checkpoint of our own training says of its networks."""
    if not isinstance(settings, dict):
        raise CheckpointError(f"must hold a dict at settings, got {shown(settings)}")
    contents.dialect = "resample_layers"
    clamp = check("clamp", CLAMP, settings.get("clamp"), "its settings") or None
    rate = check("mapping_lr", POSITIVE, settings.get("mapping_lr"), "its settings")
    contents.generator_options = {"clamp": clamp, "mapping_lr": rate}
    contents.discriminator_options = {"clamp": clamp}
    if contents.generator is not None and is_alias_free(contents.generator):
        contents.resolution = check("resolution", COUNT, settings.get("resolution"), "its settings")


def _left_out(groups: Groups, networks: list[Found], chosen: list[Found]) -> list[str]:
    """Names of what holds tensors and was not taken."""
    names = {network.place: None for network in networks if network not in chosen}
    recognised = {network.words for network in networks}
    for words, group in groups.items():
        if words not in recognised:
            for key, value in group.items():
                if _is_tensor(value):
                    names[key.partition(".")[0]] = None
    return [name for name in names if name not in BESIDE]
