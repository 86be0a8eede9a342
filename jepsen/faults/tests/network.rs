//! A network of namespaces passes, cuts, delays, loses and repeats what it is told to. Where none
//! can be made the tests say so and prove nothing.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_faults::{Kind, LinkRule, Network};

const SEED: u64 = 11;

fn network(hosts: &[&str]) -> Option<Arc<Network>> {
    match Network::create(Kind::Namespaces, hosts, SEED) {
        Ok(network) => Some(Arc::new(network)),
        Err(error) => {
            eprintln!("not tested: {error:#}");
            assert!(std::env::var_os("LEASEHOLD_MUST_TEST_NAMESPACES").is_none());
            None
        }
    }
}

/// Runs something inside a host and returns what it returns.
fn inside<T: Send + 'static>(
    network: &Arc<Network>,
    host: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (network, host) = (network.clone(), host.to_owned());
    std::thread::spawn(move || {
        network.enter(&host).unwrap();
        work()
    })
    .join()
    .unwrap()
}

fn udp(network: &Arc<Network>, host: &str) -> UdpSocket {
    let at = SocketAddr::new(network.ip(host).unwrap(), 7_000);
    let socket = inside(network, host, move || UdpSocket::bind(at).unwrap());
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
}

/// Sends this many packets and returns how many frames the link passed and dropped meanwhile.
fn send(
    network: &Arc<Network>,
    from: (&str, &UdpSocket),
    to: (&str, &UdpSocket),
    packets: u64,
) -> (u64, u64) {
    let before = network.count(from.0, to.0).unwrap();
    let address = to.1.local_addr().unwrap();
    for packet in 0..packets {
        from.1.send_to(&packet.to_le_bytes(), address).unwrap();
        if packet % 50 == 49 {
            // The switch keeps up with bursts of this size.
            settle(
                network,
                from.0,
                to.0,
                before.passed + before.dropped + packet + 1,
            );
        }
    }
    let after = settle(
        network,
        from.0,
        to.0,
        before.passed + before.dropped + packets,
    );
    (after.passed - before.passed, after.dropped - before.dropped)
}

/// Waits until the link has decided about so many packets.
fn settle(
    network: &Arc<Network>,
    from: &str,
    to: &str,
    decided: u64,
) -> leasehold_faults::LinkCount {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let count = network.count(from, to).unwrap();
        if count.passed + count.dropped >= decided || Instant::now() > until {
            return count;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_cut_is_one_way_and_heals() {
    let Some(net) = network(&["a", "b"]) else {
        return;
    };
    let (a, b) = (udp(&net, "a"), udp(&net, "b"));
    net.set_link("a", "b", LinkRule::cut()).unwrap();
    assert_eq!(send(&net, ("a", &a), ("b", &b), 20), (0, 20));
    assert_eq!(send(&net, ("b", &b), ("a", &a), 20), (20, 0));
    let mut buffer = [0; 8];
    assert_eq!(a.recv(&mut buffer).unwrap(), 8, "what was passed arrives");
    assert!(!net.is_whole());
    net.heal();
    assert!(net.is_whole());
    assert_eq!(send(&net, ("a", &a), ("b", &b), 20), (20, 0));
    assert_eq!(b.recv(&mut buffer).unwrap(), 8);
    assert_eq!(u64::from_le_bytes(buffer), 0, "the cut ones never arrive");
}

#[test]
fn loss_and_duplication_strike_only_their_link() {
    let Some(net) = network(&["a", "b", "c"]) else {
        return;
    };
    let (a, b, c) = (udp(&net, "a"), udp(&net, "b"), udp(&net, "c"));
    let rule = LinkRule {
        loss: 0.3,
        duplicate: 0.2,
        ..LinkRule::default()
    };
    net.set_link("a", "b", rule).unwrap();
    let (passed, dropped) = send(&net, ("a", &a), ("b", &b), 1_000);
    assert!(
        (200..400).contains(&dropped),
        "seed {SEED}: {dropped} of 1000 lost"
    );
    assert!(passed > 1_000 - dropped, "seed {SEED}: some arrive twice");
    assert_eq!(send(&net, ("a", &a), ("c", &c), 500), (500, 0));
}

#[test]
fn a_delayed_packet_is_late_by_the_delay() {
    let Some(net) = network(&["a", "b"]) else {
        return;
    };
    let (a, b) = (udp(&net, "a"), udp(&net, "b"));
    let delay = Duration::from_millis(50);
    net.set_link(
        "a",
        "b",
        LinkRule {
            delay,
            ..LinkRule::default()
        },
    )
    .unwrap();
    let begun = Instant::now();
    a.send_to(b"late", b.local_addr().unwrap()).unwrap();
    b.recv(&mut [0; 8]).unwrap();
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    assert_eq!(net.count("a", "b").unwrap().delayed, 1);
}

#[test]
fn a_stream_of_megabytes_arrives_whole() {
    let Some(net) = network(&["a", "b"]) else {
        return;
    };
    const BYTES: usize = 32 << 20;
    let at = SocketAddr::new(net.ip("b").unwrap(), 7_001);
    let listener = inside(&net, "b", move || TcpListener::bind(at).unwrap());
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut sum = 0u64;
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            let n = stream.read(&mut buffer).unwrap();
            if n == 0 {
                return (bytes, sum);
            }
            bytes += n;
            sum += buffer[..n].iter().map(|b| u64::from(*b)).sum::<u64>();
        }
    });
    let mut stream = inside(&net, "a", move || TcpStream::connect(at).unwrap());
    let piece: Vec<u8> = (0..1 << 16).map(|i| (i % 251) as u8).collect();
    let begun = Instant::now();
    for _ in 0..BYTES / piece.len() {
        stream.write_all(&piece).unwrap();
    }
    drop(stream);
    let (bytes, sum) = reader.join().unwrap();
    let each: u64 = piece.iter().map(|b| u64::from(*b)).sum();
    assert_eq!((bytes, sum), (BYTES, each * (BYTES / piece.len()) as u64));
    let took = begun.elapsed();
    eprintln!(
        "{:.0} Mbit/s",
        BYTES as f64 * 8.0 / 1e6 / took.as_secs_f64()
    );
}

#[test]
fn a_command_runs_inside_its_host() {
    let Some(net) = network(&["a", "b"]) else {
        return;
    };
    let output = net
        .command("b", "ip")
        .unwrap()
        .args(["-o", "-4", "addr"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("10.77.0.2") && !text.contains("10.77.0.1/"),
        "{text}"
    );
}

#[test]
fn a_round_trip_is_short() {
    let Some(net) = network(&["a", "b"]) else {
        return;
    };
    let (a, b) = (udp(&net, "a"), udp(&net, "b"));
    let (to_a, to_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let mut buffer = [0; 8];
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let begun = Instant::now();
            a.send_to(b"ping", to_b).unwrap();
            b.recv(&mut buffer).unwrap();
            b.send_to(b"pong", to_a).unwrap();
            a.recv(&mut buffer).unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("median round trip {:?}", times[100]);
}
