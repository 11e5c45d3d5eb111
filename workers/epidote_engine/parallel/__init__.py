"""This package is about one language model on several devices: tensor and expert parallelism.

Every rank has an engine of its own and the whole scheduler; weights, heads and KV are cut. Ranks
that are given the same calls in the same order decide the same, so only calls travel between them.
Experts are cut like everything else, or lie whole in slots that may change hands (`expert_places`).
Source: Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053), sections 3 and 5.
"""
