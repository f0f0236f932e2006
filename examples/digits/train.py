"""Train the digits network on the UCI optical digits that scikit-learn carries.

    python -m examples.digits.train OUT [--epochs N] [--seed N]

run from the repository's root, writes to the folder OUT

- ``weights.safetensors``: the float weights;
- ``test.npz``: 360 images that neither training nor calibration sees, with labels;
- ``calibration.npz``: the 1437 training images with labels.

Images are uint8 (N, 1, 8, 8): the set's 0..16 counts of ink as 0..255. The split is stratified and
fixed; the seed moves only the training. The same seed gives the same weights on one machine.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

from examples.digits.network import DigitsCnn

__all__ = ["digit_images", "main", "split", "train"]

TEST_IMAGES = 360
SPLIT_SEED = 1797


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """All 1797 images, uint8 (N, 1, 8, 8), and their labels, int64 (N,)."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return images[:, None], digits.target.astype(np.int64)


def split(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, then test images and labels."""
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=TEST_IMAGES, random_state=SPLIT_SEED, stratify=labels
    )
    return train_images, train_labels, test_images, test_labels


def _shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to one pixel in both directions."""
    padded = functional.pad(x, (1, 1, 1, 1))
    rows, columns = torch.randint(0, 3, (2, len(x)), generator=generator)
    index = torch.arange(8)
    images = torch.arange(len(x))[:, None, None]
    return padded[images, 0, (rows[:, None] + index)[:, :, None], (columns[:, None] + index)[:, None, :]][:, None]


def train(images: np.ndarray, labels: np.ndarray, epochs: int = 40, seed: int = 0) -> DigitsCnn:
    """Train on uint8 images (N, 1, 8, 8) and return the network in eval mode."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(seed)
    network = DigitsCnn()
    spec = network.gatewise_input
    pixels, target = torch.from_numpy(images).float() / spec.divide, torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    batches = -(-len(pixels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        network.train()
        for chosen in torch.randperm(len(pixels), generator=generator).split(64):
            x = (_shifted(pixels[chosen], generator) - spec.mean[0]) / spec.std[0]
            loss = functional.cross_entropy(network(x), target[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def main() -> None:
    """Train, write the files and print the accuracy on the test images."""
    parser = argparse.ArgumentParser(description="Train the digits network.")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    train_images, train_labels, test_images, test_labels = split(*digit_images())
    network = train(train_images, train_labels, arguments.epochs, arguments.seed)
    with torch.no_grad():
        logits = network(torch.from_numpy(network.gatewise_input.normalise(test_images)).float())
    correct = int((logits.argmax(1).numpy() == test_labels).sum())

    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), arguments.out / "weights.safetensors")
    np.savez_compressed(arguments.out / "test.npz", images=test_images, labels=test_labels)
    np.savez_compressed(arguments.out / "calibration.npz", images=train_images, labels=train_labels)
    print(f"float top-1: {correct}/{len(test_labels)} = {correct / len(test_labels):.2%}")


if __name__ == "__main__":
    main()
