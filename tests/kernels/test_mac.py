"""MacFormat: the widths, how they are read from text, and the one rule of overflow."""

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError, GatewiseError
from gatewise.kernels.mac import MacFormat, limit, signed_range

RANGES = {"product": (6, 10), "align": (8, 24), "acc": (12, 48)}


def test_the_default_widths_are_the_papers():
    assert MacFormat() == MacFormat(product=8, align=16, acc=32, overflow="saturate")


@pytest.mark.parametrize("name", RANGES)
def test_a_width_is_accepted_from_its_least_to_its_greatest_and_no_further(name):
    low, high = RANGES[name]
    for bits in range(low, high + 1):
        assert getattr(MacFormat(**{name: bits}), name) == bits
    for bits in (low - 1, high + 1, 0, -8):
        with pytest.raises(FormatError) as error:
            MacFormat(**{name: bits})
        assert str(error.value) == f"mac {name} must be a whole number from {low} to {high}, not {bits}"


@pytest.mark.parametrize("value", [16.0, True, "16", None])
def test_a_width_must_be_a_whole_number(value):
    with pytest.raises(FormatError) as error:
        MacFormat(align=value)
    assert str(error.value) == f"mac align must be a whole number from 8 to 24, not {value!r}"


def test_overflow_must_be_one_of_its_two_modes():
    with pytest.raises(FormatError) as error:
        MacFormat(overflow="clip")
    assert str(error.value) == "mac overflow must be saturate or wrap, not 'clip'"


def test_a_format_error_is_a_gatewise_error():
    assert issubclass(FormatError, GatewiseError)


def test_settings_are_read_by_name_over_a_base():
    assert MacFormat.parse("align=12,acc=18") == MacFormat(align=12, acc=18)
    assert MacFormat.parse(" overflow = wrap , product=6") == MacFormat(product=6, overflow="wrap")
    base = MacFormat(align=10, overflow="wrap")
    assert MacFormat.parse("acc=20", base) == MacFormat(align=10, acc=20, overflow="wrap")


@pytest.mark.parametrize("text", ["", "align", "width=8", "align=12,,acc=18", "align=12;acc=18"])
def test_a_setting_that_is_not_name_and_value_is_refused(text):
    with pytest.raises(FormatError) as error:
        MacFormat.parse(text)
    if text == "align=12;acc=18":  # one setting, whose value is no width
        assert str(error.value) == "mac align must be a whole number from 8 to 24, not '12;acc=18'"
    else:
        part = next(part for part in text.split(",") if part not in ("align=12", "acc=18"))
        assert (
            str(error.value) == f"mac setting must be one of product, align, acc, overflow as name=value, not {part!r}"
        )


@pytest.mark.parametrize("text", ["align=-12", "align=1e1", "align=12.0", "align="])
def test_a_width_in_text_must_be_a_whole_number(text):
    with pytest.raises(FormatError) as error:
        MacFormat.parse(text)
    value = text.partition("=")[2]
    assert str(error.value) == f"mac align must be a whole number from 8 to 24, not {value!r}"


def test_ranges_are_those_of_two_s_complement(reference):
    for bits in range(1, 57):
        assert signed_range(bits) == reference.signed_limits(bits)
    for bits in range(6, 11):
        assert MacFormat(product=bits).product_range(unsigned=False) == reference.signed_limits(bits)
        assert MacFormat(product=bits).product_range(unsigned=True) == reference.unsigned_limits(bits)
    assert MacFormat(align=11).align_range == (-1024, 1023)
    assert MacFormat(acc=48).acc_range == (-(2**47), 2**47 - 1)


def test_the_row_sum_grows_by_one_bit_for_each_doubling_of_lanes():
    assert [MacFormat(align=12).row_bits(lanes) for lanes in (1, 4, 8, 64)] == [12, 14, 15, 18]


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("limits", [(-32, 31), (0, 63), (-128, 127)])
def test_limit_saturates_or_wraps_and_marks_every_value_outside(reference, limits, overflow):
    values = list(range(-700, 701))
    found, over = limit(np.array(values), *limits, overflow)
    expected = [reference.limited(value, limits, overflow) for value in values]
    assert found.dtype == np.int64
    assert list(zip(found.tolist(), over.tolist(), strict=True)) == expected
    assert any(over.tolist())


def test_the_check_of_limit_catches_a_width_one_bit_off(reference):
    values = list(range(-700, 701))
    found = limit(np.array(values), -32, 31, "saturate")[0].tolist()
    assert found != [reference.limited(value, (-64, 63), "saturate")[0] for value in values]
