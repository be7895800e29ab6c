"""A library's desk: every kind of condition, on the request, on earlier labels and on what the dialog remembers."""

# mypy: allow-subclassing-any

import re

from chatsky import RESPONSE, TRANSITIONS, BaseCondition, Context, Message, Pipeline
from chatsky import Transition as Tr
from chatsky import conditions as cnd

from tests.bots.chatsky import Dialogs


class HasCard(BaseCondition):
    """Whether the dialog's misc holds a reader's card."""

    async def call(self, ctx: Context) -> bool:
        return "card" in ctx.misc


class AsksLoudly(BaseCondition):
    """A plain function, which Chatsky allows too."""

    def call(self, ctx: Context) -> bool:
        return bool(ctx.last_request.text) and ctx.last_request.text.isupper()


class AskedTwice(BaseCondition):
    """Whether the last two requests have the same text: the one before is read from the history."""

    async def call(self, ctx: Context) -> bool:
        before = await ctx.requests.get(ctx.current_turn_id - 1)
        return before is not None and before.text is not None and before.text == ctx.last_request.text


class Broken(BaseCondition):
    """Raises, which counts as not fulfilled."""

    async def call(self, ctx: Context) -> bool:
        raise LookupError(ctx.id)


class NoBoolean(BaseCondition):
    """Returns something else than a boolean, which counts as not fulfilled."""

    async def call(self, ctx: Context) -> str:
        return "yes"


desk = [
    Tr(dst=("desk", "hushed"), cnd=AsksLoudly(), priority=3),
    Tr(dst=("desk", "again"), cnd=AskedTwice(), priority=2),
    Tr(dst=("loans", "broken"), cnd=cnd.Any(Broken(), NoBoolean())),
    Tr(dst=("desk", "closed"), cnd=False),
    Tr(dst=("loans", "member"), cnd=cnd.All(cnd.HasText("borrow"), HasCard())),
    Tr(dst=("loans", "stranger"), cnd=cnd.All(cnd.HasText("borrow"), cnd.Not(HasCard()))),
    Tr(dst=("desk", "shelf"), cnd=cnd.Regexp(r"where .*\b(atlas|novel)s?\b", flags=re.IGNORECASE)),
    Tr(dst=("desk", "renewed"), cnd=cnd.HasCallbackQuery("renew:7")),
    Tr(dst=("desk", "hours"), cnd=cnd.ExactMatch("hours?")),
    Tr(dst=("desk", "kiosk"), cnd=cnd.ExactMatch({"misc": {"kiosk": 4}})),
    Tr(dst=("desk", "silence"), cnd=cnd.ExactMatch({}, skip_none=False)),
    Tr(
        dst=("loans", "recent"),
        cnd=cnd.All(cnd.HasText("and?"), cnd.CheckLastLabels(flow_labels=["loans"], last_n_indices=2)),
    ),
    Tr(dst=("desk", "hours"), cnd=cnd.All(cnd.HasText("and?"), cnd.CheckLastLabels(labels=[("desk", "shelf")]))),
    Tr(dst=("desk", "bye"), cnd=cnd.Any(cnd.HasText("bye"), cnd.Regexp(re.compile(r"^ciao")))),
]

pipeline = Pipeline(
    script={
        "desk": {
            "door": {TRANSITIONS: desk},
            "hushed": {RESPONSE: "Quiet, please.", TRANSITIONS: desk},
            "again": {RESPONSE: "As I said.", TRANSITIONS: desk},
            "closed": {RESPONSE: "unreachable", TRANSITIONS: desk},
            "shelf": {RESPONSE: "Second floor, by the window.", TRANSITIONS: desk},
            "renewed": {RESPONSE: "Renewed for a month.", TRANSITIONS: desk},
            "hours": {RESPONSE: "Nine to six.", TRANSITIONS: desk},
            "kiosk": {RESPONSE: "Hello, kiosk four.", TRANSITIONS: desk},
            "silence": {RESPONSE: "You say nothing.", TRANSITIONS: desk},
            "bye": {RESPONSE: "Come again.", TRANSITIONS: desk},
            "lost": {RESPONSE: "Pardon?", TRANSITIONS: desk},
        },
        "loans": {
            "broken": {RESPONSE: "unreachable"},
            "member": {RESPONSE: "Yours until the first.", TRANSITIONS: desk},
            "stranger": {RESPONSE: "Your card first, please.", TRANSITIONS: desk},
            "recent": {RESPONSE: "Loans again?", TRANSITIONS: desk},
        },
    },
    start_label=("desk", "door"),
    fallback_label=("desk", "lost"),
)

RENEW = Message(attachments=[{"chatsky_attachment_type": "callback_query", "query_string": "renew:7"}])

DIALOGS: Dialogs = {
    "reader": [
        "hours?",
        "I want to borrow this",
        ("I want to borrow this one", {"card": "A-17"}),
        "and?",
        "and? then",
        "nothing",
        "nothing",
        "and?",
        "WHERE ARE THE NOVELS",
        "Where are the novels",
        "and?",
        RENEW.model_dump(mode="json"),
        "borrow",
        "nothing more",
        "quite nothing",
        "and?",
        "ciao",
    ],
    "kiosk": [
        {"text": "anything", "misc": {"kiosk": 4}},
        {"text": "anything", "misc": {"kiosk": 5}},
        {},
        {"text": None, "misc": {}},
        {"attachments": [{"chatsky_attachment_type": "callback_query", "query_string": "renew:8"}]},
        "say ciao",
        "good bye",
    ],
    "polite": ["where is the ATLAS", "and?", "and?", "borrow", "borrow", "and?", "HOURS?", "hours?", "bye"],
}
