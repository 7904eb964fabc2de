"""LangChain, whose own cache knows no streams: with the gateway's, it need not."""

import pytest
from harness import PATIENCE, Got, assert_hit, mark, run, tag, twice
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


@tool
def get_capital(country: str) -> str:
    """The capital of a country."""
    return country


class City(BaseModel):
    """A city."""

    city: str


@pytest.fixture
def model(at):
    def make(**more):
        return ChatOpenAI(
            model="gpt-4o",
            base_url=at("openai", "/v1"),
            api_key="sk-one",
            temperature=0,
            max_retries=0,
            timeout=PATIENCE,
            include_response_headers=True,
            **more,
        )

    return make


def held(messages) -> Got:
    """What a chain holds; LangChain gives each run an id of its own, and puts the fields of the response beside it."""
    fields = next(message.response_metadata.get("headers") for message in messages if message.response_metadata.get("headers"))
    dumps = [message.model_dump() for message in messages]
    for item in dumps:
        item.pop("id")
        item["response_metadata"].pop("headers", None)
    return Got(dumps, fields)


def test_invoke(provider, model):
    prompt = mark()
    _, second = twice(provider, prompt, lambda: held([model().invoke(prompt)]))
    assert second.items[0]["usage_metadata"]["total_tokens"] > 0


def test_ainvoke(provider, model):
    prompt = mark()
    twice(provider, prompt, lambda: held([run(model().ainvoke(prompt))]))


def test_stream(provider, model):
    prompt = mark()
    first, _ = twice(provider, prompt, lambda: held(list(model().stream(prompt))))
    assert len(first.items) > 3


def test_astream(provider, model):
    prompt = mark()

    async def stream():
        return [chunk async for chunk in model().astream(prompt)]

    twice(provider, prompt, lambda: held(run(stream())))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_tools(stream, provider, model):
    prompt = mark()

    def call():
        bound = model().bind_tools([get_capital])
        return held(list(bound.stream(prompt)) if stream else [bound.invoke(prompt)])

    _, second = twice(provider, prompt, call)
    assert any(item["tool_calls"] for item in second.items)


def test_structured_output(provider, model):
    prompt = mark()
    chain = model().with_structured_output(City, method="json_schema")
    assert chain.invoke(prompt) == chain.invoke(prompt) == City(city="Mexico City")
    assert len(provider.calls_with(tag(prompt))) == 1


def test_a_batch(provider, model):
    prompt = mark()
    answers = model().batch([prompt] * 5)
    assert len({answer.response_metadata["id"] for answer in answers}) == 1
    assert len(provider.calls_with(tag(prompt))) == 1


def test_responses_api(provider, model):
    prompt = mark()
    twice(provider, prompt, lambda: held([model(use_responses_api=True).invoke(prompt)]))


def test_embeddings(provider, at):
    key = mark("sk")
    # Counting tokens would need a file from the network.
    make = lambda: OpenAIEmbeddings(base_url=at("openai", "/v1"), api_key=key, check_embedding_ctx_length=False, max_retries=0)  # noqa: E731
    first = make().embed_documents(["a", "b"])
    assert make().embed_documents(["c", "b", "a"])[1:] == [first[1], first[0]]
    assert make().embed_query("a") == first[0]
    assert [call.json["input"] for call in provider.calls_with(key)] == [["a", "b"], ["c"]]
    assert run(make().aembed_query("b")) == first[1]


def test_a_hit_is_seen_by_the_chain(provider, model):
    prompt = mark()
    model().invoke(prompt)
    assert_hit(provider, prompt, held([model().invoke(prompt)]))


def test_who_streams_and_who_does_not_are_answered_apart(provider, model):
    prompt = mark()
    whole = model().invoke(prompt)
    chunks = list(model().stream(prompt))
    assert whole.content and len(chunks) > 1
    assert model().invoke(prompt).response_metadata["id"] == whole.response_metadata["id"]
    assert len(provider.calls_with(tag(prompt))) == 2
