"""`manage.py sandbox`: an operator tries the sandbox by hand."""

import io

import pytest
from django.core.management import CommandError, call_command

from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap


def sandbox_command(*arguments: str) -> tuple[int, str, str]:
    """Run the command; return its exit status and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("sandbox", *arguments, stdout=out, stderr=err)
    return ended.value.code, out.getvalue(), err.getvalue()


def test_it_prints_what_the_command_prints_and_ends_like_it(sandbox):
    script = "pwd; ls -A; echo to-stderr >&2; printf '\\033[31mred\\033[0m\\n'; exit 3"
    assert sandbox_command("--", "sh", "-c", script) == (3, "/work\nred\n", "to-stderr\n")


def test_it_works_on_a_copy(sandbox, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("original\n")
    (tmp_path / "link").symlink_to("folder/file")
    script = "cat link; echo changed >folder/file; cat link"
    status, out, _ = sandbox_command("--dir", str(tmp_path), "--", "sh", "-c", script)
    assert (status, out) == (0, "original\nchanged\n")
    assert (tmp_path / "folder" / "file").read_text() == "original\n"


def test_its_token_is_worth_nothing_and_our_settings_are_not_there(sandbox, settings):
    _, out, _ = sandbox_command("--", "env")
    assert "ANTHROPIC_AUTH_TOKEN=worth-nothing" in out
    assert settings.SECRET_KEY not in out


def test_a_folder_that_is_not_there_is_an_error(sandbox, tmp_path):
    with pytest.raises(CommandError, match="No such file"):
        call_command("sandbox", "--dir", str(tmp_path / "missing"), "--", "true")


def test_without_a_sandbox_nothing_runs(monkeypatch):
    monkeypatch.setattr(Bubblewrap, "why_missing", lambda _: "no namespaces")
    with pytest.raises(CommandError, match="no sandbox on this machine: no namespaces"):
        call_command("sandbox", "--", "true")
