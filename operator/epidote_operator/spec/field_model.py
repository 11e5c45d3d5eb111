"""This file is about what all fields of the custom resources have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

GROUP = "serving.epidote.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

MAX_WORKERS = 1024  # the status lists every switch; beyond that, shard the service
DAY_SECONDS = 86_400

# A DNS label: names of objects, containers and keys of list-maps.
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
# Names of objects that may hold dots (Secrets, ConfigMaps, our own kinds).
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]
# [HOST[:PORT]/]NAME[:TAG][@DIGEST]; what of it a registry has, only the registry knows.
ImageName = Annotated[
    str,
    Field(
        pattern=r"^(([a-zA-Z0-9.-]+|\[[a-fA-F0-9:]+\])(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*"
        r"(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(@[a-z0-9]+:[a-fA-F0-9]{32,})?$",
        max_length=512,
    ),
]
WorkerCount = Annotated[int, Field(ge=0, le=MAX_WORKERS)]
Percent = Annotated[int, Field(ge=0, le=100)]


class SpecModel(BaseModel):
    """Frozen, camelCase outside and snake_case inside; unknown fields are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class StatusModel(SpecModel):
    """As above, but what an older or newer operator wrote may hold fields unknown to this one."""

    model_config = ConfigDict(extra="ignore", strict=False)


def cel_rules(*rules: tuple[str, str, str | None]) -> ConfigDict:
    """Model settings with what a structural schema can't say: (rule, message, field path).

    The rules are CEL, evaluated by the API server (Kubernetes 1.25 and later); `parsing`
    says the same for the operator, and to older servers through the webhook.
    """
    found: list[JsonValue] = [
        {"rule": rule, "message": message, **({"fieldPath": path} if path else {})}
        for rule, message, path in rules
    ]
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": found})


def list_map(*keys: str) -> dict[str, JsonValue]:
    """A list whose entries are told apart by `keys`: server-side apply merges entry by entry."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


LIST_SET: dict[str, JsonValue] = {"x-kubernetes-list-type": "set"}
