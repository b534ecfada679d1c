"""What the bot says, except for denials: pure functions that return Slack mrkdwn.

They escape every text that comes from a person or a model, so that callers can't forget it.
"""

from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

from coding_tasks.publishing.outcomes import UndoRefusal
from coding_tasks.repositories.bounds import Bounds
from coding_tasks.storable import storable

_WORK_STATES = {
    "queued": "about to start",
    "running": "working",
    "paused": "paused until there are credits",
    "succeeded": "answered",
    "active": "answered",
}


def escape(text: str) -> str:
    """Return text escaped, so that Slack shows it literally: no pings, no links.

    Characters that databases can't store (NUL, lone surrogates) are removed or replaced.
    https://docs.slack.dev/messaging/formatting-message-text/#escaping
    """
    return storable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """Undo `escape`, for places that show text literally."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def person(user_id: str) -> str:
    """Return the mrkdwn that mentions a Slack user."""
    return f"<@{user_id}>"


# --- Credits -------------------------------------------------------------------------------------
def work_state(state: str) -> str:
    """Return the state of a task or of one of its runs in words."""
    return _WORK_STATES.get(state, state)


def credits_running_low(
    percent: int,
    resets_at: datetime | None,
    *,
    credits_name: str,
    billing_url: str,
    time_zone: str = "UTC",
) -> str:
    """Warn that some or all of the period's credits are used."""
    share = "all" if percent >= 100 else f"{percent} %"
    sentences = [f"Your team has used {share} of its {escape(credits_name)} for this period."]
    sentences += reset_sentences(resets_at, time_zone)
    sentences.append(f"Top up at {escape(billing_url)}.")
    return " ".join(sentences)


def credits_are_back(*, credits_name: str) -> str:
    """Say that a team has credits again."""
    return f"Your team has {escape(credits_name)} again."


def credits_status(
    *,
    remaining: str | None,
    resets_at: datetime | None,
    bot_name: str,
    time_zone: str = "UTC",
    state: str = "ok",
) -> str:
    """Answer `status` with the credits left; `remaining` is None if there is no limit."""
    name = escape(bot_name)
    if remaining is None:
        return f"Your team's {name} AI credits have no limit."
    left = f"Your team has {escape(remaining)} {name} AI credits left."
    near = [NEAR_THE_LIMIT[state]] if state in NEAR_THE_LIMIT else []
    return " ".join([left, *near, *reset_sentences(resets_at, time_zone)])


NEAR_THE_LIMIT = {
    "warning": "That is close to the limit.",
    "grace": "The limit is reached, and a few days of grace are left.",
}
"""What to say about the states of an account in which work still starts."""


def reset_sentences(resets_at: datetime | None, time_zone: str) -> list[str]:
    """Return the sentence that says when the credits reset; no sentence without a reset time.

    It gives the day in `time_zone`, and names the zone unless it is UTC.
    """
    if resets_at is None:
        return []
    day = f"{resets_at.astimezone(ZoneInfo(time_zone)):%Y-%m-%d}"
    return [
        f"They reset on {day}." if time_zone == "UTC" else f"They reset on {day} ({time_zone})."
    ]


def credits_unknown() -> str:
    """Answer `status` when neither Redis nor the database can answer."""
    return "I cannot look up your team's credits just now. Please try again in a minute."


def asker_unknown() -> str:
    """Answer a command or a click when Slack does not say who made it."""
    return "I cannot find out from Slack who you are just now. Please try again in a minute."


# --- Who may use the bot -------------------------------------------------------------------------
def no_access_for_outsiders(user_id: str, *, bot_name: str) -> str:
    """Refuse a guest, an external user or an unknown user."""
    return (
        f"Sorry, {person(user_id)}: only full members of this workspace can use "
        f"{escape(bot_name)}; guests and people from other organizations cannot."
    )


