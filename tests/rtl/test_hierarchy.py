import pytest
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.hierarchy import Memory, parse_design
from gatewise.rtl.verilog import to_rtlil


def test_equal_modules_become_one_and_are_counted():
    _, row = BLOCKS["dot"].create({"lanes": 8})
    design = parse_design(to_rtlil(row, "dot"), "dot")
    assert dict(design.instances) == {
        "dot": 1,
        "dot.multiplier_0": 8,
        "dot.tree": 1,
        "dot.aligner_0": 8,
        "dot.accumulator": 1,
    }
    assert design.rtlil.count("\nmodule ") + design.rtlil.startswith("module ") == 5
    assert design.rtlil.count("cell \\dot.multiplier_0 ") == 8


def test_the_hash_follows_the_hardware_and_nothing_else():
    first, again, other = (
        parse_design(to_rtlil(BLOCKS["multiplier"].create(settings)[1], "top"), "top").sha256
        for settings in ({}, {"overflow": "saturate"}, {"product": 7})
    )
    assert first == again != other


def test_memories_are_found_in_every_instance(two_memories):
    design = parse_design(to_rtlil(two_memories(), "top"), "top")
    assert design.all_memories() == [Memory(8, 64), Memory(8, 64)]


@pytest.mark.parametrize(
    ("width", "depth", "m20ks", "mlabs"),
    [
        (40, 512, 1, 0),
        (41, 512, 2, 0),
        (8, 2048, 1, 0),
        (32, 1024, 2, 0),
        (20, 32, 0, 1),
        (64, 16, 0, 4),
        (64, 33, 2, 0),
    ],
)
def test_memories_fill_blocks_in_their_best_shape(width, depth, m20ks, mlabs):
    held = Memory(width, depth)
    assert (held.bits, held.m20ks, held.mlabs) == (width * depth, m20ks, mlabs)
