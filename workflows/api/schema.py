"""The OpenAPI description of the endpoints of coding tasks, with examples."""

from typing import Any

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema_field,
    inline_serializer,
)
from rest_framework import serializers

from coding_tasks.models import CodingTask, TaskRun
from projects.api_answers import PROJECT_ID, answers, problem, response_headers
from quota.resources import RESOURCES
from workflows.api.bodies import KEY, LONGEST_KEY, ORIGINS, MessageBody, NewTaskBody

_TIME = "RFC 3339, UTC."
_STATES = [state.value for state in CodingTask.State]
_RUN_STATES = [state.value for state in TaskRun.State]
_TASK_ID = OpenApiParameter(
    "task_id", {"type": "string", "format": "uuid"}, OpenApiParameter.PATH, description="A task."
)
_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": KEY},
    OpenApiParameter.HEADER,
    description="A request that is sent again with the same key and the same body is done once. "
    "Choose a new key, such as a UUID, for each new request.",
)


_CHANGE = {
    "commit": {"type": "string"},
    "branch": {"type": "string"},
    "files": {"type": "integer"},
    "added": {"type": "integer", "description": "Lines."},
    "removed": {"type": "integer", "description": "Lines."},
    "pushed": {"type": "boolean"},
    "note": {
        "type": "string",
        "nullable": True,
        "description": "Why it is not pushed, or has no pull request.",
    },
    "questions": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Why its owner has to agree before it is pushed.",
    },
}


@extend_schema_field(
    {"type": "object", "nullable": True, "properties": _CHANGE, "required": list(_CHANGE)}
)
class Change(serializers.DictField):
    """The commit that a run made, or null."""


class Step(serializers.Serializer[Any]):
    """One thing that an agent reported. The type decides which other fields there are."""

    type = serializers.ChoiceField(
        ["message", "command", "edit", "tool", "result", "tokens", "answer", "error"]
    )
    text = serializers.CharField(required=False, help_text="Of a message, result, answer or error.")
    command = serializers.CharField(required=False)
    path = serializers.CharField(required=False, help_text="Of an edited file.")
    name = serializers.CharField(required=False, help_text="Of a tool.")
    detail = serializers.CharField(required=False, help_text="Of a tool's use.")
    failed = serializers.BooleanField(required=False, help_text="Whether a result is a failure.")
    complete = serializers.BooleanField(
        required=False, help_text="Whether an answer is complete, rather than cut by a limit."
    )
    reason = serializers.CharField(required=False, help_text="Of an error, in the agent's words.")
    input = serializers.IntegerField(required=False, help_text="Tokens, as the agent counts.")
    output = serializers.IntegerField(required=False)
    cached = serializers.IntegerField(required=False)


_GIVEN_BACK = "What was given back because of our failures. It isn't part of `credits`."


class Call(serializers.Serializer[Any]):
    """A call of a model, as the ledger has it."""

    at = serializers.DateTimeField(help_text=_TIME)
    model = serializers.CharField()
    input = serializers.IntegerField(help_text="Tokens, cached ones included.")
    output = serializers.IntegerField(help_text="Tokens.")
    credits = serializers.FloatField(help_text="0 if it was given back.")


class Run(serializers.Serializer[Any]):
    """One message and the agent's answer to it."""

    id = serializers.UUIDField()
    state = serializers.ChoiceField(
        _RUN_STATES, help_text="`paused` waits for credits, and goes on after a top-up."
    )
    request = serializers.CharField()
    answer = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_null=True, help_text="The kind of failure.")
    message = serializers.CharField(allow_null=True, help_text="Why it failed, in a sentence.")
    credits = serializers.FloatField(help_text="What it used so far.")
    credits_given_back = serializers.FloatField(help_text=_GIVEN_BACK)
    waits_for_place = serializers.BooleanField(
        help_text="Whether it waits until another run of the project ends."
    )
    created_at = serializers.DateTimeField(help_text=_TIME)
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    change = Change(help_text="The commit that it made, if any.")
    calls = Call(many=True, help_text="What each call of a model costs; the newest if many.")
    transcript = Step(many=True, help_text="What the agent did, also while it works.")
    transcript_left_out = serializers.IntegerField(help_text="Earlier steps that are not shown.")


