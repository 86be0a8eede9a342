//! Strategies for every noun, within its bounds. Minted nouns come from their decoders.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::time::Duration;

use bytes::Bytes;
use leasehold_proto::command::{CloseProof, Command, Digest, EndWord, PlanStep, Registered, Reply};
use leasehold_proto::error::Rejection;
use leasehold_proto::id::Incarnation;
use leasehold_proto::message::{Moved, Ready, ReadyAnswer, Renew, Renewed, Surrender, Word};
use leasehold_proto::table::{
    MetaRecord, Record, SessionPhase, SessionRecord, SliceRecord, TargetRecord,
};
use leasehold_proto::target::{
    Consistency, Hold, OnLapse, SessionSecret, TargetChange, TargetConfig,
};
use leasehold_proto::transfer::{Ack, Frame, Mark, TransferTag};
use leasehold_proto::view::{Handoff, Provider};
use leasehold_proto::wire::{PullBegin, PullRequest, pb};
use leasehold_proto::{
    Assigned, ClockClass, Epoch, Generation, HandoffId, KeyHash, Lease, LogId, Mode, PodAddress,
    SessionId, Slice, SliceKey, SliceMap, Squid, TargetName, View, ViewDiff, ViewUpdate, limits,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

pub fn generation() -> impl Strategy<Value = Generation> {
    (
        1..=u32::from(limits::INCARNATION_MAX),
        0..=limits::NUMBER_MAX,
    )
        .prop_map(|(incarnation, number)| {
            pb::Generation {
                incarnation,
                number,
            }
            .try_into()
            .expect("in bounds")
        })
}

pub fn epoch() -> impl Strategy<Value = Epoch> {
    (
        1..=u32::from(limits::INCARNATION_MAX),
        0..=limits::NUMBER_MAX,
    )
        .prop_map(|(incarnation, number)| {
            pb::Epoch {
                incarnation,
                number,
            }
            .try_into()
            .expect("in bounds")
        })
}

pub fn log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId { term, index })
}

pub fn incarnation() -> impl Strategy<Value = Incarnation> {
    (1..=u64::from(limits::INCARNATION_MAX))
        .prop_map(|value| Incarnation::new(value).expect("in bounds"))
}

pub fn session() -> impl Strategy<Value = SessionId> {
    (1..=u64::MAX).prop_map(SessionId::from_u64)
}

pub fn handoff_id() -> impl Strategy<Value = HandoffId> {
    (1..=u64::MAX).prop_map(HandoffId::from_u64)
}

pub fn key() -> impl Strategy<Value = SliceKey> {
    any::<u64>().prop_map(SliceKey::from_u64)
}

pub fn slice() -> impl Strategy<Value = Slice> {
    (key(), key()).prop_map(|(a, b)| Slice::new(a.min(b), a.max(b)).expect("in order"))
}

pub fn target() -> impl Strategy<Value = TargetName> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?".prop_map(|text| TargetName::new(&text).expect("a label"))
}

pub fn address() -> impl Strategy<Value = PodAddress> {
    ("[a-z0-9.-]{1,200}", 1u16..)
        .prop_map(|(host, port)| PodAddress::new(&format!("{host}:{port}")).expect("in bounds"))
}

pub fn text(most: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=most / 4).prop_map(|chars| chars.into_iter().collect())
}

pub fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 16]>().prop_map(Digest)
}

pub fn secret() -> impl Strategy<Value = SessionSecret> {
    any::<[u8; 16]>().prop_map(SessionSecret::from_bytes)
}

pub fn squid() -> impl Strategy<Value = Squid> {
    (address(), any::<u128>()).prop_map(|(address, id)| Squid { address, id })
}

pub fn clock() -> impl Strategy<Value = ClockClass> {
    prop_oneof![Just(ClockClass::Raw), Just(ClockClass::Slewed)]
}

pub fn key_hash() -> impl Strategy<Value = KeyHash> {
    prop_oneof![
        Just(KeyHash::Xxh3),
        Just(KeyHash::FarmHash64),
        Just(KeyHash::Identity)
    ]
}

pub fn on_lapse() -> impl Strategy<Value = OnLapse> {
    prop_oneof![Just(OnLapse::Stop), Just(OnLapse::ServeFenced)]
}

pub fn consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![Just(Consistency::Strong), Just(Consistency::Eventual)]
}

