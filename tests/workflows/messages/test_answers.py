"""An answer says what it cost and where the work is, and is corrected if the ledger says more."""

from datetime import timedelta

import pytest
from django.utils import timezone

from coding_tasks.models import RunChange, TaskBranch, TaskRun
from tests.billing.world import book, usage_event
from tests.workflows.messages.test_edits import run as run
from tests.workflows.messages.test_edits import texts
from tests.workflows.test_notices import deliver, deliver_again
from tests.workflows.test_notices import mention as mention
from tests.workflows.test_notices import slack as slack
from tests.workflows.test_notices import workspace as workspace
from workflows import notices, wording
from workflows.messages import answers
from workflows.models import ERASED, Notice


@pytest.fixture
def answered(run) -> TaskRun:
    now = timezone.now()
    TaskRun.objects.update(
        state="succeeded", answer="It is **42**.", finished_at=now,
        started_at=now - timedelta(seconds=80),
    )  # fmt: skip
    return TaskRun.objects.get()


def pay(run: TaskRun, dollars: str = "0.10") -> None:
    properties = {"task_run_id": str(run.pk), "$ai_total_cost_usd": dollars}
    book(usage_event(run.task.project, properties=properties))


def claim(run: TaskRun, mention) -> Notice:
    return notices.claim_answer(run, mention)


def footer(message) -> str:
    [block] = [block for block in message["blocks"] if block["type"] == "context"]
    return block["elements"][0]["text"]


def test_an_answer_is_blocks_with_its_cost_its_time_and_its_links(slack, mention, answered):
    pay(answered)
    deliver(claim(answered, mention))
    [posted] = slack.bot_messages("C1", mention.ts)
    assert posted["text"] == "It is **42**."
    assert posted["blocks"][0]["text"]["text"] == "It is *42*."
    page = answers.page_of(answered)
    where = f"a/b · default branch · <{page}|Transcript>"
    assert footer(posted) == f"12.00 credits · 1 min 20 s · {where}"


def test_a_cost_is_never_shown_as_zero_unless_it_is(slack, mention, answered):
    assert answers.blocks_of(answered, "x", 0)[-1]["elements"][0]["text"].startswith("0.00 ")
    assert answers.blocks_of(answered, "x", 1)[-1]["elements"][0]["text"].startswith("&lt;0.01 ")


def change(run: TaskRun, pull_request: str = "") -> None:
    """Have the run change something, so that its answer has the button "Undo"."""
    RunChange.objects.create(
        run=run, commit="a" * 40, branch="tollgate/x", files=1, added=1, removed=0,
        packed_patch=b"", description=b"",
    )  # fmt: skip
    TaskBranch.objects.create(task=run.task, name="tollgate/x", pull_request=pull_request)


def buttons(blocks) -> list[str]:
    return [
        element["text"]["text"]
        for block in blocks
        if block["type"] == "actions"
        for element in block["elements"]
    ]


def test_an_answer_with_a_change_names_its_branch_and_pull_request(mention, answered):
    address = "https://github.example/a/b/pull/1"
    change(answered, pull_request=address)
    text = footer({"blocks": answers.blocks_of(answered, "x", 0)})
    assert f"a/b · `tollgate/x` · <{address}|Pull request> · " in text


def test_an_answer_without_a_change_names_the_branch_that_was_read(run, answered):
    def branch() -> str:
        return footer({"blocks": answers.blocks_of(answered, "x", 0)}).split(" · ")[3]

    TaskBranch.objects.create(task=answered.task, name="tollgate/x", base_branch="main")
    assert branch() == "`main`"
    earlier = TaskRun.objects.create(task=answered.task, message_ts="0.1", request="y")
    TaskRun.objects.filter(pk=earlier.pk).update(
        created_at=answered.created_at - timedelta(minutes=1)
    )
    RunChange.objects.create(
        run=earlier, commit="a" * 40, branch="tollgate/x", files=1, added=1, removed=0,
        packed_patch=b"", description=b"",
    )  # fmt: skip
    assert branch() == "`tollgate/x`"
    answered.task.repository = None
    assert " · no repository · <" in footer({"blocks": answers.blocks_of(answered, "x", 0)})


def check(now=None) -> list[Notice]:
    due = Notice.objects.exclude(cost_due_at=None)
    return [each for each in due if answers.correct_cost(each, now or timezone.now())]


def test_a_call_that_is_booked_after_the_answer_corrects_it(slack, mention, answered):
    answer = deliver(claim(answered, mention))
    assert answer.cost_due_at > timezone.now()
    pay(answered)
    assert check() == [answer]
    deliver_again(answer)
    [posted] = slack.bot_messages("C1", mention.ts)
    assert (posted["text"], posted["blocks"][0]["text"]["text"]) == ("It is **42**.", "It is *42*.")
    assert footer(posted).startswith("12.00 credits")


