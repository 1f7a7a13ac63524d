"""Another version of npconv as a contestant, which has a process of its own: ``--peers-before=FOLDER``.

Two runs of drawn layers, one of each version, tell nothing below a tenth: other programs use the caches and the memory,
which no peak shows. Versions that take turns do.

It is a program, too: what runs there, told by pickles on its standard input what to do.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # of this version, whose modules the program shall not load
    from peers.race import Contestant
    from peers.work import Work

NAME = "npconv, before"


class Before:
    """The process of another version, whose package lies in a folder, such as another checkout."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "npconv" / "__init__.py").is_file():
            raise ValueError(f"--peers-before must name a folder with another npconv in it; got {str(folder)!r}")
        pipe = subprocess.PIPE
        self.seconds = 0.0  # of processor time, as far as it has told
        self._process = subprocess.Popen([sys.executable, __file__, str(folder)], stdin=pipe, stdout=pipe)

    def contestant(self, what: str, work: Work, threads: int) -> Contestant:
        """Return one of `peers.ours` that takes its turns there."""
        from peers.race import Contestant

        result = self._ask("make", what, work.name, work.text, threads)
        return Contestant(threads, lambda: result, turn=lambda: self._ask("turn"))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, *message: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()
        answer, self.seconds = pickle.load(self._process.stdout)
        return answer


def main(folder: str) -> None:
    """Do what is told, with the npconv of a folder."""
    sys.path[:1] = [folder, str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    import npconv
    from peers import ours
    from peers.race import pause, take_turn
    from peers.work import Work

    assert Path(npconv.__file__).is_relative_to(folder)
    while True:
        try:
            command, *arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if command == "make":
            what, name, text, threads = arguments
            contestant = ours.drawn(what, Work(name, text), threads)
            with npconv.threads(threads):
                answer = contestant.read(contestant.call())
        else:
            answer = take_turn(contestant)
            pause()  # whoever comes next is not to meet threads that spin here
        pickle.dump((answer, time.process_time()), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
