"""A stand-in for the parts of `docker` that the sandbox uses. bubblewrap runs its containers.

Its first argument is a folder for its state. A file `down` there means that there is no engine.
"""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

_SWITCHES = {"--interactive", "--rm", "--read-only", "--init"}
_DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
_SYSTEM = ("bin", "sbin", "lib", "lib64")


@dataclass
class Order:
    """The arguments of `docker run`."""

    image: str = ""
    argv: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    mounts: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, arguments: list[str]) -> "Order":
        order, left = cls(), list(arguments)
        while left[0].startswith("--"):
            name = left.pop(0)
            if name in _SWITCHES:
                continue
            value = left.pop(0)
            if name == "--mount":
                (row,) = csv.reader([value])
                order.mounts.append(dict(part.partition("=")[::2] for part in row))
            else:
                order.options[name] = value
        order.image, *order.argv = left
        return order


class Engine:
    """Keeps containers and volumes as files."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def container(self, name: str) -> Path:
        return self.state / f"container-{name}"

    def run(self, order: Order) -> int:
        if order.image == "missing:1":
            sys.stderr.write("docker: Error response from daemon: No such image: missing:1\n")
            return 125
        name = order.options["--name"]
        volumes = {}
        for mount in order.mounts:
            if mount["type"] == "volume" and "src" not in mount:
                mount["src"] = f"{name}{mount['dst'].replace('/', '-')}"
                (self.state / mount["src"]).mkdir()
                volumes[mount["dst"]] = mount["src"]
        self._keep(name, {"volumes": volumes})  # an engine knows a container before it starts
        # A group, because bubblewrap may be killed before its child would end with it.
        process = subprocess.Popen([*self._isolated(order), "--", *order.argv], process_group=0)
        self._keep(name, {"pid": process.pid, "volumes": volumes})
        holder = order.options.get("--pid", "").removeprefix("container:")
        if holder:
            threading.Thread(target=self._end_with, args=(holder, process), daemon=True).start()
        status = process.wait()
        self.container(name).unlink()
        return status if status >= 0 else 128 - status

    def _keep(self, name: str, about: dict[str, object]) -> None:
        """Write the state of a container atomically."""
        written = self.state / f"writing-{name}"
        written.write_text(json.dumps(about))
        written.rename(self.container(name))

    def _end_with(self, holder: str, process: subprocess.Popen[bytes]) -> None:
        """Do what a shared process namespace does."""
        while self.container(holder).exists():
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def _isolated(self, order: Order) -> list[str]:
        from coding_tasks.sandbox.bubblewrap import binary  # a third of the start of each command

        found = binary.find()
        program = found.folders[0].parent / found.path
        uid = order.options["--user"].partition(":")[0]
        arguments = [
            *(str(program), "--unshare-user", "--unshare-pid", "--unshare-net"),
            *("--die-with-parent", "--clearenv", "--uid", uid, "--proc", "/proc", "--dev", "/dev"),
            *("--ro-bind", "/usr", "/usr"),
        ]
        for name in _SYSTEM:
            arguments += ["--symlink", f"usr/{name}", f"/{name}"]
        prefix = os.path.realpath(sys.base_prefix)
        if not prefix.startswith("/usr"):
            arguments += ["--ro-bind", prefix, prefix]
        arguments += ["--symlink", prefix, "/opt/python"]
        for mount in order.mounts:
            kind = "--ro-bind" if "readonly" in mount else "--bind"
            volume = mount["type"] == "volume"
            source = str(self.state / mount["src"]) if volume else mount["src"]
            arguments += [kind, source, mount["dst"]]
        if "--tmpfs" in order.options:
            arguments += ["--tmpfs", order.options["--tmpfs"].partition(":")[0]]
        return [*arguments, "--chdir", order.options.get("--workdir", "/")]

    def inspect(self, name: str) -> int:
        if not self.container(name).exists():
            sys.stderr.write(f"Error: No such object: {name}\n")
            return 1
        about = json.loads(self.container(name).read_text())
        for path, volume in about["volumes"].items():
            sys.stdout.write(f"{path} {volume}\n")
        return 0

    def events(self, arguments: list[str]) -> int:
        """Report all containers as out of memory once the state's folder has a file `oom`."""
        oom = self.state / "oom"
        if not any(argument.startswith("label=") for argument in arguments):
            sys.stdout.write("oom\n" if oom.exists() else "")
            return 0
        until = int(arguments[arguments.index("--until") + 1])
        while not oom.exists():
            if time.time() >= until:
                return 0
            time.sleep(0.05)
        for path in self.state.glob("container-*"):
            sys.stdout.write(f"{path.name.removeprefix('container-')}\n")
            sys.stdout.flush()
        return 0

    def volume(self, arguments: list[str]) -> int:
        """List the volume that a killed worker left, or remove it."""
        left = self.state / "leftover"
        if arguments[0] == "ls" and left.exists():
            sys.stdout.write("leftover\n")
        elif arguments == ["rm", "leftover"]:
            left.unlink()
        return 0

    def remove(self, name: str) -> int:
        try:
            os.killpg(json.loads(self.container(name).read_text())["pid"], signal.SIGKILL)
        except (OSError, KeyError):  # it is gone, or has not started
            sys.stderr.write(f"Error: No such container: {name}\n")
            return 1
        return 0

    def stats(self, name: str) -> int:
        while self.container(name).exists():
            sample = {"CPUPerc": "150.00%", "MemUsage": "1.5MiB / 200MiB"}
            sys.stdout.write(f"\x1b[2J\x1b[H{json.dumps(sample)}\n")
            sys.stdout.flush()
            time.sleep(0.05)
        return 1


def main() -> int:
    state, verb, *arguments = sys.argv[1:]
    engine = Engine(Path(state))
    if (engine.state / "down").exists():
        sys.stderr.write(f"docker: {_DOWN}\n" if verb == "run" else f"{_DOWN}\n")
        return 125 if verb == "run" else 1
    match verb:
        case "run":
            return engine.run(Order.read(arguments))
        case "inspect":
            return engine.inspect(arguments[-1])
        case "rm":
            return engine.remove(arguments[-1])
        case "stats":
            return engine.stats(arguments[-1])
        case "volume":
            return engine.volume(arguments)
        case "events":
            return engine.events(arguments)
    raise ValueError(f"docker {verb}")


if __name__ == "__main__":
    sys.exit(main())
