//! What every report prints, both ways, compared with files: the JSON is a promise, the tables are
//! looked at when they change. `UPDATE_GOLDEN=1 cargo test -p leasehold-assigner golden` rewrites
//! the files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use leasehold_proto::target::{Consistency, Hold, TargetConfig};
use leasehold_proto::wire::listing::{
    ClusterStatus, HandoffInfo, Member, MemberRole, SessionInfo, SliceInfo, TargetInfo,
};
use leasehold_proto::wire::pb;
use leasehold_proto::{
    Assigned, Epoch, Generation, Lease, Mode, PodAddress, SessionId, Slice, SliceKey, Squid,
    TargetName,
};
use leasehold_proto::{ClockClass, HandoffId, id::Incarnation, table::SessionPhase, view::Handoff};

use super::handoff::{HandoffReport, Handoffs, OneHandoff};
use super::key::Found;
use super::member::{Members, members};
use super::output::{Done, Report, json};
use super::pod::{Pod, PodSession, Pods};
use super::session::{SessionReport, Sessions};
use super::slice::{Shifted, SliceRange, SliceReport, Slices};
use super::status::Status;
use super::target::{TargetReport, Targets};

fn same(name: &str, report: &impl Report) {
    let forms = [
        ("txt", report.human()),
        ("json", json(report).expect("serialises")),
    ];
    for (form, text) in forms {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/cli/golden/{name}.{form}"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, text + "\n").expect("writes");
            continue;
        }
        let wanted = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            text + "\n",
            wanted,
            "{name}.{form} has changed; UPDATE_GOLDEN=1 accepts it"
        );
    }
}

fn generation(number: u64) -> Generation {
    pb::Generation {
        incarnation: 1,
        number,
    }
    .try_into()
    .expect("in bounds")
}

fn epoch(number: u64) -> Epoch {
    pb::Epoch {
        incarnation: 1,
        number,
    }
    .try_into()
    .expect("in bounds")
}

fn session(number: u64) -> SessionId {
    format!("s{number}").parse().expect("a session")
}

fn handoff(number: u64) -> HandoffId {
    format!("h{number}").parse().expect("a handoff")
}

fn address(number: u64) -> PodAddress {
    PodAddress::new(&format!("10.0.0.{number}:9000")).expect("an address")
}

fn slice(first: u64, last: u64) -> Slice {
    Slice::new(SliceKey::from_u64(first), SliceKey::from_u64(last)).expect("not empty")
}

fn target(name: &str) -> TargetInfo {
    TargetInfo {
        target: TargetName::new(name).expect("a name"),
        config: TargetConfig::default(),
        config_version: 3,
        mode: Mode::Strong,
        generation: generation(1_234),
        deleted: false,
        slices: 64,
        vacant_slices: 2,
        open_handoffs: 1,
        live_sessions: 5,
        draining_sessions: 1,
        ghosts: 0,
        ghosts_uncounted: 0,
        unarmed_sessions: 0,
        watchers: 12,
    }
}

fn targets() -> Vec<TargetReport> {
    let mut arming = target("presence");
    arming.mode = Mode::Arming(generation(1_200));
    (arming.unarmed_sessions, arming.ghosts) = (2, 3);
    let mut held = target("sessions-eu");
    held.config.consistency = Consistency::Eventual;
    held.mode = Mode::Eventual;
    held.config.hold = Some(Hold {
        reason: "ticket 4711".into(),
    });
    held.config.ttl = Duration::from_millis(1_500);
    held.deleted = true;
    vec![target("cart").into(), arming.into(), held.into()]
}

fn pods() -> BTreeMap<SessionId, PodAddress> {
    BTreeMap::from([(session(17), address(7)), (session(18), address(8))])
}

fn moving() -> Assigned {
    Assigned {
        owner: Some(Lease {
            session: session(17),
            epoch: epoch(40),
        }),
        handoff: Some(Handoff {
            id: handoff(9),
            to: session(18),
            epoch: epoch(1_230),
            ask_cancel: true,
            to_closed: false,
        }),
        replicas: Box::new([session(18), session(19)]),
        provider: None,
    }
}

fn slices() -> Vec<SliceReport> {
    let vacant = Assigned {
        owner: None,
        handoff: None,
        replicas: Box::new([]),
        provider: None,
    };
    let owned = Assigned {
        owner: Some(Lease {
            session: session(18),
            epoch: epoch(41),
        }),
        ..vacant.clone()
    };
    let info = |slice, assigned, load_per_s, state_bytes| {
        SliceReport::new(
            SliceInfo {
                slice,
                assigned,
                changed_at: generation(1_230),
                load_per_s,
                state_bytes,
            },
            &pods(),
        )
    };
    vec![
        info(
            slice(0, 0x3fff_ffff_ffff_ffff),
            moving(),
            Some(1_250.5),
            Some(4_096),
        ),
        info(
            slice(0x4000_0000_0000_0000, 0x7fff_ffff_ffff_ffff),
            owned,
            None,
            None,
        ),
        info(slice(0x8000_0000_0000_0000, u64::MAX), vacant, None, None),
    ]
}

