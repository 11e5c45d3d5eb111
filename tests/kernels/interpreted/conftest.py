"""These tests run kernels in Triton's interpreter, which a process must choose before importing it.

`tests/kernels/test_in_interpreter.py` runs them in a process of their own. By hand:

    TRITON_INTERPRET=1 EPIDOTE_KERNELS=triton pytest tests/kernels/interpreted

The interpreter of triton 3.6 has arrays for the bounds of loops, which numpy from 2.4 on does not
turn into integers: the two together can run no kernel that has a loop.
"""

import os

import pytest

if os.environ.get("TRITON_INTERPRET") != "1" or os.environ.get("EPIDOTE_KERNELS") != "triton":
    collect_ignore_glob = ["test_*.py"]
else:
    import numpy
    import torch
    import triton

    torch.set_num_threads(1)
    if (
        triton.__version__.startswith("3.6.")
        and numpy.lib.NumpyVersion(numpy.__version__) >= "2.4.0"
    ):
        raise pytest.UsageError(
            f"triton {triton.__version__}'s interpreter needs numpy < 2.4, or triton >= 3.7: "
            f"found numpy {numpy.__version__}"
        )