pub fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::Strong),
        Just(Mode::Eventual),
        generation().prop_map(Mode::Arming)
    ]
}

pub fn ttl() -> impl Strategy<Value = Duration> {
    (limits::TTL_MIN.as_nanos() as u64..=limits::TTL_MAX.as_nanos() as u64)
        .prop_map(Duration::from_nanos)
}

pub fn deadline() -> impl Strategy<Value = Duration> {
    (1..=limits::HANDOFF_DEADLINE_MAX.as_nanos() as u64).prop_map(Duration::from_nanos)
}

pub fn nanos() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

pub fn hold() -> impl Strategy<Value = Hold> {
    text(limits::TEXT_BYTES).prop_map(|reason| Hold { reason })
}

fn max_open_handoffs() -> impl Strategy<Value = u32> {
    1..=limits::OPEN_HANDOFFS_PER_TARGET as u32
}

pub fn config() -> impl Strategy<Value = TargetConfig> {
    let names = (consistency(), key_hash(), on_lapse());
    (
        names,
        ttl(),
        deadline(),
        max_open_handoffs(),
        of(hold()),
        text(limits::TEXT_BYTES),
    )
        .prop_map(
            |(
                (consistency, key_hash, on_lapse),
                ttl,
                handoff_deadline,
                max_open_handoffs,
                hold,
                description,
            )| TargetConfig {
                consistency,
                key_hash,
                ttl,
                on_lapse,
                handoff_deadline,
                max_open_handoffs,
                hold,
                description,
            },
        )
}

pub fn change() -> impl Strategy<Value = TargetChange> {
    let names = (of(consistency()), of(on_lapse()));
    (
        names,
        of(ttl()),
        of(deadline()),
        of(max_open_handoffs()),
        of(of(hold())),
        of(text(limits::TEXT_BYTES)),
    )
        .prop_map(
            |(
                (consistency, on_lapse),
                ttl,
                handoff_deadline,
                max_open_handoffs,
                hold,
                description,
            )| TargetChange {
                consistency,
                ttl,
                on_lapse,
                handoff_deadline,
                max_open_handoffs,
                hold,
                description,
            },
        )
}

pub fn lease() -> impl Strategy<Value = Lease> {
    (session(), epoch()).prop_map(|(session, epoch)| Lease { session, epoch })
}

pub fn handoff() -> impl Strategy<Value = Handoff> {
    (
        handoff_id(),
        session(),
        epoch(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(id, to, epoch, ask_cancel, to_closed)| Handoff {
            id,
            to,
            epoch,
            ask_cancel,
            to_closed,
        })
}

pub fn replicas() -> impl Strategy<Value = Vec<SessionId>> {
    vec(session(), 0..=limits::REPLICAS_PER_SLICE)
}

pub fn assigned() -> impl Strategy<Value = Assigned> {
    (of(lease()), of(handoff()), replicas(), of(provider())).prop_map(
        |(owner, handoff, replicas, provider)| Assigned {
            owner,
            handoff,
            replicas: replicas.into(),
            provider,
        },
    )
}

pub fn provider() -> impl Strategy<Value = Provider> {
    let digest = of(digest());
    (lease(), digest).prop_map(|(lease, digest)| Provider { lease, digest })
}

/// Slices in order without overlap; `true` when they leave no gap either.
fn slices(most: usize) -> impl Strategy<Value = Vec<Slice>> {
    proptest::collection::btree_set(1..=u64::MAX, 0..most).prop_map(|starts| {
        let starts: Vec<u64> = std::iter::once(0).chain(starts).collect();
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([u64::MAX]);
        let slice = |(first, last): (&u64, u64)| {
            Slice::new(SliceKey::from_u64(*first), SliceKey::from_u64(last))
        };
        starts
            .iter()
            .zip(ends)
            .map(|pair| slice(pair).expect("in order"))
            .collect()
    })
}

pub fn view() -> impl Strategy<Value = View> {
    let entries = slices(12).prop_flat_map(|slices| {
        let count = slices.len();
        (Just(slices), vec(assigned(), count))
    });
    let pods = proptest::collection::btree_map(session(), address(), 0..8);
    (generation(), mode(), entries, pods).prop_map(
        |(generation, mode, (slices, assigned), pods)| View {
            generation,
            mode,
            slices: SliceMap::new(slices.into_iter().zip(assigned).collect()).expect("a cover"),
            pods,
        },
    )
}

pub fn diff() -> impl Strategy<Value = ViewDiff> {
    let entries = slices(12).prop_flat_map(|slices| {
        let count = slices.len();
        (Just(slices), vec(of(assigned()), count))
    });
    (
        generation(),
        generation(),
        mode(),
        entries,
        vec((session(), address()), 0..8),
    )
        .prop_map(|(one, other, mode, (slices, assigned), pods)| ViewDiff {
            base: one.min(other),
            generation: one.max(other),
            mode,
            changed: slices
                .into_iter()
                .zip(assigned)
                .filter_map(|(slice, entry)| Some((slice, entry?)))
                .collect(),
            pods,
        })
}

pub fn update() -> impl Strategy<Value = ViewUpdate> {
    prop_oneof![
        view().prop_map(ViewUpdate::Full),
        diff().prop_map(ViewUpdate::Diff)
    ]
}

pub fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        (handoff_id(), digest()).prop_map(|(handoff, digest)| Word::Surrendered(handoff, digest)),
        handoff_id().prop_map(Word::Refused),
        handoff_id().prop_map(Word::Accepted),
    ]
}

