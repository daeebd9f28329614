# SPDX-License-Identifier: BSD-3-Clause
"""The definition, in NumPy float64: loops over the formula, stupid on purpose.

Shares nothing with the package, the length of the output included: an output exists where the
kernel fits wholly into the padded signal.
"""

import numpy as np
import torch

# Largest error allowed, relative to the largest sum of |tap * sample|, by dtype of the input
TOLERANCE = {
    torch.float64: 1e-13,
    torch.float32: 1e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}


def padded_samples(x: np.ndarray, up, pad) -> np.ndarray:
    """Zeros after each sample, then pad or crop: [N, C, H', W']."""
    n, c, h, w = x.shape
    (up_x, up_y), (x0, x1, y0, y1) = up, pad
    u = np.zeros((n, c, h * up_y, w * up_x))
    u[:, :, ::up_y, ::up_x] = x
    out = np.zeros((n, c, max(0, h * up_y + y0 + y1), max(0, w * up_x + x0 + x1)))
    for y in range(out.shape[2]):
        for z in range(out.shape[3]):
            if 0 <= y - y0 < u.shape[2] and 0 <= z - x0 < u.shape[3]:
                out[:, :, y, z] = u[:, :, y - y0, z - x0]
    return out


def upfirdn2d(x: np.ndarray, kernel: np.ndarray, up, down, pad) -> np.ndarray:
    """[N, C, H, W] -> [N, C, out_h, out_w]."""
    u = padded_samples(np.asarray(x, np.float64), up, pad)
    kh, kw = kernel.shape
    rows = []
    for top in range(0, u.shape[2] - kh + 1, down[1]):
        row = []
        for left in range(0, u.shape[3] - kw + 1, down[0]):
            total = np.zeros(u.shape[:2])
            for i in range(kh):
                for j in range(kw):
                    total += kernel[i, j] * u[:, :, top + kh - 1 - i, left + kw - 1 - j]
            row.append(total)
        rows.append(np.stack(row, -1))
    return np.stack(rows, -2)


def along(x: np.ndarray, axis: int, taps: np.ndarray, up: int, down: int, pad) -> np.ndarray:
    """The op along one axis of an array of any rank."""
    x = np.moveaxis(np.asarray(x, np.float64), axis, -1)
    u = np.zeros((*x.shape[:-1], x.shape[-1] * up))
    u[..., ::up] = x
    padded = np.zeros((*x.shape[:-1], max(0, u.shape[-1] + sum(pad))))
    for i in range(padded.shape[-1]):
        if 0 <= i - pad[0] < u.shape[-1]:
            padded[..., i] = u[..., i - pad[0]]
    out = []
    for start in range(0, padded.shape[-1] - len(taps) + 1, down):
        reads = [padded[..., start + len(taps) - 1 - i] for i in range(len(taps))]
        out.append(sum(tap * read for tap, read in zip(taps, reads, strict=True)))
    return np.moveaxis(np.stack(out, -1), -1, axis)


def separable(x: np.ndarray, taps, up, down, pad) -> np.ndarray:
    """The op along the last axis (x), the last but one (y), ...: arguments by axis, x first."""
    for i, axis_taps in enumerate(taps):
        x = along(x, -1 - i, axis_taps, up[i], down[i], pad[2 * i : 2 * i + 2])
    return x


def kernel_grad(x: np.ndarray, grad: np.ndarray, size, up, down, pad) -> np.ndarray:
    """[kh, kw]: what each tap would read, summed against the gradient."""
    u = padded_samples(np.asarray(x, np.float64), up, pad)
    kh, kw = size
    out = np.zeros((kh, kw))
    for i in range(kh):
        for j in range(kw):
            for y in range(grad.shape[2]):
                for z in range(grad.shape[3]):
                    read = u[:, :, y * down[1] + kh - 1 - i, z * down[0] + kw - 1 - j]
                    out[i, j] += (read * grad[:, :, y, z]).sum()
    return out


def assert_matches(actual: torch.Tensor, x: torch.Tensor, kernel: torch.Tensor, up, down, pad):
    """``actual`` is the op of ``x`` and the 2-D ``kernel``, to the rounding of its dtype."""
    samples, taps = _numpy(x), _numpy(kernel)
    scale = upfirdn2d(abs(samples), abs(taps), up, down, pad)
    _assert_close(actual, upfirdn2d(samples, taps, up, down, pad), scale)


def assert_matches_separable(actual: torch.Tensor, x: torch.Tensor, taps, up, down, pad):
    """``actual`` is the op of ``x`` and the taps of each axis, to the rounding of its dtype."""
    samples, taps = _numpy(x), [_numpy(t) for t in taps]
    scale = separable(abs(samples), [abs(t) for t in taps], up, down, pad)
    _assert_close(actual, separable(samples, taps, up, down, pad), scale)


def _numpy(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _assert_close(actual: torch.Tensor, expected: np.ndarray, scale: np.ndarray) -> None:
    ours = _numpy(actual)
    assert ours.shape == expected.shape
    scale = scale.max(initial=0.0) or 1.0
    error = abs(ours - expected).max(initial=0.0) / scale
    assert error <= TOLERANCE[actual.dtype], f"relative error {error:.2e} in {actual.dtype}"


def filtered(x: np.ndarray, kernels, function, up, down, pads, replicate: bool) -> np.ndarray:
    """Upsample and filter, ``function``, filter and downsample: [N, C, H, W] -> the same kind.

    A kernel is [kh, kw], or a pair of taps (x, y).
    """

    def resample(x, kernel, up, down, pad):
        if isinstance(kernel, tuple):
            return separable(x, kernel, up, down, pad)
        return upfirdn2d(x, kernel, up, down, pad)

    def continued(x, pad, up):
        if not replicate:
            return x, pad
        factors = (up[0], up[0], up[1], up[1])
        more = [max(0, -(-side // factor)) for side, factor in zip(pad, factors, strict=True)]
        x = np.pad(x, ((0, 0), (0, 0), more[2:], more[:2]), mode="edge")
        # What is continued too far is cropped on the upsampled grid
        return x, [p - m * f for p, m, f in zip(pad, more, factors, strict=True)]

    x, pad = continued(np.asarray(x, np.float64), pads[0], up)
    activated, down_pad = continued(
        function(resample(x, kernels[0], up, (1, 1), pad)), pads[1], (1, 1)
    )
    return resample(activated, kernels[1], (1, 1), down, down_pad)


def activation1d(x: np.ndarray, taps: np.ndarray, ratio: int, alpha, beta) -> np.ndarray:
    """BigVGAN's activation of [N, C, L] as its paper's code has it: continue, convolve, crop."""
    x, k = np.asarray(x, np.float64), len(taps)
    edge = k // ratio - 1
    x = np.pad(x, ((0, 0), (0, 0), (edge, edge)), mode="edge")
    full = np.zeros((*x.shape[:2], (x.shape[2] - 1) * ratio + k))
    for i in range(x.shape[2]):
        full[..., i * ratio : i * ratio + k] += ratio * x[..., i : i + 1] * taps
    left = edge * ratio + (k - ratio) // 2
    right = edge * ratio + (k - ratio + 1) // 2
    m = full[..., left : full.shape[2] - right]
    a = m + np.sin(alpha[:, None] * m) ** 2 / (beta[:, None] + 1e-9)
    a = np.pad(a, ((0, 0), (0, 0), (k // 2 - (k % 2 == 0), k // 2)), mode="edge")
    places = range(0, a.shape[2] - k + 1, ratio)
    return np.stack([(a[..., i : i + k] * taps).sum(-1) for i in places], -1)
