"""What users of other gateways and caches have complained of, one test each, by the number it has in our list (README.md
tells of those that have none here). Each is a thing that went wrong for somebody; here it must not."""

import json
import re

import httpx
import openai
import pytest
from harness import Got, ask, ask_async, assert_hit, dump, mark, not_stored, post, run, tag, twice
from provider import DIMENSIONS, vector

TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_capital", "parameters": {"type": "object", "properties": {"country": {"type": "string"}}}},
    }
]


def arguments_of(prompt, **more):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], "temperature": 0, **more}


def chat(client, prompt, stream=False, **more):
    return ask(client.chat.completions, stream, **arguments_of(prompt, **more))


def messages(client, prompt, stream=False, **more):
    arguments = {"model": "claude", "max_tokens": 64, "messages": [{"role": "user", "content": prompt}], **more}
    return ask(client.messages, stream, extra_body={"temperature": 0}, **arguments)


def respond(client, prompt, stream=False, **more):
    return ask(client.responses, stream, model="gpt-4o", input=prompt, temperature=0, **more)


def all_differ(answers):
    assert not any(got.hit for got in answers)
    ids = [got.items[0]["id"] for got in answers]
    assert len(set(ids)) == len(ids)


def embed(client, inputs, **more) -> Got:
    raw = client.embeddings.with_raw_response.create(model="text-embedding-3-small", input=inputs, **more)
    return Got([dump(raw.parse())], raw.headers)


# What makes two questions the same.


def test_01_three_efforts_of_reasoning_have_three_answers(openai_client):
    """Complaint 1: an evaluation of three efforts of one model gave the same figures for all of them."""
    prompt = mark()
    all_differ([chat(openai_client, prompt, reasoning_effort=effort) for effort in ("low", "medium", "high")])


def test_02_options_of_a_local_server_count(openai_client):
    """Complaint 2: the size of the context, and whatever else the gateway had not heard of, was left out silently."""
    prompt = mark()
    options = [{"num_ctx": 2048}, {"num_ctx": 8192}, {"options": {"num_ctx": 2048}}, {"repeat_penalty": 1.1}]
    all_differ([chat(openai_client, prompt, extra_body=option) for option in options])


def test_03_top_k_counts(anthropic_client):
    """Complaint 3: top_k changed, the answer did not."""
    prompt = mark()
    call = lambda top_k: ask(  # noqa: E731
        anthropic_client.messages,
        model="claude",
        max_tokens=9,
        messages=[{"role": "user", "content": prompt}],
        extra_body={"temperature": 0, "top_k": top_k},
    )
    all_differ([call(1), call(40)])


def test_04_every_parameter_of_responses_counts(openai_client):
    """Complaint 4: parameters of the Responses API were no part of the key."""
    prompt = mark()
    others = [
        {},
        {"instructions": "Be brief."},
        {"text": {"verbosity": "low"}},
        {"reasoning": {"effort": "low"}},
        {"truncation": "auto"},
        {"include": ["message.output_text.logprobs"]},
        {"max_tool_calls": 1},
        {"top_logprobs": 2},
        {"parallel_tool_calls": False},
    ]
    all_differ([respond(openai_client, prompt, **other) for other in others])


def test_05_what_is_left_out_is_not_zero(provider, openai_client):
    """Complaint 5: a limit, a choice of tools and stops were left out, and no temperature was taken for temperature 0."""
    prompt = mark()
    others = [{}, {"max_tokens": 5}, {"stop": "x"}, {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "required"}]
    all_differ([chat(openai_client, prompt, **other) for other in others])
    without = ask(openai_client.chat.completions, model="gpt-4o", messages=[{"role": "user", "content": prompt}])
    assert not without.hit


