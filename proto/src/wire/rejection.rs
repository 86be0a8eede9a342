//! Why the table refused a command, with everything that it says.

use super::codec::{Codec, Id, Name, Needed, Text, beginning, bounded_text};
use super::error::WireError;
use super::pb;
use super::pb::rejection::Reason;
use crate::error::Rejection;
use crate::limits;
use crate::target::BadConfig;

impl From<&Rejection> for pb::Rejection {
    fn from(noun: &Rejection) -> Self {
        let reason = match noun {
            Rejection::UnknownTarget(target) => Reason::UnknownTarget(Name::put(target)),
            Rejection::TargetExists(target) => Reason::TargetExists(Name::put(target)),
            Rejection::TargetLeaving(target, sessions) => {
                Reason::TargetLeaving(pb::TargetLeaving {
                    target: Name::put(target),
                    sessions: *sessions,
                })
            }
            Rejection::BadConfig(bad) => Reason::BadConfig(pb::BadConfig {
                field: bad.field.to_string(),
                found: bad.found.clone(),
                bound: bad.bound.clone(),
            }),
            Rejection::ConfigVersion { expected, current } => {
                Reason::ConfigVersion(pb::ConfigVersion {
                    expected: *expected,
                    current: *current,
                })
            }
            Rejection::UnknownSession(session) => Reason::UnknownSession(Id::put(session)),
            Rejection::UnknownHandoff(handoff) => Reason::UnknownHandoff(Id::put(handoff)),
            Rejection::NotAParty(session, handoff) => Reason::NotAParty(pb::NotAParty {
                session: Id::put(session),
                handoff: Id::put(handoff),
            }),
            Rejection::OtherTerm { decided, entry } => Reason::OtherTerm(pb::OtherTerm {
                decided: *decided,
                entry: Needed::put(entry),
            }),
            Rejection::HandoffOpen(slice, handoff) => Reason::HandoffOpen(pb::HandoffOpen {
                slice: Needed::put(slice),
                handoff: Id::put(handoff),
            }),
            Rejection::NotTakenIn(slice) => Reason::NotTakenIn(slice.into()),
            Rejection::SliceChanged(slice) => Reason::SliceChanged(slice.into()),
            Rejection::WrongMode(mode) => Reason::WrongMode(mode.into()),
            Rejection::BadStep(text) => Reason::BadStep(text.to_string()),
            Rejection::Limit { what, most } => Reason::Limit(pb::LimitReached {
                what: what.to_string(),
                most: *most as u64,
            }),
            Rejection::RestoreWait => Reason::RestoreWait(pb::RestoreWait {}),
            Rejection::IncarnationNotLarger(present) => {
                Reason::IncarnationNotLarger(u32::from(*present))
            }
            Rejection::TokensExhausted => Reason::TokensExhausted(pb::TokensExhausted {}),
            // An explanation is shortened rather than refused.
            Rejection::Unreadable(text) => {
                Reason::Unreadable(beginning(text, limits::TEXT_BYTES).to_owned())
            }
        };
        Self {
            reason: Some(reason),
        }
    }
}

impl TryFrom<pb::Rejection> for Rejection {
    type Error = WireError;

    fn try_from(wire: pb::Rejection) -> Result<Self, WireError> {
        Ok(
            match wire.reason.ok_or(WireError::missing("Rejection.reason"))? {
                Reason::UnknownTarget(target) => {
                    Rejection::UnknownTarget(Name::take("Rejection.unknown_target", target)?)
                }
                Reason::TargetExists(target) => {
                    Rejection::TargetExists(Name::take("Rejection.target_exists", target)?)
                }
                Reason::TargetLeaving(wire) => Rejection::TargetLeaving(
                    Name::take("TargetLeaving.target", wire.target)?,
                    wire.sessions,
                ),
                Reason::BadConfig(wire) => Rejection::BadConfig(bad_config(wire)?),
                Reason::ConfigVersion(pb::ConfigVersion { expected, current }) => {
                    Rejection::ConfigVersion { expected, current }
                }
                Reason::UnknownSession(session) => {
                    Rejection::UnknownSession(Id::take("Rejection.unknown_session", session)?)
                }
                Reason::UnknownHandoff(handoff) => {
                    Rejection::UnknownHandoff(Id::take("Rejection.unknown_handoff", handoff)?)
                }
                Reason::NotAParty(wire) => Rejection::NotAParty(
                    Id::take("NotAParty.session", wire.session)?,
                    Id::take("NotAParty.handoff", wire.handoff)?,
                ),
                Reason::OtherTerm(wire) => Rejection::OtherTerm {
                    decided: wire.decided,
                    entry: Needed::take("OtherTerm.entry", wire.entry)?,
                },
                Reason::HandoffOpen(wire) => Rejection::HandoffOpen(
                    Needed::take("HandoffOpen.slice", wire.slice)?,
                    Id::take("HandoffOpen.handoff", wire.handoff)?,
                ),
                Reason::NotTakenIn(slice) => Rejection::NotTakenIn(slice.try_into()?),
                Reason::SliceChanged(slice) => Rejection::SliceChanged(slice.try_into()?),
                Reason::WrongMode(mode) => Rejection::WrongMode(mode.try_into()?),
                Reason::BadStep(text) => Rejection::BadStep(
                    bounded_text("Rejection.bad_step", text, limits::TEXT_BYTES)?.into(),
                ),
                Reason::Limit(wire) => Rejection::Limit {
                    what: bounded_text("LimitReached.what", wire.what, limits::TEXT_BYTES)?.into(),
                    most: usize::try_from(wire.most)
                        .map_err(|error| WireError::invalid("LimitReached.most", error))?,
                },
                Reason::RestoreWait(pb::RestoreWait {}) => Rejection::RestoreWait,
                Reason::IncarnationNotLarger(present) => {
                    Rejection::IncarnationNotLarger(u16::try_from(present).map_err(|error| {
                        WireError::invalid("Rejection.incarnation_not_larger", error)
                    })?)
                }
                Reason::TokensExhausted(pb::TokensExhausted {}) => Rejection::TokensExhausted,
                Reason::Unreadable(text) => Rejection::Unreadable(
                    Text::<{ limits::TEXT_BYTES }>::take("Rejection.unreadable", text)?,
                ),
            },
        )
    }
}

fn bad_config(wire: pb::BadConfig) -> Result<BadConfig, WireError> {
    Ok(BadConfig {
        field: bounded_text("BadConfig.field", wire.field, limits::TEXT_BYTES)?.into(),
        found: bounded_text("BadConfig.found", wire.found, limits::TEXT_BYTES)?,
        bound: bounded_text("BadConfig.bound", wire.bound, limits::TEXT_BYTES)?,
    })
}
