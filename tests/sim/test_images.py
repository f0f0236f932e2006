"""Images in: archives, folders, codes, and the host's quantisation."""

import builtins
import zipfile

import numpy as np
import pytest
from gatewise import FormatError, ImageSet, ToolMissingError
from gatewise.sim.images import image_codes, input_table, load_images, quantise_images
from hypothesis import given
from hypothesis import strategies as st

PIXELS = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)


@pytest.fixture
def archive(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "images.npz", **arrays)
        return tmp_path / "images.npz"

    return save


def refusal(path):
    with pytest.raises(FormatError) as caught:
        load_images(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_an_archive_gives_images_and_labels(archive):
    found = load_images(archive(images=PIXELS, labels=np.array([4, 2])))
    np.testing.assert_array_equal(found.images, PIXELS)
    assert found.labels.tolist() == [4, 2]
    assert not found.coded
    assert len(found) == 2


def test_labels_may_be_missing_and_other_arrays_present(archive):
    assert load_images(archive(images=PIXELS, names=np.array(["a", "b"]))).labels is None


def test_codes_are_declared_by_their_name(archive):
    found = load_images(archive(codes=PIXELS.astype(np.int32)))
    assert found.coded


def test_a_part_keeps_images_labels_and_kind_together():
    images = ImageSet(np.arange(5).reshape(5, 1, 1, 1), np.arange(5), coded=True)
    part = images[1:3]
    assert (part.images.ravel().tolist(), part.labels.tolist(), part.coded) == ([1, 2], [1, 2], True)
    assert [part.labels.tolist() for part in images.batches(2)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("arrays", "expected"), [
    ({"pictures": PIXELS}, "must hold one of the arrays 'images' and 'codes', not pictures"),
    ({"images": PIXELS, "codes": PIXELS}, "must hold one of the arrays 'images' and 'codes', not images, codes"),
    ({"images": PIXELS[0]}, "images must be an array (N, C, H, W) with N > 0, not of shape (3, 4, 5)"),
    ({"images": PIXELS[:0]}, "images must be an array (N, C, H, W) with N > 0, not of shape (0, 3, 4, 5)"),
    ({"images": np.float32(3)}, "images must be an array (N, C, H, W) with N > 0, not of shape ()"),
    ({"images": PIXELS / 255}, "images must be uint8, not float64"),
    ({"images": PIXELS.astype(np.int64)}, "images must be uint8, not int64"),
    ({"images": PIXELS > 3}, "images must be uint8, not bool"),
    ({"codes": PIXELS / 255}, "images must be integer codes, not float64"),
    ({"images": PIXELS, "labels": np.arange(3)}, "labels must be 2 integers, not int64 of shape (3,)"),
    ({"images": PIXELS, "labels": np.zeros((2, 1), int)}, "labels must be 2 integers, not int64 of shape (2, 1)"),
    ({"images": PIXELS, "labels": np.zeros(2)}, "labels must be 2 integers, not float64 of shape (2,)"),
    ({"images": np.array([{"a": 1}], dtype=object)}, "must be an intact .npz archive of plain arrays: Object arrays"),
])  # fmt: skip
def test_wrong_arrays_are_refused(archive, arrays, expected):
    assert refusal(archive(**arrays)).startswith(expected)


def test_damaged_archives_are_refused_or_read_unchanged(archive):
    path = archive(images=PIXELS)
    data = path.read_bytes()
    for length in range(0, len(data), 17):
        path.write_bytes(data[:length])
        refusal(path)
    refused = 0
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            np.testing.assert_array_equal(load_images(path).images, PIXELS)
        except FormatError as error:
            refused += "\n" not in str(error)
    assert refused > len(data) // 2


def test_what_is_no_archive_is_refused(tmp_path):
    np.save(tmp_path / "plain.npy", PIXELS)
    (tmp_path / "text.npz").write_text("images")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("plain.npy", "text.npz", "empty.npz"):
        assert refusal(tmp_path / name).startswith("must be an intact .npz archive")
    assert refusal(tmp_path / "none.npz") == "must be readable: No such file or directory"
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as file:
        file.writestr("images", b"not an array")
    assert refusal(tmp_path / "raw.npz").startswith("must be an intact .npz archive")


@pytest.fixture
def picture(tmp_path):
    image = pytest.importorskip("PIL.Image")

    def save(name, array):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(array).save(path)
        return tmp_path / "folder"

    return save


GREY, COLOUR = PIXELS[0, 0], np.ascontiguousarray(PIXELS[0].transpose(1, 2, 0))


def test_a_folder_is_read_in_the_order_of_names(picture):
    picture("b.png", GREY)
    folder = picture("a.bmp", GREY + 1)
    (folder / "notes.txt").write_text("no image")
    found = load_images(folder)
    np.testing.assert_array_equal(found.images, np.stack([GREY + 1, GREY])[:, None])
    assert found.labels is None


def test_colours_become_channels(picture):
    np.testing.assert_array_equal(load_images(picture("a.png", COLOUR)).images, PIXELS[:1])


def test_sub_folders_are_classes_in_the_order_of_names(picture):
    for name in ("dog/2.png", "cat/1.png", "dog/1.png"):
        folder = picture(name, GREY)
    assert load_images(folder).labels.tolist() == [0, 1, 1]


def test_a_folder_of_unequal_or_broken_images_is_refused(picture):
    picture("a.png", GREY)
    folder = picture("b.png", COLOUR)
    assert refusal(folder) == "b.png must be (1, 4, 5) like the others, not (3, 4, 5)"
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:40])
    assert refusal(folder).startswith("b.png must be an image: ")
    (folder / "b.png").write_bytes(b"")
    assert refusal(folder).startswith("b.png must be an image: ")


