import numpy as np
import pytest
import torch
from gatewise.kernels.errors import FormatError
from gatewise.quant.preprocess import InputSpec
from gatewise.quant.training_data import Augmentation, TrainingImages, epoch_generator
from gatewise.sim.images import ImageSet

SPEC = InputSpec((2, 5, 6), (0.25, 0.5), (0.5, 0.25))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    rng = np.random.default_rng(1)
    return ImageSet(rng.integers(1, 256, (21, 2, 5, 6), dtype=np.uint8), np.arange(21))


@pytest.fixture(scope="module")
def data(images: ImageSet) -> TrainingImages:
    return TrainingImages.of(images, SPEC)


def test_inputs_are_normalised_as_everywhere(images: ImageSet, data: TrainingImages) -> None:
    np.testing.assert_allclose(data.inputs(data.pixels).numpy(), SPEC.normalise(images.images), rtol=1e-5, atol=1e-6)


def test_an_epoch_sees_every_image_once_but_a_lone_last_one(data: TrainingImages) -> None:
    labels = [each for _, each in data.shuffled(4, epoch_generator(3, 0), Augmentation())]
    assert [len(part) for part in labels] == [4] * 5
    assert data.steps(4) == 5
    labels = [each for _, each in data.shuffled(6, epoch_generator(3, 0), Augmentation())]
    assert sorted(torch.cat(labels).tolist()) == list(range(21))
    assert data.steps(6) == len(labels) == 4


def test_what_is_drawn_depends_on_seed_and_epoch_alone(data: TrainingImages) -> None:
    def epoch(seed: int, number: int) -> torch.Tensor:
        drawn = data.shuffled(6, epoch_generator(seed, number), Augmentation(True, 2))
        return torch.cat([x for x, _ in drawn])

    assert torch.equal(epoch(3, 1), epoch(3, 1))
    assert not torch.equal(epoch(3, 1), epoch(3, 2))
    assert not torch.equal(epoch(3, 1), epoch(4, 1))


def test_augmented_images_are_mirrored_and_moved_ones(images: ImageSet, data: TrainingImages) -> None:
    padded = np.pad(images.images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    black = data.inputs(torch.zeros(1, 2, 5, 6, dtype=torch.uint8))
    mirrored = moved = 0
    for x, labels in data.shuffled(6, epoch_generator(0, 0), Augmentation(True, 2)):
        pixels = ((x - black) * torch.tensor(SPEC.std).reshape(-1, 1, 1) * 255).round().numpy().astype(np.uint8)
        for image, label in zip(pixels, labels.tolist(), strict=True):
            places = [
                (flipped, y, z)
                for flipped in (False, True)
                for y in range(5)
                for z in range(5)
                if np.array_equal(_cut(images.images[label], padded[label], flipped, y, z), image)
            ]
            assert len(places) == 1
            mirrored += places[0][0]
            moved += places[0][1:] != (2, 2)
    assert 0 < mirrored < 21
    assert moved > 10


def _cut(image: np.ndarray, padded: np.ndarray, flipped: bool, y: int, x: int) -> np.ndarray:
    source = np.pad(image[:, :, ::-1], ((0, 0), (2, 2), (2, 2))) if flipped else padded
    return source[:, y : y + 5, x : x + 6]


def test_held_out_images_do_not_train(data: TrainingImages) -> None:
    own, held = data.split(0.25, seed=1)
    assert len(held) == 5
    assert sorted((*own.labels.tolist(), *held.labels.tolist())) == list(range(21))
    assert held.labels.tolist() != data.split(0.25, seed=2)[1].labels.tolist()
    assert len(data.split(0.0, seed=1)[1]) == 0


def test_what_cannot_train_is_refused(images: ImageSet, data: TrainingImages) -> None:
    with pytest.raises(FormatError, match="training images must be uint8 pixels with labels"):
        TrainingImages.of(ImageSet(images.images), SPEC)
    with pytest.raises(FormatError, match=r"training images must have shape \(2, 5, 5\), not \(2, 5, 6\)"):
        TrainingImages.of(images, InputSpec((2, 5, 5)))
    with pytest.raises(FormatError, match="held-out share must be from 0 to less than 1"):
        data.split(0.99, seed=0)
