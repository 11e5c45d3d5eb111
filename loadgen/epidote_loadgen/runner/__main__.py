"""This file is about starting a child: `python -m epidote_loadgen.runner DESCRIPTOR`."""

import sys
from multiprocessing.connection import Connection

from epidote_loadgen.runner.child import main

if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
