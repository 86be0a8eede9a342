//! The program as a user meets it: real processes, typed commands, wrong ones too.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "cli/demos.rs"]
mod demos;
#[path = "cli/moves.rs"]
mod moves;
mod program;

use std::fs;

use leasehold_client::Slicelet;
use program::{Cluster, Running, arg, free_ports, program, run, until, words};
use tonic::transport::server::TcpIncoming;

#[test]
fn help_names_verbs_exit_codes_and_examples() {
    let help = run(&["--help"]).well();
    for word in [
        "Exit codes:",
        "Examples:",
        "target",
        "slice",
        "--endpoints",
        "LEASEHOLD_ENDPOINTS",
        "--reason",
    ] {
        assert!(help.contains(word), "{word} is missing: {help}");
    }
    let restore = run(&words("snapshot restore --help")).well();
    assert!(
        restore.contains("must not meet the old one") && restore.contains("--old-cluster-stopped"),
        "{restore}"
    );
    assert!(run(&words("target mode --help")).well().contains("ghosts"));
    assert!(run(&["version"]).well().starts_with("leasehold "));
    assert!(run(&words("completion bash")).well().contains("_leasehold"));
}

#[test]
fn wrong_commands_are_usage_errors_that_say_what_is_wrong() {
    run(&words("targets list")).failed(2, &["targets"]);
    run(&words("target create Cart")).failed(2, &["lower-case"]);
    run(&words("target create cart --ttl 5")).failed(2, &["write it with its unit"]);
    run(&words("target create cart --ttl 1ms")).failed(2, &["ttl is 1ms", "200ms"]);
    run(&words("target create cart --slices 0")).failed(2, &["--slices"]);
    run(&words("slice move cart 0 --to nowhere")).failed(2, &["neither a session nor an address"]);
    run(&words("slice get cart xyz")).failed(2, &["is not a slice key"]);
    run(&words("session close cart 17 --reason x")).failed(2, &["s17"]);
    run(&words("key lookup cart --hex 0")).failed(2, &["hexadecimal"]);
    run(&words("key lookup cart")).failed(2, &["required"]);
    run(&words("target delete cart")).failed(2, &["--yes"]);
    run(&words("target hold cart")).failed(2, &["--reason"]);
    run(&words("--endpoints https://a:1 status")).failed(2, &["https is not supported"]);
    run(&words("--endpoints nonsense status")).failed(2, &["http://HOST:PORT"]);
    run(&words("--timeout soon status")).failed(2, &["not a duration"]);
    run(&["target", "hold", "cart", "--reason", &"x".repeat(513)]).failed(2, &["513 bytes"]);
}

#[test]
fn where_no_assigner_answers_the_error_names_the_next_step() {
    let [port] = free_ports();
    let endpoint = format!("http://127.0.0.1:{port}");
    let said = run(&["--endpoints", &endpoint, "status"]);
    said.failed(
        3,
        &[
            &endpoint,
            "connection refused",
            "leasehold dev",
            "--endpoints",
        ],
    );
    let json = run(&["--endpoints", &endpoint, "status", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!(
        (json.code, error["kind"].as_str()),
        (3, Some("unavailable"))
    );
    let unset = program()
        .env("LEASEHOLD_ENDPOINTS", &endpoint)
        .args(["target", "list"])
        .output()
        .unwrap();
    assert_eq!(unset.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&unset.stderr).contains(&endpoint));
}

#[test]
fn a_silent_endpoint_does_not_keep_the_others_from_being_asked() {
    let dev = Running::dev(&[]);
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let both = format!("http://{},{}", silent.local_addr().unwrap(), dev.endpoint);
    run(&["--endpoints", &both, "--timeout", "10s", "status"]).well();
    let alone = format!("http://{}", silent.local_addr().unwrap());
    run(&["--endpoints", &alone, "--timeout", "300ms", "status"]).failed(3, &[&alone]);
}

#[test]
fn dev_serves_soon_and_leaves_nothing_behind() {
    let dev = Running::dev(&[]);
    let data = dev.data.clone().unwrap();
    assert!(data.exists());
    assert!(dev.ask("status").well().contains("leader 1"));
    assert_eq!(dev.get("/livez").unwrap(), (200, "ok\n".into()));
    assert!(
        dev.get("/readyz?verbose")
            .unwrap()
            .1
            .contains("[+] leader: ok")
    );
    assert!(dev.get("/metrics").unwrap().1.ends_with("# EOF\n"));
    assert_eq!(dev.end(libc::SIGINT), 0);
    assert!(!data.exists() && !data.parent().unwrap().exists());
}

#[test]
fn dev_finds_the_data_that_it_was_told_to_keep() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("kept");
    let dev = Running::dev(&["--data", arg(&data)]);
    dev.ask("target create cart --slices 8").well();
    assert_eq!(dev.end(libc::SIGTERM), 0);
    let again = Running::dev(&["--data", arg(&data)]);
    assert_eq!(again.json("target get cart")["slices"], 8);
    let other = run(&[
        "dev",
        "--data",
        arg(&data),
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ]);
    other.failed(1, &["in use by another process"]);
}