pub fn renew() -> impl Strategy<Value = Renew> {
    (
        session(),
        any::<u64>(),
        of(generation()),
        vec(word(), 0..8),
        of(generation()),
        of(epoch()),
    )
        .prop_map(|(session, seq, known, words, armed, merging)| Renew {
            session,
            seq,
            known,
            words,
            armed,
            merging,
        })
}

pub fn renewed() -> impl Strategy<Value = Renewed> {
    (session(), any::<u64>(), ttl(), of(update())).prop_map(|(session, seq, ttl, update)| Renewed {
        session,
        seq,
        ttl,
        update,
    })
}

pub fn ready() -> impl Strategy<Value = Ready> {
    (handoff_id(), session(), session()).prop_map(|(handoff, from, to)| Ready { handoff, from, to })
}

pub fn surrender() -> impl Strategy<Value = Surrender> {
    (ready(), digest()).prop_map(|(Ready { handoff, from, to }, digest)| Surrender {
        handoff,
        from,
        to,
        digest,
    })
}

pub fn ready_answer() -> impl Strategy<Value = ReadyAnswer> {
    prop_oneof![
        surrender().prop_map(ReadyAnswer::Surrendered),
        handoff_id().prop_map(ReadyAnswer::Refused),
        session().prop_map(ReadyAnswer::NotMine),
    ]
}

pub fn moved() -> impl Strategy<Value = Moved> {
    (
        slice(),
        handoff_id(),
        session(),
        address(),
        epoch(),
        generation(),
    )
        .prop_map(
            |(slice, handoff, session, address, epoch, generation)| Moved {
                slice,
                handoff,
                session,
                address,
                epoch,
                generation,
            },
        )
}

pub fn step() -> impl Strategy<Value = PlanStep> {
    prop_oneof![
        (slice(), session()).prop_map(|(slice, to)| PlanStep::Grant { slice, to }),
        (slice(), lease(), session()).prop_map(|(slice, from, to)| PlanStep::BeginHandoff {
            slice,
            from,
            to
        }),
        (slice(), of(lease()), session()).prop_map(|(slice, from, to)| PlanStep::Reassign {
            slice,
            from,
            to
        }),
        (slice(), of(lease()), key()).prop_map(|(slice, owner, at)| PlanStep::Split {
            slice,
            owner,
            at
        }),
        (slice(), slice(), session(), of(generation())).prop_map(
            |(left, right, owner, taken_in)| PlanStep::Merge {
                left,
                right,
                owner,
                taken_in
            }
        ),
        (slice(), lease(), replicas()).prop_map(|(slice, owner, replicas)| PlanStep::SetReplicas {
            slice,
            owner,
            replicas
        }),
    ]
}

fn end_word() -> impl Strategy<Value = EndWord> {
    prop_oneof![
        session().prop_map(EndWord::Surrendered),
        session().prop_map(EndWord::Accepted)
    ]
}

