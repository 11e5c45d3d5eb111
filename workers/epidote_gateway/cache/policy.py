"""This file is about what the owner of a response cache may ask for: the policy, field by field.

It is the `spec` of the custom resource CachePolicy and the file of `epidote serve --cache-policy`.
Importing it needs pydantic and nothing of the gateway: the operator makes the CRD from it.
"""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from epidote_core.errors import EpidoteError

DEFAULT_CATEGORY = "default"  # where the classifier abstains
MAX_CATEGORIES = 256  # each is a label value of a dozen metrics
MAX_EXEMPLARS = 1024

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Similarity = Annotated[float, Field(ge=-1.0, le=1.0)]


class InvalidPolicy(EpidoteError, ValueError):
    """A cache policy that can't be honoured; the message starts with the path of the field."""


class Spec(BaseModel):
    """Strict, frozen, camelCase outside and snake_case inside; unknown fields are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class Precision(StrEnum):
    """How one component of a stored embedding is kept."""

    FLOAT32 = "Float32"  # 4 bytes
    FLOAT16 = "Float16"  # 2 bytes; cosines move by less than 0.001
    INT8 = "Int8"  # 1 byte; cosines move by about 0.005: calibrate the thresholds with it


class FollowUps(StrEnum):
    """Which earlier turns a question inside a conversation may share with a cached one."""

    OFF = "Off"  # only first questions are compared by meaning
    SAME_TURNS = "SameTurns"  # the earlier turns must be equal, letter by letter
    SAME_LINEAGE = "SameLineage"  # or have been answered by the same cached entries


class Personalized(StrEnum):
    """What to do with requests that name an end user (OpenAI's `user` field)."""

    BYPASS = "Bypass"  # never cached
    PER_USER = "PerUser"  # cached, and served to the same user only
    SHARED = "Shared"  # the field is ignored: it only helps to find abuse


class EmbedderSpec(Spec):
    """The sentence model that questions are compared with."""

    model: str = Field(default="all-MiniLM-L6-v2", min_length=1)
    """Name of a built-in model, or a directory with `model.onnx` and `tokenizer.json`."""
    projection: str = ""
    """File of a linear projection (PCA) that `epidote cache calibrate` wrote; empty: none."""
    precision: Precision = Precision.FLOAT32
    """How vectors are kept in memory and in the store."""
    max_tokens: int = Field(default=256, ge=8, le=8192)
    """Tokens of a question that are read. Longer questions are never compared by meaning."""


class GuardsSpec(Spec):
    """Checks on the neighbour that was found; each one that fires makes the request a miss."""

    enabled: bool = True
    """Switch all of them. A sentence model alone takes France for Germany: leave them on."""
    numbers: bool = True
    """Numbers must be the same, however they are written."""
    dates: bool = True
    """Dates, times and relative days must be the same."""
    units: bool = True
    """Units and currencies must be the same."""
    negation: bool = True
    """Negation and polarity (enable and disable) must be the same."""
    quantifiers: bool = True
    """Quantifiers, comparatives and scope (all, only, at least) must be the same."""
    entities: bool = True
    """Names, and every other word that says something, must be the same; so must persons."""
    language: bool = True
    """Language and script must be the same."""
    code: bool = True
    """Identifiers, paths, versions and quoted text must be the same."""
    second_check: bool = False
    """Ask a second check before serving a semantic hit; the served model, unless the gateway was
    given another one. Costs a short generation a hit."""


class Guard(StrEnum):
    """The guards that compare two questions' words."""

    NUMBERS = "numbers"
    DATES = "dates"
    UNITS = "units"
    NEGATION = "negation"
    QUANTIFIERS = "quantifiers"
    ENTITIES = "entities"
    LANGUAGE = "language"
    CODE = "code"


class Doubtful(StrEnum):
    """What becomes of a question whose category can't be told for sure."""

    BYPASS = "Bypass"  # neither looked up nor kept, where some category is disabled or volatile
    DEFAULT = "Default"  # of the category `default`


class ClassifierSpec(Spec):
    """When a question belongs to no category but `default`."""

    min_similarity: Similarity = 0.30
    """Cosine to the nearest category below which the classifier abstains."""
    min_margin: float = Field(default=0.02, ge=0.0, le=2.0)
    """Lead over the second category, in cosine, below which it abstains."""
    doubtful: Doubtful = Doubtful.BYPASS
    """Questions that the classifier abstains on, or in a language that a disabled or volatile
    category has no exemplars in. `Bypass`: as long as some category is disabled or volatile, they
    are not cached, since they may be of it; a request may name the category of its question, and
    exemplars of `default` tell what is harmless. `Default`: they are cached in `default`."""


class RequestsSpec(Spec):
    """Which requests may be answered from the cache at all."""

    max_temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Requests sampled hotter miss: who asks for variety wants no copy. 0: greedy ones only."""
    tools: bool = False
    """Cache requests that offer tools (compared exactly, never by meaning)."""
    personalized: Personalized = Personalized.BYPASS
    """Requests that carry the field `user`."""
    truncated: bool = False
    """Cache answers cut off by their token limit, for requests with the very same limit."""
    follow_ups: FollowUps = FollowUps.SAME_LINEAGE
    """How earlier turns are compared."""
    controls: bool = True
    """Honour `Cache-Control` (no-cache, no-store, max-age) and the field `cache` of a request."""
    named_category: bool = True
    """Let a request name its category by header or field, in place of the classifier."""


class TenantsSpec(Spec):
    """Who shares answers with whom."""

    isolated: bool = True
    """A tenant is served its own answers only. Off: answers cross tenants; never for private data.
    """
    opted_out: tuple[str, ...] = Field(default=(), max_length=4096)
    """Tenants whose requests are neither answered from the cache nor kept in it."""


class LimitsSpec(Spec):
    """Bounds of one gateway's cache; the least valuable entries make room."""

    max_entries: int = Field(default=100_000, ge=1, le=100_000_000)
    """Entries in all categories together."""
    max_bytes: int = Field(default=512 << 20, ge=1 << 10)
    """Bytes of answers, questions and vectors together."""


class PressureSpec(Spec):
    """When the planner's pressure signal, 0 to 1, relaxes thresholds and lifetimes."""

    enter: float = Field(default=0.1, gt=0.0, le=1.0)
    """Pressure from which the cache relaxes, once it lasted `holdSeconds`."""
    leave: Ratio = 0.02
    """Pressure down to which it relaxes on; it stops once this lasted `releaseSeconds`."""
    hold_seconds: float = Field(default=30.0, ge=0.0, le=86_400.0)
    """How long pressure must last: a threshold must not follow every spike."""
    release_seconds: float = Field(default=300.0, ge=0.0, le=86_400.0)
    """How long it must be gone. Longer than `holdSeconds`: relaxing takes the very pressure away
    that caused it, and letting go soon would bring it back."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.leave > self.enter:
            raise ValueError(f"leave: must be at most enter ({self.enter:g}), got {self.leave:g}")
        return self


class FeedbackSpec(Spec):
    """What a report that a hit was wrong does, besides evicting the entry."""

    tighten_step: float = Field(default=0.01, ge=0.0, le=0.5)
    """Added to the category's threshold at each report, for the tenant that reports (for all, if an
    administrator does), in every gateway on the store, until the policy changes that threshold."""
    max_tightening: float = Field(default=0.10, ge=0.0, le=1.0)
    """Most that reports may add."""


class LoadAdaptation(Spec):
    """How far a category may relax while the fleet is overloaded."""

    threshold_step: float = Field(default=0.0, ge=0.0, le=0.5)
    """Taken off the threshold at full pressure; in proportion below."""
    threshold_floor: Similarity = 1.0
    """The threshold never falls below this one, or stays as it is if it is lower already."""
    ttl_stretch: float = Field(default=0.0, ge=0.0, le=100.0)
    """Share of `ttlSeconds` that entries may live longer at full pressure: 1 doubles it."""
    max_ttl_seconds: float = Field(default=0.0, ge=0.0)
    """No entry is served older than this by stretching; 0: no stretching."""


class CategorySpec(Spec):
    """One kind of question and how its answers are cached."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$")
    """Lower-case letters, digits, `-` and `_`. `default` is where the classifier abstains."""
    enabled: bool = True
    """Off: conversations with a question of this category are neither looked up nor kept (personal
    data), whatever category a request names, nor texts whose category can't be told."""
    guards: tuple[Guard, ...] = tuple(Guard)
    """Those of `guards` that apply in this category; by default all. Where a whole intent has one
    answer, `[numbers, dates, units, negation, language, code]` lets other words differ; `[]` leaves
    everything to the threshold: calibrate it."""
    semantic: bool = True
    """Off: only the very same question hits."""
    threshold: Similarity = 0.92
    """Least cosine of a semantic hit; let `epidote cache calibrate` choose it."""
    ttl_seconds: float = Field(default=3600.0, gt=0.0, le=10 * 365 * 86_400.0)
    """How long an answer may be served."""
    quota_ratio: Ratio = 1.0
    """Share of entries and bytes that the category is entitled to; over it, it is evicted first."""
    priority: float = Field(default=1.0, gt=0.0, le=1000.0)
    """Worth of a saved second in this category, against others."""
    volatile: bool = False
    """The truth changes by the minute (prices, news): load adaptation is forbidden, and what may be
    of this category is cached in no other one (see `classifier.doubtful`)."""
    load_adaptation: LoadAdaptation = LoadAdaptation()
    """How far threshold and lifetime may relax under pressure; by default not at all."""
    max_entry_bytes: int = Field(default=1 << 20, ge=1)
    """Longer answers are not kept."""
    replay_tokens_per_second: float = Field(default=0.0, ge=0.0)
    """Speed at which a hit is streamed; 0: all at once."""
    exemplars: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), max_length=MAX_EXEMPLARS
    )
    """Questions that are typical of the category; the classifier compares with their mean."""
    break_even_hit_ratio: Ratio = 0.0
    """Hit ratio below which a look-up costs more than hits save; `calibrate` computes it."""
    explore_ratio: Ratio = 0.02
    """Share of requests still looked up and kept while the hit ratio is below break-even."""

    @property
    def longest_s(self) -> float:
        """The longest that an answer may ever be served."""
        return max(self.ttl_seconds, self.load_adaptation.max_ttl_seconds)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        relaxes = self.load_adaptation.threshold_step or self.load_adaptation.ttl_stretch
        if self.volatile and relaxes:
            raise ValueError(
                "loadAdaptation: must be left out where volatile is true; old answers to changing"
                " facts are wrong however busy the fleet is"
            )
        if self.load_adaptation.ttl_stretch and not self.load_adaptation.max_ttl_seconds:
            raise ValueError("loadAdaptation.maxTtlSeconds: must be given with ttlStretch")
        return self


