//! Decoders refuse what is outside the bounds, name the field, and never panic.

#![cfg(feature = "wire")]

#[path = "common/strategies.rs"]
mod strategies;

use leasehold_proto::command::Command;
use leasehold_proto::message::Renew;
use leasehold_proto::target::TargetConfig;
use leasehold_proto::wire::{
    self, AssignerMessage, Problem, Redirect, SliceletMessage, WireError, admin, listing, pb,
};
use leasehold_proto::{
    Assigned, Epoch, Generation, Mode, PodAddress, SessionId, Slice, View, ViewDiff, ViewUpdate,
    limits,
};
use proptest::prelude::*;
use prost::Message;

fn generation(number: u64) -> Option<pb::Generation> {
    Some(pb::Generation {
        incarnation: 1,
        number,
    })
}

fn strong() -> Option<pb::Mode> {
    Some(pb::Mode {
        kind: pb::ModeKind::Strong as i32,
        arming: None,
    })
}

fn entry(first: u64, last: u64) -> pb::SliceEntry {
    pb::SliceEntry {
        slice: Some(pb::SliceRange { first, last }),
        assigned: Some(pb::Assigned::default()),
    }
}

fn refused<N: std::fmt::Debug>(result: Result<N, WireError>, field: &str) -> Problem {
    let error = result.expect_err(field);
    assert_eq!(error.field(), field, "{error}");
    error.problem().clone()
}

