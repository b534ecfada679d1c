"""`manage.py task_diff`: programs get the patch unchanged, and a terminal gets no escapes."""

import pytest
from django.core.management import CommandError, call_command

from coding_tasks.management.commands.task_diff import visible

pytestmark = pytest.mark.django_db


def test_the_patch_is_printed_as_it_is(mirrors, task, work, capsysbinary):
    run = work(task, text="caf\x1b[31m")
    call_command("task_diff", str(task.pk))
    assert capsysbinary.readouterr().out == run.change.patch
    assert b"\x1b[31m" in run.change.patch


def test_a_task_without_a_change_prints_nothing(task, capsysbinary):
    call_command("task_diff", str(task.pk))
    assert capsysbinary.readouterr().out == b""


def test_an_unknown_task_is_reported(db):
    with pytest.raises(CommandError, match="no task"):
        call_command("task_diff", "01234567-89ab-cdef-0123-456789abcdef")


def test_a_patch_cannot_control_the_terminal():
    shown = visible(b"+a\x1b]0;owned\x07\r\n\t+caf\xe9 \xe2\x80\xae x\n")
    assert shown == "+a\\x1b]0;owned\\x07\\r\n\t+caf\\xe9 \\u202e x\n"
