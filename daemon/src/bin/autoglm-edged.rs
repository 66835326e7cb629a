//! autoglm-edged
fn main() {}
