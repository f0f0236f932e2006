"""The engine's compute side: weight loader, array, accumulators, addresses, and the sequencer over them.

One component per module; every size comes from `gatewise.sim.engine.EngineConfig`.
"""
