"""``python -m experiments.hunt 1e5 [SEED]``: a hunt, and its table."""

from __future__ import annotations

import sys
import time

from experiments.engine import available_workers
from experiments.hunt.printing import lines
from experiments.hunt.run import hunt


def main() -> int:
    runs, seed = int(float(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    began = time.monotonic()
    report = hunt(runs, seed, workers=available_workers())
    print("\n".join(lines(report)))
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
