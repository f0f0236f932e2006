from dataclasses import dataclass

import pytest
from gatewise.kernels.errors import FormatError
from gatewise.quant.settings import check_positive, check_ranges


@dataclass(frozen=True)
class Settings:
    weight_bits: int = 4
    share: float = 0.5
    rate: float = 1.0


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_the_ends_of_a_range_are_in_it(share: float) -> None:
    check_ranges(Settings(4, share), weight_bits=(4, 4), share=(0, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(3), "weight bits must be 4 to 5, not 3"),
        (Settings(6), "weight bits must be 4 to 5, not 6"),
        (Settings(share=1.5), "share must be 0 to 1, not 1.5"),
        (Settings(share=float("nan")), "share must be 0 to 1, not nan"),
    ],
)
def test_what_is_outside_of_its_range_is_named(settings: Settings, message: str) -> None:
    with pytest.raises(FormatError, match=f"^{message}$"):
        check_ranges(settings, weight_bits=(4, 5), share=(0, 1))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_what_is_not_positive_is_named(rate: float) -> None:
    check_positive(Settings(), "rate", "weight_bits")
    with pytest.raises(FormatError, match=f"^rate must be positive, not {rate}$"):
        check_positive(Settings(rate=rate), "weight_bits", "rate")
