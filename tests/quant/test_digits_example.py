import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="scikit-learn carries the digits")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The training program, imported as from the repository's root."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))

    return importlib.import_module("examples.digits.train")


def test_the_split_is_fixed_stratified_and_disjoint(example: ModuleType) -> None:
    images, labels = example.digit_images()
    assert (images.shape, images.dtype, images.min(), images.max()) == ((1797, 1, 8, 8), np.uint8, 0, 255)
    train_images, train_labels, test_images, test_labels = example.split(images, labels)
    assert (len(train_images), len(test_images)) == (1437, 360)
    assert np.bincount(test_labels).min() >= 34
    seen = {image.tobytes() for image in train_images}
    assert not any(image.tobytes() in seen for image in test_images)
    np.testing.assert_array_equal(example.split(images, labels)[2], test_images)
    assert len(train_labels) == len(train_images)


def test_training_repeats_to_the_bit_and_a_seed_changes_it(example: ModuleType) -> None:
    images, labels, *_ = example.split(*example.digit_images())
    first, again, other = (
        example.train(images[:256], labels[:256], epochs=2, seed=seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["linear.weight"], other["linear.weight"])


def test_a_short_training_classifies_held_out_digits(example: ModuleType) -> None:
    images, labels, test_images, test_labels = example.split(*example.digit_images())
    network = example.train(images, labels, epochs=6)
    with torch.no_grad():
        logits = network(torch.from_numpy(network.gatewise_input.normalise(test_images)).float())
    assert np.mean(logits.argmax(1).numpy() == test_labels) > 0.96
