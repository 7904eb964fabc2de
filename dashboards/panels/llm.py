"""Calls to language models: what was paid, and what was not."""

from .grafana import BAD, FAIR, GOOD, NODE, ROUTE, dashboard, now, series, stat, steps, table, total

COST, TOKENS, CALLS, TIME = (
    "larder_llm_cost_dollars_total",
    "larder_llm_tokens_total",
    "larder_llm_calls_total",
    "larder_llm_saved_seconds_total",
)


def gained(metric: str, labels: str = "", by: str = "") -> str:
    """In the time that is shown."""
    where = f"{ROUTE},{labels}" if labels else ROUTE
    return f"sum{f' by ({by})' if by else ''} (increase({metric}{{{where}}}[$__range]))"


def build() -> dict:
    return dashboard(
        "larder-llm",
        "Tokens, money and time that calls to language models cost, and did not cost.",
        [("In the time shown", of_sums()), ("Over time", of_rates()), ("Answers to similar calls", of_similar())],
    )


def of_sums() -> list[dict]:
    saved, billed = 'account="saved"', 'account="billed"'
    return [
        stat(
            "Saved",
            gained(COST, saved),
            "currencyUSD",
            "Price of what was answered from here, where it is known.",
            steps(GOOD),
        ),
        stat(
            "Billed",
            gained(COST, billed),
            "currencyUSD",
            "Price of what providers answered. Their bill is what counts.",
        ),
        stat(
            "Calls not paid for",
            f"{gained(CALLS, saved)} / {gained(CALLS)}",
            "percentunit",
            """Share of calls that were answered from here. Low where much should repeat: `larder explain -d` and
            `x-larder-explain` say where a call differs from the most similar one.""",
            steps(BAD, (0.1, FAIR), (0.3, GOOD)),
        ),
        stat("Tokens saved", gained(TOKENS, saved), "short", "Of requests and answers."),
        stat("Time saved", gained(TIME), "s", "What providers took for what was answered from here."),
        stat(
            "Answers not stored",
            f"{gained('larder_llm_unstored_total')} or vector(0)",
            "short",
            """Whole answers that did not end as they should: cut short, filtered, an error within. Not repeated to
            others.""",
        ),
        table(
            "By model",
            [(gained(COST, by="model, account"), "")],
            "currencyUSD",
            "Dollars by model and account. A model without a line has no known price: `providers.prices`.",
        ),
        table(
            "Calls by model",
            [(gained(CALLS, by="model, account, form"), "")],
            "short",
            "Calls by model, account and form.",
        ),
        table(
            "By tenant",
            [(gained("larder_llm_tenant_cost_dollars_total", by="tenant, account"), "")],
            "currencyUSD",
            "Dollars by tenant and account, where routes ask who it is: what a team is to be charged is `billed`.",
        ),
        table(
            "Tokens by tenant",
            [(gained("larder_llm_tenant_tokens_total", by="tenant, kind, account"), "")],
            "short",
            "Tokens by tenant, kind and account.",
        ),
    ]


def of_rates() -> list[dict]:
    return [
        series(
            "Calls",
            [(total(CALLS, by="account", where=ROUTE), "{{account}}")],
            "reqps",
            "Answered from here (`saved`) and by providers (`billed`).",
            stack=True,
        ),
        series(
            "Streams and whole answers",
            [(total(CALLS, by="form, account", where=ROUTE), "{{form}} {{account}}")],
            "reqps",
            "Streams are stored once they have ended well, and repeated event by event.",
            stack=True,
        ),
        series(
            "Tokens",
            [(total(TOKENS, by="kind, account", where=ROUTE), "{{kind}} {{account}}")],
            "short",
            """A second, by kind: of requests (`input`), of requests in the provider's own cache (`cached`), of
            answers (`output`).""",
            stack=True,
        ),
        series(
            "Dollars an hour, by model",
            [(f"3600 * {total(COST, by='model, account', where=ROUTE)}", "{{model}} {{account}}")],
            "currencyUSD",
            """A model whose `billed` rises without `saved`: new prompts, or a field in them that changes with every
            call.""",
        ),
        series(
            "Time saved, by model",
            [(total(TIME, by="model", where=ROUTE), "{{model}}")],
            "s",
            "Seconds of waiting a second that clients were spared.",
        ),
        series(
            "Not stored, by reason",
            [(total("larder_llm_unstored_total", by="reason", where=ROUTE) + " or vector(0)", "{{reason}}")],
            "cps",
            "Whole answers of models that were not stored.",
        ),
    ]


def of_similar() -> list[dict]:
    return [
        series(
            "Similar calls",
            [(total("larder_llm_semantic_total", by="result", where=ROUTE), "{{result}}")],
            "cps",
            """Where `llm.semantic` is on: `shadow` and `hit` are answers to calls that say the same in other words;
            `differed` are those the provider would have answered otherwise.""",
        ),
        series(
            "Vectors, and whether it has ended",
            [(f"sum ({now('larder_llm_semantic_vectors')})", "vectors")]
            + [(f"sum (larder_llm_semantic_off{{{NODE}}})", "routes where it has ended")],
            "short",
            "It ends by itself where too many answers differ (`llm.semantic.error_rate_max`), until the next start.",
        ),
    ]