class TaskSummary(serializers.Serializer[Any]):
    """A task."""

    id = serializers.UUIDField()
    origin = serializers.ChoiceField(ORIGINS)
    state = serializers.ChoiceField(_STATES, help_text="`active` while there is work.")
    title = serializers.CharField()
    repository = serializers.CharField(help_text="`owner/name`.")
    repository_id = serializers.IntegerField()
    agent = serializers.CharField()
    model = serializers.CharField(allow_null=True, help_text="Null unless chosen for this task.")
    owner = serializers.CharField(
        allow_null=True, help_text="The user who asked for it. Null if it was a program."
    )
    branch = serializers.CharField(allow_null=True)
    pull_request = serializers.CharField(allow_null=True)
    credits = serializers.FloatField(help_text="What it used so far.")
    credits_given_back = serializers.FloatField(help_text=_GIVEN_BACK)
    created_at = serializers.DateTimeField(help_text=_TIME)
    finished_at = serializers.DateTimeField(allow_null=True)


class Task(TaskSummary):
    """A task with its runs."""

    runs = Run(many=True, help_text="In order; the newest if there are many.")
    runs_left_out = serializers.IntegerField(help_text="Earlier runs that are not shown.")


_DENIED = inline_serializer(
    "CreditsUsedUp",
    {
        "detail": serializers.CharField(),
        "reason": serializers.ChoiceField(["billable_credits"]),
        "cause": serializers.CharField(allow_null=True, help_text="As in `quota_limits`."),
        "resource": serializers.ChoiceField(list(RESOURCES)),
        "resets_at": serializers.DateTimeField(allow_null=True, help_text=_TIME),
    },
)
_REFUSED = {
    403: problem(
        "The credential lacks a scope, does not cover this project, or is not the owner's."
    ),
    404: problem("There is no such project, repository or task for this credential."),
}
_UNREAD = {413: problem("The body is too large."), 415: problem("The body is not JSON.")}
_REUSED = problem("The Idempotency-Key was used for another request.")
_RUN_EXAMPLE: dict[str, Any] = {
    "id": "8d1f5a0e-5d8e-4f5c-9a53-0c3a4f7f6b21",
    "state": "succeeded",
    "request": "Add a --version flag",
    "answer": "I added the flag.",
    "error": None,
    "message": None,
    "credits": 1.25,
    "credits_given_back": 0.0,
    "waits_for_place": False,
    "calls": [
        {
            "at": "2026-11-23T08:00:05Z",
            "model": "claude-sonnet-4-6",
            "input": 2400,
            "output": 310,
            "credits": 1.25,
        }
    ],
    "created_at": "2026-11-23T08:00:00Z",
    "started_at": "2026-11-23T08:00:01Z",
    "finished_at": "2026-11-23T08:00:40Z",
    "change": {
        "commit": "3f682a7c1d7e0c5b7a1f5c7a52cf0ddc4e4d3a10",
        "branch": "tollgate/add-a-version-flag-0b0f7c1e",
        "files": 1,
        "added": 4,
        "removed": 0,
        "pushed": True,
        "note": None,
        "questions": [],
    },
    "transcript": [
        {"type": "command", "command": "grep -rn argparse ."},
        {"type": "result", "text": "shop.py:3:import argparse", "failed": False},
        {"type": "edit", "path": "shop.py"},
        {"type": "answer", "text": "I added the flag.", "complete": True},
    ],
    "transcript_left_out": 0,
}
_SUMMARY_EXAMPLE: dict[str, Any] = {
    "id": "0b0f7c1e-3f0a-4d52-9a41-2f6b8a5f9d10",
    "origin": "api",
    "state": "done",
    "title": "Add a --version flag",
    "repository": "acme/shop",
    "repository_id": 3,
    "agent": "small",
    "model": None,
    "owner": "ada",
    "branch": "tollgate/add-a-version-flag-0b0f7c1e",
    "pull_request": "https://github.com/acme/shop/pull/12",
    "credits": 1.25,
    "credits_given_back": 0.0,
    "created_at": "2026-11-23T08:00:00Z",
    "finished_at": "2026-11-23T08:00:40Z",
}
_TASK_EXAMPLE = _SUMMARY_EXAMPLE | {"runs": [_RUN_EXAMPLE], "runs_left_out": 0}
_DENIAL_EXAMPLE = OpenApiExample(
    "Out of credits",
    response_only=True,
    status_codes=["429"],
    value={
        "detail": "Your team has used its monthly PostHog Code credits. They reset on 2026-12-01. "
        "Top up at https://tollgate.example.com/admin/ to continue.",
        "reason": "billable_credits",
        "cause": "limit_reached",
        "resource": "posthog_code_credits",
        "resets_at": "2026-12-01T00:00:00Z",
    },
)


