"""Streams: relayed event by event, shared while they come, replayed as they were."""

import asyncio
import time

import openai
import pytest
from harness import PATIENCE, Got, ask, ask_async, assert_hit, exchange, mark, post, run, tag, twice
from provider import NAMED_EVENT_END, recorded

RECORDED = [event for event in NAMED_EVENT_END.split(recorded("openai-chat.sse", 1)) if event]


def arguments_of(prompt):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], "temperature": 0}


def body_of(prompt: str) -> bytes:
    return (
        b'{"model":"gpt-4o","stream":true,"temperature":0,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"%s"}]}'
        % (prompt.encode())
    )


KEY = {"authorization": "Bearer sk-one"}


def test_events_arrive_one_by_one(provider, openai_client):
    """Each comes before the next one has been made."""
    prompt = mark()
    gate = provider.gate(tag(prompt))
    provider.behave(tag(prompt), gate=tag(prompt))
    gate.release(1)
    stream = iter(openai_client.chat.completions.create(stream=True, **arguments_of(prompt)))
    seen = [next(stream)]
    for _ in range(5):
        gate.release(1)
        seen.append(next(stream))
    assert len(seen) == gate.passed
    gate.release()
    seen += stream
    assert [event.model_dump() for event in seen] == ask(openai_client.chat.completions, True, **arguments_of(prompt)).items


def test_anthropic_events_arrive_one_by_one(provider, anthropic_client):
    prompt = mark()
    gate = provider.gate(tag(prompt))
    provider.behave(tag(prompt), gate=tag(prompt))
    gate.release(1)
    messages = [{"role": "user", "content": prompt}]
    stream = iter(
        anthropic_client.messages.create(
            model="claude", max_tokens=9, messages=messages, stream=True, extra_body={"temperature": 0}
        )
    )
    kinds = [next(stream).type]
    gate.release(1)
    kinds.append(next(stream).type)
    assert kinds == ["message_start", "content_block_start"]
    gate.release()
    assert [event.type for event in stream][-1] == "message_stop"


