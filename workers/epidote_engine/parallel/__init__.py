"""This package is about one language model on several devices: tensor parallelism.

Every rank has an engine of its own and the whole scheduler; weights, heads and KV are cut. Ranks
that are given the same calls in the same order decide the same, so only calls travel between them.
Source: Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053), sections 3 and 5.
"""
