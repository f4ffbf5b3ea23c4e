//! `robo completions`: print tab completion for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{exit, render};

/// Where each shell looks.
const WHERE: &str = "\
Install it for the shells you use:
  bash   robo completions bash > ~/.local/share/bash-completion/completions/robo
  zsh    robo completions zsh > \"${fpath[1]}/_robo\"
  fish   robo completions fish > ~/.config/fish/completions/robo.fish
  elvish robo completions elvish >> ~/.config/elvish/rc.elv
A new shell knows it.";

#[derive(Debug, clap::Args)]
#[command(after_help = WHERE)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) async fn run(args: Args) -> exit::Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "robo", &mut script);
    render::print(&String::from_utf8(script)?);
    Ok(exit::Exit::Ok)
}
