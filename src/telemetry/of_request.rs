//! Diagnostic lines that name the request they are about.

use std::fmt::{self, Write};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::trace::{self, Request};

/// Lines of another format, with the request that is worked for where they are written. A span of `tracing` for every
/// request would cost each of them what only lines need.
pub(super) struct OfRequest<F> {
    format: F,
    add: fn(&mut String, &Request) -> fmt::Result,
}

impl<F> OfRequest<F> {
    /// Behind lines of text.
    pub(super) fn text(format: F) -> Self {
        Self { format, add: add_text }
    }

    /// Within lines that are objects of JSON.
    pub(super) fn json(format: F) -> Self {
        Self { format, add: add_json }
    }
}

impl<S, N, F> FormatEvent<S, N> for OfRequest<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        trace::request(|request| (self.add)(&mut line, request))?;
        writer.write_str(&line)
    }
}

/// What of a request is known, by name.
fn named(request: &Request) -> impl Iterator<Item = (&'static str, String)> {
    let id = request.id.as_ref().and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
    let trace = request.trace.map(|trace| trace.to_string());
    [("request_id", id), ("trace_id", trace)].into_iter().filter_map(|(name, value)| Some((name, value?)))
}

fn add_text(line: &mut String, request: &Request) -> fmt::Result {
    let end = line.trim_end_matches('\n').len();
    line.truncate(end);
    for (name, value) in named(request) {
        write!(line, " {name}={value}")?;
    }
    line.write_char('\n')
}

fn add_json(line: &mut String, request: &Request) -> fmt::Result {
    let Some(object) = line.trim_end().strip_suffix('}') else { return Ok(()) };
    let (end, mut first) = (object.len(), object.ends_with('{'));
    line.truncate(end);
    for (name, value) in named(request) {
        // Lines of the audit log tell it themselves.
        if line.contains(&format!("\"{name}\":")) {
            continue;
        }
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        write!(line, "{comma}\"{name}\":{}", serde_json::Value::from(value))?;
    }
    line.write_str("}\n")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(add: fn(&mut String, &Request) -> fmt::Result, line: &str, id: Option<&'static str>) -> String {
        let mut line = line.to_owned();
        add(&mut line, &Request { id: id.map(HeaderValue::from_static), trace: None }).expect("a string takes all");
        line
    }

    #[test]
    fn ids_stand_at_the_end() {
        assert_eq!(with(add_text, "WARN a\n", Some("r-1")), "WARN a request_id=r-1\n");
        assert_eq!(with(add_text, "WARN a\n", None), "WARN a\n");
        assert_eq!(with(add_json, "{\"a\":1}\n", Some("r-1")), "{\"a\":1,\"request_id\":\"r-1\"}\n");
        assert_eq!(with(add_json, "{}\n", Some("\"}")), "{\"request_id\":\"\\\"}\"}\n");
        assert_eq!(with(add_json, "{\"request_id\":\"own\"}\n", Some("r-1")), "{\"request_id\":\"own\"}\n");
        assert_eq!(with(add_json, "{\"a\":1}\n", None), "{\"a\":1}\n");
    }
}
