"""Fixtures: one simulator and one gateway for all scenarios, clients of every SDK."""

import os
import resource

import pytest

import harness
import provider as simulator

# A thousand clients have a thousand connections.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
# What the SDKs would do with the world outside.
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)
os.environ["LANGSMITH_TRACING"] = "false"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_TELEMETRY"] = "False"


@pytest.fixture(scope="session")
def provider():
    return simulator.Provider()


@pytest.fixture(scope="session")
def gateway(provider):
    gateway = (harness.Direct if os.environ.get("SDK_DIRECT") else harness.Gateway)(provider.base)
    yield gateway
    gateway.stop()


@pytest.fixture(scope="session")
def at(gateway):
    """Base URL of a route: `at("openai")`; with SDK_DIRECT the simulator's."""

    def base(route: str, path: str = "") -> str:
        return gateway.base + ("" if os.environ.get("SDK_DIRECT") else f"/{route}") + path

    return base


def each_once(make):
    """Clients cost more to make than a call does, and one that nobody holds may close its connections while it is asked."""
    made = {}

    def client(*arguments, **options):
        known = (arguments, tuple(sorted(options.items(), key=lambda option: option[0])))
        if known not in made:
            made[known] = make(*arguments, **options)
        return made[known]

    return client


@pytest.fixture(scope="session")
def openai_at(at):
    """An OpenAI client of a route."""
    import openai

    def client(route: str = "openai", key: str = "sk-one", kind=openai.OpenAI, max_retries: int = 0, **options):
        return kind(base_url=at(route, "/v1"), api_key=key, max_retries=max_retries, timeout=harness.PATIENCE, **options)

    return each_once(client)


@pytest.fixture
def openai_client(openai_at):
    return openai_at()


@pytest.fixture(scope="session")
def anthropic_at(at):
    import anthropic

    def client(
        key: str = "sk-ant-one", kind=anthropic.Anthropic, max_retries: int = 0, route: str = "anthropic", **options
    ):
        return kind(base_url=at(route), api_key=key, max_retries=max_retries, timeout=harness.PATIENCE, **options)

    return each_once(client)


@pytest.fixture
def anthropic_client(anthropic_at):
    return anthropic_at()


@pytest.fixture(scope="session")
def gemini_at(at):
    from google import genai

    def client(key: str = "gemini-one"):
        options = genai.types.HttpOptions(base_url=at("gemini"), api_version="v1beta", timeout=harness.PATIENCE * 1000)
        return genai.Client(api_key=key, http_options=options)

    return each_once(client)
