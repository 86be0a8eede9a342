//! A Clerk's lookup leads to the hint that outranks its map, else to the owner that the map shows.
//!
//! docs/PROTOCOL.md, "planned handoff", step 5, and "static stability".

use leasehold_proto::router::Router;

use super::{Broken, Judged};
use crate::world::{KEYS, key};

pub fn invariant_lookups_follow_the_map(router: &Router) -> Judged {
    let Some(view) = router.view() else {
        return Ok(());
    };
    let table = router.table();
    for k in (0..KEYS).map(key) {
        let hint = router
            .hints()
            .find(|hint| hint.slice.contains(k))
            .map(|hint| hint.session);
        let expected = hint.or(view.get(k).1.owner.map(|lease| lease.session));
        let found = table
            .lookup(k)
            .and_then(|route| table.pod(route.pod))
            .map(|(session, _)| *session);
        if expected != found {
            return Err(Broken {
                invariant: "lookups follow the map",
                what: format!("a Router leads {k} to {found:?}, not {expected:?}"),
            });
        }
    }
    Ok(())
}
