"""A limit of the gateway is one more 429 to an SDK: it waits as it is told and goes on, or raises what it always does."""

import anthropic
import httpx
import openai
import pytest
from harness import mark, tag

LIMITED = 'larder_limit_requests_total{limit="calls",route="limited",result="refused"}'


def refused(gateway) -> float:
    metrics = httpx.get(gateway.admin + "/metrics", trust_env=False).text
    return next((float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(LIMITED)), 0.0)


def chat(client, prompt):
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model="gpt-4o", messages=messages, temperature=0)


def test_an_sdk_waits_and_goes_on(provider, gateway, openai_at):
    client, before = openai_at("limited", key="sk-waits", max_retries=3), refused(gateway)
    prompts = [mark(), mark()]
    for prompt in prompts:
        assert chat(client, prompt).choices[0].message.content
        assert len(provider.calls_with(tag(prompt))) == 1
    assert refused(gateway) > before, "the second call came too soon, once at least"


def test_what_is_stored_costs_nothing(provider, openai_at):
    client, prompt = openai_at("limited", key="sk-repeats"), mark()
    for _ in range(5):
        assert chat(client, prompt).choices[0].message.content
    assert len(provider.calls_with(tag(prompt))) == 1


def test_openai_raises_what_it_raises_for_any_429(provider, openai_at):
    client, prompt = openai_at("limited-long", key="sk-raises"), mark()
    assert chat(client, prompt).choices[0].message.content
    other = mark()
    with pytest.raises(openai.RateLimitError) as raised:
        chat(client, other)
    assert int(raised.value.response.headers["retry-after"]) > 0
    assert raised.value.body["code"] == "rate_limit_exceeded"
    assert not provider.calls_with(tag(other))


def test_anthropic_raises_what_it_raises_for_any_429(provider, at):
    client = anthropic.Anthropic(base_url=at("limited-anthropic"), api_key="sk-ant-raises", max_retries=0, timeout=20)

    def say(prompt):
        messages = [{"role": "user", "content": prompt}]
        return client.messages.create(model="claude-sonnet-4-5", max_tokens=64, messages=messages)

    assert say(mark()).content
    other = mark()
    with pytest.raises(anthropic.RateLimitError) as raised:
        say(other)
    assert int(raised.value.response.headers["retry-after"]) > 0
    assert not provider.calls_with(tag(other))
