//! Three hosts in a network of the kind asked for: one serves, two ask it, and one of these is cut
//! off for a while. For the tests, and for trying by hand what a machine allows:
//!
//! `network_probe namespaces|rootless|proxy|best`

#![allow(clippy::unwrap_used)] // Whatever fails here fails the test that runs it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_faults::{Disk, Kind, LinkRule, Network, ProcSpec, Processes, prepare};

const PORT: u16 = 7_077;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", ip] => serve(ip),
        ["ask", ip] => ask(ip),
        [kind] => check(kind),
        _ => panic!("what kind of network?"),
    }
}

/// Answers everyone with a byte.
fn serve(ip: &str) {
    let at = SocketAddr::new(ip.parse().unwrap(), PORT);
    let listener = TcpListener::bind(at).unwrap();
    assert_eq!(
        listener.local_addr().unwrap(),
        at,
        "it sees the address that it wanted"
    );
    for stream in listener.incoming() {
        let _ = stream.unwrap().write_all(b"!");
    }
}

/// Asks again and again, and says when it was answered.
fn ask(ip: &str) {
    let at = SocketAddr::new(ip.parse().unwrap(), PORT);
    loop {
        let patience = Duration::from_millis(300);
        let answered = TcpStream::connect_timeout(&at, patience).and_then(|mut stream| {
            stream.set_read_timeout(Some(patience))?;
            stream.read_exact(&mut [0])
        });
        println!("{}", if answered.is_ok() { "answered" } else { "deaf" });
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn check(kind: &str) {
    let kind = if kind == "best" {
        let (kind, why) = Kind::best();
        println!("{kind}: {why}");
        kind
    } else {
        kind.parse().unwrap()
    };
    prepare(kind).unwrap();
    let network = Arc::new(Network::create(kind, &["a", "b", "c"], 1).unwrap());
    let processes = Processes::new(network.clone()).unwrap();
    let disk = Disk::create("b", 32 << 20).unwrap();
    println!(
        "disk: {:?}, {}",
        disk.kind(),
        disk.why_not().unwrap_or("all faults")
    );
    let ip = network.ip("b").unwrap().to_string();
    let start = |host: &str, what: &str| {
        processes
            .start(ProcSpec {
                host: host.to_owned(),
                program: std::env::current_exe().unwrap(),
                args: vec![what.to_owned(), ip.clone()],
                env: Vec::new(),
                log_dir: disk.dir().join(host),
                shim: None,
            })
            .unwrap();
    };
    start("b", "serve");
    start("a", "ask");
    start("c", "ask");
    let (a, c) = (disk.dir().join("a/stdout"), disk.dir().join("c/stdout"));
    both(&a, "answered", &c, "answered");
    for (from, to) in [("a", "b"), ("b", "a")] {
        network.set_link(from, to, LinkRule::cut()).unwrap();
        both(&a, "deaf", &c, "answered");
        assert!(network.count(from, to).unwrap().dropped > 0);
        assert_eq!(network.count("c", "b").unwrap().dropped, 0);
        network.heal();
        both(&a, "answered", &c, "answered");
    }
    let delay = Duration::from_millis(400);
    let slow = LinkRule {
        delay,
        ..LinkRule::default()
    };
    network.set_link("b", "c", slow).unwrap();
    both(&a, "answered", &c, "deaf");
    network.heal();
    both(&a, "answered", &c, "answered");
    // The harness itself, from a host that it has entered.
    network.enter("a").unwrap();
    let at = SocketAddr::new(network.ip("b").unwrap(), PORT);
    let mut stream = TcpStream::connect(at).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert!(processes.take_unexpected().is_empty());
    println!("passed: {kind}");
}

/// Waits until the newest five lines of both logs are these.
fn both(one: &Path, first: &str, other: &Path, second: &str) {
    let seen = |path: &Path, what: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.len() == 5 && lines.iter().all(|line| *line == what)
    };
    let end = Instant::now() + PATIENCE;
    while !(seen(one, first) && seen(other, second)) {
        assert!(Instant::now() < end, "not `{first}` and `{second}`");
        std::thread::sleep(Duration::from_millis(10));
    }
}
