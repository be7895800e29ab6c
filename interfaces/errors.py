"""Every error Switchboard raises, one branch for each reaction a caller can have.

    SwitchboardError
    ├── Unavailable            wait and try again; nothing is the request's fault
    │   ├── BrokerUnavailable
    │   │   ├── PublishNacked
    │   │   ├── PublishTimeout
    │   │   ├── BrokerFailed
    │   │   ├── QueueStranded
    │   │   └── QueueTaken
    │   ├── StoreUnavailable
    │   ├── AttachmentStoreUnavailable
    │   └── EdgeUnavailable
    ├── Unroutable             the broker has no queue for what was published
    ├── HeadersTooLarge        the broker would close the connection over this message's properties
    ├── RequestRejected        this request goes to the dead letters, with its reason
    ├── TurnAbandoned          leave the request unacknowledged: somebody else owns it now
    ├── VersionConflict        the context moved between load and commit: load again
    ├── AskTimeout             no reply arrived within the time the caller gave
    ├── RequestFailed          the reply says that the request got no answer, and why
    ├── AttachmentError        this attachment cannot be had or kept, however often it is tried
    │   ├── AttachmentReferenceInvalid, AttachmentTooLarge, AttachmentCorrupt, AttachmentMissing
    │   └── AttachmentStoreNotShared, AttachmentUrlRefused
    ├── DecryptionFailed       under a key that is not here, changed, moved, or plain where that is refused
    ├── MisuseError            the calling code is wrong; the message says how to mend it
    └── Fatal                  end the process with `exit_code`
        ├── SettingsInvalid, AppInvalid, BrokerRefused, StoreRefused, ConsumerLost, BotStuck

Foreign errors (aio-pika, redis, obstore, pydantic) are mapped to these where they enter, and keep their cause.
"""

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """Exit codes of the `switchboard` command, for supervisors to act on."""

    OK = 0
    """Done; of a worker, stopped in order."""
    FAILED = 1
    """An error that has no code of its own."""
    USAGE = 2
    """Unknown flag or bad setting: do not restart, mend the configuration."""
    APP = 3
    """APP could not be loaded: do not restart, mend the code or its path."""
    BROKER = 4
    """RabbitMQ refuses what is needed (version, permission, topology), at the start or for long: mend it there."""
    STORE = 5
    """Redis refuses what is needed (version, permission), at the start or for long: mend it there."""
    CONSUMER_LOST = 6
    """Connected, yet without a consumer for longer than the bound: restart."""
    UNFINISHED = 7
    """Stopped with turns still running; their requests are delivered again."""
    NO_REPLY = 8
    """The reply asked for did not arrive in time."""
    STUCK = 9
    """Too much of the bot runs on for ever, or it blocks the event loop: restart."""


class Reason(StrEnum):
    """Why a request is a dead letter: the closed list behind `x-switchboard-reason` and a reply's `error.code`."""

    BODY_TOO_LARGE = "body-too-large"
    """The body has more bytes than a request may have."""
    BAD_CONTENT_TYPE = "bad-content-type"
    """The content type is another than `application/json`."""
    BAD_ENCODING = "bad-encoding"
    """The body is not UTF-8, or it is compressed."""
    BAD_JSON = "bad-json"
    """The body is not JSON."""
    TOO_DEEP = "too-deep"
    """The JSON is nested too deep."""
    TOO_MANY_VALUES = "too-many-values"
    """The JSON has too many values, at all levels."""
    TOO_MANY_ATTACHMENTS = "too-many-attachments"
    """The message has too many attachments, those of its groups included."""
    TEXT_TOO_LONG = "text-too-long"
    """The message's text has too many characters."""
    BAD_SHAPE = "bad-shape"
    """JSON, but not a request body of this version."""
    BAD_VERSION = "bad-version"
    """The body is of another version of the contract, or says none."""
    BAD_MESSAGE_ID = "bad-message-id"
    """The `message_id` is missing."""
    BAD_CONTEXT_ID = "bad-context-id"
    """The context id is empty or too long."""
    BAD_REPLY_TO = "bad-reply-to"
    """The reply would go to a queue that workers must not write into."""
    MISROUTED = "misrouted"
    """The routing key is not the slot of the context id, so order cannot be kept."""
    UNSAFE_PAYLOAD = "unsafe-payload"
    """Pickled fields, or an attachment that points at the worker's own disk."""
    NOT_DECRYPTED = "not-decrypted"
    """Encrypted under a key that is not here, changed on its way, or plain where that is refused."""
    RATE_LIMITED = "rate-limited"
    """Its context has had all the turns it may have for now."""
    HANDLER_FAILED = "handler-failed"
    """The bot raised in every attempt."""
    TURN_TIMEOUT = "turn-timeout"
    """The handler was overdue, in its last attempt at least."""
    REJECTED = "rejected"
    """The bot raised `Reject`: the detail is what it chose to tell."""
    REPLY_INVALID = "reply-invalid"
    """The handler's answer or the context it leaves cannot be written as JSON within the limits."""
    CONTEXT_INVALID = "context-invalid"
    """What the store holds for this context cannot be read."""
    CRASHES_WORKER = "crashes-worker"
    """Its turn was started as often as it may be, and the process died each time."""


class SwitchboardError(Exception):
    """Root of the tree."""


