//! Spans as OTLP's JSON: protobuf's mapping, but that ids are hexadecimal and not base64, and enumerations are numbers.
//! Integers of 64 bits are texts.

use serde_json::{Value as Json, json};

use crate::telemetry::trace::{Ended, Value};

/// The status of a span that failed.
const STATUS_ERROR: u8 = 2;

/// An `ExportTraceServiceRequest`.
pub(super) fn request(service: &str, spans: &[Ended]) -> Json {
    let version = env!("CARGO_PKG_VERSION");
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    json!({"resourceSpans": [{
        "resource": {"attributes": [text("service.name", service), text("service.version", version)]},
        "scopeSpans": [{
            "scope": {"name": "larder", "version": version},
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]})
}

fn span(span: &Ended) -> Json {
    let mut told = json!({
        "traceId": span.own.trace.to_string(),
        "spanId": span.own.span.to_string(),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": span.start.to_string(),
        "endTimeUnixNano": span.end.to_string(),
        "attributes": span.attributes.iter().map(|(key, value)| attribute(key, value)).collect::<Vec<_>>(),
    });
    if let Some(parent) = span.parent {
        told["parentSpanId"] = parent.to_string().into();
    }
    if let Some(link) = span.link {
        told["links"] = json!([{"traceId": link.trace.to_string(), "spanId": link.span.to_string()}]);
    }
    if span.failed {
        told["status"] = json!({"code": STATUS_ERROR});
    }
    told
}

fn attribute(key: &str, value: &Value) -> Json {
    let value = match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::Flag(flag) => json!({"boolValue": flag}),
    };
    json!({"key": key, "value": value})
}

/// How many spans an answer says were not taken, though the rest was.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let answer: Json = serde_json::from_slice(answer).unwrap_or_default();
    let rejected = &answer["partialSuccess"]["rejectedSpans"];
    rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::{Kind, Parent};

    #[test]
    fn as_the_protocol_writes_it() {
        let parse = |text: &str| Parent::parse(text.as_bytes()).expect("a traceparent");
        let own = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let link = parse("00-11111111111111111111111111111111-2222222222222222-01");
        let ended = Ended {
            own,
            parent: Some(link.span),
            name: "origin",
            kind: Kind::Client,
            start: 1_544_712_660_000_000_000,
            end: 1_544_712_661_000_000_000,
            attributes: vec![("http.response.status_code", Value::Number(200)), ("larder.route", "shop".into())],
            link: Some(link),
            failed: true,
        };
        let request = request("larder", &[ended]);
        let span = json!({
            "traceId": "0af7651916cd43dd8448eb211c80319c",
            "spanId": "b7ad6b7169203331",
            "parentSpanId": "2222222222222222",
            "name": "origin",
            "kind": 3,
            "startTimeUnixNano": "1544712660000000000",
            "endTimeUnixNano": "1544712661000000000",
            "attributes": [
                {"key": "http.response.status_code", "value": {"intValue": "200"}},
                {"key": "larder.route", "value": {"stringValue": "shop"}},
            ],
            "links": [{"traceId": "11111111111111111111111111111111", "spanId": "2222222222222222"}],
            "status": {"code": 2},
        });
        assert_eq!(request["resourceSpans"][0]["scopeSpans"][0]["spans"], json!([span]));
    }

    #[test]
    fn what_was_not_taken() {
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":"3"}}"#), 3);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":3}}"#), 3);
        assert_eq!((rejected(b"{}"), rejected(b""), rejected(b"<html>")), (0, 0, 0));
    }
}