def _example(name: str, value: dict[str, Any], *statuses: int) -> OpenApiExample:
    codes = [str(each) for each in statuses]
    return OpenApiExample(name, response_only=True, status_codes=codes, value=value)


_LIST_ANSWERS: dict[Any, Any] = {
    200: inline_serializer(
        "TaskPage",
        {
            "next": serializers.CharField(allow_null=True, help_text="The address of older tasks."),
            "previous": serializers.CharField(allow_null=True),
            "results": TaskSummary(many=True),
        },
    ),
    **_REFUSED,
}
LIST: dict[str, Any] = {
    "operation_id": "list_coding_tasks",
    "summary": "The tasks of a project that were asked for over the API",
    "description": "Newest first. Needs the scope task:read or task:write.",
    "tags": ["coding tasks"],
    "parameters": [
        PROJECT_ID,
        OpenApiParameter("cursor", str, description="Part of the addresses of other pages."),
        OpenApiParameter("limit", int, description="Tasks in a page: 20, at most 100."),
        *response_headers(_LIST_ANSWERS),
    ],
    "responses": answers(_LIST_ANSWERS),
    "examples": [
        _example("A page", {"next": None, "previous": None, "results": [_SUMMARY_EXAMPLE]}, 200)
    ],
}

_CREATE_ANSWERS: dict[Any, Any] = {
    200: Task,
    201: Task,
    **_REFUSED,
    **_UNREAD,
    409: problem("The project has a thousand tasks at work already."),
    422: _REUSED,
    429: _DENIED,
    503: problem("A store cannot be reached. Nothing was started."),
}
CREATE: dict[str, Any] = {
    "operation_id": "create_coding_task",
    "summary": "Start a task",
    "description": "The work is paid from `posthog_code_credits`. Without credits nothing is "
    "started. A repetition with the same Idempotency-Key is answered 200. Needs the scope "
    "task:write.",
    "tags": ["coding tasks"],
    "parameters": [PROJECT_ID, _KEY, *response_headers(_CREATE_ANSWERS)],
    "request": {"application/json": NewTaskBody},
    "responses": answers(_CREATE_ANSWERS),
    "examples": [
        OpenApiExample(
            "A new task",
            request_only=True,
            value={"repository": "acme/shop", "text": "Add a --version flag", "agent": "small"},
        ),
        _example("The task", _TASK_EXAMPLE, 200, 201),
        _DENIAL_EXAMPLE,
    ],
}

_READ_ANSWERS: dict[Any, Any] = {200: Task, **_REFUSED}
READ: dict[str, Any] = {
    "operation_id": "read_coding_task",
    "summary": "A task with its runs and their transcripts",
    "description": "Transcripts show well-known forms of secrets as dots. Needs the scope "
    "task:read or task:write.",
    "tags": ["coding tasks"],
    "parameters": [PROJECT_ID, _TASK_ID, *response_headers(_READ_ANSWERS)],
    "responses": answers(_READ_ANSWERS),
    "examples": [_example("The task", _TASK_EXAMPLE, 200)],
}

