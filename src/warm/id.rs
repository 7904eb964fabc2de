//! Names of jobs: short enough to type, and not the same after a restart.

/// A name no other job of this node is likely to have.
pub(super) fn fresh() -> String {
    let mut bytes = [0_u8; 5];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