fn cluster() -> ClusterStatus {
    let member = |node, role, matched_index| Member {
        node,
        peer_address: PodAddress::new(&format!("10.0.1.{node}:7400")).expect("an address"),
        service_address: PodAddress::new(&format!("10.0.1.{node}:7400")).expect("an address"),
        role,
        matched_index,
        heard_ago: None,
    };
    ClusterStatus {
        node: 1,
        leader: Some(2),
        term: 7,
        committed_index: 1_240,
        applied_index: 1_239,
        incarnation: Incarnation::FIRST,
        restore_wait: false,
        members: vec![
            member(1, MemberRole::Voter, Some(1_240)),
            member(2, MemberRole::Voter, Some(1_240)),
            member(4, MemberRole::Learner, Some(1_000)),
        ],
        version: "0.1.0".into(),
        halted: String::new(),
    }
}

#[test]
fn targets_print() {
    same("targets", &Targets { targets: targets() });
    same(
        "targets_none",
        &Targets {
            targets: Vec::new(),
        },
    );
    same("target", &TargetReport::from(target("cart")));
    same("target_arming", &targets()[1]);
}

#[test]
fn slices_and_keys_print() {
    let all = Slices {
        target: "cart".into(),
        generation: "1#1234".into(),
        slices: slices(),
    };
    same("slices", &all);
    same("slice", &all.slices[0]);
    let slice = SliceReport::assigned(slice(0, 0x3fff_ffff_ffff_ffff), &moving(), &pods());
    same(
        "key",
        &Found {
            target: "cart".into(),
            slice_key: "0x0000000000004711".into(),
            generation: "1#1234".into(),
            slice,
        },
    );
}

#[test]
fn sessions_pods_and_handoffs_print() {
    let info = |number, phase, draining, answered_ago| SessionInfo {
        session: session(number),
        squid: Squid {
            address: address(number),
            id: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        },
        clock: ClockClass::Raw,
        ttl: Duration::from_secs(3),
        app_version: if number == 7 {
            "1.4.2".into()
        } else {
            String::new()
        },
        phase,
        draining,
        acked_arming: None,
        slices: 12,
        load_per_s: Some(99.95),
        answered_ago,
    };
    let some = vec![
        info(
            7,
            SessionPhase::Live,
            true,
            Some(Duration::from_millis(430)),
        ),
        info(8, SessionPhase::Ghost, false, None),
    ];
    let sessions = some.into_iter().map(SessionReport::from).collect();
    same(
        "sessions",
        &Sessions {
            target: "cart".into(),
            sessions,
        },
    );
    let of = |target: &str, session: &str| PodSession {
        target: target.into(),
        session: session.into(),
        phase: "live",
        draining: false,
        slices: 12,
    };
    let sessions = vec![of("cart", "s7"), of("presence", "s9")];
    same(
        "pods",
        &Pods {
            pods: vec![Pod {
                address: "10.0.0.7:9000".into(),
                draining: false,
                slices: 24,
                sessions,
            }],
        },
    );
    let open = HandoffInfo {
        slice: slice(0, 0x3fff_ffff_ffff_ffff),
        from: Lease {
            session: session(17),
            epoch: epoch(40),
        },
        handoff: Handoff {
            id: handoff(9),
            to: session(18),
            epoch: epoch(1_230),
            ask_cancel: true,
            to_closed: true,
        },
        open_for: Some(Duration::from_millis(12_345)),
    };
    same(
        "handoffs",
        &Handoffs {
            target: "cart".into(),
            handoffs: vec![HandoffReport::from(open.clone())],
        },
    );
    let one = OneHandoff {
        target: "cart".into(),
        report: HandoffReport::from(open.clone()),
        from_address: Some(address(7).to_string()),
        to_address: None,
        load_per_s: Some(1_250.5),
        state_bytes: Some(3_500_000_000),
    };
    same("handoff", &one);
}

#[test]
fn a_shift_prints() {
    let shifted = Shifted {
        done: "1 of 64 slices moved from s17 to s18; 3 were shifted before".into(),
        target: "cart".into(),
        from: "s17".into(),
        to: "s18".into(),
        share: Some("5%".into()),
        since: "1#1234".into(),
        slices: 64,
        already: 3,
        shifted: vec![SliceRange::from(&slice(0, 0x3fff_ffff_ffff_ffff))],
        completed: true,
        held: true,
    };
    same("shifted", &shifted);
    let back = Shifted {
        done: "4 of 64 slices are being handed from s18 to s17".into(),
        from: "s18".into(),
        to: "s17".into(),
        share: None,
        already: 0,
        completed: false,
        held: false,
        ..shifted
    };
    same("shifted_back", &back);
}

#[test]
fn the_cluster_prints() {
    same(
        "members",
        &Members {
            members: members(&cluster()),
        },
    );
    let cluster = cluster();
    let status = Status {
        healthy: false,
        problems: vec!["Assigner 1 grants nothing: an example".into()],
        answered_by: cluster.node,
        leader: cluster.leader,
        term: cluster.term,
        committed_index: cluster.committed_index,
        applied_index: cluster.applied_index,
        incarnation: 1,
        restore_wait: false,
        halted: Some("an example".into()),
        version: "0.1.0".into(),
        members: members(&cluster),
        targets: targets(),
    };
    same("status", &status);
    same(
        "done",
        &Done::new("target cart created")
            .with("target", "cart")
            .with("slices", 64),
    );
}
