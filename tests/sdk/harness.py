"""What the scenarios share: a gateway before the simulator, and what it means that a call was answered from the cache."""

import asyncio
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import uuid
from dataclasses import dataclass

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE = 20  # seconds for anything that has to happen


class Gateway:
    """A gateway of its own: `base` for clients, `admin` for operators."""

    def __init__(self, origin: str, **variables: str):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="larder-sdk-"))
        config = self.directory / "larder.toml"
        config.write_text((HERE / "larder.toml").read_text().replace("ORIGIN", origin))
        binary = os.environ.get("LARDER", ROOT / "target" / "debug" / "larder")
        arguments = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config", config, "--log", "json"]
        arguments += ["--data-dir", self.directory / "data"]
        log = ROOT / "target" / "sdk" / "gateway.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [binary, *arguments],
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            text=True,
            env={**os.environ, **variables},
        )
        self.base, self.admin = self._listening("data"), self._listening("admin")
        # Nobody reads on, and nobody has to.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def _listening(self, name: str) -> str:
        for line in self.process.stdout:
            if found := re.match(rf"{name} listening on (http://\S+)", line):
                return found[1].rstrip("/")
        raise RuntimeError(f"the gateway ended with {self.process.wait()}; see target/sdk/gateway.log")

    def stop(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Direct:
    """No gateway at all, with SDK_DIRECT=1: whatever a scenario expects of a miss has to hold, and no hit can."""

    def __init__(self, origin: str):
        self.base = self.admin = origin

    def stop(self):
        pass


@dataclass
class Got:
    """What a client holds: the answer, or its events one by one, and the response's fields."""

    items: list
    fields: dict

    @property
    def hit(self) -> bool:
        return is_hit(self.fields)


def is_hit(fields) -> bool:
    """By `Cache-Status` (RFC 9211)."""
    return re.search(r"\blarder\s*;\s*hit\b", fields.get("cache-status") or "") is not None


def mark(text: str = "What is the capital of France?") -> str:
    """A prompt that no other call has."""
    return f"{text} [{uuid.uuid4().hex}]"


def tag(prompt: str) -> str:
    """What finds calls with this prompt."""
    return re.search(r"\[(\w{32})\]", prompt)[1]


def twice(provider, prompt: str, ask) -> tuple[Got, Got]:
    """Asks two times: the second answer is the first one, to the last member, and the provider does not hear of it."""
    first = ask()
    assert first.items, "an answer"
    assert len(provider.calls_with(tag(prompt))) == 1
    assert not first.hit, first.fields.get("cache-status")
    for _ in range(10):
        second = ask()
        assert second.items == first.items
        if not has_joined(second.fields):
            break
    assert_hit(provider, prompt, second)
    return first, second


def has_joined(fields) -> bool:
    """The answer is that of a call under way: SDKs read no further than a stream's last event, and it ends a moment later."""
    return re.search(r";\s*collapsed\b", fields.get("cache-status") or "") is not None


def assert_hit(provider, prompt: str, got: Got, calls: int = 1):
    status = got.fields.get("cache-status")
    assert len(provider.calls_with(tag(prompt))) == calls, f"calls; Cache-Status: {status}"
    assert got.hit, f"Cache-Status: {status}"
    assert int(got.fields.get("age")) >= 0


def not_stored(provider, prompt: str, ask, calls: int = 2):
    """Asks two times, and both times the provider answers."""
    answers = [ask(), ask()]
    assert len(provider.calls_with(tag(prompt))) == calls
    assert not any(is_hit(answer.fields) for answer in answers if isinstance(answer, Got))
    return answers


def dump(item, **options):
    return item.model_dump(**options) if hasattr(item, "model_dump") else item


_LOOP = asyncio.new_event_loop()


def run(awaitable):
    """For the asynchronous half of the SDKs, some of which keep connections for the process: always in the same loop."""
    return _LOOP.run_until_complete(awaitable)


def ask(resource, stream: bool = False, **arguments) -> Got:
    """A call of openai or anthropic, `resource` being `client.chat.completions` and the like."""
    raw = resource.with_raw_response.create(**arguments, **({"stream": True} if stream else {}))
    parsed = raw.parse()
    items = [dump(item) for item in parsed] if stream else [dump(parsed)]
    return Got(items, raw.headers)


async def ask_async(resource, stream: bool = False, **arguments) -> Got:
    raw = await resource.with_raw_response.create(**arguments, **({"stream": True} if stream else {}))
    parsed = raw.parse()
    parsed = await parsed if inspect.isawaitable(parsed) else parsed
    items = [dump(item) async for item in parsed] if stream else [dump(parsed)]
    return Got(items, raw.headers)


# HTTP without a client library, for what none of them would send or show.


async def exchange(base: str, path: str, body: bytes, fields: dict | None = None, on_piece=None) -> tuple[int, dict, bytes]:
    """POSTs and returns status, fields and content; `on_piece` is called with all content so far whenever more has come.
    Content that ends too early is a `ConnectionError`."""
    authority, slash, below = base.removeprefix("http://").partition("/")
    host, _, port = authority.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    try:
        given = {"host": authority, "content-type": "application/json", "content-length": str(len(body)), **(fields or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
        writer.write(f"POST {slash}{below}{path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        got = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        content = b""
        if got.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                content += await reader.readexactly(size)
                await reader.readexactly(2)
                if on_piece:
                    on_piece(content)
        else:
            content = await reader.readexactly(int(got.get("content-length", 0)))
        return int(head[0].split(" ")[1]), got, content
    except (asyncio.IncompleteReadError, ValueError) as broken:
        raise ConnectionError("content ended early") from broken
    finally:
        writer.close()


def post(base: str, path: str, body: bytes, fields: dict | None = None) -> tuple[int, dict, bytes]:
    return run(asyncio.wait_for(exchange(base, path, body, fields), PATIENCE))
