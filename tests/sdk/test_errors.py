"""What fails is told as it is, and never stored: in the status, inside a 200, inside a stream, or by breaking off."""

import time

import anthropic
import openai
import pytest
from harness import ask, ask_async, assert_hit, mark, not_stored, run, tag, twice

OPENAI_ERRORS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}
ANTHROPIC_ERRORS = {
    400: anthropic.BadRequestError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    529: anthropic.APIStatusError,
}


def chat(client, prompt, stream=False, **more):
    arguments = {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], "temperature": 0, **more}
    return ask(client.chat.completions, stream, **arguments)


def responses(client, prompt, stream=False, **more):
    return ask(client.responses, stream, model="gpt-4o", input=prompt, temperature=0, **more)


def messages(client, prompt, stream=False, **more):
    # A limit as high as the model's own would be none; this one is set.
    arguments = {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": [{"role": "user", "content": prompt}], **more}
    return ask(client.messages, stream, extra_body={"temperature": 0}, **arguments)


@pytest.fixture
def calls(openai_client, anthropic_client):
    return {
        "chat": lambda prompt, stream=False, **more: chat(openai_client, prompt, stream, **more),
        "responses": lambda prompt, stream=False, **more: responses(openai_client, prompt, stream, **more),
        "messages": lambda prompt, stream=False, **more: messages(anthropic_client, prompt, stream, **more),
    }


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("status", OPENAI_ERRORS)
def test_openai_raises_what_the_provider_said(status, stream, provider, openai_client):
    prompt = mark()
    provider.behave(tag(prompt), status=status, retry_after=7, times=1)
    with pytest.raises(OPENAI_ERRORS[status]) as raised:
        chat(openai_client, prompt, stream)
    assert raised.value.status_code == status
    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.body["message"] == f"simulated {status}"
    assert len(provider.calls_with(tag(prompt))) == 1
    assert not chat(openai_client, prompt, stream).hit, "the error was not stored"
    assert_hit(provider, prompt, chat(openai_client, prompt, stream), calls=2)


@pytest.mark.parametrize("status", ANTHROPIC_ERRORS)
def test_anthropic_raises_what_the_provider_said(status, provider, anthropic_client):
    prompt = mark()
    provider.behave(tag(prompt), status=status, retry_after=7, times=1)
    with pytest.raises(ANTHROPIC_ERRORS[status]) as raised:
        messages(anthropic_client, prompt)
    assert raised.value.status_code == status
    assert raised.value.response.headers["retry-after"] == "7"
    assert not messages(anthropic_client, prompt).hit
    assert_hit(provider, prompt, messages(anthropic_client, prompt), calls=2)


def test_the_sdks_own_retries_are_new_calls(provider, openai_at):
    prompt = mark()
    provider.behave(tag(prompt), status=429, retry_after=0, times=2)
    got = chat(openai_at(max_retries=3), prompt)
    assert len(provider.calls_with(tag(prompt))) == 3
    second = chat(openai_at(), prompt)
    assert_hit(provider, prompt, second, calls=3)
    assert second.items == got.items


def test_an_error_hits_everybody_who_waited_and_nobody_after(provider, openai_at):
    import asyncio

    prompt = mark()
    provider.behave(tag(prompt), status=429, retry_after=1, gate=tag(prompt))

    async def all_of_them():
        client = openai_at(kind=openai.AsyncOpenAI)
        arguments = {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        tasks = [asyncio.create_task(ask_async(client.chat.completions, **arguments)) for _ in range(8)]
        while not provider.calls_with(tag(prompt)):
            await asyncio.sleep(0.01)
        provider.gate(tag(prompt)).release()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(raised, openai.RateLimitError) for raised in run(all_of_them()))
    provider.behave(tag(prompt))
    assert not chat(openai_at(), prompt).hit


@pytest.mark.parametrize("name", ["chat", "responses", "messages"])
def test_an_error_inside_a_200_is_not_stored(name, provider, calls):
    prompt = mark()
    provider.behave(tag(prompt), error_in_200=True, times=1)
    ask_it = lambda: calls[name](prompt)  # noqa: E731
    try:
        assert not ask_it().hit
    except Exception as raised:  # an SDK may find nothing of what it looks for
        assert not isinstance(raised, openai.APIStatusError | anthropic.APIStatusError)
    assert not ask_it().hit
    assert_hit(provider, prompt, ask_it(), calls=2)


@pytest.mark.parametrize("after", [0, 2], ids=["first", "later"])
@pytest.mark.parametrize("name", ["chat", "responses", "messages"])
def test_an_error_inside_a_stream_raises_and_is_not_stored(name, after, provider, calls):
    prompt = mark()
    provider.behave(tag(prompt), error_at=after, times=2)
    for _ in range(2):
        if name == "responses":
            assert calls[name](prompt, True).items[-1]["type"] == "error"
        else:
            with pytest.raises((openai.APIError, anthropic.APIError)):
                calls[name](prompt, True)
    assert not calls[name](prompt, True).hit
    assert_hit(provider, prompt, calls[name](prompt, True), calls=3)


@pytest.mark.parametrize("name", ["chat", "responses", "messages"])
def test_a_stream_that_breaks_off_raises_and_is_not_stored(name, provider, calls):
    prompt = mark()
    provider.behave(tag(prompt), cut_at=3, times=2)
    for _ in range(2):
        with pytest.raises(Exception) as raised:
            calls[name](prompt, True)
        assert "Error" in type(raised.value).__name__ and not isinstance(raised.value, AssertionError)
    assert not calls[name](prompt, True).hit
    assert_hit(provider, prompt, calls[name](prompt, True), calls=3)


@pytest.mark.parametrize("name", ["chat", "responses", "messages"])
def test_a_stream_that_ends_too_early_in_good_order_is_not_stored(name, provider, calls):
    """The connection ends as it should, the protocol does not."""
    prompt = mark()
    provider.behave(tag(prompt), end_at=3, times=1)
    try:
        assert len(calls[name](prompt, True).items) <= 3
    except openai.OpenAIError:
        pass
    full = calls[name](prompt, True)
    assert not full.hit and len(full.items) > 3
    assert_hit(provider, prompt, calls[name](prompt, True), calls=2)


@pytest.mark.parametrize("name", ["chat", "responses", "messages"])
def test_a_whole_answer_that_breaks_off_raises_and_is_not_stored(name, provider, calls):
    prompt = mark()
    provider.behave(tag(prompt), cut_at=0, times=1)
    with pytest.raises((openai.APIConnectionError, anthropic.APIConnectionError, Exception)) as raised:
        calls[name](prompt)
    assert not isinstance(raised.value, AssertionError)
    assert not calls[name](prompt).hit
    assert_hit(provider, prompt, calls[name](prompt), calls=2)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", ["chat", "responses"])
def test_what_ended_at_a_limit_nobody_set_is_not_stored(name, stream, provider, calls):
    prompt = mark()
    provider.behave(tag(prompt), finish="length")
    not_stored(provider, prompt, lambda: calls[name](prompt, stream))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("chat", {"max_tokens": 16}),
        ("chat", {"max_completion_tokens": 16}),
        ("responses", {"max_output_tokens": 16}),
        ("messages", {}),
    ],
)
def test_what_ended_at_the_limit_that_was_asked_for_is(name, limit, stream, provider, calls):
    prompt = mark()
    provider.behave(tag(prompt), finish="length")
    twice(provider, prompt, lambda: calls[name](prompt, stream, **limit))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", ["chat", "responses", "messages"])
