//! Images, sound and documents within a body: the same bytes are the same however they are written down, and what is at
//! a URL may be another thing tomorrow.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::path::Path;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// What the text at `path` stands for in a key, where it is content in base64.
pub(super) fn digest(path: &Path<'_>, text: &str) -> Option<String> {
    if !is_content(path) {
        return None;
    }
    let (media, encoded) = match text.strip_prefix("data:") {
        Some(data) => data.split_once(";base64,")?,
        None => ("", text),
    };
    let decoded = decoded(encoded)?;
    Some(format!("{media};{}", blake3::hash(&decoded).to_hex()))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let packed: Vec<u8>;
    let text = if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        packed = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        &packed
    } else {
        text.as_bytes()
    };
    let alphabet = if text.iter().any(|byte| matches!(byte, b'-' | b'_')) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, LENIENT).decode(text).ok()
}

/// Whether a member's name, and that of what it is in, say that it holds content.
fn is_content(path: &Path<'_>) -> bool {
    let within = path.before().and_then(Path::name);
    matches!(
        (within, path.name()),
        (Some("source" | "inlineData" | "inline_data" | "input_audio"), Some("data"))
            | (Some("image_url"), Some("url"))
            | (Some("file"), Some("file_data"))
            | (_, Some("file_data" | "image_url"))
    )
}

/// Whether it is the URL of such content.
pub(super) fn is_url(path: &Path<'_>, text: &str) -> bool {
    let named = matches!(path.name(), Some("url" | "image_url" | "file_url" | "fileUri" | "file_uri"));
    named && (text.starts_with("http://") || text.starts_with("https://") || text.starts_with("gs://"))
}

#[cfg(test)]
mod tests {
    use crate::llm::{canonical, endpoint::Protocol, fields::Fields, json::Value};

    fn form(body: &str) -> (Vec<u8>, bool) {
        let (mut form, fields) = (Vec::new(), Fields::new(Protocol::Openai, &[]));
        canonical::write(&Value::parse(body.as_bytes()).expect("JSON"), &fields, &mut form);
        (form, fields.names_url.get())
    }

    #[test]
    fn bytes_count_and_not_how_they_are_written() {
        let image = |url: &str| form(&format!(r#"{{"image_url":{{"url":"{url}"}}}}"#)).0;
        assert_eq!(image("data:image/png;base64,aGk/Pg=="), image(r"data:image/png;base64,aGk\n/Pg"));
        assert_eq!(image("data:image/png;base64,aGk/Pg=="), image("data:image/png;base64,aGk_Pg"));
        assert_ne!(image("data:image/png;base64,aGk/Pg=="), image("data:image/jpeg;base64,aGk/Pg=="));
        assert_ne!(image("data:image/png;base64,aGk/Pg=="), image("data:image/png;base64,aGk/Pw=="));
        assert_ne!(image("data:image/png;base64,*"), image("data:image/png;base64,**"), "what is no base64 is a text");
        let text = |text: &str| form(&format!(r#"{{"content":"{text}"}}"#)).0;
        assert_ne!(text("aGk/Pg=="), text("aGk/Pg"), "nor is a text base64");
    }

    #[test]
    fn urls() {
        assert!(form(r#"{"image_url":{"url":"https://example.com/a.png"}}"#).1);
        assert!(!form(r#"{"content":"https://example.com/a.png"}"#).1);
    }
}
