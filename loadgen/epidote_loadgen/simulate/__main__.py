"""Runs the simulator: `python -m epidote_loadgen.simulate --help`."""

import sys

from epidote_loadgen.simulate.cli import main

if __name__ == "__main__":
    sys.exit(main())
