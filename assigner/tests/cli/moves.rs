//! Moves as an operator makes them: canaries, a drain that he watches.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use leasehold_client::state::StateMap;
use leasehold_client::{Slicelet, SliceletBuilder, Transfers};
use leasehold_proto::SliceKey;
use serde_json::Value;
use tonic::transport::server::TcpIncoming;

use crate::program::{Cluster, LONG, Running, program, run, until};

/// A pod of target `cart` that may be given slices. What it freezes waits for guards for ever.
async fn pod(dev: &Running) -> (Slicelet, String) {
    let builder = Slicelet::builder("cart").endpoints([dev.endpoint.as_str()]);
    start(builder.drain_deadline(LONG * 10)).await
}

async fn start(builder: SliceletBuilder) -> (Slicelet, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let slicelet = builder.advertise(&address).start().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(slicelet.peer_service().into_server())
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(async move { server.await.unwrap() });
    slicelet.ready(LONG).await.unwrap();
    (slicelet, address)
}

/// The first keys of the slices that a pod owns.
fn owned(dev: &Running, address: &str) -> Vec<Value> {
    let slices = dev.json("slice list cart");
    let slices = slices["slices"].as_array().unwrap();
    let own = slices
        .iter()
        .filter(|slice| slice["owner"]["address"] == address);
    own.map(|slice| slice["first"].clone()).collect()
}

