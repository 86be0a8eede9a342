//! Moves of ownership all through a run, beside load and faults, so that most of what goes wrong
//! goes wrong during a handoff.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::place::Place;
use crate::system::System;

/// A storm under way on a thread of its own.
pub struct Storm {
    stop: watch::Sender<bool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Storm {
    /// Begins to move `at_once` slices at any time.
    ///
    /// # Errors
    ///
    /// No thread can be had.
    pub fn start(
        place: &Arc<Place>,
        system: &Arc<dyn System>,
        at_once: usize,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let (stop, mut stopped) = watch::channel(false);
        let (place, system) = (Arc::clone(place), Arc::clone(system));
        let thread = std::thread::Builder::new()
            .name("storm".into())
            .spawn(move || {
                place.in_control(async || {
                    tokio::select! {
                        () = system.storm(&place.hosts, at_once, seed) => {}
                        // An error means that nobody can stop it any more but its end.
                        _ = stopped.wait_for(|stop| *stop) => {}
                    }
                    Ok(())
                })
            })?;
        Ok(Self { stop, thread })
    }

    /// Ends it; moves under way end by themselves.
    ///
    /// # Errors
    ///
    /// It could not get into the network, or panicked.
    pub fn end(self) -> anyhow::Result<()> {
        // An error means that it has ended already.
        let _ = self.stop.send(true);
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("the thread of the storm panicked"),
        }
    }
}
