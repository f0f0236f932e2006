"""Whether the regression of the whole engine sees faults: each one is planted by itself in a copy of the package.

    python bench/mutation.py [NAME ...] [--limit COUNT] [--jobs 2] [--list]

Every mutation of `mutations.MUTATIONS` changes one line of the RTL. The engine that it names is compiled with it and
runs its networks of `mutation_regress` beside the simulator, as the unchanged engine has done before. A mutation
survives where nothing differs; where it must change only cycles, or only overflow counters, all the rest must be equal
in every run. Exits with 1 where a mutation survives, changes what it must not, or leaves the RTL as it is. Faults of
blocks that no engine has (`mutations.BLOCK_MUTATIONS`) meet the block's own benches instead, on Icarus.
"""

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gatewise
from mutation_regress import build, cases, regress
from mutations import BLOCK_MUTATIONS, MUTATIONS, Mutation
from rich.console import Console
from rich.table import Table

PACKAGE = Path(gatewise.__file__).resolve().parent
FOLDERS = ("kernels", "sim", "rtl")
"""What of the package the engine and its regression need."""
ALONE = ("counters", "cycles")
"""Kinds beside which nothing may differ."""
PATIENCE = 1200
"""Seconds for one engine."""
BLOCK_VECTORS = 800
"""Cycles of a block's bench."""


def main() -> None:
    """Print the table."""
    arguments = _arguments()
    if arguments.block:
        print(json.dumps(_block_differs(arguments.block)))
        return
    if arguments.worker:
        _work(*map(Path, arguments.worker), arguments.engine, arguments.until)
        return
    known = {mutation.name: mutation for mutation in (*MUTATIONS, *BLOCK_MUTATIONS)}
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        raise SystemExit(f"error: a mutation's name must be one of --list, not {unknown[0]}")
    if arguments.list:
        for mutation in known.values():
            print(
                f"{mutation.name:22} {mutation.build:13} {mutation.block:24} {mutation.kind:9} {mutation.description}"
            )
        return
    chosen = ([known[name] for name in arguments.names] or list(known.values()))[: arguments.limit]
    blocks = [mutation for mutation in chosen if mutation in BLOCK_MUTATIONS]
    engines = [mutation for mutation in chosen if mutation not in blocks]
    raise SystemExit(max(_bench(engines, arguments.jobs) if engines else 0, _bench_blocks(blocks) if blocks else 0))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations by name (default: all)")
    parser.add_argument("--limit", type=int, metavar="COUNT", help="only the first so many of them")
    parser.add_argument("--jobs", type=int, default=2, help="engines at a time (default 2)")
    parser.add_argument("--list", action="store_true", help="say what the mutations are, and run none")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--block", help=argparse.SUPPRESS)
    parser.add_argument("--until", help=argparse.SUPPRESS)
    return parser.parse_args()


def _bench(chosen: list[Mutation], jobs: int) -> int:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gatewise-mutation-") as name:
        work = Path(name)
        sound = _copy(PACKAGE, work / "sound")
        for mutation in chosen:
            try:
                mutation.apply(_copy(sound, work / "try", mutation.file))
            except (OSError, ValueError) as error:
                raise SystemExit(f"error: {error}") from error
            shutil.rmtree(work / "try")
        compared = {name: _unchanged(work, name) for name in dict.fromkeys(mutation.build for mutation in chosen)}
        with ThreadPoolExecutor(jobs) as pool:
            outcomes = list(pool.map(lambda mutation: _mutant(work, mutation), chosen))
    verdicts = [_verdict(mutation, outcome) for mutation, outcome in zip(chosen, outcomes, strict=True)]
    table = Table("mutation", "engine", "block", "fault", "caught by", "differs", title="mutations of the engine")
    for mutation, outcome, bad in zip(chosen, outcomes, verdicts, strict=True):
        kinds = bad or _kinds(mutation, outcome)
        found = outcome.get("first") or "-"
        table.add_row(mutation.name, mutation.build, mutation.block, mutation.description, found, kinds)
    console = Console(width=200)
    console.print(table)
    failed = [mutation.name for mutation, bad in zip(chosen, verdicts, strict=True) if bad]
    alone = ", ".join(f"{sum(each.kind == kind for each in chosen)} in {kind} alone" for kind in ALONE)
    blocks = len({mutation.file for mutation in chosen})
    unchanged = "; ".join(f"{name}: {found}" for name, found in compared.items())
    console.print(
        f"{len(chosen) - len(failed)} of {len(chosen)} mutations caught, in {blocks} blocks, {alone}; "
        f"unchanged: {unchanged}; {time.perf_counter() - began:.0f} s"
    )
    if failed:
        console.print(f"not as they must be: {', '.join(failed)}")
    return 1 if failed else 0


