"""This file is about choosing tokens from logits in plain torch, with sorting.

Sources: top-p, Holtzman et al., ICLR 2020; min-p, Nguyen et al., 2024; SplitMix64's finaliser,
Steele, Lea and Flood, OOPSLA 2014.
"""

import torch
from torch import Tensor

_STEP, _FIRST, _SECOND = (  # as signed integers of 64 bits: products wrap alike
    number - 2**64 for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def sample_tokens(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    choices: Tensor,
    positions: Tensor,
) -> Tensor:
    """One token for each row; see `ops.sample_tokens`."""
    wide = logits.float()
    if not wide.numel():
        return torch.zeros(len(wide), dtype=torch.int64, device=wide.device)
    best = wide.max(-1)
    scaled = wide / temperature.clamp(min=1e-6)[:, None]
    scaled = scaled.masked_fill(scaled < _floors(scaled, top_k, top_p, min_p), -torch.inf)
    highest = scaled.amax(-1, keepdim=True)
    cumulative = (scaled - highest).exp().double().cumsum(-1)
    total = cumulative[:, -1:]
    targets = uniforms(seeds, choices, positions)[:, None] * total
    targets = torch.minimum(targets, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, targets, right=True).squeeze(1)
    is_greedy = temperature == 0
    is_sound = torch.where(is_greedy, best.values, highest.squeeze(1)).isfinite()
    return torch.where(is_sound, torch.where(is_greedy, best.indices, drawn), -1)


def _floors(scaled: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """The least value that stays, [N, 1]: tokens of equal value stay or go together."""
    k, p = top_k.long()[:, None], top_p[:, None]
    best = scaled.sort(-1, descending=True).values
    last = (k - 1).clamp(0, best.shape[1] - 1)
    floor = torch.where(k > 0, best.gather(1, last), -torch.inf)
    kept = best.masked_fill(best < floor, -torch.inf).softmax(-1)
    nucleus = best.masked_fill(kept.cumsum(-1) - kept >= p, torch.inf).amin(-1, keepdim=True)
    nucleus = torch.minimum(nucleus, best[:, :1])  # the best stays, however small p is
    floor = torch.where(p < 1, torch.maximum(floor, nucleus), floor)
    return torch.maximum(floor, best[:, :1] + min_p.log()[:, None])


def uniforms(seeds: Tensor, choices: Tensor, positions: Tensor) -> Tensor:
    """A number in [0, 1) for each (seed, choice, position), fp64: all arguments int64 [N]."""
    state = _mixed(seeds + _STEP)
    state = _mixed(state ^ ((choices + 1) * _STEP))
    state = _mixed(state + (positions + 1) * _STEP)
    return _shifted(state, 11).double() * 2.0**-53


def _mixed(state: Tensor) -> Tensor:
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """A right shift that brings in zeros, not the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def apply_penalties(
    logits: Tensor,
    rows: Tensor,
    slots: Tensor,
    counts: Tensor,
    in_prompt: Tensor,
    repetition: Tensor,
    frequency: Tensor,
    presence: Tensor,
) -> None:
    """Penalise what was said before; see `ops.apply_penalties`."""
    some, said = logits[rows], counts[slots]
    factor = repetition[:, None]
    seen = (said > 0) | in_prompt[slots]
    some = torch.where(seen, torch.where(some > 0, some / factor, some * factor), some)
    some = some - said * frequency[:, None] - (said > 0) * presence[:, None]
    logits.index_copy_(0, rows, some)
