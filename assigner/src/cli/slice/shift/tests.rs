//! Which slices are in a share.

use leasehold_proto::view::{Assigned, Handoff, Lease};
use leasehold_proto::{Epoch, HandoffId};
use proptest::prelude::*;

use super::*;

fn session(number: u64) -> SessionId {
    SessionId::from_u64(number)
}

fn at(number: u64) -> Generation {
    generation(&format!("1#{number}")).expect("a generation")
}

fn epoch(number: u64) -> Epoch {
    let epoch = pb::Epoch {
        incarnation: 1,
        number,
    };
    epoch.try_into().expect("in bounds")
}

/// Slice `place` of 100, owned since a generation.
fn info(place: u64, owner: u64, since: u64, to: Option<u64>) -> SliceInfo {
    let width = u64::MAX / 100;
    let last = if place == 99 {
        u64::MAX
    } else {
        (place + 1) * width - 1
    };
    let slice = Slice::new(SliceKey::from_u64(place * width), SliceKey::from_u64(last));
    SliceInfo {
        slice: slice.expect("not empty"),
        assigned: Assigned {
            owner: Some(Lease {
                session: session(owner),
                epoch: epoch(since),
            }),
            handoff: to.map(|to| Handoff {
                id: HandoffId::from_u64(place + 1),
                to: session(to),
                epoch: epoch(since + 1),
                ask_cancel: false,
                to_closed: false,
            }),
            replicas: Box::new([]),
            provider: None,
        },
        changed_at: at(since),
        load_per_s: None,
        state_bytes: None,
    }
}

fn wish(words: &[&str]) -> Result<Shift, clap::Error> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        shift: Shift,
    }
    let line = ["shift", "cart", "--from", "s1", "--to", "s2"];
    <Line as clap::Parser>::try_parse_from(line.iter().chain(words)).map(|line| line.shift)
}

#[test]
fn a_larger_share_holds_the_smaller_one() {
    let (mut owners, since) = ([1; 100], 50);
    let pair = |owners: &[u64; 100], since_of: u64| {
        let slices = (0..100).map(|place| {
            let owner = owners[place as usize];
            info(place, owner, if owner == 2 { since_of } else { 7 }, None)
        });
        Pair::new((session(1), session(2)), at(since), slices)
    };
    let share = |text: &str| text.parse::<Share>().expect("a share");
    let shift = wish(&["--share", "1%"]).expect("parses");
    // The destination has slices of its own: they are no part of it.
    owners[..20].fill(2);
    let own = pair(&owners, 40);
    assert_eq!((own.all(), own.shifted.len()), (80, 0));
    let at_once = shift.more(&own, share("20%")).expect("some");
    let first = shift.more(&own, share("5%")).expect("some");
    assert_eq!((first.len(), at_once.len()), (4, 16));
    assert_eq!(first, at_once[..4]);
    let moved = (0..100).map(|place| {
        let mut now = info(place, owners[place as usize], 40, None);
        if first.contains(&now.slice) {
            now = info(place, 2, 60, None);
        }
        now
    });
    let then = Pair::new((session(1), session(2)), at(since), moved);
    assert_eq!(shift.more(&then, share("20%")).expect("some"), at_once[4..]);
    assert_eq!(shift.more(&then, share("5%")).expect("none"), []);
    let back: Vec<Slice> = shift.all_back(&then).expect("some");
    assert!(back.len() == 4 && back.iter().all(|slice| first.contains(slice)));
    let less = shift.more(&then, share("1%")).expect_err("less");
    assert!(less.to_string().contains("shifted already"), "{less}");
}

#[test]
fn what_is_on_its_way_counts_once_and_is_not_moved_again() {
    // Listed with both sessions.
    let slices = [
        info(0, 1, 7, Some(2)),
        info(0, 1, 7, Some(2)),
        info(1, 1, 7, Some(3)),
        info(2, 1, 7, None),
    ];
    let pair = Pair::new((session(1), session(2)), at(50), slices);
    assert_eq!((pair.here.len(), pair.shifted.len(), pair.open), (1, 1, 1));
    let shift = wish(&["--back", "--since", "1#50"]).expect("parses");
    let refused = shift.all_back(&pair).expect_err("open");
    assert!(
        refused.to_string().contains("still on their way"),
        "{refused}"
    );
}

#[test]
fn wrong_shares_and_generations_are_refused() {
    for wrong in [
        "", "5", "0%", "-1%", "100.1%", "x%", "NaN%", "inf%", "0.0001%",
    ] {
        assert!(wrong.parse::<Share>().is_err(), "{wrong}");
    }
    for wrong in ["", "1", "#", "0#1", "1#x", "-1#4", "99999999999#1"] {
        assert!(generation(wrong).is_err(), "{wrong}");
    }
    for wrong in [
        vec![],
        vec!["--share", "5%", "--back", "--since", "1#4"],
        vec!["--back"],
    ] {
        assert!(wish(&wrong).is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn a_share_is_never_none_and_never_more_than_all(thousandths in 1u32..=100_000, count in 1usize..1_000_000) {
        let part = Share(thousandths).of(count);
        prop_assert!((1..=count).contains(&part));
        let shown = Share(thousandths).to_string();
        prop_assert_eq!(shown.parse(), Ok(Share(thousandths)), "{}", shown);
    }

    #[test]
    fn no_text_makes_reading_panic(text in ".{0,40}") {
        let _ = text.parse::<Share>();
        let _ = generation(&text);
    }
}