class CachePolicy(Spec):
    """The response cache of a service."""

    enabled: bool = True
    """Off: every request goes to the fleet; entries stay for when it is on again."""
    epoch: str = Field(default="", max_length=128)
    """Entries made under another epoch are never served. Change it when the truth has changed."""
    model_revision: str = Field(default="", max_length=256)
    """Revision of the model's weights, part of every key. Change it with the weights."""
    embedder: EmbedderSpec = EmbedderSpec()
    """How questions become vectors."""
    classifier: ClassifierSpec = ClassifierSpec()
    """How questions find their category."""
    guards: GuardsSpec = GuardsSpec()
    """What must agree besides the cosine."""
    requests: RequestsSpec = RequestsSpec()
    """Which requests take part."""
    tenants: TenantsSpec = TenantsSpec()
    """Who shares answers."""
    limits: LimitsSpec = LimitsSpec()
    """How much is kept."""
    pressure: PressureSpec = PressureSpec()
    """When load relaxes the policy."""
    feedback: FeedbackSpec = FeedbackSpec()
    """What reports of wrong hits do."""
    categories: tuple[CategorySpec, ...] = Field(default=(), max_length=MAX_CATEGORIES)
    """By name. Without one named `default`, that category has every field's default."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        seen: set[str] = set()
        for number, category in enumerate(self.categories):
            if category.name in seen:
                raise ValueError(
                    f"categories[{number}].name: must be unique, got {category.name!r} twice"
                )
            seen.add(category.name)
        return self

    def category(self, name: str) -> CategorySpec:
        """The category of that name, else `default`."""
        return self._by_name().get(name) or self._by_name().get(DEFAULT_CATEGORY) or _DEFAULT

    @property
    def has_forbidden(self) -> bool:
        """Whether the classifier can find a category that is disabled."""
        named = any(not c.enabled and c.exemplars for c in self.categories)
        return named or not self.category(DEFAULT_CATEGORY).enabled

    @property
    def sensitive(self) -> tuple[CategorySpec, ...]:
        """Categories that no question may be taken for another one's of."""
        default = DEFAULT_CATEGORY
        return tuple(
            c for c in self.categories if not c.enabled or (c.volatile and c.name != default)
        )

    @property
    def must_classify(self) -> bool:
        """Whether a request's category must be told before it may be looked up or kept."""
        careful = self.classifier.doubtful is Doubtful.BYPASS
        return self.has_forbidden or (careful and bool(self.sensitive))

    @property
    def kept_out(self) -> str:
        """Names what conversations are judged for: the disabled categories. "": there are none."""
        disabled = [(c.name, c.exemplars) for c in self.categories if not c.enabled]
        return blake2b(repr(disabled).encode(), digest_size=8).hexdigest() if disabled else ""

    def unfindable(self) -> list[str]:
        """What to tell the owner: disabled or volatile categories that no question can be of."""
        named = self.requests.named_category
        return [
            f"categories[{number}].exemplars: {c.name} is"
            f" {'volatile' if c.enabled else 'disabled'} and has none: the classifier never finds"
            f" it, {'only requests that name it are of it' if named else 'and none may name it'}"
            for number, c in enumerate(self.categories)
            if c in self.sensitive and not c.exemplars
        ]

    def knows(self, name: str) -> bool:
        """Whether a request may name this category."""
        return name == DEFAULT_CATEGORY or name in self._by_name()

    def _by_name(self) -> Mapping[str, CategorySpec]:
        return {category.name: category for category in self.categories}


