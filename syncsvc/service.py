"""The configuration of the service: what all organizations of a process share."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictStr, field_validator

from syncsvc.settings import Duration, Secret, Settings, State, url_of_state

_LEAST_LEASE = timedelta(seconds=2)
_PORTS = 65536


def _long_enough(value: timedelta) -> timedelta:
    if value < _LEAST_LEASE:
        raise ValueError('is too short: a busy machine would lose it; write "2s" or more')
    return value


Lease = Annotated[Duration, AfterValidator(_long_enough)]


class ServiceConfig(Settings):
    """The `[service]` table: what the whole process shares."""

    state: State = Field(
        default="sqlite:///syncsvc.db",
        description="where the state is: sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE; "
        "a URL with a password in it is a secret",
    )
    listen: StrictStr = Field(
        default="127.0.0.1:9464",
        description="where the status page, /metrics, /healthz and /readyz are served; empty turns it off",
    )
    page_token: Secret | None = Field(
        default=None,
        examples=[{"file": "/run/secrets/page"}],
        description="what the status page is shown for; without it there is no page where `listen` is no "
        "loopback address. /metrics, /healthz and /readyz are for everybody who reaches them",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="form of the log lines on standard error; auto is console on a terminal, else json",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="the least that is logged; debug is safe, it shows record ids and no person",
    )
    ca_file: StrictStr = Field(
        default="",
        examples=["/etc/ssl/corporate.pem"],
        description="a PEM file of more certificate authorities to trust, beside the usual ones",
    )

    lease: Lease = Field(
        default=timedelta(seconds=30),
        description="of several replicas on one PostgreSQL: how long organizations stay with one that is not "
        "heard of; each is heard of three times as often",
    )

    @property
    def state_url(self) -> str:
        """The URL of the state; raises ConfigurationError where the secret that holds it cannot be read."""
        return url_of_state(self.state)

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and not (host and port.isascii() and port.isdigit() and int(port) < _PORTS):
            raise ValueError('is not an address; write "HOST:PORT", or "" to turn it off')
        return value
