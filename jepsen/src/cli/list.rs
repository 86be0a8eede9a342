//! `leasehold-jepsen list`: what workloads and faults there are.

use super::show::say;
use crate::{nemesis, workloads};

/// Shows them.
pub fn run() {
    say!("Workloads (--workload):");
    for (name, about) in workloads::list() {
        say!("  {name:<18} {about}");
    }
    say!("\nFaults (--nemesis), by group; a group stands for all its modes:");
    let mut group = "";
    for mode in nemesis::MODES {
        if mode.group != group {
            group = mode.group;
            say!("  {group}");
        }
        let breaks = match mode.safety {
            nemesis::Safety::Kept => "",
            nemesis::Safety::MayBreak => " (beyond what is promised)",
        };
        say!("    {:<20} {}{breaks}", mode.name, mode.about);
    }
}
