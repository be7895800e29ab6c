"""Asks a worker's health address, as a probe and as Prometheus do."""

from http.client import HTTPConnection

from prometheus_client.parser import text_string_to_metric_families

SECONDS = 5
"""For an answer: a process that is stopped gives none."""


def get(address: str, path: str) -> tuple[int, str]:
    """Status and body. Raises `OSError` where there is no answer."""
    connection = HTTPConnection(address, timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scraped(address: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels."""
    status, body = get(address, "/metrics")
    assert status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def sample(address: str, name: str, **labels: str) -> float:
    """One sample. Raises `KeyError` where there is none."""
    return scraped(address)[name, frozenset(labels.items())]
