"""``python -m experiments.cli``, the same as ``fpsim``."""

import sys

from experiments.cli import main

if __name__ == "__main__":
    sys.exit(main())
