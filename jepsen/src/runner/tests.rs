use leasehold_checkers::{Kind as Line, Op};

use super::*;
use crate::store::{finished, read_lines};
use crate::system::Witness;
use crate::toy::{Manner, Toy, ToyWorkload};

/// A run of the toy, without privileges and without faults.
fn plan(store: &std::path::Path) -> Plan {
    Plan {
        name: "toy".into(),
        nemeses: vec!["none".into()],
        seed: 7,
        time_limit: Duration::from_millis(500),
        patience: Duration::from_secs(1),
        network: Kind::Proxy,
        ttl: Duration::from_secs(1),
        rho: 0.0005,
        overlapping: false,
        clients: 2,
        rate: Some(500.0),
        store: store.to_owned(),
        storm: 0,
        mutant: None,
        expect_valid: true,
        must_fail: None,
        options: BTreeMap::new(),
        quiet: true,
    }
}

fn run_toy(plan: &Plan, toy: Toy) -> Finished {
    let system: Arc<dyn System> = Arc::new(toy);
    run(plan, &system, vec![Box::new(ToyWorkload::new(2))]).unwrap()
}

fn of(manner: Manner) -> (tempfile::TempDir, Finished) {
    let store = tempfile::tempdir().unwrap();
    let finished = run_toy(&plan(store.path()), Toy::serve(manner));
    (store, finished)
}

fn verdict_of(finished: &Finished, checker: &str) -> Verdict {
    let outcomes = &finished.results.outcomes;
    let outcome = outcomes.iter().find(|outcome| outcome.checker == checker);
    outcome
        .unwrap_or_else(|| panic!("{checker}: {outcomes:#?}"))
        .verdict
}

#[test]
fn a_correct_register_is_valid_and_leaves_its_files() {
    let (store, done) = of(Manner::Correct);
    assert_eq!(done.results.verdict, Verdict::Valid, "{:#?}", done.results);
    assert_eq!(done.exit_code(), 0);
    let ops: Vec<Op> = read_lines(&done.dir.join("history.jsonl")).unwrap();
    assert!(ops.iter().filter(|op| op.kind == Line::Ok).count() > 10);
    let (dir, test, results) = finished(store.path(), "toy").expect("the newest run");
    assert_eq!(
        dir.canonicalize().unwrap(),
        done.dir.canonicalize().unwrap()
    );
    assert_eq!(test, done.test);
    assert_eq!(results, done.results);
    assert_eq!((test.seed, test.workload.as_str()), (7, "toy"));
}

#[test]
fn a_register_that_loses_acknowledged_writes_is_invalid() {
    let (_store, done) = of(Manner::LosesWrites);
    assert_eq!(done.results.verdict, Verdict::Invalid);
    assert_eq!(verdict_of(&done, "toy"), Verdict::Invalid);
    assert_eq!(done.exit_code(), 1);
}

#[test]
fn no_holds_are_unknown_where_the_system_tells_and_not_asked_for_where_it_does_not() {
    let store = tempfile::tempdir().unwrap();
    let telling = |witness| {
        let toy = Toy::serve(Manner::Correct).telling(witness);
        run_toy(&plan(store.path()), toy)
    };
    let tells = || Witness {
        handoffs: Some(0),
        ..Witness::default()
    };
    let done = telling(tells());
    assert_eq!(verdict_of(&done, "overlap"), Verdict::Unknown);
    assert_eq!(verdict_of(&done, HANDOFFS), Verdict::Valid);
    assert_eq!(done.exit_code(), 2);
    let silent = Witness {
        silent: vec!["p2".into()],
        ..tells()
    };
    assert_eq!(verdict_of(&telling(silent), HANDOFFS), Verdict::Unknown);
    let (_store, done) = of(Manner::Correct);
    let mut checkers = done.results.outcomes.iter().map(|o| o.checker.as_str());
    assert!(!checkers.any(|checker| checker == "overlap"));
}

#[test]
fn unknown_operations_alone_make_no_run_invalid() {
    let (_store, done) = of(Manner::CutsConnections);
    assert_eq!(verdict_of(&done, "toy"), Verdict::Valid);
    assert_ne!(
        done.results.verdict,
        Verdict::Invalid,
        "{:#?}",
        done.results
    );
}

#[test]
fn a_client_that_hangs_leaves_the_run_unknown() {
    let (_store, done) = of(Manner::ClientHangs);
    assert_eq!(verdict_of(&done, "clients"), Verdict::Unknown);
    assert_eq!(
        done.results.verdict,
        Verdict::Unknown,
        "{:#?}",
        done.results
    );
    assert_eq!(done.exit_code(), 2);
}

#[test]
fn a_service_that_does_not_come_back_is_invalid() {
    let (_store, done) = of(Manner::Dies);
    assert_eq!(verdict_of(&done, recovery::CHECKER), Verdict::Invalid);
}

#[test]
fn a_positive_control_passes_by_failing_for_its_own_reason() {
    let store = tempfile::tempdir().unwrap();
    let mut plan = plan(store.path());
    plan.expect_valid = false;
    plan.must_fail = Some("toy".into());
    let failing = run_toy(&plan, Toy::serve(Manner::LosesWrites));
    assert_eq!(failing.results.verdict, Verdict::Invalid);
    assert_eq!(failing.exit_code(), 0);
    let passing = run_toy(&plan, Toy::serve(Manner::Correct));
    assert_eq!(passing.exit_code(), 1);
    let other = run_toy(&plan, Toy::serve(Manner::Dies));
    assert_eq!(other.exit_code(), 1, "it failed, but not by losing writes");
}

#[test]
fn a_system_that_never_gets_ready_is_no_verdict() {
    let store = tempfile::tempdir().unwrap();
    let done = run_toy(&plan(store.path()), Toy::nowhere());
    assert!(done.results.harness_error.is_some());
    assert_eq!(done.exit_code(), 3);
}

#[test]
fn a_process_that_ends_unasked_is_a_finding() {
    // Processes of other hosts need a network of them.
    let (best, why) = Kind::best();
    if best != Kind::Namespaces {
        eprintln!("not tested here: {why}");
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let mut plan = plan(store.path());
    plan.network = Kind::Namespaces;
    // The register is in this process, on the loopback of the network that tests run in: clients
    // in hosts of their own cannot reach it, and none is needed.
    let system: Arc<dyn System> = Arc::new(Toy::always_ready().with_hosts(&["long", "short"]));
    let done = run(&plan, &system, vec![Box::new(ToyWorkload::new(0))]).unwrap();
    assert_eq!(done.results.harness_error, None);
    assert_eq!(verdict_of(&done, "processes"), Verdict::Invalid);
    let processes = done
        .results
        .outcomes
        .iter()
        .find(|o| o.checker == "processes");
    let findings = &processes.unwrap().findings;
    assert_eq!(findings.len(), 1, "only one ended unasked: {findings:?}");
    assert!(findings[0].what.contains("short"));
}
