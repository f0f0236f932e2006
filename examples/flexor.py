"""FleXOR of the digits network: weights of 0.8 bits, trained through their decoder, from floats to a file.

    python -m examples.flexor [flexor.gw]

The inner layers' signs are decoded from 16 bits for every 20, in the order in which an engine of 8 x 8 takes them;
activations have 8 bits, and so have the weights of the first and the last layer. Training begins with the signs nearest
to the float network's, which have little right by themselves. Run it from the repository's root; it takes a minute or
two. scikit-learn carries the digits.
"""

import gatewise
from gatewise import EngineConfig
from gatewise.quant.methods import quantize
from gatewise.quant.progress import TerminalProgress
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet
from gatewise.sim.inspect import inspect_file

from examples.digits.train import digit_images, split
from examples.output import output_file

path = output_file("flexor.gw")
train_images, train_labels, test_images, test_labels = split(*digit_images())
learnt, test = ImageSet(train_images, train_labels), ImageSet(test_images, test_labels)
network = "flexor", "examples.digits.network:digits_cnn", "examples/digits/weights.safetensors", learnt
options = {"n_in": "16", "n_out": "20", "begin": "float", "engine": "8x8"}

nearest = quantize(*network, options=options)
with TerminalProgress() as progress:
    found = quantize(*network, train=learnt, test=test, epochs=30, options=options, progress=progress)

size = save_network(found.network, path)
print(f"{path}: {size:,} bytes")
for node in inspect_file(path).nodes:
    if node.stored is not None:
        print(f"{node.name}: {node.stored.scheme}, {node.stored.bits_per_weight:.2f} bits a weight")

engine = EngineConfig(rows=8, lanes=8, array="sign", decoder="xor")
result, before = gatewise.load(path).run(test, engine), nearest.network.run(test, engine)
print(
    f"top-1: float {100 * float(found.network.manifest.provenance['float_top1']):.2f} %, nearest signs "
    f"{100 * (before.top(1) or 0):.2f} %, trained {100 * (result.top(1) or 0):.2f} %; "
    f"{result.cycles_per_image:,.0f} cycles an image"
)
