"""Keys of the gateway's own: an SDK shows one in the place of the provider's, and the provider gets its own."""

import anthropic
import openai
import pytest
from harness import ask, assert_hit, mark, tag

ALICE, BOB, MALLORY = (f"lk-{name}-0123456789abcdef" for name in ("alice", "bob", "mallory"))


def chat(client, prompt, **more):
    messages = [{"role": "user", "content": prompt}]
    return ask(client.chat.completions, model="gpt-4o", temperature=0, messages=messages, **more)


def message(client, prompt, **more):
    messages = [{"role": "user", "content": prompt}]
    return ask(client.messages, model="claude", max_tokens=9, messages=messages, extra_body={"temperature": 0}, **more)


def shown(calls):
    """What the provider has seen of credentials."""
    return {(call["authorization"], call["x-api-key"], call["larder-key"]) for call in calls}


def test_openai(provider, openai_at):
    prompt = mark()
    one = chat(openai_at("tenants", ALICE), prompt)
    again = chat(openai_at("tenants", ALICE), prompt)
    assert_hit(provider, prompt, again)
    assert again.items == one.items
    other = chat(openai_at("tenants", BOB), prompt)
    assert not other.hit and other.items != one.items
    calls = provider.calls_with(tag(prompt))
    assert len(calls) == 2 and shown(calls) == {("Bearer providers-own", None, None)}
    with pytest.raises(openai.AuthenticationError) as refused:
        chat(openai_at("tenants", MALLORY), prompt)
    assert "the key is not known here" in str(refused.value)


def test_anthropic(provider, anthropic_at):
    prompt = mark()
    one = message(anthropic_at(ALICE, route="tenants-anthropic"), prompt)
    again = message(anthropic_at(ALICE, route="tenants-anthropic"), prompt)
    assert_hit(provider, prompt, again)
    assert again.items == one.items
    calls = provider.calls_with(tag(prompt))
    assert len(calls) == 1 and shown(calls) == {(None, "providers-own", None)}
    with pytest.raises(anthropic.AuthenticationError):
        message(anthropic_at(MALLORY, route="tenants-anthropic"), prompt)


def test_a_key_of_each(provider, openai_at):
    """The gateway's in a field of its own, the provider's where it always is."""
    prompt = mark()
    chat(openai_at("own-keys", "sk-of-alice"), prompt, extra_headers={"Larder-Key": ALICE})
    assert shown(provider.calls_with(tag(prompt))) == {("Bearer sk-of-alice", None, None)}