#[test]
fn targets_are_created_changed_held_and_deleted() {
    let dev = Running::dev(&[]);
    dev.ask("target create cart --slices 4 --ttl 5s --on-lapse serve-fenced")
        .well();
    dev.ask("target create cart").failed(5, &["exists already"]);
    let cart = dev.json("target get cart");
    assert_eq!(
        (&cart["slices"], &cart["ttl_ms"], &cart["on_lapse"]),
        (&4.into(), &5000.into(), &"serve_fenced".into())
    );
    dev.ask("target set cart --max-open-handoffs 7 --if-version 99")
        .failed(5, &["version"]);
    dev.ask("target set cart --max-open-handoffs 7").well();
    assert_eq!(dev.json("target get cart")["max_open_handoffs"], 7);
    dev.ask("target set cart").failed(2, &["nothing to set"]);
    dev.ask("target create hasty --ttl 300ms")
        .failed(2, &["loss of a leader"]);
    dev.ask("target hold cart --reason ticket-4711").well();
    assert_eq!(dev.json("target get cart")["hold_reason"], "ticket-4711");
    dev.ask("target unhold cart").well();
    dev.ask("target mode cart eventual").well();
    let armed = dev.json("target mode cart strong --wait");
    assert_eq!(armed["mode"], "strong");
    dev.ask("target delete cart --yes").well();
    dev.ask("target get cart")
        .failed(1, &["there is no target cart", "leasehold target list"]);
    assert_eq!(dev.json("target list")["targets"], serde_json::json!([]));
}