/// Decodes `bytes` as every message that anyone may receive; whatever comes of it is no panic.
fn decode_as_everything(bytes: &[u8]) {
    let _ = wire::decode_command(bytes);
    let _ = wire::decode_reply(bytes);
    let _ = wire::decode_view_update(bytes);
    let _ = wire::decode_record(bytes);
    let _ = wire::decode_record_key(bytes);
    macro_rules! as_each {
        ($($wire:ident => $noun:ty),* $(,)?) => {
            $(if let Ok(message) = pb::$wire::decode(bytes) { let _ = <$noun>::try_from(message); })*
        };
    }
    as_each! {
        SliceletMessage => SliceletMessage, AssignerMessage => AssignerMessage, WatchReply => wire::WatchReply,
        RegisterRequest => wire::RegisterRequest, RegisterReply => wire::RegisterReply, Renew => Renew,
        ReadyReply => leasehold_proto::message::ReadyAnswer, PullRequest => wire::PullRequest,
        StateFrame => leasehold_proto::transfer::Frame<bytes::Bytes>, Redirect => Redirect,
        CreateTargetRequest => admin::CreateTarget, UpdateTargetRequest => admin::UpdateTarget,
        MoveSliceRequest => admin::MoveSlice, LookupKeyRequest => admin::LookupKey, ListSlicesReply => listing::SlicePage,
        ListSessionsReply => listing::SessionPage, ClusterStatusReply => listing::ClusterStatus,
        SaveSnapshotReply => listing::SnapshotPart, ListTargetsReply => listing::AllTargets,
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        decode_as_everything(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(
        command in strategies::command(),
        update in strategies::update(),
        record in strategies::record(),
        at: prop::sample::Index,
        to: u8,
    ) {
        let encoded = [wire::encode_command(&command).to_vec(), wire::encode_view_update(&update).to_vec(), wire::encode_record(&record)];
        for mut bytes in encoded {
            let index = at.index(bytes.len());
            decode_as_everything(&bytes[..index]);
            bytes[index] = to;
            decode_as_everything(&bytes);
        }
    }

    #[test]
    fn what_decodes_encodes_to_the_same_value(command in strategies::command(), at: prop::sample::Index, to: u8) {
        let mut bytes = wire::encode_command(&command).to_vec();
        let index = at.index(bytes.len());
        bytes[index] = to;
        if let Ok(command) = wire::decode_command(&bytes) {
            prop_assert_eq!(wire::decode_command(&wire::encode_command(&command)), Ok(command));
        }
    }
}

#[test]
fn minted_numbers_have_their_bounds() {
    for (incarnation, number) in [(0, 1), (1 << 15, 1), (1 << 20, 1), (1, 1 << 48)] {
        refused(
            Generation::try_from(pb::Generation {
                incarnation,
                number,
            }),
            "Generation",
        );
        refused(
            Epoch::try_from(pb::Epoch {
                incarnation,
                number,
            }),
            "Epoch",
        );
    }
    let lease = pb::Lease {
        session: 0,
        epoch: Some(pb::Epoch {
            incarnation: 1,
            number: 1,
        }),
    };
    assert_eq!(
        refused(leasehold_proto::Lease::try_from(lease), "Lease.session"),
        Problem::Missing
    );
}

#[test]
fn a_mode_names_its_arming_and_only_then() {
    let mode = |kind, arming| Mode::try_from(pb::Mode { kind, arming });
    assert_eq!(refused(mode(0, None), "Mode.kind"), Problem::Missing);
    assert_eq!(refused(mode(77, None), "Mode.kind"), Problem::Unknown(77));
    assert_eq!(
        refused(mode(pb::ModeKind::Arming as i32, None), "Mode.arming"),
        Problem::Missing
    );
    refused(
        mode(pb::ModeKind::Strong as i32, generation(3)),
        "Mode.arming",
    );
}

#[test]
fn a_view_covers_every_key_once() {
    let view = |slices| {
        View::try_from(pb::View {
            generation: generation(3),
            mode: strong(),
            slices,
            pods: vec![],
        })
    };
    assert!(view(vec![entry(0, 9), entry(10, u64::MAX)]).is_ok());
    for slices in [
        vec![],
        vec![entry(0, 9)],
        vec![entry(0, 9), entry(9, u64::MAX)],
        vec![entry(1, u64::MAX)],
    ] {
        refused(view(slices), "View.slices");
    }
    refused(view(vec![entry(9, 0)]), "SliceRange");
    let pods = vec![
        pb::PodEntry {
            session: 1,
            address: "a:1".into()
        };
        limits::PODS_PER_VIEW + 1
    ];
    let view = pb::View {
        generation: generation(3),
        mode: strong(),
        slices: vec![entry(0, u64::MAX)],
        pods,
    };
    assert!(matches!(
        refused(View::try_from(view), "View.pods"),
        Problem::TooMuch { .. }
    ));
}

#[test]
fn a_difference_goes_forward_in_order() {
    let diff = |base, end, changed| {
        ViewDiff::try_from(pb::ViewDiff {
            base: generation(base),
            generation: generation(end),
            mode: strong(),
            changed,
            pods: vec![],
        })
    };
    assert!(diff(3, 4, vec![entry(0, 9), entry(20, 29)]).is_ok());
    refused(diff(5, 4, vec![]), "ViewDiff.base");
    refused(
        diff(3, 4, vec![entry(20, 29), entry(0, 9)]),
        "ViewDiff.changed",
    );
    refused(
        diff(3, 4, vec![entry(0, 9), entry(5, 19)]),
        "ViewDiff.changed",
    );
}

#[test]
fn lists_and_texts_have_their_bounds() {
    let replicas = vec![7; limits::REPLICAS_PER_SLICE + 1];
    refused(
        Assigned::try_from(pb::Assigned {
            replicas,
            ..pb::Assigned::default()
        }),
        "Assigned.replicas",
    );
    let word = pb::Word {
        handoff: 1,
        kind: pb::WordKind::Refused as i32,
        digest: vec![],
    };
    let renew = pb::Renew {
        session: 1,
        seq: 1,
        words: vec![word; limits::WORDS_PER_RENEWAL + 1],
        ..Default::default()
    };
    refused(Renew::try_from(renew), "Renew.words");
    let request = pb::WatchRequest {
        target: "cart".into(),
        known: None,
        client_name: "x".repeat(limits::CLIENT_NAME_BYTES + 1),
    };
    refused(
        wire::WatchRequest::try_from(request),
        "WatchRequest.client_name",
    );
    let request = pb::WatchRequest {
        target: "no name".into(),
        known: None,
        client_name: String::new(),
    };
    refused(wire::WatchRequest::try_from(request), "WatchRequest.target");
    let steps = vec![pb::PlanStep::default(); limits::PLAN_STEPS + 1];
    let command = pb::command::Command::ApplyPlan(pb::ApplyPlanCommand {
        target: "cart".into(),
        config_version: 1,
        steps,
    });
    refused(
        Command::try_from(pb::Command {
            command: Some(command),
        }),
        "ApplyPlanCommand.steps",
    );
    let chunk = vec![0; limits::CHUNK_BYTES + 1].into();
    let reply = pb::SaveSnapshotReply {
        part: Some(pb::save_snapshot_reply::Part::Chunk(chunk)),
    };
    refused(
        listing::SnapshotPart::try_from(reply),
        "SaveSnapshotReply.chunk",
    );
}

#[test]
fn digests_belong_to_surrenders() {
    let word = |kind: pb::WordKind, digest| {
        leasehold_proto::message::Word::try_from(pb::Word {
            handoff: 1,
            kind: kind as i32,
            digest,
        })
    };
    let problem = refused(word(pb::WordKind::Surrendered, vec![0; 15]), "Word.digest");
    assert_eq!(
        problem,
        Problem::WrongLength {
            found: 15,
            wanted: 16
        }
    );
    refused(word(pb::WordKind::Accepted, vec![0; 16]), "Word.digest");
}

#[test]
fn samples_have_their_bounds() {
    let epoch = Some(pb::Epoch {
        incarnation: 1,
        number: 1,
    });
    let good = pb::StateFrame {
        tag: Some(pb::TransferTag {
            target: "cart".to_owned(),
            slice: Some(pb::SliceRange {
                first: 0,
                last: u64::MAX,
            }),
            from_epoch: epoch,
            to_epoch: epoch,
            handoff: None,
        }),
        mark: pb::StateMark::Last as i32,
        samples: vec![vec![0; limits::STATE_SAMPLE_BYTES]; limits::STATE_SAMPLES],
        ..pb::StateFrame::default()
    };
    let frame = leasehold_proto::transfer::Frame::<bytes::Bytes>::try_from;
    assert!(frame(good.clone()).is_ok());
    let (mut many, mut long) = (good.clone(), good);
    many.samples.push(Vec::new());
    long.samples[1].push(0);
    for bad in [many, long] {
        let problem = refused(frame(bad), "StateFrame.samples");
        assert!(matches!(problem, Problem::TooMuch { .. }), "{problem:?}");
    }
}

#[test]
fn configurations_have_their_bounds() {
    let good = pb::TargetConfig::from(&TargetConfig::default());
    assert!(TargetConfig::try_from(good.clone()).is_ok());
    refused(
        TargetConfig::try_from(pb::TargetConfig {
            ttl_nanos: 1,
            ..good.clone()
        }),
        "TargetConfig.ttl_nanos",
    );
    let endless = pb::TargetConfig {
        handoff_deadline_nanos: u64::MAX,
        ..good.clone()
    };
    refused(
        TargetConfig::try_from(endless),
        "TargetConfig.handoff_deadline_nanos",
    );
    refused(
        TargetConfig::try_from(pb::TargetConfig {
            max_open_handoffs: 0,
            ..good.clone()
        }),
        "TargetConfig",
    );
    refused(
        TargetConfig::try_from(pb::TargetConfig {
            key_hash: 9,
            ..good
        }),
        "TargetConfig.key_hash",
    );
}

#[test]
fn loads_are_finite_and_not_negative() {
    for load_per_s in [f64::NAN, f64::INFINITY, -1.0] {
        refused(
            wire::KeyLoad::try_from(pb::KeyLoad { key: 1, load_per_s }),
            "KeyLoad.load_per_s",
        );
    }
}

#[test]
fn whole_messages_have_their_bounds() {
    let too_large = vec![0; limits::MESSAGE_BYTES + 1];
    assert!(matches!(
        refused(wire::decode_command(&too_large), "Command"),
        Problem::TooMuch { .. }
    ));
    // A length that is claimed and not sent takes no memory.
    let claims = [0x0a, 0xff, 0xff, 0xff, 0xff, 0x07];
    assert!(wire::decode_view_update(&claims).is_err() && wire::decode_command(&claims).is_err());
    refused(wire::decode_view_update(&[]), "ViewUpdate.update");
}

#[test]
fn operators_give_reasons_where_they_must() {
    let forget = |reason: Option<&str>| {
        admin::ForgetGhost::try_from(pb::ForgetGhostRequest {
            target: "cart".into(),
            session: None,
            reason: reason.map(Into::into),
        })
    };
    assert!(forget(Some("node is switched off")).is_ok());
    assert_eq!(
        refused(forget(None), "ForgetGhostRequest.reason"),
        Problem::Missing
    );
    assert_eq!(
        refused(forget(Some(" ")), "ForgetGhostRequest.reason"),
        Problem::Missing
    );
    refused(
        forget(Some(&"x".repeat(limits::TEXT_BYTES + 1))),
        "ForgetGhostRequest.reason",
    );
}

#[test]
fn a_view_as_large_as_its_bounds_fits_its_bytes() {
    let session = SessionId::from_u64(u64::MAX);
    let epoch = Epoch::try_from(pb::Epoch {
        incarnation: 1,
        number: u64::from(u32::MAX),
    })
    .expect("in bounds");
    let lease = leasehold_proto::Lease { session, epoch };
    let assigned = Assigned {
        owner: Some(lease),
        ..Assigned::default()
    };
    let one = pb::SliceEntry::from(&(Slice::ALL, assigned)).encoded_len() + 2;
    let address = PodAddress::new(&format!("{}:1", "h".repeat(60))).expect("an address");
    let pod = pb::PodEntry::from(&(session, address)).encoded_len() + 2;
    assert!(
        one * limits::SLICES_PER_TARGET + pod * limits::SESSIONS_PER_TARGET < limits::VIEW_BYTES
    );
}

#[test]
fn an_update_says_whether_it_is_whole() {
    let view = pb::View {
        generation: generation(3),
        mode: strong(),
        slices: vec![entry(0, u64::MAX)],
        pods: vec![],
    };
    let update = pb::ViewUpdate {
        update: Some(pb::view_update::Update::Full(view)),
    };
    assert!(matches!(
        wire::decode_view_update(&update.encode_to_vec()),
        Ok(ViewUpdate::Full(_))
    ));
}
