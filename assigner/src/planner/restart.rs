//! A rolling restart, as it is seen from the sessions: who has restarted already, and whether more
//! is to be expected.
//!
//! A slice should move once, from a pod that is to restart to one that has. Two things make it so.
//! What is given away goes first to sessions of pods that have restarted, up to a fair share. And
//! counts are not evened out while the restart goes on: the pod that came back last is empty, and
//! that is the room for the slices of the next one.
//!
//! All of it is preference. To forget it, as a new leader does, costs moves and nothing else.

use std::time::Duration;

use leasehold_proto::table::{SessionRecord, TargetState};
use leasehold_proto::{ClockTime, SessionId};

/// How long after the last drain a restart may still go on. What is drained longer ago than this
/// was not the beginning of one, or the restart was given up.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A live session as far as a restart shows in it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its number; numbers rise with registration.
    pub id: SessionId,
    /// It is about to leave.
    pub draining: bool,
    /// It is about to leave and owns slices still.
    pub emptying: bool,
    /// The application's version, or empty.
    pub app_version: &'a str,
}

impl<'a> Member<'a> {
    /// A session of `target`.
    pub fn of(target: &TargetState, session: &'a SessionRecord) -> Self {
        Self {
            id: session.id,
            draining: session.draining,
            emptying: session.draining && target.owned_by(session.id) > 0,
            app_version: &session.app_version,
        }
    }
}

/// A rolling restart under way in one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The newest session when the first drain was seen: those registered since come
    /// from pods that have restarted.
    last_before: SessionId,
    /// The newest session seen.
    newest: SessionId,
    /// The version of pods that have restarted, where versions tell them apart.
    version: Option<String>,
    /// When a session was last seen that was being emptied.
    drained_at: ClockTime,
    /// When the restart was last seen to go on.
    seen_at: ClockTime,
}

impl Restart {
    /// What is known after a look at every live session of the target; `None` when no restart is
    /// under way: none has begun, all who were there at its beginning have gone, or nothing was
    /// drained for ten minutes.
    pub fn look(before: Option<Restart>, now: ClockTime, members: &[Member<'_>]) -> Option<Self> {
        let newest = members.iter().map(|member| member.id).max()?;
        let emptying = members.iter().any(|member| member.emptying);
        let goes_on = |restart: &Restart| {
            let old = |member: &Member<'_>| member.id <= restart.last_before;
            members.iter().any(old) && now.since(restart.drained_at) < REMEMBERED
        };
        let mut restart = match before.filter(goes_on) {
            Some(restart) => restart,
            None if emptying => Restart {
                last_before: newest,
                newest,
                version: None,
                drained_at: now,
                seen_at: now,
            },
            None => return None,
        };
        if emptying {
            restart.drained_at = now;
            restart.version = new_version(members);
        }
        if emptying || newest > restart.newest {
            restart.seen_at = now;
            restart.newest = newest;
        }
        Some(restart)
    }

    /// Whether this session will probably not restart next.
    pub fn has_restarted(&self, member: &Member<'_>) -> bool {
        match &self.version {
            Some(version) => member.app_version == version,
            None => member.id > self.last_before,
        }
    }

    /// Until when counts are left uneven: `pause` after the last drain or the last return of a pod.
    pub fn leaves_uneven_until(&self, pause: Duration) -> ClockTime {
        self.seen_at + pause
    }
}

/// The version of the newest session that stays, if all that are being emptied have another. It
/// tells who was restarted also to a leader that did not see the beginning, and when a roll-out is
/// taken back half-way.
fn new_version(members: &[Member<'_>]) -> Option<String> {
    let stays = members.iter().filter(|member| !member.draining);
    let version = stays.max_by_key(|member| member.id)?.app_version;
    let mut emptying = members.iter().filter(|member| member.emptying);
    emptying
        .all(|member| member.app_version != version)
        .then(|| version.to_owned())
}
