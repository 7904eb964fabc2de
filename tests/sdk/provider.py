#!/usr/bin/env python3
"""A simulator of OpenAI, Anthropic and Gemini: answers as they were recorded, each with ids of its own.

It counts calls and keeps the very bytes it got. What it is to do with a call is said by `Provider.behave` for requests that
contain a text, or by the request itself in a field `x-provider`, as JSON:

    status        answer with that status and the provider's form of an error; with it retry_after: seconds
    error_in_200  answer 200 with an error as content
    delay         seconds before the answer
    event_delay   seconds between events
    gate          name of a gate that lets events through one by one (`Provider.gate`)
    error_at      after so many events an error comes as an event, and the stream ends
    cut_at        after so many events the connection breaks
    end_at        after so many events the stream ends as if that were all
    finish        length | content_filter | refusal: how the answer ends
    pieces        bytes in each write instead of one write per event
    reverse       vectors come in the reverse order, with the indexes they have
    drop          so many vectors are missing at the end
    fields        fields of the answer beside those it has
    times         for so many calls (behave only)

    provider.py [PORT]   prints its base URL and serves until its standard input ends
"""

import asyncio
import base64
import gzip
import hashlib
import itertools
import json
import pathlib
import re
import struct
import sys
import threading
from dataclasses import dataclass, field

DATA = pathlib.Path(__file__).parent / "data"
# Ids of recorded answers: each answer gets its own.
IDS = re.compile(
    rb'"((?:chatcmpl-|resp_|msg_|call_|fc_|rs_|gen-|srvtoolu_|toolu_)[\w-]+)"|"responseId": ?"([\w-]+)"|"id": ?"([0-9a-f-]{36})"'
)
NAMED_EVENT_END = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")
ERRORS = {
    400: ("invalid_request_error", "INVALID_ARGUMENT"),
    401: ("authentication_error", "UNAUTHENTICATED"),
    404: ("not_found_error", "NOT_FOUND"),
    429: ("rate_limit_error", "RESOURCE_EXHAUSTED"),
    500: ("api_error", "INTERNAL"),
    503: ("api_error", "UNAVAILABLE"),
    529: ("overloaded_error", "UNAVAILABLE"),
}
DIMENSIONS = 16


@dataclass
class Call:
    """One request as it arrived."""

    number: int
    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes
    broken: bool = False  # whether the client left before the end

    def __getitem__(self, name: str) -> str | None:
        """A field by its lower-case name."""
        return next((value for key, value in self.fields if key == name), None)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 200
    kind: str = "application/json"
    body: bytes = b""
    events: list[bytes] | None = None
    fields: dict[str, str] = field(default_factory=dict)


class Gate:
    """Lets events of a stream through as they are asked for."""

    def __init__(self, loop):
        self.loop, self.open, self.passed = loop, 0, 0
        self.changed = asyncio.Event()

    def release(self, events: int = 1_000_000):
        """Lets so many more through; without a number, all that come."""

        def change():
            self.open += events
            self.changed.set()

        self.loop.call_soon_threadsafe(change)

    async def wait(self):
        while self.passed >= self.open:
            self.changed.clear()
            await self.changed.wait()
        self.passed += 1


