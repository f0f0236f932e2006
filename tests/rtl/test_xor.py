"""The gates of XOR networks: exhaustively, by SAT, by linearity; matrices in registers; planted faults."""

from dataclasses import replace

import numpy as np
import pytest
from gatewise import kernels
from gatewise.rtl import xor
from gatewise.rtl.blocks import BLOCKS
from gatewise.rtl.icarus import simulate
from gatewise.rtl.regress import run_bench
from gatewise.rtl.stepped import steppable
from gatewise.rtl.synth import synthesize
from gatewise.rtl.verilog import to_rtlil
from gatewise.rtl.yosys import YosysError, run_script


def faulty(block, component):
    return replace(BLOCKS[block], component=component)


@pytest.mark.usefixtures("icarus")
class TestBench:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"n_in": 8},
            {"n_in": 16},
            {"n_in": 12, "taps": 0},
            {"n_in": 15, "taps": 5, "n_out": 7},
            {"n_in": 1, "taps": 1},
        ],
    )
    def test_every_slice_decodes_as_the_golden_model(self, settings):
        result = run_bench(BLOCKS["xor"], settings)
        assert result.mismatch is None
        assert result.exhaustive

    @pytest.mark.parametrize(
        "settings",
        [{}, {"n_in": 20, "n_out": 10, "planes": 3}, {"n_in": 1, "n_out": 1, "planes": 2}, {"n_in": 7, "n_out": 33}],
    )
    def test_matrices_are_written_and_used_in_the_same_cycles(self, settings):
        result = run_bench(BLOCKS["xor_programmable"], {**settings, "stepped": True}, vectors=1500)
        assert result.mismatch is None

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("if row >> j & 1]", "if row >> j & 1 and j]"),
            ("(terms[:middle]) ^ balanced_xor", "(terms[:middle]) | balanced_xor"),
            ("m.d.comb += self.y[o].eq(balanced_xor([", "m.d.comb += self.y[-1 - o].eq(balanced_xor(["),
            ("[self.x[j] for j in inputs", "[self.x[-1 - j] for j in inputs"),
            ("middle = (len(terms) + 1) // 2", "middle = len(terms) // 2; terms = list(terms[:-1]) + [terms[0]]"),
            ("m.d.comb += self.y[o].eq(balanced_xor([", "m.d.comb += self.y[o].eq(~balanced_xor(["),
        ],
    )
    def test_a_fault_in_the_gates_is_found(self, planted, old, new):
        component = planted(xor, old, new)["XorGates"]
        result = run_bench(faulty("xor", component), {"n_in": 10, "taps": 3})
        assert "y must be" in result.mismatch

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("(self.n_out > o)", "(self.n_out >= o)"),
            ("(self.n_out > o)", "1"),
            ("terms = self.rows[o] & self.x", "terms = self.rows[o] | self.x"),
            ("self.write & (self.write_plane == plane)", "self.write"),
            ("self.write & (self.write_plane == plane)", "self.write_plane == plane"),
            ("with m.If(self.write_row == o):", "with m.If(self.write_row[1:] == o >> 1):"),
            ("Array(held)[self.plane]", "Array(held)[self.write_plane]"),
            (
                "m.d.sync += matrices[plane][o].eq(self.write_mask)",
                "m.d.sync += matrices[plane][o].eq(self.write_mask[1:])",
            ),
            ("held = [Cat(*matrix) for matrix in matrices]", "held = [Cat(*matrix[::-1]) for matrix in matrices]"),
        ],
    )
    def test_a_fault_in_the_registers_is_found(self, planted, old, new):
        component = steppable(planted(xor, old, new)["XorProgrammable"])
        settings = {"n_in": 6, "n_out": 5, "planes": 2, "stepped": True}
        assert "y must be" in run_bench(faulty("xor_programmable", component), settings, vectors=1500).mismatch


def matrix_times_vector(network):
    """Verilog of the product that owes nothing to the gates: each row masks the slice, and its parity is the output."""
    rows = "".join(f"  assign y[{o}] = ^({network.n_in}'h{row:x} & x);\n" for o, row in enumerate(network.rows))
    return f"module matrix(input [{network.n_in - 1}:0] x, output [{network.n_out - 1}:0] y);\n{rows}endmodule\n"


def prove(folder, rtlil, reference):
    """Prove by SAT that the design equals the reference for every input; raises `YosysError` where it does not."""
    (folder / "design.il").write_text(rtlil)
    (folder / "reference.v").write_text(reference)
    run_script(
        folder,
        "read_rtlil design.il\nread_verilog reference.v\nproc\n"
        "miter -equiv -flatten -make_outputs gates matrix miter\n"
        "sat -verify -prove trigger 0 miter\n",
    )