def test_a_right_cost_is_checked_twice_and_not_edited(slack, mention, answered):
    pay(answered)
    answer = deliver(claim(answered, mention))
    assert check() == []
    answer.refresh_from_db()
    assert answer.cost_due_at == answer.sent_at + answers.LAST_CHECK
    assert check(answer.cost_due_at) == []
    answer.refresh_from_db()
    assert answer.cost_due_at is None
    assert slack.calls("chat.update") == []


def test_an_erased_answer_is_not_corrected(slack, mention, answered):
    deliver(claim(answered, mention))
    Notice.objects.update(text=ERASED, blocks=[])
    pay(answered)
    assert check() == []


def test_an_answer_that_is_too_long_for_blocks_ends_with_its_cost(slack, mention, answered):
    TaskRun.objects.update(answer="word " * 5_000)
    deliver(claim(answered, mention))
    [posted] = slack.bot_messages("C1", mention.ts)
    assert "blocks" not in posted
    assert "\n\n0.00 credits · " in posted["text"]


def test_an_answer_that_is_too_long_for_blocks_has_its_buttons_below_the_text(
    slack, mention, answered
):
    change(answered)
    TaskRun.objects.update(answer="word " * 5_000)
    deliver(claim(answered, mention))
    [posted] = slack.bot_messages("C1", mention.ts)
    assert posted["text"].split()[:5_000] == ["word"] * 5_000
    assert "credits" not in posted["text"]
    [attachment] = posted["attachments"]
    assert footer(attachment).startswith("0.00 credits")
    assert buttons(attachment["blocks"]) == ["Undo"]


def test_a_long_answer_whose_buttons_are_refused_is_posted_as_text(slack, mention, answered):
    change(answered)
    TaskRun.objects.update(answer="word " * 5_000)
    slack.fail_next("chat.postMessage", "invalid_attachments")
    deliver(claim(answered, mention))
    [posted] = slack.bot_messages("C1", mention.ts)
    assert "attachments" not in posted
    assert "\n\n0.00 credits · " in posted["text"]


def test_an_answer_in_a_file_is_followed_by_its_cost_and_buttons(slack, mention, answered):
    change(answered)
    TaskRun.objects.update(answer="word " * 10_000)
    deliver(claim(answered, mention))
    [file, below] = slack.bot_messages("C1", mention.ts)
    assert slack.file(file).split()[:10_000] == ["word"] * 10_000
    assert "credits" not in file["text"]
    assert footer(below).startswith("0.00 credits")
    assert buttons(below["blocks"]) == ["Undo"]


def test_buttons_below_a_file_are_sent_once_if_slack_does_not_say_that_it_has_them(
    slack, mention, answered
):
    change(answered)
    TaskRun.objects.update(answer="word " * 10_000)
    slack.fail_next("chat.postMessage", "fatal_error")
    answer = deliver(claim(answered, mention))
    assert answer.state == "sending"
    deliver_again(answer)
    assert answer.state == "sent"
    [file, below] = slack.bot_messages("C1", mention.ts)
    assert (bool(file.get("files")), buttons(below["blocks"])) == (True, ["Undo"])


def test_the_last_part_of_an_answer_ends_with_its_cost_and_buttons(slack, mention, answered):
    change(answered)
    TaskRun.objects.update(answer="word " * 1_500)
    slack.take_at_most(4_000)
    deliver(claim(answered, mention))
    posted = slack.bot_messages("C1", mention.ts)
    assert len(posted) > 2
    assert [len(each.get("blocks", ())) > 0 for each in posted] == [False] * (len(posted) - 1) + [
        True
    ]
    assert footer(posted[-1]).startswith("0.00 credits")
    assert buttons(posted[-1]["blocks"]) == ["Undo"]


@pytest.mark.case("U10")
@pytest.mark.parametrize(
    "text",
    [
        "x" * 40_000,
        "line\n" * 8_000,
        "```\n" + "code & <tags>\n" * 2_800 + "```",
        "👋🏽 <@U1> <!channel> " * 2_000,
        "\u202eשלום " * 6_000,
    ],
)
def test_an_answer_of_any_length_arrives_whole(slack, mention, answered, text):
    TaskRun.objects.update(answer=text)
    answer = deliver(claim(answered, mention))
    assert answer.state == "sent"
    messages = slack.bot_messages("C1", mention.ts)
    shown = "".join(
        slack.file(each) if each.get("files") else wording.unescape(each["text"])
        for each in messages
    )
    assert "".join(text.split()) in "".join(shown.split())


def test_an_answer_whose_blocks_are_refused_is_posted_as_text(slack, mention, answered):
    slack.fail_next("chat.postMessage", "invalid_blocks")
    deliver(claim(answered, mention))
    [text] = texts(slack, mention)
    assert text.startswith("It is **42**.\n\n0.00 credits · ")
