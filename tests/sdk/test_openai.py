"""The openai SDK: what its objects hold is the same whether an answer comes from the provider or from the cache."""

import json

import openai
import pytest
from harness import Got, ask, ask_async, assert_hit, dump, is_hit, mark, not_stored, run, tag, twice

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_capital",
            "parameters": {"type": "object", "properties": {"country": {"type": "string"}}, "required": ["country"]},
        },
    }
]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


def chat(client):
    return client.chat.completions


def responses(client):
    return client.responses


def completions(client):
    return client.completions


def user(prompt):
    return [{"role": "user", "content": prompt}]


# Name of a case, and what is called with what.
CASES = {
    "chat": (chat, lambda prompt: {"model": "gpt-4o", "messages": user(prompt)}),
    "chat with tools": (chat, lambda prompt: {"model": "gpt-4o", "messages": user(prompt), "tools": TOOLS}),
    "chat in JSON mode": (
        chat,
        lambda prompt: {"model": "gpt-4o", "messages": user(prompt), "response_format": {"type": "json_object"}},
    ),
    "chat with a schema": (
        chat,
        lambda prompt: {
            "model": "gpt-4o",
            "messages": user(prompt),
            "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}},
        },
    ),
    "chat with reasoning_content": (chat, lambda prompt: {"model": "deepseek-reasoner", "messages": user(prompt)}),
    "chat with annotations": (chat, lambda prompt: {"model": "gpt-annotating", "messages": user(prompt)}),
    "chat with comments between events": (chat, lambda prompt: {"model": "anthropic/claude", "messages": user(prompt)}),
    "chat about an image": (
        chat,
        lambda prompt: {
            "model": "gpt-4o",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": prompt},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                    ],
                }
            ],
        },
    ),
    "responses": (responses, lambda prompt: {"model": "gpt-4o", "input": prompt}),
    "responses with tools": (
        responses,
        lambda prompt: {
            "model": "gpt-4o",
            "input": prompt,
            "tools": [{"type": "function", "strict": False, **TOOLS[0]["function"]}],
        },
    ),
    "responses with reasoning": (
        responses,
        lambda prompt: {"model": "gpt-5", "input": prompt, "reasoning": {"effort": "low"}},
    ),
    "completions": (completions, lambda prompt: {"model": "gpt-3.5-turbo-instruct", "prompt": prompt}),
}


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("case", CASES)
def test_a_hit_is_what_the_miss_was(case, stream, way, provider, openai_at):
    resource, arguments = CASES[case]
    prompt = mark()
    arguments = {**arguments(prompt), "temperature": 0}

    def call():
        if way == "sync":
            return ask(resource(openai_at()), stream, **arguments)
        return run(ask_async(resource(openai_at(kind=openai.AsyncOpenAI)), stream, **arguments))

    first, _ = twice(provider, prompt, call)
    if stream:
        assert len(first.items) > 3, "event by event"


def test_the_usage_at_the_end_of_a_stream_is_part_of_it(provider, openai_client):
    prompt = mark()
    arguments = {**CASES["chat"][1](prompt), "temperature": 0, "stream_options": {"include_usage": True}}
    _, second = twice(provider, prompt, lambda: ask(chat(openai_client), True, **arguments))
    assert second.items[-1]["usage"]["completion_tokens"] > 0
    assert second.items[-1]["usage"]["prompt_tokens_details"] is not None


def test_who_wants_no_usage_gets_a_stream_without(provider, openai_client):
    prompt = mark()
    arguments = {**CASES["chat"][1](prompt), "temperature": 0}
    with_usage = ask(chat(openai_client), True, stream_options={"include_usage": True}, **arguments)
    without = ask(chat(openai_client), True, **arguments)
    assert any(item["usage"] for item in with_usage.items)
    assert not any(item["usage"] for item in without.items)


def test_stream_helpers_put_the_same_message_together(provider, openai_client):
    prompt = mark()

    def call():
        with openai_client.chat.completions.stream(model="gpt-4o", messages=user(prompt), tools=TOOLS, temperature=0) as stream:
            kinds = [event.type for event in stream]
            return kinds, dump(stream.get_final_completion())

    assert call() == call()
    assert len(provider.calls_with(tag(prompt))) == 1


def test_responses_stream_helper_ends_with_the_same_response(provider, openai_client):
    prompt = mark()

    def call():
        with openai_client.responses.stream(model="gpt-4o", input=prompt, temperature=0) as stream:
            return [dump(event) for event in stream], dump(stream.get_final_response())

    assert call() == call()
    assert len(provider.calls_with(tag(prompt))) == 1


