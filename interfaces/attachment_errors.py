"""What each failure of the attachment store means for the caller: the one place where obstore's errors are mapped.

A missing object concerns one attachment. Everything else is the store's state (network, credentials, a bucket that is
not there), which somebody mends while the attachment waits. Called where obstore is.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from interfaces.errors import AttachmentMissing, AttachmentStoreUnavailable
from interfaces.references import Reference

_HINTS: Final = (
    (r"BadScheme", "its address is http://; set AWS_ALLOW_HTTP=true where that is meant"),
    (r"NoSuchBucket|ContainerNotFound|not found", "create the bucket, container or directory"),
    (
        r"Permission|Unauthenticated|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|\b40[13]\b",
        "check its credentials",
    ),
    (r"[Mm]issing|must be specified", "set its environment variables (docs/attachments.md)"),
)
_ELSE: Final = "check that it can be reached from here"


@contextmanager
def store_errors(url: str, reference: Reference | None = None) -> Iterator[None]:
    """Raise our errors instead of obstore's: `AttachmentMissing` where the object of `reference` is not there,
    `AttachmentStoreUnavailable` for everything else."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        if reference is None or "NoSuchBucket" in str(error):
            raise _unavailable(url, error) from error
        raise AttachmentMissing(missing(url, reference)) from error
    except (BaseError, OSError, NotImplementedError, ValueError) as error:
        raise _unavailable(url, error) from error


def missing(url: str, reference: Reference) -> str:
    """The text for a reader whose reference leads nowhere."""
    why = (
        "memory:// keeps attachments inside one process only; set SWITCHBOARD_ATTACHMENTS_URL to a store that all share"
        if url.startswith("memory:")
        else "it has expired (SWITCHBOARD_ATTACHMENTS_TTL) or was put into another store (SWITCHBOARD_ATTACHMENTS_URL)"
    )
    return f"attachment {reference} is not in {url}: {why}"


def _unavailable(url: str, error: Exception) -> AttachmentStoreUnavailable:
    # The first line; behind it stands what Rust's debugger shows. A query may be signed, which makes it a credential.
    text = re.sub(r"(https?://[^\s?]+)\?[^\s)\"']*", r"\1?...", str(error).partition("\n")[0])
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, f"{type(error).__name__} {error}")), _ELSE)
    return AttachmentStoreUnavailable(f"attachment store {url}: {text}; {hint}")
