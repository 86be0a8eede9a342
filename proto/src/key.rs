//! Slice keys and the named hashes that make them from application keys.

use std::fmt;

/// A point of the key space: the stable 64-bit hash of an application key, or the application's
/// own number. Printed as sixteen hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceKey(u64);

impl SliceKey {
    /// The lowest key.
    pub const MIN: SliceKey = SliceKey(0);
    /// The highest key.
    pub const MAX: SliceKey = SliceKey(u64::MAX);

    /// The key with this number.
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// The key's number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The key just above, if any.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// The key just below, if any.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

impl fmt::Display for SliceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl fmt::Debug for SliceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for SliceKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        parsed
            .map(Self)
            .map_err(|_| ParseKeyError(text.chars().take(64).collect()))
    }
}

/// A text that is no slice key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a slice key; one looks like 0x00ff00ff00ff00ff, or a decimal number")]
pub struct ParseKeyError(String);

/// How a target's application keys become slice keys. Named when the target is created and never
/// changed, so that Clerks and Slicelets cannot disagree. Golden vectors pin each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum KeyHash {
    /// XXH3, 64 bits, no seed.
    #[default]
    Xxh3,
    /// FarmHash Fingerprint64 with its bytes read in Dicer's order: the little-endian bytes of the
    /// fingerprint compare as Dicer's slice keys do.
    FarmHash64,
    /// The key is its own number: its first eight bytes, big-endian; a shorter key is filled with
    /// zero bytes behind. Bytes past the eighth do not count.
    Identity,
}

impl KeyHash {
    /// The slice key of an application key.
    #[inline]
    pub fn slice_key(self, key: &[u8]) -> SliceKey {
        SliceKey(match self {
            KeyHash::Xxh3 => xxhash_rust::xxh3::xxh3_64(key),
            KeyHash::FarmHash64 => farmhash::fingerprint64(key).swap_bytes(),
            KeyHash::Identity => {
                let mut bytes = [0; 8];
                let count = key.len().min(8);
                bytes[..count].copy_from_slice(&key[..count]);
                u64::from_be_bytes(bytes)
            }
        })
    }

    /// The name as commands and configuration spell it.
    pub fn name(self) -> &'static str {
        match self {
            KeyHash::Xxh3 => "xxh3",
            KeyHash::FarmHash64 => "farmhash64",
            KeyHash::Identity => "identity",
        }
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for KeyHash {
    type Err = UnknownKeyHash;

    fn from_str(text: &str) -> Result<Self, UnknownKeyHash> {
        [KeyHash::Xxh3, KeyHash::FarmHash64, KeyHash::Identity]
            .into_iter()
            .find(|hash| hash.name() == text)
            .ok_or_else(|| UnknownKeyHash(text.chars().take(64).collect()))
    }
}

/// A text that names no key hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key hash; there are xxh3, farmhash64 and identity")]
pub struct UnknownKeyHash(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vectors_pin_every_hash() {
        // XXH3: reference implementation's published value for the empty input.
        assert_eq!(KeyHash::Xxh3.slice_key(b"").as_u64(), 0x2d06_8005_38d3_94c2);
        // FarmHash: Dicer's slice_key_test_data, bytes in its order.
        assert_eq!(
            KeyHash::FarmHash64.slice_key(b"Hello").as_u64(),
            0x8720_6b32_1e7c_c8d5
        );
        assert_eq!(
            KeyHash::FarmHash64.slice_key(b"Foo").as_u64(),
            0x19f3_e313_e51c_d78a
        );
        assert_eq!(
            KeyHash::FarmHash64.slice_key(b"Fili").as_u64(),
            0x590d_e492_bef4_12fc
        );
        assert_eq!(KeyHash::Identity.slice_key(&7u64.to_be_bytes()).as_u64(), 7);
        assert_eq!(KeyHash::Identity.slice_key(b"\x01").as_u64(), 1 << 56);
    }
}
