"""This file is about which workers are alike: the hash of everything a worker is made from."""

import hashlib
import json
from typing import Any

from epidote_operator.resources.fleet_values import Defaults
from epidote_operator.spec.changes import rolling_values
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec

DIGITS = 8  # 4 billion revisions; it is part of names that have 63 characters


def revision_of(spec: MultimodalServiceSpec, defaults: Defaults, keys: str = "") -> str:
    """The revision of the fleet that `spec` asks for. Equal specs have equal revisions.

    The operator's default image counts: a new release of the operator rolls the fleet, the way a
    change of the spec does. So do `keys`, the generation of the fleet's own, where it isn't the
    first: pods with other keys can't be in one fleet.
    """
    made_from = {**rolling_values(spec), "image": spec.image or defaults.image}
    return digest({**made_from, "keys": keys} if keys else made_from)


def digest(value: Any) -> str:
    """A short name for a JSON value.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
