"""The bridge where Chatsky is in use, and nothing where it is not.

Chatsky is an extra, and importing it takes most of a second. Where a pipeline or one of its bound methods comes in, its
module has been imported by whoever made it. Used by `RabbitMQMessengerInterface`.
"""

import sys

from interfaces.messengers import MessengerInterface, PipelineRunnerFunction


def adopt(interface: type[MessengerInterface]) -> None:
    """Let Chatsky's `Pipeline`, which takes only interfaces derived from its own, take one of ours."""
    if "chatsky" in sys.modules:
        from interfaces import bridge

        bridge.adopt(interface)


def our_runner(pipeline_runner: PipelineRunnerFunction) -> PipelineRunnerFunction:
    """The runner itself, or, for a Chatsky pipeline's, one that takes our messages and gives our contexts."""
    if "chatsky" not in sys.modules:
        return pipeline_runner
    from interfaces import bridge

    return bridge.as_runner(pipeline_runner)
