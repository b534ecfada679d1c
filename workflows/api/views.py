"""`/api/projects/<id>/coding_tasks/`: start, read, continue and stop coding tasks."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.http import Http404, HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound, PermissionDenied
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from coding_tasks import api_tasks, creation
from coding_tasks.accepted_requests import KeyedRequest, KeyReused
from coding_tasks.api_tasks import NewTask, TaskClosed, TooMuchWork
from coding_tasks.creation import Refused
from coding_tasks.models import CodingTask, Repository, TaskRun, distinct_id_of
from coding_tasks.outages import DATABASE_OUT
from coding_tasks.publishing.publication import task_diff
from projects.authentication.permissions import covered_project, has_any_scope
from projects.authentication.schemes import ProjectCredentialAuthentication
from projects.principal import TASK_READ, TASK_WRITE, Principal
from quota.gate import QuotaUnknown, Verdict
from quota.representation import utc_time
from quota.views import AlwaysJSON
from workflows import denials
from workflows.api import representation, running, schema
from workflows.api.bodies import MessageBody, NewTaskBody, ShallowJSONParser, idempotency_key
from workflows.results import confirmations
from workflows.wording import unescape

REASON = "billable_credits"
RETRY_AFTER = 60
_STOPPED = "stopped over the API"


class Unavailable(APIException):
    """A store is down, so nothing was started: 503 with Retry-After."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "Nothing was started: a store cannot be reached. Send the request again."
    default_code = "unavailable"
    wait = 5


class Conflict(APIException):
    """The task takes no further message."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = "The task was stopped. Start another one."
    default_code = "conflict"


class Busy(Conflict):
    """There is so much work already that nothing more was started."""

    default_detail = "There is too much work already. Send the request again when some has ended."


class KeyOfAnotherRequest(APIException):
    """The idempotency key was used for another request before."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_detail = "The Idempotency-Key was used for another request."
    default_code = "idempotency_key_reused"


class _Pages(CursorPagination):
    """Pages of tasks, the newest first."""

    ordering = ("-created_at", "-pk")
    page_size = 20
    page_size_query_param = "limit"
    max_page_size = 100

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Return the cursor. Raises `NotFound` if it is not one of ours."""
        cursor = super().decode_cursor(request)
        if cursor is None or cursor.position is None:
            return cursor
        try:
            position = datetime.fromisoformat(str(cursor.position))
            position.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise NotFound(self.invalid_cursor_message) from error
        if position.tzinfo is None:
            raise NotFound(self.invalid_cursor_message)
        return cursor


class _View(APIView):
    """A view of a project's tasks. Writing needs a scope of its own."""

    authentication_classes = [ProjectCredentialAuthentication]
    parser_classes = [ShallowJSONParser]

    def get_permissions(self) -> list[BasePermission]:
        """Return the permission that requires the method's scopes."""
        reads = self.request.method in ("GET", "HEAD", "OPTIONS")
        scopes = (TASK_READ, TASK_WRITE) if reads else (TASK_WRITE,)
        return [has_any_scope(*scopes)()]

    def handle_exception(self, exc: Exception) -> Response:
        """Answer 503 while a store is down."""
        away = isinstance(exc, (*DATABASE_OUT, QuotaUnknown))
        return super().handle_exception(Unavailable() if away else exc)


class TasksView(_View):
    """The tasks of a project."""

    @extend_schema(**schema.LIST)
    def get(self, request: Request, project_id: int) -> Response:
        """Return a page of the project's tasks, the newest first."""
        project = covered_project(_principal(request), project_id)
        tasks = api_tasks.without_thread().filter(project=project.id)
        pages = _Pages()
        page = pages.paginate_queryset(
            tasks.select_related("repository", "user"), request, view=self
        )
        return Response(
            {
                "next": pages.get_next_link(),
                "previous": pages.get_previous_link(),
                "results": representation.summaries(page or []),
            }
        )

    @extend_schema(**schema.CREATE)
    def post(self, request: Request, project_id: int) -> Response:
        """Start a task, if there are credits for it, once for each idempotency key."""
        principal = _principal(request)
        project = covered_project(principal, project_id)
        body = NewTaskBody(data=request.data)
        body.is_valid(raise_exception=True)
        wanted = body.validated_data
        repository = _repository(project.id, wanted["repository"])
        owner = distinct_id_of(principal.user_id, project.id)
        new = NewTask(
            repository=repository,
            origin=wanted["origin"],
            user_id=principal.user_id,
            text=wanted["text"],
            agent=wanted.get("agent", ""),
            model=wanted.get("model", ""),
        )
        keyed = KeyedRequest(
            scope=f"tasks of {owner} in {project.id}",
            key=idempotency_key(request),
            body={**wanted, "repository": repository.pk},
        )
        resource = CodingTask(origin=new.origin).resource
        allow = partial(creation.require_credits, repository.project, resource, owner)
        try:
            run, is_new = _once(keyed, allow, lambda: api_tasks.create(new))
        except Refused as refused:
            return _refusal(refused.verdict)
        if is_new:
            running.start_or_keep(run.task)
        task = _task(project.id, run.task_id)
        return Response(representation.detail(task), status=201 if is_new else 200)


