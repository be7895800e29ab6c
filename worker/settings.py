"""All settings of a worker, read once in the command and passed in: environment `SWITCHBOARD_*`, flags of the same
names.

Every default stands here and nowhere else. A relation that correctness rests on is checked here, not trusted.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from interfaces.allowed_hosts import parse_allowed
from interfaces.attachment_store import check_url
from interfaces.data_model import MAX_DEPTH
from interfaces.encryption import Keys
from interfaces.errors import SettingsInvalid
from interfaces.limits import MAX_BODY_BYTES, Limits
from interfaces.topology import DEFAULT_MAX_LENGTH, DEFAULT_PREFETCH, MAX_PREFETCH, MAX_SHARDS, Topology
from worker.secret_files import SUFFIX, file_of
from worker.server_settings import ENV_PREFIX
from worker.stores import Durability
from worker.stores.context_cache import CACHE_BYTES
from worker.telemetry_settings import TelemetrySettings

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""Redis takes values of 512 MiB; one that is loaded with every turn of a dialog should be far from that."""

_LIMITS = Limits()


class Settings(TelemetrySettings):
    """Settings of a Switchboard process."""

    shards: int = Field(
        default=8, ge=1, le=MAX_SHARDS, description="Request queues to begin with; `topology reshard` changes them."
    )
    max_length: int = Field(
        default=DEFAULT_MAX_LENGTH, ge=1, description="Requests a shard holds before publishers are refused."
    )
    prefetch: int = Field(
        default=DEFAULT_PREFETCH,
        ge=1,
        le=MAX_PREFETCH,
        description="Unacknowledged requests per shard at most, to begin with; `topology reshard` changes it. A "
        "context that has more waiting holds up the others.",
    )
    in_flight_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024 * 1024,
        description="Bytes of unacknowledged requests per process at most, 2 KiB for each included.",
    )
    batch_size: int = Field(default=64, ge=1, le=10_000, description="Requests taken per poll at most.")
    concurrency: int = Field(default=256, ge=1, le=10_000, description="Runs of the bot at a time at most.")
    history: int = Field(default=10, ge=1, le=1000, description="Turns loaded with a context; older ones on demand.")
    context_cache_bytes: int = Field(
        default=CACHE_BYTES,
        ge=0,
        description="Bytes of contexts, as stored, that a process keeps in memory for their next turns; 0: none.",
    )
    max_turns: int | None = Field(default=None, ge=1, description="Turns kept per context; all where not set.")
    outbox: int = Field(default=128, ge=1, le=100_000, description="Replies kept per context, for repeated requests.")
    context_ttl: int = Field(
        default=30 * 24 * 3600, ge=1, description="Seconds without a turn after which a context is forgotten."
    )
    attempts: int = Field(
        default=3, ge=1, le=100, description="Times a failing turn is run before it is a dead letter."
    )
    turn_timeout: float = Field(
        default=300.0, gt=0, lt=1500, description="Seconds one run of a turn may take before it counts as failed."
    )
    retry_for: float = Field(
        default=600.0,
        ge=0,
        lt=1500,
        description="Seconds after its first failure in which a turn may be run again, however often the bot asks.",
    )
    left_behind: int = Field(
        default=10, ge=1, le=1000, description="Overdue runs that do not end, at which the process ends instead."
    )
    retry_wait: float = Field(default=0.2, ge=0, le=60, description="Seconds before a failed turn runs again, growing.")
    crash_limit: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Starts of a turn that never finished before it is a dead letter, all but the first two alone in "
        "the process (the first one, where it is 2). 1: what a crash has interrupted is never run again.",
    )
    drain_timeout: float = Field(default=20.0, ge=0, description="Seconds that running turns have to finish on stop.")
    publish_timeout: float = Field(default=10.0, gt=0, description="Seconds to wait for the broker's confirm.")
    redis_timeout: float = Field(default=5.0, gt=0, description="Seconds to wait for an answer of Redis.")
    durability: Durability = Field(
        default=Durability.PRIMARY,
        description="What must have a turn before it is acknowledged: primary, replica, disk or replica-disk.",
    )
    replicas: int = Field(default=1, ge=1, le=100, description="Replicas that durability replica(-disk) waits for.")
    watch_every: float = Field(default=5.0, gt=0, description="Seconds between checks that the broker sees a consumer.")
    watch_lost_after: float = Field(
        default=60.0,
        gt=0,
        description="Seconds without a consumer, though RabbitMQ answers, after which the process ends.",
    )
    attachments_url: str = Field(
        default="memory://",
        description="Where bytes of attachments are: file:///directory, s3://bucket/prefix, gs://bucket/prefix, "
        "az://container/prefix, or memory:// inside this process. Credentials come from the store's own "
        "variables.",
    )
    attachments_max_bytes: int = Field(
        default=20 * 1024 * 1024, ge=1, le=1024**3, description="Bytes one attachment may have."
    )
    attachments_ttl: int = Field(
        default=7 * 24 * 3600,
        ge=60,
        description="Seconds after which an attachment that nobody sent again is deleted: no less than requests, "
        "replies and dead letters may wait.",
    )
    attachments_directory: Path = Field(
        default=Path(tempfile.gettempdir()) / f"switchboard-attachments-{os.getuid()}",
        description="Directory of this machine's cache of attachments; processes may share it.",
    )
    attachments_cache_bytes: int = Field(
        default=256 * 1024 * 1024, ge=0, description="Bytes the cache of attachments may have."
    )
    fetch_from: str = Field(
        default="",
        description="Hosts that attachments given as URLs may be fetched from, separated by commas: example.org, "
        "*.example.org for all below it, example.org:8443, http://example.org without TLS. None where empty. Addresses "
        "that are not on the public internet are never asked.",
    )
    fetch_timeout: float = Field(
        default=30.0, gt=0, le=600, description="Seconds that fetching one such attachment may take."
    )
    encryption_keys: SecretStr = Field(
        default=SecretStr(""),
        description="Keys that bodies and contexts are encrypted under: id:base64 of 64 bytes, separated by commas; "
        "the first writes, all read. `plain` among them accepts what is not encrypted.",
    )
    rate: int | None = Field(
        default=None, ge=1, le=100_000, description="Turns a context may have in a minute; any number where not set."
    )
    max_body_bytes: int = Field(
        default=_LIMITS.body_bytes, ge=1024, le=MAX_BODY_BYTES, description="Bytes of a request."
    )
    max_depth: int = Field(default=_LIMITS.depth, ge=3, le=MAX_DEPTH, description="Levels of JSON in a request.")
    max_nodes: int = Field(
        default=_LIMITS.nodes, ge=10, le=MAX_BODY_BYTES, description="Values in a request's JSON, at all levels."
    )
    max_attachments: int = Field(
        default=_LIMITS.attachments, ge=0, le=MAX_BODY_BYTES, description="Attachments of a message, with its groups'."
    )
    max_text: int = Field(default=_LIMITS.text, ge=0, le=MAX_BODY_BYTES, description="Characters of a message's text.")
    max_reply_bytes: int = Field(
        default=_LIMITS.reply_bytes, ge=1024, le=MAX_BODY_BYTES, description="Bytes of a reply, misc included."
    )
    max_misc_bytes: int = Field(
        default=_LIMITS.misc_bytes, ge=2, le=MAX_RECORD_BYTES, description="Bytes of misc as a bot leaves it."
    )
    max_context_bytes: int = Field(
        default=_LIMITS.context_bytes,
        ge=1024,
        le=MAX_RECORD_BYTES,
        description="Bytes stored for a context beside its turns.",
    )
    max_turn_bytes: int = Field(
        default=_LIMITS.turn_bytes, ge=1024, le=MAX_RECORD_BYTES, description="Bytes stored for one turn."
    )
    processes: int = Field(default=1, ge=1, le=MAX_SHARDS, description="Worker processes that `switchboard run` keeps.")

    @field_validator("attachments_url")
    @classmethod
    def _attachment_store(cls, value: str) -> str:
        check_url(value)
        return value

    @field_validator("encryption_keys")
    @classmethod
    def _encryption_keys(cls, value: SecretStr) -> SecretStr:
        Keys.parse(value.get_secret_value())
        return value

    @field_validator("fetch_from")
    @classmethod
    def _fetch_from(cls, value: str) -> str:
        parse_allowed(value)
        return value

    @model_validator(mode="after")
    def _durability_needs_redis(self) -> "Settings":
        if self.durability is not Durability.PRIMARY and self.redis_url.get_secret_value().startswith("memory:"):
            raise ValueError(f"durability {self.durability.value} needs Redis: memory:// keeps nothing")
        return self

    @property
    def keys(self) -> Keys | None:
        """The keys to encrypt by, read anew; `None` where there are none."""
        return Keys.parse(self.encryption_keys.get_secret_value())

    @property
    def topology(self) -> Topology:
        """What is declared on the broker."""
        return Topology(
            namespace=self.namespace, shards=self.shards, max_length=self.max_length, prefetch=self.prefetch
        )

    def unfollowed(self, used: Topology) -> list[tuple[str, str]]:
        """What was set and the namespace has otherwise, each with the command that changes it on the live system."""
        found = []
        if "shards" in self.model_fields_set and self.shards != used.shards:
            told = f"SWITCHBOARD_SHARDS is {self.shards}, and namespace {used.namespace!r} has {used.shards} shards"
            found.append((told, f"switchboard topology reshard --shards {self.shards}"))
        if "prefetch" in self.model_fields_set and self.prefetch != used.prefetch:
            told = (
                f"SWITCHBOARD_PREFETCH is {self.prefetch}, and namespace {used.namespace!r} has a prefetch of "
                f"{used.prefetch}"
            )
            found.append((told, f"switchboard topology reshard --shards {used.shards} --prefetch {self.prefetch}"))
        return found

    @property
    def limits(self) -> Limits:
        """How much a request, its reply and its context may be."""
        return Limits(
            body_bytes=self.max_body_bytes,
            depth=self.max_depth,
            nodes=self.max_nodes,
            attachments=self.max_attachments,
            text=self.max_text,
            reply_bytes=self.max_reply_bytes,
            misc_bytes=self.max_misc_bytes,
            context_bytes=self.max_context_bytes,
            turn_bytes=self.max_turn_bytes,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What was set, as environment variables for another process beside those that there are.

        Passwords stand in it as they are, except those in files, which the other process reads itself.
        """
        values = {name: getattr(self, name) for name in self.model_fields_set if file_of(ENV_PREFIX, name) is None}
        return {
            ENV_PREFIX + name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in values.items()
            if value is not None
        }


def load_settings(**flags: Any) -> Settings:
    """Settings from the environment, `flags` that are not `None` before it. Raises `SettingsInvalid`, all faults at
    once."""
    for name, value in flags.items():
        if value is not None and file_of(ENV_PREFIX, name) is not None:
            variable = f"{ENV_PREFIX}{name.upper()}{SUFFIX}"
            raise SettingsInvalid(f"{variable} is set, and a flag says otherwise: unset it, or leave out the flag")
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = [
            f"  {_name(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsInvalid("settings are wrong:\n" + "\n".join(faults)) from None


def _name(location: tuple[int | str, ...]) -> str:
    return ENV_PREFIX + str(location[0]).upper() if location else "combination"
