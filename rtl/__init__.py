"""Synthesizable blocks (Amaranth), their benches and their gate counts.

One module per block, mirroring `gatewise.kernels`: the component takes the kernel's parameter
object as its only argument, so that the golden model and the hardware cannot drift apart.
"""
