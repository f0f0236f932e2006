"""Every cycle of the XOR stream blocks: models of their registers and handshakes, and benches behind `Stepped`.

The models hold numbers where the hardware holds shifted bits, and know of no cycle count: those of
`kernels.xor_stream` are proved against the hardware apart from them.
"""

# ruff: noqa: D102 (a bench's methods say in their base class what they do)

import numpy as np

from .. import kernels
from .stepped import Cycle, Driver, Spells, StepBench

__all__ = ["XorDecoderBench", "XorRowsBench", "XorStreamBench"]


class StreamModel:
    """Registers of `XorStream`: the bits held, the masks of its matrices, and the state of the frame."""

    def __init__(self, parameters: kernels.XorStream) -> None:
        self.parameters = parameters
        self.masks = [[0] * parameters.n_out for _ in range(parameters.planes)]
        if isinstance(parameters.matrices, tuple):
            self.masks = [list(network.rows) for network in parameters.matrices]
        self.held = self.level = 0
        self.stopped = self.draining = False

    def size(self, inputs: Cycle) -> tuple[int, int]:
        """Inputs and outputs of the present frame's network."""
        parameters = self.parameters
        return inputs.get("n_in", parameters.n_in), inputs.get("n_out", parameters.n_out)

    def offer(self, inputs: Cycle) -> Cycle:
        """What does not depend on `o_ready` and `flush`."""
        n_in, n_out = self.size(inputs)
        parameters = self.parameters
        rows = self.masks[min(inputs["plane"], parameters.planes - 1)][:n_out]
        slice_ = self.held & ((1 << parameters.n_in) - 1)
        return {
            "o": sum(((row & slice_).bit_count() & 1) << o for o, row in enumerate(rows)),
            "o_valid": int(self.level >= n_in),
            "ended": int(self.stopped and self.level < n_in),
        }

    def step(self, inputs: Cycle) -> Cycle:
        outputs = self.offer(inputs)
        n_in, _ = self.size(inputs)
        held, level = self.held, self.level
        if outputs["o_valid"] and inputs["o_ready"]:
            held, level = held >> n_in, level - n_in
        outputs["words_ready"] = int(self.draining or (not self.stopped and level < n_in))
        taken = outputs["words_ready"] and inputs["words_valid"]
        last = bool(taken and inputs["words_last"])
        if self.draining:
            self.draining = not last
        elif inputs["flush"]:
            self.draining = not (self.stopped or last)
            self.held, self.level, self.stopped = 0, 0, False
        else:
            if taken:
                held, level = held | inputs["words_bits"] << level, level + self.parameters.word_bits
            self.held, self.level, self.stopped = held, level, self.stopped or last
        if inputs.get("write"):
            self.masks[inputs["write_plane"]][inputs["write_row"]] = inputs["write_mask"]
        return outputs


class RowsModel:
    """Registers of `XorRows`: the bits kept, the run's state, and the row on offer."""

    def __init__(self, parameters: kernels.XorRows) -> None:
        self.parameters = parameters
        self.pool: list[int] = []
        self.left: int | None = None
        self.short = False
        self.row = {"o_bits": 0, "o_last": 0, "o_short": 0}
        self.valid = False

    def step(self, inputs: Cycle) -> Cycle:
        width, n_out = self.parameters.row_bits, inputs.get("n_out", self.parameters.n_out)
        fresh = self.left is None and bool(inputs["runs_restart"])
        pool = [] if fresh else self.pool
        remaining = inputs["runs_length"] if self.left is None else self.left
        take = min(remaining, width)
        pull = len(pool) < take
        step = bool(inputs["runs_valid"] and (not self.valid or inputs["o_ready"]))
        go = step and (not pull or bool(inputs["vectors_valid"] or inputs["ended"]))
        outputs = {
            "vectors_ready": int(step and pull),
            "runs_ready": 0,
            "finish": 0,
            "plane": inputs["runs_plane"],
            "o_valid": int(self.valid),
            **self.row,
        }
        if not self.valid or inputs["o_ready"]:
            self.valid = False
        if not go:
            return outputs
        short = self.short and not fresh
        if pull:
            vector = inputs["vectors"] if inputs["vectors_valid"] else 0
            short = short or not inputs["vectors_valid"]
            pool = pool + [vector >> o & 1 for o in range(n_out)][inputs["runs_skip"] if fresh else 0 :]
        self.short = short
        if len(pool) < take:
            self.pool, self.left = pool, remaining
            return outputs
        final = remaining <= width
        bits = sum(bit << k for k, bit in enumerate(pool[:take]))
        self.row, self.valid = {"o_bits": bits, "o_last": int(final), "o_short": int(short)}, True
        self.pool, self.left = pool[take:], None if final else remaining - width
        outputs["runs_ready"] = int(final)
        if final and inputs["runs_last"]:
            outputs["finish"] = 1
            self.pool, self.short = [], False
        return outputs


