//! What a piece of memory takes from the allocator.
//!
//! A tier that is to keep to a number of bytes has to count what the process takes, not what it asks for. The classes
//! are those of mimalloc; other allocators of size classes have the same or finer ones.

/// Pieces from this on come in multiples of [`LARGE_STEP`].
const LARGE: usize = 512 * 1024;

/// What large pieces come in multiples of.
pub const LARGE_STEP: usize = 64 * 1024;

/// Bytes that a piece of memory of `bytes` takes: steps of sixteen up to 128, from there four steps to each doubling.
pub const fn allocated(bytes: usize) -> usize {
    let step = match bytes {
        0..=128 => 16,
        LARGE.. => LARGE_STEP,
        _ => 1 << ((bytes - 1).ilog2() - 2),
    };
    // Nothing that is held comes near the end of the address space.
    bytes.div_ceil(step).saturating_mul(step)
}

/// Bytes that an `Arc` of a value of `bytes` takes.
pub const fn shared(bytes: usize) -> usize {
    allocated(2 * size_of::<usize>() + bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let table = [
            (0, 0),
            (1, 16),
            (16, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (1024, 1024),
            (1025, 1280),
            (LARGE - 1, LARGE),
            (LARGE, LARGE),
            (5 << 20, 5 << 20),
            ((5 << 20) + 1, (5 << 20) + LARGE_STEP),
        ];
        for (bytes, expected) in table {
            assert_eq!(allocated(bytes), expected, "{bytes}");
        }
        assert_eq!(shared(16), 32);
    }
}
