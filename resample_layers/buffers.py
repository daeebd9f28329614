# SPDX-License-Identifier: BSD-3-Clause
"""The filters of the layers as buffers, which are right wherever a module goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="FilterBuffers")


class FilterBuffers(nn.Module):
    """A module that makes the buffers of its filters from Python floats.

    The buffers are float32, or float64 after ``.double()``, whatever other dtype the module has.
    They are never saved, and they are written anew from the floats whenever the module moves. So
    no half model rounds them, and they hold their values after ``to_empty``. A buffer that the
    user has made a parameter stays as it is.
    """

    def _values(self) -> dict[str, Any]:
        """The floats of each buffer by its name, in the present form of the filters."""
        raise NotImplementedError

    def _reform(self, dtype: torch.dtype) -> bool:
        """Take the form that suits ``dtype``; whether that is another form than before."""
        return False

    def _register(self, dtype: torch.dtype, device: torch.device | None = None) -> None:
        for name, values in self._values().items():
            kernel = torch.tensor(values, dtype=dtype, device=device)
            self.register_buffer(name, kernel, persistent=False)

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the module, then write the filters anew, so that none is rounded or unset."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        values = self._values()
        moved = {name: b for name in values if (b := self._buffers.get(name)) is not None}
        if not moved:
            return self
        first = moved[min(moved)]
        dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        if len(moved) == len(values) and self._reform(dtype):
            for name in values:
                delattr(self, name)
            self._register(dtype, first.device)
            return self
        for name, buffer in moved.items():
            kernel = torch.tensor(values[name], dtype=dtype, device=first.device)
            if buffer.dtype == dtype and not buffer.is_inference():
                buffer.copy_(kernel)  # in place: shared memory stays shared
            else:
                self._buffers[name] = kernel
        return self
