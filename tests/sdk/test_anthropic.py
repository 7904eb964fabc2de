"""The anthropic SDK."""

import anthropic
import pytest
from harness import Got, ask, ask_async, assert_hit, dump, mark, not_stored, run, tag, twice

TOOLS = [{"name": "get_exchange_rate", "input_schema": {"type": "object", "properties": {"from_currency": {"type": "string"}}}}]


# The SDK has no argument for it any more; the API has.
SURE = {"extra_body": {"temperature": 0}}


def arguments_of(prompt, **more):
    return {"model": "claude-sonnet-4-5", "max_tokens": 4096, "messages": [{"role": "user", "content": prompt}], **more}


CASES = {
    "text": SURE,
    "tools": {**SURE, "tools": TOOLS},
    "system": {**SURE, "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
    # Thinking allows no temperature but 1: what is to be stored has to be said.
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}, "extra_headers": {"x-larder-store": "always"}},
}


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("case", CASES)
def test_a_hit_is_what_the_miss_was(case, stream, way, provider, anthropic_at):
    prompt = mark()
    arguments = arguments_of(prompt, **CASES[case])

    def call():
        if way == "sync":
            return ask(anthropic_at().messages, stream, **arguments)
        return run(ask_async(anthropic_at(kind=anthropic.AsyncAnthropic).messages, stream, **arguments))

    first, _ = twice(provider, prompt, call)
    if stream:
        assert len(first.items) > 5, "event by event"


@pytest.mark.parametrize("case", CASES)
def test_stream_helper_puts_the_same_message_together(case, provider, anthropic_client):
    prompt = mark()

    def call():
        with anthropic_client.messages.stream(**arguments_of(prompt, **CASES[case])) as stream:
            kinds = [event.type for event in stream]
            return kinds, dump(stream.get_final_message())

    first = call()
    assert first == call()
    assert first[1]["content"]
    assert len(provider.calls_with(tag(prompt))) == 1


def test_tool_calls_of_a_streamed_hit_have_their_arguments(provider, anthropic_client):
    prompt = mark()

    def call():
        with anthropic_client.messages.stream(**arguments_of(prompt, **CASES["tools"])) as stream:
            return next(block for block in stream.get_final_message().content if block.type == "tool_use")

    assert call().input == call().input == {"from_currency": "USD", "to_currency": "EUR"}
    assert len(provider.calls_with(tag(prompt))) == 1


def test_thinking_keeps_its_signature(provider, anthropic_client):
    prompt = mark()
    arguments = arguments_of(prompt, **CASES["thinking"])
    _, second = twice(provider, prompt, lambda: ask(anthropic_client.messages, **arguments))
    block = next(block for block in second.items[0]["content"] if block["type"] == "thinking")
    assert block["thinking"] and block["signature"]


def test_counts_of_tokens(provider, anthropic_client):
    prompt = mark()
    arguments = arguments_of(prompt)
    del arguments["max_tokens"]

    def call():
        raw = anthropic_client.messages.with_raw_response.count_tokens(**arguments)
        return Got([dump(raw.parse())], raw.headers)

    twice(provider, prompt, call)


def test_beta_messages(provider, anthropic_client):
    """They have a query, and a list of betas in a field: another list is another call, another order is not."""
    prompt = mark()
    arguments = arguments_of(prompt, **SURE)

    def call(*betas):
        return ask(anthropic_client.beta.messages, betas=list(betas), **arguments)

    twice(provider, prompt, lambda: call("context-1m-2025-08-07", "fine-grained-tool-streaming-2025-05-14"))
    assert call("fine-grained-tool-streaming-2025-05-14", "context-1m-2025-08-07").hit
    assert not call("context-1m-2025-08-07").hit


def test_marks_for_the_providers_own_cache_are_no_part_of_the_question(provider, anthropic_client):
    prompt = mark()
    text = {"type": "text", "text": "Be brief."}
    call = lambda system: ask(anthropic_client.messages, **arguments_of(prompt, system=[system], **SURE))  # noqa: E731
    first = call({**text, "cache_control": {"type": "ephemeral"}})
    second = call(text)
    assert_hit(provider, prompt, second)
    assert second.items == first.items


def test_tokens_are_credentials_as_keys_are(provider, anthropic_at):
    prompt = mark()
    arguments = arguments_of(prompt, **SURE)
    clients = [anthropic_at("sk-ant-one"), *(anthropic_at(None, auth_token=token) for token in ("token-one", "token-two"))]
    ids = {ask(client.messages, **arguments).items[0]["id"] for client in clients}
    assert len(ids) == 3


def test_another_version_of_the_api_is_another_call(provider, anthropic_client):
    prompt = mark()
    arguments = arguments_of(prompt, **SURE)
    ask(anthropic_client.messages, **arguments)
    assert not ask(anthropic_client.messages, extra_headers={"anthropic-version": "2024-01-01"}, **arguments).hit


def test_batches_pass(provider, anthropic_client):
    prompt = mark()
    requests = [{"custom_id": "a", "params": arguments_of(prompt, **SURE)}]

    def call():
        raw = anthropic_client.messages.batches.with_raw_response.create(requests=requests)
        return Got([raw.text() if callable(raw.text) else raw.text], raw.headers)

    one, other = not_stored(provider, prompt, call)
    assert one.items != other.items


def test_tools_of_the_provider_look_at_the_world(provider, anthropic_client):
    prompt = mark()
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    not_stored(provider, prompt, lambda: ask(anthropic_client.messages, **arguments_of(prompt, tools=tools, **SURE)))


def test_threads_are_kept_by_the_provider(provider, anthropic_client):
    for thread in ({"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}):
        prompt = mark()
        not_stored(provider, prompt, lambda: ask(anthropic_client.beta.messages, **arguments_of(prompt, thread=thread, **SURE)))


@pytest.mark.parametrize("name", ["workspace_id", "user_profile_id"])
def test_workspaces_and_profiles_of_one_key_never_meet(name, provider, anthropic_client):
    prompt = mark()
    call = lambda value: ask(anthropic_client.messages, **arguments_of(prompt, **{name: value}, **SURE))  # noqa: E731
    assert call("one").items != call("other").items
    assert call("one").hit


def test_without_a_word_repeats_are_stored_where_the_route_stores_all(provider, anthropic_client):
    prompt = mark()
    not_stored(provider, prompt, lambda: ask(anthropic_client.messages, **arguments_of(prompt)))
    prompt = mark()
    always = {"extra_headers": {"x-larder-store": "always"}}
    twice(provider, prompt, lambda: ask(anthropic_client.messages, **arguments_of(prompt, **always)))
    assert not provider.calls_with(tag(prompt))[0]["x-larder-store"], "said to the gateway alone"