pub fn command() -> impl Strategy<Value = Command> {
    let version = || of(any::<u64>());
    let proof = prop_oneof![Just(CloseProof::OwnWord), Just(CloseProof::Reaped)];
    prop_oneof![
        (target(), config(), any::<u32>()).prop_map(|(target, config, initial_slices)| {
            Command::CreateTarget {
                target,
                config,
                initial_slices,
            }
        }),
        (target(), version(), change()).prop_map(|(target, expected_version, change)| {
            Command::UpdateTarget {
                target,
                expected_version,
                change,
            }
        }),
        (target(), version()).prop_map(|(target, expected_version)| Command::DeleteTarget {
            target,
            expected_version
        }),
        (
            target(),
            squid(),
            clock(),
            secret(),
            text(limits::APP_VERSION_BYTES)
        )
            .prop_map(|(target, squid, clock, secret, app_version)| {
                Command::RegisterSession {
                    target,
                    squid,
                    clock,
                    secret,
                    app_version,
                }
            }),
        (target(), session(), proof).prop_map(|(target, session, proof)| Command::CloseSession {
            target,
            session,
            proof
        }),
        (
            target(),
            session(),
            any::<u64>(),
            vec((key(), session()), 0..8)
        )
            .prop_map(
                |(target, session, term, successors)| Command::ExpireSession {
                    target,
                    session,
                    term,
                    successors
                }
            ),
        (target(), session())
            .prop_map(|(target, session)| Command::DrainSession { target, session }),
        (target(), any::<u64>(), vec(step(), 0..8)).prop_map(|(target, config_version, steps)| {
            Command::ApplyPlan {
                target,
                config_version,
                steps,
            }
        }),
        (target(), handoff_id(), end_word(), of(digest())).prop_map(
            |(target, handoff, word, digest)| Command::CompleteHandoff {
                target,
                handoff,
                word,
                digest
            }
        ),
        (target(), handoff_id(), session()).prop_map(|(target, handoff, refused_by)| {
            Command::CancelHandoff {
                target,
                handoff,
                refused_by,
            }
        }),
        (target(), handoff_id())
            .prop_map(|(target, handoff)| Command::AskCancel { target, handoff }),
        (target(), session(), generation()).prop_map(|(target, session, arming)| {
            Command::AckArming {
                target,
                session,
                arming,
            }
        }),
        (target(), of(session()), text(limits::TEXT_BYTES)).prop_map(
            |(target, session, reason)| Command::ForgetGhost {
                target,
                session,
                reason
            }
        ),
        (incarnation(), nanos()).prop_map(|(incarnation, max_ttl)| Command::Restore {
            incarnation,
            max_ttl
        }),
        any::<u64>().prop_map(|term| Command::EndRestoreWait { term }),
    ]
}

fn bad_config() -> impl Strategy<Value = Rejection> {
    let bad = |bad: TargetConfig| Rejection::BadConfig(bad.check().expect_err("out of bounds"));
    (301u64.., 1u64..4_000_000).prop_map(move |(seconds, too_many)| match seconds % 2 {
        0 => bad(TargetConfig {
            ttl: Duration::from_secs(seconds),
            ..TargetConfig::default()
        }),
        _ => bad(TargetConfig {
            max_open_handoffs: 4_096 + too_many as u32,
            ..TargetConfig::default()
        }),
    })
}

pub fn rejection() -> impl Strategy<Value = Rejection> {
    prop_oneof![
        target().prop_map(Rejection::UnknownTarget),
        target().prop_map(Rejection::TargetExists),
        (target(), any::<u32>())
            .prop_map(|(target, sessions)| Rejection::TargetLeaving(target, sessions)),
        bad_config(),
        (any::<u64>(), any::<u64>())
            .prop_map(|(expected, current)| Rejection::ConfigVersion { expected, current }),
        session().prop_map(Rejection::UnknownSession),
        handoff_id().prop_map(Rejection::UnknownHandoff),
        (session(), handoff_id())
            .prop_map(|(session, handoff)| Rejection::NotAParty(session, handoff)),
        (any::<u64>(), log_id())
            .prop_map(|(decided, entry)| Rejection::OtherTerm { decided, entry }),
        (slice(), handoff_id()).prop_map(|(slice, handoff)| Rejection::HandoffOpen(slice, handoff)),
        slice().prop_map(Rejection::NotTakenIn),
        slice().prop_map(Rejection::SliceChanged),
        mode().prop_map(Rejection::WrongMode),
        Just(Rejection::BadStep("the slice would be empty".into())),
        any::<u32>().prop_map(|most| Rejection::Limit {
            what: "slices".into(),
            most: most as usize
        }),
        Just(Rejection::RestoreWait),
        any::<u16>().prop_map(Rejection::IncarnationNotLarger),
        Just(Rejection::TokensExhausted),
        text(limits::TEXT_BYTES).prop_map(Rejection::Unreadable),
    ]
}

