"""What a client says to the cache, in Larder's own fields and in those of other gateways; what operators see and purge."""

import json

import httpx
import openai
import pytest
from harness import PATIENCE, Got, ask, mark, not_stored, post, tag, twice

PURE = {"model": "gpt-4o"}


def chat(client, prompt, fields=None, **more):
    arguments = {**PURE, "messages": [{"role": "user", "content": prompt}], **more}
    return ask(client.chat.completions, extra_headers=fields or {}, **arguments)


# Fields with which a client of each gateway asks for the cache, and the answer it looks for.
OPT_INS = {
    "Larder": ({"x-larder-store": "always"}, None, None),
    "Larder, for a time": ({"x-larder-ttl": "60"}, None, None),
    "Cloudflare": ({"cf-aig-cache-ttl": "3600"}, "cf-aig-cache-status", ("MISS", "HIT")),
    "Cloudflare, with a key": ({"cf-aig-cache-key": "k"}, "cf-aig-cache-status", ("MISS", "HIT")),
    "Helicone": ({"Helicone-Cache-Enabled": "true", "Cache-Control": "max-age=3600"}, "helicone-cache", ("MISS", "HIT")),
    "Portkey": ({"x-portkey-cache": "simple"}, "x-portkey-cache-status", ("MISS", "HIT")),
    "Braintrust": ({"x-bt-use-cache": "always"}, "x-bt-cached", ("MISS", "HIT")),
    "Bifrost": ({"x-bf-cache-key": "k"}, None, None),
}


@pytest.mark.parametrize("name", OPT_INS)
def test_who_asks_for_the_cache_in_its_own_words_gets_it(name, provider, openai_client):
    fields, answer, values = OPT_INS[name]
    prompt = mark()
    first, second = twice(provider, prompt, lambda: chat(openai_client, prompt, fields))
    if answer:
        assert (first.fields[answer], second.fields[answer]) == values
    call = provider.calls_with(tag(prompt))[0]
    assert not any(call[field.lower()] for field in fields if field != "Cache-Control"), "said to the gateway alone"


OPT_OUTS = [
    {"Cache-Control": "no-store, no-cache"},
    {"x-larder-store": "never"},
    {"cf-aig-skip-cache": "true"},
    {"Helicone-Cache-Enabled": "false"},
    {"x-bt-use-cache": "never"},
    {"x-vsr-cache-control": "bypass"},
    {"x-higress-skip-ai-cache": "on"},
]


@pytest.mark.parametrize("fields", OPT_OUTS, ids=lambda fields: next(iter(fields)))
def test_who_wants_no_cache_gets_none(fields, provider, openai_client):
    prompt = mark()
    kept = chat(openai_client, prompt, temperature=0)
    fresh = chat(openai_client, prompt, fields, temperature=0)
    assert not fresh.hit and fresh.items != kept.items
    assert chat(openai_client, prompt, temperature=0).items == kept.items, "what is stored stays"


def test_no_store_stores_nothing(provider, openai_client):
    prompt = mark()
    not_stored(provider, prompt, lambda: chat(openai_client, prompt, {"Cache-Control": "no-store"}, temperature=0))


def test_a_forced_refresh(provider, openai_client):
    prompt = mark()
    first = chat(openai_client, prompt, temperature=0)
    fresh = chat(openai_client, prompt, {"x-portkey-cache-force-refresh": "true"}, temperature=0)
    assert fresh.items != first.items
    assert chat(openai_client, prompt, temperature=0).items == fresh.items


def test_no_older_than(provider, openai_client):
    import time

    prompt = mark()
    first = chat(openai_client, prompt, temperature=0)
    assert chat(openai_client, prompt, {"Cache-Control": "max-age=60"}, temperature=0).items == first.items
    time.sleep(1.2)
    fresh = chat(openai_client, prompt, {"Cache-Control": "max-age=0"}, temperature=0)
    assert fresh.items != first.items


def test_a_lifetime_of_ones_own(provider, openai_client):
    import time

    prompt = mark()
    call = lambda: chat(openai_client, prompt, {"x-larder-ttl": "2"}, temperature=0)  # noqa: E731
    first = call()
    assert call().items == first.items
    time.sleep(2.2)
    assert call().items != first.items


def test_litellms_own_member_is_cut_out_and_nothing_else(provider, at):
    prompt = mark()
    before = '{ "messages":[{"role":"user","content":"%s"}],\n "model" : "gpt-4o"' % prompt
    member = ', "cache": {"ttl": 60, "use-cache": true}'
    after = ', "temperature":0.0 }'

    def call():
        _, fields, content = post(
            at("openai"), "/v1/chat/completions", (before + member + after).encode(), {"authorization": "Bearer a"}
        )
        return Got([content], fields)

    twice(provider, prompt, call)
    sent = provider.calls_with(tag(prompt))[0].body
    assert json.loads(sent) == json.loads(before + after)
    assert b"cache" not in sent and sent.startswith(before.encode()[:40]) and b'"temperature":0.0' in sent


def test_litellms_no_cache_asks_anew(provider, openai_client):
    prompt = mark()
    first = chat(openai_client, prompt, temperature=0)
    fresh = chat(openai_client, prompt, temperature=0, extra_body={"cache": {"no-cache": True}})
    assert fresh.items != first.items