fn firsts(shifted: &Value) -> Vec<Value> {
    let slices = shifted["shifted"].as_array().unwrap();
    slices.iter().map(|slice| slice["first"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_shifted_then_more_then_back() {
    for mode in ["strong", "eventual"] {
        shift_more_and_back(mode).await;
    }
}

async fn shift_more_and_back(mode: &str) {
    let dev = Running::dev(&[]);
    dev.ask(&format!("target create cart --slices 8 --mode {mode}"))
        .well();
    let (_first, one) = pod(&dev).await;
    until("all are granted", || owned(&dev, &one).len() == 8);
    dev.ask("target hold cart --reason canary").well();
    let (_second, two) = pod(&dev).await;
    let all = owned(&dev, &one);
    let shift = format!("slice shift cart --from {one} --to {two}");

    let quarter = dev.json(&format!("{shift} --share 25% --wait"));
    assert_eq!(
        (&quarter["slices"], &quarter["completed"]),
        (&8.into(), &true.into())
    );
    let mut shifted = firsts(&quarter);
    let since = quarter["since"].as_str().unwrap();
    let half = dev.json(&format!("{shift} --share 50% --since {since} --wait"));
    assert_eq!((&half["slices"], &half["already"]), (&8.into(), &2.into()));
    shifted.extend(firsts(&half));
    let mut there = owned(&dev, &two);
    shifted.sort_by_key(Value::to_string);
    there.sort_by_key(Value::to_string);
    assert_eq!((shifted.len(), &shifted), (4, &there));

    let less = dev.ask(&format!("{shift} --share 25% --since {since}"));
    less.failed(5, &["4 of 8 slices are shifted already", "--back"]);
    dev.ask(&format!("{shift} --back --since {since} --wait"))
        .well();
    assert_eq!(owned(&dev, &one), all);
    let none = dev.ask(&format!("{shift} --back --since {since}"));
    none.failed(1, &["owns no slice", "--since is the generation"]);

    dev.ask(&format!("{shift} --share 5"))
        .failed(2, &["in percent"]);
    dev.ask(&format!("{shift} --share 5% --since x"))
        .failed(2, &["1#1234"]);
    dev.ask(&format!("{shift} --share 5% --since 1#999999999"))
        .failed(2, &["before 1#999999999"]);
    dev.ask(&format!(
        "slice shift cart --from {one} --to {one} --share 5%"
    ))
    .failed(2, &["name two pods"]);
    dev.ask(&format!(
        "slice shift cart --from {one} --to 10.0.0.9:1 --share 5%"
    ))
    .failed(
        1,
        &[
            "no session lives at 10.0.0.9:1",
            "leasehold session list cart",
        ],
    );
    dev.ask(&format!(
        "slice shift cart --from {two} --to {one} --share 5%"
    ))
    .failed(1, &["owns no slice", "leasehold session list cart"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_does_not_end_names_what_is_slow() {
    let dev = Running::dev(&[]);
    dev.ask("target create cart --slices 2").well();
    let (first, one) = pod(&dev).await;
    until("all are granted", || owned(&dev, &one).len() == 2);
    dev.ask(&format!("pod drain {one} --wait=200ms")).failed(
        3,
        &[
            "not done after 200ms",
            "2 of 2 slices left",
            "no handoff is open",
        ],
    );

    let key: SliceKey = owned(&dev, &one)[0].as_str().unwrap().parse().unwrap();
    let guard = first.guard_slice_key(key).unwrap();
    let (_second, two) = pod(&dev).await;
    until("the other slice has gone", || owned(&dev, &two).len() == 1);
    dev.ask("slice merge cart 0")
        .failed(5, &["only slices of one owner", "move one first"]);
    let handoffs = dev.json("handoff list cart");
    let open = handoffs["handoffs"][0]["handoff"].as_str().unwrap();
    let handoff = dev.json(&format!("handoff get cart {open}"));
    assert_eq!(
        (&handoff["from_address"], &handoff["to_address"]),
        (&one.as_str().into(), &two.as_str().into())
    );
    assert_eq!(handoff["first"], key.to_string());
    let named = format!(
        "slow: {open} of cart to {}, open for",
        handoff["to"].as_str().unwrap()
    );
    dev.ask(&format!("pod drain {one} --wait=1s"))
        .failed(3, &["1 of 1 slices left", "1 handoffs open", &named]);

    let mut watching = program();
    let ask = ["--endpoints", &dev.endpoint, "pod", "drain", &one, "--wait"];
    let mut watching = watching.args(ask).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(watching.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("1 of 1 slices left"), "{line}");
    let id = i32::try_from(watching.id()).unwrap();
    // SAFETY: no memory is involved; the process is our child and was not waited for.
    assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
    assert_eq!(watching.wait().unwrap().code(), Some(3));
    line.clear();
    said.read_to_string(&mut line).unwrap();
    assert!(line.starts_with("error: interrupted: draining"), "{line}");
    assert!(line.contains("it goes on meanwhile"), "{line}");

    drop(guard);
    let drained = dev.json(&format!("pod drain {one} --wait"));
    assert_eq!(drained["slices_left"], 0);
    assert!(drained["took_ms"].is_u64());
    dev.ask(&format!("handoff get cart {open}"))
        .failed(1, &["not open", "leasehold handoff list cart"]);
    dev.ask(&format!("handoff cancel cart {open}"))
        .failed(5, &["not open", "leasehold handoff list cart"]);
    dev.ask(&format!("slice move cart {key} --to {two}"))
        .failed(5, &["owns", "already"]);
    dev.ask(&format!("slice move cart {key} --to {one}"))
        .failed(5, &["is draining", "name another"]);
}

/// So much state that its transfer takes seconds.
const KEYS: u64 = 4_000;

fn key(number: u64) -> Vec<u8> {
    let mut key = vec![b'-'; 1_000];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_and_who_waits_for_it_survive_the_leader() {
    let mut cluster = Cluster::start();
    let endpoints = cluster.endpoints();
    let ask = |line: String| {
        let given = ["--endpoints", &endpoints.join(","), "--timeout", "30s"].map(str::to_owned);
        let all: Vec<String> = given
            .into_iter()
            .chain(line.split(' ').map(str::to_owned))
            .collect();
        run(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    ask("target create cart --slices 1 --ttl 60s".to_owned()).well();
    ask("target hold cart --reason test".to_owned()).well();
    let mut transfers = Transfers::default();
    transfers.speed.most_bytes_per_s = Some(1 << 20);
    let counts = [StateMap::<u64>::new(), StateMap::new()];
    let pod = |state: &StateMap<u64>| {
        let builder = Slicelet::builder("cart").endpoints(&endpoints);
        start(builder.state(state.clone()).transfers(transfers.clone()))
    };
    let (source, _) = pod(&counts[0]).await;
    source.wait_until_owns_any(LONG).await.unwrap();
    for number in 0..KEYS {
        let guard = source.guard_or_wait(&key(number)).await.unwrap();
        counts[0].insert(&guard, &key(number), number).unwrap();
    }
    let (destination, address) = pod(&counts[1]).await;

    let line = format!("slice move cart 0 --to {address} --wait");
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(line));
        until("some has arrived", || {
            destination.stats().state_bytes_in > 0
        });
        let status = ask("status -o json".to_owned()).well();
        let status: Value = serde_json::from_str(&status).unwrap();
        let leader = usize::try_from(status["leader"].as_u64().unwrap()).unwrap() - 1;
        cluster.kill(leader);
        assert_eq!(destination.stats().transfers_in_completed, 0);
        waiting.join().unwrap()
    });
    assert!(waiting.well().contains(&format!("{address} serves")));
    for number in 0..KEYS {
        let guard = destination.guard_or_wait(&key(number)).await.unwrap();
        assert_eq!(counts[1].get(&guard, &key(number)), Some(number));
    }
    assert_eq!(destination.stats().arrivals_warm, 1);
}
