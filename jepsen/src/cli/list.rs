//! `leasehold-jepsen list`: what workloads and faults there are.

use crate::{nemesis, workloads};

/// Shows them.
pub fn run() {
    println!("Workloads (--workload):");
    for (name, about) in workloads::list() {
        println!("  {name:<18} {about}");
    }
    println!("\nFaults (--nemesis), by group; a group stands for all its modes:");
    let mut group = "";
    for mode in nemesis::MODES {
        if mode.group != group {
            group = mode.group;
            println!("  {group}");
        }
        let breaks = match mode.safety {
            nemesis::Safety::Kept => "",
            nemesis::Safety::MayBreak => " (beyond what is promised)",
        };
        println!("    {:<20} {}{breaks}", mode.name, mode.about);
    }
}
