"""The pytest plugin in a foreign project, which has nothing of ours but what is installed; and the page about it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest_plugins = "pytester"

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/testing.md").read_text()
BLOCKS = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project elsewhere. The entry points are those of pyproject.toml, installed or not."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = pytester.path / "installed" / "switchboard_bots-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: switchboard-bots\nVersion: 0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in declared.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{info.parent}")
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


def test_every_code_block_of_the_page_runs(project: pytest.Pytester) -> None:
    assert len(BLOCKS) == PAGE.count("```python") == 4
    project.makepyfile(**{name.removesuffix(".py"): text for name, text in BLOCKS.items()})
    result = project.runpytest_subprocess("-W", "error")
    result.assert_outcomes(passed=7, xfailed=1)


def test_bots_that_drop_or_double_a_turn_are_caught(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        def doubling():
            orders = []
            async def bot(ctx):
                orders.append(ctx.last_request.text)
                return f"order {len(orders)}"
            return bot

        def dropping():
            seen = set()
            async def bot(ctx):
                if ctx.request_id not in seen:
                    seen.add(ctx.request_id)
                    return "order 1"
            return bot

        def sound():
            async def bot(ctx):
                ctx.misc["orders"] = ctx.misc.get("orders", 0) + 1
                return f"order {ctx.misc['orders']}"
            return bot

        @pytest.mark.parametrize("crash", [False, True], ids=["quiet", "crash"])
        @pytest.mark.parametrize("make", [sound, doubling, dropping])
        async def test_order(run_bot, make, crash):
            async with run_bot(make()) as running:
                if crash:
                    running.crash(before="commit")
                assert (await running.user().say("pizza")).text == "order 1"
        """
    )
    result = project.runpytest_subprocess("-rA")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines_random(["FAILED *doubling-crash*", "FAILED *dropping-crash*"])
    result.stdout.fnmatch_lines_random(["E*assert 'order 2' == 'order 1'", "E*assert None == 'order 1'"])


def test_a_failing_and_a_silent_bot_are_shown_with_their_code_and_log(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import asyncio

        async def failing(ctx):
            return 1 / 0

        async def silent(ctx):
            await asyncio.Event().wait()

        async def test_failing(run_bot):
            async with run_bot(failing) as running:
                await running.user("ada").say("hi")

        async def test_silent(run_bot):
            async with run_bot(silent, timeout=0.1) as running:
                await running.user("ada").say("hi")

        async def test_missed(run_bot):
            async with run_bot(failing) as running:
                running.crash(before="run")
        """
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "*RequestFailed: handler-failed: the bot failed",
            "E*the worker's log:",
            "E*return 1 / 0",
            "E*ZeroDivisionError: division by zero",
            "*AskTimeout: user 'ada' said 'hi' and got no answer within 0.1 s: its turn is at the step 'run', and*",
            "E*await asyncio.Event().wait()",
            "*CrashMissed: the crash before 'run' of a turn of any user never happened*",
        ]
    )


def test_a_run_that_does_not_use_the_plugin_imports_nothing_for_it() -> None:
    modules = "sorted(name for name in sys.modules if name.partition('.')[0] in ('worker', 'interfaces', 'pydantic'))"
    code = f"import sys, worker.pytest_plugin; print({modules})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.strip() == "['worker', 'worker.pytest_plugin']"
