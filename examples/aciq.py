"""ACIQ's methods one by one on the digits network, from trained floats to files that the digit array runs.

    python -m examples.aciq [FOLDER]

At 3 bits, where they matter: nothing, clipping, bits of single channels, bias correction, all of them, the mid-tread
variant with Huffman-coded weights, and a short fine-tuning behind it all. Each becomes a file; its integers are
compared with the fake-quantised network's, and one layer's histogram, levels and clips become a picture. Run it from
the repository's root; it takes about a minute. scikit-learn carries the digits, matplotlib draws.
"""

import gatewise
from gatewise.quant.agreement import agreement
from gatewise.quant.methods import quantize
from gatewise.quant.picture import activation_panel, draw, weight_panel
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet

from examples.digits.train import digit_images, split
from examples.output import output_folder

BITS = 3
EPOCHS = 5
ALLOCATED = {"allocate_weights": "true", "allocate_activations": "true"}
NAIVE = {"clip": "minmax", "mean_correction": "false"}
SETTINGS: dict[str, dict[str, str]] = {
    "naive": NAIVE,
    "clipping": {"mean_correction": "false"},
    "allocation": NAIVE | ALLOCATED,
    "correction": {"clip": "minmax"},
    "all": ALLOCATED,
    "mid-tread": {"mid_tread": "true", "coding": "huffman"} | ALLOCATED,
    "fine-tuned": ALLOCATED,
}

folder = output_folder()
train_images, train_labels, test_images, test_labels = split(*digit_images())
learnt, test = ImageSet(train_images, train_labels), ImageSet(test_images, test_labels)
print(f"{'':12}{'top-1 %':>9}{'float':>9}{'bytes':>9}{'cycles':>9}  differing integers")
for name, options in SETTINGS.items():
    tuned = name == "fine-tuned"
    found = quantize(
        "aciq", "examples.digits.network:digits_cnn", "examples/digits/weights.safetensors", learnt,
        bits=BITS, test=test, options=options, train=learnt if tuned else None, epochs=EPOCHS if tuned else None,
    )  # fmt: skip
    path = folder / f"aciq-{name}.gw"
    size = save_network(found.network, path)
    result = gatewise.load(path).run(test)
    compared = agreement(found, test.images[:64])
    top1, exact = result.top(1) or 0.0, float(found.network.manifest.provenance["float_top1"])
    differing = sum(tensor.differing for tensor in compared.tensors)
    print(
        f"{name:12}{100 * top1:9.2f}{100 * exact:9.2f}{size:9,}{result.cycles_per_image:9,}  {differing} of "
        f"{sum(tensor.integers for tensor in compared.tensors):,}"
    )

network = gatewise.load(folder / "aciq-all.gw")
panels = [weight_panel(network, "conv2"), activation_panel(network, "conv2", learnt[:64])]
draw(network, panels, "conv2", folder / "aciq-conv2.png")
print(folder / "aciq-conv2.png")
