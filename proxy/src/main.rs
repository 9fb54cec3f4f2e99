//! The command `ringway`; everything it does is in the library.
#![forbid(unsafe_code)]

use std::io::{stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use ringway::cli::{self, Cli};
use ringway::plugin::inspect::Offer;
use ringway::run;

fn main() -> ExitCode {
    let code = cli::execute(Cli::parse(), &Offer::V1_0, &mut stdout(), &mut stderr(), run::run);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