def test_what_was_refused_or_filtered_is_not_stored(name, stream, provider, calls):
    prompt = mark()
    provider.behave(tag(prompt), finish="refusal" if name == "messages" else "content_filter")
    not_stored(provider, prompt, lambda: calls[name](prompt, stream))


@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_yesterdays_answer_stands_in_when_the_provider_fails(status, provider, openai_at):
    prompt = mark()
    client = openai_at("brief")
    first = chat(client, prompt)
    time.sleep(1.2)  # its lifetime
    provider.behave(tag(prompt), status=status, retry_after=60)
    stale = chat(client, prompt)
    assert stale.items == first.items
    assert len(provider.calls_with(tag(prompt))) == 2, "the provider was asked"


def test_an_answer_of_yesterday_is_asked_for_anew(provider, openai_at):
    prompt = mark()
    client = openai_at("brief")
    first = chat(client, prompt)
    time.sleep(1.2)
    second = chat(client, prompt)
    assert not second.hit and second.items != first.items


def test_errors_that_would_come_again_are_kept_where_the_route_says_so(provider, openai_at):
    prompt = mark()
    provider.behave(tag(prompt), status=400)
    for _ in range(2):
        with pytest.raises(openai.BadRequestError) as raised:
            chat(openai_at("errors"), prompt)
        assert raised.value.body["message"] == "simulated 400"
    assert len(provider.calls_with(tag(prompt))) == 1
    prompt = mark()
    provider.behave(tag(prompt), status=429)
    for _ in range(2):
        with pytest.raises(openai.RateLimitError):
            chat(openai_at("errors"), prompt)
    assert len(provider.calls_with(tag(prompt))) == 2, "a limit passes"


def test_a_body_that_is_no_json_is_the_providers_to_refuse(provider, at):
    from harness import post

    for body in (b"{", b'{"model":"m","messages":[', b"", b"\xff\xfe"):
        status, _, content = post(at("openai"), "/v1/chat/completions", body, {"authorization": "Bearer sk-one"})
        assert status in (200, 400) and content, body


def test_a_provider_that_is_not_there_raises(openai_at):
    with pytest.raises(openai.InternalServerError) as raised:
        chat(openai_at("down"), mark())
    assert raised.value.status_code in (502, 503, 504)
