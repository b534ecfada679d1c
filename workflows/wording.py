"""Every sentence the bot says, as pure functions: no clock, no settings, no network.

All of them return Slack mrkdwn. Whatever comes from a person or a model passes through `escape`
here, so that a caller cannot forget it.
"""

from datetime import UTC, datetime

from coding_tasks.storable import storable

# Slack cuts a message's text off after 40,000 characters: cut it ourselves, and say so.
# https://docs.slack.dev/reference/methods/chat.postMessage/#truncating
_LONGEST_TEXT = 39_000
_SHORTENED = "\n… (shortened)"

_CREDITS_USED = "Your team has used its monthly {bot_name} AI credits."
_DENIAL_FIRST_SENTENCES = {
    "limit_reached": _CREDITS_USED,
    # Whoever writes the published set by hand leaves no reason: another billing system, mostly.
    "set_by_hand": _CREDITS_USED,
    "insufficient_remaining": "Your team has too few {bot_name} AI credits left to {purpose}.",
    "organization_inactive": (
        "Your team's {bot_name} AI credits are switched off: its organization is not active."
    ),
    "project_cap_reached": "This project has used its share of your team's {bot_name} AI credits.",
    "user_cap_reached": "You have used your share of your team's {bot_name} AI credits.",
    "run_cap_reached": "This task has used the {bot_name} AI credits that one task may use.",
}
_DENIAL_OTHERWISE = "Your team cannot use its {bot_name} AI credits at the moment."


def escape(text: str) -> str:
    """Return text so that Slack shows it literally: `<!channel>` pings nobody, `<…>` links nothing.

    What no database column holds (NUL, lone surrogates) is left out or replaced.
    https://docs.slack.dev/messaging/formatting-message-text/#escaping
    """
    return storable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def person(user_id: str) -> str:
    """Return the mrkdwn that names a Slack user."""
    return f"<@{user_id}>"


# --- Credits -------------------------------------------------------------------------------------
def denial(
    reason: str | None,
    resets_at: datetime | None,
    *,
    bot_name: str,
    billing_url: str,
    half_way: bool = False,
) -> str:
    """Say that the team is out of credits, when they come back (in UTC) and where to top up.

    `resets_at` is aware, or None where there is no reset time. An unknown reason gets a sentence
    that is true of all. `half_way`: work had begun.
    """
    first = _DENIAL_FIRST_SENTENCES.get(reason or "", _DENIAL_OTHERWISE)
    purpose = "go on" if half_way else "start"
    sentences = [first.format(bot_name=escape(bot_name), purpose=purpose)]
    if half_way:
        sentences.insert(0, "I had to stop half-way.")
    sentences += _reset(resets_at)
    sentences.append(f"Top up at {escape(billing_url)} to continue.")
    return " ".join(sentences)


def credits_running_low(
    percent: int, resets_at: datetime | None, *, credits_name: str, billing_url: str
) -> str:
    """Warn that a share of the period's credits is used, or all of it."""
    share = "all" if percent >= 100 else f"{percent} %"
    sentences = [f"Your team has used {share} of its {escape(credits_name)} for this period."]
    sentences += _reset(resets_at)
    sentences.append(f"Top up at {escape(billing_url)}.")
    return " ".join(sentences)


def credits_are_back(*, credits_name: str) -> str:
    """Say that a team that had used its credits has some again."""
    return f"Your team has {escape(credits_name)} again."


def credits_status(
    *,
    remaining: str | None,
    denial_text: str | None,
    resets_at: datetime | None,
    bot_name: str,
) -> str:
    """Answer `status`: the denial when limited, else what is left (None: no limit is set)."""
    if denial_text is not None:
        return denial_text
    name = escape(bot_name)
    if remaining is None:
        return f"Your team's {name} AI credits have no limit."
    left = f"Your team has {escape(remaining)} {name} AI credits left."
    return " ".join([left, *_reset(resets_at)])


def _reset(resets_at: datetime | None) -> list[str]:
    """Return the sentence that says when the credits come back, in UTC; none without a time."""
    return [] if resets_at is None else [f"They reset on {resets_at.astimezone(UTC):%Y-%m-%d}."]


def credits_unknown() -> str:
    """Answer `status` when neither Redis nor the database can tell."""
    return "I cannot look up your team's credits just now. Please try again in a minute."


def asker_unknown() -> str:
    """Answer `status` when Slack does not say who asks."""
    return "I cannot find out from Slack who you are just now. Please try again in a minute."