pub fn reply() -> impl Strategy<Value = Reply> {
    let registered = (session(), secret(), ttl(), generation()).prop_map(
        |(session, secret, ttl, not_before)| Registered {
            session,
            secret,
            ttl,
            not_before,
        },
    );
    let step = prop_oneof![Just(Ok(())), rejection().prop_map(Err)];
    prop_oneof![
        Just(Reply::Done),
        registered.prop_map(Reply::Registered),
        vec(step, 0..8).prop_map(Reply::Plan),
        rejection().prop_map(Reply::Rejected),
    ]
}

pub fn phase() -> impl Strategy<Value = SessionPhase> {
    prop_oneof![
        Just(SessionPhase::Live),
        Just(SessionPhase::Ghost),
        Just(SessionPhase::Leaving)
    ]
}

pub fn record() -> impl Strategy<Value = Record> {
    let meta = (incarnation(), any::<u64>(), any::<u64>(), of(nanos())).prop_map(
        |(incarnation, next_session, next_handoff, restore_wait)| {
            Record::Meta(MetaRecord {
                incarnation,
                next_session,
                next_handoff,
                restore_wait,
            })
        },
    );
    let state = (mode(), generation(), any::<bool>(), any::<u32>());
    let of_target = (target(), config(), any::<u64>(), state).prop_map(
        |(name, config, config_version, (mode, generation, deleted, ghosts_uncounted))| {
            Record::Target(TargetRecord {
                name,
                config,
                config_version,
                mode,
                generation,
                deleted,
                ghosts_uncounted,
            })
        },
    );
    let of_slice = (target(), slice(), assigned(), generation()).prop_map(
        |(target, slice, assigned, changed_at)| {
            Record::Slice(SliceRecord {
                target,
                slice,
                assigned,
                changed_at,
            })
        },
    );
    let fixed = (clock(), ttl(), secret(), text(limits::APP_VERSION_BYTES));
    let state = (phase(), any::<bool>(), of(generation()));
    let of_session = (target(), session(), squid(), fixed, state).prop_map(
        |(
            target,
            id,
            squid,
            (clock, ttl, secret, app_version),
            (phase, draining, acked_arming),
        )| {
            Record::Session(SessionRecord {
                target,
                id,
                squid,
                clock,
                ttl,
                secret,
                app_version,
                phase,
                draining,
                acked_arming,
            })
        },
    );
    prop_oneof![meta, of_target, of_slice, of_session]
}

pub fn tag() -> impl Strategy<Value = TransferTag> {
    (target(), slice(), epoch(), epoch(), of(handoff_id())).prop_map(
        |(target, slice, from_epoch, to_epoch, handoff)| TransferTag {
            target,
            slice,
            from_epoch,
            to_epoch,
            handoff,
        },
    )
}

pub fn pull_request() -> impl Strategy<Value = PullRequest> {
    let ack = || (any::<u64>(), digest()).prop_map(|(seq, digest)| Ack { seq, digest });
    let begin = (tag(), session(), session(), of(ack()), any::<bool>()).prop_map(
        |(tag, from, to, have, waiting)| {
            PullRequest::Begin(PullBegin {
                tag,
                from,
                to,
                have,
                waiting,
            })
        },
    );
    prop_oneof![begin, ack().prop_map(PullRequest::Ack)]
}

pub fn frame() -> impl Strategy<Value = Frame<Bytes>> {
    let mark = prop::sample::select(vec![Mark::More, Mark::CaughtUp, Mark::Last]);
    let digest = of(digest());
    let records = vec(any::<u8>(), 0..32);
    let samples = vec(vec(any::<u8>(), 0..8), 0..4);
    (
        tag(),
        any::<u64>(),
        mark,
        records,
        any::<u64>(),
        digest,
        samples,
        any::<bool>(),
    )
        .prop_map(
            |(tag, seq, mark, records, checksum, digest, samples, urgent)| Frame {
                tag,
                seq,
                mark,
                records: records.into(),
                checksum,
                digest,
                samples,
                urgent,
            },
        )
}
