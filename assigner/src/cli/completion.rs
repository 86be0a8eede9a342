//! `leasehold completion`.

use clap::Args;
use clap_complete::Shell;

use super::error::Failure;
use super::output::print_line;

const HELP: &str = "\
Examples:
  source <(leasehold completion bash)
  leasehold completion zsh > \"${fpath[1]}/_leasehold\"
  leasehold completion fish > ~/.config/fish/completions/leasehold.fish";

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_help = HELP)]
pub struct Completion {
    /// Which shell
    shell: Shell,
}

impl Completion {
    pub fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "leasehold", &mut script);
        print_line(String::from_utf8_lossy(&script).trim_end())
    }
}
