"""Encoding pixels into a file: one pass through libvips, from the canvas into the file, in bands."""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from srgan_cli.config import WriteOptions
from srgan_cli.errors import UnwritablePictureError
from srgan_cli.imaging import resizing
from srgan_cli.imaging.formats import FORMATS
from srgan_cli.imaging.gif_writing import GIF_NOTE, GifWriter
from srgan_cli.imaging.image import Metadata, Pixels
from srgan_cli.imaging.metadata import avif as avif_container
from srgan_cli.imaging.metadata import containers
from srgan_cli.imaging.metadata import tiff as tiff_container
from srgan_cli.imaging.metadata.colour import hdr_of, profile_of
from srgan_cli.imaging.metadata.update import profile_fits
from srgan_cli.imaging.output import Output
from srgan_cli.imaging.sources import reason_given, vips_module
from srgan_cli.imaging.vips_lock import shared

# libtiff does not switch to BigTIFF by itself. Below this size there is room for deflate's expansion of noise.
CLASSIC_TIFF_BYTES = 3_900_000_000
_TIFF_LAYOUTS: dict[str, dict[str, Any]] = {
    "strip": {},
    "tile": {"tile": True},
    "pyramid": {"tile": True, "pyramid": True},
}
_TIFF_LEVEL = 2  # deflate level: 60 to 80 MP/s; libtiff's default 6 is four times slower for files 13 % smaller

Notes = tuple[str, ...]


def encode(
    pixels: Pixels,
    file: BinaryIO,
    output: Output,
    metadata: Metadata,
    options: WriteOptions,
) -> Notes:
    """Write `pixels` (H, W, C), resampled to the size of `output`, as a complete file of its format into `file`.

    `file` need not be seekable. Returns notes for the user. Raises `OSError` from `file`, and `UnwritablePictureError`
    if the encoder refuses.
    """
    with _encoding(output.format):
        image, metadata, notes = _ready(pixels, output, metadata, options)
        return notes + _ENCODERS[output.format](image, file, metadata, options)


def final_pixels(
    pixels: Pixels, output: Output, metadata: Metadata, options: WriteOptions
) -> tuple[Pixels, Metadata, Notes]:
    """(H, W, C) as `encode` would write them, with matching metadata; they may be encoded in parts."""
    with _encoding(output.format):
        image, metadata, notes = _ready(pixels, output, metadata, options)
        return resizing.vips_to_array(image), metadata, notes


def append_tiff(
    pixels: Pixels,
    file: BinaryIO,
    output: Output,
    metadata: Metadata,
    options: WriteOptions,
    *,
    link_at: int | None,
    big: bool,
) -> tuple[int, Notes]:
    """`encode` one more page into a TIFF file that is readable and seekable; `link_at` None: the first page.

    Returns the offset of the link to the next page, which is the next call's `link_at`. Raises as `encode` does.
    """
    with _encoding("tiff"):
        image, metadata, notes = _ready(pixels, output, metadata, options)
        if link_at is None:
            file.seek(0)
            file.write(tiff_container.head(big=big))
            link_at = 8 if big else 4
        base = file.seek(0, 2)
        base += file.write(b"\0" * (-base % 16))
        layout = {"tile": True} if options.tiff_layout != "strip" else {}
        _save_tiff(image, file, base, {**layout, **_tile_sides(options, layout)}, big=big, predictor="horizontal")
        return tiff_container.append(file, base, metadata, link_at), notes


@contextlib.contextmanager
def _encoding(format: str) -> Iterator[None]:  # noqa: A002
    try:
        with shared():
            yield
    except vips_module().Error as err:
        raise UnwritablePictureError(f"the {FORMATS[format].title} encoder failed{reason_given(err)}") from err


