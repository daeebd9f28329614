# SPDX-License-Identifier: BSD-3-Clause
"""Images that people bring for the training: what is found, how it is decoded, what is said."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image, features

from examples.stylegan import data, train
from examples.stylegan.decode import EXTENSIONS, FORMATS, ImageError, decode, parse_colour
from examples.stylegan.processes import World
from examples.stylegan.settings import Settings
from examples.stylegan.sources import find_images

from .images import make_folder
from .training import ROOT, TINY, assert_same

WHITE, BLUE = (255, 255, 255), (0, 0, 200)

pytestmark = pytest.mark.usefixtures("one_thread")


def error_of_a_run(capsys, folder, *options):
    """The last line of a run that ends before it begins, and leaves nothing."""
    out = Path(tempfile.mkdtemp()) / "out"
    with pytest.raises(SystemExit) as stop:
        train.main(["--out", str(out), "--data", str(folder), *TINY, *options])
    assert stop.value.code == 2
    assert not out.exists()
    return capsys.readouterr().err.splitlines()[-1]


# One image: modes


def as_file(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


def chunk(kind, content):
    sum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + sum


def png(depth, colour, row, *chunks, size=None):
    """A PNG of one row of bytes, or one that says only that it has another size."""
    width = size or len(row) * 8 // depth // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", width, size or 1, depth, colour, 0, 0, 0)
    content = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(b"\0" + row))]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(content) + chunk(b"IEND", b""))


def tiff(width, row, bits, photometric=1, sample_format=1):
    """A TIFF of one row of grey; photometric 0 has white for 0, sample format 2 has signs."""
    tags = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 0)]
    tags += [(277, 1), (278, 1), (279, len(row)), (339, sample_format)]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = [struct.pack("<HHII", k, 4, 1, start if k == 273 else v) for k, v in tags]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return io.BytesIO(head + b"".join(entries) + struct.pack("<I", 0) + row)


def row_of(file, background=WHITE):
    return decode(file, background).rgb[0].tolist()


SIXTEEN = [0, 128, 129, 257, 32768, 65406, 65407, 65535]
BYTES = [0, 0, 1, 1, 128, 254, 255, 255]  # rounded 255 / 65535 * SIXTEEN; none is a tie


@pytest.mark.parametrize(
    ("format", "mode"),
    [
        *(("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B"), ("PPM", "I;16")),
        *(("PPM", "I"), ("PNG", "I;16B"), ("JPEG2000", "I;16")),
    ],
)
def test_16_bits_of_grey_are_scaled(format, mode):
    if format == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("no JPEG 2000 in this Pillow")
    values = np.array([SIXTEEN] * 8, np.uint16)
    dtype = {"I": np.int32, "I;16B": ">u2"}.get(mode, np.uint16)
    file = as_file(Image.frombytes(mode, values.shape, values.astype(dtype).tobytes()), format)
    found = decode(file, BLUE)
    assert found.rgb.shape == (8, 8, 3)
    assert found.rgb.dtype == np.uint8
    assert found.rgb[3].tolist() == [[v] * 3 for v in BYTES]
    assert not found.transparent


def test_other_bits_of_grey_are_scaled_by_their_own_white():
    pgm = io.BytesIO(b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023))
    assert row_of(pgm) == [[0] * 3, [128] * 3, [255] * 3]
    assert row_of(io.BytesIO(b"P2 3 1 65535\n0 32768 65535\n")) == [[0] * 3, [128] * 3, [255] * 3]
    assert row_of(tiff(2, bytes([0xFF, 0xF8, 0x00]), 12)) == [[255] * 3, [128] * 3]
    assert row_of(png(4, 0, bytes([0x0F]))) == [[0] * 3, [255] * 3]
    assert row_of(tiff(2, bytes([0, 255]), 8, photometric=0)) == [[255] * 3, [0] * 3]


def test_16_bits_of_colour_are_reduced_to_their_upper_8():
    row = struct.pack(">6H", 65535, 256, 255, 0x8000, 0x7FFF, 0)
    assert row_of(png(16, 2, row)) == [[255, 1, 0], [128, 127, 0]]
    ppm = io.BytesIO(b"P6 1 1 65535\n" + struct.pack(">3H", 65535, 32768, 0))
    assert row_of(ppm) == [[255, 128, 0]]


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [
        (
            "float.tif",
            as_file(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF"),
            "its samples are floating-point numbers (Pillow's mode F), and no value is known to "
            "be white: save it with 8 or 16 bits",
        ),
        (
            "wide.tif",
            as_file(Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8)), "TIFF"),
            "its samples are signed or 32-bit integers (Pillow's mode I), and no value is known",
        ),
        (
            "signed.tif",
            tiff(2, struct.pack("<2h", -5, 5), 16, sample_format=2),
            "its samples are signed or 32-bit integers (Pillow's mode I), and no value is known",
        ),
        (
            "inverted.tif",
            tiff(2, struct.pack("<2H", 0, 65535), 16, photometric=0),
            "its 16-bit samples have 0 for white: save it with 0 for black",
        ),
        (
            "floats.ppm",  # a PFM by another name
            io.BytesIO(b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5)),
            "its samples are floating-point numbers (Pillow's mode F), and no value is known",
        ),
    ],
)
def test_samples_without_a_known_white_are_refused_by_name(name, file, reason, tmp_path, capsys):
    folder = make_folder(tmp_path / "images")
    (folder / name).write_bytes(file.getvalue())
    error = error_of_a_run(capsys, folder)
    assert f"every image must be readable, got '{folder / name}': {reason}" in error
    assert "(mend or remove them, or leave them out with --skip-broken)" in error


PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 255, 0, 0, 0, 255, 0]))
SEEN = {  # ROW on each background
    WHITE: [[255, 255, 255], [255, 127, 127], [0, 255, 0]],
    BLUE: [[0, 0, 200], [128, 0, 100], [0, 255, 0]],
}


ROW = [(255, 0, 0, 0), (255, 0, 0, 128), (0, 255, 0, 255)]  # a colour is hidden by opacity 0


def rgba_row():
    image = Image.new("RGBA", (3, 1))
    image.putdata(ROW)
    return image


@pytest.mark.parametrize("background", [WHITE, BLUE])
@pytest.mark.parametrize(
    "file",
    [
        pytest.param(as_file(rgba_row(), "PNG"), id="PNG"),
        pytest.param(as_file(rgba_row(), "TGA"), id="TGA"),
        pytest.param(as_file(rgba_row(), "TIFF"), id="TIFF"),
        pytest.param(as_file(rgba_row(), "WEBP", lossless=True, exact=True), id="WEBP"),
        pytest.param(
            png(8, 3, bytes([0, 1, 2]), PALETTE, chunk(b"tRNS", bytes([0, 128]))), id="palette"
        ),
        pytest.param(
            png(16, 6, struct.pack(">12H", *(257 * v for pixel in ROW for v in pixel))),
            id="PNG16",
        ),
    ],
)
def test_what_is_transparent_shows_the_background(file, background):
    file.seek(0)
    found = decode(file, background)
    assert found.rgb[0].tolist() == SEEN[background]
    assert found.transparent


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        # Grey with opacity, of 8 and of 16 bits
        (png(8, 4, bytes([9, 0, 9, 255])), [[0, 0, 200], [9, 9, 9]]),
        (png(16, 4, bytes([9, 0, 0, 0, 9, 0, 255, 255])), [[0, 0, 200], [9, 9, 9]]),
        # One palette entry, one colour, one grey, and that in bits of its own
        (
            png(8, 3, bytes([0, 2]), PALETTE, chunk(b"tRNS", bytes([0, 255]))),
            [[0, 0, 200], [0, 255, 0]],
        ),
        (
            png(8, 2, bytes([1, 2, 3, 4, 5, 6]), chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))),
            [[0, 0, 200], [4, 5, 6]],
        ),
        (
            png(
                16,
                2,
                struct.pack(">6H", 256, 512, 65535, 4 << 8, 5 << 8, 6 << 8),
                chunk(b"tRNS", struct.pack(">3H", 256, 512, 65535)),
            ),
            [[0, 0, 200], [4, 5, 6]],
        ),
        # The depth of the file decides which bits of the colour count, not the colour's size
        (
            png(
                16,
                2,
                struct.pack(">6H", 0, 0, 200, 0, 0, 200 << 8),
                chunk(b"tRNS", struct.pack(">3H", 0, 0, 200)),
            ),
            [[0, 0, 200], [0, 0, 200]],
        ),
        (
            png(
                16,
                2,
                struct.pack(">6H", 0, 0, 200, 0, 0, 201 << 8),
                chunk(b"tRNS", struct.pack(">3H", 0, 0, 200)),
            ),
            [[0, 0, 200], [0, 0, 201]],
        ),
        (
            png(
                8,
                2,
                bytes([1, 2, 3, 4, 5, 6]),
                chunk(b"tRNS", struct.pack(">3H", 0x401, 0x502, 0x603)),
            ),
            [[0, 0, 200], [4, 5, 6]],
        ),
        (
            png(4, 0, bytes([0x3F]), chunk(b"tRNS", struct.pack(">H", 0x13))),
            [[0, 0, 200], [255, 255, 255]],
        ),
        (
            png(16, 0, struct.pack(">2H", 3000, 65535), chunk(b"tRNS", struct.pack(">H", 3000))),
            [[0, 0, 200], [255, 255, 255]],
        ),
        (
            png(8, 0, bytes([7, 9]), chunk(b"tRNS", struct.pack(">H", 7))),
            [[0, 0, 200], [9, 9, 9]],
        ),
        (
            png(4, 0, bytes([0x3F]), chunk(b"tRNS", struct.pack(">H", 3))),
            [[0, 0, 200], [255, 255, 255]],
        ),
        (
            png(2, 0, bytes([0b01110000]), chunk(b"tRNS", struct.pack(">H", 1))),
            [[0, 0, 200], [255] * 3, [0] * 3, [0] * 3],
        ),
        (
            png(1, 0, bytes([0b10000000]), chunk(b"tRNS", struct.pack(">H", 1))),
            [[0, 0, 200], *[[0] * 3] * 7],
        ),
    ],
)
def test_each_kind_of_transparency_of_a_png_is_understood(file, expected):
    file.seek(0)
    found = decode(file, BLUE)
    assert found.rgb[0].tolist() == expected
    assert found.transparent


def test_an_opaque_alpha_channel_is_no_transparency():
    image = Image.new("RGBA", (2, 2), (1, 2, 3, 255))
    found = decode(as_file(image, "PNG"), BLUE)
    assert found.rgb[0].tolist() == [[1, 2, 3]] * 2
    assert not found.transparent


@pytest.mark.parametrize(
    ("mode", "colour", "format", "expected"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 7, "PNG", (7, 7, 7)),
        ("RGBX", (1, 2, 3, 0), "TIFF", (1, 2, 3)),
        ("CMYK", (255, 0, 0, 0), "TIFF", (0, 255, 255)),
        ("CMYK", (0, 0, 0, 255), "JPEG", (0, 0, 0)),
        ("YCbCr", (76, 85, 255), "TIFF", (254, 0, 0)),
        ("LAB", (138, 208, 195), "TIFF", (255, 0, 0)),  # red, by CIE's formulas
    ],
)
def test_8_bits_in_any_colour_space_become_rgb(mode, colour, format, expected):
    image = Image.new(mode, (8, 8), colour)
    found = decode(as_file(image, format), BLUE)
    assert np.abs(found.rgb.astype(int) - expected).max() <= (12 if mode == "LAB" else 0)
    assert not found.transparent


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_of_animations_the_first_frame_is_taken(format):
    if format in ("WEBP", "AVIF") and not features.check(format.lower()):
        pytest.skip(f"no {format} in this Pillow")
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    file = as_file(frames[0], format, save_all=True, append_images=frames[1:])
    with Image.open(file) as image:
        assert image.n_frames == 2
    file.seek(0)
    assert np.abs(decode(file, BLUE).rgb[8, 8].astype(int) - (250, 0, 0)).max() < 9


def test_a_gif_of_which_a_colour_is_transparent_shows_the_background():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    assert row_of(as_file(image, "GIF", transparency=0), BLUE) == [[0, 0, 200], [0, 255, 0]]


@pytest.mark.parametrize("bits", [8, 16])
def test_images_stand_upright_as_their_exif_data_say(bits):
    stored = np.arange(6).reshape(2, 3) * (1 if bits == 8 else 257)
    image = Image.fromarray(stored.astype(np.uint8 if bits == 8 else np.uint16))
    turned = {
        1: np.array,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).T,
        8: np.rot90,
    }
    for orientation, turn in turned.items():
        exif = Image.Exif()
        exif[0x112] = orientation
        found = decode(as_file(image, "PNG", exif=exif), WHITE).rgb[..., 0]
        assert found.tolist() == turn(np.arange(6).reshape(2, 3)).tolist(), orientation


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_damaged_exif_data_leave_an_image_as_it_is_stored(format, exif):
    image = Image.fromarray(np.full((4, 6, 3), 77, np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(as_file(image, format, exif=exif), WHITE).rgb.tolist() == [[[77] * 3] * 6] * 4


def test_large_images_are_taken_without_a_warning_and_bombs_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # from here on a warning, refused from 201
    image = Image.new("L", (15, 10), 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(as_file(image, "PNG"), WHITE).rgb.shape == (10, 15, 3)
    monkeypatch.undo()
    folder = make_folder(tmp_path / "images")
    (folder / "bomb.png").write_bytes(png(8, 2, b"", size=20_000).getvalue())
    with pytest.raises(ImageError, match=r"bomb\.png': Image size \(400000000 pixels\) exceeds"):
        data.load(str(folder), 8)


def test_lines_of_pixels_do_not_fill_the_memory(tmp_path):
    folder = make_folder(tmp_path / "images")
    line = np.zeros((60_000, 1), np.uint8)
    line[29_990:30_010] = 200  # the centre
    Image.fromarray(line).save(folder / "line.png")
    images = data.load(str(folder), 64, workers=1)  # resized as a whole it is 737 MB
    files = data.Files(find_images(folder).source, ("line.png",), 64)
    assert images.held_out.shape == (2, 3, 64, 64)
    assert (files[0] == 200).all()


def test_a_background_is_a_colour(tmp_path, capsys):
    assert parse_colour("white") == WHITE
    assert parse_colour("#0000c8") == BLUE
    assert parse_colour("rgb(1, 2, 3)") == (1, 2, 3)
    for text in ("blanc", "#fff8", "rgb(256, 0, 0)", ""):
        sentence = f"background must be a colour, such as white or #7f7f7f, got '{text}'"
        with pytest.raises(ValueError, match=re.escape(sentence)):
            Settings(background=text).check()
    error = error_of_a_run(capsys, make_folder(tmp_path / "images"), "--background", "1")
    assert "background must be a colour, such as white or #7f7f7f, got '1'" in error


def test_programs_are_not_started_for_what_is_called_an_image(tmp_path):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    folder = make_folder(tmp_path / "images")
    (folder / "drawing.png").write_bytes(eps)
    with pytest.raises(ImageError, match=r"drawing\.png': it is damaged, or of a format that is"):
        data.load(str(folder), 8)
    assert not {"EPS", "PDF", "WMF"} & FORMATS.keys()


# A folder


def test_folder_is_searched_through_resized_and_cropped(tmp_path):
    folder = make_folder(tmp_path / "images", 3)
    (folder / "notes.txt").write_text("no image")
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, 24:40] = (10, 20, 30)  # all that the centre crop sees
    Image.fromarray(wide).save(folder / "wide.png")
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(folder / "grey.png")
    Image.fromarray(np.full((9, 9, 4), 8, np.uint8)).save(folder / "transparent.webp")
    found = find_images(folder)
    assert len(found.names) == 6
    images = data.load_files(folder, 16)
    assert images.train.shape == (4, 3, 16, 16)
    assert images.held_out.shape == (2, 3, 16, 16)
    assert images.train_labels is None
    wide, grey = data.Files(found.source, ("wide.png", "grey.png"), 16)
    assert wide.dtype == torch.uint8
    assert wide[:, 8, 3:-3].T.tolist() == [[10, 20, 30]] * 10
    assert (grey == 7).all()


def test_folder_errors_name_folder_and_file(tmp_path, capsys):
    missing = tmp_path / "nowhere"
    assert f"the folder of images must exist, got '{missing}'" in error_of_a_run(capsys, missing)
    empty = tmp_path / "empty"
    empty.mkdir()
    error = error_of_a_run(capsys, empty)
    assert "at least 4 images (.avif, .bmp, .dib, .gif, .jpg, " in error
    assert f"got 0 in '{empty}': 0 images taken" in error
    folder = make_folder(tmp_path / "images")
    a_file = folder / "1.txt"
    a_file.write_text("")
    error = error_of_a_run(capsys, a_file)
    assert f"must lie in a folder or a whole zip archive, got the file '{a_file}': " in error
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    error = error_of_a_run(capsys, pipe)
    assert f"the images must lie in a folder or a zip archive, got '{pipe}'" in error
    whole = (folder / "2.png").read_bytes()
    for content in (b"", b"no picture at all", whole[: len(whole) // 2]):
        (folder / "2.png").write_bytes(content)
        error = error_of_a_run(capsys, folder)
        assert f"every image must be readable, got '{folder / '2.png'}': " in error


def test_every_extension_that_is_listed_is_decoded(tmp_path):
    formats = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # that Pillow may lack
    image = Image.fromarray(np.full((16, 16, 3), 99, np.uint8))
    names = []
    for format, extensions in FORMATS.items():
        if features.check(formats[format]) if format in formats else True:
            for extension in extensions:
                names.append(f"x{extension.upper()}")
                grey = extension == ".pgm"
                made = image.convert("1" if extension == ".pbm" else "L" if grey else "RGB")
                made.save(tmp_path / names[-1], format)
    assert find_images(tmp_path).names == tuple(sorted(names))
    images = data.load(str(tmp_path), 8)
    assert len(images.train) + len(images.held_out) == len(names)
    assert images.summary == f"{len(names)} images taken"
    assert {".gif", ".jfif", ".jpe", ".avif", ".jp2", ".tga", ".qoi"} < set(EXTENSIONS)


@pytest.fixture
def odd_folder(tmp_path):
    """What lies about in folders of images, beside seven of them."""
    folder = make_folder(tmp_path / "images", 4)
    png = (folder / "2.png").read_bytes()

    def put(name):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
        return path

    for name in (".thumbnails/0.png", ".ipynb_checkpoints/0.png", "__MACOSX/0.png", "@eaDir/0.jpg"):
        put(name)
    for name in ("._2.png", ".DS_Store", "deep/._2.png"):
        put(name)
    for name in ("a.mp4", "b.mp4", "c.txt", "d.heic", "d.mp4.part", "archive.zip"):
        put(name)
    for name in ("no_extension", "After p. 9 of the book"):
        put(name)
    put("folder.png/inside.png")
    linked = make_folder(tmp_path / "elsewhere", 1)  # outside, in reach by two links
    (folder / "a_link").symlink_to(linked)
    (folder / "b_link").symlink_to(linked)
    (linked / "up").symlink_to("../images")  # a loop
    (folder / "deep" / "self").symlink_to(".")
    (folder / "linked.png").symlink_to("2.png")
    (folder / "broken.png").symlink_to("nothing.png")
    (folder / "itself.png").symlink_to("itself.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "piped.png").symlink_to("pipe.png")
    return folder


def test_a_folder_is_taken_with_its_links_and_without_what_programs_leave(odd_folder):
    found = find_images(odd_folder)
    assert found.names == (
        *("0.JPG", "2.png", "a_link/0.JPG", "deep/er/1.png", "deep/er/3.JPG"),
        *("folder.png/inside.png", "linked.png"),
    )
    words = found.describe()
    types = re.search(r"other types \((.*?)\)", words)[1]
    assert words == (
        "7 images taken from 4 folders, which are not taken for classes; skipped: "
        f"other types ({types}) 8, hidden 7, links to folders that are read already 3, "
        "broken links 2, pipes, sockets or devices 2"
    )
    counted = [".heic 1", ".mp4 2", ".part 1", ".txt 1", ".zip 1", "no extension 2"]
    assert sorted(types.split(", ")) == counted
    images = data.load(str(odd_folder), 8)
    assert images.summary == words
    assert len(images.train) + len(images.held_out) == 7


def test_a_run_says_once_what_it_took_and_what_it_shows_transparent_images_on(
    odd_folder, tmp_path, capsys, no_report
):
    rgba_row().resize((9, 9)).save(odd_folder / "clear.png")
    options = ["--out", str(tmp_path / "run"), "--data", str(odd_folder), "--device", "cpu"]
    assert train.main([*options, *TINY, "--steps", "1", "--background", "#0000c8"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("8 images taken from 4 folders, ") == 1
    assert printed.count("; transparent images 1, shown on #0000c8 (--background)\n") == 1
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["settings"]["background"] == "#0000c8"
    assert train.main([*options, "--resume", "--steps", "2"]) == 0
    assert "shown on #0000c8 (--background)\n" in capsys.readouterr().out


def test_types_beyond_the_first_are_counted(tmp_path):
    for number in range(11):
        (tmp_path / f"x.t{number:02}").write_text("")
    (tmp_path / "y.t10").write_text("")
    (tmp_path / "z.\nb\udcff").write_text("")
    words = find_images(tmp_path).describe()
    assert words.startswith("0 images taken; skipped: other types (.t10 2, .t")
    assert words.endswith(" 1 and 4 types more) 13")
    assert words.isprintable()


def test_many_folders_and_deep_ones_are_read(tmp_path):
    deep = tmp_path / "many"
    for number in range(1000):
        (tmp_path / "many" / f"{number:04}").mkdir(parents=True)
    for _ in range(300):
        deep = deep / "d"
        deep.mkdir()
    png = as_file(Image.new("L", (8, 8)), "PNG").getvalue()
    for number in (0, 500, 999):
        (tmp_path / "many" / f"{number:04}" / "x.png").write_bytes(png)
    (deep / "x.png").write_bytes(png)
    assert len(find_images(tmp_path).names) == 4


@pytest.mark.parametrize("links", [4, 9])
def test_links_of_all_folders_to_all_others_are_followed_once(links, tmp_path):
    for a in range(links):
        make_folder(tmp_path / str(a), 1)
        for b in range(links):
            (tmp_path / str(a) / f"to_{b}").symlink_to(f"../{b}")
    found = find_images(tmp_path)
    assert found.names == tuple(f"{a}/0.JPG" for a in range(links))
    assert found.skipped == {"links to folders that are read already": links**2}


@contextlib.contextmanager
def without_rights():
    """As a user to whom the rights of files apply, which they do not to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_said(capsys):
    with tempfile.TemporaryDirectory() as path:  # pytest's own folders are closed to others
        os.chmod(path, 0o755)
        folder = make_folder(Path(path) / "images", 8)
        closed = folder / "lost+found"
        closed.mkdir()
        (folder / "into.png").symlink_to(closed / "x.png")
        closed.chmod(0)
        try:
            with without_rights():
                found = find_images(folder)
                assert len(found.names) == 8
                skipped = {"folders that cannot be read (Permission denied)": 1, "broken links": 1}
                assert found.skipped == skipped
                with pytest.raises(OSError, match=r"must be readable, got '.*': Permission denied"):
                    find_images(closed)
            (folder / "2.png").chmod(0)
            with without_rights():
                with pytest.raises(ImageError, match=r"2\.png'.*Permission denied.*--skip-broken"):
                    data.load(str(folder), 8)
                images = data.load(str(folder), 8, skip_broken=True)
            assert "unreadable images ('" in images.summary
            assert len(images.names) == 7
        finally:
            closed.chmod(0o755)


