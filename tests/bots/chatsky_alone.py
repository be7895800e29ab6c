"""A Chatsky program that holds the interface on the broker itself, as Chatsky's users wire one: no worker, no Redis.

Run it as a module; the broker and the namespace come from the environment, as a worker's do.
"""

import logging
import os

from chatsky import Pipeline

from interfaces import RabbitMQMessengerInterface, Topology
from tests.bots.chatsky_counting import SCRIPT


def main() -> None:
    """Run until interrupted."""
    topology = Topology(namespace=os.environ["SWITCHBOARD_NAMESPACE"], shards=int(os.environ["SWITCHBOARD_SHARDS"]))
    interface = RabbitMQMessengerInterface(os.environ["SWITCHBOARD_AMQP_URL"], topology=topology)
    Pipeline(script=SCRIPT, start_label=("talk", "start"), messenger_interface=interface).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
