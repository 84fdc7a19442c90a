"""Make src/tightlip/data/mnist5k.npz: 500 images of each digit out of MNIST's training part.

    python scripts/make_mnist5k.py MNIST_FOLDER src/tightlip/data/mnist5k.npz

MNIST_FOLDER holds the four published files, gzipped or not. The content is the same on every machine, byte for byte:
numpy promises that the stream of its legacy RandomState never changes. Prints the hash to pin in `sources.SPECS`.
"""

import argparse
from pathlib import Path

import numpy as np

from tightlip.data import load
from tightlip.data.arrays import Array, content_sha256

SEED = 0
PER_CLASS = 500


def select(folder: Path) -> dict[str, Array]:
    """Shuffled ``images`` (5000, 28, 28) and ``labels`` (5000,), both uint8, out of the training part in ``folder``."""
    mnist = load("mnist", root=folder)
    order = np.random.RandomState(SEED).permutation(len(mnist.labels))
    labels = mnist.labels.numpy()[order]
    first = np.concatenate([np.flatnonzero(labels == digit)[:PER_CLASS] for digit in range(mnist.classes)])
    chosen = order[np.sort(first)]
    return {"images": mnist.images[chosen, 0].numpy(), "labels": mnist.labels[chosen].numpy().astype(np.uint8)}


def main() -> None:
    """Write the file that the second argument names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder with MNIST's four files")
    parser.add_argument("target", type=Path, help="the .npz file to write")
    arguments = parser.parse_args()
    arrays = select(arguments.folder)
    np.savez_compressed(arguments.target, images=arrays["images"], labels=arrays["labels"])
    print(content_sha256(arrays))


if __name__ == "__main__":
    main()
