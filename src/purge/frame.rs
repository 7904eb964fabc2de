//! Frames of the write-ahead file, made such that a write cut short and damage are told apart.
//!
//! ```text
//!  mark 4 │ length 4 │ check of both 4 │ check of the payload 8 │ payload … │ end 1
//! ```
//!
//! A frame that was acknowledged is complete, so a torn one at the end of the file was not and may be dropped. Anything
//! else that does not check out may have been acknowledged. The length has a check of its own, or a flipped bit in it
//! would look like a torn frame; the end is not zero, so the zeros some file systems leave after a power failure never
//! look like the rest of one.

use memchr::memmem;

use super::wire::{Fields, Put, checksum};

const MARK: [u8; 4] = *b"\xf1LPR";
const END: u8 = 0x55;
const HEADER: usize = 20;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// The payload of a good frame, and what follows it.
    Frame(&'a [u8], &'a [u8]),
    /// Nothing: the file ends here.
    End,
    /// A frame that was not written to its end.
    Torn,
    /// Something else.
    Damaged,
}

/// Appends a frame around `payload`.
pub(super) fn push(out: &mut Vec<u8>, payload: &[u8]) {
    let start = out.len();
    out.put(&MARK);
    out.put_count(payload.len());
    let check: [u8; 4] = checksum(&[&out[start..]]);
    out.put(&check);
    out.put(&checksum::<8>(&[payload]));
    out.put(payload);
    out.push(END);
}

/// What `bytes` begin with.
pub(super) fn next(bytes: &[u8]) -> Next<'_> {
    if bytes.is_empty() {
        return Next::End;
    }
    if let Some((payload, rest)) = whole(bytes) {
        return Next::Frame(payload, rest);
    }
    let written = bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0).count();
    if written < HEADER {
        return Next::Torn;
    }
    match header(bytes) {
        Some((length, _)) if written < HEADER + length + 1 && !contains_frame(&bytes[1..]) => Next::Torn,
        _ => Next::Damaged,
    }
}

fn whole(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, check) = header(bytes)?;
    let mut fields = Fields(bytes);
    fields.bytes(HEADER)?;
    let payload = fields.bytes(length)?;
    let end = fields.u8()?;
    (end == END && checksum(&[payload]) == check).then_some((payload, fields.0))
}

fn header(bytes: &[u8]) -> Option<(usize, [u8; 8])> {
    let mut fields = Fields(bytes);
    let start = fields.bytes(8)?;
    let length = u32::from_le_bytes(start[4..].try_into().ok()?);
    let sound = start.starts_with(&MARK) && fields.array()? == checksum::<4>(&[start]);
    sound.then_some((usize::try_from(length).ok()?, fields.array()?))
}

fn contains_frame(bytes: &[u8]) -> bool {
    memmem::find_iter(bytes, &MARK).any(|at| whole(&bytes[at..]).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        payloads.iter().for_each(|payload| push(&mut out, payload));
        out
    }

    #[test]
    fn one_after_the_other() {
        let bytes = frames(&[b"one", b""]);
        let Next::Frame(b"one", rest) = next(&bytes) else { panic!("{:?}", next(&bytes)) };
        let Next::Frame(b"", rest) = next(rest) else { panic!("{:?}", next(rest)) };
        assert_eq!(next(rest), Next::End);
    }

    #[test]
    fn cut_short_is_torn_with_or_without_zeros_after_it() {
        let bytes = frames(&[b"payload"]);
        for cut in 1..bytes.len() {
            assert_eq!(next(&bytes[..cut]), Next::Torn, "cut at {cut}");
            let mut zeroed = bytes.clone();
            zeroed[cut..].fill(0);
            zeroed.extend([0; 4096]);
            assert_eq!(next(&zeroed), Next::Torn, "zeros from {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_is_damage() {
        let bytes = frames(&[b"payload"]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(next(&flipped), Next::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn a_hole_before_a_good_frame_is_damage() {
        let mut bytes = frames(&[&[7; 200]]);
        bytes.truncate(60);
        bytes.extend(frames(&[b"x"]));
        assert_eq!(next(&bytes), Next::Damaged);
    }
}
