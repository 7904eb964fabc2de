//! A request's head as it is written: origin-form, `Host`, explicit framing (RFC 9112, 3 and 6).

use bytes::{Bytes, BytesMut};
use http::{
    Method,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING},
};

use super::super::{
    request::{Load, RequestBody, Template},
    upstream::Base,
};

/// What a field takes at the least beside its name and its value.
const LINE: usize = 4;
/// What most requests take beside their fields and their target.
const REST: usize = 64;

/// The head of a request, and its content; `None` where that is still to come.
pub(in crate::origin) fn encode(load: &Load, template: &Template, base: &Base) -> Option<(Bytes, Bytes)> {
    let content = match &load.body {
        RequestBody::Empty => Bytes::new(),
        RequestBody::Bytes(bytes) => bytes.clone(),
        RequestBody::Stream(_) => return None,
    };
    let fields: usize = load.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + LINE).sum();
    let path = &template.path_and_query;
    let host = template.host.as_ref().unwrap_or(&base.host);
    let mut out = BytesMut::with_capacity(fields + path.as_str().len() + host.len() + REST);
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    put(load.method.as_str().as_bytes());
    put(b" ");
    base.with_target(path, &mut put);
    put(b" HTTP/1.1\r\nhost: ");
    put(host.as_bytes());
    put(b"\r\n");
    for (name, value) in &load.headers {
        // What the framing says, and what is about this connection, is said below.
        if ![HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            put(name.as_str().as_bytes());
            put(b": ");
            put(value.as_bytes());
            put(b"\r\n");
        }
    }
    if load.headers.contains_key(TE) {
        put(b"connection: te\r\n");
    }
    if !content.is_empty() || matches!(load.method, Method::POST | Method::PUT | Method::PATCH) {
        put(b"content-length: ");
        put(itoa::Buffer::new().format(content.len()).as_bytes());
        put(b"\r\n");
    }
    put(b"\r\n");
    Some((out.freeze(), content))
}
