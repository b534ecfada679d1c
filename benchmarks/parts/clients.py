"""HTTP clients with the interface of `gateway.network.client.HttpClient`."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from gateway.network.client import ConnectFailed, ExchangeFailed, Origin
from gateway.network.headers import Headers

Sending = Callable[[], None]


class Client:
    """What all adapters have in common. The library's client is created when first used."""

    def __init__(self, connect_timeout: float, egress: object = None) -> None:
        self._connect_timeout = connect_timeout
        self._client: Any = None
        self._urls: dict[Origin, str] = {}

    async def open(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        sending: Sending = lambda: None,
    ) -> Any:
        """Send a request and return the answer once its head has arrived."""
        if self._client is None:
            self._client = self.create()
        base = self._urls.get(origin)
        if base is None:
            scheme = "https" if origin.tls else "http"
            base = f"{scheme}://{origin.authority.decode()}{origin.prefix}"
            self._urls[origin] = base
        sending()
        return await self.send(method, base + target, headers, body)

    async def fetch(
        self, origin: Origin, method: str, target: str, headers: Headers, body: bytes, most: int
    ) -> tuple[int, bytes]:
        """Send a request; return the status and the whole body."""
        response = await self.open(origin, method, target, headers, body)
        try:
            chunks, size = [], 0
            while (chunk := await response.read()) is not None:
                size += len(chunk)
                if size > most:
                    raise ExchangeFailed("the answer is too long")
                chunks.append(chunk)
            return response.status, b"".join(chunks)
        finally:
            response.close()

    def create(self) -> Any:
        """Create the library's client."""
        raise NotImplementedError

    async def send(self, method: str, url: str, headers: Headers, body: bytes) -> Any:
        """Send with the library; return the adapted answer."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing: the process ends soon."""


# --- aiohttp --------------------------------------------------------------------------------------


class AiohttpClient(Client):
    def create(self) -> Any:
        import aiohttp

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
            skip_auto_headers=("user-agent", "accept", "content-type"),
        )

    async def send(self, method: str, url: str, headers: Headers, body: bytes) -> Any:
        import aiohttp

        try:
            response = await self._client.request(
                method,
                url,
                data=body or None,
                headers=[(name.decode(), value.decode("latin-1")) for name, value in headers],
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorError as error:
            raise ConnectFailed(str(error)) from None
        except aiohttp.ClientError as error:
            raise ExchangeFailed(str(error)) from None
        return AiohttpResponse(response)


class AiohttpResponse:
    def __init__(self, response: Any) -> None:
        self._response = response
        self.status = response.status
        self.headers = [(name.lower(), value) for name, value in response.raw_headers]

    async def read(self) -> bytes | None:
        return await self._response.content.readany() or None

    def close(self) -> None:
        self._response.close()


# --- httpx2 ---------------------------------------------------------------------------------------


class Httpx2Client(Client):
    def create(self) -> Any:
        import httpx2

        return httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=512),
            timeout=httpx2.Timeout(None, connect=self._connect_timeout),
            trust_env=False,
        )

    async def send(self, method: str, url: str, headers: Headers, body: bytes) -> Any:
        import httpx2

        request = httpx2.Request(method, url, headers=headers, content=body or None)
        try:
            return Httpx2Response(await self._client.send(request, stream=True))
        except httpx2.ConnectError as error:
            raise ConnectFailed(str(error)) from None
        except httpx2.HTTPError as error:
            raise ExchangeFailed(str(error)) from None


class Httpx2Response:
    def __init__(self, response: Any) -> None:
        self._response = response
        self._chunks = response.aiter_raw()
        self.status = response.status_code
        self.headers = [(name.lower(), value) for name, value in response.headers.raw]

    async def read(self) -> bytes | None:
        return await anext(self._chunks, None)

    def close(self) -> None:
        if not self._response.is_closed:
            asyncio.ensure_future(self._response.aclose())  # noqa: RUF006 - a benchmark's ending


# --- pyreqwest ------------------------------------------------------------------------------------


class PyreqwestClient(Client):
    def create(self) -> Any:
        from pyreqwest.client import ClientBuilder

        return (
            ClientBuilder()
            .max_connections(None)
            .http1_only()
            .no_proxy()
            .follow_redirects(False)
            .connect_timeout(timedelta(seconds=self._connect_timeout))
            .build()
        )

    async def send(self, method: str, url: str, headers: Headers, body: bytes) -> Any:
        from pyreqwest.exceptions import ConnectError, RequestError

        request = self._client.request(method, url).headers(
            [(name.decode(), value.decode("latin-1")) for name, value in headers]
        )
        if body:
            request = request.body_bytes(body)
        exchange = request.build_streamed()
        try:
            return PyreqwestResponse(exchange, await exchange.__aenter__())
        except ConnectError as error:
            raise ConnectFailed(str(error)) from None
        except RequestError as error:
            raise ExchangeFailed(str(error)) from None


class PyreqwestResponse:
    def __init__(self, exchange: Any, response: Any) -> None:
        self._exchange = exchange
        self._reader = response.body_reader
        self.status = response.status
        self.headers = [
            (name.encode(), value.encode("latin-1")) for name, value in response.headers.items()
        ]

    async def read(self) -> bytes | None:
        chunk = await self._reader.read_chunk()
        if chunk is not None:
            return bytes(chunk)
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            await exchange.__aexit__(None, None, None)
        return None

    def close(self) -> None:
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            asyncio.ensure_future(exchange.__aexit__(None, None, None))  # noqa: RUF006


ALTERNATIVES = {
    "aiohttp": AiohttpClient,
    "httpx2": Httpx2Client,
    "pyreqwest": PyreqwestClient,
}
