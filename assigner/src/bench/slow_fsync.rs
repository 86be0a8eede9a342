//! A library to preload that makes every fsync two milliseconds slower.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

const SOURCE: &str = r"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static void pause_2ms(void) {
  struct timespec t = {0, 2000000};
  nanosleep(&t, 0);
}

int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, \x22fsync\x22);
  pause_2ms();
  return real(fd);
}

int fdatasync(int fd) {
  static int (*real)(int);
  if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, \x22fdatasync\x22);
  pause_2ms();
  return real(fd);
}
";

/// Compiles the library with the system's C compiler. Returns its path.
pub fn build(dir: &Path) -> anyhow::Result<PathBuf> {
    let (source, library) = (dir.join("slow_fsync.c"), dir.join("libslow_fsync.so"));
    std::fs::write(&source, SOURCE.replace("\\x22", "\""))?;
    let run = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .output();
    let output = run.context("no C compiler (`cc`) was found")?;
    ensure!(
        output.status.success(),
        "cc: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    library.canonicalize().context("the compiled library")
}
