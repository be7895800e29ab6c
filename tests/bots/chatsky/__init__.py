"""Twelve bots for Chatsky, one module each, with `pipeline` and the dialogs that are held with it, `DIALOGS`.

Each is about one part of Chatsky and uses every feature of it that reads or changes the context. They are plain
Chatsky: nothing of this project is imported, and a reply depends on nothing but the dialog so far. `truth` says what
they answer where Chatsky runs alone; the tests that run them over the broker expect exactly that.
"""

from typing import Any

NAMES = (
    "conditions",
    "extra_handlers",
    "global_local",
    "history",
    "misc",
    "pre_response",
    "pre_transition",
    "responses",
    "rewriting",
    "services",
    "slots",
    "transitions",
)

Said = str | dict[str, Any]
"""One message of a user: its text, or a whole message as JSON."""

Step = Said | tuple[Said, dict[str, Any]]
"""A message, and where given what the interface puts into the context's `misc` with it (`update_ctx_misc`)."""

Dialogs = dict[str, list[Step]]
"""What users say, by the name of the dialog."""
