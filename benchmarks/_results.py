"""The one format of benchmark results: `benchmarks/results/<benchmark>.<device>.json`. Writes that
file and touches nothing else.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"


def row(
    name: str,
    unit: str,
    ours: float,
    peer: float | None = None,
    peer_name: str | None = None,
    *,
    less_is_better: bool = False,
) -> dict[str, Any]:
    """One measured quantity; `ratio` above 1 means that we are better than the peer."""
    ratio = None
    if peer is not None:
        ratio = round(peer / ours if less_is_better else ours / peer, 4)
    values = {"ours": ours, "peer": peer, "peer_name": peer_name, "ratio": ratio}
    return {"name": name, "unit": unit, **values}


def cpu_device() -> str:
    """The name of this machine as a device, by the cores that this process may use."""
    return f"cpu-{len(os.sched_getaffinity(0))}-core"


def device_name(platform: str, kind: str) -> str:
    """A device that JAX describes so, as results name it."""
    return (
        cpu_device() if platform == "cpu" else re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    )


def processor() -> str:
    """The processor's model name."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def with_former_rows(
    benchmark: str,
    rows: Sequence[dict[str, Any]],
    device: str | None = None,
    settings: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The rows of this run, then those of the result that is there which it has not measured, each
    with its origin; none of them when that was measured with other `settings`."""
    path = RESULTS / f"{benchmark}.{device or cpu_device()}.json"
    if not path.is_file():
        return [*rows]
    before, new = json.loads(path.read_text()), {line["name"] for line in rows}
    if any(before.get(name) != value for name, value in (settings or {}).items()):
        return [*rows]
    origin = {key: before[key] for key in ("date", "command", "processor")}
    former = [line for line in before["rows"] if line["name"] not in new]
    if former:
        print(f"{len(former)} rows of former runs stay in the result")
    return [*rows, *({"measured": origin} | line for line in former)]


def write_results(
    benchmark: str,
    rows: Sequence[dict[str, Any]],
    versions: dict[str, str],
    *,
    device: str | None = None,
    notes: dict[str, Any] | None = None,
    directory: pathlib.Path = RESULTS,
) -> pathlib.Path:
    """Writes and prints the rows of one run.

    Args:
      device: short name that becomes part of the file's; the processor's by default.
      notes: settings of the run that a reader needs, such as repeats and batch size.

    Returns:
      The path of the file.
    """
    device = device or cpu_device()
    # Paths of one machine say nothing elsewhere.
    words = [pathlib.Path(word).name if "/" in word else word for word in sys.argv[1:]]
    program = f"benchmarks/{pathlib.Path(sys.argv[0]).name}"
    result = {
        "benchmark": benchmark,
        "device": device,
        "processor": processor(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "command": shlex.join(["python", program, *words]),
        "versions": versions,
        **(notes or {}),
        "rows": list(rows),
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{benchmark}.{device}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for line in rows:
        text = f"{line['name']}: {line['ours']:g} {line['unit']}"
        if line["ratio"] is not None:
            text += f"  ({line['peer_name']} {line['peer']:g}, ratio {line['ratio']:.2f})"
        print(text)
    print(path)
    return path
