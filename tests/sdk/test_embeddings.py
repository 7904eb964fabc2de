"""Embeddings are kept one by one: the provider gets what is new of a batch, and the answer is in the batch's order."""

import asyncio
import base64
import random
import struct

import openai
import pytest
from harness import Got, assert_hit, mark, run, tag, twice
from provider import DIMENSIONS, vector

MODEL = "text-embedding-3-small"


def embed(client, inputs, **arguments) -> Got:
    raw = client.embeddings.with_raw_response.create(model=arguments.pop("model", MODEL), input=inputs, **arguments)
    return Got([raw.parse().model_dump()], raw.headers)


def vectors(got: Got) -> list:
    return [item["embedding"] for item in got.items[0]["data"]]


def asked(provider, key: str) -> list:
    """The inputs the provider was asked for, call by call."""
    return [call.json["input"] for call in provider.calls_with(key)]


def assert_in_order(got: Got, inputs: list, dimensions=DIMENSIONS):
    data = got.items[0]["data"]
    assert [item["index"] for item in data] == list(range(len(inputs)))
    for item, text in zip(data, inputs, strict=True):
        assert item["object"] == "embedding"
        found, expected = item["embedding"], vector(text, dimensions, 0)
        assert found[1:] == pytest.approx(expected[1:], abs=1e-6), f"the vector of another input than {text!r}"


INPUTS = {
    "a text": lambda prompt: prompt,
    "a list": lambda prompt: [prompt, prompt + "!", "x"],
    "tokens": lambda prompt: [*prompt.encode()],
    "lists of tokens": lambda prompt: [[*prompt.encode()], [1, 2, 3]],
}


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("encoding", [None, "base64", "float"])
@pytest.mark.parametrize("inputs", INPUTS)
def test_a_hit_is_what_the_miss_was(inputs, encoding, way, provider, openai_at):
    key = mark("sk")
    inputs = INPUTS[inputs](mark())
    arguments = {} if encoding is None else {"encoding_format": encoding}

    async def embed_async():
        client = openai_at(key=key, kind=openai.AsyncOpenAI)
        raw = await client.embeddings.with_raw_response.create(model=MODEL, input=inputs, **arguments)
        return Got([raw.parse().model_dump()], raw.headers)

    call = (lambda: embed(openai_at(key=key), inputs, **arguments)) if way == "sync" else (lambda: run(embed_async()))
    first, _ = twice(provider, key, call)
    assert None not in vectors(first)
    if encoding != "base64":
        is_one = isinstance(inputs, str) or isinstance(inputs[0], int)
        assert_in_order(first, [inputs] if is_one else inputs)


def test_only_what_is_new_goes_to_the_provider(provider, openai_at):
    key = mark("sk")
    client = openai_at(key=key)
    first = embed(client, ["a", "b"])
    second = embed(client, ["c", "a", "d", "b"])
    assert asked(provider, key) == [["a", "b"], ["c", "d"]]
    assert_in_order(second, ["c", "a", "d", "b"])
    known, fresh = vectors(first), vectors(second)
    assert [fresh[1], fresh[3]] == known, "what was known is what was answered before"
    assert len({value[0] for value in fresh}) == 2, "of two calls"


def test_a_batch_of_what_is_known_is_a_hit(provider, openai_at):
    key = mark("sk")
    client = openai_at(key=key)
    embed(client, ["a", "b"])
    embed(client, ["c"])
    got = embed(client, ["c", "b", "a"])
    assert_hit(provider, key, got, calls=2)
    assert_in_order(got, ["c", "b", "a"])


def test_the_same_text_more_than_once_in_a_batch(provider, openai_at):
    key = mark("sk")
    client = openai_at(key=key)
    assert_in_order(embed(client, ["a", "a", "b", "a"]), ["a", "a", "b", "a"])
    assert_in_order(embed(client, ["b", "b", "c", "c", "a"]), ["b", "b", "c", "c", "a"])
    assert set(asked(provider, key)[1]) == {"c"}


def test_a_text_and_a_list_of_it_are_the_same_input(provider, openai_at):
    key = mark("sk")
    client = openai_at(key=key)
    one = embed(client, "alone")
    other = embed(client, ["alone"])
    assert_hit(provider, key, other)
    assert vectors(one) == vectors(other)
    assert embed(client, ["other", "alone"]) and embed(client, "other").hit


def test_what_else_is_asked_for_keeps_vectors_apart(provider, openai_at):
    key = mark("sk")
    client = openai_at(key=key)
    short = embed(client, "a", dimensions=4)
    assert_in_order(short, ["a"], dimensions=4)
    long = embed(client, "a", dimensions=8)
    assert_in_order(long, ["a"], dimensions=8)
    assert not embed(client, "a", model="text-embedding-3-large", dimensions=8).hit
    numbers = embed(client, "a", dimensions=8, encoding_format="float")
    assert not numbers.hit, "the SDK asks for base64 by itself"
    assert_in_order(numbers, ["a"], dimensions=8)
    text = embed(client, "a", dimensions=8, encoding_format="base64")
    assert text.hit
    assert struct.unpack("<8f", base64.b64decode(vectors(text)[0])) == pytest.approx(vectors(long)[0])
    assert embed(client, "a", dimensions=4).hit


