import pytest
from gatewise import FormatError
from gatewise.kernels import DotProductRow, MacFormat
from gatewise.rtl.blocks import BLOCKS, block_named, parse_settings


def test_settings_from_the_command_line_become_the_kernel_parameters():
    settings = parse_settings(["lanes=4", "align = 12", "overflow=wrap"])
    block = BLOCKS["dot"]
    assert block.parameters(**block.settings(settings)) == DotProductRow(MacFormat(align=12, overflow="wrap"), 4)


@pytest.mark.parametrize("block", BLOCKS.values(), ids=lambda block: block.name)
def test_every_regression_case_is_legal(block):
    for case in (*block.cases, block.small or {}):
        assert block.parameters(**block.settings(case)) is not None


@pytest.mark.parametrize(
    ("block", "setting", "message"),
    [
        ("dot", "width=4", "parameter of dot must be one of lanes, product, align, acc, kind, overflow, not 'width'"),
        ("dot", "lanes=3", "lanes must be a power of two from 1 to 256, not 3"),
        ("dot", "lanes=four", "dot parameter lanes must be a whole number, not 'four'"),
        ("align", "kind=add", "align parameter kind must be one of shift, mul, not 'add'"),
        ("scale", "out_signed=perhaps", "scale parameter out_signed must be true or false, not 'perhaps'"),
        ("scale", "multiplier_bits=20", "multiplier bits must be 16, 24 or 31, not 20"),
        ("multiplier", "product=11", "mac product must be a whole number from 6 to 10, not 11"),
    ],
)
def test_a_wrong_setting_is_refused_in_a_line(block, setting, message):
    with pytest.raises(FormatError) as raised:
        block_named(block).create(parse_settings([setting]))
    assert str(raised.value) == message


def test_an_unknown_block_is_refused_with_the_known_ones():
    with pytest.raises(FormatError, match=r"block must be one of multiplier, align, .*, not 'mul'"):
        block_named("mul")


def test_a_setting_without_a_value_is_refused():
    with pytest.raises(FormatError, match="parameter must be given as name=value, not 'lanes'"):
        parse_settings(["lanes"])
