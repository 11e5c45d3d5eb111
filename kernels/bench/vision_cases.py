"""This file is about the vision tower on one device: its chains as they are, and compiled.

The same weights and pictures in turns, so that the ratio does not depend on the minute.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from bench_models import save_vision_model
from device_limits import wait
from engine_cases import REAL, TOY, engine_of, picture

from epidote_core.roles import Role
from epidote_engine.processing import PromptProcessor
from epidote_engine.vision.encoder import VisionEncoder


def compiled_tower(folder: Path, device: str, *, toy: bool) -> dict[str, Any]:
    """Seconds to encode four pictures, plain and compiled, what compiling took, and the rows'
    relative difference."""
    scale, rounds = (TOY, 2) if toy else (REAL, 10)
    path = save_vision_model(folder / "tower", toy=toy, num_layers=1)
    engine = engine_of(path, device, role=Role.ENCODE, num_kv_blocks=64, num_media_rows=8192,
                       warm_up=False)  # fmt: skip
    plain = engine._parts.encoder
    vision = engine._parts._vision
    assert plain is not None
    assert vision is not None
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    start_s = time.perf_counter()
    compiled = VisionEncoder(engine._spec, vision.load(), dtype, device, compiles=True)
    wait(device)
    compile_s = time.perf_counter() - start_s
    processor = PromptProcessor.from_model(path)
    media = [picture(processor, scale.picture, seed) for seed in range(4)]
    towers = {"plain": plain, "compiled": compiled}
    times: dict[str, list[float]] = {name: [] for name in towers}
    rows: dict[str, torch.Tensor] = {}
    for _ in range(rounds):
        for name, tower in towers.items():
            start_s = time.perf_counter()
            rows[name] = torch.cat(tower.encode(media))
            wait(device)
            times[name].append(time.perf_counter() - start_s)
    taken = {name: statistics.median(found[1:]) for name, found in times.items()}
    wanted = rows["plain"].double()
    difference = torch.linalg.vector_norm(rows["compiled"].double() - wanted)
    return {
        "patches": sum(medium.grid_thw[1] * medium.grid_thw[2] for medium in media),
        "encode_s": taken,
        "plain_over_compiled": taken["plain"] / taken["compiled"],
        "compile_s": compile_s,
        "is_compiled": compiled.is_compiled,
        "relative_difference": float(difference / torch.linalg.vector_norm(wanted)),
    }
