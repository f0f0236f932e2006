"""Bits of activation codes: entropy and Huffman averages of the codes that a run leaves in its tensors."""

import io

import numpy as np
import pytest
from gatewise.kernels.huffman import HuffmanCode, entropy
from gatewise.sim.activations import AverageBits, code_counts, huffman_bits
from gatewise.sim.report import run_report, terminal
from gatewise.sim.run import run


@pytest.fixture
def network(samples):
    return samples.small().build()


@pytest.mark.parametrize(
    ("counts", "bits"),
    [
        ([4, 2, 1, 1], 1.75),
        ([1, 1, 1, 1, 1, 1, 1, 1], 3),
        ([5, 5, 5], 5 / 3),
        ([0, 9, 0], 1),
        ([0, 0], 0),
        ([7, 0, 1], 1),
        # 45, 13, 12, 16, 9 and 5 of 100: the example of Cormen et al., section 16.3.
        ([45, 13, 12, 16, 9, 5], 2.24),
    ],
)
def test_huffman_bits_are_those_of_known_codes(counts, bits):
    assert huffman_bits(np.array(counts)) == pytest.approx(bits)


@pytest.mark.parametrize("seed", range(20))
def test_huffman_bits_are_those_of_the_code_that_is_made_and_near_the_entropy(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 1 << int(rng.integers(1, 10)), 1 << int(rng.integers(1, 9)))
    counts[:2] += 1
    code, bits = HuffmanCode.of(counts), huffman_bits(counts)
    # No code word of so many counts comes near the limit.
    assert code.longest < 16
    assert bits == pytest.approx(code.average_bits(counts))
    assert entropy(counts) <= bits + 1e-12 < entropy(counts) + 1


def test_code_words_may_be_longer_than_a_decoders(samples):
    counts = 2 ** np.arange(40, dtype=np.int64)
    assert huffman_bits(counts) == pytest.approx((sum(2.0**k * (40 - k) for k in range(1, 40)) + 39) / (2.0**40 - 1))


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_every_tensor_that_is_no_view_is_counted(samples, network, batch):
    images = samples.pixels(network, 7)
    result = run(network, images, batch=batch, count_codes=True)
    traced = run(network, images, trace=True)
    assert result.tensors == traced.counts == {}
    assert set(network.values) - set(result.counts) == {"pad", "slice", "joined", "flat"}
    for each in result.activation_bits:
        value, codes = network.values[each.name], traced.tensors[each.name].astype(int)
        found, counts = np.unique(codes, return_counts=True)
        low = value.codes.range[0]
        assert np.array_equal(found - low, np.flatnonzero(result.counts[each.name]))
        assert np.array_equal(result.counts[each.name], code_counts(codes, value))
        shares = counts / codes.size
        assert (each.bits, each.elements) == (value.codes.bits, codes[0].size)
        assert each.entropy == pytest.approx(float(-(shares * np.log2(shares)).sum()))
        assert each.huffman == huffman_bits(counts)


def test_averages_are_weighted_by_elements(samples, network):
    result = run(network, samples.pixels(network, 3), count_codes=True)
    tensors = result.activation_bits
    sizes = np.array([each.elements for each in tensors])
    average = AverageBits.of(tensors)
    assert average.elements == sizes.sum()
    assert average.entropy == pytest.approx(np.average([each.entropy for each in tensors], weights=sizes))
    assert average.huffman == pytest.approx(np.average([each.huffman for each in tensors], weights=sizes))
    content = result.to_json()["activations"]
    assert content["huffman"] == average.huffman
    assert content["tensors"][1] == {
        "name": tensors[1].name,
        "bits": tensors[1].bits,
        "elements": tensors[1].elements,
        "entropy": tensors[1].entropy,
        "huffman": tensors[1].huffman,
    }
    assert "activations" not in run(network, samples.pixels(network, 3)).to_json()


def test_the_report_shows_every_tensor_and_the_averages(samples, network, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    result = run(network, samples.pixels(network, 3), count_codes=True)
    console = terminal()
    console.file = stream = io.StringIO()
    console.print(run_report(result, console))
    text = stream.getvalue()
    assert "bits of an activation code in 3 images" in text
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    for each in result.activation_bits:
        assert [f"{each.elements:,}", str(each.bits), f"{each.entropy:.3f}", f"{each.huffman:.3f}"] in (
            line[2:] for line in lines if line[0] == each.name
        )
    average = AverageBits.of(result.activation_bits)
    assert ["all", "", f"{average.elements:,}", "", f"{average.entropy:.3f}", f"{average.huffman:.3f}"] in lines
