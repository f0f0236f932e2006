"""What a row of the array costs at each width: multipliers, alignment, adder tree, accumulator and their registers.

It is the block `dot`: ``gatewise synth --block dot --param lanes=16 --param align=12 --param acc=18`` counts the same.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from .. import kernels
from ..kernels.align import Alignment
from ..kernels.mac import MacFormat
from ..sim.width_sweep import RowCost
from .dot import DotProductRow
from .synth import synthesize_component

__all__ = ["row_costs"]


def row_costs(
    formats: Iterable[MacFormat],
    lanes: int,
    kind: Alignment = "shift",
    *,
    cache: Path | None = None,
    notice: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> dict[MacFormat, RowCost]:
    """Costs of rows of `lanes` PEs, each format once; its modules are synthesised once for all formats that have them.

    `cache`, `notice` and `jobs` are as for `synthesize_component`.
    """
    found = {}
    for mac in dict.fromkeys(formats):
        component = DotProductRow(kernels.DotProductRow(mac, lanes, kind))
        report = synthesize_component(component, "dot", cache=cache, notice=notice, jobs=jobs)
        gates, alms = report.gates, report.alm.bounds
        found[mac] = RowCost(gates.two_input, gates.flip_flops, gates.equivalents, alms.low, alms.high)
    return found