class TestProof:
    @pytest.mark.parametrize(
        ("n_in", "n_out", "taps"), [(20, 20, 2), (20, 20, None), (22, 20, None), (64, 64, 2), (64, 64, 5)]
    )
    def test_gates_equal_matrix_times_vector_for_every_slice(self, tmp_path, n_in, n_out, taps):
        network = kernels.XorNetwork.random(n_in, n_out, taps, 3)
        prove(tmp_path, to_rtlil(xor.XorGates(network), "gates"), matrix_times_vector(network))

    def test_one_tap_too_many_is_disproved(self, tmp_path):
        network = kernels.XorNetwork.random(20, 20, None, 3)
        rows = list(network.rows)
        rows[13] ^= 1 << 17
        gates = to_rtlil(xor.XorGates(replace(network, rows=tuple(rows))), "gates")
        with pytest.raises(YosysError):
            prove(tmp_path, gates, matrix_times_vector(network))

    def test_any_matrix_in_registers_times_any_vector(self, tmp_path):
        n_in, n_out = 12, 20
        product = to_rtlil(xor.XorProduct(kernels.XorProgrammable(n_in, n_out)), "gates")
        rows = "".join(f"  assign y[{o}] = (n_out > {o}) & ^(rows[{o * n_in} +: {n_in}] & x);\n" for o in range(n_out))
        ports = (
            f"input [{n_in * n_out - 1}:0] rows, input [4:0] n_out, input [{n_in - 1}:0] x, output [{n_out - 1}:0] y"
        )
        prove(tmp_path, product, f"module matrix({ports});\n{rows}endmodule\n")

    # A network of XOR gates alone, whose inputs are slice bits, XORs and constants, is affine over GF(2) by induction
    # over its gates: f(a ^ b) = f(a) ^ f(b) ^ f(0). With f(0) = 0 it is linear, so that it is the matrix whose columns
    # are the outputs of the basis slices. Both are checked: which cells there are, and n_in + 1 slices.
    @pytest.mark.usefixtures("icarus")
    @pytest.mark.parametrize(("n_in", "n_out", "taps"), [(64, 64, None), (40, 20, None), (20, 20, 2)])
    def test_nothing_but_xor_gates_and_right_on_a_basis_and_zero(self, tmp_path, n_in, n_out, taps):
        network = kernels.XorNetwork.random(n_in, n_out, taps, 4)
        (tmp_path / "design.il").write_text(to_rtlil(xor.XorGates(network), "gates"))
        script = "read_rtlil design.il\nproc\nsimplemap\nselect -assert-none t:* t:$_XOR_ %d\n"
        run_script(tmp_path, script + "select -assert-min 1 t:$_XOR_\n")
        slices = np.concatenate([np.zeros((1, n_in), np.uint8), np.eye(n_in, dtype=np.uint8)])
        folder = tmp_path / "simulation"
        folder.mkdir()
        found = simulate(xor.XorGates(network), slices, 0, folder).outputs
        assert np.array_equal(found, network.decode(slices))
        assert np.array_equal(found[1:].T, network.matrix)

    def test_another_cell_is_not_taken_for_a_xor_gate(self, tmp_path, planted):
        names = planted(
            xor, "balanced_xor(terms[:middle]) ^ balanced_xor", "balanced_xor(terms[:middle]) | balanced_xor"
        )
        gates = names["XorGates"](kernels.XorNetwork.random(12, 20, 2, 0))
        (tmp_path / "design.il").write_text(to_rtlil(gates, "gates"))
        with pytest.raises(YosysError, match="selection is not empty"):
            run_script(tmp_path, "read_rtlil design.il\nproc\nsimplemap\nselect -assert-none t:* t:$_XOR_ %d\n")


@pytest.mark.usefixtures("pinned_yosys")
class TestSynthesis:
    @pytest.mark.parametrize("n_in", [8, 12, 16, 20])
    def test_two_taps_cost_a_gate_for_every_different_row(self, synth_cache, n_in):
        network, component = BLOCKS["xor"].create({"n_in": n_in})
        to_rtlil(component, "top")
        report = synthesize("xor", {"n_in": n_in}, cache=synth_cache)
        assert report.gates.two_input == len(set(network.rows)) <= network.gates == 20
        assert (report.gates.inverters, report.gates.flip_flops, report.gates.depth) == (0, 0, 1)

    def test_the_paper_s_network_costs_twenty_gates(self, synth_cache):
        assert synthesize("xor", cache=synth_cache).gates.two_input == 20
