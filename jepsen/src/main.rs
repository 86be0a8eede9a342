//! The program `leasehold-jepsen`.

fn main() -> std::process::ExitCode {
    leasehold_jepsen::cli::main()
}
