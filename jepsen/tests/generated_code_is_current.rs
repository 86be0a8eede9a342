//! The checked-in code of the attacked application is what its schema gives;
//! `LEASEHOLD_REGENERATE=1` rewrites it.

use std::path::Path;

#[test]
fn the_generated_code_matches_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a temporary directory");
    let schema = root.join("proto");
    let descriptors =
        protox::compile([schema.join("jepsen.proto")], [&schema]).expect("the schema compiles");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("code generation");
    let fresh = std::fs::read_to_string(out.path().join("leasehold.jepsen.v1.rs")).expect("output");
    let checked_in = root.join("src/gen/leasehold.jepsen.v1.rs");
    if std::env::var_os("LEASEHOLD_REGENERATE").is_some() {
        std::fs::write(&checked_in, &fresh).expect("write the generated code");
    }
    let present = std::fs::read_to_string(&checked_in).unwrap_or_default();
    assert!(
        present == fresh,
        "{} is stale: run this test with LEASEHOLD_REGENERATE=1",
        checked_in.display()
    );
}
