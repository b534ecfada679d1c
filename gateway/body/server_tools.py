"""How often a provider may run its own tools in one call, and which of them it charges for.

Tools are recognized by their type. A tool that the caller runs costs nothing by itself. A tool that
the provider runs needs a maximum number of uses and a price for each. All others are refused.
"""

import re
from collections.abc import Iterable

from gateway.body.requests import ABSENT, Tool
from gateway.errors import bad_request

# How often Anthropic lets a model continue after server tools before the caller has to ask again.
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools
TURNS = 10
_RUN_BY_THE_CALLER = {
    "messages": re.compile(r"custom\Z|(?:bash|text_editor|computer|memory|browser)_"),
    "chat": re.compile(r"(?:function|custom)\Z"),
    "responses": re.compile(
        r"(?:function|custom|local_shell|shell|apply_patch|computer|computer_use_preview)\Z"
    ),
}
_SEARCHES_THE_TOOLS = re.compile(r"tool_search_tool_(?:bm25|regex)(?:_\d{8})?\Z")
_SEARCHES_OR_FETCHES = re.compile(r"web_(search|fetch)_(\d{8})\Z")
# From this date on, the model may write code to filter what was found, free of charge.
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool
_FILTERS_FROM = "20260209"
_PAID_OF_RESPONSES = (
    (re.compile(r"web_search(?:_\d{4}_\d\d_\d\d)?\Z"), "web_search"),
    (re.compile(r"web_search_preview(?:_\d{4}_\d\d_\d\d)?\Z"), "web_search_preview"),
    (re.compile(r"file_search\Z"), "file_search"),
    (re.compile(r"code_interpreter\Z"), "code_execution"),
    (re.compile(r"image_generation\Z"), "image_generation"),
)
_EMPTY = (b"", b"null", b"[]")


class ServerTools:
    """Adds up the tools of one call.

    - `uses`: how often the provider may run a tool and read everything again.
    - `paid`: how often the provider may charge for one of `tools`.
    - `turns`: how often the request's own text may be read again.
    - `filtered`: whether the model may run code on what it finds, free of charge.
    """

    def __init__(self, meter: str, max_tool_calls: int | None) -> None:
        self._meter = meter
        self._max_tool_calls = max_tool_calls
        self.filtered = False
        self._uses = 0
        self.paid = 0
        self.turns = 0
        self.tools: set[str] = set()

    @property
    def uses(self) -> int:
        """How often the provider may run a tool and read everything again."""
        return max(self._uses, TURNS) if self.filtered and self._uses else self._uses

    def add(self, tools: Iterable[Tool]) -> None:
        """Count more tools. Raises a 400 `Refusal` for one without a known maximum cost."""
        for tool in tools:
            kind = tool.type
            if self._is_run_by_the_caller(tool):
                continue
            if kind == "namespace":  # a group of tools of any kind
                self.add(tool.tools or ())
            elif kind is not None and self._meter == "messages":
                self._add_to_messages(kind, tool)
            elif kind is not None and self._meter == "responses":
                self._add_to_responses(kind, tool)
            else:
                raise _unbounded(str(kind))

    def refuse(self, tools: Iterable[Tool]) -> None:
        """Raise a 400 `Refusal` if the conversation defines a tool that the provider runs.

        If the provider stores the conversation, later calls would have the tool without naming it.
        """
        for tool in tools:
            if tool.type == "namespace":
                self.refuse(tool.tools or ())
            elif not self._is_run_by_the_caller(tool):
                raise bad_request(
                    f"The server-side tool {str(tool.type)[:100]} has no known maximum cost within "
                    "a conversation. Name it in the field tools.",
                    "unmeterable",
                )

    def _is_run_by_the_caller(self, tool: Tool) -> bool:
        kind = tool.type
        if kind == "shell" and tool.environment and tool.environment.type != "local":
            raise bad_request("The provider's shell has no known maximum cost here.", "unmeterable")
        if kind == "tool_search" and self._meter == "responses":
            return tool.execution == "client"
        return kind is None or _RUN_BY_THE_CALLER[self._meter].match(kind) is not None

    def _add_to_messages(self, kind: str, tool: Tool) -> None:
        if _SEARCHES_THE_TOOLS.match(kind):
            self.turns = TURNS
            return
        found = _SEARCHES_OR_FETCHES.match(kind)
        if found is None:
            raise _unbounded(kind)
        if tool.max_uses is None:
            raise _needs_a_maximum(kind, "max_uses")
        uses = int(tool.max_uses)
        self._uses += uses
        self.filtered = self.filtered or found[2] >= _FILTERS_FROM
        if found[1] == "search":
            self.paid += uses
            self.tools.add("web_search")

    def _add_to_responses(self, kind: str, tool: Tool) -> None:
        paid = next((name for known, name in _PAID_OF_RESPONSES if known.match(kind)), None)
        if paid is None:
            raise _unbounded(kind)
        if self._max_tool_calls is None:
            raise _needs_a_maximum(kind, "max_tool_calls")
        if kind == "code_interpreter" and not _is_of_the_usual_size(tool):
            raise bad_request(
                "A code interpreter can only be metered here with a new container of the smallest "
                "size and without files.",
                "unmeterable",
            )
        self._uses = self.paid = self._max_tool_calls  # a limit on all tools together
        self.tools.add(paid)


def _is_of_the_usual_size(tool: Tool) -> bool:
    container = tool.container
    return (
        container is not None
        and not isinstance(container, str)
        and container.type == "auto"
        and container.memory_limit in (None, "1g")
        and (container.file_ids is ABSENT or bytes(container.file_ids) in _EMPTY)
    )


def _unbounded(kind: str) -> Exception:
    return bad_request(
        f"The server-side tool {kind[:100]} has no known maximum cost here.", "unmeterable"
    )


def _needs_a_maximum(kind: str, field: str) -> Exception:
    return bad_request(
        f"The server-side tool {kind[:100]} needs a maximum number of uses to be metered here: "
        f"set {field}.",
        "unmeterable",
    )