_DEFAULT = CategorySpec(name=DEFAULT_CATEGORY)


def parse_policy(spec: Mapping[str, Any], *, path: str = "spec") -> CachePolicy:
    """The policy that `spec` describes, its names in camelCase.

    Raises:
        InvalidPolicy: `spec.categories[1].ttlSeconds: must be …, got …`, all of them, a line each.

    >>> parse_policy({"categories": [{"name": "faq", "ttlSeconds": 60}]}).category("faq").threshold
    0.92
    >>> parse_policy({"categories": [{"name": "faq", "ttlSeconds": -5}]})
    Traceback (most recent call last):
    epidote_gateway.cache.policy.InvalidPolicy: spec.categories[0].ttlSeconds: Input should be \
greater than 0, got -5
    """
    try:
        return CachePolicy.model_validate(spec)
    except ValidationError as error:
        lines = [_line(path, item) for item in error.errors(include_url=False)]
        raise InvalidPolicy("\n".join(lines)) from error


def _line(path: str, error: Any) -> str:
    """One of pydantic's findings in our words: path, what was wanted, what was found."""
    for step in error["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    message: str = error["msg"]
    if error["type"] == "value_error":  # ours: it starts with the rest of the path
        return f"{path}.{message.removeprefix('Value error, ')}"
    if error["type"] == "extra_forbidden":
        return f"{path}: no such field"
    if error["type"] == "missing":
        return f"{path}: this field is required"
    return f"{path}: {message}, got {error['input']!r:.80}"
