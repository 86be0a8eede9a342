//! What operators ask and are answered is decoded to the same value.

#![cfg(feature = "wire")]

#[path = "common/strategies.rs"]
mod strategies;

use std::fmt::Debug;

use leasehold_proto::id::Incarnation;
use leasehold_proto::wire::admin::*;
use leasehold_proto::wire::listing::*;
use leasehold_proto::wire::{WireError, pb};
use leasehold_proto::{HandoffId, SessionId, limits};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use prost::Message;
use strategies as s;

fn check<P, N>(noun: N)
where
    P: Message + Default + for<'a> From<&'a N>,
    N: TryFrom<P, Error = WireError> + Debug + PartialEq,
{
    let message = P::decode(P::from(&noun).encode_to_vec().as_slice()).expect("what was encoded");
    assert_eq!(N::try_from(message), Ok(noun));
}

fn reason() -> impl Strategy<Value = Option<String>> {
    of(s::text(limits::TEXT_BYTES))
}

fn given() -> impl Strategy<Value = String> {
    "[a-z ]{0,40}[a-z]"
}

fn target_info() -> impl Strategy<Value = TargetInfo> {
    let numbers = any::<([u64; 6], u64, u64, u32)>();
    (
        s::target(),
        s::config(),
        any::<u64>(),
        s::mode(),
        s::generation(),
        any::<bool>(),
        numbers,
    )
        .prop_map(
            |(
                target,
                config,
                config_version,
                mode,
                generation,
                deleted,
                (some, unarmed_sessions, watchers, ghosts_uncounted),
            )| {
                let [
                    slices,
                    vacant_slices,
                    open_handoffs,
                    live_sessions,
                    draining_sessions,
                    ghosts,
                ] = some;
                TargetInfo {
                    target,
                    config,
                    config_version,
                    mode,
                    generation,
                    deleted,
                    slices,
                    vacant_slices,
                    open_handoffs,
                    live_sessions,
                    draining_sessions,
                    ghosts,
                    ghosts_uncounted,
                    unarmed_sessions,
                    watchers,
                }
            },
        )
}

fn session_info() -> impl Strategy<Value = SessionInfo> {
    let fixed = (
        s::session(),
        s::squid(),
        s::clock(),
        s::ttl(),
        s::text(limits::APP_VERSION_BYTES),
    );
    let state = (
        s::phase(),
        any::<bool>(),
        of(s::generation()),
        any::<u64>(),
        of(0.0..1e9),
        of(s::nanos()),
    );
    (fixed, state).prop_map(
        |(
            (session, squid, clock, ttl, app_version),
            (phase, draining, acked_arming, slices, load_per_s, answered_ago),
        )| {
            SessionInfo {
                session,
                squid,
                clock,
                ttl,
                app_version,
                phase,
                draining,
                acked_arming,
                slices,
                load_per_s,
                answered_ago,
            }
        },
    )
}