# --- Who may use the bot -------------------------------------------------------------------------
def no_access_for_outsiders(user_id: str, *, bot_name: str) -> str:
    """Refuse a guest, an external user or an unknown one."""
    return (
        f"Sorry, {person(user_id)}: only full members of this workspace can use "
        f"{escape(bot_name)}; guests and people from other organizations cannot."
    )


def no_access_without_membership(user_id: str, *, bot_name: str, organization: str) -> str:
    """Refuse somebody who is not a member of the organization, and say how to get access."""
    return (
        f"Sorry, {person(user_id)}: here {escape(bot_name)} works for members of "
        f"{escape(organization)} only. To get access, ask one of its administrators to add you "
        "with the e-mail address of your Slack profile."
    )


def not_your_task(user_id: str, *, owner_id: str, bot_name: str) -> str:
    """Refuse to steer somebody else's task."""
    return (
        f"{person(user_id)}, this thread's task belongs to {person(owner_id)}, so I take replies "
        f"from {person(owner_id)} only. Mention {escape(bot_name)} in a new thread to start "
        "your own."
    )


# --- Repository picker ---------------------------------------------------------------------------
def picker_question(user_id: str) -> str:
    """Ask which repository a mention is about."""
    return f"{person(user_id)}, which repository is this about?"


def picker_placeholder() -> str:
    """Text inside the empty picker (plain text, at most 150 characters)."""
    return "Search repositories"


def picker_chosen(repository: str) -> str:
    """Take the picker's place once a repository was chosen."""
    return f"Repository: *{escape(repository)}*"


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
    return f"{person(user_id)}, that is not a repository I offered. Please choose one of the list."


def no_repositories(user_id: str, *, bot_name: str) -> str:
    """Say that the project has nothing to work on."""
    return (
        f"{person(user_id)}, {escape(bot_name)} has no repository to work on yet. "
        "Ask an administrator to add one."
    )


# --- Work ----------------------------------------------------------------------------------------
def answer(text: str) -> str:
    """Return an agent's answer, harmless and no longer than Slack shows."""
    escaped = escape(text.strip()) or "I have nothing to answer."
    if len(escaped) <= _LONGEST_TEXT:
        return escaped
    cut = escaped[: _LONGEST_TEXT - len(_SHORTENED)]
    entity = cut.rfind("&", len(cut) - 5)  # "&amp;" must not be cut in half
    if entity != -1 and ";" not in cut[entity:]:
        cut = cut[:entity]
    return cut + _SHORTENED


def provider_unavailable() -> str:
    """Say that the model's provider did not answer, in spite of retries."""
    return "The AI provider did not answer, even after several attempts. Please try again later."


def repository_unavailable(repository: str) -> str:
    """Say that the repository could not be fetched."""
    return (
        f"I could not fetch {escape(repository)}. "
        "Ask an administrator to check its address and my access to it."
    )


def run_cap_reached(*, bot_name: str) -> str:
    """Say that the work was given up at what one task may use, which no top-up changes."""
    return (
        f"I had to stop half-way. This task has used the {escape(bot_name)} AI credits that one "
        "task may use. Try a smaller request."
    )


def stores_out() -> str:
    """Say that the work was given up because our own stores could not be used for too long."""
    return "I gave up: a part of me has been out of order for too long. Please try again later."


def gateway_out() -> str:
    """Say that the work was given up because our own gateway was out of order for too long."""
    return (
        "I gave up: my own connection to the AI provider has been out of order for too long. "
        "Please try again later."
    )


def credits_held(*, bot_name: str, billing_url: str) -> str:
    """Say that the work was given up because other tasks held the credits for too long."""
    return (
        f"I gave up waiting: other tasks of your team hold the {escape(bot_name)} AI credits that "
        f"are left. Try again when they have ended, or top up at {escape(billing_url)}."
    )


def took_too_long() -> str:
    """Say that the work was given up after its time limit."""
    return "I stopped because this took too long. Try a smaller request."


def failed(user_id: str) -> str:
    """Say that something went wrong that has no sentence of its own."""
    return (
        f"{person(user_id)}, something went wrong and I could not finish this. "
        "The error has been logged; please try again."
    )


# --- Slash command -------------------------------------------------------------------------------
def command_help(command: str, *, bot_name: str) -> str:
    """Say what the slash command and the bot understand."""
    return (
        f"`{escape(command)} status` shows the AI credits your team has left. "
        f"To start work, mention {escape(bot_name)} in a channel and say what to do, with the "
        "repository as `owner/name` if there are several. Reply in the thread to go on."
    )


def workspace_not_connected(*, bot_name: str) -> str:
    """Answer a command from a workspace that has no (active) installation."""
    return f"{escape(bot_name)} is not connected to this workspace."
