//! Parses the command line, calls the verb, maps the result to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    robo::cli::main()
}
