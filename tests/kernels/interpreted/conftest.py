"""These tests run kernels in Triton's interpreter, which a process must choose before importing it.

`tests/kernels/test_in_interpreter.py` runs them in a process of their own. By hand:

    TRITON_INTERPRET=1 EPIDOTE_KERNELS=triton pytest tests/kernels/interpreted
"""

import os

if os.environ.get("TRITON_INTERPRET") != "1" or os.environ.get("EPIDOTE_KERNELS") != "triton":
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    torch.set_num_threads(1)
