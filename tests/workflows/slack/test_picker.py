"""The picker's message, its options, and its signed values."""

import uuid

import pytest
from django.core.signing import BadSignature

from coding_tasks.models import Repository
from projects.models import Organization, Project
from workflows.slack import picker

NONE = "No repository: just answer"
MENTION = uuid.UUID("11111111-2222-3333-4444-555555555555")


@pytest.fixture
def project(db) -> Project:
    organization = Organization.objects.create(name="Acme")
    return Project.objects.create(organization=organization, name="Default")


@pytest.fixture
def repositories(project) -> None:
    Repository.objects.bulk_create(
        Repository(project=project, full_name=f"acme/service-{number:03}", clone_url="https://h/x")
        for number in range(250)
    )


def labels(options):
    return [option["text"]["text"] for option in options]


def test_options_do_not_exceed_slacks_maximum(project, repositories):
    options = picker.options(project.pk, MENTION, "")
    assert len(options) == 100
    assert labels(options)[:3] == [NONE, "acme/service-000", "acme/service-001"]


def test_options_are_those_whose_names_contain_the_query(project, repositories):
    assert labels(picker.options(project.pk, MENTION, " Service-24 ")) == [
        f"acme/service-24{digit}" for digit in range(10)
    ]
    assert picker.options(project.pk, MENTION, "nothing") == []


def test_another_organizations_repositories_are_not_offered(project, repositories):
    stranger = Project.objects.create(
        organization=Organization.objects.create(name="Stranger"), name="Theirs"
    )
    assert labels(picker.options(stranger.pk, MENTION, "")) == [NONE]


def test_options_keep_within_slacks_limits_for_the_longest_names(project):
    Repository.objects.create(project=project, full_name="a/" + "b" * 198, clone_url="https://h/x")
    [option] = picker.options(project.pk, MENTION, "b")
    assert len(option["text"]["text"]) == 75
    assert len(option["value"]) <= 150
    assert len(picker.block_id(MENTION)) <= 255


def test_a_value_holds_the_repository_and_the_mention():
    choice = picker.Choice(MENTION, 2**63 - 1)
    assert picker.read(picker.value(choice)) == choice
    assert len(picker.value(choice)) <= 150


def test_a_forged_value_is_refused():
    value = picker.value(picker.Choice(MENTION, 7))
    forged = [value.replace("|7:", "|8:"), f"{MENTION.hex}|7", "", ":", value[:-1], value + "x"]
    forged += [picker.block_id(MENTION)]
    for each in forged:
        with pytest.raises(BadSignature):
            picker.read(each)


def test_a_forged_mention_is_refused():
    assert picker.mention_of(picker.block_id(MENTION)) == MENTION
    other = uuid.UUID("99999999-2222-3333-4444-555555555555")
    signature = picker.block_id(MENTION).partition(":")[2]
    for forged in (f"{other.hex}:{signature}", MENTION.hex, "", picker.block_id(MENTION) + "x"):
        with pytest.raises(BadSignature):
            picker.mention_of(forged)


def test_the_message_asks_the_author_and_searches_from_the_first_key():
    [section] = picker.blocks(MENTION, "U1")
    assert "<@U1>" in section["text"]["text"]
    assert section["accessory"]["type"] == "external_select"
    assert section["accessory"]["min_query_length"] == 0
