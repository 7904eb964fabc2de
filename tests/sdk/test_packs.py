"""A test run that is recorded once, and repeated without a provider and without a key."""

import os

import anthropic
import openai
import pytest
from harness import Gateway, mark, tag

NOWHERE = "http://127.0.0.1:1"

pytestmark = pytest.mark.skipif("SDK_DIRECT" in os.environ, reason="there is no pack without a gateway")


@pytest.fixture
def at(tmp_path):
    started = []

    def start(mode, origin):
        variables = {"LARDER_LLM__MODE": mode, "LARDER_LLM__PACK": str(tmp_path / "calls.jsonl")}
        started.append(Gateway(origin, **variables))
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()


def calls(gateway, key, prompt):
    """All that a program gets to see of some calls."""
    one = openai.OpenAI(base_url=gateway.base + "/openai/v1", api_key=key)
    other = anthropic.Anthropic(base_url=gateway.base + "/anthropic", api_key=key)
    messages = [{"role": "user", "content": prompt}]
    chat = one.chat.completions.create(model="gpt-4o", messages=messages)
    streamed = list(one.chat.completions.create(model="gpt-4o", messages=messages, stream=True))
    vectors = one.embeddings.create(model="text-embedding-3-small", input=[prompt, prompt + "?"])
    message = other.messages.create(model="claude-sonnet-4-5", max_tokens=64, messages=messages)
    with other.messages.stream(model="claude-sonnet-4-5", max_tokens=64, messages=messages) as stream:
        text = "".join(stream.text_stream)
    return [chat.model_dump(), [chunk.model_dump() for chunk in streamed], vectors.model_dump(), message.model_dump(), text]


def test_a_run_is_repeated_without_a_provider(at, provider):
    prompt = mark()
    recording = at("record", provider.base)
    first = calls(recording, "sk-of-ann", prompt)
    recording.stop()
    asked = len(provider.calls_with(tag(prompt)))
    assert asked == 5
    replaying = at("replay", NOWHERE)
    assert calls(replaying, "sk-none", prompt) == first
    assert len(provider.calls_with(tag(prompt))) == asked


def test_what_was_not_recorded_says_what_differs_and_is_asked_once(at, provider):
    prompt = mark()
    recording = at("record", provider.base)
    calls(recording, "sk-of-ann", prompt)
    recording.stop()
    replaying = at("replay", NOWHERE)
    client = openai.OpenAI(base_url=replaying.base + "/openai/v1", api_key="sk-none")
    messages = [{"role": "user", "content": prompt + " Really?"}]
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model="gpt-4o", messages=messages)
    assert raised.value.status_code == 504
    assert "/messages/0/content changed" in str(raised.value)
    assert raised.value.response.headers["x-should-retry"] == "false"
