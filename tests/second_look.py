"""Confirm actions and forms about which the admin asks a second time."""

import re
from typing import Any

from django.http import HttpResponse
from django.test import Client


def confirmed_action(
    client: Client, page: str, action: str, *rows: Any, reason: str = "a good reason", **given: Any
) -> HttpResponse:
    """Choose an action for rows, confirm what is shown, and return the list that follows."""
    form = {"action": action, "_selected_action": [row.pk for row in rows]} | given
    asked = client.post(page, form)
    assert "What will happen" in asked.content.decode()
    return client.post(
        page, form | {"confirmed": asked.context["confirmed"], "reason": reason}, follow=True
    )


def confirmed_form(client: Client, page: str, form: dict[str, Any]) -> HttpResponse:
    """Send a form that needs a second look, tick its box, and send it again."""
    asked = client.post(page, form)
    return client.post(page, form | {"confirmed": box_of(asked)})


def box_of(answer: HttpResponse) -> str:
    """Return the value of the box to tick."""
    page = answer.content.decode()
    assert "Not saved yet" in page, answer.context["errors"]
    box = re.search(r'<input type="checkbox" name="confirmed"[^>]*value="(\w+)"[^>]*>', page)
    assert box
    assert "checked" not in box[0]
    return box[1]
