"""The supervisor restarts, gives up, stops in order, and leaves no process behind."""

import asyncio
import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from devstack.servers import Program
from devstack.supervision.console import Console
from devstack.supervision.supervisor import Child, StackError, Supervisor
from tests.conftest import wait_until
from tests.devstack.processes import Lines, lives, started, wait_until_gone
from tests.stopwatch import Stopwatch

# A program with a child, like a web server. The child ignores SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf])
print("family", os.getpid(), child.pid)
time.sleep(600)
"""
SLEEPER = "import os, time; print('pid', os.getpid()); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPER
DYING = "import sys; print('dying'); sys.exit(3)"


def small_stack(*stages: dict[str, str], stop_within: float = 30):
    return started(["tests.devstack.small_stack", json.dumps(stages), str(stop_within)])


def family_of(lines: Lines, count: int = 1) -> list[int]:
    return [int(pid) for pid in lines.wait_for(r"family (\d+ \d+)", count)[-1].split()]


def children(lines: Lines) -> list[int]:
    leader = lines.process.pid
    return [int(p) for p in Path(f"/proc/{leader}/task/{leader}/children").read_text().split()]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_each_line_follows_the_name_of_its_program() -> None:
    talker = "import time; print('one'); print('two', end=''); time.sleep(600)"
    with small_stack({"talker": talker}) as lines:
        lines.wait_for(r"talker +│ one\n")
    assert lines.find(r"talker +│ two\n"), "the rest of a line is shown when the program ends"


def test_a_killed_program_is_restarted_and_its_children_are_killed() -> None:
    with small_stack({"web": FAMILY}) as lines:
        first = family_of(lines)
        os.kill(first[0], signal.SIGKILL)
        second = family_of(lines, count=2)
        wait_until_gone(first)
        assert all(lives(pid) for pid in second)
        assert lines.find("web was killed by signal 9; starting it again")


def test_a_program_that_keeps_dying_does_not_stop_the_others() -> None:
    with small_stack({"web": SLEEPER}, {"worker": DYING}) as lines:
        [web] = lines.wait_for(r"pid (\d+)")
        lines.wait_for(r"worker ended \(exit 3\); starting it again\n")
        lines.wait_for(r"worker ended \(exit 3\), 2 times in a row: dying; next try in 1 s\n")
        lines.wait_for(r"worker ended \(exit 3\), 3 times in a row: dying; next try in 2 s\n")
        lines.wait_for(r"worker ended \(exit 3\), 4 times in a row: dying; next try in 4 s\n")
        assert lives(int(web))
        with Stopwatch() as waited:
            lines.process.send_signal(signal.SIGINT)
            assert lines.end() == 0
    assert waited.seconds < 3.5, "a stop does not wait for the next try"
    assert len(lines.find(r"pid (\d+)")) == 1


def test_waits_double_up_to_a_minute_and_restart_after_a_stable_run() -> None:
    child = Child(Program("worker", ["false"]))
    waits = [child.wait_after_death(lived=0.5) for _ in range(10)]
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [child.wait_after_death(lived=lived) for lived in (10, 9, 9, 100)] == [0, 1, 2, 0]
    assert [child.wait_after_death(lived=0) for _ in range(5_000)][-1] == 60


def test_a_program_that_was_never_ready_ends_the_start_with_one_line() -> None:
    with small_stack({"healthy": SLEEPER}, {"never-ready": DYING}) as lines:
        assert lines.end() == 1
        healthy = [int(pid) for pid in lines.find(r"pid (\d+)")]
    assert len(lines.find(r"never-ready +│ dying")) == 3
    assert lines.text.endswith(
        "StackError: never-ready cannot be started: it ended (exit 3) 3 times: dying\n"
    )
    wait_until_gone(healthy)


def test_a_program_that_cannot_be_spawned_is_tried_again(monkeypatch) -> None:
    async def run() -> None:
        async with Supervisor(os.environ, Console(output)) as supervisor:
            spawn, failures = supervisor._spawn, [OSError(24, "Too many open files")]

            async def fail_first(program: Program):
                if failures:
                    raise failures.pop()
                return await spawn(program)

            monkeypatch.setattr(supervisor, "_spawn", fail_first)
            await supervisor.start([Program("late", [sys.executable, "-uc", SLEEPER])])
            await asyncio.to_thread(wait_until, lambda: "pid" in output.getvalue())

    output = io.StringIO()
    asyncio.run(run())
    assert "late did not start (Too many open files); starting it again" in output.getvalue()


def test_ctrl_c_stops_the_last_stage_first_and_leaves_no_process() -> None:
    farewell = (
        "import signal, sys, time, os; print('pid', os.getpid());"
        "signal.signal(15, lambda *_: (print('bye {0}'), sys.exit()));"
        "print('armed {0}'); time.sleep(600)"
    )
    stages = {"store": farewell.format("store")}, {"web": FAMILY, "app": farewell.format("app")}
    with small_stack(*stages) as lines:
        pids = family_of(lines)
        lines.wait_for("armed", 2)
        lines.process.send_signal(signal.SIGINT)
        assert lines.end() == 0
        pids += [int(pid) for pid in lines.find(r"pid (\d+)")]
    assert lines.find("bye (app|store)") == ["app", "store"]
    wait_until_gone(pids)


def test_a_program_that_does_not_stop_in_time_is_killed() -> None:
    with small_stack({"deaf": DEAF}, stop_within=3) as lines:
        [pid] = lines.wait_for(r"pid (\d+)")
        lines.process.send_signal(signal.SIGINT)
        assert lines.end() == 0
    assert lines.find("deaf did not stop in 3 s and is killed")
    assert not lives(int(pid))


def test_no_process_survives_a_killed_supervisor() -> None:
    with small_stack({"web": FAMILY, "deaf": DEAF}) as lines:
        pids = family_of(lines) + [int(pid) for pid in lines.wait_for(r"pid (\d+)")]
        lines.process.kill()
        lines.end()
        wait_until_gone(pids)


def test_a_killed_warden_is_replaced_and_still_leaves_no_process() -> None:
    with small_stack({"web": FAMILY}) as lines:
        pids = family_of(lines)
        warden = next(
            pid for pid in children(lines) if "devstack.supervision.warden" in command_of(pid)
        )
        os.kill(warden, signal.SIGKILL)
        lines.wait_for("the warden was killed; another one watches")
        lines.process.kill()
        lines.end()
        wait_until_gone(pids)


def test_the_error_quotes_the_last_lines_of_a_failed_program() -> None:
    words = "import sys; sys.exit('SETTING: not a number.\\n\\n(see the example)\\n')"
    failing = Program("migrate", [sys.executable, "-c", words])

    async def run() -> None:
        async with Supervisor(os.environ, Console(io.StringIO())) as supervisor:
            await supervisor.run_once(failing)

    with pytest.raises(StackError) as error:
        asyncio.run(run())
    assert str(error.value) == ("migrate failed (exit 1): SETTING: not a number. (see the example)")


def test_a_program_that_does_not_exist_is_named() -> None:
    missing = Program("ghost", ["no-such-program"])

    async def run() -> None:
        async with Supervisor(os.environ, Console(output)) as supervisor:
            await supervisor.run_once(missing)

    output = io.StringIO()
    with pytest.raises(StackError, match=r"^ghost failed \(exit 1\): no-such-program: No such"):
        asyncio.run(run())
    assert "no-such-program: No such file or directory" in output.getvalue()


def test_the_output_of_a_program_can_be_captured_instead_of_shown() -> None:
    printing = Program("secret", [sys.executable, "-c", "print('the key')"])

    async def run() -> bytes:
        async with Supervisor(os.environ, Console(output)) as supervisor:
            return await supervisor.run_once(printing, capture=True)

    output = io.StringIO()
    assert asyncio.run(run()) == b"the key\n"
    assert output.getvalue() == ""


def test_lines_that_a_program_hides_are_not_shown() -> None:
    async def run() -> None:
        async with Supervisor(os.environ, Console(output)) as supervisor:
            script = "print('overcommit is off'); print('a real warning')"
            program = Program("server", [sys.executable, "-c", script], hides="overcommit")
            await supervisor.run_once(program)

    output = io.StringIO()
    asyncio.run(run())
    assert "a real warning" in output.getvalue()
    assert "overcommit" not in output.getvalue()
