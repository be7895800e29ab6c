"""What `switchboard doctor` finds: one result for each check, with how to mend it."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "skip", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. A warning does not stop a worker from doing its work; a failure does."""

    check: str
    status: Status
    detail: str
    mend: str | None = None


def ok(check: str, detail: str) -> Finding:
    """A check that found nothing."""
    return Finding(check, "ok", detail)


def skip(check: str, detail: str, mend: str) -> Finding:
    """What could not be looked at from here, and how it can be. It says nothing about the servers."""
    return Finding(check, "skip", detail, mend)


def warn(check: str, detail: str, mend: str) -> Finding:
    """Something an operator should know."""
    return Finding(check, "warn", detail, mend)


def fail(check: str, detail: str, mend: str) -> Finding:
    """Something that must be mended first."""
    return Finding(check, "fail", detail, mend)
