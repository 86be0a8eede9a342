//! The checked-in protobuf code is what the schema gives; `LEASEHOLD_REGENERATE=1` rewrites it.

use std::path::Path;

const FILES: [&str; 6] = ["types", "session", "watch", "peer", "admin", "record"];

/// Fields that may be large: kept as slices of the receive buffer instead of copies.
const LARGE: [&str; 5] = [
    ".leasehold.v1.Renewed.view_update",
    ".leasehold.v1.Pushed.view_update",
    ".leasehold.v1.WatchReply.update",
    ".leasehold.v1.SaveSnapshotReply.chunk",
    ".leasehold.v1.StateFrame.records",
];

#[test]
fn the_generated_code_matches_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a temporary directory");
    let schema = root.join("proto");
    let files = FILES.map(|name| schema.join(format!("leasehold/v1/{name}.proto")));
    let descriptors = protox::compile(files, [&schema]).expect("the schema compiles");
    LARGE
        .into_iter()
        .fold(tonic_prost_build::configure(), |builder, field| {
            builder.bytes(field)
        })
        .skip_debug([".leasehold.v1.SessionSecret"])
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("code generation");
    let fresh = std::fs::read_to_string(out.path().join("leasehold.v1.rs")).expect("output");

    let checked_in = root.join("src/wire/gen/leasehold.v1.rs");
    if std::env::var_os("LEASEHOLD_REGENERATE").is_some() {
        std::fs::write(&checked_in, &fresh).expect("write the generated code");
    }
    let present = std::fs::read_to_string(&checked_in).unwrap_or_default();
    assert!(
        present == fresh,
        "{} is stale: run LEASEHOLD_REGENERATE=1 cargo test -p leasehold-proto --test generated_code_is_current",
        checked_in.display()
    );
}
