"""Whose calls share answers: by default only those with the same credential."""

import asyncio

import openai
import pytest
from harness import ask, ask_async, assert_hit, mark, run, tag


def arguments_of(prompt):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], "temperature": 0}


def chat(client, prompt, stream=False, **more):
    return ask(client.chat.completions, stream, **arguments_of(prompt), **more)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_two_keys_never_meet(stream, provider, openai_at):
    prompt = mark()
    one, other = (chat(openai_at(key=key), prompt, stream) for key in ("sk-one", "sk-two"))
    assert not other.hit and other.items != one.items
    assert len(provider.calls_with(tag(prompt))) == 2
    assert chat(openai_at(key="sk-one"), prompt, stream).items == one.items
    assert chat(openai_at(key="sk-two"), prompt, stream).items == other.items


def test_two_anthropic_keys_never_meet(provider, anthropic_at):
    prompt = mark()
    arguments = {
        "model": "claude",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": prompt}],
        "extra_body": {"temperature": 0},
    }
    one, other = (ask(anthropic_at(key).messages, **arguments) for key in ("sk-ant-one", "sk-ant-two"))
    assert one.items != other.items


def test_two_keys_do_not_join_one_stream(provider, openai_at):
    prompt = mark()
    provider.behave(tag(prompt), gate=tag(prompt))

    async def both():
        clients = [openai_at(key=key, kind=openai.AsyncOpenAI) for key in ("sk-one", "sk-two")]
        tasks = [asyncio.create_task(ask_async(client.chat.completions, True, **arguments_of(prompt))) for client in clients]
        while len(provider.calls_with(tag(prompt))) < 2:
            await asyncio.sleep(0.01)
        provider.gate(tag(prompt)).release()
        return await asyncio.gather(*tasks)

    one, other = run(asyncio.wait_for(both(), 20))
    assert one.items != other.items


@pytest.mark.parametrize("name", ["organization", "project"])
def test_organisations_and_projects_of_one_key_never_meet(name, provider, openai_at):
    prompt = mark()
    one, other = (chat(openai_at(**{name: value}), prompt) for value in ("a", "b"))
    assert one.items != other.items
    assert chat(openai_at(**{name: "a"}), prompt).hit


def test_who_has_no_key_gets_nothing_of_who_has(provider, openai_at):
    prompt = mark()
    chat(openai_at(), prompt)
    assert not chat(openai_at(), prompt, extra_headers={"Authorization": openai.Omit()}).hit


def test_a_name_of_ones_own_narrows_and_never_widens(provider, openai_at):
    prompt = mark()
    spaces = [{"x-larder-namespace": "a"}, {"x-larder-namespace": "b"}, {}]
    ids = [chat(openai_at(), prompt, extra_headers=space).items[0]["id"] for space in spaces]
    assert len(set(ids)) == 3
    assert chat(openai_at(), prompt, extra_headers=spaces[0]).hit
    assert not chat(openai_at(key="sk-two"), prompt, extra_headers=spaces[0]).hit


def test_shared_where_the_route_says_so(provider, openai_at):
    prompt = mark()
    first = chat(openai_at("shared", key="sk-one"), prompt)
    second = chat(openai_at("shared", key="sk-two"), prompt)
    assert_hit(provider, prompt, second)
    assert second.items == first.items


def test_end_users_apart_where_the_route_says_so(provider, openai_at):
    prompt = mark()
    users = [chat(openai_at("end-user"), prompt, user=user) for user in ("ann", "bob")]
    assert users[0].items != users[1].items
    assert chat(openai_at("end-user"), prompt, user="ann").items == users[0].items
    assert not chat(openai_at("end-user"), prompt, safety_identifier="ann").hit


def test_credentials_reach_no_answer_and_no_log(provider, openai_at, gateway):
    prompt = mark()
    key = "sk-" + tag(mark())
    for _ in range(2):
        got = chat(openai_at(key=key), prompt)
        assert not any(key in value for value in got.fields.values())
    from harness import ROOT

    log = (ROOT / "target" / "sdk" / "gateway.log").read_text()
    assert key not in log and tag(prompt) not in log
