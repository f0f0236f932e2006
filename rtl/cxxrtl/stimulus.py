"""Vectors through a component, compiled."""

from pathlib import Path

import numpy as np
from amaranth.lib import wiring

from ..icarus import SimulationRecord, interface_of
from .build import compile_design
from .words import bits_of, words_of

__all__ = ["simulate_compiled"]


def simulate_compiled(
    component: wiring.Component, stimulus: np.ndarray, seed: int, *, cache: Path | None = None
) -> SimulationRecord:
    """Send packed inputs (uint8 of shape (vectors, bits)) through a component, as `icarus.simulate` does."""
    interface = interface_of(component)
    design = compile_design(component, cache=cache)
    with design.simulate() as simulation:
        if interface.streaming:
            run = simulation.streams({"i": words_of(stimulus)}, {"o": len(stimulus)}, seed=seed)
            return SimulationRecord(
                bits_of(run.payloads["o"], interface.outputs.bits),
                run.cycles,
                run.violation,
                run.accepted["i"].tolist(),
                run.delivered["o"].tolist(),
            )
        inputs, at = {}, 0
        for field in interface.inputs.fields:
            width = field.bits * field.elements
            inputs[field.name] = words_of(stimulus[:, at : at + width])
            at += width
        found = simulation.vectors(inputs, [field.name for field in interface.outputs.fields])
        columns = [bits_of(found[field.name], field.bits * field.elements) for field in interface.outputs.fields]
        return SimulationRecord(np.concatenate(columns, axis=1), len(stimulus), None, [], [])