def _bench_blocks(chosen: list[Mutation]) -> int:
    """Faults of blocks, each in a copy of its own; 1 where a block's benches do not see one, or see one without."""
    survive = 0
    with tempfile.TemporaryDirectory(prefix="gatewise-mutation-") as name:
        work = Path(name)
        sound = _copy(PACKAGE, work / "sound")
        for mutation in (*chosen, *dict.fromkeys(each.build for each in chosen)):
            label = mutation if isinstance(mutation, str) else mutation.name
            copy = _copy(sound, work / label)
            if isinstance(mutation, Mutation):
                mutation.apply(copy)
            block = mutation if isinstance(mutation, str) else mutation.build
            environment = os.environ | {"PYTHONPATH": str(work / label)}
            command = [sys.executable, __file__, "--block", block]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
            if done.returncode:
                raise SystemExit(f"error: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
            found = json.loads(done.stdout)
            survive += (found is None) == isinstance(mutation, Mutation)
            _note(f"{label}: {found or 'nothing differs'}")
            shutil.rmtree(work / label)
    print(f"{len(chosen)} faults of blocks, {survive} not as they must be")
    return min(survive, 1)


def _block_differs(name: str) -> str | None:
    """What a block's benches find first, case by case."""
    from gatewise.rtl.blocks import BLOCKS
    from gatewise.rtl.regress import run_bench

    found = (run_bench(BLOCKS[name], case, vectors=BLOCK_VECTORS).mismatch for case in BLOCKS[name].cases)
    return next((" ".join(mismatch.split()) for mismatch in found if mismatch), None)


def _unchanged(work: Path, name: str) -> str:
    """Make the cases of an engine and run them on it as it is; what was compared."""
    began = time.perf_counter()
    with _cases_file(work, name).open("wb") as file:
        pickle.dump(list(cases(name)), file)
    outcome = _run(work, "sound", name)
    if outcome.get("error") or outcome["first"]:
        raise SystemExit(f"error: the unchanged engine must pass: {outcome.get('error') or outcome['first']}")
    compared = _compared(outcome)
    _note(f"unchanged engine {name}: passes, {compared} ({time.perf_counter() - began:.0f} s)")
    return compared


def _cases_file(work: Path, build: str) -> Path:
    return work / f"cases {build.replace('/', ' ')}"


def _copy(package: Path, parent: Path, *files: str) -> Path:
    """A copy of the package, or of some of its files, below a folder that is then a place to import it from."""
    copy = parent / "gatewise"
    for file in files:
        (copy / file).parent.mkdir(parents=True)
        shutil.copy2(package / file, copy / file)
    if not files:
        copy.mkdir(parents=True)
        shutil.copy2(package / "__init__.py", copy)
        for folder in FOLDERS:
            # With their times, by which what was compiled before is still known.
            shutil.copytree(package / folder, copy / folder)
    return copy


def _mutant(work: Path, mutation: Mutation) -> dict[str, Any]:
    """Plant one mutation and run the regression."""
    mutation.apply(_copy(work / "sound" / "gatewise", work / mutation.name))
    try:
        outcome = _run(work, mutation.name, mutation.build, None if mutation.kind in ALONE else mutation.kind)
    finally:
        shutil.rmtree(work / mutation.name)
    _note(f"{mutation.name}: {outcome.get('error') or outcome['first'] or 'nothing differs'}")
    return outcome


def _run(work: Path, name: str, engine: str, until: str | None = None) -> dict[str, Any]:
    """Have another process regress an engine of a copy, until a kind of difference is seen."""
    paths = [str(work / name), *filter(None, [os.environ.get("PYTHONPATH")])]
    folders = [str(work / name), str(_cases_file(work, engine)), str(work / "cache")]
    command = [sys.executable, __file__, "--worker", *folders, "--engine", engine]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    if until is not None:
        command += ["--until", until]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {PATIENCE} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def _work(copy: Path, chosen: Path, cache: Path, engine: str, until: str | None) -> None:
    """In a process whose package is the copy: compile, run, print what was found."""
    if copy not in PACKAGE.parents:
        raise SystemExit(f"gatewise must come from {copy}, not from {PACKAGE}")
    design = build(engine, cache)
    # Libraries are kept by the RTL that they are made of, the unchanged engine's before all others.
    if design.cached:
        raise SystemExit("the RTL must differ from that of the other engines")
    with chosen.open("rb") as file:
        print(json.dumps(regress(design, pickle.load(file), until).to_json()))


def _verdict(mutation: Mutation, outcome: dict[str, Any]) -> str | None:
    """What is wrong with a mutation; None if it was caught as it must be."""
    if outcome.get("error"):
        return f"error: {outcome['error']}"
    if outcome["first"] is None:
        return "SURVIVES"
    differ = {kind for kind, runs in outcome["different"].items() if runs}
    right = differ == {mutation.kind} if mutation.kind in ALONE else mutation.kind in differ
    return None if right else f"must differ in {mutation.kind}, not in {' and '.join(sorted(differ))}"


def _kinds(mutation: Mutation, outcome: dict[str, Any]) -> str:
    """The kind of the first difference; where nothing else may differ, what was equal."""
    if mutation.kind not in ALONE:
        first = outcome["first_kind"]
        return mutation.kind if first == mutation.kind else f"{first}, then {mutation.kind}"
    share = f"{outcome['different'][mutation.kind]} of {outcome['runs']} runs"
    return f"{mutation.kind} alone, in {share}; equal: {_compared(outcome, mutation.kind)}"


def _compared(outcome: dict[str, Any], without: str | None = None) -> str:
    parts = {"digits": outcome["digits"], "counters": outcome["counters"], "cycles": outcome["layers"]}
    names = {"cycles": "layers' cycles"}
    return ", ".join(f"{count:,} {names.get(kind, kind)}" for kind, count in parts.items() if kind != without)


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
