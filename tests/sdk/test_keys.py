"""What makes two calls the same, and what does not; and that the provider gets what the client sent."""

import json

import openai
import pytest
from harness import Got, ask, assert_hit, mark, post, tag, twice

MESSAGES = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}

# Arguments that make another call of a chat, one by one; those the SDK does not know go through `extra_body`.
OTHER_CHATS = {
    "model": "gpt-4o-mini",
    "reasoning_effort": "low",
    "verbosity": "low",
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "top_p": 0.5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "n": 2,
    "seed": 1,
    "stop": ["x"],
    "logprobs": True,
    "logit_bias": {"50256": -100},
    "tools": [TOOL],
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
    "modalities": ["text"],
    "temperature": -0.5,
    "extra_body.top_k": 40,
    "extra_body.min_p": 0.1,
    "extra_body.num_ctx": 4096,
    "extra_body.options": {"num_ctx": 4096},
    "extra_body.thinking": {"type": "enabled", "budget_tokens": 1024},
    "extra_body.chat_template_kwargs": {"enable_thinking": False},
    "extra_body.guided_json": {"type": "object"},
    "extra_body.mcp_config": {"server": "a"},
    "extra_body.heard_of_by_nobody": None,
    "extra_body.provider": {"order": ["a", "b"]},
}
# What changes nothing about the answer.
SAME_CHATS = {
    "user": "someone",
    "safety_identifier": "someone",
    "metadata": {"run": "7"},
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "service_tier": "flex",
    "extra_headers": {
        "X-Request-Id": "7",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Idempotency-Key": "7",
    },
    "extra_headers ": {
        "User-Agent": "another/1.0",
        "X-Stainless-Lang": "other",
        "Cookie": "a=b",
        "Accept-Encoding": "identity",
    },
}


def arguments_with(name, value):
    group, _, inner = name.strip().partition(".")
    return {group: {inner: value} if inner else value}


def chat(client, prompt, **more):
    arguments = {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], "seed": 7, **more}
    return ask(client.chat.completions, **arguments)


@pytest.mark.parametrize("name", OTHER_CHATS)
def test_any_other_parameter_is_another_question(name, provider, openai_client):
    prompt = mark()
    first = chat(openai_client, prompt)
    arguments = arguments_with(name, OTHER_CHATS[name])
    other = chat(openai_client, prompt, **arguments)
    assert not other.hit and other.items[0]["id"] != first.items[0]["id"]
    assert len(provider.calls_with(tag(prompt))) == 2
    again = chat(openai_client, prompt)
    assert again.items == first.items, "the first is still what it was"
    third = chat(openai_client, prompt, **arguments)
    assert third.items == other.items, "and the other has its own place"
    assert third.hit


@pytest.mark.parametrize("name", SAME_CHATS)
def test_what_does_not_count(name, provider, openai_client):
    prompt = mark()
    first = chat(openai_client, prompt)
    other = chat(openai_client, prompt, **arguments_with(name, SAME_CHATS[name]))
    assert_hit(provider, prompt, other)
    assert other.items == first.items


OTHER_MESSAGES = {
    "a blank at the end": lambda p: [{"role": "user", "content": p + " "}],
    "another case": lambda p: [{"role": "user", "content": p.upper().replace(tag(p).upper(), tag(p))}],
    "another role": lambda p: [{"role": "developer", "content": p}],
    "a system prompt": lambda p: [{"role": "system", "content": "Be brief."}, {"role": "user", "content": p}],
    "a name": lambda p: [{"role": "user", "content": p, "name": "n"}],
    "one more turn": lambda p: [
        {"role": "user", "content": p},
        {"role": "assistant", "content": "Paris"},
        {"role": "user", "content": "?"},
    ],
    "an image": lambda p: [
        {
            "role": "user",
            "content": [{"type": "text", "text": p}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        }
    ],
    "another image": lambda p: [
        {
            "role": "user",
            "content": [{"type": "text", "text": p}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAB"}}],
        }
    ],
    "how closely to look": lambda p: [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": p},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            ],
        }
    ],
    "letters that look alike": lambda p: [{"role": "user", "content": p.replace("a", "\u0430")}],
    "another normal form": lambda p: [{"role": "user", "content": p + "e\u0301"}],
    "the other normal form": lambda p: [{"role": "user", "content": p + "\u00e9"}],
}


def test_any_other_message_is_another_question(provider, openai_client):
    prompt = mark()
    answers = [chat(openai_client, prompt)]
    answers += [chat(openai_client, prompt, messages=change(prompt)) for change in OTHER_MESSAGES.values()]
    assert len({got.items[0]["id"] for got in answers}) == len(OTHER_MESSAGES) + 1
    for change in OTHER_MESSAGES.values():
        assert chat(openai_client, prompt, messages=change(prompt)).hit


def test_the_order_of_tools_and_messages_counts(provider, openai_client):
    prompt = mark()
    other = {**TOOL, "function": {**TOOL["function"], "name": "g"}}
    one = chat(openai_client, prompt, tools=[TOOL, other])
    assert one.items != chat(openai_client, prompt, tools=[other, TOOL]).items


def send(at, body: bytes, **fields) -> Got:
    given = {"authorization": "Bearer sk-one", **{name.replace("_", "-"): value for name, value in fields.items()}}
    status, got, content = post(at("openai"), "/v1/chat/completions", body, given)
    assert status == 200, content
    return Got([content], got)


def test_order_of_members_and_blanks_do_not_count(provider, at):
    prompt = mark()
    body = {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": prompt}], "top_p": 1}
    spellings = [
        json.dumps(body).encode(),
        json.dumps(body, separators=(",", ":")).encode(),
        json.dumps(body, indent="\t").encode(),
        json.dumps({name: body[name] for name in reversed(body)}).encode(),
        json.dumps({**body, "messages": [{"content": prompt, "role": "user"}]}).encode(),
        json.dumps(body).replace('"temperature": 0', '"temperature": 0.0').encode(),
        json.dumps(body).replace('"top_p": 1', '"top_p": 1e0').encode(),
        json.dumps(body).replace("What", "\\u0057hat").encode(),
    ]
    first = send(at, spellings[0])
    for body in spellings[1:]:
        got = send(at, body)
        assert got.items == first.items, body
        assert_hit(provider, prompt, got)


def test_large_numbers_are_not_rounded(provider, at):
    prompt = mark()
    body = lambda seed: b'{"model":"m","messages":[{"role":"user","content":"%s"}],"seed":%s}' % (prompt.encode(), seed)  # noqa: E731
    seeds = [b"9007199254740992", b"9007199254740993", b"0.1", b"0.10000000000000001", b"-0"]
    answers = [send(at, body(seed)).items[0] for seed in seeds]
    assert len(set(answers)) == len(seeds)


def test_a_body_that_can_be_read_in_two_ways_passes(provider, at):
    prompt = mark()
    body = b'{"model":"m","temperature":0,"messages":[{"role":"user","content":"%s"}],"seed":1,"seed":2}' % prompt.encode()
    assert not any(send(at, body).hit for _ in range(2))
    assert [call.body for call in provider.calls_with(tag(prompt))] == [body] * 2


STRANGE = (
    b'{ "messages" : [ {"role":"user","content":"%s caf\\u00e9 \xc3\xa9 \\/ \\ud83d\\ude00 \xf0\x9f\x98\x80"} ]\r\n,\t"model":"gpt-4o" ,'
    b' "temperature":0.0e0, "unknown" : {"b":1,"a":[1.50,1E+2,-0.0,123456789012345678901234567890]} }\n\n'
)


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_the_provider_gets_the_clients_bytes(framing, provider, at):
    """Blanks, escapes, numbers and the order of members: what the provider caches by itself depends on them."""
    prompt = mark()
    body = STRANGE % prompt.encode()
    if framing == "chunked":
        sent = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:90], body[90:])) + b"0\r\n\r\n"
        got = send(at, sent, content_length=None, transfer_encoding="chunked")
    else:
        got = send(at, body)
    assert not got.hit
    assert [call.body for call in provider.calls_with(tag(prompt))] == [body]


