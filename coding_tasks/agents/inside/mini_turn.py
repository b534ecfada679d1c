"""Run one turn of mini-swe-agent in the current directory, and report it as our own events.

The prompt comes on standard input. mini-swe-agent's own command writes for people: it wraps lines,
and nothing distinguishes a model's words from a command's output. This program uses its Python
interface instead. It needs the packages that `--packages` names, and nothing of Tollgate.
"""

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any


def report(kind: str, **fields: object) -> None:
    """Write one event."""
    print(json.dumps({"type": kind, **fields}), flush=True)


def report_message(message: dict[str, Any]) -> None:
    """Report what a message of the conversation says: the model's, or a command's result."""
    extra, text = message.get("extra") or {}, message.get("content") or ""
    match message.get("role"):
        case "assistant":
            usage = (extra.get("response") or {}).get("usage") or {}
            details = usage.get("prompt_tokens_details") or {}
            report(
                "tokens",
                input=usage.get("prompt_tokens") or 0,
                output=usage.get("completion_tokens") or 0,
                cached=details.get("cached_tokens") or 0,
            )
            if text:
                report("message", text=text)
            for action in extra.get("actions") or []:
                report("command", command=action.get("command") or "")
        case "tool":
            status = extra.get("returncode")
            report("result", text=extra.get("raw_output") or text, failed=status not in (0, None))


def image(path: str) -> dict[str, Any]:
    """Return an image as a part of a message. Its kind is the ending of its name."""
    data = base64.b64encode(Path(path).read_bytes()).decode()
    url = f"data:image/{Path(path).suffix[1:]};base64,{data}"
    return {"type": "image_url", "image_url": {"url": url}}


def main() -> int:
    """Do one turn; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("packages", "model", "traceparent"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("steps", "seconds"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--image", action="append", default=[])
    given = parser.parse_args()
    sys.path.insert(0, given.packages)

    from minisweagent.agents.default import AgentConfig, DefaultAgent
    from minisweagent.config import get_config_from_spec
    from minisweagent.environments.local import LocalEnvironment
    from minisweagent.models.litellm_model import LitellmModel

    class Denied(Exception):
        """The gateway said not to try again."""

    class Model(LitellmModel):
        abort_exceptions = [*LitellmModel.abort_exceptions, Denied]

        def _query(self, messages: list[dict[str, Any]], **more: Any) -> Any:
            try:
                return super()._query(messages, **more)
            except Exception as error:
                headers = getattr(getattr(error, "response", None), "headers", None) or {}
                if headers.get("x-should-retry") == "false":
                    raise Denied(str(error)) from error
                raise

    images = [image(path) for path in given.image]

    class Agent(DefaultAgent):
        def add_messages(self, *messages: dict[str, Any]) -> list[dict[str, Any]]:
            for message in messages:
                report_message(message)
                if images and message.get("role") == "user":  # the prompt
                    message["content"] = [{"type": "text", "text": message["content"]}, *images]
                    images.clear()
            added: list[dict[str, Any]] = super().add_messages(*messages)
            return added

    config = get_config_from_spec("mini.yaml")
    headers = {"traceparent": given.traceparent}
    model_options = config.get("model", {})
    kwargs = {**model_options.pop("model_kwargs", {}), "extra_headers": headers, "num_retries": 0}
    model = Model(model_name=given.model, model_kwargs=kwargs, **model_options)
    known = set(AgentConfig.model_fields)
    options = {name: value for name, value in config["agent"].items() if name in known}
    options |= {
        "step_limit": given.steps,
        "wall_time_limit_seconds": given.seconds,
        "cost_limit": 0,
    }
    agent = Agent(model, LocalEnvironment(**config.get("environment", {})), **options)
    try:
        ended = agent.run(sys.stdin.buffer.read().decode("utf-8", "replace"))
    except Exception as error:
        report("error", text=str(error), reason=type(error).__name__)
        return 1
    return report_end(ended, agent.messages)


def report_end(ended: dict[str, Any], messages: list[dict[str, Any]]) -> int:
    """Report the answer: what the model submitted, or else what it said last."""
    said = [m.get("content") for m in messages if m.get("role") == "assistant" and m.get("content")]
    last = str(said[-1]) if said else ""
    match ended.get("exit_status"):
        case "Submitted":
            report("answer", text=(ended.get("submission") or last).strip(), complete=True)
        case "LimitsExceeded" | "TimeExceeded":
            report("answer", text=last or "I reached the end of my budget.", complete=False)
        case status:
            report("error", text=str(status), reason="the agent gave up")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
