"""This file is about comparing an engine's answers with another implementation's, for tests."""

from collections.abc import Callable, Sequence

from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine
from epidote_engine.in_process import serve


def tokens_of(
    engine: Engine, prompts: Sequence[Sequence[int]], num_tokens: int = 12
) -> list[list[int]]:
    """What the prompts, served together, are answered: greedy and drawn by turns."""
    requests = [
        GenerateRequest(
            request_id=f"{n}",
            prompt_token_ids=tuple(prompt),
            sampling=SamplingParams(
                max_tokens=num_tokens, temperature=0.9 * (n % 2), seed=n, ignore_eos=True
            ),
        )
        for n, prompt in enumerate(prompts)
    ]
    answers = serve(engine, requests)
    return [answers[f"{n}", 0].token_ids for n in range(len(requests))]


def check_greedy(
    tokens: Sequence[int],
    expected: Callable[[Sequence[int]], Sequence[int]],
    is_tied: Callable[[Sequence[int], int], bool],
) -> None:
    """`tokens` are what the other generates; after a tie, what it goes on with from ours.

    expected  the rest of the answer that the other generates after these first tokens
    is_tied   whether the other can't tell this token from its best one after these

    Raises:
        AssertionError: saying where they part.
        ValueError: the other's answer is shorter or longer.
    """
    at = 0
    while at < len(tokens):
        ours, wanted = list(tokens[at:]), list(expected(tokens[:at]))
        pairs = enumerate(zip(ours, wanted, strict=True))
        same = next((i for i, (our, their) in pairs if our != their), None)
        if same is None:
            return
        told = f"output {at + same}: {ours} for {wanted} after {list(tokens[:at])}"
        at += same
        assert is_tied(tokens[:at], tokens[at]), told
        at += 1
