"""Cost models without a synthesis: plausible costs that are exactly linear in what an engine has."""

from gatewise.rtl.compare_engine import Models
from gatewise.rtl.engine_cost import SAMPLES, CostModel
from gatewise.rtl.engine_count import Cost, EngineCount
from gatewise.sim.arrays import DECODERS
from gatewise.sim.engine import EngineConfig

PE = {"digit": 700, "fusion": 830, "sign": 45, "shift": 340}


def made_count(engine):
    """Costs of an engine."""
    rows, lanes, pes = engine.rows, engine.lanes, engine.rows * engine.lanes
    gates = {
        "array": PE[engine.array] * pes + 60 * rows + 20 * lanes,
        "loader": 75 * pes + 100,
        "accumulators": 1300 * rows + 900,
        "addresses": 5700 + 5 * rows,
        "post lanes": 36_900 * engine.post_lanes + 240 * rows + 1900,
        "post unit": 8700 + 2200 * min(rows, lanes) + 200 * rows,
        "memory": 270 + 57 * lanes,
        "control": 16_400 + 10 * rows,
    }
    if engine.decoder != "raw":
        gates["decoder"] = 2000 * rows + 800
    parts = {
        name: Cost(gates=count, flip_flops=count / 20, transistors=7 * count, alms_low=count / 8, alms_high=count / 7)
        for name, count in gates.items()
    }
    return EngineCount(engine, parts, "", 99)


def made_models():
    """A model of every array and decoder."""
    return Models(
        {
            (array, decoder): CostModel(
                [
                    made_count(EngineConfig(array=array, decoder=decoder, rows=rows, lanes=lanes, post_lanes=post))
                    for rows, lanes, post in SAMPLES
                ]
            )
            for array, decoders in DECODERS.items()
            for decoder in decoders
        }
    )
