"""Chatsky's Telegram interfaces as a user would set them up against a Bot API server of their own."""

import os
from pathlib import Path

from chatsky.messengers.telegram import LongpollingInterface, WebhookInterface
from telegram.ext import Application, CallbackQueryHandler, MessageHandler
from telegram.ext.filters import ALL

from tests.services.bot_api import DIRECTORY, PORT, SERVER, TOKEN


def _use_own_server(interface: LongpollingInterface | WebhookInterface) -> None:
    server = os.environ[SERVER]
    interface.application = (
        Application.builder().token(TOKEN).base_url(f"{server}/bot").base_file_url(f"{server}/file/bot").build()
    )
    interface.application.add_handler(MessageHandler(ALL, interface.on_message))
    interface.application.add_handler(CallbackQueryHandler(interface.on_callback))


def longpolling() -> LongpollingInterface:
    """Fetches updates, without the pause of two seconds that Chatsky makes between fetches."""
    interface = LongpollingInterface(TOKEN, Path(os.environ[DIRECTORY]), interval=0, timeout=5)
    _use_own_server(interface)
    return interface


def webhook() -> WebhookInterface:
    """Is called with updates."""
    interface = WebhookInterface(TOKEN, Path(os.environ[DIRECTORY]), "127.0.0.1", int(os.environ[PORT]))
    _use_own_server(interface)
    return interface