def test_parsed_answers_are_the_same(provider, openai_client):
    import pydantic

    class City(pydantic.BaseModel):
        city: str

    prompt = mark()

    def call():
        made = openai_client.chat.completions.parse(model="gpt-4o", messages=user(prompt), response_format=City, temperature=0)
        return made.choices[0].message.parsed, made.model_dump()

    assert call() == call()
    assert call()[0] == City(city="Mexico City")
    assert len(provider.calls_with(tag(prompt))) == 1


def test_streaming_response_context_reads_the_same_bytes(provider, openai_client):
    prompt = mark()
    arguments = {**CASES["chat"][1](prompt), "temperature": 0, "stream": True}

    def call():
        with openai_client.chat.completions.with_streaming_response.create(**arguments) as response:
            return Got([b"".join(response.iter_bytes())], response.headers)

    twice(provider, prompt, call)


@pytest.mark.parametrize("path", ["", "/gpt-4o"], ids=["list", "one"])
def test_lists_of_models_are_kept_for_each_key(path, provider, openai_at):
    def call(key):
        models = openai_at(key=key).models.with_raw_response
        raw = models.retrieve(path[1:]) if path else models.list()
        found = raw.parse()
        return Got([dump(found) if path else [dump(model) for model in found.data]], raw.headers)

    key = mark("sk")
    first, second = twice(provider, key, lambda: call(key))
    assert call(mark("sk")).items != first.items, "of another key"


def test_moderations(provider, openai_client):
    prompt = mark()
    twice(provider, prompt, lambda: ask(openai_client.moderations, model="omni-moderation-latest", input=prompt))


def test_rerankings(provider, openai_client):
    """No call of OpenAI's, but of many who speak like it."""
    prompt = mark()
    body = {"model": "rerank-v3", "query": prompt, "documents": ["a", "b"]}
    first, second = (openai_client.post("/rerank", cast_to=object, body=body) for _ in range(2))
    assert first == second and len(provider.calls_with(tag(prompt))) == 1


def test_images_are_stored_where_the_route_stores_all(provider, openai_at):
    prompt = mark()

    def call(route="always"):
        raw = openai_at(route).images.with_raw_response.generate(model="gpt-image-1", prompt=prompt)
        return Got([dump(raw.parse())], raw.headers)

    twice(provider, prompt, call)
    assert not call("openai").hit, "another image may be wanted each time"


class TestTranscriptions:
    """Multipart: each request has a boundary of its own."""

    @staticmethod
    def call(client, sound, **arguments):
        arguments = {"model": "gpt-4o-transcribe", **arguments}
        raw = client.audio.transcriptions.with_raw_response.create(file=("a.wav", sound, "audio/wav"), **arguments)
        return Got([dump(raw.parse())], raw.headers)

    def test_the_same_sound_is_a_hit(self, provider, openai_client):
        sound = mark("RIFF")
        twice(provider, sound, lambda: self.call(openai_client, sound.encode(), temperature=0))

    def test_another_sound_or_parameter_is_none(self, provider, openai_client):
        sound = mark("RIFF")
        first = self.call(openai_client, sound.encode(), temperature=0)
        others = [
            self.call(openai_client, sound.encode() + b"!", temperature=0),
            self.call(openai_client, sound.encode(), temperature=0, language="en"),
            self.call(openai_client, sound.encode(), temperature=0, model="whisper-1"),
        ]
        texts = [got.items[0]["text"] for got in (first, *others)]
        assert len(set(texts)) == 4


def test_azure(provider, at):
    prompt = mark()
    client = openai.AzureOpenAI(azure_endpoint=at("azure"), api_key="azure-one", api_version="2024-10-21", max_retries=0)
    arguments = {**CASES["chat"][1](prompt), "temperature": 0}
    twice(provider, prompt, lambda: ask(chat(client), **arguments))
    other = openai.AzureOpenAI(azure_endpoint=at("azure"), api_key="azure-one", api_version="2025-03-01-preview", max_retries=0)
    assert not ask(chat(other), **arguments).hit, "another version of the API"
    assert provider.calls_with(tag(prompt))[0].path.endswith("/openai/deployments/gpt-4o/chat/completions")


def test_what_is_no_known_call_passes_untouched(provider, openai_client):
    content = mark("content")

    def call():
        raw = openai_client.files.with_raw_response.create(file=("f.jsonl", content.encode()), purpose="batch")
        return Got([dump(raw.parse())], raw.headers)

    one, other = not_stored(provider, content, call)
    assert one.items != other.items


