"""How long people wait to read that the credits are used up: `python -m benchmarks.clients DIR`.

DIR is the folder with the installed clients. README.md in this folder has the method.
"""

import argparse
import signal
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from benchmarks.clients.clients import CLIENTS, Client
from benchmarks.clients.refusals import VARIANTS, Variant
from benchmarks.clients.run import Outcome, run
from benchmarks.clients.server import RefusingServer


def main(tools: Path, only: str, refusal: str, cap: float, side_by_side: int, verbose: bool) -> int:
    """Measure every client that is installed and print the table; return 1 if there is none."""
    wanted = [client for client in CLIENTS if only.lower() in client.name.lower()]
    variants = [variant for variant in VARIANTS if refusal in ("", variant.name)]
    versions = {client: client.version(tools) for client in wanted}
    for name in dict.fromkeys(client.name for client in wanted if versions[client] is None):
        print(f"missing: {name}", flush=True)
    found = [client for client in wanted if versions[client] is not None]
    if not found:
        return 1

    stop = threading.Event()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends the clients first

    def measure(client: Client, variant: Variant) -> Outcome:
        name = f"{CLIENTS.index(client)}-{VARIANTS.index(variant)}"
        outcome = run(server, tools, client, variant, name, cap, stop)
        print(f"  {client.name} ({client.api}), {variant.name}: {outcome.cell(cap)}", flush=True)
        if verbose:
            print(outcome.said, flush=True)
        return outcome

    with RefusingServer() as server, ThreadPoolExecutor(side_by_side) as pool:
        runs = {
            client: [pool.submit(measure, client, variant) for variant in variants]
            for client in found
        }
        try:
            wait([each for outcomes in runs.values() for each in outcomes])
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    print(f"\n| client | API | {' | '.join(variant.name for variant in variants)} |")
    print("|---" * (2 + len(variants)) + "|")
    for client, outcomes in sorted(runs.items(), key=lambda item: item[0].api):
        cells = " | ".join(outcome.result().cell(cap) for outcome in outcomes)
        print(f"| {client.name} {versions[client]} | {client.api} | {cells} |")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients")
    parser.add_argument("tools", type=Path, help="the folder in which the clients are installed")
    parser.add_argument("--only", default="", help="only clients whose name contains this")
    parser.add_argument("--refusal", default="", help="only the refusal with this column name")
    parser.add_argument("--cap", type=float, default=120.0, help="seconds after the first call")
    parser.add_argument("--side-by-side", type=int, default=3, help="number of parallel runs")
    parser.add_argument("--verbose", action="store_true", help="show what each client printed")
    given = parser.parse_args()
    raise SystemExit(
        main(
            given.tools.resolve(),
            given.only,
            given.refusal,
            given.cap,
            given.side_by_side,
            given.verbose,
        )
    )