def no_access_without_membership(user_id: str, *, bot_name: str, organization: str) -> str:
    """Refuse somebody who is not a member of the organization, and say how to get access."""
    return (
        f"Sorry, {person(user_id)}: only members of {escape(organization)} can use "
        f"{escape(bot_name)} here. To get access, ask one of its administrators to add you "
        "with the e-mail address of your Slack profile."
    )


def not_your_task(user_id: str, *, owner_id: str, bot_name: str) -> str:
    """Refuse to take instructions for somebody else's task."""
    return (
        f"{person(user_id)}, this thread's task belongs to {person(owner_id)}, so I take replies "
        f"from {person(owner_id)} only. Mention {escape(bot_name)} in a new thread to start "
        f"your own, or {person(owner_id)} can let you join."
    )


def joined(user_id: str, *, by: str) -> str:
    """Say that somebody may write to another person's task. `by` is mrkdwn."""
    return (
        f"{person(user_id)} can write to this task too, as {by} decided. "
        f"What {person(user_id)} asks for counts as their own usage."
    )


def joined_no_more(user_id: str, *, by: str) -> str:
    """Say that somebody may no longer write to another person's task. `by` is mrkdwn."""
    return f"{person(user_id)} can no longer write to this task, as {by} decided."


def an_administrator() -> str:
    """Name a person who decided something in the admin."""
    return "an administrator"


def join_button() -> str:
    """Label the button that lets somebody write to the task."""
    return "Let them join"


def remove_button() -> str:
    """Label the button that removes a participant."""
    return "Remove"


def join_not_yours(user_id: str, *, owner_id: str) -> str:
    """Say that only the owner decides who may write to the task."""
    return f"{person(user_id)}, only {person(owner_id)} can decide who writes to this task."


def join_without_access(user_id: str, *, bot_name: str) -> str:
    """Say that somebody cannot join, because they may not use the bot at all."""
    return (
        f"{person(user_id)} cannot join, because they may not use {escape(bot_name)} here. "
        "An administrator can change that."
    )


def join_unknown(user_id: str) -> str:
    """Say that somebody cannot join now, because Slack does not say who they are."""
    return (
        f"I cannot find out from Slack who {person(user_id)} is just now. "
        "Please try again in a minute."
    )


def join_too_late() -> str:
    """Say that the task has ended, so nobody can join it."""
    return "This task has ended, so nobody can join it any more."


# --- Repository picker ---------------------------------------------------------------------------
def picker_question(user_id: str) -> str:
    """Ask which repository a mention is about."""
    return f"{person(user_id)}, which repository is this about? Only {person(user_id)} can choose."


def picker_placeholder() -> str:
    """Return the text inside the empty picker (plain text, at most 150 characters)."""
    return "Search repositories"


def picker_none() -> str:
    """Label the option of the picker for a question that needs no code (plain text)."""
    return "No repository: just answer"


def other_repository_button() -> str:
    """Label the button of an answer that starts its request anew on another repository."""
    return "Other repository"


def other_repository_question(user_id: str) -> str:
    """Ask on which repository a request is to be started anew."""
    return (
        f"{person(user_id)}, on which repository should I start this request anew? "
        f"Only {person(user_id)} can choose."
    )


def started_anew(user_id: str, *, repository: str) -> str:
    """Say that a request was started anew, in place of the picker. `repository` may be empty."""
    on = f"on *{escape(repository)}*" if repository else "without a repository"
    return f"Started this request anew {on}, as {person(user_id)} asked."


def started_anew_already(user_id: str) -> str:
    """Say that a request cannot be started anew."""
    return f"{person(user_id)}, this request was started anew already, or it is too old for that."


def thread_is_busy(user_id: str) -> str:
    """Say that a request cannot be started anew while the thread has work."""
    return (
        f"{person(user_id)}, I am still at work in this thread. "
        "Wait for my answer or stop me, and choose again."
    )


def picker_chosen(repository: str) -> str:
    """Say which repository was chosen, in place of the picker. `repository` may be empty."""
    return f"Repository: *{escape(repository) or 'none'}*"


