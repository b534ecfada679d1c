"""Files that come with a request, and files that an agent leaves for people."""

import base64
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.utils import timezone

from coding_tasks.models import RunChange, RunFile, TaskRun
from coding_tasks.turns.agent_runs import AgentRuns
from tests.conftest import wait_until
from tests.image_files import png
from tests.workflows.world import World
from workflows import tasks
from workflows.intake import follow_ups
from workflows.models import Mention, Notice
from workflows.temporal import client

pytestmark = pytest.mark.slow

OUTPUT = "mkdir -p $TOLLGATE_OUTPUT && cd $TOLLGATE_OUTPUT"


def mention_with(world: World, text: str, *files: dict) -> Mention:
    """Mention the bot with files attached, and wait for the end."""
    mention = world.mention(text)
    world.slack.slack.workspace.change_message("C1", mention.ts, {"files": list(files)})
    client.start_mention(mention)
    world.wait_for_end(mention)
    return mention


def sent_files(world: World, mention: Mention) -> dict[str, bytes]:
    """Return the files that the bot posted to the thread, by title."""
    world.send_all()
    found = {}
    for message in world.slack.bot_messages("C1", mention.ts):
        for file in message.get("files") or ():
            content = world.slack.slack.files.content(file["id"])
            assert content is not None
            found[file["title"]] = content
    return found


class TestIn:
    def test_an_image_is_a_file_beside_the_checkout(self, coding: World, agents):
        content = png(3, 4)
        file = coding.slack.attach("a.png", content, "image/png")
        mention = mention_with(coding, "ls /input; base64 -w0 /input/1.png; git status -s", file)
        answer = TaskRun.objects.get().answer
        assert mention.state == Mention.State.ANSWERED
        listed, encoded = answer.splitlines()[:2]
        assert listed == "1.png"
        assert encoded.startswith("iVBORw0KGgo"), "it is the image, and git sees nothing new"
        assert not RunChange.objects.exists()

    def test_it_can_only_be_read(self, coding: World, agents):
        file = coding.slack.attach("a.png", png(), "image/png")
        attempt = "for what in 'echo x >/input/1.png' 'rm /input/1.png' 'touch /input/2'; do"
        attempt += ' sh -c "$what" 2>/dev/null && echo CHANGED; done; echo tried'
        mention_with(coding, attempt.replace(">", "&gt;").replace("&&", "&amp;&amp;"), file)
        answer = TaskRun.objects.get().answer
        assert "tried" in answer
        assert "CHANGED" not in answer

    def test_it_is_gone_when_the_run_has_ended(self, coding: World, agents, settings):
        secret = b"a secret of ours"
        mention_with(coding, "cat /input/1.txt", coding.slack.attach("a.txt", secret))
        kept = Path(settings.AGENT_EXCHANGE_DIRECTORY).rglob("input/*")
        assert list(kept) == []

    def test_without_files_there_is_no_folder(self, coding: World, agents):
        mention_with(coding, "ls -d /input || echo none")
        assert TaskRun.objects.get().answer.endswith("none")

    def test_the_answer_says_what_was_not_looked_at(self, coding: World, agents):
        files = [
            coding.slack.attach("a.zip", b"PK\x03\xff", "application/zip"),
            coding.slack.attach("a.png", png(), "image/png"),
        ]
        mention = mention_with(coding, "echo Done", *files)
        [answer] = coding.said(mention.ts)
        assert "Not looked at: a.zip (it is neither text nor an image)." in answer
        assert answer.count("shell takes no images, so it may not have seen yours.") == 1

    def test_a_follow_up_brings_files_of_its_own(self, coding: World, agents):
        first = coding.slack.attach("a.txt", b"first")
        mention = mention_with(coding, "cat /input/1.txt", first)
        follow_up = coding.posted_reply(mention, "cat /input/1.txt; ls /input")
        second = coding.slack.attach("b.txt", b"second ")
        coding.slack.slack.workspace.change_message("C1", follow_up.ts, {"files": [second]})
        follow_up.workflow_id = TaskRun.objects.get().task.workflow_id
        follow_up.save()
        follow_ups.signal(follow_up)
        wait_until(lambda: len(coding.said(mention.ts)) == 2, what="the second answer")
        assert coding.said(mention.ts)[1].startswith("second 1.txt")


