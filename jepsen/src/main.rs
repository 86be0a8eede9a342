//! The program `leasehold-jepsen`.

fn main() {}