class DecoderModel:
    """`XorDecoder`: the two models, connected."""

    def __init__(self, parameters: kernels.XorDecoder) -> None:
        self.stream, self.rows = StreamModel(parameters.stream), RowsModel(parameters.rows)

    def step(self, inputs: Cycle) -> Cycle:
        offer = self.stream.offer({**inputs, "plane": inputs["runs_plane"]})
        vectors = {"vectors": offer["o"], "vectors_valid": offer["o_valid"], "ended": offer["ended"]}
        rows = self.rows.step({**inputs, **vectors})
        answer = {"plane": inputs["runs_plane"], "o_ready": rows["vectors_ready"], "flush": rows["finish"]}
        words = self.stream.step({**inputs, **answer})
        return {"words_ready": words["words_ready"]} | {
            name: rows[name] for name in ("runs_ready", "o_valid", "o_bits", "o_last", "o_short")
        }


def _loads(matrices: tuple[kernels.XorNetwork, ...] | kernels.XorProgrammable, rng: np.random.Generator) -> list[Cycle]:
    """Writes of every row of every plane, in any order; none where the matrices are gates."""
    if isinstance(matrices, tuple):
        return []
    writes = [
        {"write": 1, "write_plane": plane, "write_row": o, "write_mask": int(rng.integers(1, 1 << matrices.n_in))}
        for plane in range(matrices.planes)
        for o in range(matrices.n_out)
    ]
    return [writes[k] for k in rng.permutation(len(writes))]


