"""This file is about which replica of an expert takes a token, in plain torch."""

import torch
from torch import Tensor


def replica_slots(experts: Tensor, table: Tensor) -> Tensor:
    """A slot for every pair; see `ops.replica_slots`."""
    rows = torch.arange(experts.shape[0], device=experts.device).unsqueeze(1)
    chosen = experts.long()
    return table[chosen, 1 + rows % table[chosen, 0].long()]
