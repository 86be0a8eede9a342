//! Numbers with a meaning: log ids, generations, epochs, tokens, sessions, handoffs.
//!
//! An [`Epoch`], a [`Generation`] and a [`FencingToken`] can be compared and printed but not made:
//! only [`crate::table::LeaseTable::apply`] mints them, and decoding gives back what it minted.

use std::fmt;

use crate::limits::{INCARNATION_MAX, NUMBER_MAX};

/// Position of an entry in the replicated log: the term it was appended in and its index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct LogId {
    /// Term of the leader that appended the entry.
    pub term: u64,
    /// Index of the entry.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}/{}", self.term, self.index)
    }
}

/// Which life of the replicated state this is: rises with every restore or forced recovery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Incarnation(u16);

impl Incarnation {
    /// The incarnation of a cluster that was never restored.
    pub const FIRST: Incarnation = Incarnation(1);

    /// An operator's incarnation, `1..=32767`; `None` outside.
    pub fn new(value: u64) -> Option<Self> {
        let value = u16::try_from(value).ok()?;
        (1..=INCARNATION_MAX)
            .contains(&value)
            .then_some(Self(value))
    }

    /// The number, `1..=32767`.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Version of a target's assignment: the incarnation and the log index of the commit. Ordered by
/// incarnation first. Printed `1#42`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    incarnation: Incarnation,
    number: u64,
}

impl Generation {
    /// Mints the generation of a log entry; `None` past the 48 bits that a token holds.
    pub(crate) fn mint(incarnation: Incarnation, number: u64) -> Option<Self> {
        (number <= NUMBER_MAX).then_some(Self {
            incarnation,
            number,
        })
    }

    /// The life of the replicated state that it belongs to.
    pub fn incarnation(self) -> Incarnation {
        self.incarnation
    }

    /// The Raft log index of the commit.
    pub fn number(self) -> u64 {
        self.number
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.incarnation, self.number)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The generation of the entry that granted a slice, or that began the handoff that gave it. Used
/// only from the instant ownership begins. Strictly larger for every later owner of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(Generation);

impl Epoch {
    pub(crate) fn mint(generation: Generation) -> Self {
        Self(generation)
    }

    /// The generation that minted it.
    pub fn generation(self) -> Generation {
        self.0
    }

    /// The epoch as one number for an external store.
    pub fn token(self) -> FencingToken {
        FencingToken((u64::from(self.0.incarnation.0) << 48) | self.0.number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An [`Epoch`] as one number of 63 bits: 15 of incarnation, 48 of log index. Goes with every side
/// effect; a store rejects one lower than the highest it has seen for that range of keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(u64);

impl FencingToken {
    /// The number, at most `i64::MAX`.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The number as a signed 64-bit column holds it; never negative.
    pub fn as_i64(self) -> i64 {
        self.0 as i64
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! serial_id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            pub(crate) fn mint(incarnation: Incarnation, serial: u64) -> Option<Self> {
                (serial <= NUMBER_MAX).then_some(Self((u64::from(incarnation.0) << 48) | serial))
            }

            /// The id as one number, for a message or a record.
            pub fn as_u64(self) -> u64 {
                self.0
            }

            /// The incarnation of the cluster in which it was made.
            pub fn incarnation(self) -> u16 {
                (self.0 >> 48) as u16
            }

            /// Reads an id that [`Self::as_u64`] gave. Naming an id grants nothing: whatever acts
            /// on one looks it up first.
            pub fn from_u64(value: u64) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (incarnation, serial) = (self.0 >> 48, self.0 & NUMBER_MAX);
                if incarnation <= 1 {
                    write!(f, concat!($letter, "{}"), serial)
                } else {
                    write!(f, concat!($letter, "{}.{}"), incarnation, serial)
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = || ParseIdError { expected: concat!($letter, "17"), found: text.chars().take(64).collect() };
                let body = text.strip_prefix($letter).ok_or_else(error)?;
                let (incarnation, serial) = match body.split_once('.') {
                    Some((incarnation, serial)) => (incarnation.parse().map_err(|_| error())?, serial),
                    None => (1, body),
                };
                let incarnation = Incarnation::new(incarnation).ok_or_else(error)?;
                Self::mint(incarnation, serial.parse().map_err(|_| error())?).ok_or_else(error)
            }
        }
    };
}

serial_id! {
    /// One session of one Squid in one target. Never reused, never revived. Printed `s17`, or
    /// `s2.17` in a cluster that was restored once.
    SessionId, "s"
}

serial_id! {
    /// One handoff: the moving of one slice's ownership from one session to another. Printed `h9`.
    HandoffId, "h"
}

/// A text that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not an id; one looks like {expected}")]
pub struct ParseIdError {
    expected: &'static str,
    found: String,
}

#[cfg(feature = "wire")]
mod decode {
    //! Gives back what the table minted; nothing else may call these.
    use super::*;

    impl Generation {
        pub(crate) fn decode(incarnation: u32, number: u64) -> Option<Self> {
            Self::mint(Incarnation::new(u64::from(incarnation))?, number)
        }
    }

    impl Epoch {
        pub(crate) fn decode(incarnation: u32, number: u64) -> Option<Self> {
            Generation::decode(incarnation, number).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_themselves_and_read_back() {
        let generation = Generation::mint(Incarnation::FIRST, 42).unwrap();
        assert_eq!(generation.to_string(), "1#42");
        let session = SessionId::mint(Incarnation::FIRST, 17).unwrap();
        assert_eq!(session.to_string(), "s17");
        assert_eq!("s17".parse::<SessionId>().unwrap(), session);
        let restored = SessionId::mint(Incarnation::new(2).unwrap(), 17).unwrap();
        assert_eq!(restored.to_string(), "s2.17");
        assert_eq!("s2.17".parse::<SessionId>().unwrap(), restored);
        assert!("h17".parse::<SessionId>().is_err());
        assert!("s99999999999999999999".parse::<SessionId>().is_err());
    }

    #[test]
    fn tokens_order_as_epochs_do_and_fit_a_signed_column() {
        let low = Epoch::mint(Generation::mint(Incarnation::FIRST, NUMBER_MAX).unwrap());
        let high = Epoch::mint(Generation::mint(Incarnation::new(2).unwrap(), 1).unwrap());
        assert!(low < high && low.token() < high.token());
        let top =
            Epoch::mint(Generation::mint(Incarnation::new(32_767).unwrap(), NUMBER_MAX).unwrap());
        assert_eq!(top.token().as_i64(), i64::MAX);
        assert!(Generation::mint(Incarnation::FIRST, NUMBER_MAX + 1).is_none());
        assert!(Incarnation::new(32_768).is_none() && Incarnation::new(0).is_none());
    }
}