def test_06_the_same_bytes_are_a_hit_each_time(provider, at):
    """Complaint 6: a cache that never hit, because its hash of the same bytes was another one each time."""
    prompt = mark()
    body = json.dumps(arguments_of(prompt, tools=TOOLS, metadata={"b": "1", "a": "2"})).encode()
    answers = [post(at("openai"), "/v1/chat/completions", body, {"authorization": "Bearer sk-one"}) for _ in range(10)]
    assert len({content for _, _, content in answers}) == len(provider.calls_with(tag(prompt))) == 1


def test_07_the_provider_counts_and_not_only_the_models_name(openai_at):
    """Complaint 7: two providers of the same name of a model shared answers."""
    prompt = mark()
    all_differ([chat(openai_at(route), prompt) for route in ("openai", "groq")])


def test_08_settings_of_servers_for_tools_count(openai_client):
    """Complaint 8: another configuration of MCP servers, the same answer."""
    prompt = mark()
    all_differ([chat(openai_client, prompt, extra_body={"mcp": {"server": name}}) for name in ("a", "b")])


def test_09_ids_that_mean_nothing_can_be_left_out(provider, openai_at):
    """Complaint 9: ids of earlier messages made every call of an agent a new one."""
    prompt = mark()

    def call(number):
        said = [{"type": "message", "role": "user", "content": prompt}]
        earlier = {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed"}
        earlier["content"] = [{"type": "output_text", "text": "Paris", "annotations": []}]
        return ask(openai_at("masked").responses, model="gpt-4o", input=[*said, earlier], temperature=0)

    first, second = call(1), call(2)
    assert_hit(provider, prompt, second)
    assert second.items == first.items
    assert b'"msg_1"' in provider.calls_with(tag(prompt))[0].body


def test_10_clients_that_order_members_anew_hit(provider, at):
    """Complaint 10: clients that write an object's members in another order each time."""
    prompt = mark()
    body = arguments_of(prompt)
    for order in (list(body), list(reversed(body)), sorted(body)):
        sent = json.dumps({name: body[name] for name in order}).encode()
        assert post(at("openai"), "/v1/chat/completions", sent, {"authorization": "Bearer sk-one"})[0] == 200
    assert len(provider.calls_with(tag(prompt))) == 1


def test_11_model_and_system_prompt_count(openai_client, anthropic_client):
    """Complaint 11: five projects whose key held the last message alone."""
    prompt = mark()
    user = {"role": "user", "content": prompt}
    system = [[user], [{"role": "system", "content": "a"}, user], [{"role": "system", "content": "b"}, user]]
    all_differ([chat(openai_client, prompt, messages=said) for said in system] + [chat(openai_client, prompt, model="gpt-5")])
    all_differ([messages(anthropic_client, prompt, system=text) for text in ("a", "b")])


def test_12_prompts_that_only_differ_at_their_end_differ(openai_client):
    """Complaint 12: long prompts with one beginning were taken for the same by what compares meanings."""
    prompt = mark() + "the same " * 20_000
    all_differ([chat(openai_client, prompt + end) for end in ("one", "other")])


def test_13_low_temperatures_can_be_stored_by_model(provider, openai_at):
    """Complaint 13: somebody wants answers with chance in them stored, for one model and not for another."""
    prompt = mark()
    arguments = {"messages": [{"role": "user", "content": prompt}], "temperature": 0.2}
    twice(provider, prompt, lambda: ask(openai_at("by-model").chat.completions, model="o3-pro", **arguments))
    assert not ask(openai_at("by-model").chat.completions, model="gpt-4o", **arguments).hit


def test_14_a_line_that_changes_with_every_call_does_not_count(provider, anthropic_client):
    """Complaint 14: a coding agent writes a number of its own into the system prompt of each call, and nothing ever hits."""
    prompt = mark()

    def call(number):
        line = f"x-anthropic-billing-header: cc_version=2.1.{number % 9}; cc_entrypoint=cli; cch={number:05x};"
        system = [{"type": "text", "text": line}, {"type": "text", "text": "You are a coding agent."}]
        return messages(anthropic_client, prompt, system=system)

    first, second = call(0xA1B2C), call(0x00F3D)
    assert_hit(provider, prompt, second)
    assert second.items == first.items
    assert b"cch=a1b2c;" in provider.calls_with(tag(prompt))[0].body, "the provider gets it as it is"


# Streams.


def test_15_a_replay_is_a_stream_and_async_ones_are_stored(provider, openai_at):
    """Complaint 15: a stored stream came as one piece, and asynchronous ones were not stored."""
    prompt = mark()
    call = lambda: run(ask_async(openai_at(kind=openai.AsyncOpenAI).chat.completions, True, **arguments_of(prompt)))  # noqa: E731
    first, second = twice(provider, prompt, call)
    assert len(second.items) == len(first.items) > 5


def test_16_streamed_responses_are_stored(provider, openai_client):
    """Complaint 16: streams of the Responses API were neither stored nor replayed."""
    prompt = mark()
    _, second = twice(provider, prompt, lambda: respond(openai_client, prompt, True))
    assert [event["type"] for event in second.items][-1] == "response.completed"


def test_17_reasoning_is_part_of_a_streamed_hit(provider, openai_client):
    """Complaint 17: `reasoning_content` was missing from a stored stream."""
    prompt = mark()
    _, second = twice(provider, prompt, lambda: chat(openai_client, prompt, True, model="deepseek-reasoner"))
    assert any(event["choices"][0]["delta"].get("reasoning_content") for event in second.items if event["choices"])


def test_18_details_of_usage_are_part_of_a_streamed_hit(provider, openai_client):
    """Complaint 18: how many tokens were cached or reasoned was lost."""
    prompt = mark()
    call = lambda: chat(openai_client, prompt, True, model="deepseek-reasoner", stream_options={"include_usage": True})  # noqa: E731
    _, second = twice(provider, prompt, call)
    usage = next(event["usage"] for event in second.items if event["usage"])
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 198


def test_19_a_stream_says_that_it_is_a_hit(provider, openai_client):
    """Complaint 19: whether a stream came from the cache could not be told."""
    prompt = mark()
    _, second = twice(provider, prompt, lambda: chat(openai_client, prompt, True))
    assert "hit" in second.fields["cache-status"] and second.fields["age"]


def test_20_streamed_tool_calls_come_back(provider, openai_client):
    """Complaint 20: calls of tools in a stream were not given back."""
    prompt = mark()

    def arguments_called():
        events = chat(openai_client, prompt, True, tools=TOOLS).items
        calls = [call for event in events if event["choices"] for call in event["choices"][0]["delta"].get("tool_calls") or []]
        return json.loads("".join(call["function"]["arguments"] for call in calls))

    assert arguments_called() == arguments_called() == {"country": "UK"}
    assert len(provider.calls_with(tag(prompt))) == 1


def test_21_citations_come_back(provider, openai_client):
    """Complaint 21: citations and fields of one provider alone were lost."""
    prompt = mark()
    _, second = twice(provider, prompt, lambda: chat(openai_client, prompt, True, model="gpt-annotating"))
    assert any(event["choices"][0]["delta"].get("annotations") for event in second.items if event["choices"])
    assert all(event["provider"] for event in second.items), "what OpenRouter adds"


def test_22_streams_are_written(provider, openai_client, anthropic_client, gemini_at):
    """Complaint 22: streams were looked for, and never written."""
    for call in (
        lambda prompt: chat(openai_client, prompt, True),
        lambda prompt: respond(openai_client, prompt, True),
        lambda prompt: messages(anthropic_client, prompt, True),
    ):
        prompt = mark()
        twice(provider, prompt, lambda: call(prompt))


def test_23_a_streamed_hit_is_well_formed(provider, at):
    """Complaint 23: what came of a stored stream was no stream that a client could read."""
    prompt = mark()
    body = json.dumps(arguments_of(prompt, stream=True)).encode()
    for _ in range(2):
        status, fields, content = post(at("openai"), "/v1/chat/completions", body, {"authorization": "Bearer sk-one"})
        assert status == 200 and fields["content-type"].startswith("text/event-stream")
        assert "content-length" not in fields or int(fields["content-length"]) == len(content)
        *events, done = re.findall(rb"data: (.*)\n\n", content)
        assert done == b"[DONE]" and all(json.loads(event)["choices"] is not None for event in events)


def test_24_a_stream_that_never_ended_leaves_nothing_behind(provider, openai_client):
    """Complaint 24: a place kept for an answer that did not come was found by later calls."""
    prompt = mark()
    provider.behave(tag(prompt), cut_at=2, times=1)
    with pytest.raises(Exception, match=r".*"):
        chat(openai_client, prompt, True)
    assert len(chat(openai_client, prompt, True).items) > 5
    assert_hit(provider, prompt, chat(openai_client, prompt, True), calls=2)


def test_25_what_the_cache_says_is_on_streams_too(provider, openai_client):
    """Complaint 25: what the cache had done was told for plain answers alone."""
    prompt = mark()
    plain = chat(openai_client, prompt).fields
    streamed = chat(openai_client, prompt, True).fields
    names = lambda fields: {name for name in fields if name.startswith(("cache-", "x-larder"))}  # noqa: E731
    assert names(plain) == names(streamed) and "cache-status" in names(plain)


def test_26_a_stream_is_cached_like_any_answer(provider, openai_client):
    """Complaint 26: calls with `stream` were passed by."""
    prompt = mark()
    twice(provider, prompt, lambda: chat(openai_client, prompt, True))


def test_27_a_framework_that_streams_hits(provider, openai_client):
    """Complaint 27: a framework's cache is left out once its caller streams (LangChain itself: `test_langchain.py`)."""
    prompt = mark()

    def call():
        with openai_client.chat.completions.stream(**arguments_of(prompt)) as stream:
            return dump(stream.get_final_completion())

    assert call() == call()
    assert len(provider.calls_with(tag(prompt))) == 1


def test_28_streamed_and_plain_have_places_of_their_own(provider, openai_client):
    """Complaint 28: both shared a key, and a client crashed on the other's answer."""
    prompt = mark()
    first = {stream: chat(openai_client, prompt, stream) for stream in (True, False)}
    assert all(chat(openai_client, prompt, stream).items == first[stream].items for stream in (True, False))
    assert len(first[True].items) > 1 == len(first[False].items)


# Embeddings.


def test_29_a_batch_of_known_and_new_is_put_together_right(provider, openai_at):
    """Complaint 29: indexes were wrong where part of a batch was known, and wrong vectors went into databases."""
    key = mark("sk")
    client = openai_at(key=key)
    embed(client, ["b", "d"])
    inputs = ["a", "b", "c", "d", "e"]
    data = embed(client, inputs).items[0]["data"]
    assert [item["index"] for item in data] == [0, 1, 2, 3, 4]
    for item, text in zip(data, inputs, strict=True):
        assert item["embedding"][1:] == pytest.approx(vector(text, DIMENSIONS, 0)[1:])
    assert [call.json["input"] for call in provider.calls_with(key)] == [["b", "d"], ["a", "c", "e"]]


def test_30_a_single_text_gets_its_vector(provider, openai_at):
    """Complaint 30: a text that is no list got nothing back."""
    key = mark("sk")
    for _ in range(2):
        data = embed(openai_at(key=key), "alone").items[0]["data"]
        assert len(data) == 1 and None not in data[0]["embedding"]
    assert len(provider.calls_with(key)) == 1


def test_31_batches_are_served_from_the_cache(provider, openai_at):
    """Complaint 31: only single inputs were."""
    key = mark("sk")
    _, second = twice(provider, key, lambda: embed(openai_at(key=key), ["a", "b", "c"]))
    assert len(second.items[0]["data"]) == 3


# Whose answers.


def keys_differ(openai_at, prompt):
    one, other = (chat(openai_at(key=key), prompt) for key in ("sk-one", "sk-two"))
    assert one.items != other.items and not other.hit


def test_33_teams_share_nothing_by_default(openai_at):
    """Complaint 33: teams with keys of their own got each other's answers."""
    keys_differ(openai_at, mark())


def test_34_a_namespace_is_kept_to(openai_client):
    """Complaint 34: a namespace that was given was not looked at."""
    prompt = mark()
    all_differ([chat(openai_client, prompt, extra_headers={"x-larder-namespace": name}) for name in ("a", "b")])


def test_35_the_same_words_of_two_users_are_two_questions(openai_at):
    """Complaint 35: two users, one question, one answer."""
    prompt = mark()
    all_differ([chat(openai_at("end-user"), prompt, user=user) for user in ("ann", "bob")])


def test_36_no_list_of_models_is_shared(provider, openai_at):
    """Complaint 36: what one tenant may see was shown to another."""
    created = [openai_at(key=mark("sk")).models.list().data[0].created for _ in range(2)]
    assert created[0] != created[1]


def test_37_one_process_can_hold_several_caches(openai_client):
    """Complaint 37: one cache for everything in a process."""
    prompt = mark()
    spaces = [{"x-larder-namespace": name} for name in ("development", "production")]
    all_differ([chat(openai_client, prompt, extra_headers=space) for space in spaces])
    assert all(chat(openai_client, prompt, extra_headers=space).hit for space in spaces)


def test_38_a_projects_calls_stay_in_it(openai_at):
    """Complaint 38: calls of one project were answered from another's."""
    prompt = mark()
    all_differ([chat(openai_at(project=name), prompt) for name in ("a", "b")])


# What is told.


def test_39_saved_tokens_are_told_apart_from_used_ones(provider, openai_client):
    """Complaint 39: reports of tokens did not say whether they had been paid for."""
    prompt = mark()
    first, second = twice(provider, prompt, lambda: chat(openai_client, prompt))
    assert "x-larder-saved-tokens" not in first.fields
    assert int(second.fields["x-larder-saved-tokens"]) == first.items[0]["usage"]["total_tokens"]
    assert second.items[0]["usage"] == first.items[0]["usage"], "the answer itself is not rewritten"


def test_40_a_hit_is_not_billed_again(provider, openai_client, gateway):
    """Complaint 40: a hit was counted at its full price."""

    def billed():
        metrics = httpx.get(gateway.admin + "/metrics", trust_env=False).text
        found = [line for line in metrics.splitlines() if not line.startswith("#") and "billed" in line and "llm" in line]
        assert found, "what was billed is counted"
        return sorted(found)

    prompt = mark()
    chat(openai_client, prompt)
    before = billed()
    assert chat(openai_client, prompt).hit
    assert billed() == before


def test_41_tokens_from_the_providers_own_cache_are_told(provider, anthropic_client):
    """Complaint 41: cached tokens were left out of the account; here the usage stays as the provider gave it."""
    prompt = mark()
    _, second = twice(provider, prompt, lambda: messages(anthropic_client, prompt))
    assert "cache_read_input_tokens" in second.items[0]["usage"]
    assert int(second.fields["x-larder-saved-tokens"]) > 0


def test_42_hit_and_miss_are_seen(provider, openai_client):
    """Complaint 42: nobody could see whether the cache worked."""
    prompt = mark()
    miss, hit = chat(openai_client, prompt).fields["cache-status"], chat(openai_client, prompt).fields["cache-status"]
    assert "fwd=" in miss and "stored" in miss and "hit" not in miss
    assert "hit" in hit and "ttl=" in hit


def test_43_all_fields_that_tell_of_a_miss_tell_of_a_hit(provider, openai_client):
    """Complaint 43: a field was there on a miss and missing on a hit."""
    prompt = mark()
    first, second = twice(provider, prompt, lambda: chat(openai_client, prompt))
    told = {name for name in first.fields if name.startswith(("cache-", "x-larder", "x-cache"))}
    assert told and told <= set(second.fields)


def test_44_each_answer_has_a_request_id_of_its_own(provider, openai_client):
    """Complaint 44: hits had the id of the first call, and logs dropped them as duplicates."""
    prompt = mark()
    answers = [chat(openai_client, prompt) for _ in range(3)]
    ids = [got.fields.get("x-request-id") for got in answers]
    assert answers[2].hit
    assert all(ids[0] != other for other in ids[1:]), "the provider's id is of its own call alone"
    assert ids[1] is None or ids[1] != ids[2]


def test_46_a_miss_can_be_explained(provider, openai_client):
    """Complaint 46: a miss, and no way to find out what differed."""
    prompt = mark()
    chat(openai_client, prompt)
    explained = chat(openai_client, prompt, top_p=0.5, extra_headers={"x-larder-explain": "1"})
    assert "/top_p" in explained.fields["x-larder-miss"]


# Who decides.


def test_54_each_caller_can_leave_the_cache_out_refresh_it_or_store_nothing(provider, openai_client):
    """Complaint 54: the meaning of `Cache-Control` is wanted, for each call."""
    prompt = mark()
    first = chat(openai_client, prompt)
    passed = chat(openai_client, prompt, extra_headers={"Cache-Control": "no-store, no-cache"})
    assert passed.items != first.items and chat(openai_client, prompt).items == first.items
    fresh = chat(openai_client, prompt, extra_headers={"Cache-Control": "no-cache"})
    assert fresh.items != first.items and chat(openai_client, prompt).items == fresh.items
    with pytest.raises(openai.APIStatusError):
        chat(openai_client, mark(), extra_headers={"Cache-Control": "only-if-cached"})


def test_55_repeats_that_are_to_differ_do(provider, openai_client):
    """Complaint 55: an evaluation that repeats a question wants other answers, and the same ones when it runs again."""
    prompt = mark()
    repeats = [{"x-larder-namespace": f"repeat {number}"} for number in range(3)]
    first = [chat(openai_client, prompt, extra_headers=repeat) for repeat in repeats]
    all_differ(first)
    assert [chat(openai_client, prompt, extra_headers=repeat).items for repeat in repeats] == [got.items for got in first]


def test_56_some_models_are_left_out(provider, openai_at):
    """Complaint 56: a condition under which nothing is cached."""
    prompt = mark()
    not_stored(provider, prompt, lambda: chat(openai_at("by-model"), prompt, model="o3-mini"))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_57_what_was_cut_off_is_not_kept(stream, provider, openai_client):
    """Complaint 57: an answer that had run out of tokens came back for ever."""
    prompt = mark()
    provider.behave(tag(prompt), finish="length")
    not_stored(provider, prompt, lambda: chat(openai_client, prompt, stream))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_58_anthropics_messages_are_cached(stream, provider, anthropic_client):
    """Complaint 58: only OpenAI's form of a call was."""
    prompt = mark()
    twice(provider, prompt, lambda: messages(anthropic_client, prompt, stream))


def test_transparent_the_providers_own_cache_of_prompts_keeps_working(provider, at):
    """The complaint without a number: tools were written anew, and the provider found no beginning that it knew."""
    prompt = mark()
    tools = b'[ {"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"z":{"type":"string"},"a":{}}}}} ]'
    for limit in range(1, 6):
        body = b'{"tools":%s,"model":"m","messages":[{"role":"user","content":"%s"}],"max_tokens":%d}' % (
            tools,
            prompt.encode(),
            limit,
        )
        post(at("openai"), "/v1/chat/completions", body, {"authorization": "Bearer sk-one"})
        assert provider.calls_with(tag(prompt))[-1].body == body
