//! The real program: started, asked, ended.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything takes that a test waits for, also on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

const PROGRAM: &str = env!("CARGO_BIN_EXE_leasehold");

/// The program without anything from the environment of whoever runs the tests.
pub fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEASEHOLD_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Said {
    /// It ended well; what it said.
    #[track_caller]
    pub fn well(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// It failed with this code, and its one line holds these words.
    #[track_caller]
    pub fn failed(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing: {self:?}");
        }
        if !self.err.contains("For more information, try '--help'") {
            assert_eq!(self.err.lines().count(), 1, "one line: {self:?}");
        }
    }
}

/// Runs a command to its end.
pub fn run(words: &[&str]) -> Said {
    program().args(words).output().expect("runs").into()
}

/// A command line as one text, without quoting.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// A running `dev` or `serve`.
pub struct Running {
    child: Child,
    _stdout: Option<BufReader<ChildStdout>>,
    pub endpoint: String,
    pub http: String,
    pub data: Option<PathBuf>,
}

impl Running {
    /// `leasehold dev` on free ports, ready.
    pub fn dev(more: &[&str]) -> Self {
        let mut command = program();
        command
            .args([
                "dev",
                "--listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
            ])
            .args(more);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut text = String::new();
        while !text.contains("Ctrl-C ends it.") {
            assert_ne!(
                stdout.read_line(&mut text).expect("reads"),
                0,
                "ended early: {text}"
            );
        }
        let behind = |mark: &str, end: char| {
            let found = text
                .split(mark)
                .nth(1)
                .and_then(|rest| rest.split(end).next());
            found
                .unwrap_or_else(|| panic!("{mark:?} is missing: {text}"))
                .trim()
                .to_owned()
        };
        Self {
            child,
            _stdout: Some(stdout),
            endpoint: behind("One Assigner at ", ','),
            http: behind("health  http://", '/'),
            data: Some(
                behind("data    ", '(')
                    .lines()
                    .next()
                    .map(PathBuf::from)
                    .expect("a directory"),
            ),
        }
    }

    /// `leasehold serve`, perhaps not ready.
    pub fn serve(listen: u16, http: u16, more: &[&str]) -> Self {
        let (listen, http) = (format!("127.0.0.1:{listen}"), format!("127.0.0.1:{http}"));
        let mut command = program();
        command
            .args([
                "serve",
                "--log-level",
                "error",
                "--listen",
                &listen,
                "--http-listen",
                &http,
            ])
            .args(more);
        let child = command.stdout(Stdio::null()).spawn().expect("starts");
        Self {
            child,
            _stdout: None,
            endpoint: format!("http://{listen}"),
            http,
            data: None,
        }
    }

    /// Asks this one.
    pub fn ask(&self, line: &str) -> Said {
        run(&[
            &["--endpoints", &self.endpoint, "--timeout", "30s"],
            words(line).as_slice(),
        ]
        .concat())
    }

    /// Asks this one, and reads its JSON.
    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        let text = self.ask(&format!("{line} -o json")).well();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Asks this one, and reads its JSON whatever the exit code; `Null` where there is none.
    pub fn look(&self, line: &str) -> Value {
        serde_json::from_str(&self.ask(&format!("{line} -o json")).out).unwrap_or_default()
    }

    /// One request of the health server: its status and body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.http).ok()?;
        stream
            .write_all(
                format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let code = answer.split(' ').nth(1)?.parse().ok()?;
        Some((code, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// Waits until it may be sent requests.
    pub fn ready(&self) {
        until("the node is ready", || {
            self.get("/readyz").is_some_and(|(code, _)| code == 200)
        });
    }

    fn signal(&self, signal: i32) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: no memory is involved; the process is our child and was not waited for.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    /// Tells it to end, and gives its exit code.
    pub fn end(mut self, signal: i32) -> i32 {
        self.signal(signal);
        self.child.wait().expect("a child").code().unwrap_or(-1)
    }

    /// Ends it without a word, as a power failure does.
    pub fn kill(mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, or a test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three `serve` of one cluster, their data on the disk.
pub struct Cluster {
    pub directory: TempDir,
    /// Where each listens, then where each answers over HTTP.
    pub ports: [u16; 6],
    pub members: String,
    nodes: [Option<Running>; 3],
}

impl Cluster {
    /// All of them, ready.
    pub fn start() -> Self {
        let ports: [u16; 6] = free_ports();
        let member = |i: usize| format!("{}=127.0.0.1:{}", i + 1, ports[i]);
        let mut cluster = Self {
            directory: tempfile::tempdir().expect("a directory"),
            ports,
            members: [0, 1, 2].map(member).join(","),
            nodes: Default::default(),
        };
        for i in 0..3 {
            cluster.nodes[i] = Some(cluster.serve(i));
        }
        for node in cluster.nodes.iter().flatten() {
            node.ready();
        }
        cluster
    }

    fn serve(&self, i: usize) -> Running {
        let (data, id) = (self.data(i), (i + 1).to_string());
        let known = ["--members", &self.members, "--node-id", &id];
        let more = [known.as_slice(), &["--data-dir", arg(&data)]].concat();
        Running::serve(self.ports[i], self.ports[i + 3], &more)
    }

    /// Where the data of one is.
    pub fn data(&self, i: usize) -> PathBuf {
        self.directory.path().join(format!("d{i}"))
    }

    /// One that runs.
    pub fn node(&self, i: usize) -> &Running {
        self.nodes[i].as_ref().expect("it runs")
    }

    /// Ends one without a word.
    pub fn kill(&mut self, i: usize) {
        self.nodes[i].take().expect("it runs").kill();
    }

    /// Tells those that run to end, and gives their exit codes.
    pub fn end(self, signal: i32) -> Vec<i32> {
        let running = self.nodes.into_iter().flatten();
        running.map(|node| node.end(signal)).collect()
    }

    /// Starts one again.
    pub fn restart(&mut self, i: usize) {
        self.nodes[i] = Some(self.serve(i));
        self.node(i).ready();
    }

    /// All of them, running or not.
    pub fn endpoints(&self) -> [String; 3] {
        [0, 1, 2].map(|i| format!("http://127.0.0.1:{}", self.ports[i]))
    }
}

/// Waits for a condition, with a deadline that no healthy run comes near.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ports that nobody uses at present.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"))
        .collect();
    std::array::from_fn(|i| listeners[i].local_addr().expect("an address").port())
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
