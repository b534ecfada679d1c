"""`files.*`: uploading in three steps, and sharing what was uploaded.

https://docs.slack.dev/messaging/working-with-files/#uploading_files
"""

import uuid

from devstack.demo_slack.api_call import ApiCall, SlackError
from devstack.demo_slack.database import Database
from devstack.demo_slack.workspace import Json

_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}


def media_type(content: bytes) -> str:
    """Return the media type to show a file in a browser: an image type, or plain text."""
    found = (kind for beginning, kind in _IMAGES.items() if content.startswith(beginning))
    return next(found, "text/plain")


class Files:
    """Files of people and of the app, by Slack's file id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def give_ticket(self, name: str, size: int) -> str:
        """Return the id for a file that will be uploaded."""
        file_id = f"F{uuid.uuid4().hex[:10].upper()}"
        with self._database.change() as connection:
            connection.execute("INSERT INTO files VALUES (?, ?, ?, NULL)", (file_id, name, size))
        return file_id

    def take(self, file_id: str, content: bytes) -> bool:
        """Keep a file's content. Return False if there is no ticket or the size differs."""
        with self._database.change() as connection:
            taken = connection.execute(
                "UPDATE files SET content = ? WHERE id = ? AND size = ?",
                (content, file_id, len(content)),
            )
            return taken.rowcount == 1

    def content(self, file_id: str) -> bytes | None:
        """Return the uploaded content, or None before the upload or without a ticket."""
        rows = self._database.rows("SELECT content FROM files WHERE id = ?", file_id)
        return rows[0]["content"] if rows else None

    def attach(self, name: str, content: bytes, mimetype: str, base_url: str) -> Json:
        """Keep a person's file; return Slack's file object for the message that it comes with."""
        file_id = self.give_ticket(name, len(content))
        self.take(file_id, content)
        return self.describe(file_id) | self.where(file_id, base_url) | {"mimetype": mimetype}

    def where(self, file_id: str, base_url: str) -> Json:
        """Return the fields that say where an app finds the content."""
        private = f"{base_url}/files-pri/{file_id}/download"
        return {"mode": "hosted", "is_external": False, "url_private_download": private}

    def describe(self, file_id: str) -> Json:
        """Return the fields of Slack's file object that the page and the app need."""
        rows = self._database.rows("SELECT * FROM files WHERE id = ?", file_id)
        if not rows or rows[0]["content"] is None:
            raise SlackError("file_not_found")
        name, content = rows[0]["name"], rows[0]["content"]
        return {
            "id": file_id,
            "name": name,
            "title": name,
            "size": rows[0]["size"],
            "mimetype": media_type(content),
        }


def info(call: ApiCall) -> Json:
    """`files.info`."""
    file_id = call.text("file")
    stored = Files(call.workspace.database)
    return {"file": stored.describe(file_id) | stored.where(file_id, call.base_url)}


def get_upload_url_external(call: ApiCall) -> Json:
    """`files.getUploadURLExternal`."""
    name, size = call.text("filename"), call.text("length")
    if not name or not size.isdigit() or int(size) == 0:
        raise SlackError("missing_argument")
    file_id = Files(call.workspace.database).give_ticket(name, int(size))
    return {"file_id": file_id, "upload_url": f"{call.base_url}/upload/v1/{file_id}"}


def complete_upload_external(call: ApiCall) -> Json:
    """`files.completeUploadExternal`: share the files as one message of the bot."""
    stored = Files(call.workspace.database)
    files = [
        stored.describe(str(each.get("id"))) | {"title": each.get("title", "")}
        for each in call.structured("files", list, "invalid_arguments") or []
    ]
    if not files:
        raise SlackError("invalid_arguments")
    if call.text("channel_id"):
        channel = call.channel("channel_id")
        if channel["is_archived"] or not channel["is_member"]:
            raise SlackError("posting_to_channel_denied")
        message: Json = {**call.author(), "text": call.text("initial_comment"), "files": files}
        if thread_ts := call.text("thread_ts"):
            message["thread_ts"] = thread_ts
        message = call.workspace.add_message(channel["id"], message)
        shared = {"public": {channel["id"]: [{"ts": message["ts"]}]}}
        files = [file | {"shares": shared} for file in files]
    return {"files": files}


METHODS = {
    "files.completeUploadExternal": complete_upload_external,
    "files.getUploadURLExternal": get_upload_url_external,
    "files.info": info,
}