class TestOut:
    def test_images_and_logs_follow_the_answer(self, coding: World, agents):
        make = f"{OUTPUT}; base64 -d /input/2.txt > shot; echo passed > test.log; echo Done"
        file = coding.slack.attach("b64", base64.b64encode(png(5, 5)))
        mention = mention_with(
            coding, make.replace("/input/2", "/input/1").replace(">", "&gt;"), file
        )
        assert sent_files(coding, mention) == {"shot.png": png(5, 5), "test.log": b"passed\n"}
        said = coding.said(mention.ts)
        assert said[0].startswith("Done")
        assert said[1:] == ["A file from this work: shot.png", "A file from this work: test.log"]

    def test_they_are_no_part_of_the_change(self, coding: World, agents):
        coding.handle(f"({OUTPUT}; echo x &gt; a.log); echo y &gt; new.txt; echo Done")
        change = RunChange.objects.get()
        assert change.files == 1
        assert b"a.log" not in change.patch

    def test_hostile_files_are_not_posted(self, coding: World, agents):
        make = f"""{OUTPUT}
        ln -s /etc/passwd link.txt; mkdir folder; mkfifo pipe; head -c 100 /dev/zero &gt; zeros
        : &gt; empty.log; printf '&lt;script&gt;1&lt;/script&gt;' &gt; page.html
        printf 'ghp_0123456789abcdefghijABCDEFGHIJ012345' &gt; token.log
        truncate -s 500M huge.log; printf x &gt; "$(printf '..\\nb.log')"; echo Done"""
        mention = coding.handle(make)
        sent = sent_files(coding, mention)
        assert sent["page.html.txt"] == b"<script>1</script>"
        assert b"ghp_" not in sent["token.log"]
        assert sorted(sent) == ["__b.log", "page.html.txt", "token.log"]
        [answer, *_] = coding.said(mention.ts)
        assert "Not posted:" in answer
        for name in ("zeros", "empty.log", "huge.log"):
            assert f"{name} (" in answer

    def test_at_most_ten_of_fifty_files_are_posted(self, coding: World, agents):
        make = f"{OUTPUT}; for n in $(seq 10 59); do echo $n &gt; $n.log; done; echo Done"
        mention = coding.handle(make)
        assert len(sent_files(coding, mention)) == 10
        assert "Not posted: 20.log (there are too many files" in coding.said(mention.ts)[0]

    @pytest.mark.parametrize("arrives", [True, False])
    def test_an_unknown_outcome_does_not_post_a_file_twice(
        self, coding: World, agents, arrives: bool
    ):
        mention = coding.handle(f"{OUTPUT}; echo x &gt; a.log; echo Done")
        if arrives:
            coding.slack.drop_answer_next("files.completeUploadExternal")
        else:
            coding.slack.fail_next("files.completeUploadExternal", "internal_error")
        tasks.deliver_pending_notices()
        assert Notice.objects.get(kind="file").state == Notice.State.SENDING
        Notice.objects.filter(kind="file").update(next_attempt_at=timezone.now())
        sent_files(coding, mention)
        posts = coding.slack.bot_messages("C1", mention.ts)
        assert sum(bool(message.get("files")) for message in posts) == 1

    def test_a_file_that_slack_refuses_keeps_no_other_from_the_thread(self, coding: World, agents):
        mention = coding.handle(f"{OUTPUT}; echo x &gt; a.log; echo y &gt; b.log; echo Done")
        coding.slack.fail_next("files.getUploadURLExternal", "file_type_not_allowed")
        assert list(sent_files(coding, mention)) == ["b.log"]
        assert coding.said(mention.ts)[0].startswith("Done")

    def test_erased_files_are_not_sent(self, coding: World, agents):
        mention = coding.handle(f"{OUTPUT}; echo x &gt; a.log; echo Done")
        assert RunFile.objects.count() == 1
        call_command("erase_slack_user", "T1", "U1")
        assert sent_files(coding, mention) == {}
        assert not RunFile.objects.exists()

    def test_old_files_are_forgotten(self, coding: World, agents):
        coding.handle(f"{OUTPUT}; echo x &gt; a.log; echo y &gt; b.log; echo Done")
        old = timezone.now() - timedelta(days=15)
        RunFile.objects.filter(name="a.log").update(created_at=old)
        AgentRuns.from_settings().tidy()
        assert [file.name for file in RunFile.objects.all()] == ["b.log"]