def _ready(pixels: Pixels, output: Output, metadata: Metadata, options: WriteOptions) -> tuple[Any, Metadata, Notes]:
    """The picture in its final size, channels and depth, with matching metadata."""
    image = resizing.resized(resizing.array_to_vips(pixels), output.width, output.height)
    image, metadata, notes = _suited(image, output.format, metadata, options)
    return resizing.as_depth(image, output.depth), metadata, notes


def _suited(image: Any, format: str, metadata: Metadata, options: WriteOptions) -> tuple[Any, Metadata, Notes]:  # noqa: A002
    """The picture with channels that `format` supports, and a matching profile."""
    known = FORMATS[format]
    notes: Notes = ()
    if image.bands in (2, 4) and options.background is not None and not known.alpha:
        image = resizing.flattened(image, options.background)
    if image.bands <= 2 and not known.grey:
        if metadata.icc and profile_fits(metadata.icc, 1):
            notes += (f"{known.title} cannot store grey: the picture is converted to sRGB through its grey profile",)
        image, metadata = _grey_as_rgb(image, metadata)
    if metadata.colour and format != "png":
        metadata, profile_notes = _with_profile(metadata, format, grey=image.bands <= 2)
        notes += profile_notes
    if metadata.icc and not profile_fits(metadata.icc, image.bands):
        metadata = replace(metadata, icc=None)
        notes += ("the ICC profile is left out: it is for another number of colours than the picture has",)
    return image, metadata, notes


def _with_profile(metadata: Metadata, format: str, *, grey: bool) -> tuple[Metadata, Notes]:  # noqa: A002
    """The colour description in a file's chunks or numbers as a profile: for containers that support only profiles, and
    for AVIF, which also keeps the numbers, for programs that ignore them."""
    chunks = dict(metadata.colour)
    hdr = hdr_of(chunks)
    if hdr is not None:
        flat = f"the picture is HDR ({hdr}), which {FORMATS[format].title} cannot record: its colours will look flat"
        return metadata, () if format == "avif" else (f"{flat}; PNG and AVIF keep it",)
    profile = profile_of(chunks, grey=grey) if "cICP" in chunks or not metadata.icc else None
    if profile is None:
        return metadata, ()
    return replace(metadata, icc=profile), ()


def _grey_as_rgb(image: Any, metadata: Metadata) -> tuple[Any, Metadata]:
    """RGB for a container without grey. A grey profile cannot be kept, so its tones are converted to sRGB's."""
    if not metadata.icc or not profile_fits(metadata.icc, 1):
        return resizing.as_rgb(image), metadata
    pyvips = vips_module()
    tagged = image.extract_band(0).copy()
    tagged.set_type(pyvips.GValue.blob_type, "icc-profile-data", metadata.icc)
    wide = image.format == "ushort"
    colour = tagged.icc_transform("srgb", embedded=True, intent="relative", depth=16 if wide else 8)
    profile = bytes(colour.get("icc-profile-data"))
    if image.bands == 2:
        colour = colour.bandjoin(image.extract_band(1))
    return colour, replace(metadata, icc=profile)


