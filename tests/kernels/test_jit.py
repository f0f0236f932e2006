import os
from pathlib import Path

from gatewise.kernels.jit import cache_fallback


def test_a_writable_folder_is_left_to_numba(tmp_path):
    assert cache_fallback(tmp_path, tmp_path / "home" / "not" / "there") is None


def test_without_any_writable_folder_a_temporary_one_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    folder = cache_fallback(tmp_path, tmp_path / "home")
    assert folder is not None
    assert Path(folder).is_dir()
    Path(folder).rmdir()
