"""PyTorch quantisers: one module per paper, and the rooms that they share.

The path of a network: `networks` (load) -> `capture` (torch.export to a `graph.Graph`) -> `fusion`
(padding and activations folded, batch norms with their layers) -> `statistics` (calibration) -> one
quantiser (`aciq`, `minmax`, ..) -> `lowering` -> `quantized.QuantizedGraph`, the integers that an exported
file holds. Between, a network may train in its quantised form: `trainable` is the graph with live batch
norms and what a method does to it, `training` the loop, `uniform` the form of all methods that end in
integers; other methods bring their own.

Needs the ``quant`` extra (PyTorch, SciPy).
"""
