"""This file is about the sections on the target and on the client's limits."""

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from epidote_loadgen.config.invalid import InvalidConfig
from epidote_loadgen.config.section import NUMBER, Count, Positive, Section
from epidote_loadgen.plan import CapPolicy, Limits, Target

KEY_VARIABLE = "EPIDOTE_LOADGEN_API_KEY"  # need not be set; another one that is named must
URL_SCHEMES = ("http://", "https://", "unix://")


class TargetSection(Section):
    url: str
    model: str = ""  # "": the first that the server lists
    api_key_env: str = KEY_VARIABLE  # its name; the key itself never stands in a file
    ca_file: Path | None = None
    verify_tls: bool = True
    proxy_url: str = ""
    headers: dict[str, str] = Field(default_factory=dict)
    # Which header tells the server the tenant; "": none.
    tenant_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]*$")] = ""

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if not url.startswith(URL_SCHEMES):
            raise ValueError(f"must begin with {', '.join(URL_SCHEMES)}")
        return _checked_port(url)

    @field_validator("proxy_url")
    @classmethod
    def _known_port(cls, url: str) -> str:
        return _checked_port(url)

    def build(self, base: Path) -> Target:
        """The target; paths are relative to `base`.

        Raises:
            InvalidConfig: the variable of the key is not set.
        """
        key = ""
        if self.api_key_env:
            key = os.environ.get(self.api_key_env, "")
            if not key and self.api_key_env != KEY_VARIABLE:
                raise InvalidConfig(
                    f"target.api_key_env: the environment variable {self.api_key_env} is not set"
                )
        return Target(
            url=self.url,
            api_key=key,
            ca_file=str(base / self.ca_file) if self.ca_file else "",
            verify_tls=self.verify_tls,
            proxy_url=self.proxy_url,
            headers=tuple(self.headers.items()),
        )


def _checked_port(url: str) -> str:
    """Raises ValueError, without the rest of the URL: a secret may stand in it."""
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        raise ValueError(f"want a port from 0 to 65535 or none: {error}") from None
    return url


class LimitsSection(Section):
    """Defaults are those of `plan.Limits`."""

    max_in_flight: Count | None = None
    on_cap: CapPolicy = CapPolicy.WAIT
    max_connections: Count | None = None
    request_timeout_s: Positive = 300.0
    connect_timeout_s: Positive = 10.0
    run_timeout_s: Positive | None = None
    drain_s: Positive = 300.0
    max_lateness_s: Positive = 0.05
    realtime: bool = False
    # None: as many as the rate needs.
    processes: Annotated[int, Field(ge=1, le=256), NUMBER] | None = None

    def build(self) -> Limits:
        return Limits(**self.model_dump(exclude={"processes"}))
