"""Run the gateway with one part replaced: `python -m benchmarks.parts.serve PART ALTERNATIVE`.

The parts are `server`, `client` and `redis`; the alternative `ours` replaces nothing.
Modules import their parts by name, so the replacement is made before they are imported.
"""

import sys

from benchmarks.parts import clients, redis_clients, servers


def main(part: str, alternative: str) -> None:
    """Serve until stopped. Raises `KeyError` for an unknown alternative."""
    if part == "client" and alternative != "ours":
        from gateway.network import client

        client.HttpClient = clients.ALTERNATIVES[alternative]  # type: ignore[misc]
    if part == "redis" and alternative != "ours":
        from gateway.network import redis_connection

        redis_connection.Redis = redis_clients.ALTERNATIVES[alternative]  # type: ignore[misc]
    assert "gateway.app" not in sys.modules, "it would have the part that is to be replaced"
    if part == "server":
        servers.ALTERNATIVES[alternative]()
    else:
        servers.serve_ours()


if __name__ == "__main__":
    main(*sys.argv[1:])
