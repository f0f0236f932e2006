"""Images in, codes out: reading image files and the host's input quantisation."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib.npyio import NpzFile

from ..kernels.errors import FormatError, ToolMissingError
from .manifest import InputSpec

__all__ = ["ImageSet", "image_codes", "input_table", "load_images", "quantise_images"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm")


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images (N, C, H, W): uint8 pixels, or integer codes where `coded`; labels (N,) or none."""

    images: np.ndarray
    labels: np.ndarray | None = None
    coded: bool = False

    def __post_init__(self) -> None:
        images = self.images
        if images.ndim != 4 or len(images) == 0:
            raise FormatError(f"images must be an array (N, C, H, W) with N > 0, not of shape {images.shape}")
        if not np.issubdtype(images.dtype, np.integer) or (not self.coded and images.dtype != np.uint8):
            raise FormatError(f"images must be {'integer codes' if self.coded else 'uint8'}, not {images.dtype}")
        if self.labels is not None and (
            self.labels.shape != (len(images),) or not np.issubdtype(self.labels.dtype, np.integer)
        ):
            raise FormatError(
                f"labels must be {len(images)} integers, not {self.labels.dtype} of shape {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> "ImageSet":
        return ImageSet(self.images[part], None if self.labels is None else self.labels[part], self.coded)

    def batches(self, size: int) -> Iterator["ImageSet"]:
        """Consecutive parts of at most `size` images."""
        for first in range(0, len(self), size):
            yield self[first : first + size]


def load_images(path: str | Path) -> ImageSet:
    """Read an ``.npz`` file, or image files of a folder or a ``.zip`` archive.

    The file holds ``images`` (uint8) or ``codes`` (integer input codes), both (N, C, H, W), and perhaps
    ``labels`` (N,). A folder's files are taken in the order of their names; where it has
    sub-folders, those are the classes, numbered in the order of their names. An archive is such a folder, and may have
    others around it.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _load_folder(path)
        return _load_archive(path) if path.suffix.lower() == ".zip" else _load_npz(path)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    except OSError as error:
        raise FormatError(f"{path}: must be readable: {error.strerror or _one_line(error)}") from error


def _load_npz(path: Path) -> ImageSet:
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as data:
            keys = [key for key in ("images", "codes") if key in data.files]
            if len(keys) != 1:
                raise FormatError(f"must hold one of the arrays 'images' and 'codes', not {', '.join(data.files)}")
            labels = data["labels"] if "labels" in data.files else None
            return ImageSet(data[keys[0]], labels, coded=keys[0] == "codes")
    except (FormatError, OSError):
        raise
    except Exception as error:  # NumPy, zipfile and zlib each raise their own kinds on what they cannot read
        raise FormatError(f"must be an intact .npz archive of plain arrays: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _load_folder(path: Path) -> ImageSet:
    classes = sorted(entry for entry in path.iterdir() if entry.is_dir())
    return _decoded(
        (str(file.relative_to(path)), number if classes else None, file.read_bytes)
        for number, folder in enumerate(classes or [path])
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in SUFFIXES
    )


def _load_archive(path: Path) -> ImageSet:
    try:
        with ZipFile(path) as archive:
            entries = [PurePosixPath(entry.filename) for entry in archive.infolist() if not entry.is_dir()]
            files = sorted(entry for entry in entries if entry.suffix.lower() in SUFFIXES)
            folders = sorted({file.parent for file in files})
            if len({len(folder.parts) for folder in folders}) > 1:
                raise FormatError("must hold image files in folders of one depth, a folder for each class")
            return _decoded(
                (str(file), folders.index(file.parent) if len(folders) > 1 else None, partial(archive.read, str(file)))
                for file in files
            )
    except (BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise FormatError(f"must be an intact .zip archive: {_one_line(error)}") from error


def _decoded(files: Iterable[tuple[str, int | None, Callable[[], bytes]]]) -> ImageSet:
    """The set of image files, each with its name, its class and what reads its bytes."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ToolMissingError("reading image files needs Pillow: pip install pillow") from error
    pixels: list[np.ndarray] = []
    classes: list[int | None] = []
    for name, number, read in files:
        data = read()
        try:
            with Image.open(BytesIO(data)) as picture:
                image = np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
        except Exception as error:  # Pillow's decoders raise many kinds on what they cannot read
            raise FormatError(f"{name} must be an image: {_one_line(error)}") from error
        image = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        if pixels and image.shape != pixels[0].shape:
            raise FormatError(f"{name} must be {pixels[0].shape} like the others, not {image.shape}")
        pixels.append(image)
        classes.append(number)
    if not pixels:
        raise FormatError(f"must hold image files ({', '.join(SUFFIXES)})")
    labels = None if None in classes else np.array(classes)
    return ImageSet(np.stack(pixels), labels)


@lru_cache(maxsize=8)
def input_table(spec: InputSpec) -> np.ndarray:
    """Code of every pixel value: int16 (channels, 256), computed in float64; it can only be read."""
    pixels = np.arange(256, dtype=np.float64) / spec.divide
    mean, std = (np.array(values, dtype=np.float64)[:, None] for values in (spec.mean, spec.std))
    values = (pixels - mean) / std
    if spec.planes is not None:
        table = (values >= 0).astype(np.int16)
    else:
        table = np.clip(np.rint(values / spec.scale + spec.zero_point), *spec.range).astype(np.int16)
    table.setflags(write=False)
    return table


def quantise_images(images: ImageSet, spec: InputSpec) -> np.ndarray:
    """Input codes, int16 (N, C, H, W), of images whose shape must be the network's.

    Those of pixels have their channels last in memory, as results of layers have.
    """
    if images.images.shape[1:] != spec.shape:
        raise FormatError(f"each image must have shape {spec.shape}, not {images.images.shape[1:]}")
    if not images.coded:
        table = input_table(spec)
        codes = [table[c][images.images[:, c]] for c in range(spec.shape[0])]
        return np.stack(codes, axis=-1).transpose(0, 3, 1, 2)
    low, high = spec.range
    if images.images.min() < low or images.images.max() > high:
        raise FormatError(f"input codes must lie in {low}..{high}, found {images.images.min()}..{images.images.max()}")
    return images.images.astype(np.int16)


def image_codes(spec: InputSpec, count: int, data: Path | None = None, seed: int = 0) -> np.ndarray:
    """Input codes of the first images of `data`, or random ones: int16 (N, C, H, W)."""
    if data is None:
        return np.random.default_rng(seed).integers(*spec.range, (count, *spec.shape), endpoint=True).astype(np.int16)
    images = load_images(data)
    if len(images) < count:
        raise FormatError(f"{data}: must have at least {count} images, not {len(images)}")
    return quantise_images(images[:count], spec)
