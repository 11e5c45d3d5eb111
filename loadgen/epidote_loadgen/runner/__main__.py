"""This file is about starting a child: `python -m epidote_loadgen.runner DESCRIPTOR`."""

import os
import sys
from multiprocessing.connection import Connection

from epidote_loadgen.runner.child import main

if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
    # All is told and flushed. An ordinary exit would wait for a thread that still makes a payload.
    os._exit(0)
