"""Programs side by side: what passes, what stays, and what becomes of the others when one fails."""

import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

BENCH = Path(__file__).parents[2] / "bench"

SAYS = """\
import sys, time
from progress import progress
from rich.console import Console
console = Console(stderr=True)
with progress(console, "says") as notice:
    notice("begun")
    notice("too soon after it")
    console.print("part: done")
    time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def pages(monkeypatch, tmp_path):
    """The module that runs them, with programs of a temporary folder."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("PYTHONPATH", str(BENCH))
    module = __import__("gate_pages")
    (tmp_path / "says.py").write_text(SAYS)
    (tmp_path / "fails.py").write_text("print('the reason'); raise SystemExit(3)")
    (tmp_path / "writes.py").write_text("open(__file__ + '.ran', 'w')")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "gate_pages.py"))
    monkeypatch.setattr(sys, "argv", ["gate_pages.py"])
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    yield module
    for name in ("gate_pages", "gates", "widths", "widths_page", "widths_store", "progress", "markdown", "paths"):
        sys.modules.pop(name, None)


def test_what_passes_is_told_and_what_stays_is_printed(pages, capsys):
    passing = []
    pages.Programs(Console(stderr=True), lambda name, text: passing.append((name, text))).run("says", ["0"])
    assert passing == [("says", "says: begun")]
    printed = capsys.readouterr().err
    assert "says: part: done" in printed
    assert "begun" not in printed


def test_a_failure_ends_the_others_and_says_why(pages, monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "PROGRAMS", {"says": ["60"], "fails": (), "writes": ()})
    monkeypatch.setattr(pages, "AT_A_TIME", 2)
    start = time.monotonic()
    with pytest.raises(SystemExit) as failure:
        pages.main()
    assert failure.value.code == "error: bench/fails.py must end with exit code 0, not 3\nthe reason"
    assert time.monotonic() - start < 30
    assert not (tmp_path / "writes.py.ran").exists()


def test_the_last_is_run_when_all_others_have_ended(pages, monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "PROGRAMS", {"says": ["0"]})
    monkeypatch.setattr(pages, "LAST", [("writes", ())])
    pages.main()
    assert (tmp_path / "writes.py.ran").exists()


def test_help_and_wrong_arguments_run_nothing(pages, monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "PROGRAMS", {"writes": ()})
    for argument, code in (("--help", 0), ("--part", 2)):
        monkeypatch.setattr(sys, "argv", ["gate_pages.py", argument])
        with pytest.raises(SystemExit) as end:
            pages.main()
        assert end.value.code == code
    assert not (tmp_path / "writes.py.ran").exists()


def test_a_page_of_widths_needs_every_row_counted(pages, monkeypatch, capsys):
    page = sys.modules["widths_page"]
    monkeypatch.setattr(page, "write_bytes", lambda *_: pytest.fail("wrote"))
    with pytest.raises(SystemExit) as end:
        page.write_page({"networks": {}, "rows": {}})
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: rows of 58 formats must be counted")
    assert told.count("\n") == 1
