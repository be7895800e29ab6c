"""RabbitMQ's management API, for what AMQP does not show. Read only: nothing here has a method but GET.

It is asked as the user of the AMQP URL, who needs the tag `management`. Called by the doctor alone, and only where its
operator names a URL: the plugin is not needed for anything else.
"""

import asyncio
import base64
import json
import ssl
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

import httpcore

from interfaces.brokers.nodes import node_urls
from interfaces.errors import BrokerRefused, BrokerUnavailable
from interfaces.tls import client_context
from worker.settings import Settings

SECONDS: Final = 10.0

_HTTP_ERRORS: Final = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol)


class Management:
    """The API at `url` (`http://host:15672`, or https), and in it the virtual host of the settings."""

    def __init__(self, url: str, settings: Settings) -> None:
        amqp = urlsplit(node_urls(settings.amqp_url.get_secret_value())[0])
        self.url = url.rstrip("/")
        self.vhost = unquote(amqp.path[1:]) or "/"
        login = f"{unquote(amqp.username or 'guest')}:{unquote(amqp.password or 'guest')}"
        self._headers = [
            ("Authorization", "Basic " + base64.b64encode(login.encode()).decode()),
            ("Accept", "application/json"),
            ("User-Agent", "switchboard"),
        ]
        self._files = [str(file) if file else None for file in (settings.tls_ca, settings.tls_cert, settings.tls_key)]

    async def get(self, what: str, *path: str, **query: str | int) -> Any:
        """`/api/WHAT/VHOST/PATH`, parsed. Raises `BrokerUnavailable`, or `BrokerRefused` for all but 200."""
        parts = "/".join(quote(part, safe="") for part in (what, self.vhost, *path))
        target = f"{self.url}/api/{parts}" + (f"?{urlencode(query)}" if query else "")
        try:
            tls = await asyncio.to_thread(self._tls) if target.startswith("https:") else None
            async with asyncio.timeout(SECONDS), httpcore.AsyncConnectionPool(ssl_context=tls) as pool:
                response = await pool.request("GET", target, headers=self._headers)
        except (*_HTTP_ERRORS, OSError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise BrokerUnavailable(f"RabbitMQ's management API at {self.url} does not answer: {reason}") from error
        if response.status != 200:
            raise BrokerRefused(
                f"RabbitMQ's management API at {self.url} answers {response.status} to GET /api/{parts}"
            )
        try:
            return json.loads(response.content)
        except ValueError as error:
            raise BrokerRefused(f"what answers at {self.url} is not RabbitMQ's management API") from error

    def _tls(self) -> ssl.SSLContext:
        return client_context(*self._files)
