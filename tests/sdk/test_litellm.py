"""LiteLLM as a client, in an environment of its own: it wants an older openai than there is."""

import litellm
import pytest
from harness import Got, is_hit, mark, run, tag, twice

litellm.suppress_debug_info = True
TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_capital", "parameters": {"type": "object", "properties": {"country": {"type": "string"}}}},
    }
]


@pytest.fixture
def targets(at):
    return {
        "openai": {"model": "openai/gpt-4o", "api_base": at("openai", "/v1"), "api_key": "sk-one"},
        "anthropic": {
            "model": "anthropic/claude-sonnet-4-5",
            "api_base": at("anthropic"),
            "api_key": "sk-ant-one",
            "max_tokens": 4096,
        },
        "gemini": {"model": "gemini/gemini-2.5-flash", "api_base": at("gemini", "/v1beta"), "api_key": "gemini-one"},
    }


def fields_of(answer) -> dict:
    """LiteLLM puts its own name before those of the provider's fields."""
    found = answer._hidden_params.get("additional_headers") or {}
    return {name.removeprefix("llm_provider-"): value for name, value in found.items()}


# What LiteLLM makes up by itself: times of chunks, and ids where it is not OpenAI that is spoken.
MADE_UP = {"created", "id"}


def held(answers, target) -> Got:
    dumps = [answer.model_dump() for answer in answers]
    dropped = {"created"} if target == "openai" else MADE_UP
    dumps = [{name: value for name, value in item.items() if name not in dropped} for item in dumps]
    if target == "gemini":
        for call in (call for item in dumps for call in tool_calls(item)):
            # Gemini names no calls; LiteLLM makes a name up.
            call["id"] = None
    return Got(dumps, fields_of(answers[0]))


def tool_calls(item):
    messages = [choice.get("message") or choice.get("delta") or {} for choice in item.get("choices", [])]
    return [call for message in messages for call in message.get("tool_calls") or []]


def messages_of(prompt):
    return [{"role": "user", "content": prompt}]


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("more", [{}, {"tools": TOOLS}], ids=["text", "tools"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("target", ["openai", "anthropic", "gemini"])
def test_a_hit_is_what_the_miss_was(target, stream, more, way, provider, targets):
    prompt = mark()
    arguments = {**targets[target], "messages": messages_of(prompt), "temperature": 0, "stream": stream, **more}

    async def ask_async():
        answer = await litellm.acompletion(**arguments)
        return ([chunk async for chunk in answer] if stream else [answer]), answer

    def call():
        if way == "async":
            items, answer = run(ask_async())
        else:
            answer = litellm.completion(**arguments)
            items = list(answer) if stream else [answer]
        return Got(held(items, target).items, fields_of(answer))

    first = call()
    assert len(provider.calls_with(tag(prompt))) == 1
    second = call()
    assert len(provider.calls_with(tag(prompt))) == 1
    assert second.items == first.items
    if second.fields.get("cache-status"):
        assert is_hit(second.fields)


def test_embeddings(provider, targets):
    key = mark("sk")
    target = {**targets["openai"], "model": "openai/text-embedding-3-small", "api_key": key}
    embed = lambda inputs: [
        item["embedding"] for item in litellm.embedding(input=inputs, encoding_format="float", **target).data
    ]  # noqa: E731
    first = embed(["a", "b"])
    mixed = litellm.embedding(input=["c", "b", "a"], encoding_format="float", **target).data
    assert [item["index"] for item in mixed] == [0, 1, 2]
    assert [item["embedding"] for item in mixed[1:]] == [first[1], first[0]]
    assert [call.json["input"] for call in provider.calls_with(key)] == [["a", "b"], ["c"]]


def test_responses(provider, targets):
    prompt = mark()
    call = lambda: litellm.responses(input=prompt, temperature=0, **targets["openai"]).model_dump()  # noqa: E731
    first, second = call(), call()
    assert len(provider.calls_with(tag(prompt))) == 1
    assert second["output"] == first["output"] and second["usage"] == first["usage"]


def test_streamed_responses(provider, targets):
    prompt = mark()
    call = lambda: [event.type for event in litellm.responses(input=prompt, temperature=0, stream=True, **targets["openai"])]  # noqa: E731
    first = call()
    assert call() == first and len(first) > 5
    assert len(provider.calls_with(tag(prompt))) == 1


def test_reasoning_of_a_streamed_hit(provider, targets):
    prompt = mark()
    target = {**targets["openai"], "model": "openai/deepseek-reasoner"}

    def call():
        chunks = litellm.completion(messages=messages_of(prompt), temperature=0, stream=True, **target)
        return "".join(chunk.choices[0].delta.get("reasoning_content") or "" for chunk in chunks)

    first = call()
    assert first and call() == first
    assert len(provider.calls_with(tag(prompt))) == 1


def test_a_limit_of_rate_raises_and_is_not_stored(provider, targets):
    prompt = mark()
    provider.behave(tag(prompt), status=429, retry_after=2, times=1)
    call = lambda: litellm.completion(
        messages=messages_of(prompt), temperature=0, num_retries=0, max_retries=0, **targets["openai"]
    )  # noqa: E731
    with pytest.raises(litellm.RateLimitError):
        call()
    call()
    assert len(provider.calls_with(tag(prompt))) == 2


def test_its_own_words_for_the_cache(provider, targets):
    """As a client of a LiteLLM proxy sends them: in the body."""
    prompt = mark()
    call = lambda **cache: (
        litellm.completion(  # noqa: E731
            messages=messages_of(prompt), temperature=1, extra_body={"cache": cache}, **targets["openai"]
        ).id
    )
    first = call(**{"use-cache": True})
    assert call(**{"use-cache": True}) == first
    assert call(**{"no-cache": True}) != first
    assert all(b'"cache"' not in seen.body for seen in provider.calls_with(tag(prompt)))


def test_two_keys_never_meet(provider, targets):
    prompt = mark()
    call = lambda key: (
        litellm.completion(messages=messages_of(prompt), temperature=0, **{**targets["openai"], "api_key": key}).id
    )  # noqa: E731
    assert call("sk-one") != call("sk-two")
    assert len(provider.calls_with(tag(prompt))) == 2


def test_a_hit_says_so_to_its_users(provider, targets):
    """Its fields are seen through LiteLLM as well."""
    prompt = mark()

    def call():
        answer = litellm.completion(messages=messages_of(prompt), temperature=0, **targets["openai"])
        return Got([answer.model_dump()], fields_of(answer))

    twice(provider, prompt, call)
