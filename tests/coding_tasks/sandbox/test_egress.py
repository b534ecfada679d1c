"""Hostile code that tries to reach a network. Only the gateway's paths of one product answer."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from coding_tasks.sandbox.command import GATEWAY_PORT_INSIDE, PYTHON_INSIDE, Command
from tests.coding_tasks.sandbox.conftest import ENVIRONMENT, QUICK, attempt, run, shell, until

UNREACHABLE = (
    "refused: ENETUNREACH",
    "refused: ECONNREFUSED",
    "refused: EADDRNOTAVAIL",
    "refused: EHOSTUNREACH",
)


@pytest.fixture
def service() -> Iterator[socket.socket]:
    """A service on every address of the host."""
    with socket.create_server(("0.0.0.0", 0)) as listening:
        listening.setblocking(False)
        yield listening


def own_addresses() -> list[str]:
    """Return addresses at which this host's services answer."""
    found = ["127.0.0.1", "127.0.0.2", "localhost"]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket,
        contextlib.suppress(OSError),
    ):
        any_socket.connect(("192.0.2.1", 9))
        found.append(any_socket.getsockname()[0])
    return found


@pytest.mark.parametrize("with_door", [False, True], ids=["no door", "door"])
async def test_services_of_the_host_cannot_be_reached(workspace, service, gateway, with_door):
    port = service.getsockname()[1]
    for address in own_addresses():
        with socket.create_connection((address, port), 2):
            service.accept()[0].close()  # the host itself reaches it
        code = f'import socket; socket.create_connection(("{address}", {port}), 2)'
        door = gateway.door() if with_door else None
        assert await attempt(workspace, code, door=door) in UNREACHABLE
    with pytest.raises(BlockingIOError):
        service.accept()


async def test_redis_cannot_be_reached(workspace, redis_client, gateway):
    port = redis_client.connection_pool.connection_kwargs["port"]
    code = f"""
    import socket
    redis = socket.create_connection(("127.0.0.1", {port}), 2)
    redis.sendall(b"SET planted 1\\r\\n")
    redis.recv(10)
    """
    assert await attempt(workspace, code, door=gateway.door()) in UNREACHABLE
    assert redis_client.get("planted") is None


async def test_the_gateways_own_address_cannot_be_reached(workspace, gateway):
    code = f'import socket; socket.create_connection(("127.0.0.1", {gateway.port}), 2)'
    assert await attempt(workspace, code, door=gateway.door()) in UNREACHABLE
    assert gateway.connections == 0


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "10.0.0.1", "192.0.2.1"])
async def test_metadata_and_private_addresses_cannot_be_reached(workspace, gateway, address):
    code = f'import socket; socket.create_connection(("{address}", 80), 2)'
    assert await attempt(workspace, code, door=gateway.door()) in UNREACHABLE


async def test_metadata_by_ipv6_cannot_be_reached(workspace, gateway):
    code = 'import socket; socket.create_connection(("fd00:ec2::254", 80), 2)'
    assert await attempt(workspace, code, door=gateway.door()) in UNREACHABLE


async def test_names_are_not_resolved(workspace, gateway):
    code = """
    import socket
    try:
        socket.getaddrinfo("example.com", 80)
    except socket.gaierror as error:
        raise OSError(101, "no DNS") from error
    """
    assert await attempt(workspace, code, door=gateway.door()) == "refused: ENETUNREACH"


async def test_udp_goes_nowhere(workspace, gateway):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("0.0.0.0", 0))
        host.setblocking(False)
        port = host.getsockname()[1]
        for address in own_addresses():
            code = f"""
            import socket
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.connect(("{address}", {port}))
            udp.send(b"out")
            udp.settimeout(2)
            udp.recv(1)
            """
            assert await attempt(workspace, code, door=gateway.door()) in UNREACHABLE
        with pytest.raises(BlockingIOError):
            host.recv(3)


async def test_broadcasts_and_multicasts_go_nowhere(workspace, gateway):
    for address in ("255.255.255.255", "224.0.0.251"):
        code = f"""
        import socket
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        udp.sendto(b"out", ("{address}", 5353))
        """
        assert await attempt(workspace, code, door=gateway.door()) in UNREACHABLE


@pytest.mark.parametrize("kind", ["SOCK_RAW, socket.IPPROTO_ICMP", "SOCK_RAW, socket.IPPROTO_RAW"])
async def test_raw_sockets_are_refused(workspace, gateway, kind):
    code = f"import socket; socket.socket(socket.AF_INET, socket.{kind})"
    refused = await attempt(workspace, code, door=gateway.door())
    assert refused in ("refused: EPERM", "refused: EAFNOSUPPORT")


FAMILIES = {"vsock": 40, "packet": 17, "alg": 38, "bluetooth": 31, "tipc": 30, "kcm": 41}
"""By number, because a Python may lack the names."""


