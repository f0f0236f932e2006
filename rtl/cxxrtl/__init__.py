"""Compiled co-simulation: a component as native code, run in bulk from Python.

An Amaranth component becomes C++ (Yosys's CXXRTL back end), is compiled together with a driver
(`cxxrtl_driver.h`: streams with stalls, a bus with host memory) into a shared library, and is
called for thousands of cycles at a time. Icarus stays the simulator of the regression; this one
serves where its rate does not do: many vectors, whole networks.

    design = compile_design(DotProductRow(parameters))
    with design.simulate() as simulation:
        outputs = simulation.vectors({"i__valid": valid, "i__payload": payload}, ["o__payload"])
"""

from ...sim.programs import find_compiler
from .build import compile_design
from .bus import Bus, BusPorts, BusTiming
from .simulation import CompiledDesign, Record, Recorder, SignalInfo, Simulation, StreamRecord
from .stimulus import simulate_compiled
from .words import bits_of, words_of

__all__ = [
    "Bus",
    "BusPorts",
    "BusTiming",
    "CompiledDesign",
    "Record",
    "Recorder",
    "SignalInfo",
    "Simulation",
    "StreamRecord",
    "bits_of",
    "compile_design",
    "find_compiler",
    "simulate_compiled",
    "words_of",
]