class TaskView(_View):
    """One task."""

    @extend_schema(**schema.READ)
    def get(self, request: Request, project_id: int, task_id: UUID) -> Response:
        """Return the task with its runs and their transcripts."""
        project = covered_project(_principal(request), project_id)
        return Response(representation.detail(_task(project.id, task_id)))


class DiffView(_View):
    """The change of a task as a patch."""

    content_negotiation_class = AlwaysJSON  # it never answers 406

    @extend_schema(**schema.DIFF)
    def get(self, request: Request, project_id: int, task_id: UUID) -> HttpResponse:
        """Return the patches of the task's runs, in order, for `git apply`."""
        task = _own_task(request, project_id, task_id)
        return HttpResponse(task_diff(task), content_type=schema.DIFF_TYPE)


class MessagesView(_View):
    """Further messages for a task."""

    @extend_schema(**schema.CONTINUE)
    def post(self, request: Request, project_id: int, task_id: UUID) -> Response:
        """Give the task a further message, once for each idempotency key."""
        task = _own_task(request, project_id, task_id)
        body = MessageBody(data=request.data)
        body.is_valid(raise_exception=True)
        text = body.validated_data["text"]
        keyed = KeyedRequest(
            scope=f"messages of {task.pk}", key=idempotency_key(request), body={"text": text}
        )
        allow = partial(_require_open_and_paid, task)
        try:
            run, is_new = _once(keyed, allow, lambda: api_tasks.add_message(task, text))
        except TaskClosed as error:
            raise Conflict from error
        except Refused as refused:
            return _refusal(refused.verdict)
        if is_new:
            running.start_or_keep(task)
        return Response(representation.one_run(task, run), status=201 if is_new else 200)


class PublishView(_View):
    """The owner's agreement that a change is published."""

    @extend_schema(**schema.PUBLISH)
    def post(self, request: Request, project_id: int, task_id: UUID) -> Response:
        """Publish the task's newest change soon, if it waits for its owner's agreement."""
        task = _own_task(request, project_id, task_id)
        return Response({"publishing": confirmations.agree_for_owner(task)})


class StopView(_View):
    """The end of a task's work."""

    @extend_schema(**schema.STOP)
    def post(self, request: Request, project_id: int, task_id: UUID) -> Response:
        """Stop the task's work, if it has any, and say what it used. Repeating it is harmless."""
        task = _own_task(request, project_id, task_id)
        stopped = running.stop(task, _STOPPED)
        task.refresh_from_db(fields=["state"])
        return Response(
            {
                "stopped": stopped.stopped,
                "in_flight": stopped.in_flight,
                "pushing": stopped.pushing,
                "state": task.state,
                "credits": representation.credits_of(task),
            }
        )


def _once(
    keyed: KeyedRequest, allow: Callable[[], None], make: Callable[[], TaskRun]
) -> tuple[TaskRun, bool]:
    """Return the run of a request, and whether it is new. A repetition doesn't ask the gate.

    Raises `KeyOfAnotherRequest`, `Busy`, and what `allow` and `make` raise.
    """
    try:
        earlier = keyed.earlier_run()
        if earlier is not None:
            return earlier, False
        allow()
        return keyed.make_once(make)
    except KeyReused as error:
        raise KeyOfAnotherRequest from error
    except TooMuchWork as error:
        raise Busy from error


def _require_open_and_paid(task: CodingTask) -> None:
    if task.state == CodingTask.State.STOPPED:
        raise TaskClosed
    creation.require_credits(task.project, task.resource, task.distinct_id)


def _principal(request: Request) -> Principal:
    assert isinstance(request.user, Principal), "the permission guarantees this"
    return request.user


def _repository(project_id: int, wanted: str | int) -> Repository:
    named: dict[str, Any] = {"full_name": wanted} if isinstance(wanted, str) else {"pk": wanted}
    own = Repository.objects.select_related("project__organization").filter(project=project_id)
    found = own.defer("credential__secret").filter(**named).first()
    if found is None:
        raise NotFound("The project has no such repository.")
    return found


def _task(project_id: int, task_id: UUID) -> CodingTask:
    found = api_tasks.without_thread().filter(pk=task_id, project=project_id)
    related = ("project__organization", "repository", "user")
    task = found.select_related(*related).first()
    if task is None:
        raise Http404
    return task


def _own_task(request: Request, project_id: int, task_id: UUID) -> CodingTask:
    """Return the task if the caller owns it. Raises `PermissionDenied` for others, or `Http404`."""
    principal = _principal(request)
    project = covered_project(principal, project_id)
    task = _task(project.id, task_id)
    if task.user_id != principal.user_id:
        raise PermissionDenied("The task belongs to somebody else.")
    return task


def _refusal(verdict: Verdict) -> Response:
    """Return the refusal for lack of credits, with the gateway's reason, cause and headers."""
    return Response(
        {
            "detail": unescape(denials.text(verdict)),
            "reason": REASON,
            "cause": verdict.reason,
            "resource": verdict.resource,
            "resets_at": utc_time(verdict.resets_at),
        },
        status=status.HTTP_429_TOO_MANY_REQUESTS,
        headers={
            "Retry-After": str(RETRY_AFTER),
            "x-should-retry": "false",
            "x-tollgate-reason": REASON,
        },
    )
