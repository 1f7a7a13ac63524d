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
        with turn(tmp_path / "lock", 0.05) as ours:
            waited = time.monotonic() - start
    assert 0.05 <= waited < 30
    assert not ours


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_does_not_keep_it(tmp_path):
    (said,) = python(
        f"""
        import os, pathlib, signal, time
        from npconv.turns import turn
        lock = pathlib.Path({str(tmp_path)!r}) / "lock"
        with turn(lock, 0):
            child = os.fork()
            if child == 0:
                time.sleep(120)
                os._exit(0)
        with turn(lock, 20) as ours:
            print(ours)
        os.kill(child, signal.SIGKILL)
        """
    )
    assert said == "True"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fcntl")
@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.EACCES])
def test_where_there_are_no_locks_nobody_waits(tmp_path, monkeypatch, reason):
    def flock(*_):
        raise OSError(reason, "No locks")

    monkeypatch.setattr("fcntl.flock", flock)
    start = time.monotonic()
    with turn(tmp_path / "lock", 60) as ours:
        assert time.monotonic() - start < 30
    assert ours


def test_where_no_file_can_be_opened_nobody_waits(tmp_path):
    start = time.monotonic()
    with turn(tmp_path, 60) as ours, turn(tmp_path / "missing" / "lock", 60):
        assert time.monotonic() - start < 30
    assert ours
