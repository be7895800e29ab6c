"""Every way for messages to come in and go out: Chatsky's message interfaces, and those on a message broker.

Bots run in `worker`, which imports this package; nothing here imports `worker`.
"""

from interfaces.bot_signals import Reject, Retry
from interfaces.cli import CLIMessengerInterface
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.encryption import Keys
from interfaces.messages import (
    Animation,
    Attachment,
    Audio,
    CallbackQuery,
    Contact,
    DataAttachment,
    Document,
    Image,
    Invoice,
    Location,
    MediaGroup,
    Message,
    Origin,
    Poll,
    PollOption,
    Sticker,
    Video,
    VideoMessage,
    VoiceMessage,
)
from interfaces.messengers import (
    CallbackMessengerInterface,
    MessengerInterface,
    MessengerInterfaceWithAttachments,
    PipelineRunnerFunction,
    PollingMessengerInterface,
)
from interfaces.rabbitmq import RabbitMQMessengerInterface
from interfaces.reply_bodies import Reply
from interfaces.topology import Topology

__all__ = [
    "Animation",
    "Attachment",
    "Audio",
    "BrokerClient",
    "CLIMessengerInterface",
    "CallbackMessengerInterface",
    "CallbackQuery",
    "Contact",
    "Context",
    "DataAttachment",
    "Document",
    "Image",
    "Invoice",
    "Keys",
    "Location",
    "MediaGroup",
    "Message",
    "MessengerInterface",
    "MessengerInterfaceWithAttachments",
    "Origin",
    "PipelineRunnerFunction",
    "Poll",
    "PollOption",
    "PollingMessengerInterface",
    "RabbitMQMessengerInterface",
    "Reject",
    "Reply",
    "Retry",
    "Sticker",
    "Topology",
    "Video",
    "VideoMessage",
    "VoiceMessage",
]