def test_tokens_and_the_text_of_their_numbers_are_two_inputs(provider, openai_at):
    key = mark("sk")
    client = openai_at(key=key)
    embed(client, [[1, 2], [3]])
    assert not embed(client, ["[1,2]", "[3]"]).hit
    assert not embed(client, [1, 2, 3]).hit


def test_two_keys_share_no_vector(provider, openai_at):
    one, other = mark("sk"), mark("sk")
    embed(openai_at(key=one), ["a", "b"])
    embed(openai_at(key=other), ["a", "c"])
    assert asked(provider, other) == [["a", "c"]]


def test_any_batches_in_any_order_equal_asking_for_everything(provider, openai_at):
    """Seeded, so that it can be repeated."""
    key = mark("sk")
    client = openai_at(key=key)
    chance = random.Random(7)
    known = set()
    for _ in range(25):
        inputs = chance.choices("abcdefghijklmnop", k=chance.randint(1, 8))
        before = len(asked(provider, key))
        got = embed(client, inputs, encoding_format=chance.choice(["float", "float", "float"]))
        assert_in_order(got, inputs)
        new = set(inputs) - known
        calls = asked(provider, key)[before:]
        sent = {text for call in calls for text in ([call] if isinstance(call, str) else call)}
        assert sent == new
        assert len(calls) == (1 if new else 0)
        known |= new


def test_usage_tells_what_was_billed(provider, openai_at):
    """A batch of which half is known costs half; what comes wholly from the cache says what it cost when it was made."""
    key = mark("sk")
    client = openai_at(key=key)
    first = embed(client, ["a", "b"])
    assert first.items[0]["usage"]["prompt_tokens"] == 8
    half = embed(client, ["a", "c"])
    assert half.items[0]["usage"]["prompt_tokens"] in (4, 8), "what was billed, or what both have cost"
    assert half.items[0]["usage"]["total_tokens"] == half.items[0]["usage"]["prompt_tokens"]


def test_a_failed_part_fails_the_whole(provider, openai_at):
    key = mark("sk")
    client = openai_at(key=key)
    embed(client, ["a"])
    new = mark("new")
    provider.behave(tag(new), status=429, retry_after=3, times=1)
    with pytest.raises(openai.RateLimitError) as limited:
        embed(client, ["a", new])
    assert limited.value.response.headers["retry-after"] == "3"
    assert_in_order(embed(client, ["a", new]), ["a", new])


def test_the_providers_order_is_not_trusted(provider, openai_at):
    """Indexes say which vector belongs to which input."""
    key = mark("sk")
    provider.behave(key, reverse=True)
    client = openai_at(key=key)
    embed(client, ["b", "d"])
    inputs = ["a", "b", "c", "d"]
    by_index = sorted(embed(client, inputs).items[0]["data"], key=lambda item: item["index"])
    for item, text in zip(by_index, inputs, strict=True):
        assert item["embedding"][1:] == pytest.approx(vector(text, DIMENSIONS, 0)[1:])


def test_too_few_vectors_are_put_together_with_nothing(provider, openai_at):
    """Nobody gets the vector of another input, now or later."""
    key = mark("sk")
    client = openai_at(key=key)
    embed(client, ["b"])
    provider.behave(key, drop=1, times=1)
    try:
        data = embed(client, ["a", "b", "c"]).items[0]["data"]
        for item, text in zip(data, ["a", "b", "c"], strict=False):
            assert item["embedding"][1:] == pytest.approx(vector(text, DIMENSIONS, 0)[1:])
    except openai.OpenAIError:
        pass
    assert_in_order(embed(client, ["c", "b", "a"]), ["c", "b", "a"])


def test_batches_that_overlap_at_the_same_time(provider, openai_at):
    key = mark("sk")
    chance = random.Random(11)
    batches = [chance.sample("abcdefghijklmnop", k=6) for _ in range(30)]

    async def embed_all():
        client = openai_at(key=key, kind=openai.AsyncOpenAI)
        asked = [
            client.embeddings.with_raw_response.create(model=MODEL, input=batch, encoding_format="float") for batch in batches
        ]
        return [Got([raw.parse().model_dump()], raw.headers) for raw in await asyncio.gather(*asked)]

    for got, batch in zip(run(embed_all()), batches, strict=True):
        assert_in_order(got, batch)
    before = len(asked(provider, key))
    assert_in_order(embed(openai_at(key=key), list("ponmlkjihgfedcba"), encoding_format="float"), list("ponmlkjihgfedcba"))
    assert len(asked(provider, key)) == before, "all of them are known by now"


def test_a_batch_of_none_is_the_providers_to_refuse(provider, openai_at):
    key = mark("sk")
    provider.behave(key, status=400)
    with pytest.raises(openai.BadRequestError):
        embed(openai_at(key=key), [])
