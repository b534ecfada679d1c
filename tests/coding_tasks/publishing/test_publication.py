"""A change is pushed and proposed once, or kept with one clear sentence about why."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from django.core.management import call_command

from coding_tasks.failures import CheckoutFailed, PublishingFailed
from coding_tasks.models import GitCredential, Repository, RunChange
from coding_tasks.publishing.outcomes import (
    ConfirmationNeeded,
    KeptAsDiff,
    Published,
    Rejected,
    Rejection,
)
from coding_tasks.publishing.publication import prepare, publish, record_change, task_diff
from coding_tasks.publishing.pushes import Pushed, push
from coding_tasks.publishing.remotes import remote_of
from coding_tasks.repositories.branch_names import branch_name
from tests import fake_github
from tests.coding_tasks.publishing.conftest import make_task
from tests.git_repositories import commit, run_git

pytestmark = pytest.mark.django_db
PULLS = "/repos/acme/shop/pulls"
THREAD = "https://acme.slack.com/archives/C1/p1"


def tip(upstream, task) -> str:
    return run_git(upstream, "rev-parse", f"refs/heads/{task.branch.name}")


def branches(upstream) -> list[str]:
    return run_git(upstream, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()


def hook(upstream, script: str) -> None:
    path = upstream / "hooks" / "pre-receive"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_change_becomes_a_branch_and_a_pull_request(mirrors, task, work, github, upstream):
    run = work(task)
    outcome = publish(mirrors, run, thread_url=THREAD)
    assert outcome == Published(
        branch_name(task.title, task.pk),
        run.change.commit,
        "https://github.com/acme/shop/pull/1",
    )
    assert tip(upstream, task) == run.change.commit
    (made,) = github.pull_requests
    assert made["base"]["ref"] == "main"
    assert made["title"] == "Add a --version flag"
    assert THREAD in made["body"]
    task.branch.refresh_from_db()
    assert task.branch.pull_request == outcome.pull_request
    assert task.branch.pushed_commit == run.change.commit


def test_publishing_again_finds_the_same_branch_and_pull_request(
    mirrors, task, work, github, upstream
):
    run = work(task)
    first = publish(mirrors, run)
    assert publish(mirrors, run) == first
    RunChange.objects.update(pushed_at=None)  # as if it was lost after the push
    run.change.refresh_from_db()
    assert publish(mirrors, run) == first
    assert len(github.pull_requests) == 1
    assert len(branches(upstream)) == 2


def test_a_follow_up_pushes_to_the_same_branch(mirrors, task, work, github, upstream):
    first = work(task)
    publish(mirrors, first)
    second = work(task, "README.txt")
    outcome = publish(mirrors, second)
    assert outcome.pull_request == "https://github.com/acme/shop/pull/1"
    assert tip(upstream, task) == second.change.commit
    assert second.change.parent == first.change.commit
    assert len(github.pull_requests) == 1


def test_two_tasks_at_once_have_a_branch_and_a_pull_request_each(
    mirrors, workspace, repository, work, github, upstream
):
    tasks = [make_task(workspace, repository, f"Task {number}") for number in range(2)]
    runs = [work(task, f"file{number}") for number, task in enumerate(tasks)]
    outcomes = [publish(mirrors, run) for run in runs]
    assert len({outcome.branch for outcome in outcomes}) == 2
    assert len({outcome.pull_request for outcome in outcomes}) == 2
    for number, task in enumerate(tasks):
        listed = run_git(upstream, "ls-tree", "--name-only", task.branch.name).split()
        assert listed == ["README.md", f"file{number}"]


def test_pushes_of_several_tasks_at_once(mirrors, workspace, repository, work, upstream):
    tasks = [make_task(workspace, repository, f"Task {number}") for number in range(4)]
    runs = [work(task, f"file{number}") for number, task in enumerate(tasks)]
    remote = remote_of(repository)
    commits = [(run.change.commit, run.task.branch.name) for run in runs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda each: push(mirrors, remote, *each), commits))
    assert results == [Pushed()] * 4
    assert [run_git(upstream, "rev-parse", name) for _, name in commits] == [
        commit for commit, _ in commits
    ]


def test_a_change_that_another_machine_made_is_published(
    mirrors, task, work, github, upstream, tmp_path
):
    first = work(task)
    elsewhere = replace(mirrors, directory=tmp_path / "elsewhere")
    _, base = prepare(elsewhere, task)
    assert base.commit == first.change.commit
    shutil.rmtree(mirrors.directory)
    second = work(task, "second")
    shutil.rmtree(mirrors.directory)
    assert isinstance(publish(mirrors, second), Published)
    assert tip(upstream, task) == second.change.commit
    assert not RunChange.objects.filter(pushed_at=None).exists()


# --- pushes that are rejected ---------------------------------------------------------------------

PROTECTED = (
    "echo 'error: GH006: Protected branch update failed for refs/heads/x.'\n"
    "echo 'error: Changes must be made through a pull request.'\nexit 1"
)


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [
        (PROTECTED, Rejection.PROTECTED, "protect the branch"),
        ("printf 'Not on \\033[31mFridays'; exit 1", Rejection.REFUSED, "Not on"),
        ("echo 'Try again on Monday'; exit 1", Rejection.REFUSED, "Try again on Monday"),
        ("exit 1", Rejection.REFUSED, "pre-receive hook declined"),
    ],
)
def test_a_hook_that_refuses_is_quoted_once_and_the_change_is_kept(
    mirrors, task, work, github, upstream, script, reason, words
):
    hook(upstream, script)
    run = work(task)
    outcome = publish(mirrors, run)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == reason
    assert words in outcome.message
    assert outcome.message.isprintable()
    assert branches(upstream) == ["main"]
    assert github.pull_requests == []
    assert b"print(1)" in run.change.patch
    (upstream / "hooks" / "pre-receive").unlink()
    assert isinstance(publish(mirrors, run), Published)


def test_a_branch_with_other_commits_is_not_overwritten(
    mirrors, task, work, github, upstream, tmp_path
):
    run = work(task)
    theirs = run_git(upstream, "commit-tree", "-m", "theirs", "main^{tree}", "-p", "main")
    run_git(upstream, "update-ref", f"refs/heads/{task.branch.name}", theirs)
    outcome = publish(mirrors, run)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == Rejection.NON_FAST_FORWARD
    assert task.branch.name in outcome.message
    assert tip(upstream, task) == theirs
    follow_up = work(task, "second")  # starts at their commit
    assert follow_up.change.parent == theirs
    assert isinstance(publish(mirrors, follow_up), Published)


def test_a_branch_that_has_our_commit_already_is_fine(mirrors, task, work, github, upstream):
    run = work(task)
    remote = remote_of(task.repository)
    assert push(mirrors, remote, run.change.commit, task.branch.name) == Pushed()
    assert isinstance(publish(mirrors, run), Published)


def test_a_branch_that_cannot_be_made_is_refused(mirrors, task, work, github, upstream):
    run_git(upstream, "update-ref", "refs/heads/tollgate", "main")
    outcome = publish(mirrors, work(task))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == Rejection.REFUSED


@pytest.mark.parametrize("status", [401, 403])
def test_a_credential_without_permission_to_push_is_reported(mirrors, task, work, github, status):
    run = work(task)
    github.status = status
    outcome = publish(mirrors, run)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == Rejection.NO_PERMISSION


def test_a_missing_repository_is_reported(mirrors, task, work, github, upstream):
    run = work(task)
    github.status = 404
    outcome = publish(mirrors, run)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == Rejection.NOT_FOUND


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_error_is_worth_another_attempt(mirrors, task, work, github, status):
    run = work(task)
    github.status = status
    with pytest.raises(PublishingFailed) as failed:
        publish(mirrors, run)
    assert not failed.value.permanent
    github.status = 0
    assert isinstance(publish(mirrors, run), Published)


def test_a_repository_on_disk_takes_pushes_without_a_credential(
    mirrors, workspace, project, work, tmp_path, github
):
    disk = Repository.objects.create(
        project=project, full_name="acme/disk", clone_url=f"file://{tmp_path}/work"
    )
    task = make_task(workspace, disk, "On disk")
    run = work(task)
    assert publish(mirrors, run) == Published(task.branch.name, run.change.commit, "", "")
    assert tip(tmp_path / "work", task) == run.change.commit
    hook(tmp_path / "work" / ".git", "exit 1")
    assert isinstance(publish(mirrors, work(task, "second")), Rejected)


def test_without_a_credential_the_change_is_kept_as_a_diff(
    mirrors, task, work, github, upstream, monkeypatch
):
    run = work(task)
    task.repository.credential = None
    run.task = task
    outcome = publish(mirrors, run)
    assert isinstance(outcome, KeptAsDiff)
    assert "acme/shop" in outcome.message
    assert branches(upstream) == ["main"]


def test_the_first_commit_of_an_empty_repository_has_no_pull_request(
    mirrors, workspace, project, credential, work, github
):
    run_git(github.folder, "init", "--quiet", "--bare", "acme/new.git")
    new = Repository.objects.create(
        project=project,
        full_name="acme/new",
        clone_url=f"{github.url}/acme/new.git",
        credential=credential,
    )
    task = make_task(workspace, new, "Begin")
    outcome = publish(mirrors, work(task))
    assert isinstance(outcome, Published)
    assert outcome.pull_request == ""
    assert "no default branch" in outcome.note
    assert branches(github.folder / "acme" / "new.git") == [task.branch.name]


# --- what is asked before -------------------------------------------------------------------------


def test_secrets_are_asked_about_without_showing_them(mirrors, task, work, github, upstream):
    secret = "ghp_" + "a" * 36
    run = work(task, "config.py", f"TOKEN = '{secret}'")
    outcome = publish(mirrors, run)
    assert outcome == ConfirmationNeeded(
        ("`config.py` (line 1) seems to contain a token of GitHub.",)
    )
    assert branches(upstream) == ["main"]
    assert isinstance(publish(mirrors, run, confirmed=True), Published)


def test_a_secret_below_the_newest_change_is_asked_about_too(mirrors, task, work, github, upstream):
    work(task, "config.py", "ghp_" + "a" * 36)
    innocent = work(task, "second")
    assert isinstance(publish(mirrors, innocent), ConfirmationNeeded)
    assert branches(upstream) == ["main"]
    publish(mirrors, innocent, confirmed=True)
    third = work(task, "third")
    assert isinstance(publish(mirrors, third), Published)


def test_many_files_are_asked_about(mirrors, task, work, github, settings):
    settings.PUBLISH_MOST_FILES = 1
    assert isinstance(publish(mirrors, work(task)), Published)
    settings.PUBLISH_MOST_FILES = 0
    outcome = publish(mirrors, work(task, "second"))
    assert outcome == ConfirmationNeeded(("The change touches 1 files, more than 0.",))


@pytest.mark.parametrize(
    "path", [".github/workflows/ci.yml", ".gitlab-ci.yml", "ci/Jenkinsfile", ".circleci/config.yml"]
)
def test_what_runs_in_pipelines_is_asked_about(mirrors, task, work, github, path):
    outcome = publish(mirrors, work(task, path))
    assert isinstance(outcome, ConfirmationNeeded)
    assert path in outcome.reasons[0]


def test_many_questions_of_one_kind_do_not_hide_another_kind(mirrors, task, work, github):
    secrets = "\n+".join(f"ghp_{number:036}" for number in range(30))
    work(task, ".github/workflows/ci.yml", "run")
    outcome = publish(mirrors, work(task, "tests.py", secrets, lines=30))
    assert isinstance(outcome, ConfirmationNeeded)
    assert [reason.partition(" seems")[0] for reason in outcome.reasons] == [
        *(f"`tests.py` (line {number})" for number in (1, 2, 3)),
        "More lines seem to contain secrets.",
        "`.github/workflows/ci.yml` decides what runs in the repository's pipelines.",
    ]


def test_a_link_in_place_of_the_folder_of_pipelines_is_asked_about(mirrors, task, work, github):
    outcome = publish(mirrors, work(task, ".github/workflows", "elsewhere", mode="120000"))
    assert isinstance(outcome, ConfirmationNeeded)


def test_a_secret_after_a_file_that_became_a_link_is_named_by_its_file(
    mirrors, task, work, github, upstream
):
    secret = "ghp_" + "a" * 36
    work(task, "a", "text")
    become_a_link = (
        "diff --git a/a b/a\ndeleted file mode 100644\n--- a/a\n+++ /dev/null\n"
        "@@ -1 +0,0 @@\n-text\n"
        "diff --git a/a b/a\nnew file mode 120000\n--- /dev/null\n+++ b/a\n"
        "@@ -0,0 +1 @@\n+README.md\n\\ No newline at end of file\n"
    )
    outcome = publish(mirrors, work(task, "config", secret, before=become_a_link))
    assert outcome == ConfirmationNeeded(("`config` (line 1) seems to contain a token of GitHub.",))


def test_a_change_is_kept_once(mirrors, task, work):
    run = work(task)
    row = run.change
    assert record_change(run, row.restorable()).pk == row.pk


# --- pull requests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "retry_after"),
    [
        (fake_github.rate_limit(30), range(1, 31)),
        (fake_github.secondary_limit(7), [7]),
        (fake_github.too_many_requests(), [3]),
        (fake_github.server_error(500), [0]),
        (fake_github.server_error(502), [0]),
        (fake_github.nonsense(), [0]),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_temporary_error_can_be_retried_and_nothing_is_published_twice(
    mirrors, task, work, github, method, fault, retry_after
):
    run = work(task)
    github.fail_next(method, PULLS, fault)
    with pytest.raises(PublishingFailed) as failed:
        publish(mirrors, run)
    assert not failed.value.permanent
    assert failed.value.retry_after in retry_after
    assert publish(mirrors, run).pull_request == "https://github.com/acme/shop/pull/1"
    assert len(github.pull_requests) == 1


def test_at_the_last_attempt_the_branch_alone_is_an_outcome(mirrors, task, work, github, upstream):
    run = work(task)
    github.fail_next("GET", PULLS, fake_github.server_error())
    outcome = publish(mirrors, run, last_attempt=True)
    assert outcome.pull_request == ""
    assert outcome.note == "There is no pull request: GitHub answered with 502."
    assert tip(upstream, task) == run.change.commit


def test_a_pull_request_whose_answer_was_lost_is_found(mirrors, task, work, github):
    run = work(task)
    github.fail_next("POST", PULLS, fake_github.server_error(done=True))
    with pytest.raises(PublishingFailed):
        publish(mirrors, run)
    assert publish(mirrors, run).pull_request == "https://github.com/acme/shop/pull/1"
    assert len(github.pull_requests) == 1


def test_a_pull_request_that_appears_meanwhile_is_found(mirrors, task, work, github):
    run = work(task)
    publish(mirrors, run)
    github.fail_next("GET", PULLS, fake_github.Fault(200, []))
    assert publish(mirrors, run).pull_request == "https://github.com/acme/shop/pull/1"
    assert len(github.pull_requests) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (fake_github.bad_credentials(), "does not accept the credential"),
        (fake_github.not_accessible(), "Resource not accessible by integration"),
        (fake_github.not_found(), "no acme/shop"),
        (fake_github.invalid("No commits between main and x"), "No commits between"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_pull_request_is_reported_and_the_branch_stays(
    mirrors, task, work, github, upstream, method, fault, words
):
    run = work(task)
    github.fail_next(method, PULLS, fault)
    outcome = publish(mirrors, run)
    assert isinstance(outcome, Published)
    assert outcome.pull_request == ""
    assert outcome.note.startswith("There is no pull request: GitHub")
    assert words in outcome.note
    assert tip(upstream, task) == run.change.commit


def test_github_that_hangs_is_worth_another_attempt(mirrors, task, work, github, monkeypatch):
    monkeypatch.setattr("coding_tasks.publishing.github.TIMEOUT", 1)
    run = work(task)
    github.hang_next("POST", PULLS)
    with pytest.raises(PublishingFailed, match="cannot be reached"):
        publish(mirrors, run)
    github.hang.set()
    assert publish(mirrors, run).pull_request == "https://github.com/acme/shop/pull/1"


def test_the_text_of_a_pull_request_is_ours(mirrors, task, work, github):
    publish(mirrors, work(task), thread_url="javascript:alert(1)")
    assert "javascript" not in github.pull_requests[0]["body"]


# --- credentials ----------------------------------------------------------------------------------


def test_a_github_app_pushes_with_a_token_of_its_installation(
    mirrors, task, work, github, credential, upstream
):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()
    github.public_key = (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    github.tokens.clear()
    credential.kind = GitCredential.Kind.GITHUB_APP
    credential.secret = private
    credential.app_id, credential.installation_id = fake_github.APP_ID, fake_github.INSTALLATION
    credential.save()
    task.refresh_from_db()
    run = work(task)
    assert publish(mirrors, run).pull_request == "https://github.com/acme/shop/pull/1"
    credential.secret = "nonsense"
    credential.save()
    task.refresh_from_db()
    with pytest.raises(CheckoutFailed, match="private key") as failed:
        prepare(mirrors, task)
    assert failed.value.permanent
    credential.secret = private
    credential.save()
    task.refresh_from_db()
    path = f"/app/installations/{fake_github.INSTALLATION}/access_tokens"
    github.fail_next("POST", path, fake_github.server_error())
    with pytest.raises(CheckoutFailed) as failed:
        prepare(mirrors, task)
    assert not failed.value.permanent


def test_a_credential_of_another_secret_key_is_reported(mirrors, task, settings):
    settings.SECRET_KEY = "another secret, which cannot decrypt what the first one encrypted"
    fresh = type(task).objects.get(pk=task.pk)
    with pytest.raises(CheckoutFailed, match="SECRET_KEY") as failed:
        prepare(mirrors, fresh)
    assert failed.value.permanent


# --- diffs ----------------------------------------------------------------------------------------


def test_the_diff_of_a_task_applies_to_where_it_began(mirrors, task, work, tmp_path):
    work(task, "a")
    work(task, "b")
    (tmp_path / "diff").write_bytes(task_diff(task))
    run_git(tmp_path / "work", "apply", "--index", str(tmp_path / "diff"))
    commit(tmp_path / "work")
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [
        ".git",
        "README.md",
        "a",
        "b",
    ]


# --- erasure --------------------------------------------------------------------------------------


def test_what_an_erased_user_had_changed_is_deleted(mirrors, task, work, workspace, repository):
    other = make_task(workspace, repository, "Theirs")
    type(task).objects.filter(pk=other.pk).update(owner_slack_user_id="U2")
    work(task)
    theirs = work(other)
    call_command("erase_slack_user", "T1", "U1")
    assert list(RunChange.objects.all()) == [theirs.change]
    task.branch.refresh_from_db()
    assert task.branch.name == branch_name("", task.pk)
    assert other.branch.name == branch_name("Theirs", other.pk)


def test_a_branch_that_is_public_keeps_its_name(mirrors, task, work):
    publish(mirrors, work(task))
    call_command("erase_slack_user", "T1", "U1")
    task.branch.refresh_from_db()
    assert task.branch.name == branch_name("Add a --version flag", task.pk)