def picker_not_yours(user_id: str, *, owner_id: str) -> str:
    """Refuse a choice made by somebody else."""
    return f"{person(user_id)}, only {person(owner_id)} can choose the repository here."


def picker_expired(user_id: str, *, bot_name: str) -> str:
    """Refuse a choice that comes too late."""
    return (
        f"{person(user_id)}, this choice is no longer open. "
        f"Mention {escape(bot_name)} again to start over."
    )


def picker_invalid(user_id: str) -> str:
    """Refuse a choice that the picker never offered."""
    return (
        f"{person(user_id)}, that is not one of the repositories I offered. "
        "Please choose from the list."
    )


def no_repositories(user_id: str, *, bot_name: str) -> str:
    """Say that the project has no repository."""
    return (
        f"{person(user_id)}, {escape(bot_name)} has no repository to work on yet. "
        "Ask an administrator to add one."
    )


# --- Work ----------------------------------------------------------------------------------------
def answer(text: str) -> str:
    """Return an agent's whole answer, escaped, however long it is."""
    return escape(text.strip()) or "I have no answer."


def change_made(*, files: int, added: int, removed: int, branch: str, pushed: bool) -> str:
    """Say what a run changed, and on which branch."""
    noun = "file" if files == 1 else "files"
    end = ", which is pushed." if pushed else "."
    made = f"Changed {files:,} {noun} (+{added:,} −{removed:,})"
    return f"{made} on the branch `{escape(branch)}`{end}"


def change_published(made: str, *, pull_request: str, note: str) -> str:
    """Add where the change can be reviewed, or why it cannot."""
    where = f"Pull request: {escape(pull_request)}" if pull_request else ""
    return " ".join(filter(None, [made, where, escape(note)]))


def change_as_file(branch: str) -> str:
    """Introduce the file with a change."""
    return f"The change on `{escape(branch)}`, for `git apply`:"


def left_file(name: str) -> str:
    """Introduce a file that an agent left for people."""
    return f"A file from this work: {escape(name)}"


def publish_question(user_id: str, reasons: Iterable[str]) -> str:
    """Ask whether a change is to be published, and say why it was not yet."""
    listed = "\n".join(f"• {escape(reason)}" for reason in reasons)
    return f"{person(user_id)}, I have not pushed this change yet:\n{listed}\nShall I push it?"


def publish_button() -> str:
    """Label the button that publishes the change."""
    return "Push it anyway"


def publish_not_yours(user_id: str, *, owner_id: str) -> str:
    """Say that only the owner of the task can publish the change."""
    return f"{person(user_id)}, only {person(owner_id)}, whose task this is, can decide this."


def agent_missing(agent: str) -> str:
    """Say that the agent is not installed on this server."""
    return (
        f"The agent {escape(agent)} is not installed on this server. An administrator can install "
        "it, or choose another one."
    )


def sandbox_missing() -> str:
    """Say that this server cannot run code safely."""
    return (
        "This server cannot run an agent safely, so I changed nothing. An administrator can find "
        "the reason in the log of the agent worker."
    )


def no_agent_worker() -> str:
    """Say that no process takes the work."""
    return (
        "No agent worker took this work, so I changed nothing. All may be busy: try again later, "
        "or ask an administrator to start one."
    )


def agent_ended(agent: str) -> str:
    """Say that the agent neither answered nor changed anything."""
    return f"The agent {escape(agent)} ended without an answer and changed nothing."


def answer_in_file(user_id: str, *, cost: str = "") -> str:
    """Introduce the file with an answer that is too long for a message. `cost` is mrkdwn."""
    text = f"{person(user_id)}, my answer is too long for a message, so it is in this file."
    return f"{text}\n{cost}" if cost else text


def used(credits: str) -> str:
    """Say what an answer cost. `credits` is the number, as people read it."""
    return f"{escape(credits)} credits"


