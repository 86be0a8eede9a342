//! A part of a world: shared between worlds until it changes, with its canonical form kept beside.

use std::sync::{Arc, OnceLock};

use leasehold_proto::ClockTime;
use leasehold_proto::canonical::{Canonical, NUMBERS, Number, Visitor};

use crate::bounds::{Bounds, UNIT};

/// A value that worlds share until one of them edits it.
#[derive(Debug)]
pub struct Part<T>(Arc<Kept<T>>);

#[derive(Debug)]
struct Kept<T> {
    value: T,
    tokens: OnceLock<Box<[u64]>>,
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::ops::Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Clone> Part<T> {
    /// A part of one world.
    pub fn new(value: T) -> Self {
        let tokens = OnceLock::new();
        Self(Arc::new(Kept { value, tokens }))
    }

    /// The value, to change it in this world only.
    pub fn edit(&mut self) -> &mut T {
        if Arc::get_mut(&mut self.0).is_none() {
            *self = Self::new(self.0.value.clone());
        }
        match Arc::get_mut(&mut self.0) {
            Some(kept) => {
                kept.tokens.take();
                &mut kept.value
            }
            None => unreachable!("a new part is not shared"),
        }
    }

    /// Whether both are the very same value, not only equal.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The canonical form, made at most once.
    pub fn tokens(&self, write: impl FnOnce(&T) -> Vec<u64>) -> &[u64] {
        self.0
            .tokens
            .get_or_init(|| write(&self.0.value).into_boxed_slice())
    }
}

/// The class of a token is in its upper four bits.
const CLASS: u32 = 60;
const VALUE: u64 = (1 << CLASS) - 1;
const REMARK: u64 = 15;
/// Times further off than this are never reached.
const HORIZON: u64 = 1_000;

/// Numbers of one scope stay in their order; scopes are kept apart by what they are.
fn scoped(scope: u64, value: u64) -> u64 {
    (scope & 0xffff_ffff) << 28 | (value & 0x0fff_ffff)
}

/// Writes the canonical form of a part as tokens: plain values, numbers and remarks.
pub struct Recorder {
    now: u64,
    /// Nanoseconds of one step, or of one unit where steps differ.
    grain: u64,
    /// Times that are left are rounded up to at least this many grains.
    least: u64,
    /// D, in nanoseconds.
    longest_wait: u64,
    tokens: Vec<u64>,
    remark: Option<usize>,
}

impl Recorder {
    /// For a part whose clock shows `now` and moves in steps of `step` units.
    pub fn new(now: u64, step: u64, bounds: &Bounds) -> Self {
        let unit = UNIT.as_nanos() as u64;
        let (grain, least) = if bounds.even_steps() {
            (unit * step, 1)
        } else {
            (unit, step)
        };
        let tokens = Vec::with_capacity(96);
        Self {
            now,
            grain,
            least,
            longest_wait: bounds.wait().as_nanos() as u64,
            tokens,
            remark: None,
        }
    }

    /// What was written.
    pub fn finish(self) -> Vec<u64> {
        self.tokens
    }

    /// Writes `value`.
    pub fn show(&mut self, value: &(impl Canonical + ?Sized)) -> &mut Self {
        value.visit(self);
        self
    }
}

impl Visitor for Recorder {
    fn plain(&mut self, value: u64) {
        let large = value >= 1 << (CLASS - 1);
        let folded = (value ^ (value << 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 5;
        self.tokens.push(if large {
            folded | 1 << (CLASS - 1)
        } else {
            value
        });
    }

    fn number(&mut self, class: Number, value: u64) {
        debug_assert!(value <= VALUE);
        self.tokens
            .push((class as u64 + 1) << CLASS | (value & VALUE));
    }

    fn number_in(&mut self, class: Number, scope: u64, value: u64) {
        self.number(class, scoped(scope, value));
    }

    fn wants_advice(&self) -> bool {
        false
    }

    fn due(&mut self, at: ClockTime) {
        let left = at.as_nanos().saturating_sub(self.now).div_ceil(self.grain);
        let left = if left == 0 { 0 } else { left.max(self.least) };
        self.tokens.push(left.min(HORIZON));
    }

    fn since(&mut self, at: ClockTime) {
        let ago = self.now.saturating_sub(at.as_nanos());
        // Every clock has the same class, and every session the same ttl.
        self.plain(ago.min(self.longest_wait));
    }

    fn begin_remark(&mut self, class: Number, value: u64) {
        self.remark = Some(self.tokens.len());
        self.tokens.push(REMARK << CLASS);
        self.tokens.push((class as u64 + 1) << CLASS | value);
    }

    fn begin_remark_in(&mut self, class: Number, scope: u64, value: u64) {
        self.begin_remark(class, scoped(scope, value));
    }

    fn end_remark(&mut self) {
        if let Some(at) = self.remark.take() {
            self.tokens[at] |= (self.tokens.len() - at - 2) as u64;
        }
    }
}

/// Makes one fingerprint of the tokens of all parts. Kept between calls for its memory.
#[derive(Default)]
pub struct Fingerprinter {
    firm: [Vec<u64>; NUMBERS],
    numbers: [Vec<u64>; NUMBERS],
    chosen: Vec<u64>,
    bytes: Vec<u8>,
}

fn insert(into: &mut Vec<u64>, value: u64) {
    if !into.contains(&value) {
        into.push(value);
    }
}

impl Fingerprinter {
    /// The fingerprint of the parts: 128 bits, so that among 10⁹ states two differing ones share
    /// one with a probability of 10⁻²¹. Remarks count if something outside remarks names their
    /// number, or `all` do.
    pub fn of<'a>(&mut self, parts: impl Iterator<Item = &'a [u64]> + Clone, all: bool) -> u128 {
        self.firm.iter_mut().for_each(Vec::clear);
        self.numbers.iter_mut().for_each(Vec::clear);
        self.chosen.clear();
        self.bytes.clear();
        for part in parts.clone() {
            let mut at = 0;
            while let Some(token) = part.get(at) {
                match token >> CLASS {
                    0 => {}
                    REMARK => at += (token & VALUE) as usize + 1,
                    class => insert(&mut self.firm[class as usize - 1], token & VALUE),
                }
                at += 1;
            }
        }
        for part in parts {
            self.choose(part, all);
        }
        self.numbers
            .iter_mut()
            .for_each(|seen| seen.sort_unstable());
        for token in &self.chosen {
            let canonical = match token >> CLASS {
                0 => *token,
                class => {
                    let seen = &self.numbers[class as usize - 1];
                    let rank = seen.iter().take_while(|n| **n < token & VALUE).count();
                    class << CLASS | rank as u64
                }
            };
            self.bytes.extend_from_slice(&canonical.to_le_bytes());
        }
        xxhash_rust::xxh3::xxh3_128(&self.bytes)
    }

    fn choose(&mut self, part: &[u64], all: bool) {
        let mut at = 0;
        while let Some(token) = part.get(at) {
            match token >> CLASS {
                0 => self.chosen.push(*token),
                REMARK => {
                    let about = part[at + 1];
                    let known = &self.firm[(about >> CLASS) as usize - 1];
                    if all || known.contains(&(about & VALUE)) {
                        self.chosen.push(u64::MAX >> 4);
                    } else {
                        at += (token & VALUE) as usize;
                    }
                    at += 1;
                }
                class => {
                    insert(&mut self.numbers[class as usize - 1], token & VALUE);
                    self.chosen.push(*token);
                }
            }
            at += 1;
        }
        // Where one part ends and the next begins.
        self.chosen.push(u64::MAX >> 5);
    }
}
