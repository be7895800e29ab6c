"""The settings that say where the servers are, and how they are spoken to: the first part of `worker.settings`."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from interfaces.brokers.nodes import node_urls, require_one_broker, split_url
from interfaces.tls import with_options
from worker.secret_files import SecretFiles
from worker.stores.address import CLUSTER, SENTINEL, parse_address

ENV_PREFIX = "SWITCHBOARD_"
NAMESPACE_PATTERN = r"^[A-Za-z0-9_-]{1,40}$"
"""Letters that mean nothing to AMQP topic keys, Redis hash tags, shells or regular expressions."""


class ServerSettings(BaseSettings):
    """What every command that reaches a server needs."""

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
    def _key_has_a_certificate(self) -> "ServerSettings":
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key needs tls_cert, the certificate that the key belongs to")
        return self

    @model_validator(mode="after")
    def _tls_is_used(self) -> "ServerSettings":
        urls = [url.get_secret_value() for url in (self.amqp_url, self.redis_url)]
        is_idle = not any(url.startswith(("amqps:", "rediss")) for url in urls)
        if (self.tls_ca or self.tls_cert) and is_idle and any(not url.startswith("memory:") for url in urls):
            raise ValueError(
                "tls_ca and tls_cert are for encrypted connections: write amqps:// and rediss:// in the URLs"
            )
        return self

    @property
    def is_embedded(self) -> bool:
        """Whether nothing leaves this process and nothing is kept."""
        return urlsplit(self.amqp_url.get_secret_value()).scheme == "memory"


def _tls_files(info: ValidationInfo, ca: str, certificate: str, key: str) -> list[dict[str, str]]:
    """The settings' files under a client library's names, what belongs together in one group."""
    own = {certificate: "tls_cert", key: "tls_key"} if info.data.get("tls_cert") else {}
    groups = [{ca: "tls_ca"}, own]
    return [{option: str(file) for option, name in group.items() if (file := info.data.get(name))} for group in groups]


def _with_scheme(value: SecretStr, schemes: tuple[str, ...], others: tuple[str, ...] = ()) -> SecretStr:
    parts = split_url(value.get_secret_value())
    if parts.scheme not in schemes:
        raise ValueError("the URL must begin with " + " or ".join(f"{scheme}://" for scheme in schemes + others))
    return value
