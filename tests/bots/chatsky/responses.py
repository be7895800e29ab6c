"""A gallery: constant and computed responses, every attachment type, extra fields, and responses that go wrong."""

# mypy: allow-subclassing-any

import random

from chatsky import GLOBAL, RESPONSE, TRANSITIONS, BaseResponse, Context, Message, MessageInitTypes, Pipeline
from chatsky import Transition as Tr
from chatsky import conditions as cnd
from chatsky import responses as rsp
from chatsky.core.message import (
    Animation,
    Audio,
    CallbackQuery,
    Contact,
    Document,
    Image,
    Invoice,
    Location,
    MediaGroup,
    Poll,
    PollOption,
    Sticker,
    Video,
    VideoMessage,
    VoiceMessage,
)

from tests.bots.chatsky import Dialogs

PLACE = "https://gallery.example/works"


class Echo(BaseResponse):
    """The request's own attachments, counted, as a message built at run time."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        given = ctx.last_request.attachments or []
        kinds = ", ".join(attachment.chatsky_attachment_type for attachment in given)
        return Message(f"{len(given)}: {kinds}", attachments=given)


class AsText(BaseResponse):
    """A string, made into a message by Chatsky."""

    def call(self, ctx: Context) -> MessageInitTypes:
        return f"turn {ctx.current_turn_id}: {ctx.last_request.text}"


class AsDict(BaseResponse):
    """A dictionary, made into a message by Chatsky."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        return {
            "text": "catalogue",
            "misc": {"page": ctx.current_turn_id, "of": [1, 2.5, None]},
            "layout": {"columns": 3},
        }


class Dice(BaseResponse):
    """Random, but the same whenever this turn is run."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        return rsp.RandomChoice(*"ABCDEF").responses[random.Random(ctx.current_turn_id).randrange(6)]


class Broken(BaseResponse):
    """Raises: the answer is an empty message."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        raise ValueError(ctx.last_request.text)


class NoMessage(BaseResponse):
    """Returns what no message can be made of: the answer is an empty message."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        return 7


works = Message(
    "All we have.",
    attachments=[
        Image(source=f"{PLACE}/1.png", caption="Sunrise", width=800),
        Audio(id="guide-1"),
        Video(source=f"{PLACE}/tour.mp4?lang=de&x=1#start"),
        Animation(id="loop", use_cache=False),
        Sticker(id="smile", emoji="🙂"),
        Document(source=f"{PLACE}/plan.pdf"),
        VoiceMessage(id="voice"),
        VideoMessage(id="note"),
        Location(longitude=13.404954, latitude=52.520008),
        Contact(phone_number="+49 30 0", first_name="Ada", last_name=None),
        Invoice(title="Ticket", description="one day", currency="EUR", amount=1250),
        Poll(question="Again?", options=[PollOption(text="yes", votes=3), PollOption(text="no")]),
        CallbackQuery(query_string="next"),
        MediaGroup(group=[Image(source=f"{PLACE}/2.png"), Document(id="doc", pages=2), Video(id="v")], title="Set"),
    ],
)

pipeline = Pipeline(
    script={
        GLOBAL: {
            TRANSITIONS: [
                Tr(dst=("gallery", "works"), cnd=cnd.ExactMatch("works")),
                Tr(dst=("gallery", "echo"), cnd=cnd.HasText("look")),
                Tr(dst=("gallery", "text"), cnd=cnd.HasText("say")),
                Tr(dst=("gallery", "dict"), cnd=cnd.ExactMatch("catalogue")),
                Tr(dst=("gallery", "dice"), cnd=cnd.ExactMatch("dice")),
                Tr(dst=("gallery", "one"), cnd=cnd.ExactMatch("choose")),
                Tr(dst=("gallery", "broken"), cnd=cnd.ExactMatch("broken")),
                Tr(dst=("gallery", "no_message"), cnd=cnd.ExactMatch("number")),
                Tr(dst=("gallery", "empty"), cnd=cnd.ExactMatch("empty")),
                Tr(dst=("gallery", "rich"), cnd=cnd.ExactMatch("rich")),
            ]
        },
        "gallery": {
            "entrance": {},
            "works": {RESPONSE: works},
            "echo": {RESPONSE: Echo()},
            "text": {RESPONSE: AsText()},
            "dict": {RESPONSE: AsDict()},
            "dice": {RESPONSE: Dice()},
            "one": {RESPONSE: rsp.RandomChoice("the only one")},
            "broken": {RESPONSE: Broken()},
            "no_message": {RESPONSE: NoMessage()},
            "empty": {},
            "rich": {
                RESPONSE: Message("rich", annotations={"mood": "calm"}, misc={"k": {"ü": [True]}}, style="bold", n=0)
            },
            "lost": {RESPONSE: ""},
        },
    },
    start_label=("gallery", "entrance"),
    fallback_label=("gallery", "lost"),
)

SHOWN = works.model_dump(mode="json")["attachments"]
for attachment in SHOWN:
    attachment.pop("cached_filename", None)  # a path has no place in what a user sends
    for member in attachment.get("group", []):
        member.pop("cached_filename", None)

DIALOGS: Dialogs = {
    "visitor": [
        "works",
        {"text": "look", "attachments": SHOWN},
        "catalogue",
        "dice",
        "dice",
        "broken",
        "say something",
        "choose",
        "number",
        "empty",
        "rich",
        "what?",
        {"text": "look", "attachments": [{"chatsky_attachment_type": "hologram", "depth": 3}]},
        {"text": "look", "attachments": []},
        "works",
        "say it's done",
    ],
    "critic": ["broken", "empty", "dice", "number", "dice", "", 'say äöü 漢字 🙂 \u2028 \\ " </b>', "rich", "look"],
    "silent": [{}, {"misc": {}}, {"annotations": {"a": None}}, "works", "dice"],
}
