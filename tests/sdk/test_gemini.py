"""The google-genai SDK."""

import json

import pytest
from google.genai import types
from harness import Got, assert_hit, mark, not_stored, post, run, tag, twice

MODEL = "gemini-2.5-flash"
TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_capital", parameters_json_schema={"type": "object", "properties": {"country": {"type": "string"}}}
        )
    ]
)
CASES = {
    "text": {},
    "system": {"system_instruction": "Be brief."},
    "tools": {"tools": [TOOL], "automatic_function_calling": {"disable": True}},
    "JSON": {
        "response_mime_type": "application/json",
        "response_schema": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}},
    },
}


def lower(fields):
    return {name.lower(): value for name, value in fields.items()}


def got(items):
    return Got([item.model_dump(exclude={"sdk_http_response"}) for item in items], lower(items[0].sdk_http_response.headers))


def generate(client, prompt, stream=False, **config):
    arguments = {"model": MODEL, "contents": prompt, "config": {"temperature": 0, **config}}
    if stream:
        return got(list(client.models.generate_content_stream(**arguments)))
    return got([client.models.generate_content(**arguments)])


async def generate_async(client, prompt, stream=False, **config):
    arguments = {"model": MODEL, "contents": prompt, "config": {"temperature": 0, **config}}
    if stream:
        return got([item async for item in await client.aio.models.generate_content_stream(**arguments)])
    return got([await client.aio.models.generate_content(**arguments)])


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("case", CASES)
def test_a_hit_is_what_the_miss_was(case, stream, way, provider, gemini_at):
    prompt = mark()
    client = gemini_at()
    if way == "sync":
        twice(provider, prompt, lambda: generate(client, prompt, stream, **CASES[case]))
    else:
        twice(provider, prompt, lambda: run(generate_async(gemini_at(), prompt, stream, **CASES[case])))


def test_a_stream_that_is_an_array(provider, at):
    """Without `alt=sse` the parts come as elements of one array, and never for who wants events."""
    prompt = mark()
    body = json.dumps({"contents": [{"parts": [{"text": prompt}]}], "generationConfig": {"temperature": 0}}).encode()
    path = f"/v1beta/models/{MODEL}:streamGenerateContent"

    def call(query=""):
        status, fields, content = post(at("gemini"), path + query, body, {"x-goog-api-key": "gemini-one"})
        assert status == 200
        return Got([content], fields)

    first, _ = twice(provider, prompt, call)
    assert len(json.loads(first.items[0])) == 3
    events = call("?alt=sse")
    assert not events.hit and events.items[0].startswith(b"data: ")
    assert call("?alt=sse").items == events.items
    assert len(provider.calls_with(tag(prompt))) == 2


def test_plain_and_streamed_are_two_calls(provider, gemini_at):
    prompt = mark()
    plain, streamed = (generate(gemini_at(), prompt, stream) for stream in (False, True))
    assert not streamed.hit and len(plain.items) == 1 < len(streamed.items)


def test_counts_of_tokens(provider, gemini_at):
    prompt = mark()
    twice(provider, prompt, lambda: got([gemini_at().models.count_tokens(model=MODEL, contents=prompt)]))


def test_embeddings(provider, gemini_at):
    prompt = mark()
    contents = [prompt, prompt + "!"]
    embed = lambda **config: got(
        [gemini_at().models.embed_content(model="gemini-embedding-001", contents=contents, config=config)]
    )  # noqa: E731
    twice(provider, prompt, embed)
    assert not embed(output_dimensionality=8).hit


def test_another_model_in_the_path_is_another_call(provider, gemini_at):
    prompt = mark()
    generate(gemini_at(), prompt)
    other = gemini_at().models.generate_content(model="gemini-2.5-pro", contents=prompt, config={"temperature": 0})
    assert not got([other]).hit


def test_two_keys_never_meet(provider, gemini_at):
    prompt = mark()
    assert generate(gemini_at("gemini-one"), prompt).items != generate(gemini_at("gemini-two"), prompt).items


def test_a_key_in_the_query_is_a_credential(provider, at):
    prompt = mark()
    body = json.dumps({"contents": [{"parts": [{"text": prompt}]}], "generationConfig": {"temperature": 0}}).encode()

    def call(key):
        _, fields, content = post(at("gemini"), f"/v1beta/models/{MODEL}:generateContent?key={key}", body)
        return Got([content], fields)

    first, _ = twice(provider, prompt, lambda: call("one"))
    assert call("two").items != first.items


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_what_a_filter_has_cut_is_not_stored(stream, provider, gemini_at):
    prompt = mark()
    provider.behave(tag(prompt), finish="content_filter")
    not_stored(provider, prompt, lambda: generate(gemini_at(), prompt, stream))


def test_a_stream_without_a_reason_to_end_is_not_stored(provider, gemini_at):
    prompt = mark()
    provider.behave(tag(prompt), end_at=2)
    not_stored(provider, prompt, lambda: generate(gemini_at(), prompt, True))


def test_searching_the_web_is_left_to_the_provider(provider, gemini_at):
    prompt = mark()
    search = types.Tool(google_search=types.GoogleSearch())
    not_stored(provider, prompt, lambda: generate(gemini_at(), prompt, tools=[search]))


def test_models(provider, at):
    key = mark("key")

    def call():
        import httpx

        answer = httpx.get(at("gemini", "/v1beta/models"), headers={"x-goog-api-key": key}, trust_env=False)
        return Got([answer.content], answer.headers)

    first = call()
    second = call()
    assert_hit(provider, key, second)
    assert second.items == first.items
