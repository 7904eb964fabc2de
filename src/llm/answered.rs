//! Fields of an answer that are about one exchange with a provider, and are not repeated to those who get it later.

/// Whole names.
const NAMES: [&str; 24] = [
    "date",
    "set-cookie",
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "apim-request-id",
    "x-ms-request-id",
    "x-goog-request-id",
    "openai-processing-ms",
    "x-envoy-upstream-service-time",
    "x-envoy-decorator-operation",
    "x-ms-client-request-id",
    "x-ms-region",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "server-timing",
    "alt-svc",
    "cf-ray",
    "cf-cache-status",
    "x-served-by",
    "x-groq-region",
    "nel",
    "report-to",
];

/// Beginnings of names.
const BEGINNINGS: [&str; 5] = ["x-ratelimit-", "anthropic-ratelimit-", "ratelimit", "anthropic-priority-", "x-larder-"];

/// Whether a field of that name, in lower case, says something of one exchange only.
pub fn is_of_one_exchange(name: &str) -> bool {
    NAMES.contains(&name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_and_what_is_not() {
        for name in ["content-type", "openai-version", "openai-organization", "x-robots-tag", "content-length"] {
            assert!(!is_of_one_exchange(name), "{name}");
        }
        for name in ["x-request-id", "x-ratelimit-remaining-tokens", "anthropic-ratelimit-requests-limit", "set-cookie"]
        {
            assert!(is_of_one_exchange(name), "{name}");
        }
    }
}
