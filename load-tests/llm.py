#!/usr/bin/env python3
"""What the gateway adds to calls to models: hits with small and large prompts, and events of a stream that is relayed.

    python3 load-tests/llm.py [--profile release] [--rounds 5] [--halting] [--output run.json]

Clients are plain sockets, one call at a time, on the core that the gateway does not have. A small hit stands beside the least
a server can do (`examples/bare.rs`, which reads nothing of what it is sent); one with a large prompt is the whole call; an event beside the same event without a gateway
in between. Rounds go round them; figures are medians of rounds.

A process of idle priority keeps the gateway's core awake, for the core of a virtual machine that halts between two events
takes longer to wake than an event to be relayed. With --halting it may.
"""

import argparse
import asyncio
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL, LARGE = 1_000, 300_000
EVENTS, PAUSE = 400, 0.002


class Process:
    """A server that says where it listens."""

    def __init__(self, command, said, **options):
        self.process = subprocess.Popen(["taskset", "-c", "0", *map(str, command)], stdout=subprocess.PIPE, text=True, **options)
        for line in self.process.stdout:
            if found := re.match(said, line):
                host, port = found[1].split("//")[1].rstrip("/").split(":")
                self.address = (host, int(port))
                break
        else:
            raise SystemExit(f"{command[0]} ended with {self.process.wait()}")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stop(self):
        self.process.kill()
        self.process.wait()


def body(size, stream=False):
    """Repeated byte for byte: what an agent sends, most of it one long text."""
    text = ("The quick brown fox jumps over the lazy dog. \\n" * (size // 46 + 1))[:size]
    call = {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": text}]}
    return json.dumps({**call, "stream": True} if stream else call).encode()


def request(path, content):
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer sk-1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def connected(address):
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(connection, sent):
    connection.sendall(sent)
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    head, rest = got.split(b"\r\n\r\n", 1)
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    while len(rest) < length:
        rest += connection.recv(65536)
    return head, rest


def timed(address, path, content, count, hit):
    """Microseconds of each of `count` calls on one connection."""
    connection, sent, times = connected(address), request(path, content), []
    for _ in range(count):
        before = time.perf_counter_ns()
        head, _ = ask(connection, sent)
        times.append((time.perf_counter_ns() - before) / 1000)
        assert b" 200 " in head.split(b"\r\n")[0], head
        assert not hit or b"; hit" in head, head
    connection.close()
    return times


class Provider:
    """Answers calls, and sends streams whose events tell when they were sent."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.address = self.server.sockets[0].getsockname()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    async def serve(self, reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
                content = await reader.readexactly(length)
                await (self.stream if b'"stream": true' in content else self.answer)(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, writer):
        choice = {"message": {"content": "x" * 800}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1000, "completion_tokens": 200}
        content = json.dumps({"id": "1", "model": "gpt-4o", "choices": [choice], "usage": usage}).encode()
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content)
        await writer.drain()

    async def stream(self, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(EVENTS):
            await asyncio.sleep(PAUSE)
            delta = {"choices": [{"delta": {"content": "word "}}], "sent": time.perf_counter_ns()}
            event = b"data: " + json.dumps(delta).encode() + b"\n\n"
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        end = b"data: [DONE]\n\n"
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(end), end))
        await writer.drain()


def relayed(address, path, nth):
    """Microseconds from when each event was sent to when it is there."""
    connection, times, got = connected(address), [], b""
    connection.sendall(request(path, body(100 + nth, stream=True)))
    while b"[DONE]" not in got:
        piece = connection.recv(65536)
        now = time.perf_counter_ns()
        assert piece, got
        times += [(now - int(sent)) / 1000 for sent in re.findall(rb'"sent": (\d+)', piece)]
        got = got[-16:] + piece
    connection.close()
    return times


def share(times, of):
    return sorted(times)[min(len(times) - 1, int(len(times) * of))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--halting", action="store_true")
    options = parser.parse_args()
    profile = [] if options.profile == "dev" else ["--profile", options.profile]
    if not options.no_build:
        subprocess.run(["cargo", "build", *profile, "--bin", "larder", "--example", "bare"], cwd=ROOT, check=True)
    binaries = ROOT / "target" / ("debug" if options.profile == "dev" else options.profile)
    os.sched_setaffinity(0, {1})
    directory = tempfile.mkdtemp(prefix="larder-llm-")
    provider = Provider()
    config = pathlib.Path(directory, "larder.toml")
    upstream = "http://{}:{}".format(*provider.address)
    config.write_text(f'[listen]\nworkers = 1\n[log]\naccess = false\n[[route]]\nname = "openai"\npath = "/openai"\nstrip_path = true\nupstream = "{upstream}"\nprotocol = "openai"\n')
    servers = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir", pathlib.Path(directory, "data")]
    larder = Process([binaries / "larder", "--config", config, *servers], r"data listening on (\S+)", stderr=subprocess.DEVNULL)
    bare = Process([binaries / "examples" / "bare", "127.0.0.1:0", "1024"], r"listening on (\S+)")
    path = "/openai/v1/chat/completions"
    rounds = []
    awake = None
    if not options.halting:
        idle = ["taskset", "-c", "0", "chrt", "--idle", "0", "sh", "-c", "while :; do :; done"]
        awake = subprocess.Popen(idle)
    try:
        for size in (SMALL, LARGE):
            timed(larder.address, path, body(size), 1, False)
        for nth in range(options.rounds):
            figures = {}
            for name, size, count in (("small", SMALL, 2000), ("large", LARGE, 300)):
                # The least server reads nothing, and so takes no large request.
                others = [("bare", bare.address, False)] if size == SMALL else []
                for who, address, hit in [("larder", larder.address, True), *others]:
                    times = timed(address, path, body(size), count, hit)
                    figures |= {f"{name}_{who}_p50": share(times, 0.5), f"{name}_{who}_p99": share(times, 0.99)}
            for who, address, to in (("larder", larder.address, path), ("direct", provider.address, path)):
                times = relayed(address, to, nth)
                figures |= {f"event_{who}_p50": share(times, 0.5), f"event_{who}_p99": share(times, 0.99)}
            rounds.append(figures)
    finally:
        if awake:
            awake.kill()
            awake.wait()
        larder.stop()
        bare.stop()
        shutil.rmtree(directory, ignore_errors=True)
    middle = {name: round(statistics.median(figures[name] for figures in rounds), 1) for name in rounds[0]}
    print("microseconds, medians of", len(rounds), "rounds          p50      p99")
    for name, other in (("small", "bare"), ("large", None), ("event", "direct")):
        for who in filter(None, ("larder", other)):
            print(f"{name:6} {who:28} {middle[f'{name}_{who}_p50']:9.1f}{middle[f'{name}_{who}_p99']:9.1f}")
        if other:
            print(f"{name:6} {'added':28} {middle[f'{name}_larder_p50'] - middle[f'{name}_{other}_p50']:9.1f}")
    if options.output:
        options.output.write_text(json.dumps({"rounds": rounds, "median": middle}, indent=1) + "\n")


if __name__ == "__main__":
    main()