class _Pipe:
    """A libvips target over a Python file. An error of the file is stored, and raised again in place of libvips' own.

    An exception must not leave a callback, where it would only be printed. The same applies to Ctrl-C.
    """

    def __init__(self, write: Callable[[bytes], object], file: BinaryIO | None = None, base: int = 0) -> None:
        self._write = write
        self._file = file
        self._base = base
        self.error: BaseException | None = None
        self.target = vips_module().TargetCustom()
        self.target.on_write(self._on_write)
        if file is not None:
            self.target.on_read(self._on_read)
            self.target.on_seek(self._on_seek)

    def run(self, image: Any, saver: str, *, keep: str = "none", **options: Any) -> None:
        pyvips = vips_module()
        image = image.copy()  # this thread's own, so that it can be stopped alone

        def save() -> None:
            try:
                pyvips.Operation.call(saver, image, self.target, keep=keep, **options)
            except BaseException as err:  # noqa: BLE001
                self.error = self.error or err

        if threading.current_thread() is threading.main_thread():
            self._apart(save, image)
        else:
            save()
        if self.error is not None:
            raise self.error

    def _apart(self, save: Callable[[], None], image: Any) -> None:
        """Run `save` in another thread, so that Ctrl-C reaches this one. Inside libvips it would be raised in an
        arbitrary callback (pyvips' logging), printed there, and lost."""
        thread = threading.Thread(target=save, name="srgan-encode", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.5)
        except BaseException as err:
            self.error = err
            image.set_kill(True)
            thread.join()
            raise

    def _on_write(self, data: bytes) -> int:
        if self.error is not None:
            return -1
        try:
            self._write(bytes(data))
        except BaseException as err:  # noqa: BLE001
            self.error = self.error or err
            return -1
        return len(data)

    def _on_read(self, count: int) -> bytes:
        assert self._file is not None
        try:
            return self._file.read(count)
        except BaseException as err:  # noqa: BLE001
            self.error = self.error or err
            return b""

    def _on_seek(self, offset: int, whence: int) -> int:
        assert self._file is not None
        try:
            return self._file.seek(offset + (self._base if whence == 0 else 0), whence) - self._base
        except BaseException as err:  # noqa: BLE001
            self.error = self.error or err
            return -1


def _quality(format: str, options: WriteOptions) -> int:  # noqa: A002
    quality = options.quality or FORMATS[format].default_quality
    assert quality is not None
    return quality


def _png(image: Any, file: BinaryIO, metadata: Metadata, options: WriteOptions) -> Notes:
    head = containers.HeadRewriter(file, containers.png_head(metadata))
    # Measured on enlarged photographs at level 1, in million pixels per second and bytes per pixel: none 58 and 2.05,
    # sub 105 and 1.50, up 104 and 1.39, Paeth 55 and 1.37, chosen per row 35 and 1.37 (OpenCV: 25 and 0.94, which "up"
    # at level 2 beats with 63 and 0.93). Choosing per row pays off only with a thorough deflate.
    row_filter = "up" if options.png_level <= 6 else "all"
    _Pipe(head.write).run(image, "pngsave_target", compression=options.png_level, filter=row_filter)
    return ()


def _jpeg(image: Any, file: BinaryIO, metadata: Metadata, options: WriteOptions) -> Notes:
    rewrite, notes = containers.jpeg_head(metadata)
    head = containers.HeadRewriter(file, rewrite)
    quality = _quality("jpeg", options)
    # Optimised Huffman tables make the file 6 % smaller but four times slower to write, and hold all coefficients in
    # memory.
    _Pipe(head.write).run(
        image,
        "jpegsave_target",
        Q=quality,
        subsample_mode="off" if quality >= 90 else "on",
        optimize_coding=False,
    )
    return notes


def _webp(image: Any, file: BinaryIO, metadata: Metadata, options: WriteOptions) -> Notes:
    from PIL import Image as Pillow

    # libwebp's efforts 3 and up take two and a half times as long for files of the same size; lossless is slow at any.
    settings: dict[str, Any] = {"lossless": True, "method": 1, "exact": True} if options.lossless else {"method": 2}
    # Pillow keeps EXIF and XMP byte for byte, which libvips does not, and uses the same libwebp.
    blocks = {"exif": metadata.exif or b"", "xmp": metadata.xmp or b"", "icc_profile": metadata.icc or b""}
    stream = io.BytesIO()
    picture = Pillow.fromarray(resizing.vips_to_array(image))
    picture.save(stream, "WEBP", quality=_quality("webp", options), **settings, **blocks)
    file.write(stream.getbuffer())
    return ()


