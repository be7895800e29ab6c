"""Runs the integration tests on every pair of servers the project supports and writes docs/test-matrix.md.

Each pair runs in containers built by `deploy/test-images/build.sh`; a pair that fails is in the table as failed, and
the exit code says so. `make test-matrix` runs it.
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "test-matrix.md"
PAIRS = (("rabbitmq-3.10", "redis-7.0"), ("rabbitmq-4.0", "redis-8.0"), ("rabbitmq-4.0", "valkey-8.1"))
INTRODUCTION = """# Servers the integration tests pass on

Written by `make test-matrix`, which runs the integration tests (`tests/integration`, `tests/conformance`) on each pair
of servers in containers.

| RabbitMQ | store | passed | not passed | seconds |
|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What one pair of servers made of the tests."""

    broker: str
    store: str
    passed: int
    failed: int
    seconds: int

    def row(self) -> str:
        """Its line in the table."""
        return f"| {self.broker} | {self.store} | {self.passed} | {self.failed} | {self.seconds} |\n"


def run(rabbitmq: str, store: str) -> Result:
    """Run the tests on one pair, showing their output."""
    images = {
        "SWITCHBOARD_TEST_SERVERS": "containers",
        "SWITCHBOARD_TEST_RABBITMQ_IMAGE": f"switchboard-test:{rabbitmq}",
        "SWITCHBOARD_TEST_REDIS_IMAGE": f"switchboard-test:{store}",
    }
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "tests/integration", "tests/conformance"]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **images}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            output += line
    versions = re.search(r"^servers for tests: .*\(RabbitMQ (\S+), (\w+ \S+)\)", output, re.MULTILINE)
    broker, name = versions.groups() if versions else (rabbitmq, store)
    counts = dict.fromkeys(("passed", "failed", "errors", "error"), 0)
    closing = output.rstrip().rpartition("\n")[2]
    counts |= {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|errors?)", closing)}
    failed = counts["failed"] + counts["errors"] + counts["error"]
    # A run that ended before its first test has nothing to count, and has not passed either.
    failed = max(failed, int(process.returncode != 0))
    return Result(broker, name, counts["passed"], failed, round(time.monotonic() - started))


def main() -> int:
    """Run every pair and write the table; 1 where a test did not pass."""
    results = [run(*pair) for pair in PAIRS]
    TABLE.write_text(INTRODUCTION + "".join(result.row() for result in results))
    return int(any(result.failed for result in results))


if __name__ == "__main__":
    sys.exit(main())
