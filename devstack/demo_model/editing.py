"""The demo model as a coding agent's model: it edits the demo's web shop with the agent's tools.

It knows two requests: to add a `--version` flag, and to document it. The next step follows from the
results of the steps before, so the same repository always gets the same edits.
"""

from collections.abc import Mapping

from devstack.demo_model.script import Prompt, Reply, ToolCall

LABEL = "[demo model]"
MAIN = "shop/__main__.py"
README = "README.md"
FLAG = 'parser.add_argument("--version", action="version", version="shop 1.0.0")\n'
PARSER = 'parser = argparse.ArgumentParser(prog="shop")\n'
PROGRAM = (
    '"""Print the total of a basket in cents: `python3 -m shop 100 250`."""\n\n'
    "import argparse\n\nfrom shop.basket import total\n\n"
    f"{PARSER}"
    'parser.add_argument("prices", type=int, nargs="*")\n'
    "print(total(parser.parse_args().prices))\n"
)
TRY = "python3 -m shop --version"
SECTION = f"\n## Version\n\n`{TRY}` prints the shop's version.\n"

_DONE = f"{LABEL} I added the flag --version to {MAIN}: `{TRY}` prints the version."
_DOCUMENTED = f"{LABEL} I documented the flag --version in {README}."
_OURS = frozenset({"list", "read", "write", "edit", "run"})
# A script for agents that work with a shell. It does what the tools of our own agent do.
_ADD_FLAG = f"""\
python3 - <<'END'
from pathlib import Path
main = Path({MAIN!r})
text = main.read_text() if main.exists() else {PROGRAM!r}
if "--version" not in text:
    main.write_text(text.replace({PARSER!r}, {PARSER + FLAG!r}))
END
{TRY}"""
_ADD_SECTION = f"""\
grep -q -e --version {README} || cat >> {README} <<'END'
{SECTION}END"""
_SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; echo {}"


def edit(prompt: Prompt) -> Reply | None:
    """Return the next step of an edit, or None without tools or for any other request."""
    asked = prompt.last.lower()
    documents = "document" in asked
    if not documents and "--version" not in asked:
        return None
    if set(prompt.tools) >= _OURS:
        return _document(prompt.results) if documents else _add_flag(prompt.results)
    shell = _shell(prompt.tools)
    return _in_a_shell(prompt, shell, documents=documents) if shell else None


def _add_flag(results: tuple[str, ...]) -> Reply | None:
    match results:
        case []:
            return _step("I look at the files.", "list", {})
        case [listed]:
            if "shop/" not in listed:
                return None
            return _step("I read the program.", "read", {"path": MAIN})
        case [_, text]:
            if "--version" in text:
                return Reply(f"{LABEL} {MAIN} has the flag --version already.")
            if PARSER in text:
                change = {"path": MAIN, "old": PARSER, "new": PARSER + FLAG}
                return _step("I add the flag.", "edit", change)
            program = PROGRAM.replace(PARSER, PARSER + FLAG)
            return _step("I write the program.", "write", {"path": MAIN, "text": program})
        case [_, _, _]:
            return _step("I try it.", "run", {"command": TRY})
    return Reply(_DONE)


def _document(results: tuple[str, ...]) -> Reply:
    match results:
        case []:
            return _step("I read the documentation.", "read", {"path": README})
        case [text] if "--version" not in text:
            written = {"path": README, "text": text.rstrip("\n") + "\n" + SECTION}
            return _step("I add a section.", "write", written)
        case [_]:
            return Reply(f"{LABEL} {README} documents the flag --version already.")
    return Reply(_DOCUMENTED)


def _in_a_shell(prompt: Prompt, shell: str, *, documents: bool) -> Reply:
    done = _DOCUMENTED if documents else _DONE
    if not prompt.results:
        return _step("I edit the files.", shell, _argument(shell, _script(documents=documents)))
    if shell == "bash" and len(prompt.results) == 1:  # mini-swe-agent ends with a command
        return _step("I am done.", shell, _argument(shell, _SUBMIT.format(repr(done))))
    return Reply(done)


def _script(*, documents: bool) -> str:
    return _ADD_SECTION if documents else _ADD_FLAG


def _shell(tools: tuple[str, ...]) -> str:
    """Return the name of the tool that runs shell commands, or "" if there is none.

    The names are those of Claude Code, the Codex CLI and mini-swe-agent.
    """
    names = ("Bash", "exec_command", "shell_command", "shell", "bash")
    return next((name for name in names if name in tools), "")


def _argument(shell: str, script: str) -> dict[str, object]:
    if shell == "exec_command":
        return {"cmd": script}
    if shell == "shell":
        return {"command": ["bash", "-c", script]}
    return {"command": script}


def _step(text: str, tool: str, arguments: Mapping[str, object]) -> Reply:
    return Reply(f"{LABEL} {text}", tools=(ToolCall(tool, dict(arguments)),))
