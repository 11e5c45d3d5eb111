"""This package is about a worker whose model is cut over several processes: tensor parallelism.

The worker's own process is rank 0 and leads: its clients, its peers and the register see it alone.
It starts one process for each further rank (one GPU each; on a CPU, gloo) and ends with the first
of them that is lost; they end with it, however it ends.

    leader                                     follower
    start processes, wait for "here"   ◄────   import torch
    the order                           ────►  join the group
    engine: reads its slices           ◄───►   engine: reads its slices
    pools of every rank, mapped        ◄───►   its pools
    calls, steps                        ────►  the same calls, the same steps
"""
