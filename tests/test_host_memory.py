"""Freed memory stays in a process that was told so: seen by the kernel's own count of pages."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import numpy as np
from plankton_jax.host_memory import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] == "kept":
    assert keep_freed_memory(1 << 28)
before = resident()
for _ in range(2):
    block = np.ones(1 << 24)  # 128 MiB
    with_block = resident()
    del block
print(with_block - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
@pytest.mark.parametrize(("side", "kept"), [("kept", True), ("default", False)])
def test_freed_memory_is_kept(side, kept):
    command = [sys.executable, "-c", SCRIPT, side]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used, afterwards = map(int, printed.split())
    assert used > 100 << 20
    assert (afterwards > 100 << 20) == kept