@pytest.mark.parametrize(
    ("route", "path", "model", "extra"),
    [
        ("openai", "/v1/chat/completions", "gpt-4o", ""),
        ("openai", "/v1/chat/completions", "anthropic/claude", ""),
        ("openai", "/v1/responses", "gpt-4o", ""),
        ("anthropic", "/v1/messages", "claude", ',"max_tokens":9'),
        ("gemini", "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "", ""),
    ],
    ids=["chat", "chat with comments", "responses", "messages", "gemini"],
)
def test_a_replay_is_the_stream_byte_for_byte(route, path, model, extra, provider, at):
    """Comments, blanks behind JSON and line breaks of either kind included."""
    prompt = mark()
    content = (
        '"contents":[{"parts":[{"text":"%s"}]}],"generationConfig":{"temperature":0}' if route == "gemini" else '"input":"%s"'
    )
    if path.endswith(("completions", "messages")):
        content = '"messages":[{"role":"user","content":"%s"}]'
    head = "" if route == "gemini" else f'"model":"{model}","stream":true,"temperature":0,'
    body = ("{" + head + content % prompt + extra + "}").encode()

    def call():
        status, fields, got = post(at(route), path, body, {**KEY, "x-api-key": "a", "x-goog-api-key": "g"})
        assert status == 200 and fields["content-type"].startswith("text/event-stream")
        return Got([got], fields)

    twice(provider, prompt, call)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_how_a_stream_is_cut_into_pieces_does_not_count(size, provider, openai_client):
    prompt = mark()
    provider.behave(tag(prompt), pieces=size)
    first, _ = twice(provider, prompt, lambda: ask(openai_client.chat.completions, True, **arguments_of(prompt)))
    assert len(first.items) > 5


def test_plain_and_streamed_never_answer_for_each_other(provider, openai_client):
    prompt = mark()
    chat = openai_client.chat.completions
    plain = ask(chat, False, **arguments_of(prompt))
    streamed = ask(chat, True, **arguments_of(prompt))
    assert not streamed.hit and len(streamed.items) > 1
    assert streamed.fields["content-type"].startswith("text/event-stream")
    assert plain.fields["content-type"].startswith("application/json")
    assert ask(chat, False, **arguments_of(prompt)).items == plain.items
    assert ask(chat, True, **arguments_of(prompt)).items == streamed.items
    assert len(provider.calls_with(tag(prompt))) == 2


@pytest.mark.parametrize("order", ["plain first", "streamed first"])
def test_anthropic_plain_and_streamed_never_answer_for_each_other(order, provider, anthropic_client):
    prompt = mark()
    call = lambda stream: ask(  # noqa: E731
        anthropic_client.messages,
        stream,
        model="claude",
        max_tokens=9,
        messages=[{"role": "user", "content": prompt}],
        extra_body={"temperature": 0},
    )
    stream = order == "streamed first"
    answers = {stream: call(stream), (not stream): call(not stream)}
    assert not answers[not stream].hit
    assert len(answers[True].items) > 1 == len(answers[False].items)
    assert all(call(stream).items == answers[stream].items for stream in (True, False))


def test_who_comes_later_reads_a_running_stream_from_its_beginning(provider, openai_at):
    prompt = mark()
    gate = provider.gate(tag(prompt))
    provider.behave(tag(prompt), gate=tag(prompt))

    async def scene():
        client = openai_at(kind=openai.AsyncOpenAI)
        gate.release(4)
        leader = aiter(await client.chat.completions.create(stream=True, **arguments_of(prompt)))
        first = [await anext(leader) for _ in range(4)]
        follower = aiter(await client.chat.completions.create(stream=True, **arguments_of(prompt)))
        joined = [await anext(follower) for _ in range(4)]
        assert joined == first and gate.passed == 4, "without another event from the provider"
        gate.release()
        return first + [event async for event in leader], joined + [event async for event in follower]

    one, other = run(asyncio.wait_for(scene(), PATIENCE))
    assert one == other and len(one) > 5
    assert len(provider.calls_with(tag(prompt))) == 1


def test_who_leaves_hurts_nobody_who_stays(provider, openai_at):
    prompt = mark()
    gate = provider.gate(tag(prompt))
    provider.behave(tag(prompt), gate=tag(prompt))

    async def scene():
        client = openai_at(kind=openai.AsyncOpenAI)
        gate.release(2)
        leader = await client.chat.completions.create(stream=True, **arguments_of(prompt))
        await anext(aiter(leader))
        follower = aiter(await client.chat.completions.create(stream=True, **arguments_of(prompt)))
        first = await anext(follower)
        await leader.close()
        gate.release()
        return [first] + [event async for event in follower]

    events = run(asyncio.wait_for(scene(), PATIENCE))
    again = ask(openai_at().chat.completions, True, **arguments_of(prompt))
    assert_hit(provider, prompt, again)
    assert [event.model_dump() for event in events] == again.items


def test_a_stream_that_all_have_left_is_finished_and_stored(provider, openai_at):
    """It will be paid for, and the next who asks gets it."""
    prompt = mark()
    gate = provider.gate(tag(prompt))
    provider.behave(tag(prompt), gate=tag(prompt))

    async def leave():
        client = openai_at(kind=openai.AsyncOpenAI)
        gate.release(2)
        stream = await client.chat.completions.create(stream=True, **arguments_of(prompt))
        await anext(aiter(stream))
        await stream.close()

    run(asyncio.wait_for(leave(), PATIENCE))
    gate.release()
    got = ask(openai_at().chat.completions, True, **arguments_of(prompt))
    assert len(got.items) > 5
    assert len(provider.calls_with(tag(prompt))) == 1


def test_a_thousand_identical_streams_are_one_call(provider, at):
    """Half of them come while it runs; all read all of it."""
    prompt = mark()
    gate = provider.gate(tag(prompt))
    provider.behave(tag(prompt), gate=tag(prompt))
    started = 0
    body = body_of(prompt)

    def begun():
        seen = False

        def piece(content):
            nonlocal seen, started
            if not seen and content.count(b"\n\n") >= 3:
                seen = True
                started += 1

        return piece

    async def scene():
        gate.release(3)
        one = lambda: asyncio.create_task(exchange(at("openai"), "/v1/chat/completions", body, KEY, begun()))  # noqa: E731
        tasks = [one() for _ in range(500)]
        while started < 500:
            await asyncio.sleep(0.01)
        tasks += [one() for _ in range(500)]
        while started < 1000:
            await asyncio.sleep(0.01)
        assert gate.passed == 3
        gate.release()
        return await asyncio.gather(*tasks)

    answers = run(asyncio.wait_for(scene(), 60))
    calls = provider.calls_with(tag(prompt))
    assert len(calls) == 1
    contents = {content for _, _, content in answers}
    assert contents == {recorded("openai-chat.sse", calls[0].number)}
    assert {status for status, _, _ in answers} == {200}


def test_fifty_sdk_clients_read_one_stream(provider, openai_at):
    prompt = mark()
    gate = provider.gate(tag(prompt))
    provider.behave(tag(prompt), gate=tag(prompt))

    async def scene():
        client = openai_at(kind=openai.AsyncOpenAI)
        tasks = [asyncio.create_task(ask_async(client.chat.completions, True, **arguments_of(prompt))) for _ in range(50)]
        while not provider.calls_with(tag(prompt)):
            await asyncio.sleep(0.01)
        gate.release()
        return await asyncio.gather(*tasks)

    answers = run(asyncio.wait_for(scene(), PATIENCE))
    assert len(provider.calls_with(tag(prompt))) == 1
    assert all(answer.items == answers[0].items for answer in answers)


def test_a_broken_stream_breaks_for_all_who_read_it(provider, openai_at):
    prompt = mark()
    gate = provider.gate(tag(prompt))
    provider.behave(tag(prompt), gate=tag(prompt), cut_at=4, times=1)

    async def scene():
        client = openai_at(kind=openai.AsyncOpenAI)
        tasks = [asyncio.create_task(ask_async(client.chat.completions, True, **arguments_of(prompt))) for _ in range(5)]
        while not provider.calls_with(tag(prompt)):
            await asyncio.sleep(0.01)
        gate.release()
        return await asyncio.gather(*tasks, return_exceptions=True)

    calls = provider.calls_with
    assert all(isinstance(raised, Exception) for raised in run(asyncio.wait_for(scene(), PATIENCE)))
    assert len(calls(tag(prompt))) == 1
    assert not ask(openai_at().chat.completions, True, **arguments_of(prompt)).hit


def test_a_replay_at_a_pace(provider, openai_at):
    """Twenty events a second where the route says so; at once for who asks for it."""
    prompt = mark()
    first = ask(openai_at("paced").chat.completions, True, **arguments_of(prompt))
    begun = time.monotonic()
    slow = ask(openai_at("paced").chat.completions, True, **arguments_of(prompt))
    took = time.monotonic() - begun
    assert slow.hit and slow.items == first.items
    assert took > 0.6 * len(first.items) / 20
    begun = time.monotonic()
    fast = ask(openai_at("paced").chat.completions, True, extra_headers={"x-larder-replay": "instant"}, **arguments_of(prompt))
    assert fast.items == first.items
    assert time.monotonic() - begun < took


def test_a_replay_as_slow_as_the_first_time(provider, openai_client):
    prompt = mark()
    provider.behave(tag(prompt), event_delay=0.05)
    first = ask(openai_client.chat.completions, True, **arguments_of(prompt))
    begun = time.monotonic()
    again = ask(openai_client.chat.completions, True, extra_headers={"x-larder-replay": "original"}, **arguments_of(prompt))
    assert again.hit and again.items == first.items
    assert time.monotonic() - begun > 0.6 * 0.05 * len(first.items)


def test_the_status_comes_before_the_first_event(provider, openai_client):
    prompt = mark()
    ask(openai_client.chat.completions, True, **arguments_of(prompt))
    with openai_client.chat.completions.with_streaming_response.create(stream=True, **arguments_of(prompt)) as response:
        assert "hit" in response.headers["cache-status"]
        assert int(response.headers["age"]) >= 0


@pytest.mark.parametrize("fields", [{}, {"vary": "Accept-Encoding"}], ids=["unsaid", "said"])
def test_compressed_answers_are_for_who_reads_them(fields, provider, at):
    prompt = mark()
    provider.behave(tag(prompt), gzip=True, fields=fields)
    body = body_of(prompt).replace(b'"stream":true,', b"").replace(b',"stream_options":{"include_usage":true}', b"")
    import gzip
    import json

    ids = set()
    for accepted in ("gzip", "identity", "gzip", "identity"):
        _, fields, content = post(at("openai"), "/v1/chat/completions", body, {**KEY, "accept-encoding": accepted})
        coding = fields.get("content-encoding", "identity")
        assert coding in ("identity", accepted)
        ids.add(json.loads(gzip.decompress(content) if coding == "gzip" else content)["id"])
    assert len(ids) == len(provider.calls_with(tag(prompt)))
    assert len(ids) <= 2