def test_a_folder_without_images_is_refused(tmp_path):
    pytest.importorskip("PIL")
    assert refusal(tmp_path).startswith("must hold image files (.png, .jpg")


def zipped(folder, path, names):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("around/", b"")
        for name in names:
            file.write(folder / name, f"around/{name}")
    return path


def test_an_archive_is_the_folder_in_it(picture, tmp_path):
    names = ("dog/2.png", "cat/1.png", "dog/1.png")
    for number, name in enumerate(names):
        folder = picture(name, GREY + number)
    (folder / "notes.txt").write_text("no image")
    found = load_images(zipped(folder, tmp_path / "a.zip", (*names, "notes.txt")))
    np.testing.assert_array_equal(found.images, load_images(folder).images)
    assert found.labels.tolist() == [0, 1, 1]
    assert load_images(zipped(folder, tmp_path / "b.zip", names[1:2])).labels is None


def test_what_is_no_archive_of_images_is_refused(picture, tmp_path):
    picture("1.png", GREY)
    folder = picture("dog/2.png", GREY)
    assert refusal(zipped(folder, tmp_path / "a.zip", ("1.png", "dog/2.png"))).startswith(
        "must hold image files in folders of one depth"
    )
    assert refusal(zipped(folder, tmp_path / "b.zip", ())).startswith("must hold image files (.png, .jpg")
    (tmp_path / "c.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-30])
    assert refusal(tmp_path / "c.zip").startswith("must be an intact .zip archive: ")


def test_missing_pillow_is_named(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_pillow(name, *args, **kwargs):
        if name.split(".")[0] == "PIL":
            raise ModuleNotFoundError("No module named 'PIL'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(ToolMissingError, match=r"^reading image files needs Pillow: pip install pillow$"):
        load_images(tmp_path)


@given(
    st.integers(1, 8), st.booleans(), st.floats(1e-3, 10), st.floats(-3, 3), st.floats(0.01, 3), st.floats(0.5, 300),
    st.data(),
)  # fmt: skip
def test_the_table_is_the_formula_for_every_pixel(samples, bits, signed, scale, mean, std, divide, data):
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    zero_point = data.draw(st.integers(low, high))
    spec = samples.input_spec(
        (2, 1, 1),
        bits=bits,
        signed=signed,
        scale=scale,
        zero_point=zero_point,
        divide=divide,
        mean=(mean, 0.0),
        std=(std, 1.0),
    )
    table = input_table(spec)
    assert table.dtype == np.int16
    for channel, (m, s) in enumerate(((mean, std), (0.0, 1.0))):
        for pixel in range(256):
            # Python's round is half to even, too.
            code = round((pixel / divide - m) / s / scale + zero_point)
            assert table[channel, pixel] == min(max(code, low), high)


def test_halves_go_to_the_even_code(samples):
    spec = samples.input_spec((1, 1, 1), scale=2.0, zero_point=0, divide=1.0, mean=(0.0,), std=(1.0,))
    assert input_table(spec)[0, :8].tolist() == [0, 0, 1, 2, 2, 2, 3, 4]


def test_each_channel_has_its_own_table(samples):
    spec = samples.input_spec((3, 4, 5), mean=(0.0, 0.2, 0.4), std=(0.2, 0.3, 0.4))
    codes = quantise_images(ImageSet(PIXELS), spec)
    table = input_table(spec)
    assert codes.dtype == np.int16
    for n, c, y, x in np.ndindex(PIXELS.shape):
        assert codes[n, c, y, x] == table[c, PIXELS[n, c, y, x]]


def test_codes_pass_unchanged_and_must_lie_in_the_inputs_range(samples):
    spec = samples.input_spec((3, 4, 5), bits=7)
    codes = quantise_images(ImageSet(PIXELS.astype(np.int64), coded=True), spec)
    np.testing.assert_array_equal(codes, PIXELS)
    for wrong in (-1, 128, 1 << 40):
        images = np.full((1, 3, 4, 5), 5, dtype=np.int64)
        images[0, 1, 2, 3] = wrong
        with pytest.raises(FormatError, match=rf"^input codes must lie in 0\.\.127, found .*{wrong}"):
            quantise_images(ImageSet(images, coded=True), spec)


def test_images_of_another_shape_are_refused(samples):
    with pytest.raises(FormatError, match=r"^each image must have shape \(3, 4, 4\), not \(3, 4, 5\)$"):
        quantise_images(ImageSet(PIXELS), samples.input_spec((3, 4, 4)))


def test_codes_are_those_of_the_first_images_or_drawn_from_the_whole_range(samples, tmp_path):
    spec = samples.input_spec((1, 3, 3), bits=4)
    drawn = image_codes(spec, 50, seed=1)
    assert drawn.shape == (50, 1, 3, 3)
    assert (drawn.min(), drawn.max()) == spec.range
    assert np.array_equal(drawn, image_codes(spec, 50, seed=1))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 3, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", images=pixels)
    assert np.array_equal(image_codes(spec, 2, tmp_path / "some.npz"), quantise_images(ImageSet(pixels[:2]), spec))
    with pytest.raises(FormatError, match="must have at least 4 images, not 3"):
        image_codes(spec, 4, tmp_path / "some.npz")
