"""Focused Quantisation of the digits network, from trained floats to a file that the shift array runs.

    python -m examples.focused [focused.gw]

Half of the inner layers' weights are pruned, those that remain are powers of two about two means, in 5 bits before
Huffman coding; activations have 8 bits. Run it from the repository's root; it takes about a minute. scikit-learn
carries the digits.
"""

import gatewise
import numpy as np
from gatewise import EngineConfig
from gatewise.quant.methods import quantize
from gatewise.quant.progress import TerminalProgress
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet

from examples.digits.train import digit_images, split
from examples.output import output_file

path = output_file("focused.gw")
train_images, train_labels, test_images, test_labels = split(*digit_images())
learnt, test = ImageSet(train_images, train_labels), ImageSet(test_images, test_labels)
with TerminalProgress() as progress:
    found = quantize(
        "focused", "examples.digits.network:digits_cnn", "examples/digits/weights.safetensors", learnt,
        train=learnt, test=test, epochs=20, options={"sparsity": "0.5", "learning_rate": "0.02"}, progress=progress,
    )  # fmt: skip

parameters = sum(sum(map(np.size, found.graph.parameters[layer.name])) for layer in found.graph.layers)
size = save_network(found.network, path)
print(f"{path}: {size:,} bytes, float {4 * parameters:,}")
for layer in found.network.mac_nodes():
    weights = found.network.layers[layer.name].weights
    print(f"{layer.name}: {layer.weights.scheme}, {100 * np.mean(weights == 0):.0f} % zeros")

result = gatewise.load(path).run(test, EngineConfig(array="shift", decoder="huffman"))
top1 = result.top(1) or 0.0
print(f"top-1: float {100 * float(found.network.manifest.provenance['float_top1']):.2f} %, integer {100 * top1:.2f} %")
print(f"cycles per image: {result.cycles_per_image:,}")
