//! The `flowgate` binary: the agent and its command line.
fn main() {}
