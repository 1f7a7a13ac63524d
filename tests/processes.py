"""Programs run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import npconv

HERE = str(Path(npconv.__file__).parents[1])
"""Where the npconv under test is, for programs to import the same one."""


def python(code: str, *options: str, **environment: str) -> list[str]:
    """The lines that a program prints; it must end well (an abort shows as a return code below zero)."""
    path = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": path, **environment},
    )  # fmt: skip
    assert done.returncode == 0, f"return code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.splitlines()