def where(repository: str) -> str:
    """Say which repository an answer is about. `repository` may be empty."""
    return escape(repository) or "no repository"


def on_branch(branch: str) -> str:
    """Say which branch an answer is about. An empty `branch` means the default branch."""
    return f"`{_in_code(branch)}`" if branch else "default branch"


def link(address: str, label: str) -> str:
    """Return the mrkdwn of a link."""
    return f"<{escape(address)}|{escape(label)}>"


# --- Progress ------------------------------------------------------------------------------------
def working_on(repository: str, branch: str) -> str:
    """Say where the bot works."""
    if not repository:
        return "Working without a repository"
    on = f" on `{_in_code(branch)}`" if branch else ""
    return f"Working on *{escape(repository)}*{on}"


def step(number: int, action: str) -> str:
    """Say what the bot does at present. `action` is an agent's text."""
    return f"Step {number}: `{_in_code(action)}`"


def reading() -> str:
    """Say what the bot does before it reports a step."""
    return "Reading and thinking…"


def so_far(elapsed: str, credits: str) -> str:
    """Say how long the work has taken, and what it has used."""
    return f"{escape(elapsed)} · {escape(credits)} credits so far"


def work_has_ended() -> str:
    """Replace progress that Slack doesn't let us delete."""
    return "This work has ended."


def stop_button() -> str:
    """Label the button that stops the work."""
    return "Stop"


def stop_button_used(user_id: str) -> str:
    """Tell somebody who clicked a stop button that the work has ended."""
    return f"{person(user_id)}, this work has already ended, so there is nothing to stop."


def elapsed(seconds: int) -> str:
    """Return a time as people say it. Long times are less exact."""
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _in_code(text: str) -> str:
    """Return a text for inline code, without the backticks and newlines that would end it."""
    return escape(" ".join(text.replace("`", "'").split())) or " "


def answer_elsewhere(user_id: str, *, page: str) -> str:
    """Say that an answer could not be posted, and where an administrator finds it."""
    return (
        f"{person(user_id)}, Slack did not let me post my answer. It is not lost: "
        f"an administrator can read it at {escape(page)}"
    )


def provider_unavailable() -> str:
    """Say that the model's provider did not answer, despite retries."""
    return "The AI provider did not answer, even after several attempts. Please try again later."


def repository_unavailable(repository: str) -> str:
    """Say that the repository could not be fetched."""
    return (
        f"I could not fetch {escape(repository)}. "
        "Ask an administrator to check its address and my access to it."
    )


def repository_too_big(repository: str, bounds: Bounds) -> str:
    """Say that the repository is too large to be unpacked."""
    return (
        f"{escape(repository)} is too big for me. I take up to {bounds.entries:,} files and "
        f"folders with {bounds.size // 1_000_000:,} MB in all, nested up to {bounds.depth} deep, "
        f"with paths of up to {bounds.path:,} bytes."
    )


def repository_not_unpacked(repository: str) -> str:
    """Say that git could not write out the repository's files."""
    return (
        f"I fetched {escape(repository)}, but I could not unpack it. "
        "Ask an administrator to check it for damaged files and file names that are not allowed."
    )


def out_of_credits(*, credits_name: str) -> str:
    """Say that the work was given up because no credits were added for too long."""
    return f"I gave up: there were too few {escape(credits_name)} for too long."


def run_cap_reached(*, credits_name: str) -> str:
    """Say that the work reached the gateway's cap for one task, which no top-up changes."""
    return (
        f"I had to stop half-way. This task has used the {escape(credits_name)} that one task may "
        "use. Try a smaller request."
    )


def accepted_cap_reached(*, credits_name: str) -> str:
    """Say that the work used the number of credits that somebody accepted for it."""
    return (
        f"I had to stop half-way. This has used the {escape(credits_name)} that were accepted for "
        "it. Ask again to go on."
    )


