"""The settings of what a worker tells of itself: probes, metrics, logs, traces. A part of `worker.settings`."""

from enum import StrEnum
from pathlib import Path

from pydantic import Field, field_validator

from worker.server_settings import ServerSettings


class LogFormat(StrEnum):
    """How a line of the log is written."""

    PEOPLE = "people"
    """Time, level, part, message, then what turn it belongs to."""
    JSON = "json"
    """One object a line."""


class TelemetrySettings(ServerSettings):
    """What every long-running command needs beside its servers."""

    health_address: str | None = Field(
        default=None,
        description="host:port where /metrics, /healthz and /readyz are answered; nowhere where not set.",
    )
    health_file: Path | None = Field(
        default=None,
        description="File that is touched while the event loop turns, for probes: `switchboard health` looks at it.",
    )
    log_format: LogFormat = Field(
        default=LogFormat.PEOPLE, description="How the log is written: people, or json with one object a line."
    )
    log_hash_ids: bool = Field(default=False, description="Write a hash of context ids into the log, not the ids.")
    traces: bool = Field(
        default=False,
        description="Send OpenTelemetry traces by OTLP; where to and how many, its own OTEL_* variables say.",
    )

    @field_validator("health_address")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6 address]:port`. Raises `ValueError`."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("it must be host:port, as 0.0.0.0:9464 or [::]:9464")
    return host.removeprefix("[").removesuffix("]"), int(port)
