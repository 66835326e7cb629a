//! `autoglmctl`: see `autoglm_edge::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    autoglm_edge::cli::main()
}
