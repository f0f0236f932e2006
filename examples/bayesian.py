"""Bayesian Bits of the digits network: how many bits each tensor is worth, learnt, from floats to a file.

   python -m examples.bayesian [bayesian.gw]

Weights and activations begin with 8 bits and all channels. The strength of the regulariser is searched for in two
trainings of an epoch until BOPs are not above 3 % of those in 32 x 32 bits; one of 8 epochs with that strength makes
the network. Gates begin nearer to closing, and move faster, than the paper's, whose trainings have 100 epochs. Run it
from the repository's root; it takes a minute or two. scikit-learn carries the digits.
"""

import gatewise
from gatewise import EngineConfig
from gatewise.quant.methods import quantize
from gatewise.quant.progress import TerminalProgress
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet

from examples.digits.train import digit_images, split
from examples.output import output_file

path = output_file("bayesian.gw")
train_images, train_labels, test_images, test_labels = split(*digit_images())
learnt, test = ImageSet(train_images, train_labels), ImageSet(test_images, test_labels)
options = {"target_bops": "0.03", "strength": "0.01", "search_runs": "2", "search_epochs": "1"}
options |= {"initial_gate": "1", "gate_rate": "0.2", "learning_rate": "0.003", "batch": "32"}
with TerminalProgress() as progress:
    found = quantize(
        "bayesian",
        "examples.digits.network:digits_cnn",
        "examples/digits/weights.safetensors",
        learnt,
        train=learnt,
        test=test,
        epochs=8,
        options=options,
        progress=progress,
    )

size = save_network(found.network, path)
print(f"{path}: {size:,} bytes, strength {found.network.manifest.provenance['strength']}")
facts = found.history[-1].facts
for layer in found.quantized.layers:
    bits = f"weights {facts[f'{layer.name} weights']:g} bits, input {facts[f'{layer.name} reads']:g} bits"
    print(f"{layer.name}: {bits}, {100 * facts[f'{layer.name} kept']:.0f} % of the channels")

for array in ("digit", "fusion"):
    result = gatewise.load(path).run(test, EngineConfig(rows=8, lanes=8, array=array))
    print(
        f"{array}: {100 * facts['bops']:.2f} % BOPs, top-1 {100 * (result.top(1) or 0):.2f} % (float "
        f"{100 * float(found.network.manifest.provenance['float_top1']):.2f} %), {result.cycles_per_image:,.0f} cycles"
    )
