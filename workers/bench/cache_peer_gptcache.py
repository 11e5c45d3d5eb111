"""This file is about GPTCache given our vectors: which entry does it serve for each question.

Runs in an environment of its own (`pip install gptcache==0.1.44 faiss-cpu "numpy<2.3"`), started by
`cache_clinc.py`. Reads a .npz with `cached` and `asked` [n, dimensions]; prints JSON: per question
the place of the entry served, or -1, and what it measured. Its own similarity thresholds are
the arguments after the file. It writes its database into the working directory.
"""

import json
import sys
import time

import numpy as np
from gptcache import Cache, Config
from gptcache.adapter.api import get, put
from gptcache.manager import CacheBase, VectorBase, get_data_manager
from gptcache.processor.pre import get_prompt
from gptcache.similarity_evaluation.distance import SearchDistanceEvaluation


def main(path: str, thresholds: list[float]) -> None:
    with np.load(path) as file:
        cached, asked = file["cached"], file["asked"]
    vectors = {f"c{place}": row for place, row in enumerate(cached)}
    vectors |= {f"q{place}": row for place, row in enumerate(asked)}
    cache = Cache()
    cache.init(
        pre_embedding_func=get_prompt,
        embedding_func=lambda text, **_: vectors[text],
        data_manager=get_data_manager(
            CacheBase("sqlite", sql_url="sqlite:///cache.db"),
            VectorBase("faiss", dimension=cached.shape[1], index_path="vectors.faiss"),
            max_size=len(cached) + 1,
        ),
        similarity_evaluation=SearchDistanceEvaluation(),
        config=Config(similarity_threshold=thresholds[0]),
    )
    begun = time.perf_counter()
    for place in range(len(cached)):
        put(f"c{place}", str(place), cache_obj=cache)
    put_s = (time.perf_counter() - begun) / len(cached)
    served = {}
    for threshold in thresholds:
        cache.config.similarity_threshold = threshold
        begun = time.perf_counter()
        found = [get(f"q{place}", cache_obj=cache) for place in range(len(asked))]
        get_s = (time.perf_counter() - begun) / len(asked)
        served[str(threshold)] = [-1 if answer is None else int(answer) for answer in found]
    print(json.dumps({"served": served, "put_ms": put_s * 1e3, "get_ms": get_s * 1e3}))


if __name__ == "__main__":
    main(sys.argv[1], [float(text) for text in sys.argv[2:]])
