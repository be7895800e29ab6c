"""A Prometheus (Debian's) as a local process, with the rules and the jobs of `deploy/prometheus`, for tests to ask.

Only the targets are the test's own, and the clock: it scrapes and evaluates every second, and the rules' minutes are
seconds, so that what takes an hour in operation is seen in a minute. Started by the tests of alerts and dashboards.
"""

import contextlib
import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.services.local import SEARCH_PATH, LocalBroker, LocalServer
from tests.services.packages import require_programs
from tests.services.servers import START_SECONDS, free_port

ROOT = Path(__file__).parents[2]
DEPLOYED = ROOT / "deploy/prometheus"
PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus"}
ASK_SECONDS = 10


def promtool() -> str:
    """The path of promtool. Raises `CannotProvide` where it is missing and cannot be installed."""
    require_programs(PACKAGES, SEARCH_PATH)
    path = shutil.which("promtool", path=SEARCH_PATH)
    assert path
    return path


def deployed_rules() -> list[dict[str, Any]]:
    """The alerts as they are deployed."""
    groups = yaml.safe_load((DEPLOYED / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def hurried(text: str) -> str:
    """Durations with seconds for minutes: `[15m]` becomes `[15s]`, and `for: 2m` becomes `for: 2s`."""
    return re.sub(r"(\[|for: )(\d+)m\b", r"\1\2s", text)


class MeasuredBroker(LocalBroker):
    """A RabbitMQ node that tells its own metrics, per queue."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics_port = free_port()
        (self.directory / "enabled_plugins").write_text("[rabbitmq_prometheus].\n")
        with (self.directory / "rabbitmq.conf").open("a") as config:
            config.write(f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {self.metrics_port}\n")
            config.write("prometheus.return_per_object_metrics = true\n")
            # As fresh as the test's clock; 5 s where not set.
            config.write("collect_statistics_interval = 1000\n")


class Prometheus(LocalServer):
    """One Prometheus.

    :param targets: addresses by job, in place of those in the file.
    """

    def __init__(self, targets: Mapping[str, Sequence[str]]) -> None:
        require_programs(PACKAGES, SEARCH_PATH)
        port = free_port()
        options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]
        super().__init__(
            "prometheus",
            f"http://127.0.0.1:{port}",
            ["prometheus", f"--web.listen-address=127.0.0.1:{port}", *options],
        )
        config = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        for job in config["scrape_configs"]:
            job.pop("dns_sd_configs", None)
            job["static_configs"] = [{"targets": list(targets.get(job["job_name"], ()))}]
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        (self.directory / "alerts.yaml").write_text(hurried((DEPLOYED / "alerts.yaml").read_text()))

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression gives now."""
        return list(self._ask("query", query=expression)["result"])

    def query_range(self, expression: str, begin: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series that an expression gives between two times."""
        return list(self._ask("query_range", query=expression, start=begin, end=end, step=step)["result"])

    def firing(self) -> dict[str, list[dict[str, str]]]:
        """Labels of the alerts that fire, by their names."""
        found: dict[str, list[dict[str, str]]] = {}
        for alert in self._ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return found

    def _ask(self, what: str, **parameters: object) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=ASK_SECONDS) as answer:  # noqa: S310 - http
            data: dict[str, Any] = json.load(answer)["data"]
        return data

    def _wait_until_ready(self, exited: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=ASK_SECONDS).close()  # noqa: S310 - http
                return
            if exited() or time.monotonic() > deadline:
                raise RuntimeError(f"Prometheus did not come up:\n{self._log_end()}")
            time.sleep(0.05)
