//! A view never goes back, and one that was reached by differences is the whole one that was
//! committed at its generation.
//!
//! docs/PROTOCOL.md, "nouns" (View) and "renewal", step 3.

use leasehold_proto::table::TargetState;
use leasehold_proto::{Generation, SessionId, View};
use std::collections::BTreeMap;

use super::{Broken, Judged};

/// Every view that was committed.
#[derive(Default)]
pub struct Views(BTreeMap<Generation, View>);

impl Views {
    pub fn remember(&mut self, state: &TargetState) {
        self.0
            .entry(state.generation())
            .or_insert_with(|| state.view());
    }

    /// `state` is the committed one; addresses of its live sessions must be known.
    pub fn invariant_a_view_never_goes_back_and_is_whole(
        &self,
        state: Option<&TargetState>,
        seen: Option<Generation>,
        view: &View,
        who: &str,
    ) -> Judged {
        if seen == Some(view.generation) {
            return Ok(());
        }
        let broken = |invariant, what| Err(Broken { invariant, what });
        if let Some(seen) = seen.filter(|seen| view.generation < *seen) {
            let what = format!(
                "the view of {who} went back from {seen} to {}",
                view.generation
            );
            return broken("views never go back", what);
        }
        let live = |session: SessionId| {
            state.is_some_and(|state| state.live_sessions().any(|known| known.id == session))
        };
        let named = |session: &SessionId| view.pods.contains_key(session) || !live(*session);
        let wrong = match self.0.get(&view.generation) {
            None => "was never committed",
            Some(full) if full.mode != view.mode || full.slices != view.slices => {
                "is not the whole one"
            }
            Some(full) if !full.pods.keys().all(named) => "lacks an address",
            Some(_) => return Ok(()),
        };
        let what = format!("the view of {who} at {} {wrong}", view.generation);
        broken("a view is the whole committed one", what)
    }
}
