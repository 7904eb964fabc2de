//! Forms of several parts (RFC 7578), as sound is sent in: their parts in order, whatever stands between them.

/// A part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// Its fields, as they are written.
    pub fields: &'a [u8],
    /// Its content.
    pub content: &'a [u8],
}

/// Parts of one form. Those of a request to a model are few.
const PARTS_MAX: usize = 256;

impl<'a> Part<'a> {
    /// The name of a part that is short text: what a parameter is.
    pub fn name(&self) -> Option<&'a str> {
        let fields = std::str::from_utf8(self.fields).ok()?;
        let (_, after) = fields.split_once(" name=\"").or_else(|| fields.split_once(";name=\""))?;
        after.split_once('"').map(|(name, _)| name)
    }
}

/// The parts of `content`; `None` where it is not a whole form with the boundary that `content_type` names.
pub fn parts<'a>(content_type: &str, content: &'a [u8]) -> Option<Vec<Part<'a>>> {
    let boundary = boundary(content_type)?;
    let delimiter = format!("--{boundary}");
    let (first, line) = (delimiter.as_bytes(), format!("\r\n{delimiter}"));
    let mut rest = content.strip_prefix(first)?;
    let mut parts = Vec::new();
    while parts.len() < PARTS_MAX {
        if rest.starts_with(b"--") {
            return Some(parts);
        }
        let part = rest.strip_prefix(b"\r\n")?;
        let end = memchr::memmem::find(part, line.as_bytes())?;
        let (part, after) = part.split_at(end);
        let (fields, content) = match part.strip_prefix(b"\r\n") {
            Some(content) => (&part[..0], content),
            None => {
                let end = memchr::memmem::find(part, b"\r\n\r\n")?;
                (&part[..end], &part[end + 4..])
            }
        };
        parts.push(Part { fields, content });
        rest = after.strip_prefix(line.as_bytes())?;
    }
    None
}

fn boundary(content_type: &str) -> Option<&str> {
    let (media, parameters) = content_type.split_once(';')?;
    let boundary = media.trim().eq_ignore_ascii_case("multipart/form-data").then(|| {
        parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
        })
    })??;
    // RFC 2046 section 5.1.1.
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form() {
        let form = b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--x\r\n\
            Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n\x00\r\n--y\r\n--x--\r\n";
        let parts = parts("multipart/form-data; boundary=\"x\"", form).expect("a form");
        let names: Vec<_> = parts.iter().map(|part| (part.name(), part.content)).collect();
        assert_eq!(names, [(Some("model"), &b"whisper-1"[..]), (Some("file"), b"\x00\r\n--y")]);
    }

    #[test]
    fn what_is_none() {
        let parts = |content_type, content: &'static [u8]| parts(content_type, content);
        assert_eq!(parts("application/json", b"{}"), None);
        assert_eq!(parts("multipart/form-data", b"--x--"), None);
        assert_eq!(parts("multipart/form-data; boundary=x", b"--x\r\n\r\ncut off"), None);
        assert_eq!(parts("multipart/form-data; boundary=x", b"--x--"), Some(vec![]));
    }

    proptest! {
        #[test]
        fn prop_nothing_makes_it_panic(content in prop::collection::vec(prop_oneof![Just(b'-'), Just(b'x'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60)) {
            let _ = parts("multipart/form-data; boundary=x", &content);
        }
    }
}
