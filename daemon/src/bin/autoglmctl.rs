//! autoglmctl
fn main() {}
