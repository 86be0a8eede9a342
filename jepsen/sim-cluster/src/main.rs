//! The program `leasehold-sim-cluster`.

fn main() -> std::process::ExitCode {
    leasehold_sim_cluster::cli::main()
}
