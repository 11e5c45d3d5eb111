"""This file is about telling, before a policy is in force, whether what it embeds with is there."""

from pathlib import Path

from epidote_gateway.cache.meaning.sentence_meaning import load_embedder
from epidote_gateway.cache.policy import CachePolicy, EmbedderSpec, InvalidPolicy


def check_embedder(policy: CachePolicy, file: Path) -> None:
    """Load the model and projection that the policy in `file` names; none named is no mistake.

    Raises:
        InvalidPolicy: starts with the file and the field's path.
    """
    spec, usual = policy.embedder, EmbedderSpec()
    if (spec.model, spec.projection) == (usual.model, usual.projection):
        return
    try:
        load_embedder(spec)
    except InvalidPolicy as error:
        raise InvalidPolicy(f"{file}: {error}") from error
