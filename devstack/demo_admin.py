"""The admin as a visitor sees it: pages over HTTP, and the rows of their tables."""

import re
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

_CSRF = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')


class Admin:
    """The admin's pages for one signed-in person. Its methods raise `OSError` without an answer."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self._url = url
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))
        found = _CSRF.search(self.page("login/"))
        if found is None:
            raise OSError("the login page has no form")
        form = {"csrfmiddlewaretoken": found[1], "username": username, "password": password}
        login = Request(f"{url}login/", urlencode(form).encode(), {"Referer": url})
        with self._opener.open(login, timeout=10):
            pass

    def page(self, path: str = "") -> str:
        """Return a page below the admin's address as HTML."""
        with self._opener.open(f"{self._url}{path}", timeout=10) as answer:
            return str(answer.read().decode())


def rows_below(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the first table with data after a heading, as texts of their cells."""
    reader = _Tables(heading)
    reader.feed(page)
    return reader.rows


class _Tables(HTMLParser):
    def __init__(self, heading: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._heading = heading
        self._is_below = self._in_cell = self._is_over = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._is_below or self._is_over:
            return
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False
        elif tag == "thead":
            self.rows.clear()
        elif tag == "table" and self.rows:
            self._is_over = True

    def handle_data(self, data: str) -> None:
        if data.strip() == self._heading:
            self._is_below = True
        elif self._in_cell and not self._is_over:
            self.rows[-1][-1] = " ".join((self.rows[-1][-1] + data).split())
