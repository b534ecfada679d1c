"""Activities that choose a mention's repository: the only, named, usual or likely one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from django.conf import settings
from temporalio import activity

from coding_tasks.failures import OutOfCredits
from coding_tasks.models import ChannelDefault, Repository, RepositoryRule
from coding_tasks.models.repository_rules import repository_by_rules
from projects.models import Project
from workflows import denials, notices, wording
from workflows.activities import rows
from workflows.activities.outages import report_failures, report_outages
from workflows.mention_types import NO_REPOSITORY, STOPPED, MentionRef, out_of_credits
from workflows.messages import run_buttons
from workflows.models import Mention, Notice
from workflows.requests import all_that_was_asked, texts_of
from workflows.results import failure_wording
from workflows.slack import picker
from workflows.stopping import work


@dataclass(frozen=True)
class RepositoryAnswer:
    """The repository, or the notice that ends the mention. With neither, keep looking.

    The repository can be `NO_REPOSITORY`.
    """

    repository_id: int | None = None
    notice_id: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class GivenUp:
    """A mention whose repository could not be guessed in time, and the type of the failure."""

    mention_id: str
    failure: str


@dataclass(frozen=True)
class PickerNotice:
    """The message that offers the picker, that closes it, or that says why there is none.

    None if the work was stopped, because the thread was told about the stop.
    """

    notice_id: str | None


class Classifier(Protocol):
    """Guesses which repository a request is about."""

    def choose(
        self,
        project: Project,
        request: str,
        names: Sequence[str],
        *,
        distinct_id: str,
        trace_id: str,
    ) -> str | None:
        """Return one of the names, or None if the request does not say.

        The call's usage is recorded for the user `distinct_id`, as part of the trace. Raises
        `OutOfCredits` and `RunFailure`.
        """
        ...


class RepositoryActivities:
    """Ways to find the repository. The workflow tries the cheap and certain ones first."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    @activity.defn
    def choose_repository(self, about: MentionRef) -> RepositoryAnswer:
        """Return the repository chosen before, the project's only one, or the one the text names.

        If it names none, the first rule that applies decides, or else the channel's default.
        """
        mention = rows.mention(about.mention_id)
        if work.was_stopped(mention):
            return RepositoryAnswer(reason=STOPPED)
        repositories = _repositories(mention)
        if mention.chosen_repository in (NO_REPOSITORY, *(each.pk for each in repositories)):
            return RepositoryAnswer(mention.chosen_repository)
        if mention.repeats and mention.repeats.task.repository in repositories:
            return RepositoryAnswer(mention.repeats.task.repository_id)
        if not repositories:
            text = wording.no_repositories(mention.user_id, bot_name=settings.BOT_NAME)
            failure = _claim_failure(mention, f"no-repositories:{mention.pk}", text)
            return RepositoryAnswer(notice_id=failure, reason="no repository")
        if len(repositories) == 1:
            return RepositoryAnswer(repositories[0].pk)
        asked = "\n".join(texts_of(mention))
        named = [found for found in repositories if _is_named(found.full_name, asked)]
        if len(named) == 1:
            return RepositoryAnswer(named[0].pk)
        if named:
            return RepositoryAnswer(None)
        return RepositoryAnswer(_by_rule(mention) or _default_of_channel(mention))

    @activity.defn
    @report_outages()
    def classify_repository(self, about: MentionRef) -> RepositoryAnswer:
        """Return the repository that a small model chooses, or the denial if there are no credits.

        Fails if there is no answer; the failure says whether another attempt can help. If the work
        has to wait, the workflow waits, as for `CodingActivities.run_agent`.
        """
        mention = rows.mention(about.mention_id)
        if work.was_stopped(mention):
            return RepositoryAnswer(reason=STOPPED)
        repositories = {found.full_name: found for found in _repositories(mention)}
        try:
            with report_failures():
                name = self._classifier.choose(
                    mention.project,
                    all_that_was_asked(mention),
                    list(repositories),
                    distinct_id=mention.workspace.distinct_id(mention.user_id),
                    trace_id=mention.trace_id,
                )
        except OutOfCredits as refusal:
            denial = denials.claim_after_gateway_refusal(mention, mention.project, refusal)
            return RepositoryAnswer(notice_id=str(denial.pk), reason=out_of_credits("classifier"))
        return RepositoryAnswer(repositories[name].pk if name else None)

    @activity.defn
    def offer_repositories(self, about: MentionRef) -> PickerNotice:
        """Claim the message with the picker."""
        mention = rows.mention(about.mention_id)
        notice = notices.claim(
            f"picker:{mention.pk}",
            Notice.Kind.PICKER,
            mention,
            wording.picker_question(mention.user_id),
            blocks=picker.blocks(mention.pk, mention.user_id),
        )
        return PickerNotice(str(notice.pk))

    @activity.defn
    def close_picker(self, about: MentionRef) -> PickerNotice:
        """Claim the message saying that no repository was chosen in time."""
        mention = rows.mention(about.mention_id)
        if work.was_stopped(mention):
            return PickerNotice(None)
        text = wording.picker_expired(mention.user_id, bot_name=settings.BOT_NAME)
        key = f"picker-expired:{mention.pk}"
        return PickerNotice(_claim_failure(mention, key, text))

    @activity.defn
    def give_up(self, given_up: GivenUp) -> PickerNotice:
        """Claim the message that says why the work did not begin."""
        mention = rows.mention(given_up.mention_id)
        text = failure_wording.sentence(given_up.failure, user_id=mention.user_id)
        return PickerNotice(_claim_failure(mention, f"failed:{mention.pk}", text))


def _claim_failure(mention: Mention, key: str, text: str) -> str:
    """Return the id of the notice that says why no work began, creating it if needed."""
    blocks = run_buttons.below(text, run_buttons.start_mention_again(mention.pk))
    return str(notices.claim(key, Notice.Kind.FAILURE, mention, text, blocks=blocks).pk)


def _repositories(mention: Mention) -> list[Repository]:
    return list(Repository.objects.filter(project=mention.project).order_by("full_name"))


def _by_rule(mention: Mention) -> int | None:
    """Return the repository of the project's first rule that applies to the request."""
    project = mention.project
    rules = RepositoryRule.objects.filter(project=project, repository__project=project)
    return repository_by_rules(rules.order_by("position", "pk"), all_that_was_asked(mention))


def _default_of_channel(mention: Mention) -> int | None:
    default = ChannelDefault.objects.filter(
        workspace=mention.workspace,
        channel_id=mention.channel_id,
        repository__project=mention.project,
    ).first()
    return default.repository_id if default else None


def _is_named(full_name: str, text: str) -> bool:
    """Return whether the text contains the repository's name, alone or in its address."""
    name = re.escape(full_name)
    return bool(re.search(rf"(?<![\w.-]){name}(?:\.git)?(?![\w-]|\.\w)", text, re.IGNORECASE))
