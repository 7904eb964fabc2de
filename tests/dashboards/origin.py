"""A simulated origin: each path shows one thing a cache can do, and the whole can be made slow, or be taken away."""

import asyncio
import hashlib
import threading

WORDS = b"the quick brown fox jumps over the lazy dog and the cache remembers it "


class Origin:
    """Serves in a thread of its own. `slow` is how long every answer takes more, in seconds."""

    def __init__(self):
        self.slow, self.seen, self.server, self.port = 0.0, set(), None, 0
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.open()
        self.base = f"http://127.0.0.1:{self.port}"

    def open(self):
        """Takes connections, on the port it had before."""
        listening = asyncio.start_server(self._connection, "127.0.0.1", self.port, backlog=1024)
        self.server = asyncio.run_coroutine_threadsafe(listening, self.loop).result(5)
        self.port = self.server.sockets[0].getsockname()[1]

    def close(self):
        """Takes none any more, and answers on those it has no longer."""

        async def closed():
            self.server.close()
            self.server = None

        asyncio.run_coroutine_threadsafe(closed(), self.loop).result(5)

    async def _connection(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *lines = head.decode("latin-1").split("\r\n")
                fields = dict(
                    (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines if line)
                )
                if length := int(fields.get("content-length", 0)):
                    await reader.readexactly(length)
                method, path, _ = line.split(" ")
                if not self.server or not await self._answer(method, path, fields, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, method, path, fields, writer) -> bool:
        """Whether the connection can be used further."""
        await asyncio.sleep(self.slow)
        kind = path.split("/")[1]
        if kind == "error":
            return False
        status, more, body = 200, {}, (WORDS + hashlib.sha256(path.encode()).hexdigest().encode()) * 60
        if kind == "page":
            more = {"cache-control": "max-age=20", "surrogate-key": path.strip("/").replace("/", "-"), "etag": '"1"'}
        elif kind == "fleeting":
            more = {"cache-control": "max-age=1", "etag": '"1"'}
        elif kind == "expiring":
            more = {"cache-control": "max-age=1"}
        elif kind == "refreshing":
            more = {"cache-control": "max-age=1, stale-while-revalidate=60", "etag": '"1"'}
        elif kind == "flaky":
            more = {"cache-control": "max-age=1, stale-if-error=600"}
            if path in self.seen:
                status = 503
            self.seen.add(path)
        elif kind == "private":
            more = {"cache-control": "no-store"}
        elif kind == "slow":
            await asyncio.sleep(0.2)
            more = {"cache-control": "max-age=1"}
        elif kind == "large":
            more, body = {"cache-control": "max-age=600"}, hashlib.sha256(path.encode()).digest() * 20_000
        if more.get("etag") and fields.get("if-none-match") == more["etag"]:
            status, body = 304, b""
        more |= {"content-type": "text/plain", "content-length": str(len(body))}
        if status == 304:
            del more["content-length"]
        told = "".join(f"{name}: {value}\r\n" for name, value in more.items())
        writer.write(f"HTTP/1.1 {status} Status\r\n{told}\r\n".encode())
        if kind == "broken":
            writer.write(body[:100])
            await writer.drain()
            return False
        writer.write(body)
        await writer.drain()
        return True
