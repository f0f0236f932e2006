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
from .runner import Runner
from .synth import Part, PartsCount

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
    chosen = list(dict.fromkeys(formats))
    parts = [Part(str(mac), DotProductRow(kernels.DotProductRow(mac, lanes, kind)), 1) for mac in chosen]
    with Runner(cache, notice, jobs) as runner:
        counts = PartsCount(parts, runner)
        report = counts.report("rows", {"lanes": lanes}, lambda paths: max(each.depth for each in paths))
    return {
        mac: RowCost(row.gates, row.flip_flops, row.equivalents, row.alms_low, row.alms_high)
        for mac, row in zip(chosen, report.modules, strict=True)
    }
