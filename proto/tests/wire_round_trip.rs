//! What is encoded is decoded to the same value, for every noun, command and record.

#![cfg(feature = "wire")]

#[path = "common/strategies.rs"]
mod strategies;

use std::fmt::Debug;

use leasehold_proto::transfer::Frame;
use leasehold_proto::wire::{self, AssignerMessage, SliceletMessage, WireError, pb};
use proptest::prelude::*;
use prost::Message;

/// Through the message and through its bytes.
fn round_trip<N, P>(noun: &N) -> N
where
    P: Message + Default + for<'a> From<&'a N>,
    N: TryFrom<P, Error = WireError> + Debug,
{
    let bytes = P::from(noun).encode_to_vec();
    let message = P::decode(bytes.as_slice()).expect("what was encoded");
    N::try_from(message).unwrap_or_else(|error| panic!("{noun:?}: {error}"))
}

fn slicelet_message() -> impl Strategy<Value = SliceletMessage> {
    let load = || 0.0..1e12;
    let hot =
        (strategies::key(), load()).prop_map(|(key, load_per_s)| wire::KeyLoad { key, load_per_s });
    let slice_load = (
        strategies::slice(),
        load(),
        any::<u64>(),
        prop::collection::vec(hot, 0..=16),
    )
        .prop_map(
            |(slice, load_per_s, state_bytes, hot_keys)| wire::SliceLoad {
                slice,
                load_per_s,
                state_bytes,
                hot_keys,
            },
        );
    prop_oneof![
        (
            strategies::session(),
            strategies::secret(),
            strategies::target()
        )
            .prop_map(
                |(session, secret, target)| SliceletMessage::Hello(wire::Hello {
                    session,
                    secret,
                    target
                })
            ),
        strategies::renew().prop_map(SliceletMessage::Renew),
        (
            strategies::session(),
            prop::collection::vec(slice_load, 0..4)
        )
            .prop_map(|(session, loads)| SliceletMessage::Load(wire::LoadReport {
                session,
                loads
            })),
    ]
}

fn assigner_message() -> impl Strategy<Value = AssignerMessage> {
    use wire::{ClosedReason as C, RefusedReason as R};
    let closed = prop_oneof![
        Just(C::Expired),
        Just(C::Closed),
        Just(C::TargetDeleted),
        Just(C::Restored),
        Just(C::Unknown),
    ];
    let refused = prop_oneof![
        Just(R::NotLeader),
        Just(R::BadSecret),
        Just(R::NotAttached),
        Just(R::Superseded),
        Just(R::Overload),
        Just(R::HigherIncarnation),
        Just(R::Invalid),
    ];
    prop_oneof![
        strategies::renewed().prop_map(AssignerMessage::Renewed),
        (strategies::session(), strategies::update())
            .prop_map(|(session, update)| AssignerMessage::Pushed { session, update }),
        (strategies::session(), closed)
            .prop_map(|(session, reason)| AssignerMessage::Closed { session, reason }),
        (
            prop::option::of(strategies::session()),
            refused,
            prop::option::of(strategies::address())
        )
            .prop_map(|(session, reason, leader)| AssignerMessage::Refused {
                session,
                reason,
                leader
            }),
    ]
}