fn member() -> impl Strategy<Value = Member> {
    let role = prop_oneof![Just(MemberRole::Voter), Just(MemberRole::Learner)];
    (
        1..=u64::MAX,
        s::address(),
        s::address(),
        role,
        of(any::<u64>()),
        of(s::nanos()),
    )
        .prop_map(
            |(node, peer_address, service_address, role, matched_index, heard_ago)| Member {
                node,
                peer_address,
                service_address,
                role,
                matched_index,
                heard_ago,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn targets(target in s::target(), config in s::config(), change in s::change(), version in of(any::<u64>()), cuts in 1u32..=65_536, reason in reason(), linearizable: bool) {
        check::<pb::CreateTargetRequest, _>(CreateTarget { target: target.clone(), config, initial_slices: cuts, reason: reason.clone() });
        check::<pb::UpdateTargetRequest, _>(UpdateTarget { target: target.clone(), expected_version: version, change, reason: reason.clone() });
        check::<pb::DeleteTargetRequest, _>(DeleteTarget { target: target.clone(), expected_version: version, reason });
        check::<pb::GetTargetRequest, _>(GetTarget { target, linearizable });
    }

    #[test]
    fn pages(target in s::target(), key in s::key(), id in of(1..=u64::MAX), limit in 0u32..=4_096, flags: (bool, bool)) {
        let session = id.map(SessionId::from_u64);
        let (with_handoff, vacant) = flags;
        check::<pb::ListSlicesRequest, _>(ListSlices { target: target.clone(), from_key: key, limit, session, with_handoff, vacant });
        check::<pb::ListSessionsRequest, _>(ListSessions { target: target.clone(), after: session, limit });
        check::<pb::ListHandoffsRequest, _>(ListHandoffs { target, after: id.map(HandoffId::from_u64), limit });
    }

    #[test]
    fn slices(target in s::target(), key in s::key(), slice in s::slice(), session in s::session(), address in s::address(), reason in reason(), bytes: Vec<u8>) {
        let (by_session, by_address) = (MoveTo::Session(session), MoveTo::Address(address));
        check::<pb::MoveSliceRequest, _>(MoveSlice { target: target.clone(), which: SliceToMove::Exactly(slice), to: by_session, reason: reason.clone() });
        check::<pb::MoveSliceRequest, _>(MoveSlice { target: target.clone(), which: SliceToMove::Holding(key), to: by_address, reason: reason.clone() });
        check::<pb::SplitSliceRequest, _>(SplitSlice { target: target.clone(), at: key, reason: reason.clone() });
        check::<pb::MergeSlicesRequest, _>(MergeSlices { target: target.clone(), slice_key: key, reason });
        check::<pb::LookupKeyRequest, _>(LookupKey { target: target.clone(), key: KeyToLookUp::Application(bytes) });
        check::<pb::LookupKeyRequest, _>(LookupKey { target, key: KeyToLookUp::Hashed(key) });
    }

    #[test]
    fn sessions(target in s::target(), session in s::session(), handoff in s::handoff_id(), reason in reason(), given in given()) {
        check::<pb::CancelHandoffRequest, _>(CancelHandoff { target: target.clone(), handoff, reason: reason.clone() });
        check::<pb::DrainSessionRequest, _>(DrainSession { target: target.clone(), session, reason });
        check::<pb::CloseSessionRequest, _>(CloseSession { target: target.clone(), session, reason: given.clone() });
        check::<pb::ForgetGhostRequest, _>(ForgetGhost { target: target.clone(), session: Some(session), reason: given.clone() });
        check::<pb::ForgetGhostRequest, _>(ForgetGhost { target, session: None, reason: given });
    }

    #[test]
    fn members(node in 1..=u64::MAX, peer in s::address(), service in s::address(), reason in reason()) {
        check::<pb::AddMemberRequest, _>(AddMember { node, peer_address: peer, service_address: service, reason: reason.clone() });
        check::<pb::PromoteMemberRequest, _>(PromoteMember { node, reason: reason.clone() });
        check::<pb::RemoveMemberRequest, _>(RemoveMember { node, reason: reason.clone() });
        check::<pb::TransferLeaderRequest, _>(TransferLeader { node, reason });
    }

    #[test]
    fn answers_about_targets(infos in vec(target_info(), 1..4)) {
        check::<pb::GetTargetReply, _>(OneTarget { target: infos[0].clone() });
        check::<pb::ListTargetsReply, _>(AllTargets { targets: infos });
    }

    #[test]
    fn answers_about_slices(
        generation in s::generation(),
        slices in vec((s::slice(), s::assigned(), s::generation(), of(0.0..1e9), of(any::<u64>())), 0..4),
        pods in vec((s::session(), s::address()), 0..4),
        slice in (s::slice(), s::assigned()),
        key in s::key(),
    ) {
        let info = |(slice, assigned, changed_at, load_per_s, state_bytes)| SliceInfo { slice, assigned, changed_at, load_per_s, state_bytes };
        let slices = slices.into_iter().map(info).collect();
        check::<pb::ListSlicesReply, _>(SlicePage { generation, slices, pods: pods.clone(), next_key: Some(key) });
        check::<pb::LookupKeyReply, _>(KeyInfo { slice_key: key, generation, slice, pods });
    }

    #[test]
    fn answers_about_sessions(
        sessions in vec(session_info(), 0..4),
        next_after in of(s::session()),
        handoffs in vec((s::slice(), s::lease(), s::handoff(), of(s::nanos())), 0..4),
        handoff in of(s::handoff_id()),
    ) {
        check::<pb::ListSessionsReply, _>(SessionPage { sessions, next_after });
        let info = |(slice, from, handoff, open_for)| HandoffInfo { slice, from, handoff, open_for };
        check::<pb::ListHandoffsReply, _>(HandoffPage { handoffs: handoffs.into_iter().map(info).collect(), next_after: handoff });
        check::<pb::MoveSliceReply, _>(SliceMoved { handoff });
    }

    #[test]
    fn answers_about_the_cluster(
        numbers: [u64; 4],
        leader: Option<u64>,
        incarnation in s::incarnation(),
        restore_wait: bool,
        members in vec(member(), 0..4),
        texts in (s::text(512), s::text(512)),
        applied in s::log_id(),
        chunk: Vec<u8>,
    ) {
        let [node, term, committed_index, applied_index] = numbers;
        let (version, halted) = texts;
        check::<pb::ClusterStatusReply, _>(ClusterStatus {
            node, leader, term, committed_index, applied_index, incarnation, restore_wait, members, version, halted,
        });
        check::<pb::SaveSnapshotReply, _>(SnapshotPart::Chunk(chunk.into()));
        let end = SnapshotEnd { total_bytes: term, crc32c: node as u32, applied, incarnation: Incarnation::FIRST };
        check::<pb::SaveSnapshotReply, _>(SnapshotPart::End(end));
    }
}

#[test]
fn requests_beyond_a_page_are_refused() {
    let request = pb::ListSlicesRequest {
        target: "cart".into(),
        limit: limits::PAGE_ITEMS as u32 + 1,
        ..Default::default()
    };
    assert_eq!(
        ListSlices::try_from(request).expect_err("too many").field(),
        "ListSlicesRequest.limit"
    );
    let request = pb::AddMemberRequest {
        node: 0,
        peer_address: "a:1".into(),
        service_address: "a:2".into(),
        reason: None,
    };
    assert_eq!(
        AddMember::try_from(request).expect_err("no node").field(),
        "AddMemberRequest.node"
    );
}
