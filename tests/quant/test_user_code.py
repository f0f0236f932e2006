import sys
from pathlib import Path

import pytest
import torch
from gatewise.kernels.errors import FormatError, UnsupportedError
from gatewise.quant.capture import capture
from gatewise.quant.networks import load_network
from gatewise.quant.user_code import reason
from torch import Tensor, nn


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A module of the test's own in the current folder, with the source of the test's parameter."""
    (tmp_path / "users.py").write_text(request.param)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users", raising=False)
    return tmp_path / "users.py"


@pytest.mark.parametrize(
    ("users_module", "message"),
    [
        ("def net(:", "module users must be importable: SyntaxError: invalid syntax (users.py, line 1)"),
        ("import none_such", "module users must be importable: No module named 'none_such'"),
        ("\n1 / 0", "module users must be importable: ZeroDivisionError: division by zero ({}:2)"),
        ("def net():\n    raise ValueError('no\\nway')", "users:net must build a module: ValueError: no ({}:2)"),
        (
            "from torch import nn\ndef net():\n    return nn.Conv2d(3, 7, 3, groups=2)",
            "users:net must build a module: ValueError: in_channels must be divisible by groups ({}:3)",
        ),
    ],
    indirect=["users_module"],
)
def test_what_a_users_module_raises_is_one_line_with_its_place(users_module: Path, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        load_network("users:net")
    assert str(caught.value) == message.format(users_module)


class BranchesOnValues(nn.Module):
    """Control flow that torch.export cannot capture."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def test_a_module_that_cannot_be_captured_is_named_with_its_line_and_nothing_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    line = BranchesOnValues.forward.__code__.co_firstlineno + 1
    with pytest.raises(UnsupportedError, match=rf"must be able to capture BranchesOnValues: .*\({__file__}:{line}\)$"):
        capture(BranchesOnValues().eval(), torch.zeros(1, 3))
    assert capfd.readouterr() == ("", "")


def test_an_error_without_a_message_or_a_place_has_its_kind() -> None:
    assert reason(RuntimeError()) == "RuntimeError: without a message"
