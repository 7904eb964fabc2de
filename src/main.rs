//! The `larder` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A stored miss makes some fifty allocations, from sixteen bytes to three kilobytes; against the C library's allocator
/// this one takes a tenth off what it costs (`load-tests/run.py --scenario miss-1k`). A hit costs the same with either. Without huge pages:
/// with them, an idle gateway is ten megabytes larger and its first thousand connections seventy.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    larder::cli::run()
}
