"""An example bot: takes a pizza order over several turns. Run it with `switchboard run examples.pizza:bot`.

Everything it knows about a dialog is in `ctx.misc`, so any worker can take the next turn.
"""

from interfaces import Context, Message

SIZES = ("small", "medium", "large")


async def bot(ctx: Context) -> Message | str:
    """One turn: read the user's words and what was asked before, answer, remember."""
    said = (ctx.last_request.text or "").strip()
    order = ctx.misc.setdefault("order", {})
    match ctx.misc.get("asked"):
        case "size" if said.lower() in SIZES:
            order["size"] = said.lower()
            ctx.misc["asked"] = "topping"
            return f"A {order['size']} one. What should be on it?"
        case "size":
            return f"I only know {', '.join(SIZES)}. Which one?"
        case "topping":
            order["topping"] = said
            ctx.misc["asked"] = "confirm"
            return f"One {order['size']} pizza with {said}. Shall I order it?"
        case "confirm" if said.lower().startswith("y"):
            ctx.misc["asked"] = None
            # The request's id makes ordering repeatable: should the worker die here, the turn runs again with this id.
            ctx.misc["ordered"] = [*ctx.misc.get("ordered", []), {**order, "order_id": ctx.request_id}]
            return f"Ordered! That is pizza number {len(ctx.misc['ordered'])} for you."
        case "confirm":
            ctx.misc["asked"] = "topping"
            return "Not that one, then. What should be on it?"
        case _:
            ctx.misc["asked"] = "size"
            return f"Welcome{' back' if ctx.misc.get('ordered') else ''}! Small, medium or large?"
