# SPDX-License-Identifier: BSD-3-Clause
"""The filters of the layers as buffers, which are right wherever a module goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="FilterBuffers")


def keep_learned(
    module: nn.Module, names: Iterable[str], before: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """After torch has moved a module, keep the buffers that the user trains; return the others.

    A buffer that requires a gradient is the user's own. Torch has moved it with its values, and
    where it was a leaf, such as an optimiser takes, it is made a leaf again.

    Args:
        module: what has been moved.
        names: of the buffers in question.
        before: all buffers of the module as they were.
    """
    others = {}
    for name in names:
        old, new = before.get(name), module._buffers.get(name)
        if old is None or new is None:
            continue
        if not old.requires_grad:
            others[name] = new
        elif old.is_leaf and new is not old:
            module._buffers[name] = new.detach().requires_grad_()
    return others


class FilterBuffers(nn.Module):
    """A module that makes the buffers of its filters from Python floats.

    The buffers are float32, or float64 after ``.double()``, whatever other dtype the module has.
    They are never saved, and they are written anew from the floats whenever the module moves. So
    no half model rounds them, and they hold their values after ``to_empty``. A buffer that the
    user trains is not written: it is moved as a parameter is. Such a buffer has been made a
    parameter, or it requires a gradient.

    A subclass gives the floats to ``_register``. Where the dtype of the buffers decides what floats
    there are, it overrides ``_floats_for`` too.
    """

    _floats: dict[str, Any]  # of each buffer by its name

    def _register(
        self,
        floats: dict[str, Any],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        """Make the buffers."""
        self._floats = floats
        for name, values in floats.items():
            kernel = torch.tensor(values, dtype=dtype, device=device)
            self.register_buffer(name, kernel, persistent=False)

    def _floats_for(self, dtype: torch.dtype) -> dict[str, Any]:
        """The floats of buffers of ``dtype``: other names than before make other buffers."""
        return self._floats

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the module, then write the filters anew, so that none is rounded or unset."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        moved = keep_learned(self, self._floats, before)
        if not moved:
            return self
        first = moved[min(moved)]
        dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        floats = self._floats_for(dtype) if len(moved) == len(self._floats) else self._floats
        if floats.keys() != self._floats.keys():
            for name in moved:
                delattr(self, name)
            self._register(floats, dtype, first.device)
            return self
        for name, buffer in moved.items():
            kernel = torch.tensor(floats[name], dtype=dtype, device=first.device)
            if buffer.dtype == dtype and not buffer.is_inference():
                buffer.copy_(kernel)  # in place: shared memory stays shared
            else:
                self._buffers[name] = kernel
        return self