class _Frames:
    """Random frames, each side of which is offered until it is taken."""

    def __init__(self, stream: kernels.XorStream, rng: np.random.Generator) -> None:
        self.stream, self.rng = stream, rng
        self.sizes: Cycle = {}
        self.words: list[Cycle] = []
        self.writes = _loads(stream.matrices, rng)
        self.offering = Spells(rng)
        self.offered = False

    def resize(self) -> None:
        """Another size of network, where it is set at run time."""
        if self.stream.programmable:
            self.sizes = {
                "n_in": int(self.rng.integers(1, self.stream.n_in, endpoint=True)),
                "n_out": int(self.rng.integers(1, self.stream.n_out, endpoint=True)),
            }

    def send(self, words: int) -> None:
        """Queue a frame of so many words, at least one."""
        for k in range(words):
            bits = int.from_bytes(self.rng.bytes(self.stream.word_bits // 8), "little")
            self.words.append({"words_bits": bits, "words_last": int(k == words - 1)})

    def inputs(self) -> Cycle:
        """Inputs of the word side and the matrices in this cycle."""
        self.offered = bool(self.words) and not self.writes and (self.offered or self.offering.go())
        cycle = {"words_valid": int(self.offered), **self.sizes}
        if self.stream.programmable:
            cycle["write"] = 0
        if self.writes:
            cycle |= self.writes.pop()
        return cycle | (self.words[0] if self.offered else {})

    def answer(self, outputs: Cycle) -> None:
        """Take note of what was taken."""
        if self.offered and outputs["words_ready"]:
            self.words.pop(0)
            self.offered = False


class XorStreamBench(StepBench[kernels.XorStream]):
    """Frames of random words, flushed when they have ended, now and then before."""

    def model(self) -> StreamModel:
        return StreamModel(self.parameters)

    def driver(self, rng: np.random.Generator) -> Driver:
        frames, ready = _Frames(self.parameters, rng), Spells(rng)
        frames.resize()
        flush = 0
        while True:
            if len(frames.words) < 2:
                frames.send(int(rng.integers(1, 12)))
            plane = int(rng.integers(0, self.parameters.planes))
            outputs = yield {**frames.inputs(), "flush": flush, "plane": plane, "o_ready": int(ready.go())}
            frames.answer(outputs)
            if flush:
                frames.resize()
            flush = int(rng.random() < (0.3 if outputs["ended"] else 0.01))


def _random_run(parameters: kernels.XorRows, n_out: int, rng: np.random.Generator) -> Cycle:
    """A legal run, short or of some rows."""
    most = min(int(rng.choice([parameters.row_bits, 6 * parameters.row_bits])), (1 << parameters.length_bits) - 1)
    return {
        "runs_length": int(rng.integers(1, most, endpoint=True)),
        "runs_skip": int(rng.integers(0, n_out)),
        "runs_plane": int(rng.integers(0, parameters.planes)),
        "runs_restart": int(rng.random() < 0.4),
        "runs_last": int(rng.random() < 0.1),
    }


class XorRowsBench(StepBench[kernels.XorRows]):
    """Random runs of random vectors, some of which never come."""

    def model(self) -> RowsModel:
        return RowsModel(self.parameters)

    def driver(self, rng: np.random.Generator) -> Driver:
        parameters = self.parameters
        offering, coming, ready = Spells(rng), Spells(rng), Spells(rng)
        run: Cycle | None = None
        n_out, ended = parameters.n_out, 0
        while True:
            if run is None and offering.go():
                run = _random_run(parameters, n_out, rng)
            cycle = {"ended": ended, "runs_valid": int(run is not None), "o_ready": int(ready.go())} | (run or {})
            cycle["vectors"] = int(rng.integers(0, 1 << n_out))
            cycle["vectors_valid"] = int(not ended and coming.go())
            if parameters.programmable:
                cycle["n_out"] = n_out
            outputs = yield cycle
            if outputs["runs_ready"]:
                run = None
            ended = int(rng.random() < (0.9 if ended else 0.02))
            if outputs["finish"]:
                ended = 0
                n_out = int(rng.integers(1, parameters.n_out, endpoint=True)) if parameters.programmable else n_out


class XorDecoderBench(StepBench[kernels.XorDecoder]):
    """Frames of runs with about as many words as they need: exactly, too few, or too many."""

    def model(self) -> DecoderModel:
        return DecoderModel(self.parameters)

    def driver(self, rng: np.random.Generator) -> Driver:
        stream = self.parameters.stream
        frames, offering, ready = _Frames(stream, rng), Spells(rng), Spells(rng)
        runs: list[Cycle] = []
        offered = False
        while True:
            if not runs and not frames.words:
                frames.resize()
                runs = self._frame(frames, rng)
            offered = bool(runs) and not frames.writes and (offered or offering.go())
            cycle = {**frames.inputs(), "runs_valid": int(offered), "o_ready": int(ready.go())}
            outputs = yield cycle | (runs[0] if offered else {})
            frames.answer(outputs)
            if offered and outputs["runs_ready"]:
                runs.pop(0)
                offered = False

    def _frame(self, frames: _Frames, rng: np.random.Generator) -> list[Cycle]:
        """Runs of a frame, the last one marked; its words are queued."""
        stream, rows = self.parameters.stream, self.parameters.rows
        n_in, n_out = frames.sizes.get("n_in", stream.n_in), frames.sizes.get("n_out", stream.n_out)
        runs = [_random_run(rows, n_out, rng) | {"runs_last": 0} for _ in range(rng.integers(1, 5))]
        runs[-1]["runs_last"] = 1
        table = [kernels.XorRun(run["runs_length"], run["runs_skip"], bool(run["runs_restart"])) for run in runs]
        bits = int(self.parameters.schedule_of(table, n_in, n_out).slices.sum()) * n_in
        frames.send(max(1, -(-bits // stream.word_bits) + int(rng.choice([0, 0, -1, -3, 1, 4]))))
        return runs
