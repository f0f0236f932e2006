"""What a training's JSON file says of its integers: how far they are those of its fake-quantised network."""

from gatewise.quant.agreement import agreement
from gatewise.quant.export import export_network
from gatewise.quant.methods import Quantisation
from gatewise.sim.images import ImageSet

__all__ = ["COMPARED", "agreement_facts"]

COMPARED = 32
"""Test images on which integers are held to the fake-quantised network, layer by layer."""


def agreement_facts(found: Quantisation, test: ImageSet) -> dict[str, int | float]:
    """The export's layers; and where its multipliers could be thresholds, the layers that have them then.

    Without such layers ``threshold_layers`` is 0.
    """
    images = test.images[:COMPARED]
    facts = agreement(found, images).summary()
    if facts["threshold_layers"]:
        return facts
    counting = export_network(found.quantized, found.network.manifest.name, {}, "threshold")
    if all(layer.thresholds is None for layer in counting.layers.values()):
        return facts
    other = agreement(Quantisation(found.graph, found.quantized, counting), images).summary()
    return facts | {key: other[key] for key in ("threshold_layers", "worst_threshold")}
