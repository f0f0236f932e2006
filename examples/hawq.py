"""HAWQ-V2 on the digits network: traces, budgets, and what the choices cost on a fused array.

    python -m examples.hawq [FOLDER]

The Hessian's traces of weights and activations with their standard errors and the largest eigenvalues; then widths of
2, 4 and 8 bits within budgets of size and of cycles, in the paper's ordering, as an integer program, and without the
Hessian. Each becomes a file, whose integers run on an engine with a fused array. Samples of the traces are kept in the
folder: every choice begins with them, and so does the next run. Run it from the repository's root; it takes a minute or
two. scikit-learn carries the digits.
"""

import time

import gatewise
import numpy as np
import torch
from gatewise.quant.capture import capture
from gatewise.quant.export import export_network
from gatewise.quant.hawq import HawqSettings, hawq, search
from gatewise.quant.hessian import Curvature, Tensors
from gatewise.quant.networks import load_network
from gatewise.quant.statistics import collect
from gatewise.sim.file import save_network
from gatewise.sim.images import ImageSet

from examples.digits.train import digit_images, split
from examples.output import output_folder

CALIBRATION = 32
ENGINE = {"rows": 8, "lanes": 8}
CASES = {
    "2 bits": HawqSettings(weight_choices="2", weight_bits=2, **ENGINE),
    "4 bits": HawqSettings(weight_choices="4", weight_bits=4, **ENGINE),
    "size 3, ordered": HawqSettings(weight_bits=3, **ENGINE),
    "size 3, integer": HawqSettings(weight_bits=3, selection="integer", **ENGINE),
    "size 3, L2 alone": HawqSettings(weight_bits=3, selection="integer", metric="l2", **ENGINE),
    "cycles as 4 bits": HawqSettings(weight_bits=4, budget="cycles", selection="integer", **ENGINE),
    "size 3, A 6": HawqSettings(weight_bits=3, activation_bits=6, **ENGINE),
}

# The network is small: more threads only wait for one another.
torch.set_num_threads(1)
folder = output_folder()
train_images, train_labels, test_images, test_labels = split(*digit_images())
learnt, test = ImageSet(train_images, train_labels), ImageSet(test_images, test_labels)
loaded = load_network("examples.digits.network:digits_cnn", "examples/digits/weights.safetensors")
graph = capture(loaded.module, loaded.example)
statistics = collect(graph, torch.from_numpy(loaded.input.normalise(train_images[:CALIBRATION])))

images = HawqSettings().hessian_images
x, labels = torch.from_numpy(loaded.input.normalise(train_images[:images])), train_labels[:images].astype(np.int64)
TENSORS: tuple[Tensors, ...] = ("weights", "activations")
for tensors in TENSORS:
    began = time.perf_counter()
    traces = Curvature(graph, x, labels, tensors).traces(most=8, resume=folder / f"hessian-{tensors}.json")
    print(f"traces of {tensors}, {time.perf_counter() - began:.1f} s")
    for each in traces.values():
        mark = "  not positive: probed again, clamped at 0" if each.flagged else ""
        print(f"  {each.name:8}{each.estimate:12.4g} +- {each.error:<10.2g} mean {each.average:.3g}{mark}")
values = Curvature(graph, x, labels).eigenvalues(20, tolerance=1e-2)
print("largest eigenvalues", " ".join(f"{value:.3g}" for value in values))

print(f"\n{'':18}{'W':18}{'A':12}{'bits':>6}{'A-comp':>8}{'top-1 %':>9}{'bytes':>9}{'cycles':>9}{'seconds':>9}")
for name, settings in CASES.items():
    choice = search(graph, loaded.input, statistics, settings, learnt, resume=folder)
    path = folder / f"hawq-{name.replace(',', '').replace(' ', '-')}.gw"
    network = export_network(
        hawq(graph, loaded.input, statistics, choice), "digits", {"method": "hawq", **choice.facts}
    )
    size = save_network(network, path)
    result = gatewise.load(path).run(test, engine=settings.engine)
    facts = choice.facts
    print(
        f"{name:18}{facts['weight_widths']:18}{facts['activation_widths']:12}{facts['mean_weight_bits']:6.2f}"
        f"{facts['activation_compression']:8.2f}{100 * (result.top(1) or 0.0):9.2f}{size:9,}"
        f"{result.cycles_per_image:9,}{choice.trace_seconds + choice.choice_seconds:9.1f}"
    )
