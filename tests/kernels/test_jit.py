"""The cache of compiled kernels: one small kernel in a folder of its own, in processes of their own."""

import os
import pickle
import subprocess
import sys

import numba
import pytest
from gatewise.kernels import conv
from gatewise.kernels import jit as jit_module

KERNEL = """
import importlib.util

spec = importlib.util.spec_from_file_location("jit", {path!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

@module.jit
def doubled(x):
    return {sum}
"""
PROGRAM = """
import sys
import numpy as np
from kernel import doubled

for kind in sys.argv[1].split(","):
    print(doubled(np.array([1, 100], dtype=kind)).tolist(), end=" ")
print(sum(doubled.stats.cache_hits.values()))
"""
READ_ONLY = """
import numba.core.caching as caching

def fail(*_):
    raise OSError(30, "Read-only file system")

caching.IndexDataCacheFile._open_for_write = fail
"""


def write(folder, total="x + x"):
    """The kernel; the package's own need not be imported for it."""
    (folder / "kernel.py").write_text(KERNEL.format(path=jit_module.__file__, sum=total))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    return tmp_path


def start(folder, kinds="int64", cache="cache", home=None):
    folders = {"NUMBA_CACHE_DIR": folder / cache, "PYTHONPATH": folder}
    if home is not None:
        folders |= {"HOME": home, "XDG_CACHE_HOME": home}
    environment = os.environ | {name: str(path) for name, path in folders.items()}
    command = [sys.executable, "-c", PROGRAM, kinds]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    """What a process printed; it says nothing else, and does not fail."""
    out, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    *results, hits = out.rsplit(maxsplit=1)
    return results, int(hits)


def files(folder, kind):
    return sorted((folder / "cache").rglob(f"*.{kind}"))


def test_processes_that_start_at_once_with_an_empty_cache_find_the_same(folder):
    kinds = ["int64", "float64", "int64,float64", "float64,int64"]
    found = [finish(each)[0] for each in [start(folder, each) for each in kinds]]
    whole, real = "[2, 200]", "[2.0, 200.0]"
    assert found == [[whole], [real], [f"{whole} {real}"], [f"{real} {whole}"]]
    finish(start(folder, "int64,float64"))
    assert finish(start(folder, "int64,float64")) == ([f"{whole} {real}"], 2)


def test_a_kernel_under_the_name_of_another_signature_is_not_run(folder):
    """As two processes leave it that compiled a signature each and met in one name."""
    finish(start(folder, "int64,float64"))
    first, second = files(folder, "nbc")
    first.write_bytes(second.read_bytes())
    assert finish(start(folder, "int64")) == (["[2, 200]"], 0)
    assert finish(start(folder, "int64")) == (["[2, 200]"], 1)


def test_a_kernel_of_another_source_is_not_run(folder):
    finish(start(folder))
    (old,) = files(folder, "nbc")
    held = old.read_bytes()
    write(folder, "x + x + x")
    assert finish(start(folder)) == (["[3, 300]"], 0)
    # The index is of the new source, the kernel not yet.
    (new,) = files(folder, "nbc")
    new.write_bytes(held)
    assert finish(start(folder)) == (["[3, 300]"], 0)


def test_files_that_are_cut_short_or_no_kernels_are_written_anew(folder):
    finish(start(folder))
    for kind in ("nbi", "nbc"):
        (path,) = files(folder, kind)
        for content in (path.read_bytes()[:-9], b"\x80\x05no pickle at all", pickle.dumps((numba.__version__, 1))):
            path.write_bytes(content)
            assert finish(start(folder)) == (["[2, 200]"], 0)
    assert finish(start(folder)) == (["[2, 200]"], 1)


def test_where_no_folder_can_be_written_it_costs_time_and_nothing_else(folder):
    """Numba tries the folder that is named, the one beside the source, and the user's; not even root can make these."""
    (folder / "__pycache__").write_text("")
    assert finish(start(folder, cache="__pycache__/cache", home=folder / "__pycache__")) == (["[2, 200]"], 0)


def test_a_cache_that_can_no_longer_be_written_still_serves(folder):
    finish(start(folder))
    (folder / "sitecustomize.py").write_text(READ_ONLY)
    assert finish(start(folder, "int64,float64")) == (["[2, 200] [2.0, 200.0]"], 1)


def test_kernels_of_the_package_have_that_cache_or_none():
    assert type(conv._conv._cache).__name__ in ("_SafeCache", "NullCache")
