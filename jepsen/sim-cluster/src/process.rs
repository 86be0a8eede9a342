//! One world in a process of its own: what libraries keep per process begins afresh, so that a seed
//! means the same alone and among many, and a world that hangs or dies ends nothing else.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::world::{self, Options, Report};

/// What the line with the result of a world begins with.
const RESULT: &str = "result ";
/// Name of the program, without the suffix of the platform.
const PROGRAM: &str = "leasehold-sim-cluster";
/// Wall-clock time after which a world is given up, per simulated second of its faults.
const PATIENCE_PER_SECOND: Duration = Duration::from_secs(20);
/// How often a running world is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The program that runs a world: this one, or the one beside it.
fn program() -> io::Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    let is_it = path.file_stem().is_some_and(|stem| stem == PROGRAM);
    if !is_it {
        path.set_file_name(format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX));
    }
    Ok(path)
}

/// Runs the world of `seed` in a process of its own, with a planted bug if one is named (which has
/// an effect only in a build that has them).
///
/// # Errors
///
/// The world could not be judged; the text says why. That is no verdict about the cluster.
pub fn run(seed: u64, options: Options, mutant: Option<&str>) -> Result<Report, String> {
    let program = program().map_err(|error| format!("no program: {error}"))?;
    let mut command = Command::new(program);
    command
        .args(["one", "--seed", &seed.to_string()])
        .args(["--seconds", &(options.faults_for_ms / 1000).to_string()])
        .args(["--step-ms", &options.step_ms.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(mutant) = mutant {
        command.env("LEASEHOLD_MUTANT", mutant);
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("no process: {error}"))?;
    let errors = child.stderr.take();
    let errors = std::thread::spawn(move || errors.map(first_panic).unwrap_or_default());
    let seconds = u32::try_from(options.faults_for_ms / 1000).unwrap_or(u32::MAX);
    let ended = wait(
        &mut child,
        PATIENCE_PER_SECOND.saturating_mul(seconds.max(6)),
    );
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        // What is missing shows as a missing result.
        let _ = out.read_to_string(&mut text);
    }
    ended?;
    match text.lines().find_map(|line| line.strip_prefix(RESULT)) {
        Some(line) => serde_json::from_str(line).map_err(|error| error.to_string()),
        None => {
            let words = errors.join().unwrap_or_default();
            Err(format!("the world's process died: {words}"))
        }
    }
}

/// Runs a world here and prints its result for the process that asked. A panic of the code under
/// test is a result too; one of this package, or of the simulated network, is not.
pub(crate) fn answer(seed: u64, options: Options) {
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("panicked: {panic}");
        let place = panic.location().map_or("", |place| place.file());
        if ["sim-cluster", "turmoil"]
            .iter()
            .any(|own| place.contains(own))
        {
            std::process::exit(101);
        }
        print(&Report {
            seed,
            violation: Some(("no panic".to_owned(), panic.to_string(), 0)),
            simulated_ms: 0,
            events: 0,
            hash: 0,
            coverage: Coverage::default(),
            tail: Vec::new(),
        });
        // Unwinding through a simulated machine panics again and aborts.
        std::process::exit(0);
    }));
    print(&world::run(seed, options));
}

fn print(report: &Report) {
    match serde_json::to_string(report) {
        Ok(line) => println!("{RESULT}{line}"),
        Err(error) => eprintln!("panicked: the report cannot be written: {error}"),
    }
}

/// Waits for a process, and ends it when it takes too long. Its result is one line, which a pipe
/// holds without a reader.
fn wait(child: &mut Child, patience: Duration) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(_)) => return Ok(()),
            Ok(None) if began.elapsed() > patience => {
                let killed = child.kill().and_then(|()| child.wait());
                return Err(match killed {
                    Ok(_) => format!("no end within {} s", patience.as_secs()),
                    Err(error) => format!("it hangs and cannot be ended: {error}"),
                });
            }
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The first panic among what a process writes; reads to the end, so that the process never waits.
fn first_panic(mut errors: impl Read) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is not known.
    let _ = errors.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let panicked = text.lines().skip_while(|line| !line.contains("panicked"));
    panicked.take(2).collect::<Vec<&str>>().join(" ")
}