def stores_out() -> str:
    """Say that the work was given up because our own stores were down for too long."""
    return "I gave up: a part of me has been down for too long. Please try again later."


def gateway_out() -> str:
    """Say that the work was given up because our own gateway was down for too long."""
    return (
        "I gave up: my connection to the AI provider has been down for too long. "
        "Please try again later."
    )


def calls_throttled() -> str:
    """Say that the work was given up because it kept calling the model too often."""
    return (
        "I gave up: this task kept making more calls to the AI model at once than a task may make."
    )


def credits_held(*, credits_name: str, billing_url: str) -> str:
    """Say that the work was given up because other tasks held the credits for too long."""
    return (
        f"I gave up waiting: other tasks of your team are using the {escape(credits_name)} that "
        f"are left. Try again when they have finished, or top up at {escape(billing_url)}."
    )


def took_too_long() -> str:
    """Say that the work was given up after its time limit."""
    return "I stopped because this took too long. Try a smaller request."


def not_pushed_by_our_fault() -> str:
    """Say that the change was not pushed because of an error of ours."""
    return "Not pushed, because something went wrong here. The change is kept."


def not_pushed_after_a_stop() -> str:
    """Say that the change was not pushed because the work was stopped."""
    return "Not pushed. The work was stopped first."


def given_back(credits: str) -> str:
    """Say how many credits were given back. `credits` is the number, as people read it."""
    return f"This used {escape(credits)} credits, which were given back."


def failed(user_id: str = "") -> str:
    """Say that something went wrong for which there is no other sentence."""
    begin = f"{person(user_id)}, something" if user_id else "Something"
    return (
        f"{begin} went wrong and I could not finish this. "
        "The error has been logged; please try again."
    )


# --- The thread -----------------------------------------------------------------------------------
def what_to_do(user_id: str) -> str:
    """Ask what to do about a mention without a text."""
    return f"{person(user_id)}, what should I do? Reply here, and I will start."


def thread_has_ended(user_id: str, *, bot_name: str) -> str:
    """Tell somebody who replied in a thread that has ended how to go on."""
    return (
        f"{person(user_id)}, the work in this thread has ended, so I do not act on replies here. "
        f"Mention {escape(bot_name)} to go on."
    )


def stopped(
    user_id: str, *, credits: str | None, in_flight: bool, bot_name: str, pushing: bool = False
) -> str:
    """Say that the work was stopped, and what it used. `credits` is None if it used none."""
    name = f"{escape(bot_name)} AI credits"
    used = f"It has used {escape(credits)} {name}." if credits else f"It has used no {name}."
    sentences = [f"Stopped, as {person(user_id)} asked.", used]
    if in_flight:
        sentences.append("The AI provider may still have been answering, which is charged as well.")
    if pushing:
        sentences.append("The change was already being pushed; the answer says what came of that.")
    sentences.append(f"Mention {escape(bot_name)} to start again.")
    return " ".join(sentences)


def not_yours_to_stop(user_id: str, *, owner_id: str) -> str:
    """Refuse to stop somebody else's work."""
    return f"{person(user_id)}, only {person(owner_id)} can stop the work in this thread."


def nothing_to_stop(user_id: str) -> str:
    """Answer an order to stop when nothing was running."""
    return (
        f"{person(user_id)}, nothing was running in this thread when you wrote that, "
        "so there is nothing to stop."
    )


def in_line(most: int) -> str:
    """Say that work begins once other work of the project has ended."""
    at_once = "1 task" if most == 1 else f"{most} tasks"
    return f"I work on {at_once} of this project at once, so this waits for a free place."


