//! Where a body ends, and what of the bytes on the connection belongs to it.

/// How far a body has been read.
pub(crate) enum Body {
    /// So many bytes are to come.
    Sized(u64),
    /// Chunked.
    Chunked(Chunk),
    /// Everything until the connection closes.
    UntilClose,
}

/// The part of a chunked body the next byte belongs to.
pub(crate) enum Chunk {
    /// The size line, with what is known of the size; `false` once an extension has begun.
    Size(u64, bool),
    /// So many bytes of content.
    Content(u64),
    /// The line end behind a content.
    Gap,
    /// Trailer fields; `true` at the start of a line.
    Trailer(bool),
}

impl Body {
    /// Reads from the front of `bytes`: how many were used, and whether the body is complete. Content goes to `each`.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> (usize, bool) {
        match self {
            Body::Sized(left) => {
                let used = take(left, bytes, &mut each);
                (used, *left == 0)
            }
            Body::UntilClose => {
                each(bytes);
                (bytes.len(), false)
            }
            Body::Chunked(chunk) => {
                let mut used = 0;
                while used < bytes.len() {
                    if let Chunk::Content(left) = chunk {
                        used += take(left, &bytes[used..], &mut each);
                        if *left == 0 {
                            *chunk = Chunk::Gap;
                        }
                        continue;
                    }
                    let done = chunk.step(bytes[used]);
                    used += 1;
                    if done {
                        return (used, true);
                    }
                }
                (used, false)
            }
        }
    }
}

impl Chunk {
    /// One byte of framing; `true` for the last one of the body.
    fn step(&mut self, byte: u8) -> bool {
        *self = match (&*self, byte) {
            (Chunk::Size(0, _), b'\n') => Chunk::Trailer(true),
            (Chunk::Size(size, _), b'\n') => Chunk::Content(*size),
            (Chunk::Size(size, true), digit) if digit.is_ascii_hexdigit() => {
                let digit = char::from(digit).to_digit(16).unwrap_or_default();
                Chunk::Size(size.wrapping_mul(16) + u64::from(digit), true)
            }
            (Chunk::Size(size, _), _) => Chunk::Size(*size, false),
            (Chunk::Gap, b'\n') => Chunk::Size(0, true),
            (Chunk::Gap, _) => Chunk::Gap,
            (Chunk::Trailer(true), b'\n') => return true,
            (Chunk::Trailer(start), b'\r') => Chunk::Trailer(*start),
            (Chunk::Trailer(_), other) => Chunk::Trailer(other == b'\n'),
            (Chunk::Content(left), _) => Chunk::Content(*left),
        };
        false
    }
}

fn take(left: &mut u64, bytes: &[u8], each: &mut impl FnMut(&[u8])) -> usize {
    let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    each(&bytes[..used]);
    *left -= used as u64;
    used
}
