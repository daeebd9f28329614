# SPDX-License-Identifier: BSD-3-Clause
"""How the file of an image becomes RGB bytes: one rule for each of Pillow's modes."""

from __future__ import annotations

import functools
import warnings
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

# The raster formats that Pillow decodes itself, by Pillow's names, and their extensions. Those for
# which Pillow starts another program (EPS) are not among them, whatever a file is called.
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PNG": (".png", ".apng"),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm"),
    "QOI": (".qoi",),
    "TGA": (".tga",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
EXTENSIONS = tuple(extension for group in FORMATS.values() for extension in group)

EIGHT_BITS = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
EIGHT_BITS_AND_ALPHA = ("LA", "PA", "RGBA", "RGBa")
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF


class ImageError(ValueError):
    """A file that is no image, a damaged one, or one whose values have no known range."""


class Decoded(NamedTuple):
    """An image as bytes."""

    rgb: np.ndarray  # [H, W, 3], uint8
    transparent: bool  # whether the background is seen anywhere


def parse_colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour as CSS names it: ``white``, ``#7f7f7f``.

    Raises:
        ValueError: if it is no colour, or a transparent one.
    """
    try:
        colour = ImageColor.getrgb(text)
    except ValueError:
        colour = ()
    if len(colour) != 3 or max(colour) > 255:
        raise ValueError(f"background must be a colour, such as white or #7f7f7f, got {text!r}")
    return colour


def decode(file: BinaryIO, background: tuple[int, int, int]) -> Decoded:
    """The first frame of an image file, upright, as RGB bytes.

    - 8 bits and fewer, in any colour space, are as Pillow converts them; ICC profiles are not
      applied. 16 bits of red, green and blue are reduced by Pillow, to their upper 8. So is the
      colour that a PNG declares transparent: every pixel with the same upper 8 bits matches it.
    - 16 bits of grey are scaled by 255 / 65535, and 12 bits in a TIFF by 255 / 4095, rounded.
    - Pixels that are transparent in part are mixed with the background.

    Raises:
        ImageError: if a mode does not say which value is white: 32-bit integers and floating point.
        Exception: of any kind, by Pillow, if the file is damaged.
    """
    with warnings.catch_warnings():
        # Pillow warns of large images and of damaged EXIF data; it decodes both all the same
        warnings.simplefilter("ignore")
        try:
            image = Image.open(file, formats=_formats())
        except UnidentifiedImageError as error:
            raise ImageError("it is damaged, or of a format that is not read here") from error
        with image:
            white, transparent = _white(image), _transparent_colour(image)
            image.load()
            if transparent is not None:
                image.info["transparency"] = transparent
            upright = _upright(image)
            if white is None:
                rgb, alpha = _from_8_bits(upright)
            else:
                rgb, alpha = _from_16_bits(upright, white)
    if alpha is None or alpha.min() == 255:
        return Decoded(rgb, False)
    alpha = alpha[..., None].astype(np.uint16)
    mixed = rgb * alpha + np.array(background, np.uint16) * (255 - alpha)  # at most 255 * 255
    return Decoded(((mixed + 127) // 255).astype(np.uint8), True)


@functools.cache
def _formats() -> list[str]:
    """Those of the formats that this build of Pillow knows."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _white(image: Image.Image) -> int | None:
    """The value of white where samples have more than 8 bits, else None."""
    if image.mode in EIGHT_BITS + EIGHT_BITS_AND_ALPHA:
        return None
    if image.format == "TIFF" and image.mode.startswith("I;16"):
        tags = image.tag_v2  # type: ignore[attr-defined]
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            raise ImageError("its 16-bit samples have 0 for white: save it with 0 for black")
        return (1 << tags.get(BITS_PER_SAMPLE, (16,))[0]) - 1
    # Pillow decodes a PGM of more than 8 bits, whatever its largest value, to 65535
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 65535
    kinds = {"I": "signed or 32-bit integers", "F": "floating-point numbers"}
    raise ImageError(
        f"its samples are {kinds.get(image.mode, 'of a kind without a rule here')} (Pillow's mode "
        f"{image.mode}), and no value is known to be white: save it with 8 or 16 bits"
    )


def _transparent_colour(image: Image.Image) -> int | tuple[int, ...] | bytes | None:
    """The transparent colour of an image, with as many bits as Pillow's pixels have.

    A PNG states it with as many bits as the file's samples have, in the lowest of 16. Pillow keeps
    this number, though it gives the pixels 8 bits.
    """
    colour: int | tuple[int, ...] | bytes | None = image.info.get("transparency")
    if image.format != "PNG" or not image.tile:
        return colour
    samples = image.tile[0][3]  # how Pillow names the samples of the file
    if isinstance(colour, tuple):
        return tuple(value >> 8 if samples == "RGB;16B" else value & 255 for value in colour)
    largest = {"L;2": 3, "L;4": 15}.get(samples)
    if isinstance(colour, int) and largest is not None:
        return (colour & largest) * 255 // largest
    return colour


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data says; as it is stored where those are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many kinds for EXIF data; the pixels are loaded by now
        return image


def _from_8_bits(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours [H, W, 3] and opacity [H, W], 0 to 255, or None where all is opaque."""
    if (
        image.mode in EIGHT_BITS_AND_ALPHA
        or "transparency" in image.info
        or (image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A"))
    ):
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3], rgba[..., 3]
    return np.array(image.convert("RGB")), None


def _from_16_bits(image: Image.Image, white: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Grey as colours [H, W, 3], and opacity [H, W], 0 or 255, or None where all is opaque."""
    values = np.asarray(image).astype(np.uint32)
    grey = ((values * 255 + white // 2) // white).astype(np.uint8)
    transparent = image.info.get("transparency")
    alpha = None
    if transparent is not None:
        alpha = np.where(values == transparent, np.uint8(0), np.uint8(255))
    return grey[..., None].repeat(3, axis=2), alpha