# --- Slash command -------------------------------------------------------------------------------
def command_help(command: str, *, bot_name: str) -> str:
    """Explain the slash command and how to use the bot."""
    name = f"`{escape(command)}"
    return (
        f"{name} status` shows your running work, and the AI credits your team has left.\n"
        f"{name} usage` shows what you and your team have used.\n"
        f"{name} top` shows who used most, to those who approve credits.\n"
        f"{name} stop` ends your own work in this channel.\n"
        f"To start work, mention {escape(bot_name)} in a channel and say what to do. If there are "
        "several repositories, name one as `owner/name`. Reply in the thread to go on, or say "
        "`stop` there to end the work."
    )


def stopped_here(threads: int) -> str:
    """Say in how many threads of a channel work was stopped."""
    where = "1 thread" if threads == 1 else f"{threads} threads"
    return f"Stopped your work in {where} of this channel. Each thread says what it used."


def nothing_to_stop_here() -> str:
    """Answer an order to stop in a channel where nothing is running for the person."""
    return "Nothing of yours is running in this channel, so there is nothing to stop."


def spenders_are_private() -> str:
    """Refuse to say who used most."""
    return "Only people who may approve credits can see who used most."


def nothing_used(since: datetime) -> str:
    """Say that nobody used anything in the period."""
    return f"Since {since:%Y-%m-%d}, nobody has used any credits."


def used_by_team(since: datetime, credits: str) -> str:
    """Say what the team used in the period."""
    return f"Since {since:%Y-%m-%d}, your team has used {escape(credits)} credits."


def other_spenders(count: int, credits: str) -> str:
    """Say what all the others used together."""
    who = "1 other" if count == 1 else f"{count:,} others"
    return f"• {who}: {escape(credits)} credits"


def workspace_not_connected(*, bot_name: str) -> str:
    """Answer a command from a workspace that has no (active) installation."""
    return f"{escape(bot_name)} is not connected to this workspace."


# --- After a run ----------------------------------------------------------------------------------
def start_again_button() -> str:
    """Label the button that starts failed or stopped work again."""
    return "Start again"


def go_on_button() -> str:
    """Label the button that continues stopped work."""
    return "Continue"


def started_again(user_id: str) -> str:
    """Replace a button that started work again."""
    return f"{person(user_id)} started this again."


def went_on(user_id: str) -> str:
    """Replace a button that continued stopped work."""
    return f"{person(user_id)} continued this."


def not_yours_to_repeat(user_id: str, *, owner_id: str) -> str:
    """Refuse to start somebody else's work again."""
    return (
        f"{person(user_id)}, only {person(owner_id)}, who asked for this work, can decide what "
        "happens next here."
    )


def repeated_already(user_id: str) -> str:
    """Say that work cannot be started again, because it was started already or is too old."""
    return f"{person(user_id)}, this was started again already, or it is too old for that."


def undo_button() -> str:
    """Label the button that undoes a change."""
    return "Undo"


def undo_confirmation() -> dict[str, object]:
    """Return the question that Slack asks before a change is undone."""

    def plain(text: str) -> dict[str, str]:
        return {"type": "plain_text", "text": text}

    return {
        "title": plain("Undo this change?"),
        "text": plain(
            "The branch will be as it was before this answer. A pull request without other "
            "changes is closed. This costs no credits."
        ),
        "confirm": plain("Undo it"),
        "deny": plain("Keep it"),
    }


def undone(user_id: str, outcome: str) -> str:
    """Say how undoing a change ended."""
    return f"{person(user_id)}: {escape(outcome)}"


def not_yours_to_undo(user_id: str, *, owner_id: str) -> str:
    """Refuse to undo a change that somebody else asked for."""
    return f"{person(user_id)}, only {person(owner_id)} can undo this change."


def cannot_undo(user_id: str, refusal: UndoRefusal) -> str:
    """Say why a change cannot be undone now."""
    why = {
        UndoRefusal.NO_CHANGE: "there is no change to undo any more.",
        UndoRefusal.AT_WORK: "I am at work on this. Wait or stop me, and then try again.",
        UndoRefusal.BUILT_ON: "a later answer builds on this change. Undo that one first.",
    }
    return f"{person(user_id)}, {why[refusal]}"
