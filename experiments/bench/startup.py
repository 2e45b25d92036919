"""What a program pays before its first result: importing fpsim beside importing Numba, and a cached kernel's load."""

from __future__ import annotations

import statistics
import subprocess
import sys

from experiments.bench.measure import Job, Row, Settings, WrongResult

IMPORT_TARGET = 1.3  # times Numba's
FIRST_CALL_TARGET = 400.0  # ms
_TIMED = "import time; a = time.perf_counter(); {what}; print(1e3 * (time.perf_counter() - a))"
_FIRST_CALL = (
    "import time, numpy, fpsim; x = numpy.linspace(-1, 1, 1000); a = time.perf_counter(); "
    "fpsim.round(x, 'bfloat16'); print(1e3 * (time.perf_counter() - a))"
)


def jobs(settings: Settings) -> list[Job]:
    return [Job("import and first call", _run)]


def _run(settings: Settings) -> list[Row]:
    code = {
        "numba": _TIMED.format(what="import numba"),
        "fpsim": _TIMED.format(what="import fpsim"),
        "first call": _FIRST_CALL,
    }
    samples: dict[str, list[float]] = {name: [] for name in code}
    for turn in range(min(settings.repeats, 5) + 1):
        for name, text in code.items():
            found = _seconds(text)
            if turn:  # the first one fills caches: compiled Python, machine code, the file system's
                samples[name].append(found)
    numba, ours, first = (statistics.median(samples[name]) for name in code)
    return [
        Row("startup", "import numba", 1, numba, "ms", "import numba", 1.0),
        Row("startup", "import fpsim", 1, ours, "ms", "import numba", ours / numba, IMPORT_TARGET),
        Row("startup", "first call of a cached kernel", 1, first, "ms", target=FIRST_CALL_TARGET, target_is_value=True),
    ]


def _seconds(code: str) -> float:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongResult(f"a fresh interpreter failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout)