#[test]
fn slices_without_pods_can_be_cut_and_looked_at() {
    let dev = Running::dev(&[]);
    dev.ask("target create cart --slices 2").well();
    dev.ask("slice split cart 0x1000").well();
    let slices = dev.json("slice list cart");
    let firsts: Vec<&str> = slices["slices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["first"].as_str().unwrap())
        .collect();
    assert_eq!(
        firsts,
        [
            "0x0000000000000000",
            "0x0000000000001000",
            "0x8000000000000000"
        ]
    );
    assert_eq!(
        dev.json("slice list cart --limit 1")["slices"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        dev.json("slice get cart 0x0fff")["last"],
        "0x0000000000000fff"
    );
    dev.ask("slice split cart 0x1000").failed(2, &["half"]);
    dev.ask("slice merge cart 0").failed(5, &["vacant"]);
    dev.ask("slice move cart 0 --to s9")
        .failed(1, &["no such live session", "session list cart"]);
    dev.ask("slice move cart 0 --to 10.0.0.7:9000")
        .failed(1, &["no such live session", "session list cart"]);
    dev.ask("pod drain 10.0.0.7:9000 --target none")
        .failed(1, &["there is no target none"]);
    dev.ask("key lookup cart customer-4711")
        .failed(1, &["nobody serves"]);
    dev.ask("pod drain 10.0.0.7:9000")
        .failed(1, &["no live session", "leasehold pod list"]);
    dev.ask("handoff cancel cart h7").failed(5, &["not open"]);
    dev.ask("session forget cart --all")
        .failed(2, &["--reason"]);
    assert_eq!(
        dev.json("session list cart")["sessions"],
        serde_json::json!([])
    );
    assert_eq!(
        dev.json("handoff list cart")["handoffs"],
        serde_json::json!([])
    );
    assert_eq!(dev.json("pod list")["pods"], serde_json::json!([]));
}

/// A pod of target `cart`.
async fn pod(endpoint: &str) -> (Slicelet, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let slicelet = Slicelet::builder("cart")
        .endpoints([endpoint])
        .advertise(&address)
        .start()
        .unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(slicelet.peer_service().into_server())
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(async move { server.await.unwrap() });
    slicelet.wait_until_owns_any(program::LONG).await.unwrap();
    (slicelet, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_move_between_pods_and_a_drained_pod_owns_none() {
    let dev = Running::dev(&[]);
    dev.ask("target create cart --slices 4").well();
    let (_first, one) = pod(&dev.endpoint).await;
    let (second, two) = pod(&dev.endpoint).await;
    dev.ask("target hold cart --reason test").well();
    let owner = |dev: &Running| {
        dev.json("key lookup cart --slice-key 5")["slice"]["owner"]["address"].clone()
    };
    until("nothing moves", || {
        dev.json("handoff list cart")["handoffs"]
            .as_array()
            .unwrap()
            .is_empty()
    });
    for _ in 0..4 {
        let to = if owner(&dev) == one.as_str() {
            &two
        } else {
            &one
        };
        dev.ask(&format!("slice move cart 5 --to {to} --wait"))
            .well();
        assert_eq!(owner(&dev), to.as_str());
    }
    // Also while nothing is evened out.
    let drained = dev.json(&format!("pod drain {two} --wait --reason update"));
    assert_eq!(
        (&drained["slices_left"], &drained["sessions"]),
        (&0.into(), &1.into())
    );
    assert!(second.owned().is_empty());
    assert_eq!(owner(&dev), one.as_str());
    let pods = dev.json("pod list");
    assert_eq!(pods["pods"].as_array().unwrap().len(), 2);
    let session = second.session().unwrap();
    dev.ask(&format!("session close cart {session} --reason reaped"))
        .well();
    until("one session is left", || {
        dev.json("session list cart")["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s["session"] != session.to_string())
    });
}

#[test]
fn three_nodes_form_a_cluster_and_any_of_them_finds_the_leader() {
    let mut cluster = Cluster::start();
    // Changes are asked of every node: two of the three answer with the leader's address.
    for (node, name) in ["a", "b", "c"].iter().enumerate() {
        cluster
            .node(node)
            .ask(&format!("target create {name}"))
            .well();
    }
    let status = cluster.node(0).json("status");
    assert_eq!(status["members"].as_array().unwrap().len(), 3);
    let leader = status["leader"].as_u64().unwrap();
    let next = leader % 3 + 1;
    cluster
        .node(0)
        .ask(&format!("member transfer-leader {next}"))
        .well();
    until("it leads", || {
        cluster.node(0).look("status")["leader"] == next
    });
    let lost = usize::try_from(next).unwrap() - 1;
    cluster.kill(lost);
    let endpoints = cluster.endpoints().join(",");
    let said = run(&[
        "--endpoints",
        &endpoints,
        "--timeout",
        "30s",
        "target",
        "create",
        "d",
    ]);
    assert!(said.code == 0 || said.code == 3, "{said:?}");
    until("the others go on", || {
        run(&[
            "--endpoints",
            &endpoints,
            "target",
            "set",
            "a",
            "--description",
            "x",
        ])
        .code
            == 0
    });
    cluster.restart(lost);
    until("it has caught up", || {
        cluster.node(lost).look("target get a")["description"] == "x"
    });
    // Node 1 would begin the cluster; without its data it must not begin it a second time.
    cluster.kill(0);
    fs::remove_dir_all(cluster.data(0)).unwrap();
    let address = |port: usize| format!("127.0.0.1:{}", cluster.ports[port]);
    let (listen, http) = (address(0), address(3));
    let wiped = [
        "serve",
        "--log-level",
        "error",
        "--members",
        &cluster.members,
        "--listen",
        &listen,
    ];
    let data = cluster.data(0);
    run(&[
        &wiped[..],
        &["--http-listen", &http, "--data-dir", arg(&data)],
    ]
    .concat())
    .failed(
        1,
        &[
            "belongs to a cluster already",
            "leasehold member remove",
            "new number",
        ],
    );
    assert_eq!(cluster.end(libc::SIGTERM), [0, 0]);
}

#[test]
fn a_member_is_added_promoted_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let ports: [u16; 4] = free_ports();
    let data = |name: &str| directory.path().join(name);
    let first = Running::serve(
        ports[0],
        ports[1],
        &["--bootstrap", "--data-dir", arg(&data("d1"))],
    );
    first.ready();
    let second = Running::serve(
        ports[2],
        ports[3],
        &["--node-id", "2", "--data-dir", arg(&data("d2"))],
    );
    until("it says why it is not ready", || {
        second
            .get("/readyz")
            .is_some_and(|(_, text)| text.contains("no cluster yet"))
    });
    first.ask("member promote 2").failed(5, &["2"]);
    first
        .ask(&format!("member add 2 127.0.0.1:{}", ports[2]))
        .well();
    second.ready();
    until("it may vote", || first.ask("member promote 2").code == 0);
    assert_eq!(first.json("member list")["members"][1]["role"], "voter");
    first.ask("member remove 2").failed(2, &["--yes"]);
    first.ask("member remove 2 --yes").well();
    assert_eq!(
        first.json("member list")["members"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn serve_refuses_what_is_unsafe_or_wrong_and_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leasehold.toml");
    run(&words("serve --listen 0.0.0.0:7400")).failed(2, &["--insecure", "node.listen"]);
    run(&words("serve --set timers.election_max=2s")).failed(2, &["ttl.min", "outlive"]);
    run(&words("serve --set nonsense=1")).failed(2, &["unknown key nonsense"]);
    run(&words("serve --node-id zero")).failed(2, &["--node-id", "number"]);
    run(&words("serve --config missing.toml")).failed(2, &["cannot read missing.toml"]);
    fs::write(&file, "[node]\nlistne = 1\n").unwrap();
    run(&["serve", "--config", arg(&file)])
        .failed(2, &["node.listne", "did you mean node.listen?"]);
    run(&["config", "check", arg(&file)]).failed(2, &["node.listne"]);
    let variable = program()
        .env("LEASEHOLD_NODE__ID", "x")
        .arg("serve")
        .output()
        .unwrap();
    assert_eq!(variable.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&variable.stderr).contains("LEASEHOLD_NODE__ID"));
    fs::write(&file, run(&words("config print-default")).well()).unwrap();
    assert!(
        run(&["config", "check", arg(&file)])
            .well()
            .contains("is good")
    );
    let printed = run(&["config", "check", arg(&file), "--print"]).well();
    assert!(
        printed.contains("heartbeat") || printed.contains("profile = \"default\""),
        "{printed}"
    );
    fs::write(directory.path().join("mine"), "not yours").unwrap();
    let [port, http] = free_ports();
    let (listen, http) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{http}"));
    let foreign = [
        "serve",
        "--bootstrap",
        "--listen",
        &listen,
        "--http-listen",
        &http,
        "--log-level",
        "error",
        "--data-dir",
    ];
    run(&[&foreign[..], &[arg(directory.path())]].concat())
        .failed(1, &["not a replica's directory", "nothing was changed"]);
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let data = directory.path().join("d");
    run(&[&foreign[..], &[arg(&data)]].concat())
        .failed(1, &["another program listens there", "--listen"]);
    drop(taken);
}

#[test]
fn a_snapshot_is_saved_checked_and_restored_into_a_new_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let [port, http] = free_ports();
    let (file, data) = (
        directory.path().join("a.snap"),
        directory.path().join("new"),
    );
    let dev = Running::dev(&[]);
    dev.ask("target create cart --slices 4").well();
    let saved = dev.json(&format!("snapshot save {}", arg(&file)));
    assert_eq!(saved["incarnation"], 1);
    dev.ask(&format!("snapshot save {}", arg(&file)))
        .failed(2, &["--force"]);
    dev.ask(&format!("snapshot save {} --force", arg(&file)))
        .well();
    dev.kill();
    assert!(
        run(&["snapshot", "inspect", arg(&file)])
            .well()
            .contains("intact")
    );
    let mut damaged = fs::read(&file).unwrap();
    damaged[20] ^= 1;
    let bad = directory.path().join("bad.snap");
    fs::write(&bad, &damaged).unwrap();
    run(&["snapshot", "inspect", arg(&bad)]).failed(1, &["not an intact snapshot"]);

    let advertise = format!("127.0.0.1:{port}");
    let restore = |incarnation: &str, more: &[&str]| {
        let line = [
            "snapshot",
            "restore",
            arg(&file),
            "--cluster",
            "new",
            "--node-id",
            "1",
            "--advertise",
            &advertise,
        ];
        run(&[
            &line[..],
            &["--data-dir", arg(&data), "--incarnation", incarnation],
            more,
        ]
        .concat())
    };
    restore("2", &[]).failed(2, &["--old-cluster-stopped"]);
    restore("1", &["--old-cluster-stopped"]).failed(2, &["larger than 1"]);
    assert!(!data.exists());
    assert!(
        restore("2", &["--old-cluster-stopped"])
            .well()
            .contains("1 targets restored")
    );
    restore("3", &["--old-cluster-stopped"]).failed(1, &["new"]);
    let serve = Running::serve(port, http, &["--cluster", "new", "--data-dir", arg(&data)]);
    serve.ready();
    let status = serve.look("status");
    assert_eq!(
        (&status["incarnation"], &status["targets"][0]["target"]),
        (&2.into(), &"cart".into())
    );
    until("the wait after the restore ends", || {
        serve.ask("status").code == 0
    });
    assert_eq!(serve.end(libc::SIGTERM), 0);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = program()
        .args(["config", "print-default"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
