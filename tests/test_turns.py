"""Locks on disk: held by one at a time, and gone without where they cannot be had."""

import errno
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import python

from npconv.turns import turn


def test_one_at_a_time(tmp_path):
    inside, most = 0, 0

    def work(_):
        nonlocal inside, most
        with turn(tmp_path / "lock", 60):
            inside += 1
            most = max(most, inside)
            time.sleep(0.005)
            inside -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(12)))
    assert most == 1


def test_a_process_that_dies_gives_it_back(tmp_path):
    python(
        f"""
        import os, pathlib
        from npconv.turns import turn
        with turn(pathlib.Path({str(tmp_path)!r}) / "lock", 0):
            os._exit(0)
        """
    )
    start = time.monotonic()
    with turn(tmp_path / "lock", 60):
        assert time.monotonic() - start < 30


def test_patience_ends(tmp_path):
    with turn(tmp_path / "lock", 0):
        start = time.monotonic()
        with turn(tmp_path / "lock", 0.05):
            waited = time.monotonic() - start
    assert 0.05 <= waited < 30


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fcntl")
def test_where_there_are_no_locks_nobody_waits(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    start = time.monotonic()
    with turn(tmp_path / "lock", 60):
        assert time.monotonic() - start < 30
