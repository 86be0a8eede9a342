//! Made-up runs for tests, and for eyes: everything follows from a seed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use leasehold_checkers::run::{ClockSample, Fault, Hold, Installed, Results, Test};
use leasehold_checkers::{Finding, Kind, Op, Outcome, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// A second.
pub(crate) const S: u64 = 1_000_000_000;
/// A millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// The files of a run before they are written.
pub(crate) struct Made {
    pub test: Test,
    pub results: Results,
    pub ops: Vec<Op>,
    pub faults: Vec<Fault>,
    pub holds: Vec<Hold>,
    pub clocks: Vec<ClockSample>,
}

impl Made {
    /// Writes the files into `dir`, which is made.
    pub fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        fs::write(
            dir.join("test.json"),
            serde_json::to_string(&self.test).unwrap(),
        )
        .unwrap();
        fs::write(
            dir.join("results.json"),
            serde_json::to_string(&self.results).unwrap(),
        )
        .unwrap();
        lines(dir, "history.jsonl", &self.ops);
        lines(dir, "faults.jsonl", &self.faults);
        lines(dir, "holds.jsonl", &self.holds);
        lines(dir, "clocks.jsonl", &self.clocks);
    }
}

fn lines<T: serde::Serialize>(dir: &Path, name: &str, items: &[T]) {
    let text: String = items
        .iter()
        .map(|i| serde_json::to_string(i).unwrap() + "\n")
        .collect();
    fs::write(dir.join(name), text).unwrap();
}

/// A run of a minute in which nothing prohibited happened.
pub(crate) fn valid(seed: u64, operations: usize) -> Made {
    let mut rng = StdRng::seed_from_u64(seed);
    let faults = faults();
    let mut outcomes: Vec<Outcome> = [
        "linearizable",
        "version-order",
        "overlap",
        "epoch-order",
        "coverage",
        "availability",
    ]
    .map(Outcome::valid)
    .into();
    outcomes[0].stats.insert("keys".to_owned(), json!(50));
    outcomes[0]
        .stats
        .insert("operations".to_owned(), json!(operations));
    outcomes[2].stats.insert("handoffs".to_owned(), json!(96));
    Made {
        test: test(seed),
        results: Results {
            verdict: Verdict::Valid,
            as_expected: true,
            outcomes,
            harness_error: None,
        },
        ops: history(&mut rng, operations, &faults),
        holds: holds(&mut rng, 8, 60),
        clocks: clocks(&mut rng, &faults),
        faults,
    }
}

/// A run in which two pods held a slice at once.
pub(crate) fn overlapping(seed: u64) -> Made {
    let mut made = valid(seed, 20_000);
    let at = made
        .holds
        .iter()
        .position(|h| h.from_ns > 20 * S && h.to_ns < 50 * S)
        .unwrap();
    let mut other = made.holds[at].clone();
    other.pod = if other.pod == "p1" { "p2" } else { "p1" }.to_owned();
    (other.from_ns, other.to_ns) = (
        made.holds[at].to_ns - 140 * MS,
        made.holds[at].to_ns - 20 * MS,
    );
    other.token += 1;
    other.frozen_ns = None;
    let what = format!(
        "{} and {} both held {} for 120 ms",
        made.holds[at].pod, other.pod, other.first
    );
    let found = Finding {
        what,
        ops: Vec::new(),
        time_ns: Some((other.from_ns, other.to_ns)),
        key: None,
    };
    made.holds.push(other);
    made.results.outcomes[2].verdict = Verdict::Invalid;
    made.results.outcomes[2].findings.push(found);
    made.results.verdict = Verdict::Invalid;
    made.results.as_expected = false;
    made
}

