"""An S3 on loopback for tests: moto's server in a thread of the test process, with a bucket and credentials.

What it keeps is in that process' memory and goes with it.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.request import Request, urlopen

from moto.server import ThreadedMotoServer

BUCKET = "attachments"


@contextmanager
def s3_on_loopback() -> Iterator[Mapping[str, str]]:
    """The environment variables by which obstore finds it, and in which `s3://attachments` exists."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://127.0.0.1:{1}".format(*server.get_host_and_port())
        with urlopen(Request(f"{endpoint}/{BUCKET}", method="PUT")):  # noqa: S310 - our own address
            pass
        yield {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.stop()
