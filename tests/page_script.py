"""One script of the shell out of all that can run on a page, in its order, as a reader would type it.

Files that blocks say they are stand in the working directory from the start. What a reader would leave running in
another terminal (a worker, an edge) is started in the background, and awaited before the next block. The addresses of a
machine's own servers become those of the run's.
"""

import ast
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.code_blocks import SHELL, Block

OUTPUT: Final = "output.txt"
"""File in the working directory that everything is printed into."""

BEGIN: Final = f"""set -eo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
workers=0
workers_ready() {{
    for _ in $(seq 400); do
        [ "$(grep -c 'ready: ' {OUTPUT})" -lt "$workers" ] || return 0
        sleep 0.1
    done
    echo "a worker did not get ready" >&2
    return 1
}}
"""
MARK: Final = "--- block in line {line} ---"

RUNNING: Final = re.compile(r"^(?:\w+=\S+ )*(?:\S*/)?switchboard (run|edge|status .*--watch)\b")
"""What does not end by itself."""
CHAT: Final = re.compile(r"^(?:\S*/)?switchboard chat\b")
"""What a reader would type into."""

_WORKER = "switchboard run {bot} &\nworkers=$((workers + 1)); workers_ready"
_FAILING = """cat >failing.py <<'END'
async def bot(ctx):
    raise ValueError("it is broken")
END
switchboard run failing:bot --attempts 1 &
workers=$((workers + 1)); workers_ready
switchboard send ada Hello --id order-1 || [ $? -eq 1 ]
kill $! && wait $!"""
_PLATFORM = """cat >my_platform.py <<'END'
from types import SimpleNamespace

async def ask_the_platform(text):
    return SimpleNamespace(status=200, text=text, headers={})
END"""

GIVEN: Final[Mapping[str, str]] = {
    "docs/dead-letters.md": _FAILING,
    "docs/failures.md": _PLATFORM,
    "docs/privacy.md": _WORKER.format(bot="examples.pizza:bot") + "\nswitchboard send ada Hello",
    "docs/runbook.md": _WORKER.format(bot="examples.pizza:bot"),
}
"""What there is before a page's first block: what the page takes for granted."""

RUNNERS: Final[Mapping[str, tuple[str, str]]] = {"python": ("python", ".py"), "javascript": ("node", ".js")}
"""What runs a block of this language, and how its file is named."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the run's servers are."""

    amqp_url: str
    redis_url: str

    def put_into(self, text: str) -> str:
        """The text with these instead of a machine's own."""
        text = text.replace("amqp://guest:guest@127.0.0.1:5672/", self.amqp_url)
        return text.replace("redis://127.0.0.1:6379/0", self.redis_url)


def write(blocks: Sequence[Block], directory: Path, servers: Servers) -> str:
    """Write the page's files into `directory`; the script."""
    for block in blocks:
        if block.file or block.language in RUNNERS:
            path = directory / _file(block)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(servers.put_into(block.text))
    shell = "\n".join(block.text for block in blocks if block.language == SHELL and block.only_checked is None)
    steps = [
        f"echo '{MARK.format(line=block.line)}'\n{step}"
        for block in blocks
        if block.only_checked is None and (step := _step(block, shell))
    ]
    return servers.put_into("\n".join([BEGIN, GIVEN.get(blocks[0].page, ""), *steps, ""]))


def _step(block: Block, shell: str) -> str:
    if block.language == SHELL:
        return "\n".join(_commands(block.text))
    if block.language not in RUNNERS:
        return ""
    name = Path(_file(block))
    if name.name.startswith("test_"):
        return f"python -m pytest -q -p no:cacheprovider -o asyncio_mode=auto {name}"
    if block.file and re.search(rf"\b{re.escape(name.stem)}\b", shell):
        return ""  # a block of the shell runs it
    if block.language != "python":
        return f"{RUNNERS[block.language][0]} {name}"
    if not block.file and _defines_a_bot(block.text):
        return f"{_WORKER.format(bot=f'{name.stem}:bot')}\nswitchboard send reader Hello\nkill $! && wait $!"
    if "BrokerClient" in block.text and "await" in block.text:
        start = _WORKER.format(bot="examples.pizza:bot")
        return f"{start}\npython -m tests.services.client_block {name}\nkill $! && wait $!"
    return f"python {name}"


def _file(block: Block) -> str:
    return block.file or f"block_{block.line}{RUNNERS[block.language][1]}"


def _commands(text: str) -> Iterator[str]:
    """The lines, those in the background that do not end; then the wait for workers."""
    workers = 0
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        command = re.sub(r"\s#.*$", "", line).rstrip()
        endless = RUNNING.match(command)
        if CHAT.match(command):
            yield f"{command} <<<Hello"
        else:
            yield f"{command} &" if endless and not command.endswith("&") else line
        workers += endless is not None and endless[1] == "run"
    if workers:
        yield f"workers=$((workers + {workers})); workers_ready"
    if "SWITCHBOARD_" in text:
        yield "python -c 'from worker.settings import load_settings; load_settings()'"


def _defines_a_bot(text: str) -> bool:
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "bot" for node in ast.parse(text).body
    )


def missing_output(blocks: Sequence[Block], output: str) -> list[str]:
    """Lines that the page says a block of the shell prints, and that it has not printed in this order."""
    parts = re.split(r"^--- block in line (\d+) ---\n", output, flags=re.MULTILINE)
    printed = {int(line): text.splitlines() for line, text in zip(parts[1::2], parts[2::2], strict=True)}
    missing = []
    for block, following in itertools.pairwise(blocks):
        if block.language == SHELL and following.language == "text" and block.line in printed:
            lines = iter(line.strip() for line in printed[block.line])
            told = [line.strip() for line in following.text.splitlines()]
            missing += [line for line in told if line not in ("", "...") and not any(line == other for other in lines)]
    return missing