/// A run in which a read missed a write that had ended; the checker names the window.
pub(crate) fn stale_read(seed: u64) -> Made {
    let mut made = valid(seed, 5_000);
    let from = 30 * S;
    let steps = [
        (900, "write", json!(71), Kind::Ok, 0, 4),
        (901, "write", json!(72), Kind::Ok, 6, 11),
        (902, "read", json!(72), Kind::Ok, 12, 15),
        (903, "cas", json!([72, 73]), Kind::Info, 13, 60),
        (904, "read", json!(71), Kind::Ok, 17, 22),
    ];
    let mut marked = Vec::new();
    for (process, f, value, kind, begin, end) in steps {
        let argument = if f == "read" {
            Value::Null
        } else {
            value.clone()
        };
        let mut op = Op {
            index: 0,
            time: from + begin * MS,
            process,
            kind: Kind::Invoke,
            f: f.to_owned(),
            key: Some("k7".to_owned()),
            value: argument,
            node: None,
            epoch: None,
            error: None,
        };
        made.ops.push(op.clone());
        op.time = from + end * MS;
        op.kind = kind;
        op.value = if kind == Kind::Ok { value } else { Value::Null };
        op.node = (kind == Kind::Ok).then(|| "p2".to_owned());
        op.epoch = (kind == Kind::Ok).then_some(42);
        op.error = (kind == Kind::Info).then(|| "deadline passed".to_owned());
        made.ops.push(op);
    }
    renumber(&mut made.ops);
    for op in made
        .ops
        .iter()
        .filter(|op| op.process >= 900 && op.kind == Kind::Invoke)
    {
        marked.push(op.index);
    }
    let what = "process 904 read 71 after 72 had been written and read".to_owned();
    let key = Some("k7".to_owned());
    let found = Finding {
        what,
        ops: marked,
        time_ns: Some((from, from + 22 * MS)),
        key,
    };
    made.results.outcomes[0].verdict = Verdict::Invalid;
    made.results.outcomes[0].findings.push(found);
    made.results.verdict = Verdict::Invalid;
    made.results.as_expected = true;
    made.test.expect_valid = false;
    made.test.mutant = Some("no_fencing".to_owned());
    made
}

fn test(seed: u64) -> Test {
    let hosts = ["a1", "a2", "a3", "p1", "p2", "p3", "p4", "p5", "c1"];
    let role = |name: &str| match name.as_bytes().first() {
        Some(b'a') => "assigner",
        Some(b'p') => "pod",
        _ => "client",
    };
    Test {
        name: "register+partition,kill,pause,clock-rate".to_owned(),
        workload: "register".to_owned(),
        nemeses: ["partition", "kill", "pause", "clock-rate"]
            .map(str::to_owned)
            .into(),
        seed,
        time_limit_s: 60,
        hosts: hosts
            .iter()
            .map(|h| ((*h).to_owned(), role(h).to_owned()))
            .collect(),
        network: "namespaces".to_owned(),
        command: format!(
            "leasehold-jepsen test --workload register --nemesis partition,kill,pause,clock-rate --time-limit 60 --seed {seed}"
        ),
        revision: Some("0123abcd".to_owned()),
        kernel: "6.1.0".to_owned(),
        begun_unix_s: 1_795_000_000,
        mutant: None,
        expect_valid: true,
        options: BTreeMap::from([
            ("ttl_ms".to_owned(), json!(2_000)),
            ("rate".to_owned(), json!(350)),
        ]),
    }
}

fn faults() -> Vec<Fault> {
    // Kind, mode, hosts, from and to in tenths of a second.
    const DONE: [(&str, &str, &str, u64, u64); 9] = [
        ("partition", "isolate-leader", "a1", 50, 120),
        ("kill", "owner", "p3", 100, 140),
        ("pause", "one", "p2", 200, 240),
        ("clock-rate", "x1.05", "p1 p4", 220, 400),
        ("partition", "halves", "a2 p1 p2", 300, 380),
        ("kill", "leader", "", 390, 390),
        ("disk", "fsync-slow", "a2", 420, 470),
        ("partition", "one-way", "p5", 450, 520),
        ("kill", "majority", "a1 a3", 480, 500),
    ];
    let fault = |(kind, mode, hosts, from, to): (&str, &str, &str, u64, u64)| Fault {
        kind: kind.to_owned(),
        mode: mode.to_owned(),
        hosts: hosts.split_whitespace().map(str::to_owned).collect(),
        detail: format!("{mode} of {hosts}"),
        installed: match (kind, hosts) {
            (_, "") => Installed::Skipped("no leader".to_owned()),
            ("disk", _) => Installed::Indeterminate("no answer".to_owned()),
            _ => Installed::Installed,
        },
        from_ns: from * 100 * MS,
        to_ns: Some(to * 100 * MS),
    };
    DONE.into_iter().map(fault).collect()
}

