from pathlib import Path

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.quant.aciq import AciqSettings
from gatewise.quant.agreement import agreement
from gatewise.quant.methods import METHODS, parse_settings, quantize
from gatewise.sim.demo import load_demo
from gatewise.sim.images import ImageSet

ROOT = Path(__file__).parents[2]
WEIGHTS = str(ROOT / "examples" / "digits" / "weights.safetensors")
FACTORY = "examples.digits.network:digits_cnn"


@pytest.fixture(scope="module")
def digits() -> tuple[ImageSet, ImageSet]:
    pytest.importorskip("sklearn")
    from examples.digits.train import digit_images, split

    train_images, train_labels, test_images, test_labels = split(*digit_images())
    return ImageSet(train_images, train_labels), ImageSet(test_images, test_labels)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


def test_settings_are_read_from_text() -> None:
    settings = parse_settings(AciqSettings, {"prior": "gauss", "weight_bits": "3", "per_channel": "false"})
    assert settings == AciqSettings(prior="gauss", weight_bits=3, per_channel=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "red"}, "option must be one of weight_bits, .*, not 'colour'"),
        ({"weight_bits": "many"}, "option weight_bits.*'many'"),
        ({"prior": "cauchy"}, "option prior.*'cauchy'"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_settings(AciqSettings, values)


def test_the_shipped_demo_is_what_the_shipped_weights_give(digits: tuple[ImageSet, ImageSet]) -> None:
    calibration, test = digits
    demo = load_demo()
    assert np.array_equal(demo.images.images, test.images)
    assert np.array_equal(demo.images.labels, test.labels)
    found = quantize("aciq", FACTORY, WEIGHTS, calibration, bits=4, test=test)
    assert found.network.manifest.provenance["float_top1"] == pytest.approx(demo.float_top1, abs=0.003)
    assert demo.float_top1 >= 0.97
    result = demo.network.run(demo.images)
    assert demo.float_top1 - (result.top(1) or 0.0) <= 0.015
    assert np.mean(found.network.run(test).predictions == result.predictions) >= 0.99
    assert found.network.manifest.nodes[1].name == demo.network.manifest.nodes[1].name


def test_demo_test_images_are_no_calibration_images(digits: tuple[ImageSet, ImageSet]) -> None:
    calibration, test = digits
    assert len(test) == 360
    seen = {image.tobytes() for image in calibration.images}
    assert not any(image.tobytes() in seen for image in test.images)


@pytest.mark.parametrize("method", sorted(name for name in METHODS if hasattr(METHODS[name].settings, "weight_bits")))
def test_every_method_makes_a_network_that_runs(method: str, digits: tuple[ImageSet, ImageSet]) -> None:
    calibration, test = digits
    found = quantize(method, FACTORY, WEIGHTS, calibration, bits=4)
    assert (found.network.run(test[:50]).top(1) or 0.0) > 0.8
    assert found.network.manifest.provenance["method"] == method
    compared = agreement(found, test.images[:24])
    assert compared.worst("threshold") == 0
    assert compared.worst("scale") < 1e-3
    assert compared.predictions > 0.9


@pytest.mark.parametrize(("method", "bits"), [("fixed8", 8), ("inq", 3), ("lqnet", 2), ("abcnet", 3)])
def test_rivals_train_and_run_as_they_trained(method: str, bits: int, digits: tuple[ImageSet, ImageSet]) -> None:
    calibration, test = digits
    found = quantize(
        method, FACTORY, WEIGHTS, calibration, bits=bits, train=calibration, epochs=3,
        options={"learning_rate": "0.02"},
    )  # fmt: skip
    top1 = found.network.run(test).top(1) or 0.0
    assert top1 > 0.95
    assert abs(top1 - np.mean(found.quantized.run(test.images).argmax(1) == test.labels)) < 0.01
    compared = agreement(found, test.images[:24])
    assert compared.worst("threshold") == 0
    assert compared.worst("scale") < 1e-3


def test_bayesian_bits_finds_the_strength_for_its_target(digits: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    calibration, test = digits
    options = {"target_bops": "0.03", "strength": "0.01", "search_runs": "2", "search_epochs": "1", "batch": "32"}
    options |= {"initial_gate": "1", "gate_rate": "0.2", "learning_rate": "0.003"}
    found = quantize(
        "bayesian", FACTORY, WEIGHTS, calibration, train=calibration, epochs=4, options=options, resume=tmp_path
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "search-0", "search-1"]
    provenance = found.network.manifest.provenance
    assert provenance["bops"] == found.history[-1].facts["bops"] <= 0.03
    assert provenance["training_optimizer"] == "adam"
    assert (found.network.run(test[:50]).top(1) or 0.0) > 0.8
    compared = agreement(found, test.images[:24])
    assert compared.worst("threshold") == 0
    assert compared.worst("scale") < 1e-3


def test_input_options_stand_in_for_the_modules_own(digits: tuple[ImageSet, ImageSet]) -> None:
    found = quantize("minmax", FACTORY, WEIGHTS, digits[0], options={"mean": "0.25", "std": "0.5", "divide": "128"})
    spec = found.network.manifest.input
    assert (spec.mean, spec.std, spec.divide) == ((0.25,), (0.5,), 128.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "guess"}, "method must be one of .*aciq.*, not 'guess'"),
        ({"images": 5000}, "images must be 1 to the 1437 of the calibration set, not 5000"),
        ({"options": {"mean": "a"}}, "options mean, std and divide must be numbers joined by commas"),
        ({"network": "nowhere:made"}, "module nowhere must be importable"),
        ({"network": "cifar-resnet20"}, "must match the parameters of cifar-resnet20"),
    ],
)
def test_wrong_input_is_refused(change: dict[str, object], message: str, digits: tuple[ImageSet, ImageSet]) -> None:
    arguments: dict[str, object] = {"method": "aciq", "network": FACTORY, "weights": WEIGHTS, "calibration": digits[0]}
    with pytest.raises(FormatError, match=message):
        quantize(**(arguments | change))  # type: ignore[arg-type]


def test_a_network_trained_from_nothing_has_the_ranges_that_it_ends_with(
    digits: tuple[ImageSet, ImageSet],
) -> None:
    train, test = digits
    options = {"learning_rate": "0.02", "held_out": "0.1"}
    found = quantize("minmax", FACTORY, None, train, bits=8, options=options, train=train, epochs=4)
    assert found.network.manifest.provenance["training_refresh"] == 1
    assert (found.network.run(test).top(1) or 0.0) >= found.history[-1].held_out_top1 - 0.1 >= 0.7
    kept = quantize(
        "minmax", FACTORY, None, train, bits=8, options=options | {"refresh": "false"}, train=train, epochs=4
    )
    assert (kept.network.run(test).top(1) or 0.0) < (found.network.run(test).top(1) or 0.0) - 0.1