def _avif(image: Any, file: BinaryIO, metadata: Metadata, options: WriteOptions) -> Notes:
    stream = io.BytesIO()
    quality = _quality("avif", options)
    wide = image.format == "ushort"
    if wide:
        image = _rounded_to_12_bits(image)
    if metadata.icc:
        image = image.copy()
        image.set_type(vips_module().GValue.blob_type, "icc-profile-data", metadata.icc)
    _Pipe(stream.write).run(
        image,
        "heifsave_target",
        keep="icc",
        compression="av1",
        Q=quality,
        effort=1,  # 22 to 30 MP/s; 2 is less than half as fast, for files 2 % smaller
        bitdepth=12 if wide else 8,
        subsample_mode="off" if quality >= 90 else "on",
    )
    file.write(avif_container.avif_file(stream.getvalue(), metadata))
    return ()


def _rounded_to_12_bits(image: Any) -> Any:
    """libvips truncates the four low bits; rounding first halves the error, and 65535 stays the maximum."""
    values = ((np.arange(65536) * 4095 + 32767) // 65535 << 4).astype(np.uint16)
    lookup = vips_module().Image.new_from_memory(values.tobytes(), 65536, 1, 1, "ushort")
    return image.maplut(lookup).copy(interpretation=image.interpretation)


def _tiff(image: Any, file: BinaryIO, metadata: Metadata, options: WriteOptions) -> Notes:
    if not file.seekable():
        with tempfile.TemporaryFile() as scratch:
            notes = _tiff(image, scratch, metadata, options)
            scratch.seek(0)
            while part := scratch.read(1 << 20):
                file.write(part)
        return notes
    wide = image.format == "ushort"
    big = image.width * image.height * image.bands * (2 if wide else 1) > CLASSIC_TIFF_BYTES
    layout = _TIFF_LAYOUTS[options.tiff_layout]
    layout = {**layout, **_tile_sides(options, layout)}
    # The smaller pictures of a pyramid have tables of their own, whose offsets count from where libvips began.
    lead = tiff_container.lead_in(metadata, big=big or options.tiff_layout == "pyramid")
    swapped = tiff_container.byte_order(lead) == ">"
    predictor = "horizontal"
    if swapped and wide:
        # The predictor would take differences of byte-swapped samples.
        image, predictor = image.byteswap(), "none"
    file.write(lead)
    _save_tiff(image, file, len(lead), layout, big=big, predictor=predictor)
    tiff_container.finish(file, lead, metadata, swapped=swapped)
    return ()


def _tile_sides(options: WriteOptions, layout: dict[str, Any]) -> dict[str, Any]:
    return {"tile_width": options.tiff_tile_px, "tile_height": options.tiff_tile_px} if layout else {}


def _save_tiff(image: Any, file: BinaryIO, base: int, layout: dict[str, Any], *, big: bool, predictor: str) -> None:
    _Pipe(file.write, file, base).run(
        image, "tiffsave_target", compression="deflate", level=_TIFF_LEVEL, predictor=predictor, bigtiff=big, **layout
    )


def _bmp(image: Any, file: BinaryIO, metadata: Metadata, options: WriteOptions) -> Notes:
    from PIL import Image as Pillow

    pixels = resizing.vips_to_array(image)
    picture = Pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    # Pillow asks a file for its position; a pipe has none.
    stream = io.BytesIO()
    picture.save(stream, "BMP", **({"dpi": metadata.dpi} if metadata.dpi else {}))
    file.write(stream.getbuffer())
    return ()


def _gif(image: Any, file: BinaryIO, metadata: Metadata, options: WriteOptions) -> Notes:
    writer = GifWriter(file, image.width, image.height, 1)
    writer.add(resizing.vips_to_array(image), 0)
    writer.finish()
    return (GIF_NOTE,)


_ENCODERS: dict[str, Callable[[Any, BinaryIO, Metadata, WriteOptions], Notes]] = {
    "png": _png,
    "jpeg": _jpeg,
    "webp": _webp,
    "avif": _avif,
    "tiff": _tiff,
    "bmp": _bmp,
    "gif": _gif,
}
