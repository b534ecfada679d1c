"""The least that a gateway in Python can do: read Redis once, and pass the call on and back.

python passthrough.py CLIENT PORT UPSTREAM REDIS    CLIENT: aiohttp, httpx or pyreqwest

It runs in the environment of requirements-peers.txt and imports nothing from this repository.
"""

import asyncio
import sys
from typing import Any

import redis.asyncio
import uvloop

Headers = dict[str, str]
NOT_SENT = {"host", "content-length", "accept-encoding", "connection"}


async def serve_aiohttp(port: int, upstream: str, redis_url: str) -> None:
    """aiohttp on both sides."""
    from aiohttp import ClientSession, TCPConnector, web

    store = redis.asyncio.from_url(redis_url)
    session = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False)

    async def handle(request: web.Request) -> web.Response:
        await store.get("bench")
        body = await request.read()
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in NOT_SENT
        }
        async with session.post(upstream + request.path, data=body, headers=headers) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


async def serve_asgi(client: str, port: int, upstream: str, redis_url: str) -> None:
    """A bare ASGI application on uvicorn, with another client."""
    import uvicorn

    store = redis.asyncio.from_url(redis_url)
    post = await _httpx(upstream) if client == "httpx" else await _pyreqwest(upstream)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await store.get("bench")
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {
            name.decode(): value.decode()
            for name, value in scope["headers"]
            if name.decode() not in NOT_SENT
        }
        status, content = await post(scope["path"], headers, body)
        kind = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": kind})
        await send({"type": "http.response.body", "body": content})

    config = uvicorn.Config(
        app, port=port, http="httptools", lifespan="off", access_log=False, log_level="warning"
    )
    await uvicorn.Server(config).serve()


async def _httpx(upstream: str) -> Any:
    import httpx

    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), trust_env=False)

    async def post(path: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
        answer = await client.post(upstream + path, content=body, headers=headers)
        return answer.status_code, answer.content

    return post


async def _pyreqwest(upstream: str) -> Any:
    from pyreqwest.client import ClientBuilder

    client = ClientBuilder().max_connections(None).http1_only().build()

    async def post(path: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
        request = client.post(upstream + path).headers(headers).body_bytes(body)
        answer = await request.build().send()
        return answer.status, bytes(await answer.bytes())

    return post


def main() -> None:
    """Serve until killed."""
    client, port, upstream, redis_url = sys.argv[1:]
    if client == "aiohttp":
        serving = serve_aiohttp(int(port), upstream, redis_url)
    else:
        serving = serve_asgi(client, int(port), upstream, redis_url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)


if __name__ == "__main__":
    main()
