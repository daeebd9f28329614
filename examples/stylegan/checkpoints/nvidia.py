# SPDX-License-Identifier: BSD-3-Clause
"""NVIDIA's networks: what their objects hold, and what their attributes say besides weights.

An attribute comes from a file and may be anything; each is checked here, once, before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..alias_free import CRITICAL, LAYERS, OUTPUT_SCALE, LayerPlan
from .checks import CLAMP, COUNT, POSITIVE, CheckpointError, Rule, check, exactly, shown
from .keys import MAPPING_LR
from .pickles import Budget, Record
from .records import is_module, module_state, number, tensor

Attributes = dict[str, dict[str, Any]]  # of each module, by its path
DEEPEST = 8  # modules within modules; NVIDIA's have four
LONGEST = 100  # characters of a name
SYNTHESIS = {"num_layers": LAYERS, "num_critical": CRITICAL, "output_scale": OUTPUT_SCALE}
FIXED = {"c_dim": exactly(0), "use_noise": exactly(True)}
ARCHITECTURES = {"generator": exactly("skip"), "discriminator": exactly("resnet")}


def unpack(
    network: str, module: Record, budget: Budget
) -> tuple[dict[str, Any], dict[str, Any], Attributes]:
    """The state dict of a ``network``, "generator" or "discriminator", its options and attributes.

    Raises:
        CheckpointError: if ours cannot be such a network, naming the attribute.
    """
    modules = _modules(network, module, budget)
    tensors = _state_dict(network, modules, budget)
    _check_fixed(network, modules)
    options = {"clamp": _clamp(network, modules)}
    if network == "generator":
        rates = {
            float(check("bias_gain", POSITIVE, state.get("bias_gain"), f"{path} of its {network}"))
            for path, state in modules.items()
            if path.startswith("mapping.fc")
        }
        options["mapping_lr"] = _only("bias_gain (lr_multiplier)", rates or {MAPPING_LR})
    else:
        if "b4.mbstd" not in modules:
            raise CheckpointError(
                "must have mbstd_num_channels > 0 in its discriminator, got no b4.mbstd"
            )
        for ours, theirs in (("group_size", "group_size"), ("stddev_channels", "num_channels")):
            value = modules["b4.mbstd"].get(theirs)
            options[ours] = check(f"mbstd_{theirs}", COUNT, value, "b4.mbstd of its discriminator")
    return tensors, options, modules


def check_plans(modules: Attributes, layers: Mapping[str, str], plans: Sequence[LayerPlan]) -> None:
    """Raise for a StyleGAN3 whose layers have other numbers than ours, naming the attribute.

    The filters show the cutoffs and half widths, and the names of ``layers`` the sizes and
    channels: those are checked with the weights.
    """
    start = {"sampling_rate": float(plans[0].in_sampling_rate), "bandwidth": plans[0].in_cutoff}
    wanted: dict[str, dict[str, Any]] = {"synthesis": SYNTHESIS, "synthesis.input": start}
    for path, plan in zip(layers.values(), plans, strict=True):
        wanted[path] = {
            "up_factor": plan.up,
            "down_factor": plan.down,
            "padding": [*plan.pad, *plan.pad],
            "down_radial": plan.radial,
            "is_torgb": plan.to_rgb,
        }
    for path, values in wanted.items():
        for name, value in values.items():
            found = modules.get(path, {}).get(name)
            check(name, exactly(value), found, f"{path} of its generator")


def _modules(network: str, root: Record, budget: Budget) -> Attributes:
    """The attributes of a module and of all within, each once."""
    found: Attributes = {}
    paths: dict[int, str] = {}
    pending = [("", root)]
    for path, module in pending:  # which grows
        where = f"{path or 'the top'} of its {network}"
        if id(module) in paths:
            first = paths[id(module)] or "the top"
            raise CheckpointError(
                f"must have each module once, got one both at {first} and {where}"
            )
        if path.count(".") >= DEEPEST:
            raise CheckpointError(f"must nest modules up to {DEEPEST} deep, got {where}")
        state = module_state(module)
        budget.spend(len(state))
        paths[id(module)] = path
        found[path] = {name: number(value, budget) for name, value in state.items()}
        for part in ("_parameters", "_buffers", "_modules"):
            content = state.get(part)
            if type(content) is not dict:
                raise CheckpointError(f"must have {part} a dict in {where}, got {shown(content)}")
            budget.spend(len(content))
            for name in content:
                if type(name) is not str or len(name) > LONGEST:
                    raise CheckpointError(
                        f"must have names of up to {LONGEST} characters in {part} of {where}, "
                        f"got {shown(name)}"
                    )
        for name, inner in state["_modules"].items():
            if inner is not None:
                if not is_module(inner):
                    raise CheckpointError(
                        f"must have a module or None at {name} in {where}, got {shown(inner)}"
                    )
                pending.append((_join(path, name), inner))
    return found


def _state_dict(network: str, modules: Attributes, budget: Budget) -> dict[str, Tensor]:
    """Parameters and buffers of all modules, by key."""
    tensors: dict[str, Tensor] = {}
    for path, state in modules.items():
        for name, value in {**state["_parameters"], **state["_buffers"]}.items():
            found = tensor(value, budget)
            if found is not None:
                tensors[_join(path, name)] = found
            elif value is not None:
                raise CheckpointError(
                    f"must have a floating-point tensor or None at {_join(path, name)} in its "
                    f"{network}, got {shown(value)}"
                )
    return tensors


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_fixed(network: str, modules: Attributes) -> None:
    """Raise for a network that ours cannot be, naming the attribute."""
    for path, state in modules.items():
        linear = path.rpartition(".")[2] in ("affine", "skip", "out")
        rules: dict[str, Rule] = {
            **FIXED,
            "architecture": ARCHITECTURES[network],
            "activation": exactly("linear" if linear else "lrelu"),
        }
        for name, rule in rules.items():
            if name in state:
                where = f"{path} of its {network}" if path else f"its {network}"
                check(name, rule, state[name], where)


def _clamp(network: str, modules: Attributes) -> float | None:
    """The conv_clamp of all layers; the discriminator's skips have none."""
    values = {
        check("conv_clamp", CLAMP, state["conv_clamp"], f"{path or 'the top'} of its {network}")
        for path, state in modules.items()
        if "conv_clamp" in state and not path.endswith(".skip")
    }
    clamp: float | None = _only("conv_clamp", values)
    return clamp


def _only(name: str, values: set[Any]) -> Any:
    if len(values) != 1:
        raise CheckpointError(
            f"must have the same {name} in all layers, got {shown(values) if values else 'none'}"
        )
    return next(iter(values))