def test_what_the_provider_keeps_is_asked_of_it_each_time(provider, openai_client):
    for kept in ({"store": True}, {"previous_response_id": "resp_1"}, {"background": True}, {"conversation": "conv_1"}):
        prompt = mark()
        not_stored(provider, prompt, lambda: ask(responses(openai_client), model="gpt-4o", input=prompt, temperature=0, **kept))


def test_tools_that_look_at_the_world_are_not_answered_from_yesterday(provider, openai_client):
    prompt = mark()
    tools = [{"type": "web_search"}]
    not_stored(
        provider, prompt, lambda: ask(responses(openai_client), model="gpt-4o", input=prompt, temperature=0, tools=tools)
    )


def test_chance_is_left_alone_by_default(provider, openai_client):
    """No temperature is not temperature 0."""
    for chance in ({}, {"temperature": 0.7}, {"temperature": 1}):
        prompt = mark()
        not_stored(provider, prompt, lambda: ask(chat(openai_client), **CASES["chat"][1](prompt), **chance))


def test_a_seed_asks_for_no_chance(provider, openai_client):
    prompt = mark()
    twice(provider, prompt, lambda: ask(chat(openai_client), **CASES["chat"][1](prompt), temperature=1, seed=7))


def test_always_and_never(provider, openai_at):
    prompt = mark()
    arguments = CASES["chat"][1](prompt)
    twice(provider, prompt, lambda: ask(chat(openai_at("always")), **arguments))
    prompt = mark()
    arguments = {**CASES["chat"][1](prompt), "temperature": 0}
    not_stored(provider, prompt, lambda: ask(chat(openai_at("never")), **arguments))


def test_the_fields_of_one_exchange_are_not_replayed(provider, openai_client):
    prompt = mark()
    first, second = twice(provider, prompt, lambda: ask(chat(openai_client), **CASES["chat"][1](prompt), temperature=0))
    assert first.fields["x-ratelimit-remaining-requests"] and first.fields["set-cookie"]
    for name in ("set-cookie", "x-ratelimit-remaining-requests", "x-ratelimit-limit-requests", "retry-after", "server-timing"):
        assert name not in second.fields, name
    assert second.fields["content-type"] == first.fields["content-type"]
    assert second.fields.get("x-request-id") != first.fields["x-request-id"]


def test_a_refresh_brings_a_new_answer_for_all(provider, openai_client):
    prompt = mark()
    arguments = {**CASES["chat"][1](prompt), "temperature": 0}
    first = ask(chat(openai_client), **arguments)
    fresh = ask(chat(openai_client), extra_headers={"Cache-Control": "no-cache"}, **arguments)
    assert fresh.items != first.items
    last = ask(chat(openai_client), **arguments)
    assert last.items == fresh.items
    assert_hit(provider, prompt, last, calls=2)


def test_only_if_cached_is_answered_504_or_from_the_cache(provider, openai_client):
    prompt = mark()
    arguments = {**CASES["chat"][1](prompt), "temperature": 0}
    with pytest.raises(openai.APIStatusError) as refused:
        ask(chat(openai_client), extra_headers={"Cache-Control": "only-if-cached"}, **arguments)
    assert refused.value.status_code == 504
    assert not provider.calls_with(tag(prompt))
    ask(chat(openai_client), **arguments)
    assert ask(chat(openai_client), extra_headers={"Cache-Control": "only-if-cached"}, **arguments).hit


def test_the_second_parallel_question_waits_for_the_first(provider, openai_at):
    """One call, though nothing was stored when the second question came."""
    prompt = mark()
    provider.behave(tag(prompt), gate=tag(prompt))
    arguments = {**CASES["chat"][1](prompt), "temperature": 0}

    async def both():
        client = openai_at(kind=openai.AsyncOpenAI)
        import asyncio

        tasks = [asyncio.create_task(ask_async(chat(client), **arguments)) for _ in range(5)]
        while not provider.calls_with(tag(prompt)):
            await asyncio.sleep(0.01)
        provider.gate(tag(prompt)).release()
        return await asyncio.gather(*tasks)

    answers = run(both())
    assert len(provider.calls_with(tag(prompt))) == 1
    assert all(answer.items == answers[0].items for answer in answers)


def test_what_is_stored_was_asked_for_as_json(provider, openai_client):
    """The simulator's own check: answers are told apart by their ids."""
    prompt = mark()
    arguments = {**CASES["chat"][1](prompt), "temperature": 0}
    got = ask(chat(openai_client), **arguments)
    call = provider.calls_with(tag(prompt))[0]
    assert got.items[0]["id"].endswith(f"_n{call.number}")
    assert json.loads(call.body)["messages"][0]["content"] == prompt
    assert not is_hit(got.fields)
