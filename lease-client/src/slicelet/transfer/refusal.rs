//! Whether a destination that asks for state is to have it, by the source's present view.

use leasehold_proto::HandoffId;
use leasehold_proto::holder::Holder;
use leasehold_proto::view::Lease;
use leasehold_proto::wire::PullBegin;
use leasehold_proto::wire::status::Refusal;
use tonic::Status;

/// Why state is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotServed {
    /// The view does not show it, and may later: the destination asks again.
    NotYet,
    /// The slice has had another owner since.
    OldEpoch,
    /// It is not what the handoff is about.
    WrongTag,
    /// The handoff is decided.
    Over,
}

impl From<NotServed> for Status {
    fn from(refused: NotServed) -> Status {
        let text = match refused {
            NotServed::NotYet => {
                return Status::unavailable("the handoff is not known here yet; ask again");
            }
            NotServed::OldEpoch => "the slice has had another owner since that epoch",
            NotServed::WrongTag => "this is not what the handoff is about",
            NotServed::Over => "the handoff is decided",
        };
        Refusal::Rejected(text.to_owned()).into()
    }
}

/// ◆ State goes only to the destination of a handoff that is open in the present view, and is
/// exactly what that view says.
pub(super) fn check(holder: &Holder, id: HandoffId, begin: &PullBegin) -> Result<(), NotServed> {
    let tag = &begin.tag;
    let (Some(me), Some(view)) = (holder.session(), holder.view()) else {
        return Err(NotServed::NotYet);
    };
    let (slice, assigned) = view.get(tag.slice.first());
    match assigned.handoff {
        Some(handoff) if handoff.id == id => {
            let owner = Lease {
                session: me,
                epoch: tag.from_epoch,
            };
            let same = slice == tag.slice
                && assigned.owner == Some(owner)
                && handoff.to == begin.to
                && handoff.epoch == tag.to_epoch
                && begin.from == me;
            if !same {
                return Err(NotServed::WrongTag);
            }
            let open = holder.leaving().any(|leaving| leaving == id);
            open.then_some(()).ok_or(NotServed::Over)
        }
        Some(handoff) if handoff.id > id => Err(NotServed::OldEpoch),
        _ => match assigned.owner {
            Some(owner) if owner.epoch > tag.from_epoch => Err(NotServed::OldEpoch),
            _ => Err(NotServed::NotYet),
        },
    }
}

/// Eventual mode: state goes only to who owns the slice now, by the present view, and has it from
/// here.
pub(super) fn check_provided(holder: &Holder, begin: &PullBegin) -> Result<(), NotServed> {
    let tag = &begin.tag;
    let (Some(me), Some(view)) = (holder.session(), holder.view()) else {
        return Err(NotServed::NotYet);
    };
    let (slice, assigned) = view.get(tag.slice.first());
    let Some(owner) = assigned.owner else {
        return Err(NotServed::OldEpoch);
    };
    if owner.epoch < tag.to_epoch {
        return Err(NotServed::NotYet);
    }
    if owner.epoch > tag.to_epoch {
        return Err(NotServed::OldEpoch);
    }
    let from = Lease {
        session: me,
        epoch: tag.from_epoch,
    };
    let provider = assigned.provider.filter(|from| from.digest.is_none());
    let same = slice.covers(tag.slice)
        && owner.session == begin.to
        && begin.from == me
        && provider.is_some_and(|provider| provider.lease == from);
    same.then_some(()).ok_or(NotServed::WrongTag)
}
