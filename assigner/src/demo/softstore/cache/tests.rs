use super::*;

use leasehold_client::state::{Exported, StateExport};

fn place(at: u64) -> Place {
    Place {
        at: SliceKey::from_u64(at),
        key: at,
    }
}

fn entry(version: u64) -> Entry {
    let value = Bytes::from(vec![version as u8; 100]);
    Entry { version, value }
}

fn with(places: impl IntoIterator<Item = u64>) -> SliceCache {
    let cache = SliceCache::new(1 << 20);
    for at in places {
        cache.put(place(at), entry(1), || Ok(())).unwrap();
    }
    cache
}

fn slice(first: u64, last: u64) -> Slice {
    Slice::new(SliceKey::from_u64(first), SliceKey::from_u64(last)).unwrap()
}

fn read_all(export: &mut CacheExport) -> Vec<u8> {
    let mut out = Vec::new();
    while export.read(300, &mut out) == Exported::More {}
    out
}

#[test]
fn a_slice_moves_with_what_changed_behind_the_cursor() {
    let from = with([1, 5, 9, 20]);
    let mut export = from.export(slice(0, 10));
    let mut out = Vec::new();
    assert_eq!(export.read(200, &mut out), Exported::More);
    from.put(place(1), entry(2), || Ok(())).unwrap();
    from.forget(place(5), || Ok(())).unwrap();
    from.put(place(20), entry(2), || Ok(())).unwrap();
    out.extend(read_all(&mut export));

    let to = with([]);
    to.import(slice(0, 10), &out, Import::Replace).unwrap();
    assert_eq!(to.get(place(1)), Some(entry(2)));
    assert_eq!(to.get(place(5)), None);
    assert_eq!(to.get(place(9)), Some(entry(1)));
    assert_eq!(to.get(place(20)), None);
}

#[test]
fn a_key_that_is_forgotten_or_evicted_and_written_is_told_to_the_other_end() {
    let from = with([1]);
    let mut export = from.export(Slice::ALL);
    let first = read_all(&mut export);
    from.forget(place(1), || Ok(())).unwrap();
    let second = read_all(&mut export);
    let to = with([]);
    to.import(Slice::ALL, &first, Import::Replace).unwrap();
    to.import(Slice::ALL, &second, Import::Replace).unwrap();
    assert_eq!(to.get(place(1)), None);
    drop(export);
    assert!(from.0.lock().exports.is_empty());
}

#[test]
fn older_news_loses_in_a_merge() {
    let (from, to) = (with([1, 2]), with([]));
    to.put(place(1), entry(3), || Ok(())).unwrap();
    let records = read_all(&mut from.export(Slice::ALL));
    to.import(Slice::ALL, &records, Import::Merge).unwrap();
    assert_eq!(to.get(place(1)), Some(entry(3)));
    assert_eq!(to.get(place(2)), Some(entry(1)));
}

#[test]
fn bytes_are_bounded_and_counted_and_gone_with_the_slice() {
    let most = 1 << 16;
    let cache = SliceCache::new(most);
    for at in 0..10_000 {
        let spread = place(u64::MAX / 10_000 * at);
        cache.put(spread, entry(1), || Ok(())).unwrap();
    }
    let inner = cache.0.lock();
    assert!(inner.entries.weight() <= most);
    assert_eq!(inner.entries.weight(), inner.places.values().sum::<u64>());
    assert_eq!(inner.entries.len(), inner.places.len());
    drop(inner);
    assert_eq!(cache.bytes(Slice::ALL), cache.0.lock().entries.weight());
    cache.discard(slice(0, u64::MAX / 2));
    assert_eq!(cache.bytes(slice(0, u64::MAX / 4)), 0);
    cache.discard(Slice::ALL);
    assert_eq!(cache.bytes(Slice::ALL), 0);
    assert!(cache.0.lock().entries.is_empty());
}

#[test]
fn nothing_is_written_once_ownership_has_ended() {
    let cache = with([1]);
    let lost = || Err(Lost::Revoked);
    assert_eq!(cache.put(place(1), entry(2), lost), Err(Lost::Revoked));
    assert_eq!(cache.forget(place(1), lost), Err(Lost::Revoked));
    assert_eq!(cache.get(place(1)), Some(entry(1)));
}

#[test]
fn records_from_a_stranger_are_refused() {
    let records = read_all(&mut with([1]).export(Slice::ALL));
    let to = with([]);
    for cut in 1..records.len() {
        assert!(
            to.import(Slice::ALL, &records[..cut], Import::Replace)
                .is_err()
        );
    }
    assert!(to.import(slice(5, 6), &records, Import::Replace).is_err());
    let mut long = records;
    long[24..28].copy_from_slice(&(u32::MAX - 1).to_be_bytes());
    assert!(to.import(Slice::ALL, &long, Import::Replace).is_err());
}

#[test]
fn what_is_discarded_in_pieces_is_gone_and_nothing_else() {
    let last = 2 * DISCARDED_AT_ONCE as u64 + 1;
    for discarded in [last, last - 1, last - 2] {
        let cache = with(0..=last);
        cache.discard(slice(1, discarded));
        let left = (0..=last).filter(|at| cache.get(place(*at)).is_some());
        let kept = (0..=last).filter(|at| !(1..=discarded).contains(at));
        assert!(left.eq(kept));
    }
}
