//! What sessions last reported of the use of their slices. Kept in memory, for operators and for a
//! planner that looks at load; losing it is harmless.

use std::collections::{BTreeMap, HashMap};

use leasehold_proto::wire::LoadReport;
use leasehold_proto::{SessionId, Slice, SliceKey};
use parking_lot::Mutex;

/// Reports kept, of all slices together.
const KEPT: usize = 1 << 20;

/// The last report of one slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reported {
    slice: Slice,
    /// In the application's unit.
    pub(crate) load_per_s: f64,
    /// State held; 0 when not known.
    pub(crate) state_bytes: u64,
}

#[derive(Default)]
struct Inner {
    by_session: HashMap<SessionId, BTreeMap<SliceKey, Reported>>,
    count: usize,
}

/// The last reports of every session of this term.
#[derive(Default)]
pub(crate) struct Loads {
    inner: Mutex<Inner>,
}

impl Loads {
    /// Keeps a report; drops what is beyond the bound.
    pub(crate) fn report(&self, report: &LoadReport) {
        let mut inner = self.inner.lock();
        let Inner { by_session, count } = &mut *inner;
        let slices = by_session.entry(report.session).or_default();
        for load in &report.loads {
            if *count >= KEPT && !slices.contains_key(&load.slice.first()) {
                continue;
            }
            let reported = Reported {
                slice: load.slice,
                load_per_s: load.load_per_s,
                state_bytes: load.state_bytes,
            };
            if slices.insert(load.slice.first(), reported).is_none() {
                *count += 1;
            }
        }
    }

    /// The session has ended.
    pub(crate) fn forget(&self, session: SessionId) {
        let mut inner = self.inner.lock();
        if let Some(slices) = inner.by_session.remove(&session) {
            inner.count -= slices.len();
        }
    }

    /// A new term begins with what it is told.
    pub(crate) fn clear(&self) {
        *self.inner.lock() = Inner::default();
    }

    /// What its owner reported of a slice.
    pub(crate) fn of_slice(&self, session: SessionId, slice: Slice) -> Option<Reported> {
        let inner = self.inner.lock();
        inner
            .by_session
            .get(&session)?
            .get(&slice.first())
            .copied()
            .filter(|reported| reported.slice == slice)
    }

    /// What a session reported of these slices together.
    pub(crate) fn of_session(
        &self,
        session: SessionId,
        slices: impl Iterator<Item = Slice>,
    ) -> Option<f64> {
        let inner = self.inner.lock();
        let reported = inner.by_session.get(&session)?;
        let load = |slice: Slice| {
            reported
                .get(&slice.first())
                .filter(|found| found.slice == slice)
        };
        Some(slices.filter_map(load).map(|found| found.load_per_s).sum())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use leasehold_proto::wire::SliceLoad;

    use super::*;

    #[test]
    fn only_a_report_of_the_very_slice_counts() {
        let (loads, session) = (Loads::default(), SessionId::from_u64(7));
        let (lower, upper) = Slice::ALL.split(SliceKey::from_u64(1 << 60)).unwrap();
        let load = SliceLoad {
            slice: lower,
            load_per_s: 3.5,
            state_bytes: 10,
            hot_keys: Vec::new(),
        };
        loads.report(&LoadReport {
            session,
            loads: vec![load],
        });
        assert_eq!(
            loads.of_slice(session, lower).map(|found| found.load_per_s),
            Some(3.5)
        );
        assert_eq!(
            loads.of_slice(session, Slice::ALL),
            None,
            "it was split since"
        );
        assert_eq!(
            loads.of_session(session, [lower, upper].into_iter()),
            Some(3.5)
        );
        loads.forget(session);
        assert_eq!(loads.of_session(session, [lower].into_iter()), None);
    }
}
