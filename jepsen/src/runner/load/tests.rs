use std::collections::{BTreeMap, BTreeSet};

use leasehold_checkers::{Kind, Op};

use super::*;
use crate::store::read_lines;
use crate::toy::{Manner, Toy, ToyWorkload};
use leasehold_faults::TrueTime;

/// Loads the toy for a while and gives what was recorded.
fn loaded(manner: Manner, workers: usize, time: Duration) -> (Vec<Op>, Vec<SeatReport>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    let workload: Box<dyn Workload> = Box::new(ToyWorkload::new(workers));
    let share = shares([workload.as_ref()]).remove(0);
    let load = Arc::new(Load {
        system: Arc::new(Toy::serve(manner)),
        hosts: Vec::new(),
        clients: vec!["c1".into(), "c2".into()],
        enter: Box::new(|_| Ok(())),
        parts: vec![Arc::new(Part::new(share, workload))],
        recorder: Recorder::create(&path, TrueTime::now()).unwrap(),
        rate: Some(2000.0),
        seed: 1,
    });
    let running = load.start().unwrap();
    std::thread::sleep(time);
    let reports = running.stop().unwrap();
    (read_lines(&path).unwrap(), reports)
}

#[test]
fn a_process_has_one_operation_at_a_time_and_each_ends() {
    let (ops, reports) = loaded(Manner::Correct, 3, Duration::from_millis(300));
    let mut open: BTreeMap<u64, String> = BTreeMap::new();
    for op in &ops {
        match op.kind {
            Kind::Invoke => assert_eq!(open.insert(op.process, op.f.clone()), None),
            _ => assert_eq!(open.remove(&op.process), Some(op.f.clone())),
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    assert!(ops.iter().any(|op| op.kind == Kind::Ok));
    assert_eq!(reports.len(), 3);
    assert!(reports.iter().all(|report| report.hung == 0));
}

#[test]
fn a_process_whose_operation_ended_unknown_is_retired() {
    let (ops, reports) = loaded(Manner::CutsConnections, 2, Duration::from_millis(500));
    let mut retired = BTreeSet::new();
    for op in &ops {
        assert!(
            !retired.contains(&op.process),
            "{op:?} of a retired process"
        );
        if op.kind == Kind::Info {
            retired.insert(op.process);
        }
    }
    assert!(retired.len() > 2, "each fifth write is cut: {retired:?}");
    // The worker goes on as process + workers: it stays told apart from the others.
    for report in reports {
        assert_eq!(report.process % 2, report.worker);
        assert!(!retired.contains(&report.process));
    }
}

#[test]
fn a_client_that_keeps_no_deadline_is_cut_off_and_counted() {
    let (ops, reports) = loaded(Manner::ClientHangs, 1, Duration::from_millis(100));
    assert_eq!(
        ops.iter().map(|op| op.kind).collect::<Vec<_>>(),
        [Kind::Invoke, Kind::Info]
    );
    assert_eq!(reports[0].hung, 1);
}

#[test]
fn workers_are_dealt_to_workloads_in_order() {
    let (a, b) = (ToyWorkload::new(2), ToyWorkload::new(3));
    let shares = shares([&a as &dyn Workload, &b]);
    assert_eq!((shares[0].first, shares[0].count), (0, 2));
    assert_eq!((shares[1].first, shares[1].count), (2, 3));
    assert!(shares[1].has(4, 5) && shares[1].has(9, 5));
    assert!(!shares[1].has(0, 5) && !shares[1].has(6, 5));
}
