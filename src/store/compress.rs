//! zstd, where it pays: by type and size, and only if it saves a tenth.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::object::head::Head;

/// Longest content that is compressed: a range of it decompresses all of it.
pub(super) const COMPRESSED_MAX: u64 = 1 << 20;

/// Shorter content takes a block of the disk either way.
const COMPRESSED_MIN: u64 = 1 << 10;

/// A third of the time of level 3 for a few per cent of size: the writer has one thread.
const LEVEL: i32 = 1;

/// Whether content of that length under that head is worth trying.
pub(super) fn may_pay(head: &Head, length: u64) -> bool {
    (COMPRESSED_MIN..=COMPRESSED_MAX).contains(&length)
        && !head.contains(&CONTENT_ENCODING)
        && head.get(&CONTENT_TYPE).is_some_and(is_text)
}

/// `content`, compressed; `None` where that saves too little.
pub(super) fn compress(content: &[u8]) -> Option<Vec<u8>> {
    let compressed = zstd::bulk::compress(content, LEVEL).ok()?;
    (compressed.len() <= content.len() / 10 * 9).then_some(compressed)
}

/// Content of exactly that length; `None` where it is not.
pub(super) fn decompress(compressed: &[u8], length: usize) -> Option<Vec<u8>> {
    let content = zstd::bulk::decompress(compressed, length).ok()?;
    (content.len() == length).then_some(content)
}

fn is_text(value: &[u8]) -> bool {
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let Some((kind, subtype)) = std::str::from_utf8(&essence).ok().and_then(|essence| essence.split_once('/')) else {
        return false;
    };
    let suffixed = ["+json", "+xml", "+text", "+yaml"].iter().any(|suffix| subtype.ends_with(suffix));
    let named = match kind {
        "text" => true,
        "application" => matches!(
            subtype,
            "json"
                | "x-ndjson"
                | "jsonl"
                | "javascript"
                | "x-javascript"
                | "ecmascript"
                | "xml"
                | "yaml"
                | "toml"
                | "wasm"
                | "graphql"
                | "sql"
                | "rtf"
                | "x-www-form-urlencoded"
                | "vnd.ms-fontobject"
                | "manifest"
        ),
        "image" => matches!(subtype, "bmp" | "x-icon" | "vnd.microsoft.icon"),
        "font" => matches!(subtype, "ttf" | "otf"),
        _ => false,
    };
    suffixed || named
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn by_type_and_size() {
        let pays = |lines: &[(&'static str, &'static str)], length| {
            let line = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let fields = lines.iter().map(line).collect::<HeaderMap>();
            may_pay(&Head::new(StatusCode::OK, &fields), length)
        };
        for kind in ["text/html; charset=utf-8", "Application/JSON", "image/svg+xml", "application/wasm"] {
            assert!(pays(&[("content-type", kind)], 5000), "{kind}");
        }
        for kind in ["image/jpeg", "video/mp4", "application/octet-stream", "application/zip", "", "text"] {
            assert!(!pays(&[("content-type", kind)], 5000), "{kind}");
        }
        assert!(!pays(&[], 5000));
        assert!(!pays(&[("content-type", "text/html"), ("content-encoding", "gzip")], 5000));
        assert!(!pays(&[("content-type", "text/html")], 1023));
        assert!(!pays(&[("content-type", "text/html")], COMPRESSED_MAX + 1));
    }

    #[test]
    fn kept_if_it_saves_a_tenth() {
        let text = b"the same again ".repeat(300);
        let compressed = compress(&text).expect("repeats itself");
        assert_eq!(decompress(&compressed, text.len()).as_deref(), Some(&text[..]));
        assert_eq!(decompress(&compressed, text.len() - 1), None);
        assert_eq!(decompress(&compressed, text.len() + 1), None);
        assert_eq!(decompress(b"garbage", 100), None);
        let mut random = vec![0; 4096];
        getrandom::fill(&mut random).expect("randomness");
        assert_eq!(compress(&random), None);
    }
}