def test_several_answers_to_one_question(provider, openai_client):
    """A seed of the cache's own gives repeats that differ from each other and are each stored."""
    prompt = mark()
    seeds = [{"Helicone-Cache-Enabled": "true", "Helicone-Cache-Seed": str(n)} for n in range(3)]
    ids = [chat(openai_client, prompt, seed).items[0]["id"] for seed in seeds]
    assert len(set(ids)) == 3
    assert [chat(openai_client, prompt, seed).items[0]["id"] for seed in seeds] == ids
    assert len(provider.calls_with(tag(prompt))) == 3


def test_a_bucket_holds_so_many_answers_and_no_more(provider, openai_client):
    prompt = mark()
    fields = {"Helicone-Cache-Enabled": "true", "Helicone-Cache-Bucket-Max-Size": "2"}
    ids = {chat(openai_client, prompt, fields).items[0]["id"] for _ in range(12)}
    assert len(ids) == len(provider.calls_with(tag(prompt))) <= 2


def test_an_answer_says_what_it_saved(provider, openai_client):
    prompt = mark()
    first, second = twice(provider, prompt, lambda: chat(openai_client, prompt, temperature=0))
    usage = first.items[0]["usage"]
    assert "x-larder-saved-tokens" not in first.fields and "x-larder-saved-usd" not in first.fields
    assert int(second.fields["x-larder-saved-tokens"]) == usage["total_tokens"]
    # 65 tokens of a question and 1 of an answer: something, and far below a cent.
    assert 0 < float(second.fields["x-larder-saved-usd"]) < 0.01


def test_a_hit_has_no_field_that_nobody_is_told_of(provider, openai_client):
    prompt = mark()
    first, second = twice(provider, prompt, lambda: chat(openai_client, prompt, temperature=0))
    assert set(second.fields) - set(first.fields) == {
        "age",
        "x-larder-usage",
        "x-larder-saved-tokens",
        "x-larder-saved-usd",
    }


def test_a_stream_says_before_its_first_event_what_it_saved(provider, openai_client):
    prompt = mark()
    arguments = {
        **PURE,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "stream_options": {"include_usage": True},
    }
    first = ask(openai_client.chat.completions, True, **arguments)
    usage = next(event["usage"] for event in first.items if event["usage"])
    second = ask(openai_client.chat.completions, True, **arguments)
    assert int(second.fields["x-larder-saved-tokens"]) == usage["total_tokens"]


def test_statistics_count_what_was_saved(provider, openai_client, gateway):
    def saved():
        return json.dumps(httpx.get(gateway.admin + "/stats", trust_env=False).json().get("llm"))

    prompt = mark()
    chat(openai_client, prompt, temperature=0)
    before = saved()
    assert before != "null", "/stats has a part for calls to models"
    chat(openai_client, prompt, temperature=0)
    assert saved() != before


def test_metrics_tell_billed_from_saved(provider, openai_client, gateway):
    prompt = mark()
    for _ in range(2):
        chat(openai_client, prompt, temperature=0)
    metrics = httpx.get(gateway.admin + "/metrics", trust_env=False).text
    for account in ("billed", "saved"):
        for name in ("larder_llm_tokens_total", "larder_llm_cost_dollars_total"):
            assert any(line.startswith(name) and f'account="{account}"' in line for line in metrics.splitlines()), (
                name,
                account,
            )
    assert "sk-one" not in metrics


def test_everything_can_be_purged(provider, openai_at, at):
    """By another gateway of its own: it is everything."""
    import os

    from harness import Direct, Gateway

    own = (Direct if os.environ.get("SDK_DIRECT") else Gateway)(provider.base)
    try:
        client = openai.OpenAI(base_url=own.base + "/openai/v1", api_key="k", max_retries=0, timeout=PATIENCE)
        prompt = mark()
        twice(provider, prompt, lambda: chat(client, prompt, temperature=0))
        purged = httpx.post(own.admin + "/purge", json={"all": True}, trust_env=False)
        assert purged.status_code == 200, purged.text
        assert not chat(client, prompt, temperature=0).hit
        assert len(provider.calls_with(tag(prompt))) == 2
    finally:
        own.stop()


def test_models_with_a_policy_of_their_own(provider, openai_at):
    prompt = mark()
    client = openai_at("by-model")
    messages = [{"role": "user", "content": prompt}]
    o3 = lambda: ask(client.chat.completions, model="o3-pro", messages=messages)  # noqa: E731
    twice(provider, prompt, o3)
    mini = mark()
    messages = [{"role": "user", "content": mini}]
    not_stored(provider, mini, lambda: ask(client.chat.completions, model="o3-mini", messages=messages, temperature=0))


def test_what_the_cache_did_is_on_every_answer(provider, openai_client):
    prompt = mark()
    said = [
        chat(openai_client, prompt).fields["cache-status"],
        chat(openai_client, mark(), temperature=0).fields["cache-status"],
    ]
    assert all(status.startswith("larder") and "fwd" in status for status in said)
    for status in (400, 429):
        prompt = mark()
        provider.behave(tag(prompt), status=status)
        with pytest.raises(openai.APIStatusError) as raised:
            chat(openai_client, prompt, temperature=0)
        assert raised.value.response.headers["cache-status"].startswith("larder")
