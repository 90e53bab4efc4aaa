"""One side of a comparison as a process of its own, which waits while the other is measured. Starts
that process and talks to it by lines of JSON.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

HERE = pathlib.Path(__file__).parent


class Side:
    """A program of this folder that says a line of JSON when it is ready and one for each "go".

    Attributes:
      ready: the first line.
    """

    def __init__(
        self,
        python: str,
        program: str,
        arguments: Sequence[Any],
        *,
        cores: Sequence[int] | None = None,
        environment: dict[str, str] | None = None,
    ):
        """`cores`: those the process may use; all by default."""

        def hold() -> None:
            if cores is not None:
                os.sched_setaffinity(0, cores)

        self._process = subprocess.Popen(
            [python, str(HERE / program), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parent), **(environment or {})},
            preexec_fn=hold,
        )
        self.ready = self._line()

    def measure(self) -> Any:
        """What one pass gives."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._line()

    def close(self) -> None:
        """Ends the process and waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the side `{self._process.args}` ended; see its message above")
        return json.loads(line)
