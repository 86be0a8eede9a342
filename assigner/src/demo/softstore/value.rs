//! What is stored: values whose every byte follows from key and version, so that a client can tell
//! a wrong one without having written it.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Longest value that pods and store take.
pub const MOST_BYTES: usize = 64 << 10;

/// The one right value of this version of a key.
pub fn value(key: u64, version: u64, bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    let seed = key ^ version.rotate_left(40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    SmallRng::seed_from_u64(seed).fill_bytes(&mut value);
    value
}

/// The key as the sharder sees it.
pub fn key_bytes(key: u64) -> [u8; 8] {
    key.to_be_bytes()
}
