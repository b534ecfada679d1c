"""Repositories, coding tasks in their threads, the runs of tasks, and what they leave."""

from coding_tasks.models.git_credentials import GitCredential
from coding_tasks.models.kept_changes import ChangeUndo, RunChange, TaskBranch
from coding_tasks.models.kept_files import RunFile
from coding_tasks.models.participants import TaskParticipant
from coding_tasks.models.repository_rules import RepositoryRule
from coding_tasks.models.tasks import (
    AcceptedRequest,
    ChannelDefault,
    CodingTask,
    ProjectAgent,
    Repository,
    RunEvent,
    TaskRun,
    distinct_id_of,
    validate_full_name,
)

__all__ = [
    "AcceptedRequest",
    "ChangeUndo",
    "ChannelDefault",
    "CodingTask",
    "GitCredential",
    "ProjectAgent",
    "Repository",
    "RepositoryRule",
    "RunChange",
    "RunEvent",
    "RunFile",
    "TaskBranch",
    "TaskParticipant",
    "TaskRun",
    "distinct_id_of",
    "validate_full_name",
]
