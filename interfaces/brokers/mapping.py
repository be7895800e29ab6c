"""The one place where aio-pika's and aiormq's errors become Switchboard's.

Everything the client library raises for a broken connection is `BrokerUnavailable`: wait and try again. What trying
again cannot mend (credentials, permissions, other arguments) is `BrokerRefused`. The cause is always kept.
"""

import re
from types import TracebackType

from aiormq import exceptions as amqp
from pamqp.exceptions import PAMQPException

from interfaces.errors import (
    BrokerFailed,
    BrokerRefused,
    BrokerUnavailable,
    PublishNacked,
    QueueStranded,
    QueueTaken,
    SwitchboardError,
    Unroutable,
)
from interfaces.foreign import StrayCancellationError, stray_cancellations_caught
from interfaces.tls import handshake_fault

CONNECTION_LOST: tuple[type[Exception], ...] = (
    amqp.AMQPError,
    PAMQPException,
    OSError,
    EOFError,
    StopAsyncIteration,  # aiormq: the end of the stream, in the middle of a handshake
    RuntimeError,  # aiormq: "Connection was not opened", a writer that is already closed
)


class amqp_errors:  # noqa: N801 - used as a statement, and no generator: every publish is in one
    """Run client library calls; raise their errors as ours, with `doing % names` ("publishing to ...") in the text."""

    __slots__ = ("_doing", "_names", "_strays")

    def __init__(self, doing: str, *names: object) -> None:
        self._doing, self._names = doing, names
        # aiormq cancels the tasks that wait on a connection it closes.
        self._strays = stray_cancellations_caught()

    def __enter__(self) -> None:
        self._strays.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._strays.__exit__(kind, error, trace)
        except StrayCancellationError as stray:
            raise BrokerUnavailable(f"{self._text()}: the connection was closed") from stray
        if error is None or isinstance(error, SwitchboardError):
            return
        if isinstance(error, StrayCancellationError):
            raise BrokerUnavailable(f"{self._text()}: the connection was closed") from error
        # aiormq rejects the futures of a connection closed without a reason with the bare class `Exception`.
        if isinstance(error, CONNECTION_LOST) or type(error) is Exception:
            raise mapped(error, self._text()) from error

    def _text(self) -> str:
        return self._doing % self._names if self._names else self._doing


def mapped(error: Exception, doing: str) -> SwitchboardError:
    """The Switchboard error for a client library error."""
    text = describe(error)
    if isinstance(error, amqp.PublishError):
        return Unroutable(f"{doing}: no queue is bound for it")
    if isinstance(error, amqp.DeliveryError):
        return PublishNacked(f"{doing}: the broker refused it (queue full, or too few of its replicas are up)")
    if (fault := handshake_fault(error)) is not None:
        return BrokerRefused(f"{doing}: {fault}")
    if isinstance(error, amqp.AuthenticationError):
        offered = f"this way to log in (auth in the URL) is not offered, but {error.args[0]}"
        return BrokerRefused(f"{doing}: {offered}. EXTERNAL needs the plugin rabbitmq_auth_mechanism_ssl")
    if isinstance(error, amqp.ProbableAuthenticationError):
        return BrokerRefused(f"{doing}: wrong user name or password ({text})")
    if isinstance(error, amqp.ConnectionNotAllowed) or (isinstance(error, amqp.InvalidFrameError) and "OpenOk" in text):
        return BrokerRefused(f"{doing}: the virtual host in the URL does not exist, or this user may not enter it")
    if isinstance(error, amqp.ChannelAccessRefused):
        return BrokerRefused(f"{doing}: a permission is missing: {text}{_grant(text)}")
    if isinstance(error, amqp.ChannelPreconditionFailed):
        return BrokerRefused(f"{doing}: it exists with other properties: {text}")
    if isinstance(error, amqp.ConnectionInternalError):
        return BrokerFailed(f"{doing}: {text}")
    if isinstance(error, amqp.ChannelLockedResource):
        return QueueTaken(f"{doing}: somebody else is at it, and only one may be at a time")
    if is_stranded(error):
        return QueueStranded(f"{doing}: {text}")
    return BrokerUnavailable(f"{doing}: {text}")


def is_stranded(error: Exception) -> bool:
    """Whether a queue that is "not found" exists, on a node that is down."""
    return isinstance(error, amqp.ChannelNotFoundEntity) and "home node" in describe(error)


def describe(error: BaseException) -> str:
    """An error as one line of text, its class where it says nothing itself."""
    if isinstance(error, TimeoutError) and not error.args:
        return "no answer in time"
    return " ".join(str(part) for part in error.args if part) or type(error).__name__


def _grant(text: str) -> str:
    """How to mend it, from the broker's own words: "access to queue 'q' in vhost '/' refused for user 'u'"."""
    found = re.search(r"in vhost '(.*?)' refused for user '(.*?)'", text)
    if found is None:
        return ""
    vhost, user = found.groups()
    return f". Mend: rabbitmqctl set_permissions -p {vhost} {user} CONFIGURE WRITE READ (three regular expressions)"
