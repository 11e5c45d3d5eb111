"""This file is about an engine's experts: what they have computed, and where they stand."""

from typing import TYPE_CHECKING

from epidote_core.errors import InvalidRequest
from epidote_core.expert_placement import Placement
from epidote_engine.engine_media import EngineMedia
from epidote_engine.models.decoder import DecoderConfig
from epidote_engine.settings import EngineConfig

if TYPE_CHECKING:
    from epidote_engine.config import ModelSpec
    from epidote_engine.parallel.expert_places import ExpertPlaces
    from epidote_engine.parallel.shards import Shards


class EngineExperts(EngineMedia):
    """The part of `Engine` that knows experts; `Engine` makes what it works with."""

    @property
    def expert_places(self) -> "ExpertPlaces | None":
        """For who keeps the ranks in step (`parallel.following`)."""
        return self._parts.expert_places

    def expert_tokens(self) -> tuple[tuple[int, ...], ...] | None:
        """Tokens that each expert of each layer with experts has computed: [layer][expert].

        Since the language model was loaded. None: not counted (`count_expert_tokens`), no experts,
        or a role without a language model. Waits for the device: ask every few seconds, not every
        step. With tensor parallelism every rank counts the same.
        """
        runner = self._parts.runner
        counts = None if runner is None else runner.model.expert_tokens
        return None if counts is None else tuple(map(tuple, counts.tolist()))

    def expert_placement(self) -> Placement | None:
        """In force now, the same on every rank; None without expert parallelism."""
        places = self._parts.expert_places
        return None if places is None else places.placement

    def place_experts(self, placement: Placement) -> None:
        """Start to move experts while requests run; a second call replaces the target.

        It is done when `expert_placement` equals it: steps do the rest, a few experts each, and
        `has_work` is true until then. A move whose weights can't be read ends early, with a log
        entry. With several ranks call `LeadingEngine.place_experts`.

        Raises:
            InvalidRequest: no expert parallelism, or not a placement of this model's experts.
        """
        if (places := self._parts.expert_places) is None:
            raise InvalidRequest(
                "placement: this engine holds no whole experts (expert_parallel)", "placement"
            )
        places.place(placement)

    def _moves_experts(self) -> bool:
        places = self._parts.expert_places
        return places is not None and places.is_moving


def own_decoder(spec: "ModelSpec", config: EngineConfig, shards: "Shards | None") -> DecoderConfig:
    """The language model's configuration, of this rank's part if it is cut.

    Raises:
        InvalidRequest: it can't be cut so.
    """
    if shards is not None:
        return shards.own(
            spec.decoder, config.num_redundant_experts if config.expert_parallel else None
        )
    if config.expert_parallel:
        raise InvalidRequest(
            "expert_parallel: needs tensor parallelism over at least 2 ranks", "expert_parallel"
        )
    return spec.decoder