class Provider:
    """Serves in a thread of its own."""

    def __init__(self, port: int = 0):
        self.calls: list[Call] = []
        self.rules: list[tuple[bytes, dict]] = []
        self.gates: dict[str, Gate] = {}
        self.numbers = itertools.count(1)
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self._run, args=(port, started), daemon=True).start()
        started.wait()

    def _run(self, port, started):
        asyncio.set_event_loop(self.loop)
        serve = asyncio.start_server(self._connection, "127.0.0.1", port, backlog=4096, limit=1 << 20)
        server = self.loop.run_until_complete(serve)
        self.base = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()

    # What tests do with it.

    def behave(self, text: str, **behaviour):
        """How calls whose request contains this text are answered from now on; nothing but the text: as usual."""
        self.rules.insert(0, (text.encode(), behaviour))

    def gate(self, name: str) -> Gate:
        return self.gates.setdefault(name, Gate(self.loop))

    def calls_with(self, text: str) -> list[Call]:
        """Calls whose target, fields or content contain this text."""
        return [call for call in list(self.calls) if self._has(call, text)]

    @staticmethod
    def _has(call: Call, text: str) -> bool:
        return text.encode() in call.body or text in call.target or any(text in value for _, value in call.fields)

    def _behaviour(self, call: Call) -> dict:
        if own := call["x-provider"]:
            return json.loads(own)
        for text, behaviour in self.rules:
            if self._has(call, text.decode()):
                if behaviour.get("times") == 0:
                    continue
                if "times" in behaviour:
                    behaviour["times"] -= 1
                return behaviour
        return {}

    # HTTP/1.1

    async def _connection(self, reader, writer):
        try:
            while call := await self._request(reader, writer):
                if call.path.startswith("/-/"):
                    answer = self._control(call)
                    self._head(writer, answer, len(answer.body))
                    writer.write(answer.body)
                    await writer.drain()
                    continue
                call.number = next(self.numbers)
                self.calls.append(call)
                if not await self._answer(call, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _request(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
        if not head:
            return None
        line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = line.split(" ")
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        call = Call(0, method, target, fields, b"")
        if call["expect"]:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if (call["transfer-encoding"] or "").lower() == "chunked":
            while size := int((await reader.readline()).split(b";")[0], 16):
                call.body += await reader.readexactly(size)
                await reader.readline()
            while (await reader.readline()).strip():
                pass
        elif length := call["content-length"]:
            call.body = await reader.readexactly(int(length))
        return call

    def _head(self, writer, answer: Answer, length: int | None):
        fields = {"content-type": answer.kind, **answer.fields}
        fields["transfer-encoding" if length is None else "content-length"] = "chunked" if length is None else str(length)
        lines = [f"HTTP/1.1 {answer.status} Status"] + [f"{name}: {value}" for name, value in fields.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def _answer(self, call: Call, writer) -> bool:
        """Whether the connection can be used further."""
        how = self._behaviour(call)
        await asyncio.sleep(how.get("delay", 0))
        answer = self.answer(call, how)
        if answer.events is None:
            if how.get("gate"):
                await self.gate(how["gate"]).wait()
            if "gzip" in (call["accept-encoding"] or "") and answer.status == 200 and how.get("gzip"):
                answer.body = gzip.compress(answer.body)
                answer.fields["content-encoding"] = "gzip"
            self._head(writer, answer, len(answer.body))
            if "cut_at" in how:
                writer.write(answer.body[: len(answer.body) // 2])
                await writer.drain()
                return False
            writer.write(answer.body)
            await writer.drain()
            return True
        self._head(writer, answer, None)
        await writer.drain()
        return await self._stream(call, answer.events, how, writer)

    async def _stream(self, call, events, how, writer) -> bool:
        gate = self.gate(how["gate"]) if how.get("gate") else None
        pieces = events
        if size := how.get("pieces"):
            whole = b"".join(events)
            pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        try:
            for index, piece in enumerate(pieces):
                if how.get("cut_at") == index:
                    return False
                if how.get("end_at") == index:
                    break
                if gate:
                    await gate.wait()
                elif index and how.get("event_delay"):
                    await asyncio.sleep(how["event_delay"])
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        except ConnectionError:
            call.broken = True
            raise
        return True

    def _control(self, call: Call) -> Answer:
        """For clients of other languages: `GET /-/calls?TEXT` counts, `POST /-/behave?TEXT` takes a behaviour."""
        text = call.target.partition("?")[2]
        if call.path == "/-/behave":
            self.behave(text, **call.json)
            return Answer(body=b"{}")
        calls = [base64.b64encode(found.body).decode() for found in self.calls_with(text)]
        return Answer(body=json.dumps({"calls": len(calls), "bodies": calls}).encode())

    # What providers answer.

    def answer(self, call: Call, how: dict) -> Answer:
        protocol, serve = next((p, s) for method, end, p, s in ENDPOINTS if method == call.method and re.search(end, call.path))
        fields = {**provider_fields(protocol, call.number), **how.get("fields", {})}
        if status := how.get("status"):
            if how.get("retry_after") is not None:
                fields["retry-after"] = str(how["retry_after"])
            return Answer(status, body=error(protocol, status), fields=fields)
        if how.get("error_in_200"):
            return Answer(body=error(protocol, 500), fields=fields)
        body = {}
        if call.body and "json" in (call["content-type"] or ""):
            try:
                body = json.loads(call.body)
            except ValueError:
                return Answer(400, body=error(protocol, 400), fields=fields)
        answer = serve(call, body, how)
        answer.fields = {**fields, **answer.fields}
        if answer.events is not None and "error_at" in how:
            answer.events = answer.events[: how["error_at"]] + [error_event(protocol, call.path)]
        return answer


def provider_fields(protocol: str, number: int) -> dict[str, str]:
    """What providers send along: nothing of it may keep an answer from being stored, and little of it may come twice."""
    common = {
        "cache-control": "no-cache, must-revalidate",
        "set-cookie": f"__cf_bm={number}; path=/; HttpOnly",
        "cf-ray": f"{number:x}-FRA",
    }
    if protocol == "openai":
        own = {
            "x-request-id": f"req_{number}",
            "openai-processing-ms": "536",
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": str(9999 - number),
        }
    elif protocol == "anthropic":
        own = {"request-id": f"req_{number}", "anthropic-ratelimit-requests-remaining": str(999 - number)}
    else:
        own = {"server-timing": "gfet4t7; dur=859", "vary": "Origin, X-Origin, Referer"}
    return {**common, **own}


def error(protocol: str, status: int) -> bytes:
    kind, google = ERRORS[status]
    message = f"simulated {status}"
    if protocol == "openai":
        body = {"error": {"message": message, "type": kind, "param": None, "code": kind}}
    elif protocol == "anthropic":
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    else:
        body = {"error": {"code": status, "message": message, "status": google}}
    return json.dumps(body).encode()


def error_event(protocol: str, path: str) -> bytes:
    data = error(protocol, 529 if protocol == "anthropic" else 500)
    if protocol == "anthropic":
        return b"event: error\ndata: " + data + b"\n\n"
    if path.endswith("/responses"):
        data = b'{"type":"error","code":"server_error","message":"simulated 500","param":null,"sequence_number":3}'
        return b"event: error\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


def recorded(name: str, number: int) -> bytes:
    """A recorded answer with ids that no other answer has."""

    def own(match):
        return match[0][:-1] + b"_n%d" % number + b'"'

    return IDS.sub(own, (DATA / name).read_bytes())


def recorded_answer(protocol: str, name: str, stream: bool, number: int) -> Answer:
    if not stream:
        return Answer(body=recorded(f"{name}.json", number))
    events = [event for event in NAMED_EVENT_END.split(recorded(f"{name}.sse", number)) if event]
    return Answer(kind="text/event-stream; charset=utf-8", events=events)


def edited(answer: Answer, edit) -> Answer:
    """The same with `edit` applied to its text, event by event."""
    if answer.events is None:
        answer.body = edit(answer.body)
    else:
        answer.events = [edit(event) for event in answer.events]
    return answer


def chat(call, body, how):
    stream = bool(body.get("stream"))
    model = body.get("model", "")
    name = "openai-chat"
    if body.get("tools"):
        name += "-tools"
    elif body.get("response_format") and not stream:
        name += "-json"
    elif "reason" in model:
        name += "-reasoning"
    elif "annotat" in model and stream:
        name += "-annotations"
    elif "/" in model and stream:
        name += "-comments"
    answer = recorded_answer("openai", name, stream, call.number)
    if stream and not (body.get("stream_options") or {}).get("include_usage"):
        answer.events = [event for event in answer.events if b'"choices":[]' not in event]
    if finish := how.get("finish"):
        reason = b"length" if finish == "length" else b"content_filter"
        answer = edited(answer, lambda text: re.sub(rb'("finish_reason": ?)"\w+"', rb'\1"' + reason + b'"', text))
    return answer


def responses(call, body, how):
    stream = bool(body.get("stream"))
    name = "openai-responses"
    if body.get("tools"):
        name += "-tools"
    elif body.get("reasoning"):
        name += "-reasoning"
    answer = recorded_answer("openai", name, stream, call.number)
    if finish := how.get("finish"):
        why = b"max_output_tokens" if finish == "length" else b"content_filter"

        def edit(text):
            if stream and b"response.completed" not in text:
                return text
            text = text.replace(b"response.completed", b"response.incomplete").replace(
                b'"status":"completed"', b'"status":"incomplete"'
            )
            return text.replace(b'"incomplete_details":null', b'"incomplete_details":{"reason":"%s"}' % why)

        answer = edited(answer, edit)
    return answer


def completions(call, body, how):
    number, reason = call.number, "length" if how.get("finish") == "length" else "stop"
    base = {"id": f"cmpl-n{number}", "object": "text_completion", "created": 1589478378, "model": body.get("model")}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    if not body.get("stream"):
        choice = {"text": f"This is answer {number}", "index": 0, "logprobs": None, "finish_reason": reason}
        return Answer(body=json.dumps({**base, "choices": [choice], "usage": usage}).encode())
    words = ["This", " is", f" answer {number}", ""]
    chunks = [
        {**base, "choices": [{"text": word, "index": 0, "logprobs": None, "finish_reason": reason if not word else None}]}
        for word in words
    ]
    events = [b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks] + [b"data: [DONE]\n\n"]
    return Answer(kind="text/event-stream", events=events)


def vector(text, dimensions: int, number: int) -> list[float]:
    """Tells which input it belongs to, and first of all which call it came from."""
    seed = hashlib.sha256(json.dumps(text).encode()).digest()
    values = [seed[at % 32] / 256 + at // 32 for at in range(dimensions - 1)]
    return [number / 4096, *values]


def embeddings(call, body, how):
    inputs = body["input"]
    # One text, one list of tokens, or a list of either.
    if isinstance(inputs, str) or (inputs and isinstance(inputs[0], int)):
        inputs = [inputs]
    dimensions = body.get("dimensions", DIMENSIONS)
    data = []
    for index, text in enumerate(inputs):
        value = vector(text, dimensions, call.number)
        if body.get("encoding_format") == "base64":
            value = base64.b64encode(struct.pack(f"<{dimensions}f", *value)).decode()
        data.append({"object": "embedding", "index": index, "embedding": value})
    if how.get("reverse"):
        data.reverse()
    data = data[: len(data) - how.get("drop", 0)]
    tokens = 4 * len(inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(body=json.dumps({"object": "list", "data": data, "model": body["model"], "usage": usage}).encode())


def moderations(call, body, how):
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    names = ["harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm"]
    names += ["self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"]
    result = {
        "flagged": True,
        "categories": {name: name == "violence" for name in names},
        "category_scores": {name: 2.227119921371923e-6 for name in names},
        "category_applied_input_types": {name: ["text"] for name in names},
    }
    answer = {"id": f"modr-n{call.number}", "model": "omni-moderation-latest", "results": [result] * len(inputs)}
    return Answer(body=json.dumps(answer).encode())


def images(call, body, how):
    image = base64.b64encode(b"\x89PNG %d" % call.number).decode()
    usage = {
        "total_tokens": 100,
        "input_tokens": 50,
        "output_tokens": 50,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    }
    return Answer(body=json.dumps({"created": 1713833628, "data": [{"b64_json": image}], "usage": usage}).encode())


def transcriptions(call, body, how):
    details = {"text_tokens": 0, "audio_tokens": 14}
    usage = {"type": "tokens", "input_tokens": 14, "input_token_details": details, "output_tokens": 45, "total_tokens": 59}
    return Answer(body=json.dumps({"text": f"This is answer {call.number}.", "usage": usage}).encode())


def rerank(call, body, how):
    results = [{"index": index, "relevance_score": 1 / (index + 2)} for index in range(len(body["documents"]))]
    return Answer(body=json.dumps({"id": f"rerank-n{call.number}", "results": results}).encode())


def models(call, body, how):
    data = [
        {"id": name, "object": "model", "created": 1686935002 + call.number, "owned_by": "openai"}
        for name in ("gpt-4o", "gpt-5")
    ]
    if name := call.path.partition("/models/")[2]:
        return Answer(body=json.dumps({**data[0], "id": name}).encode())
    return Answer(body=json.dumps({"object": "list", "data": data}).encode())


def file_upload(call, body, how):
    made = {
        "id": f"file-n{call.number}",
        "object": "file",
        "bytes": len(call.body),
        "created_at": 1,
        "filename": "f",
        "purpose": "batch",
    }
    return Answer(body=json.dumps({**made, "status": "processed"}).encode())


def messages(call, body, how):
    name = "anthropic-messages"
    if body.get("tools"):
        name += "-tools"
    elif body.get("thinking"):
        name += "-thinking"
    answer = recorded_answer("anthropic", name, bool(body.get("stream")), call.number)
    if finish := how.get("finish"):
        reason = b"max_tokens" if finish == "length" else b"refusal"
        answer = edited(answer, lambda text: re.sub(rb'("stop_reason": ?)"\w+"', rb'\1"' + reason + b'"', text))
    return answer


def count_tokens(call, body, how):
    return Answer(body=json.dumps({"input_tokens": 1000 + call.number}).encode())


def generate(call, body, how, stream=False):
    name = "gemini-generate"
    config = body.get("generationConfig", {})
    if body.get("tools"):
        name += "-tools"
    elif not stream and (config.get("responseSchema") or config.get("responseJsonSchema")):
        name += "-json"
    answer = recorded_answer("gemini", name, stream, call.number)
    answer.kind = answer.kind.replace("; charset=utf-8", "") if stream else "application/json; charset=UTF-8"
    if finish := how.get("finish"):
        reason = b"MAX_TOKENS" if finish == "length" else b"SAFETY"
        answer = edited(answer, lambda text: re.sub(rb'("finishReason": ?)"\w+"', rb'\1"' + reason + b'"', text))
    return answer


def stream_generate(call, body, how):
    answer = generate(call, body, how, stream=True)
    if "alt=sse" not in call.target:
        # An array whose elements come one by one.
        parts = [event.strip().removeprefix(b"data: ") for event in answer.events]
        answer.kind = "application/json; charset=UTF-8"
        answer.events = [(b"[" if at == 0 else b",\r\n") + part for at, part in enumerate(parts)] + [b"]\n"]
    return answer


def gemini_count(call, body, how):
    return Answer(body=json.dumps({"totalTokens": 1000 + call.number}).encode())


def gemini_embed(call, body, how):
    """One or many: `google-genai` always asks for many."""
    requests = body.get("requests", [body])
    values = [vector(r["content"], r.get("outputDimensionality") or DIMENSIONS, call.number) for r in requests]
    if "requests" not in body:
        return Answer(body=json.dumps({"embedding": {"values": values[0]}}).encode())
    return Answer(body=json.dumps({"embeddings": [{"values": value} for value in values]}).encode())


def gemini_models(call, body, how):
    model = {"name": "models/gemini-2.5-flash", "version": str(call.number), "displayName": "Gemini", "inputTokenLimit": 1}
    return Answer(body=json.dumps({"models": [model]}).encode())


def untouched(call, body, how):
    return Answer(body=json.dumps({"id": f"n{call.number}"}).encode())


# The first that fits; the last ones take what is not known.
ENDPOINTS = [
    ("POST", r"/chat/completions$", "openai", chat),
    ("POST", r"/completions$", "openai", completions),
    ("POST", r"/responses$", "openai", responses),
    ("POST", r"/embeddings$", "openai", embeddings),
    ("POST", r"/moderations$", "openai", moderations),
    ("POST", r"/images/generations$", "openai", images),
    ("POST", r"/audio/transcriptions$", "openai", transcriptions),
    ("POST", r"/rerank$", "openai", rerank),
    ("POST", r"/files$", "openai", file_upload),
    ("POST", r"/messages/count_tokens$", "anthropic", count_tokens),
    ("POST", r"/messages$", "anthropic", messages),
    ("POST", r":generateContent$", "gemini", generate),
    ("POST", r":streamGenerateContent$", "gemini", stream_generate),
    ("POST", r":countTokens$", "gemini", gemini_count),
    ("POST", r":(batchEmbedContents|embedContent)$", "gemini", gemini_embed),
    ("GET", r"/v1beta/models$", "gemini", gemini_models),
    ("GET", r"/models", "openai", models),
    ("GET", r"", "openai", untouched),
    ("POST", r"", "openai", untouched),
    ("DELETE", r"", "openai", untouched),
]


if __name__ == "__main__":
    print(Provider(int(sys.argv[1]) if len(sys.argv) > 1 else 0).base, flush=True)
    sys.stdin.read()
