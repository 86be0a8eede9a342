//! Work on slices, one after another where they overlap.

use leasehold_proto::Slice;
use tokio::sync::watch;

/// Who works on which slice. Only what takes a [`Turn`] is waited for.
#[derive(Default)]
pub(super) struct Order {
    running: Vec<(Slice, watch::Receiver<()>)>,
}

/// Held, in any number of copies, for as long as the work goes on.
#[derive(Clone)]
pub(super) struct Turn {
    _running: watch::Sender<()>,
}

/// Work that must end first.
pub(super) struct Before(Vec<watch::Receiver<()>>);

impl Before {
    /// Ends when all of it has.
    pub(super) async fn ended(self) {
        for mut other in self.0 {
            while other.changed().await.is_ok() {}
        }
    }
}

impl Order {
    /// What has to end before work on `slice` may begin.
    pub(super) fn before(&mut self, slice: Slice) -> Before {
        // A closed channel is work that has ended.
        self.running.retain(|(_, done)| done.has_changed().is_ok());
        let overlapping = |(other, _): &&(Slice, _)| other.overlaps(slice);
        let running = self.running.iter().filter(overlapping);
        Before(running.map(|(_, done)| done.clone()).collect())
    }

    /// A place in the order: later work on slices that overlap waits until the turn is dropped.
    pub(super) fn turn(&mut self, slice: Slice) -> (Before, Turn) {
        let before = self.before(slice);
        let (running, done) = watch::channel(());
        self.running.push((slice, done));
        (before, Turn { _running: running })
    }

    /// Everything that was begun so far.
    pub(super) fn all(&mut self) -> Before {
        self.before(Slice::ALL)
    }
}