fn registration() -> impl Strategy<Value = (wire::RegisterRequest, wire::RegisterReply)> {
    let request = (
        strategies::target(),
        strategies::squid(),
        strategies::clock(),
        strategies::text(128),
    )
        .prop_map(
            |(target, squid, clock, app_version)| wire::RegisterRequest {
                target,
                squid,
                clock,
                app_version,
            },
        );
    let ids = (
        strategies::session(),
        strategies::secret(),
        strategies::ttl(),
        strategies::generation(),
    );
    let settings = (
        strategies::key_hash(),
        strategies::on_lapse(),
        strategies::deadline(),
    );
    let reply = (ids, settings).prop_map(
        |((session, secret, ttl, not_before), (key_hash, on_lapse, handoff_deadline))| {
            wire::RegisterReply {
                session,
                secret,
                ttl,
                not_before,
                key_hash,
                on_lapse,
                handoff_deadline,
            }
        },
    );
    (request, reply)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn commands(command in strategies::command()) {
        prop_assert_eq!(wire::decode_command(&wire::encode_command(&command)), Ok(command));
    }

    #[test]
    fn replies(reply in strategies::reply()) {
        prop_assert_eq!(wire::decode_reply(&wire::encode_reply(&reply)), Ok(reply));
    }

    #[test]
    fn records_and_their_keys(record in strategies::record()) {
        let key = record.key();
        prop_assert_eq!(wire::decode_record_key(&wire::encode_record_key(&key)), Ok(key));
        prop_assert_eq!(wire::decode_record(&wire::encode_record(&record)), Ok(record));
    }

    #[test]
    fn record_keys_sort_as_records_do(one in strategies::record(), other in strategies::record()) {
        let (a, b) = (one.key(), other.key());
        if std::mem::discriminant(&a) == std::mem::discriminant(&b) {
            prop_assert_eq!(a.cmp(&b), wire::encode_record_key(&a).cmp(&wire::encode_record_key(&b)));
        }
    }

    #[test]
    fn updates(update in strategies::update()) {
        prop_assert_eq!(wire::decode_view_update(&wire::encode_view_update(&update)), Ok(update));
    }

    #[test]
    fn messages_of_a_session(up in slicelet_message(), down in assigner_message(), both in registration()) {
        prop_assert_eq!(round_trip::<_, pb::SliceletMessage>(&up), up);
        prop_assert_eq!(round_trip::<_, pb::AssignerMessage>(&down), down);
        prop_assert_eq!(round_trip::<_, pb::RegisterRequest>(&both.0), both.0);
        prop_assert_eq!(round_trip::<_, pb::RegisterReply>(&both.1), both.1);
    }

    #[test]
    fn messages_of_peers(
        ready in strategies::ready(),
        answer in strategies::ready_answer(),
        pull in strategies::pull_request(),
        frame in strategies::frame(),
    ) {
        prop_assert_eq!(round_trip::<_, pb::PullRequest>(&pull), pull);
        let sent = pb::StateFrame::from(frame.clone()).encode_to_vec();
        let received = pb::StateFrame::decode(sent.as_slice()).expect("what was encoded");
        prop_assert_eq!(Frame::try_from(received), Ok(frame));
        prop_assert_eq!(round_trip::<_, pb::ReadyRequest>(&ready), ready);
        prop_assert_eq!(round_trip::<_, pb::ReadyReply>(&answer), answer);
    }

    #[test]
    fn watches(
        target in strategies::target(),
        known in prop::option::of(strategies::generation()),
        client_name in strategies::text(128),
        update in prop::option::of(strategies::update()),
        key_hash in strategies::key_hash(),
    ) {
        let request = wire::WatchRequest { target, known, client_name };
        prop_assert_eq!(round_trip::<_, pb::WatchRequest>(&request), request);
        let reply = wire::WatchReply { update, key_hash };
        let ready_made = wire::watch_message(reply.update.as_ref().map(wire::encode_view_update).unwrap_or_default(), key_hash);
        prop_assert_eq!(&ready_made, &pb::WatchReply::from(&reply));
        prop_assert_eq!(round_trip::<_, pb::WatchReply>(&reply), reply);
    }

    #[test]
    fn updates_serialised_before(session in strategies::session(), seq: u64, ttl in strategies::ttl(), update in strategies::update()) {
        let bytes = wire::encode_view_update(&update);
        let renewed = leasehold_proto::message::Renewed { session, seq, ttl, update: Some(update.clone()) };
        prop_assert_eq!(
            AssignerMessage::try_from(wire::renewed_message(session, seq, ttl, bytes.clone())),
            Ok(AssignerMessage::Renewed(renewed))
        );
        prop_assert_eq!(
            AssignerMessage::try_from(wire::pushed_message(session, bytes)),
            Ok(AssignerMessage::Pushed { session, update })
        );
    }
}

#[test]
fn a_secret_is_never_printed() {
    let message = pb::CloseRequest {
        target: "cart".into(),
        session: 1,
        secret: Some(pb::SessionSecret {
            value: vec![0xab; 16],
        }),
    };
    let printed = format!("{message:?}");
    assert!(
        printed.contains("SessionSecret(..)") && !printed.contains("171"),
        "{printed}"
    );
}