@pytest.mark.parametrize("family", FAMILIES)
async def test_other_families_of_sockets_are_refused(workspace, gateway, family):
    code = f"import socket; socket.socket({FAMILIES[family]}, socket.SOCK_DGRAM)"
    assert await attempt(workspace, code, door=gateway.door()) == "refused: EAFNOSUPPORT"


async def test_abstract_unix_sockets_of_the_host_cannot_be_reached(workspace, gateway):
    with socket.socket(socket.AF_UNIX) as host:
        host.bind("\0tollgate-test-socket")
        host.listen()
        code = 'import socket; socket.socket(socket.AF_UNIX).connect("\\0tollgate-test-socket")'
        for door in (None, gateway.door()):
            assert await attempt(workspace, code, door=door) == "refused: ECONNREFUSED"


async def test_unix_sockets_of_the_host_are_not_there(workspace):
    found = await shell(workspace, "find / -xdev -type s; find /run /var/run /tmp -type s")
    assert found.out == ""


async def test_the_interface_cannot_be_configured(workspace, gateway):
    code = """
    import fcntl, socket, struct
    request = struct.pack("16sH14x", b"lo", 0)
    fcntl.ioctl(socket.socket(), 0x8914, request)
    """
    refused = await attempt(workspace, code, door=gateway.door())
    assert refused in ("refused: EPERM", "refused: ENOTTY")


_ASK = """\
import http.client, sys
for target in sys.argv[2:]:
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
    connection._validate_path = lambda _: None
    connection.request("POST", target, b"{}", {"Authorization": "Bearer run-token"})
    answer = connection.getresponse()
    print(answer.status, answer.read().decode()[:20])
"""


async def ask(workspace, gateway, *targets: str, product: str = "slack_app") -> list[str]:
    """Ask for targets through the door; return the statuses and the beginnings of the answers."""
    program = (PYTHON_INSIDE, "-I", "-S", "-c", _ASK, str(GATEWAY_PORT_INSIDE))
    ran = await run(workspace, *program, *targets, door=gateway.door(product))
    assert ran.ended.status == 0, ran.err
    return ran.out.splitlines()


async def test_the_gateway_answers_through_the_door(workspace, gateway):
    answers = await ask(
        workspace, gateway, "/slack_app/v1/messages", "/slack_app/v1/messages?beta=true"
    )
    assert answers == ["200 first last"] * 2
    method, target, headers, body = gateway.requests[0]
    assert (method, target, body) == (b"POST", b"/slack_app/v1/messages", b"{}")
    assert headers[b"authorization"] == b"Bearer run-token"
    assert headers[b"host"] == f"127.0.0.1:{gateway.port}".encode()


@pytest.mark.parametrize(
    "target",
    ["/metrics", "/_ready", "/_health", "/", "/slack_app", "/slack_app/../metrics",
     "/v1/usage/slack_app", "/posthog_code/v1/messages", "/slack_app_routing/v1/messages"],
)  # fmt: skip
async def test_other_paths_and_products_do_not_answer(workspace, gateway, target):
    (answer,) = await ask(workspace, gateway, target)
    assert answer.startswith("403 ")
    assert gateway.requests == []


async def test_connect_through_the_door_is_refused(workspace, gateway, service):
    code = f"""
    import socket
    door = socket.create_connection(("127.0.0.1", {GATEWAY_PORT_INSIDE}), 5)
    door.sendall(b"CONNECT 127.0.0.1:{service.getsockname()[1]} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    if door.recv(100).startswith(b"HTTP/1.1 405"):
        raise ConnectionRefusedError(111, "no tunnel")
    """
    assert await attempt(workspace, code, door=gateway.door()) == "refused: ECONNREFUSED"
    with pytest.raises(BlockingIOError):
        service.accept()


async def test_without_a_door_nothing_listens(workspace):
    code = f'import socket; socket.create_connection(("127.0.0.1", {GATEWAY_PORT_INSIDE}), 2)'
    assert await attempt(workspace, code) in UNREACHABLE


async def test_the_door_closes_with_the_command(workspace, gateway):
    await ask(workspace, gateway, "/slack_app/v1/models")
    await until(lambda: gateway.connections == 0, "the end of the connection")


async def test_stopping_cuts_a_call_in_the_middle(workspace, gateway):
    program = (PYTHON_INSIDE, "-I", "-S", "-c", _ASK, str(GATEWAY_PORT_INSIDE), "/slack_app/slow")
    command = Command(program, ENVIRONMENT)
    async with workspace.start(command, QUICK, gateway.door()) as process:
        await until(lambda: bool(gateway.requests), "the call")
        process.kill()
        await until(lambda: gateway.connections == 0, "the end of the call")
        assert (await process.wait()).stopped