class Unavailable(SwitchboardError):
    """A server cannot be reached or does not answer now. Wait, then try the same again."""


class BrokerUnavailable(Unavailable):
    """RabbitMQ cannot be reached, or the outcome of a publish is unknown."""


class PublishNacked(BrokerUnavailable):
    """The broker refused to take a message now (queue full, or a queue leader is missing)."""


class PublishTimeout(BrokerUnavailable):
    """No confirm within the publish timeout. Publish again with the same `message_id`."""


class BrokerFailed(BrokerUnavailable):
    """The broker closed the connection over an error of its own, maybe over the very message that was published."""


class QueueStranded(BrokerUnavailable):
    """The one node of a cluster that holds this queue is down. What is in it waits there."""


class QueueTaken(BrokerUnavailable):
    """Somebody else consumes this queue, which only one may do at a time. Wait until they are done."""


class StoreUnavailable(Unavailable):
    """Redis cannot be reached, or the outcome of a script is unknown. Every script may be repeated."""


class EdgeUnavailable(Unavailable):
    """No edge of an interface answers, and only an edge has what is needed."""


class AttachmentStoreUnavailable(Unavailable):
    """The attachment store cannot be reached, or refuses what is asked of it until somebody mends its settings."""


class Unroutable(SwitchboardError):
    """The broker returned a mandatory message: nothing is bound for its exchange and routing key."""


class HeadersTooLarge(SwitchboardError):
    """Properties and headers do not fit the one frame that AMQP 0-9-1 has for them. Nothing was published."""


class RequestRejected(SwitchboardError):
    """This request cannot be processed: to the dead letters with its reason, and an error reply to the sender.

    `detail` is for the sender and says nothing about the inside of the bot; `internal`, where given, is for operators
    and stands in the dead letter instead. `attempts` counts how often the turn was run.
    """

    def __init__(self, reason: Reason, detail: str, *, internal: str | None = None, attempts: int = 0) -> None:
        super().__init__(f"{reason.value}: {internal or detail}")
        self.reason = reason
        self.detail = _encodable(detail)
        self.internal = None if internal is None else _encodable(internal)
        self.attempts = attempts


class TurnAbandoned(SwitchboardError):
    """The turn must not go on here: its request stays unacknowledged and is delivered again, maybe elsewhere."""


class TurnPostponed(SwitchboardError):
    """The bot was not begun with, as the queue is being handed over: its request comes again, in order, with all that
    follows it there."""


class VersionConflict(SwitchboardError):
    """Another writer committed to the context since it was loaded. Load again and decide anew."""


class AskTimeout(SwitchboardError):
    """No reply within the caller's time. The request itself may still be processed."""


class RequestFailed(SwitchboardError):
    """A worker answered with an error. `code` is a dead-letter reason; the request is among the dead letters."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class AttachmentError(SwitchboardError):
    """One attachment cannot be read or kept, and trying again would not help. Everything else goes on."""


class AttachmentReferenceInvalid(AttachmentError):
    """An attachment's id begins like a reference to stored bytes and is none."""


class AttachmentTooLarge(AttachmentError):
    """More bytes than one attachment may have here. Nothing was read or kept."""


class AttachmentCorrupt(AttachmentError):
    """What the store holds, or what a file held a moment ago, is not what was promised: truncated, or other bytes."""


class AttachmentMissing(AttachmentError):
    """There are no such bytes, or there are none any more: never stored here, expired, or no readable file."""


class AttachmentStoreNotShared(AttachmentError):
    """The attachment would be kept where nobody who is to read it can."""


class AttachmentUrlRefused(AttachmentError):
    """A URL, or where it redirects to, leads where attachments must not be fetched from."""


class DecryptionFailed(SwitchboardError):
    """It is encrypted under a key that is not here, was changed or moved, or is plain where that is refused."""


class MisuseError(SwitchboardError):
    """The API was called in a way that cannot work."""


class Fatal(SwitchboardError):
    """The process cannot do its work: end it with `exit_code`."""

    exit_code = ExitCode.FAILED


class SettingsInvalid(Fatal):
    """One or more settings are wrong; the text names each."""

    exit_code = ExitCode.USAGE


class AppInvalid(Fatal):
    """APP cannot be imported or is not something that can be run."""

    exit_code = ExitCode.APP


class BrokerRefused(Fatal):
    """RabbitMQ is too old, lacks a permission, or holds a topology with other arguments."""

    exit_code = ExitCode.BROKER


class StoreRefused(Fatal):
    """Redis is too old or lacks a permission."""

    exit_code = ExitCode.STORE


class ConsumerLost(Fatal):
    """The broker has shown no consumer for a shard for longer than the bound, whatever was tried."""

    exit_code = ExitCode.CONSUMER_LOST


class BotStuck(Fatal):
    """As many runs of the bot as may be are left behind, overdue and not ending: only a new process is rid of them."""

    exit_code = ExitCode.STUCK


def described(error: BaseException) -> str:
    """`repr(error)`, or only its type where its own `repr` fails: for logs and dead letters, never for a sender."""
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - the class is the bot's
        return f"{type(error).__name__} (its repr fails)"


def _encodable(text: str) -> str:
    # Lone surrogates, which a bot's texts may have, can travel neither in a header nor in JSON.
    return text.encode(errors="backslashreplace").decode()
