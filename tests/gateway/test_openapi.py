"""The OpenAPI document says what the gateway does: schemathesis holds the two together."""

from random import Random
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from epidote_core.roles import Role
from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.settings import GatewaySettings


class Steady(FakeBackend):
    """A fleet that stays as it is, whatever is ordered: later requests need all its roles."""

    async def set_roles(self, roles: Any) -> Any:
        return []


load_all_checks()
APP = create_app(
    Steady.of({Role.ENCODE: 1, Role.PREFILL: 1, Role.DECODE: 1}, tokens_per_chunk=64),
    FakeRenderer(max_model_len=256),
    GatewaySettings(default_max_tokens=8),
    rng=Random(1),
)
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)


@SCHEMA.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_request_breaks_the_document(case: Any) -> None:
    case.call_and_validate(
        checks=[
            schemathesis.checks.not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ]
    )


def test_every_route_is_documented() -> None:
    document = APP.openapi()
    served = {
        (method.lower(), route.path.replace(":path}", "}"))
        for route in APP.routes
        for method in getattr(route, "methods", None) or ()
        if not route.path.startswith(("/docs", "/openapi"))
    }
    described = {(m, path) for path, methods in document["paths"].items() for m in methods}
    assert {(m, p) for m, p in served if m != "head"} == described


@pytest.mark.parametrize(
    ("schema", "field", "wanted"),
    [
        ("ChatRequest", "temperature", {"type": "number", "minimum": 0, "maximum": 2}),
        ("ChatRequest", "n", {"type": "integer", "minimum": 1, "maximum": 128}),
    ],
)
def test_limits_are_in_the_document(schema: str, field: str, wanted: dict[str, Any]) -> None:
    found = APP.openapi()["components"]["schemas"][schema]["properties"][field]
    assert wanted in found["anyOf"]
