"""Runs side by side: each once, in the order that ends soonest, and none begun after a failure."""

import threading
import time

import pytest
from gatewise.rtl import runner
from gatewise.rtl.runner import Runner, Task
from gatewise.rtl.yosys import Flow, YosysError

FLOW = Flow("flow", "", lambda folder, top: {})


@pytest.fixture
def ran(monkeypatch):
    """The texts that are run, in their order, and an event: `fail` fails, and `wait` waits for the event."""
    texts, go = [], threading.Event()

    def run_flow(flow, rtlil, top, cache, tell, yosys):
        tell("run")
        texts.append(rtlil)
        if rtlil == "fail":
            raise YosysError("failed")
        if rtlil == "wait":
            assert go.wait(10)
        return {"text": rtlil}

    monkeypatch.setattr(runner, "run_flow", run_flow)
    return texts, go


def tasks(*texts, name="task"):
    return [Task(FLOW, text, "top", name) for text in texts]


def test_equal_modules_run_once_whatever_they_are_called(ran):
    texts, _ = ran
    with Runner(jobs=1) as runs:
        first = runs.run(tasks("a", "bb", "a"))
        again = runs.run(tasks("bb", "ccc", name="another"))
    assert [found["text"] for found in first.values()] == ["a", "bb"]
    assert [found["text"] for found in again.values()] == ["bb", "ccc"]
    assert texts == ["a", "bb", "ccc"]


def test_a_short_one_is_first_and_alone_then_the_slowest(ran):
    texts, _ = ran
    with Runner(jobs=1) as runs:
        runs.run(tasks("a", "dddd", "x $mul y", "cc"))
    assert texts == ["a", "x $mul y", "dddd", "cc"]


def test_the_caller_goes_on_while_tasks_run(ran):
    _, go = ran
    notices = []
    with Runner(notice=notices.append, jobs=2) as runs:
        runs.run(tasks("a"))
        slow = runs.submit(tasks("wait"))
        assert runs.run(tasks("b"))
        assert not any(future.done() for future in slow.futures.values())
        go.set()
        assert [found["text"] for found in slow.found().values()] == ["wait"]
    assert notices[0] == "task: run, 1 runs left"
    assert runs.left == 0


def test_after_a_failure_nothing_more_is_begun(ran):
    texts, _ = ran
    with pytest.raises(YosysError, match=r"^failed$"), Runner(jobs=1) as runs:
        runs.run(tasks("a", "fail", "wait", "bb"))
    assert texts == ["a", "fail"]
    assert runs.left == 2


def test_it_is_seen_however_long_those_before_it_take(ran):
    texts, go = ran
    with Runner(jobs=2) as runs:
        runs.run(tasks("a"))
        begun = runs.submit(tasks("wait", "fail", "bb", "c"))
        # All others have ended, but for the one that waits: those behind the failure without having been run.
        for future in list(begun.futures.values())[1:]:
            assert isinstance(future.exception(10), YosysError)
        with pytest.raises(YosysError, match=r"^failed$"):
            runs.submit(tasks("dddd"))
        go.set()
        with pytest.raises(YosysError, match=r"^failed$"):
            begun.found()
    assert texts == ["a", "wait", "fail"]


def test_it_must_be_open():
    with pytest.raises(RuntimeError, match="must be open"):
        Runner().run(tasks("a"))


class Killed:
    """A process that runs until it is ended."""

    def __init__(self):
        self.ended = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()

    def kill(self):
        self.ended.set()


def interrupted():
    with Runner(jobs=1) as runs:
        runs.run(tasks("a"))
        runs.submit(tasks("slow"))
        raise KeyboardInterrupt


def test_whoever_interrupts_does_not_wait_for_the_tool(monkeypatch):
    def run_flow(flow, rtlil, top, cache, tell, yosys):
        if rtlil == "slow" and not yosys.ended.wait(30):
            pytest.fail("nobody ended it")
        return {}

    monkeypatch.setattr(runner, "Yosys", Killed)
    monkeypatch.setattr(runner, "run_flow", run_flow)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - start < 20
