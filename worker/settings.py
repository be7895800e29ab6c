"""All settings of a worker, read once in the command and passed in: environment `SWITCHBOARD_*`, flags of the same
names.

Every default stands here and nowhere else. A relation that correctness rests on is checked here, not trusted.
"""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from interfaces.attachment_store import check_url
from interfaces.brokers.nodes import node_urls, require_one_broker, split_url
from interfaces.errors import SettingsInvalid
from interfaces.tls import with_options
from interfaces.topology import DEFAULT_MAX_LENGTH, MAX_SHARDS, Topology
from worker.secret_files import SUFFIX, SecretFiles, file_of
from worker.stores import Durability
from worker.stores.address import CLUSTER, SENTINEL, parse_address

ENV_PREFIX = "SWITCHBOARD_"
NAMESPACE_PATTERN = r"^[A-Za-z0-9_-]{1,40}$"
"""Letters that mean nothing to AMQP topic keys, Redis hash tags, shells or regular expressions."""


class Settings(BaseSettings):
    """Settings of a Switchboard process."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    # Before the URLs, whose validators add these to them: so all that connects by a URL has them.
    tls_ca: FilePath | None = Field(
        default=None,
        description="File with the certificates of the authorities by which amqps:// and rediss:// servers are "
        "verified; the system's where not set.",
    )
    tls_cert: FilePath | None = Field(
        default=None, description="File with this side's certificate, where a server asks for one. Its CN may log in."
    )
    tls_key: FilePath | None = Field(default=None, description="File with the key of that certificate.")
    amqp_url: SecretStr = Field(
        default=SecretStr("memory://"),
        description="RabbitMQ: amqp://user:password@host:5672/vhost, amqps://..., or memory:// inside this process. "
        "Nodes of a cluster as whole URLs, separated by commas.",
    )
    redis_url: SecretStr = Field(
        default=SecretStr("memory://"),
        description="Redis: redis://:password@host:6379/0, redis+sentinel://:password@host1:26379,host2:26379/primary, "
        "redis+cluster://:password@host1:6379,host2:6379, the same with rediss, or memory:// inside this process.",
    )
    namespace: Annotated[str, Field(pattern=NAMESPACE_PATTERN)] = Field(
        default="switchboard", description="Prefix of every exchange, queue and key."
    )
    shards: int = Field(
        default=8, ge=1, le=MAX_SHARDS, description="Request queues to begin with; `topology reshard` changes them."
    )
    max_length: int = Field(
        default=DEFAULT_MAX_LENGTH, ge=1, description="Requests a shard holds before publishers are refused."
    )
    prefetch: int = Field(default=64, ge=1, le=1000, description="Unacknowledged requests per shard at most.")
    batch_size: int = Field(default=64, ge=1, le=10_000, description="Requests taken per poll at most.")
    concurrency: int = Field(default=256, ge=1, le=10_000, description="Turns that run at a time at most.")
    history: int = Field(default=10, ge=1, le=1000, description="Turns loaded with a context; older ones on demand.")
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
        description="Starts of a turn that never finished before it is a dead letter, all but the first one alone in "
        "the process. 1: what a crash has interrupted is never run again.",
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
        default=60.0, gt=0, description="Seconds without a consumer, though connected, after which the process ends."
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
    processes: int = Field(default=1, ge=1, le=MAX_SHARDS, description="Worker processes that `switchboard run` keeps.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then files that the environment names."""
        return init_settings, env_settings, SecretFiles(settings_cls)

    @field_validator("amqp_url")
    @classmethod
    def _amqp_nodes(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        nodes = node_urls(value.get_secret_value())
        for node in nodes:
            _with_scheme(SecretStr(node), ("amqp", "amqps", "memory"))
        files = _tls_files(info, "cafile", "certfile", "keyfile")
        nodes = [with_options(node, *files) if node.startswith("amqps:") else node for node in nodes]
        require_one_broker(nodes)
        return SecretStr(",".join(nodes))

    @field_validator("attachments_url")
    @classmethod
    def _attachment_store(cls, value: str) -> str:
        check_url(value)
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_address(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        url = value.get_secret_value()
        if url.startswith("rediss"):
            url = with_options(url, *_tls_files(info, "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
        if "+" not in url.partition("://")[0]:
            _with_scheme(value, ("redis", "rediss", "unix", "memory"), (*SENTINEL, *CLUSTER))
        if not url.startswith("memory:"):
            parse_address(url)
        return SecretStr(url)

    @model_validator(mode="after")
    def _outbox_covers_prefetch(self) -> "Settings":
        if self.outbox < self.prefetch:
            raise ValueError(
                f"outbox ({self.outbox}) must be at least prefetch ({self.prefetch}): a worker that takes over "
                "must find the replies to everything its predecessor held"
            )
        return self

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> "Settings":
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key needs tls_cert, the certificate that the key belongs to")
        return self

    @model_validator(mode="after")
    def _tls_is_used(self) -> "Settings":
        urls = [url.get_secret_value() for url in (self.amqp_url, self.redis_url)]
        is_idle = not any(url.startswith(("amqps:", "rediss")) for url in urls)
        if (self.tls_ca or self.tls_cert) and is_idle and any(not url.startswith("memory:") for url in urls):
            raise ValueError(
                "tls_ca and tls_cert are for encrypted connections: write amqps:// and rediss:// in the URLs"
            )
        return self

    @model_validator(mode="after")
    def _durability_needs_redis(self) -> "Settings":
        if self.durability is not Durability.PRIMARY and self.redis_url.get_secret_value().startswith("memory:"):
            raise ValueError(f"durability {self.durability.value} needs Redis: memory:// keeps nothing")
        return self

    @property
    def topology(self) -> Topology:
        """What is declared on the broker."""
        return Topology(namespace=self.namespace, shards=self.shards, max_length=self.max_length)

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

    @property
    def is_embedded(self) -> bool:
        """Whether nothing leaves this process and nothing is kept."""
        return urlsplit(self.amqp_url.get_secret_value()).scheme == "memory"


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


def _tls_files(info: ValidationInfo, ca: str, certificate: str, key: str) -> list[dict[str, str]]:
    """The settings' files under a client library's names, what belongs together in one group."""
    own = {certificate: "tls_cert", key: "tls_key"} if info.data.get("tls_cert") else {}
    groups = [{ca: "tls_ca"}, own]
    return [{option: str(file) for option, name in group.items() if (file := info.data.get(name))} for group in groups]


def _name(location: tuple[int | str, ...]) -> str:
    return ENV_PREFIX + str(location[0]).upper() if location else "combination"


def _with_scheme(value: SecretStr, schemes: tuple[str, ...], others: tuple[str, ...] = ()) -> SecretStr:
    parts = split_url(value.get_secret_value())
    if parts.scheme not in schemes:
        raise ValueError("the URL must begin with " + " or ".join(f"{scheme}://" for scheme in schemes + others))
    return value
