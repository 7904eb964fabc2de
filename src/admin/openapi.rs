//! `/openapi.json`, `/docs` and `/`: what the admin plane offers, for programs, browsers and people with curl.
//!
//! All three are made from the one document that is gathered from the handlers. They say nothing about this node, and
//! need no token. The page is plain HTML made here: no script, nothing fetched from anywhere.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#8882;padding:.6rem;overflow-x:auto}\
    section{border-top:1px solid #8886;padding-top:.6rem}h3 b{display:inline-block;min-width:4.5rem}\
    td{padding:.1rem 1rem .1rem 0;vertical-align:top}:root{color-scheme:light dark}";

const PAGE_FIELDS: [(HeaderName, HeaderValue); 2] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ),
];

/// The frame of the document; the paths come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(title = "Larder admin plane", description = "Purge, warm, look, explain."),
    modifiers(&TokenScheme),
    tags(
        (name = "purge", description = "Make what is stored unusable or stale"),
        (name = "purge (compatible)", description = "The same, as other caches' clients ask for it"),
        (name = "warm", description = "Fetch ahead of clients"),
        (name = "archive", description = "Carry what is stored to another gateway, or keep it"),
        (name = "operate", description = "Change what the gateway does"),
        (name = "disk", description = "Look after the disk tier"),
        (name = "look", description = "Figures and reasons"),
        (name = "health", description = "For probes"),
    )
)]
pub(super) struct Document;

struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("token", scheme);
    }
}

/// One operation, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) summary: String,
}

/// All operations, by path.
pub(super) fn operations(document: &Value) -> Vec<Operation> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let each = paths.flat_map(|(path, methods)| {
        methods.as_object().into_iter().flatten().map(move |(method, operation)| Operation {
            method: method.to_uppercase(),
            path: path.clone(),
            summary: operation["summary"].as_str().unwrap_or_default().to_owned(),
        })
    });
    each.collect()
}

/// The routes of the document itself.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(document: &Value) -> Router<S> {
    let (text, page) = (document.to_string(), page(document));
    let index = Arc::new(Index::new(&operations(document)));
    Router::new()
        .route("/openapi.json", get(async move || ([(header::CONTENT_TYPE, "application/json")], text.clone())))
        .route("/docs", get(async move || (PAGE_FIELDS, page.clone())))
        .route("/", get(async move |headers: HeaderMap| index.answer(&headers)))
}

/// `GET /`: what there is, as text, or as JSON where that is asked for.
struct Index {
    text: String,
    json: String,
}

impl Index {
    fn new(operations: &[Operation]) -> Self {
        let mut text =
            String::from("Larder admin plane. /console shows it, /docs says more, /openapi.json says all.\n\n");
        for Operation { method, path, summary } in operations {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{method:<7}{path:<42}{summary}");
        }
        let listed = operations
            .iter()
            .map(|operation| json!({"method": operation.method, "path": operation.path, "summary": operation.summary}));
        let json = json!({"endpoints": listed.collect::<Vec<_>>(), "openapi": "/openapi.json", "docs": "/docs",
            "console": "/console"});
        Self { text, json: json.to_string() }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if accepts.contains("application/json") {
            ([(header::CONTENT_TYPE, "application/json")], self.json.clone()).into_response()
        } else {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], self.text.clone()).into_response()
        }
    }
}

/// The document as a page.
fn page(document: &Value) -> String {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>Larder admin plane</title><style>{STYLE}</style><h1>Larder admin plane</h1>\
         <p>Calls carry <code>Authorization: Bearer &lt;token&gt;</code> once a token is configured. \
         Machines read <a href=/openapi.json>openapi.json</a>; <a href=/console>the console</a> shows what \
         the gateway is doing.</p>"
    );
    let paths: Vec<(&String, &Value)> = document["paths"].as_object().into_iter().flatten().collect();
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = text(&tag["name"]);
        let _ = write!(html, "<h2>{}</h2><p>{}</p>", escaped(name), escaped(text(&tag["description"])));
        for (path, methods) in &paths {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                if operation["tags"][0].as_str() == Some(name) {
                    write_operation(&mut html, &method.to_uppercase(), path, operation, document);
                }
            }
        }
    }
    html
}

fn write_operation(html: &mut String, method: &str, path: &str, operation: &Value, document: &Value) {
    let _ = write!(html, "<section><h3><b>{method}</b> <code>{}</code></h3>", escaped(path));
    for words in [&operation["summary"], &operation["description"]] {
        let _ = write!(html, "<p>{}</p>", escaped(text(words)));
    }
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let parameters: Vec<_> = parameters.map(|each| (text(&each["name"]), text(&each["description"]))).collect();
    write_table(html, "Parameters", &parameters);
    write_table(html, "Content (JSON)", &fields(&operation["requestBody"], document));
    let answers = operation["responses"].as_object().into_iter().flatten();
    let answers: Vec<_> = answers.map(|(status, answer)| (status.as_str(), text(&answer["description"]))).collect();
    write_table(html, "Answers", &answers);
    html.push_str("</section>");
}

fn write_table(html: &mut String, title: &str, rows: &[(&str, &str)]) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(html, "<h4>{title}</h4><table>");
    for (name, meaning) in rows {
        let _ = write!(html, "<tr><td><code>{}</code><td>{}", escaped(name), escaped(meaning));
    }
    html.push_str("</table>");
}

/// The fields of a request's content, with their meaning.
fn fields<'a>(body: &'a Value, document: &'a Value) -> Vec<(&'a str, &'a str)> {
    let schema = &body["content"]["application/json"]["schema"];
    let one_of = schema["oneOf"].as_array().into_iter().flatten();
    let reference = std::iter::once(schema).chain(one_of).find_map(|schema| schema["$ref"].as_str());
    let Some(name) = reference.and_then(|reference| reference.rsplit('/').next()) else { return Vec::new() };
    let properties = document["components"]["schemas"][name]["properties"].as_object().into_iter().flatten();
    properties.map(|(field, schema)| (field.as_str(), text(&schema["description"]))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_escaped_and_fetches_nothing() {
        let document = json!({
            "tags": [{"name": "t", "description": "<b>"}],
            "paths": {"/a": {"get": {"tags": ["t"], "summary": "\"x\" & y", "responses": {"200": {}}}}},
        });
        let html = page(&document);
        assert!(html.contains("&lt;b&gt;") && html.contains("&quot;x&quot; &amp; y"), "{html}");
        assert!(!html.contains("<script") && !html.contains("src=") && !html.contains("://"), "{html}");
    }
}