# Names


def test_a_fingerprint_is_of_the_names_in_the_order_of_their_parts(tmp_path):
    folder = make_folder(tmp_path / "images", 8)
    for name in ("deep-er", "deep.png", "Deep", "é", "深"):
        make_folder(folder / name, 2)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg"))
    names = [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    expected = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    assert names.index("deep/er/1.png") < names.index("deep-er/0.JPG")  # "-" comes before "/"
    assert data.load(str(folder), 8).fingerprint() == f"18 files, {expected}"


def test_names_that_are_no_utf_8_are_trained_on_and_shown(tmp_path, capsys, no_report):
    """In a new process, whose output must be UTF-8: a name printed as it is would end it."""
    folder = make_folder(tmp_path / "plain", 6)
    shutil.copy(folder / "2.png", os.fsencode(folder) + b"/\xff\xfe.png")
    shutil.copy(folder / "2.png", folder / "two\nlines.png")
    odd = os.path.join(tmp_path, "caf\udce9")
    folder.rename(odd)
    options = ["--out", str(tmp_path / "run"), *TINY, "--data", odd]
    ran = subprocess.run(
        [sys.executable, "-m", "examples.stylegan.train", *options, "--steps", "1"],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert f"6 images of {tmp_path}/caf\\udce9 to learn from, 2 held out" in ran.stdout
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["settings"]["data"] == odd
    assert state["images"].startswith("8 files, ")
    assert train.main([*options[:2], "--device", "cpu", "--resume", "--steps", "2"]) == 0
    capsys.readouterr()
    for name in ("two\nlines.png", "\udcff\udcfe.png"):
        Path(odd, name).write_bytes(b"")
    error = error_of_a_run(capsys, odd)
    assert "/caf\\udce9/two\\nlines.png': it is damaged" in error
    assert "/caf\\udce9/\\udcff\\udcfe.png': it is damaged" in error


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", r"\xe9"), ("utf-8", "é")])
def test_names_and_reports_are_shown_on_output_of_any_encoding(encoding, shown, tmp_path):
    folder = make_folder(tmp_path / "é\udcff", 6)
    (folder / "é.png").write_bytes(b"")
    options = ["--out", str(tmp_path / "é"), "--data", str(folder), "--skip-broken"]
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with contextlib.redirect_stdout(output):
        assert train.main([*options, *TINY, "--steps", "1"]) == 0
        copy = folder.rename(tmp_path / "ü")
        resumed = ["--resume", "--device", "cpu", "--samples", "2", "--data", str(copy)]
        assert train.main([*options[:2], *resumed]) == 0
    output.flush()
    lines = output.buffer.getvalue().decode(encoding).splitlines()
    said = "\n".join(lines)
    unreadable = rf"unreadable images ('{tmp_path}/{shown}\udcff/{shown}.png': it is damaged, "
    assert unreadable in said
    assert rf"images of {tmp_path}/{shown}\udcff to learn from, 2 held out" in said
    assert f"Fr{shown}chet distance to held-out images" in said
    assert lines[-1].endswith(f"; see {tmp_path}/{shown}/samples.png")
    assert f"going on with data='{tmp_path}/{shown.replace('e9', 'fc').replace('é', 'ü')}'" in said


# Images that cannot be decoded, and images that are read when needed


def break_some(folder):
    """One empty, one truncated in the middle; the folder without them."""
    rest = shutil.copytree(folder, folder.with_name("rest"))
    (folder / "0.JPG").write_bytes(b"")
    whole = (folder / "deep" / "er" / "5.png").read_bytes()
    (folder / "deep" / "er" / "5.png").write_bytes(whole[: len(whole) // 2])
    (rest / "0.JPG").unlink()
    (rest / "deep" / "er" / "5.png").unlink()
    return rest


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_cannot_be_decoded_are_found_before_the_first_step(workers, tmp_path, capsys):
    folder = make_folder(tmp_path / "images", 12)
    break_some(folder)
    error = error_of_a_run(capsys, folder, "--workers", str(workers))
    assert f"every image must be readable, got '{folder / '0.JPG'}': it is damaged, " in error
    assert f"; '{folder / 'deep' / 'er' / '5.png'}': image file is truncated (mend or rem" in error


def test_images_that_cannot_be_decoded_are_left_out_where_asked(tmp_path, capsys, no_report):
    folder = make_folder(tmp_path / "images", 12)
    rest = data.load(str(break_some(folder)), 8)
    for workers in (0, 2):
        images = data.load(str(folder), 8, workers=workers, skip_broken=True)
        assert images.fingerprint() == rest.fingerprint()
        train_images = images.train if workers == 0 else torch.stack(list(images.train))
        assert torch.equal(train_images, rest.train)
        assert torch.equal(images.held_out, rest.held_out)
        words = "10 images taken from 2 folders, which are not taken for classes; skipped: unread"
        assert images.summary.startswith(f"{words}able images ('{folder / '0.JPG'}': it is da")
        assert images.summary.endswith("truncated) 2")
    options = ["--out", str(tmp_path / "run"), "--data", str(folder), "--device", "cpu"]
    assert train.main([*options, *TINY, "--skip-broken", "--steps", "1"]) == 0
    assert "truncated) 2\n" in capsys.readouterr().out
    assert train.main([*options, "--resume", "--workers", "1", "--steps", "2"]) == 0
    for path in folder.glob("deep/er/*"):
        path.write_bytes(b"")
    (folder / "2.png").write_bytes(b"")
    (folder / "4.png").write_bytes(b"")
    error = error_of_a_run(capsys, folder, "--skip-broken")
    assert f"at least 4 images ({', '.join(EXTENSIONS)}), got 3 in '{folder}': 3 images " in error
    assert re.search(r"unreadable images \(.*; 6 more\) 9$", error)


def test_workers_read_the_same_images_as_are_held_in_memory(tmp_path, no_report):
    folder = make_folder(tmp_path / "images", 12)
    runs = []
    for workers in (0, 1):
        out = tmp_path / str(workers)
        options = ["--out", str(out), *TINY, "--data", str(folder), "--workers", str(workers)]
        assert train.main([*options, "--steps", "4"]) == 0
        assert train.main([*options, "--steps", "6", "--resume"]) == 0
        runs.append(torch.load(out / "checkpoint.pt", weights_only=True))
    assert_same(*runs)


def test_an_image_that_is_damaged_after_the_start_is_named(tmp_path, capsys, monkeypatch):
    folder = make_folder(tmp_path / "images", 12)
    announce, broken = train.announce, []

    def damage(training):
        announce(training)
        broken.append(folder / training.images.train.names[3])
        broken[0].write_bytes(broken[0].read_bytes()[:60])

    monkeypatch.setattr(train, "announce", damage)
    options = ["--out", str(tmp_path / "run"), *TINY, "--data", str(folder), "--workers", "1"]
    assert train.main([*options, "--steps", "9"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: every image must be readable, got '{broken[0]}': " in error
    steps = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["steps"]
    assert f"; {steps} steps are saved: mend or remove it, and go on with --resume" in error
    broken[0].unlink()
    monkeypatch.setattr(train, "announce", announce)
    more = ["--data", str(folder), "--workers", "1", "--resume", "--steps", str(steps + 2)]
    monkeypatch.setattr(train, "report", lambda *args: None)
    assert train.main(["--out", str(tmp_path / "run"), "--device", "cpu", *more]) == 0


def test_folders_too_large_for_memory_ask_for_workers(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "images", 8)
    monkeypatch.setattr(data, "IN_MEMORY", 100)
    with pytest.raises(ValueError, match=r"must not exceed 0 GiB, got 8 images of .* with workers"):
        data.load(str(folder), 16)
    images = data.load(str(folder), 16, workers=1)
    assert isinstance(images.train, data.Files)
    assert images.train[2].shape == (3, 16, 16)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_may_be_stopped_while_images_are_read(workers, tmp_path, monkeypatch, capsys):
    def interrupt(*arguments):  # Ctrl-C, once, which reaches the first process alone
        with contextlib.suppress(FileExistsError):
            (tmp_path / "pressed").touch(exist_ok=False)
            os.kill(os.getpid() if workers == "0" else os.getppid(), signal.SIGINT)
        return decode(*arguments)

    monkeypatch.setattr(data, "decode", interrupt)
    options = ["--out", str(tmp_path / "run"), *TINY, "--workers", workers]
    assert train.main([*options, "--data", str(make_folder(tmp_path / "images"))]) == 130
    assert capsys.readouterr().err.endswith("stopped before the first step\n")
    assert not (tmp_path / "run").exists()


def test_memory_that_lacks_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def lack(*_):
        raise MemoryError("no more")

    monkeypatch.setattr(data, "decode", lack)
    with pytest.raises(MemoryError, match="no more"):
        data.load(str(make_folder(tmp_path / "images")), 8, skip_broken=True)


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    options = {"workers": 1, "world": World(rank, 2)}
    images = data.load(f"{folder}/images", 8, skip_broken=True, **options)
    try:
        data.load(f"{folder}/images", 8, **options)
    except ImageError as error:
        torch.save([images.fingerprint(), images.summary, str(error)], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of threads before a fork
def test_processes_share_the_search_for_broken_images_and_agree(tmp_path):
    rest = data.load(str(break_some(make_folder(tmp_path / "images", 12))), 8)
    # Forked, since nothing here needs a process that imports everything anew
    mp.start_processes(one_of_two, (str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first == second
    assert first[0] == rest.fingerprint()
    assert "'0.JPG" in first[2].replace(str(tmp_path / "images") + "/", "")
    assert "'deep/er/5.png" in first[2].replace(str(tmp_path / "images") + "/", "")


# Zip archives


def make_zip(path, contents, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def contents(tmp_path):
    """The files of a folder of images by name, as they are written into archives."""
    folder = make_folder(tmp_path / "images", 8)
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("method", ["STORED", "DEFLATED", "BZIP2", "LZMA"])
def test_a_zip_archive_holds_the_same_images_as_its_folder(method, contents, tmp_path):
    path = make_zip(tmp_path / "images.zip", contents, getattr(zipfile, f"ZIP_{method}"))
    expected = data.load(str(tmp_path / "images"), 8)
    for workers in (0, 2):
        images = data.load(str(path), 8, workers=workers)
        assert images.fingerprint() == expected.fingerprint()
        train_images = images.train if workers == 0 else read_by_two(images.train)
        assert torch.equal(train_images, expected.train)
        assert torch.equal(images.held_out, expected.held_out)
        assert images.summary == expected.summary


def read_by_two(files):
    """By two processes that were forked from this one, and in one that was not."""
    loader = torch.utils.data.DataLoader(files, 3, num_workers=2)
    images = torch.cat(list(loader))
    assert torch.equal(pickle.loads(pickle.dumps(files))[1], images[1])
    return images


def test_a_run_goes_on_with_the_zip_archive_of_its_folder(contents, tmp_path, no_report):
    path = make_zip(tmp_path / "images.zip", contents)
    options = ["--out", str(tmp_path / "run"), "--device", "cpu"]
    assert train.main([*options, *TINY, "--data", str(tmp_path / "images"), "--steps", "1"]) == 0
    assert train.main([*options, "--resume", "--data", str(path), "--steps", "2"]) == 0
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["settings"]["data"] == str(path)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"labels": [["0.png", 3]]}, "; the classes in dataset.json are not used"),
        ({"labels": None}, ""),
        ({}, ""),
        ([1], ""),
        ("{", ""),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_classes_are_not_used_and_that_is_said(kind, labels, words, contents, tmp_path):
    text = labels if isinstance(labels, str) else json.dumps(labels)
    path = tmp_path / "images"
    (path / "dataset.json").write_text(text)
    if kind == "zip":
        path = make_zip(tmp_path / "images.zip", {**contents, "dataset.json": text})
    summary = "8 images taken from 2 folders, which are not taken for classes" + words
    assert find_images(path).describe() == summary


@pytest.mark.parametrize("damage", ["a byte", "the end", "its depth"])
def test_damaged_classes_in_a_zip_archive_are_left_alone(damage, contents, tmp_path):
    text = b"[" * 100_000 if damage == "its depth" else json.dumps({"labels": None}).encode()
    members = {**contents, "dataset.json": text}
    method = zipfile.ZIP_STORED if damage == "the end" else zipfile.ZIP_DEFLATED
    path = make_zip(tmp_path / "images.zip", members, method)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("dataset.json").header_offset
    whole = bytearray(path.read_bytes())
    if damage == "a byte":  # the first block is of a kind that deflate lacks: zlib.error
        whole[start + 30 + len("dataset.json")] = 0xFF
    elif damage == "the end":  # the directory says more bytes than there are: EOFError
        sizes = whole.rindex(b"PK\x01\x02") + 20
        whole[sizes : sizes + 8] = struct.pack("<II", 10**6, 10**6)
    path.write_bytes(whole)
    assert find_images(path).describe().startswith("8 images taken from 2 folders")


def test_odd_members_of_a_zip_archive_are_named_or_skipped(contents, tmp_path):
    png = contents["2.png"]
    make_zip(tmp_path / "inner.zip", contents)
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    odd = {
        **contents,
        **{"/absolute.png": png, "../above.png": png, "a/../../twice_above.png": png, "é.png": png},
        **{"__MACOSX/._2.png": png, "__MACOSX/deep/._2.png": png, "deep/.hidden.png": png},
        **{"empty/": b"", "inner.zip": (tmp_path / "inner.zip").read_bytes(), link: b"2.png"},
    }
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    images = data.load(str(make_zip(place / "odd.zip", odd)), 8)
    assert len(images.names) == 12
    assert images.summary == (
        "12 images taken from 4 folders, which are not taken for classes; skipped: "
        "hidden 2, links in the archive 1, other types (.zip 1) 1"
    )
    assert os.listdir(place) == ["odd.zip"]
    assert sorted(os.listdir(tmp_path)) == ["a", "images", "inner.zip"]


def test_a_name_that_an_archive_has_twice_is_its_last_member(contents, tmp_path):
    path = make_zip(tmp_path / "images.zip", contents)
    grey = as_file(Image.new("L", (8, 8), 77), "PNG").getvalue()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("2.png", grey)
    found = find_images(path)
    assert len(found.names) == 8
    assert (data.Files(found.source, ("2.png",), 8)[0] == 77).all()


def test_archives_that_cannot_be_read_are_named(contents, tmp_path, capsys):
    whole = make_zip(tmp_path / "images.zip", contents).read_bytes()
    path = tmp_path / "odd.zip"
    sentence = f"must lie in a folder or a whole zip archive, got the file '{path}': File is not a"
    for content in (b"", whole[: len(whole) // 2], b"no archive"):
        path.write_bytes(content)
        assert sentence in error_of_a_run(capsys, path)

    # A member whose bytes are not those that were written
    start = whole.index(contents["2.png"])
    path.write_bytes(whole[: start + 60] + bytes([whole[start + 60] ^ 1]) + whole[start + 61 :])
    error = error_of_a_run(capsys, path)
    assert f"every image must be readable, got '{path}/2.png': Bad CRC-32 for file '2.png'" in error
    images = data.load(str(path), 8, skip_broken=True)
    assert len(images.names) == 7

    # The flag of encryption in the local headers and in the directory
    encrypted = bytearray(whole)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for match in re.finditer(re.escape(signature), whole):
            encrypted[match.start() + offset] |= 1
    path.write_bytes(encrypted)
    error = error_of_a_run(capsys, path)
    assert f"'{path}/0.JPG': File '0.JPG' is encrypted, password required for extraction;" in error
    assert "; 5 more (mend or remove them" in error

    # A name that says it is UTF-8 and is not
    name = whole.replace(b"2.png", b"\xff.png")
    named = bytearray(name)
    for match in re.finditer(re.escape(b"PK\x01\x02"), name):
        named[match.start() + 9] |= 8
    path.write_bytes(named)
    assert f"got the file '{path}': 'utf-8' codec can't decode" in error_of_a_run(capsys, path)


@pytest.mark.parametrize("says", ["its size", "a small size"])
def test_a_bomb_in_an_archive_fills_no_memory(says, contents, tmp_path):
    path, size = make_zip(tmp_path / "images.zip", contents), 257 << 20
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("bomb.png", "w") as bomb,
    ):
        for _ in range(size >> 20):
            bomb.write(bytes(1 << 20))
    reason = f"a file in a zip archive must have at most 268,435,456 bytes, got {size:,}"
    if says == "a small size":
        content = path.read_bytes()
        entry = content.rindex(b"PK\x01\x02")  # of the directory: the last member's
        path.write_bytes(content[: entry + 24] + struct.pack("<I", 99) + content[entry + 28 :])
        reason = "Bad CRC-32 for file 'bomb.png'"
    tracemalloc.start()
    try:
        images = data.load(str(path), 8, skip_broken=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert f"unreadable images ('{path}/bomb.png': {reason}) 1" in images.summary
    assert peak < 32 << 20


def test_an_archive_is_opened_by_each_process_for_itself(contents, tmp_path):
    found = find_images(make_zip(tmp_path / "images.zip", contents))  # opened here, before a fork
    files = data.Files(found.source, found.names, 8)
    loader = torch.utils.data.DataLoader(files, sampler=[*range(8)] * 40, num_workers=2)
    for number, image in enumerate(loader):
        assert torch.equal(image[0], files[number % 8])  # three processes read at once
