"""PyTorch quantisers: one module per paper, and the rooms that they share.

The path of a network: `networks` (load) -> `capture` (torch.export to a `graph.Graph`) -> `fusion`
(batch norm and activations folded) -> `statistics` (calibration) -> one quantiser (`aciq`,
`minmax`) -> `lowering` -> `quantized.QuantizedGraph`, the integers that an exported file holds.

Needs the ``quant`` extra (PyTorch, SciPy).
"""
