//! Notes the revision of the sources in the program, so that a run tells what was run and not
//! where. Without git, or outside of a clone, there is none, and that is no error.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src");
    // A commit changes the second, a checkout both. One that is not there is not watched: it
    // would count as changed at every build.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    if let Some(revision) = git(&["describe", "--always", "--dirty", "--abbrev=12"]) {
        println!("cargo::rustc-env=JEPSEN_REVISION={revision}");
    }
}

/// The one line that git says, if it does.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(args)
        // Looking must not take the lock that somebody's commit needs.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