def test_the_provider_gets_the_sdks_bytes_and_fields(provider, openai_at):
    prompt = mark()
    sent = []
    http = openai.DefaultHttpxClient(
        event_hooks={"request": [lambda request: sent.append((request.read(), dict(request.headers)))]}
    )
    client = openai_at(key="sk-bytes", http_client=http, organization="org-1", project="proj-1")
    chat(client, prompt, tools=[TOOL], extra_headers={"OpenAI-Beta": "assistants=v2"})
    call = provider.calls_with(tag(prompt))[0]
    body, fields = sent[0]
    assert call.body == body
    own = (
        "authorization",
        "content-type",
        "openai-organization",
        "openai-project",
        "openai-beta",
        "user-agent",
        "x-stainless-lang",
    )
    assert {name: call[name] for name in own} == {name: fields[name] for name in own}
    assert call.path == "/v1/chat/completions"


def test_tools_come_to_the_provider_in_the_same_bytes_each_time(provider, openai_client):
    """A provider's own cache of prompts works on beginnings: one changed byte, and it starts anew."""
    prompt = mark()
    tools = [
        {"type": "function", "function": {"name": f"f{n}", "parameters": {"type": "object", "properties": {"z": {}, "a": {}}}}}
        for n in range(9)
    ]
    for number in range(5):
        chat(openai_client, prompt, tools=tools, max_tokens=number + 1)
    bodies = {call.body.partition(b'"tools":')[2].partition(b',"max_tokens"')[0] for call in provider.calls_with(tag(prompt))}
    assert len(provider.calls_with(tag(prompt))) == 5
    assert len({body[: len(json.dumps(tools, separators=(",", ":")))] for body in bodies}) == 1


def test_another_provider_of_the_same_model_is_another_call(provider, openai_at):
    prompt = mark()
    assert chat(openai_at("openai"), prompt).items != chat(openai_at("groq"), prompt).items


@pytest.mark.parametrize("vary", ["Accept-Encoding", "Origin", "Origin, X-Origin, Referer", "Authorization"])
def test_what_a_provider_says_an_answer_varies_by_keeps_no_repeat_from_hitting(vary, provider, openai_client):
    """Google names three fields, OpenRouter one."""
    prompt = mark()
    provider.behave(tag(prompt), fields={"vary": vary})
    twice(provider, prompt, lambda: chat(openai_client, prompt))


def test_a_long_prompt(provider, openai_client):
    """300 KB, and one letter of it in the middle."""
    prompt = mark("x" * 150_000) + "y" * 150_000
    first = chat(openai_client, prompt)
    assert_hit(provider, prompt, chat(openai_client, prompt))
    at = len(prompt) // 2
    other = chat(openai_client, prompt[:at] + "z" + prompt[at + 1 :])
    assert other.items != first.items


def test_volatile_text_of_the_operator_does_not_count_and_is_sent(provider, openai_at):
    prompt = mark()
    ask_with = lambda number: chat(openai_at("masked"), f"{prompt} session {number}")  # noqa: E731
    first, second = ask_with(123), ask_with(4567)
    assert_hit(provider, prompt, second)
    assert second.items == first.items
    assert b"session 123" in provider.calls_with(tag(prompt))[0].body
    assert not chat(openai_at("masked"), f"{prompt} session x").hit
