"""This file is about how the next token is chosen: the sampling parameters of one request."""

from dataclasses import dataclass
from math import isfinite

from epidote_core.errors import InvalidRequest

# Below these the sampler's float32 runs out of range: a penalty of 1e-40 makes logits infinite, a
# top-p of 1e-46 is 0 and keeps no token. What is left means the same to any vocabulary.
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 0.01, 10.0
MIN_TOP_P = 1e-9


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Sampling parameters, with OpenAI's names and vLLM's for what OpenAI lacks.

    `temperature == 0` is greedy: top-k, top-p and min-p then have no effect.
    `top_k == 0` keeps the whole vocabulary. `seed` is always set by whoever creates the request
    (the gateway draws one where the client gave none), because the random number of output
    position i of choice c is a function of (seed, c, i) alone: a request that continues on another
    worker samples the same tokens.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None  # number of alternatives per token; 0: only the chosen token's
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that no sampler can honour.

        Raises:
            InvalidRequest: the first bad field, what was wanted and what was found.
        """
        checks = (
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", 0.0 <= self.temperature <= 2.0, "between 0 and 2"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", MIN_TOP_P <= self.top_p <= 1.0, f"between {MIN_TOP_P:g} and 1"),
            ("min_p", 0.0 <= self.min_p <= 1.0, "between 0 and 1"),
            ("presence_penalty", -2.0 <= self.presence_penalty <= 2.0, "between -2 and 2"),
            ("frequency_penalty", -2.0 <= self.frequency_penalty <= 2.0, "between -2 and 2"),
            (
                "repetition_penalty",
                MIN_REPETITION_PENALTY <= self.repetition_penalty <= MAX_REPETITION_PENALTY,
                f"between {MIN_REPETITION_PENALTY:g} and {MAX_REPETITION_PENALTY:g}",
            ),
            ("seed", -(2**63) <= self.seed < 2**63, "a 64-bit signed integer"),
            ("min_tokens", 0 <= self.min_tokens <= self.max_tokens, "between 0 and max_tokens"),
            ("logprobs", self.logprobs is None or 0 <= self.logprobs <= 20, "between 0 and 20"),
            ("logit_bias", all(isfinite(bias) for _, bias in self.logit_bias), "finite numbers"),
            ("stop", all(self.stop) and len(self.stop) <= 16, "at most 16 non-empty strings"),
        )
        for field, ok, wanted in checks:
            if not ok:
                raise InvalidRequest(
                    f"{field}: must be {wanted}, got {getattr(self, field)!r}", field
                )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0