_CONTINUE_ANSWERS: dict[Any, Any] = {
    200: Run,
    201: Run,
    **_REFUSED,
    **_UNREAD,
    409: problem("The task was stopped, or fifty of its messages wait already."),
    422: _REUSED,
    429: _DENIED,
    503: problem("A store cannot be reached. Nothing was started."),
}
CONTINUE: dict[str, Any] = {
    "operation_id": "continue_coding_task",
    "summary": "Give a task a further message",
    "description": "The next run continues the conversation, on the same branch. Only the owner of "
    "a task may continue it. Needs the scope task:write.",
    "tags": ["coding tasks"],
    "parameters": [PROJECT_ID, _TASK_ID, _KEY, *response_headers(_CONTINUE_ANSWERS)],
    "request": {"application/json": MessageBody},
    "responses": answers(_CONTINUE_ANSWERS),
    "examples": [
        OpenApiExample("A message", request_only=True, value={"text": "Also document it"}),
        _example("The run", _RUN_EXAMPLE, 200, 201),
        _DENIAL_EXAMPLE,
    ],
}

_STOP_ANSWERS: dict[Any, Any] = {
    200: inline_serializer(
        "StoppedTask",
        {
            "stopped": serializers.BooleanField(help_text="Whether there was work to stop."),
            "in_flight": serializers.BooleanField(
                help_text="Whether a model may still be answering, which is charged as well."
            ),
            "pushing": serializers.BooleanField(
                help_text="Whether the change was already being pushed. The change's `pushed` and "
                "`note` then say what came of that. Otherwise it will not be pushed."
            ),
            "state": serializers.ChoiceField(_STATES),
            "credits": serializers.FloatField(help_text="What the task used so far."),
        },
    ),
    **_REFUSED,
}
STOP: dict[str, Any] = {
    "operation_id": "stop_coding_task",
    "summary": "Stop the work of a task",
    "description": "The gateway admits no further call of the task. Only its owner may stop it. "
    "Needs the scope task:write.",
    "tags": ["coding tasks"],
    "parameters": [PROJECT_ID, _TASK_ID, *response_headers(_STOP_ANSWERS)],
    "request": None,
    "responses": answers(_STOP_ANSWERS),
    "examples": [
        _example(
            "Stopped",
            {
                "stopped": True,
                "in_flight": False,
                "pushing": False,
                "state": "stopped",
                "credits": 0.75,
            },
            200,
        )
    ],
}

_PUBLISH_ANSWERS: dict[Any, Any] = {
    200: inline_serializer(
        "PublishedTask",
        {"publishing": serializers.BooleanField(help_text="Whether a change waited for this.")},
    ),
    **_REFUSED,
}
PUBLISH: dict[str, Any] = {
    "operation_id": "publish_coding_task",
    "summary": "Agree that the newest change of a task is published",
    "description": "A change that seems to contain secrets, or touches many files, is not pushed "
    "before the owner of the task agrees. Its `questions` say why. Needs the scope task:write.",
    "tags": ["coding tasks"],
    "parameters": [PROJECT_ID, _TASK_ID, *response_headers(_PUBLISH_ANSWERS)],
    "request": None,
    "responses": answers(_PUBLISH_ANSWERS),
    "examples": [_example("Published soon", {"publishing": True}, 200)],
}

DIFF_TYPE = "text/x-diff"
_DIFF_ANSWERS: dict[Any, Any] = {
    (200, DIFF_TYPE): OpenApiResponse(str, "The patches of the task's runs, in order."),
    **_REFUSED,
}
DIFF: dict[str, Any] = {
    "operation_id": "diff_coding_task",
    "summary": "The change of a task as a patch",
    "description": "For `git apply`. Only the owner of a task may read it. Needs the scope "
    "task:read or task:write.",
    "tags": ["coding tasks"],
    "parameters": [PROJECT_ID, _TASK_ID, *response_headers(_DIFF_ANSWERS)],
    # Never 406: the answer is a patch whatever the client accepts.
    "responses": {
        status: answer for status, answer in answers(_DIFF_ANSWERS).items() if status != 406
    },
}