fn history(rng: &mut StdRng, operations: usize, faults: &[Fault]) -> Vec<Op> {
    let workers = 20;
    let mut free: Vec<u64> = vec![0; workers];
    let mut process: Vec<u64> = (0..workers as u64).collect();
    let mut ops = Vec::with_capacity(operations * 2);
    let pace = 58 * S / (operations as u64).max(1);
    for i in 0..operations as u64 {
        let worker = (0..workers).min_by_key(|w| free[*w]).unwrap();
        let begin = (S + i * pace).max(free[worker] + 1_000);
        let cut = faults
            .iter()
            .any(|f| f.kind != "clock-rate" && f.from_ns < begin && begin < f.to_ns.unwrap_or(0));
        let luck: f64 = rng.random();
        let slow = if cut && luck < 0.2 { 400.0 } else { 1.0 };
        let latency = (MS as f64 * slow * (0.5 + 2.0 * rng.random::<f64>().powi(3))) as u64;
        let kind = match (cut, luck) {
            (true, l) if l < 0.10 => Kind::Info,
            (true, l) if l < 0.25 => Kind::Fail,
            (false, l) if l < 0.01 => Kind::Fail,
            _ => Kind::Ok,
        };
        let f = ["read", "write", "cas"][rng.random_range(0..3usize)];
        let value = json!(rng.random_range(0..100));
        let begun = Op {
            index: 0,
            time: begin,
            process: process[worker],
            kind: Kind::Invoke,
            f: f.to_owned(),
            key: Some(format!("k{}", rng.random_range(0..50))),
            value: if f == "read" {
                Value::Null
            } else {
                value.clone()
            },
            node: None,
            epoch: None,
            error: None,
        };
        let ended = Op {
            time: begin + latency,
            kind,
            value: if kind == Kind::Ok { value } else { Value::Null },
            node: (kind == Kind::Ok).then(|| format!("p{}", rng.random_range(1..6))),
            epoch: (kind == Kind::Ok).then(|| 1 + begin / S),
            error: match kind {
                Kind::Info => Some("deadline passed".to_owned()),
                Kind::Fail => Some("not the owner".to_owned()),
                _ => None,
            },
            ..begun.clone()
        };
        free[worker] = begin + latency;
        if kind == Kind::Info {
            process[worker] += workers as u64;
        }
        ops.push(begun);
        ops.push(ended);
    }
    renumber(&mut ops);
    ops
}

fn renumber(ops: &mut [Op]) {
    ops.sort_by_key(|op| (op.time, op.process, op.kind != Kind::Invoke));
    for (index, op) in ops.iter_mut().enumerate() {
        op.index = index as u64;
    }
}

/// Slices that go round the pods, frozen for a little before each handoff.
pub(crate) fn holds(rng: &mut StdRng, slices: u64, seconds: u64) -> Vec<Hold> {
    let mut holds = Vec::new();
    let width = u64::MAX / slices;
    for slice in 0..slices {
        let (mut at, mut token, mut pod) = (rng.random_range(0..S), slice + 1, slice % 5 + 1);
        while at < seconds * S {
            let long = rng.random_range(2 * S..8 * S);
            let to = (at + long).min(seconds * S);
            holds.push(Hold {
                pod: format!("p{pod}"),
                incarnation: 1 + at / (20 * S),
                first: format!("{:016x}", slice * width),
                last: format!(
                    "{:016x}",
                    if slice + 1 == slices {
                        u64::MAX
                    } else {
                        (slice + 1) * width - 1
                    }
                ),
                token,
                from_ns: at,
                to_ns: to,
                frozen_ns: rng.random_bool(0.7).then(|| to - 150 * MS),
            });
            at = to + rng.random_range(5 * MS..400 * MS);
            token += 8;
            pod = pod % 5 + 1;
        }
    }
    holds
}

fn clocks(rng: &mut StdRng, faults: &[Fault]) -> Vec<ClockSample> {
    let hosts = ["a1", "a2", "a3", "p1", "p2", "p3", "p4", "p5"];
    let mut lease = [0i64; 8];
    let mut samples = Vec::new();
    for at in 0..240u64 {
        let now = at * 250 * MS;
        for (i, host) in hosts.iter().enumerate() {
            let skewed = faults.iter().any(|f| {
                f.kind == "clock-rate"
                    && f.hosts.iter().any(|h| h == host)
                    && f.from_ns < now
                    && now < f.to_ns.unwrap_or(0)
            });
            lease[i] += if skewed {
                12_500_000
            } else {
                rng.random_range(-2_000..2_000)
            };
            samples.push(ClockSample {
                host: (*host).to_owned(),
                time_ns: now,
                lease_offset_ns: lease[i],
                wall_offset_ns: lease[i]
                    + if *host == "p3" && at > 160 {
                        3_600 * S as i64
                    } else {
                        0
                    },
            });
        }
    }
    samples
}
