"""Images of digits for the tasks on networks: scikit-learn's, or MNIST from IDX files.

scikit-learn's set has 1,797 images of 8 x 8 pixels and comes with the package (Alpaydin and
Kaynak 1998, UCI "Optical Recognition of Handwritten Digits"); nothing is downloaded.
"""

from __future__ import annotations

import gzip
import importlib
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray

from zo_bilevel.support.errors import InputError, MissingPackageError

NUM_CLASSES = 10
SKLEARN_SIDE = 8
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
IDX_TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@final
@dataclass(frozen=True, slots=True)
class Digits:
    """Images with zero mean and unit variance, in three parts.

    Args:
        train: Images `(rows, 1, side, side)` and labels `(rows,)`.
        validation: The same.
        test: The same.
    """

    train: tuple[torch.Tensor, torch.Tensor]
    validation: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]

    @property
    def side(self) -> int:
        """Pixels along one side."""
        return int(self.train[0].shape[-1])

    def to(self, device: str) -> Digits:
        """The same on a device."""
        parts = (self.train, self.validation, self.test)
        return Digits(*[(images.to(device), labels.to(device)) for images, labels in parts])


def load_digits(path: str | None = None, num_train: int | None = None) -> Digits:
    """Load and split: half for training, a quarter each for validation and test.

    Args:
        path: Folder with MNIST's four IDX files, plain or gzipped; `None` for scikit-learn's set.
        num_train: Training rows kept, for a smaller task; `None` for all.

    Raises:
        InputError: If a file is missing or no IDX file.
        MissingPackageError: If scikit-learn is needed and not installed.
    """
    if path is None:
        images, labels = _sklearn_digits()
        order = np.random.default_rng(0).permutation(len(labels))
        cuts = [len(labels) // 2, len(labels) * 3 // 4]
        parts = [(images[rows], labels[rows]) for rows in np.split(order, cuts)]
    else:
        images, labels = (read_idx(Path(path), name) for name in IDX_FILES)
        held_out = len(labels) // 6
        parts = [(images[:-held_out], labels[:-held_out]), (images[-held_out:], labels[-held_out:])]
        parts.append(tuple(read_idx(Path(path), name) for name in IDX_TEST_FILES))  # type: ignore[arg-type]
    parts[0] = (parts[0][0][:num_train], parts[0][1][:num_train])
    mean, spread = parts[0][0].mean(), parts[0][0].std()
    return Digits(
        *[
            (
                torch.tensor((x - mean) / spread, dtype=torch.float32)[:, None],
                torch.tensor(y, dtype=torch.int64),
            )
            for x, y in parts
        ]
    )


def _sklearn_digits() -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise MissingPackageError(
            "this task needs scikit-learn for its images: pip install scikit-learn, or give "
            "path= to a folder with MNIST's IDX files"
        ) from error
    found = datasets.load_digits()
    return found.images.astype(np.float64), found.target


def image_side(path: str | None) -> int:
    """Pixels along one side, without reading the images.

    Raises:
        InputError: If the file of images is missing or no IDX file.
    """
    if path is None:
        return SKLEARN_SIDE
    with _open_idx(Path(path), IDX_FILES[0]) as file:
        return _read_shape(file, IDX_FILES[0])[-1]


def read_idx(folder: Path, name: str) -> NDArray[Any]:
    """Read one IDX file of bytes.

    Raises:
        InputError: Naming the file, when it is missing, of another kind or cut short.
    """
    with _open_idx(folder, name) as file:
        shape = _read_shape(file, name)
        data = _read(file, name)
    if len(data) != math.prod(shape):
        raise InputError(f"{name} should hold {math.prod(shape)} bytes, got {len(data)}")
    values = np.frombuffer(data, np.uint8).reshape(shape)
    return values.astype(np.float64 if len(shape) > 1 else np.int64)


def _open_idx(folder: Path, name: str) -> IO[bytes]:
    plain, packed = folder / name, folder / f"{name}.gz"
    if plain.exists():
        return plain.open("rb")
    if packed.exists():
        return cast(IO[bytes], gzip.open(packed, "rb"))
    raise InputError(f"path must hold MNIST's IDX files, but there is no {plain}[.gz]")


def _read_shape(file: IO[bytes], name: str) -> tuple[int, ...]:
    head = _read(file, name, 4)
    sizes = _read(file, name, 4 * head[3]) if len(head) == 4 else b""
    if head[:3] != b"\0\0\x08" or len(sizes) != 4 * head[3] or not sizes:
        raise InputError(f"{name} is no IDX file of bytes")
    return struct.unpack(f">{head[3]}I", sizes)


def _read(file: IO[bytes], name: str, count: int = -1) -> bytes:
    try:
        return file.read(count)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{name} cannot be read: {error}") from error


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of rows whose largest logit is the label."""
    return float((logits.argmax(dim=1) == labels).double().mean())
