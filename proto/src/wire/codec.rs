//! How one field is written and read: a [`Codec`] for each kind of field, and the macros that make
//! the conversions of a whole message from a list of its fields and their codecs.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{Problem, WireError};
use crate::command::Digest;
use crate::id::{HandoffId, Incarnation, SessionId};
use crate::key::SliceKey;
use crate::limits;
use crate::target::{PodAddress, TargetName};

/// Converts between a noun `N` and the protobuf field `P`.
pub(super) trait Codec<N, P> {
    fn put(noun: &N) -> P;
    fn take(field: &'static str, wire: P) -> Result<N, WireError>;
}

/// A field that means itself.
pub(super) struct Same;
/// A message that must be there.
pub(super) struct Needed;
/// A message that may be absent.
pub(super) struct Maybe;
/// The number of a session or handoff; never 0.
pub(super) struct Id;
/// A slice key.
pub(super) struct Key;
/// A target's name.
pub(super) struct Name;
/// `host:port`.
pub(super) struct Address;
/// A member of a closed set.
pub(super) struct Enum;
/// Exactly sixteen bytes.
pub(super) struct Sixteen;
/// A text of at most so many bytes.
pub(super) struct Text<const MOST: usize>;
/// At most so many messages.
pub(super) struct List<const MOST: usize>;
/// At most so many ids.
pub(super) struct Ids<const MOST: usize>;
/// Any duration, in nanoseconds.
pub(super) struct Nanos;
/// The time to live of a session, in nanoseconds.
pub(super) struct Ttl;
/// The deadline of a handoff, in nanoseconds.
pub(super) struct Deadline;
/// A finite number that is not negative.
pub(super) struct Load;
/// Which life of the replicated state.
pub(super) struct Life;

/// A member of a closed set, with its number on the wire.
pub(super) trait WireEnum: Copy {
    fn to_wire(self) -> i32;
    fn from_wire(value: i32) -> Option<Self>;
}

pub(super) fn at_most(
    field: &'static str,
    found: usize,
    most: usize,
    unit: &'static str,
) -> Result<(), WireError> {
    if found <= most {
        Ok(())
    } else {
        Err(WireError::new(
            field,
            Problem::TooMuch { found, most, unit },
        ))
    }
}

/// Reads the name of a target.
pub fn target_name(field: &'static str, text: &str) -> Result<TargetName, WireError> {
    TargetName::new(text).map_err(|error| WireError::invalid(field, error))
}

/// Reads the address of a pod.
pub fn pod_address(field: &'static str, text: &str) -> Result<PodAddress, WireError> {
    PodAddress::new(text).map_err(|error| WireError::invalid(field, error))
}

/// Reads the id of a session; 0 is none.
pub fn session_id(field: &'static str, value: u64) -> Result<SessionId, WireError> {
    if value == 0 {
        Err(WireError::missing(field))
    } else {
        Ok(SessionId::from_u64(value))
    }
}

/// Reads the id of a handoff; 0 is none.
pub fn handoff_id(field: &'static str, value: u64) -> Result<HandoffId, WireError> {
    if value == 0 {
        Err(WireError::missing(field))
    } else {
        Ok(HandoffId::from_u64(value))
    }
}

/// Checks that a text has at most `most` bytes.
pub fn bounded_text(field: &'static str, text: String, most: usize) -> Result<String, WireError> {
    at_most(field, text.len(), most, "bytes").map(|()| text)
}

/// The longest beginning of `text` that has at most `most` bytes.
pub(super) fn beginning(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn sixteen(field: &'static str, bytes: &[u8]) -> Result<[u8; 16], WireError> {
    let wrong = |_| {
        WireError::new(
            field,
            Problem::WrongLength {
                found: bytes.len(),
                wanted: 16,
            },
        )
    };
    bytes.try_into().map_err(wrong)
}

fn within(
    field: &'static str,
    value: u64,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, WireError> {
    let duration = Duration::from_nanos(value);
    if bounds.contains(&duration) {
        return Ok(duration);
    }
    let (low, high) = bounds.into_inner();
    Err(WireError::invalid(
        field,
        format_args!("{duration:?}; it must be {low:?} to {high:?}"),
    ))
}

impl<T: Copy> Codec<T, T> for Same {
    fn put(noun: &T) -> T {
        *noun
    }

    fn take(_: &'static str, wire: T) -> Result<T, WireError> {
        Ok(wire)
    }
}

impl<N, P> Codec<N, Option<P>> for Needed
where
    P: for<'a> From<&'a N>,
    N: TryFrom<P, Error = WireError>,
{
    fn put(noun: &N) -> Option<P> {
        Some(noun.into())
    }

    fn take(field: &'static str, wire: Option<P>) -> Result<N, WireError> {
        wire.ok_or(WireError::missing(field))?.try_into()
    }
}

impl<N, P> Codec<Option<N>, Option<P>> for Maybe
where
    P: for<'a> From<&'a N>,
    N: TryFrom<P, Error = WireError>,
{
    fn put(noun: &Option<N>) -> Option<P> {
        noun.as_ref().map(P::from)
    }

    fn take(_: &'static str, wire: Option<P>) -> Result<Option<N>, WireError> {
        wire.map(N::try_from).transpose()
    }
}

/// Codecs of simple fields that may also be absent.
macro_rules! codec {
    ($codec:ty: $noun:ty = $wire:ty, |$n:ident| $put:expr, |$field:ident, $w:ident| $take:expr) => {
        impl Codec<$noun, $wire> for $codec {
            fn put($n: &$noun) -> $wire {
                $put
            }

            fn take($field: &'static str, $w: $wire) -> Result<$noun, WireError> {
                $take
            }
        }

        impl Codec<Option<$noun>, Option<$wire>> for $codec {
            fn put(noun: &Option<$noun>) -> Option<$wire> {
                noun.as_ref().map(<$codec as Codec<$noun, $wire>>::put)
            }

            fn take(field: &'static str, wire: Option<$wire>) -> Result<Option<$noun>, WireError> {
                wire.map(|wire| <$codec as Codec<$noun, $wire>>::take(field, wire))
                    .transpose()
            }
        }
    };
}

codec!(Id: SessionId = u64, |n| n.as_u64(), |field, w| session_id(field, w));
codec!(Id: HandoffId = u64, |n| n.as_u64(), |field, w| handoff_id(field, w));
codec!(Key: SliceKey = u64, |n| n.as_u64(), |_field, w| Ok(SliceKey::from_u64(w)));
codec!(Name: TargetName = String, |n| n.as_str().to_owned(), |field, w| target_name(field, &w));
codec!(Address: PodAddress = String, |n| n.as_str().to_owned(), |field, w| pod_address(field, &w));
codec!(Sixteen: Digest = Vec<u8>, |n| n.0.to_vec(), |field, w| sixteen(field, &w).map(Digest));
codec!(Sixteen: u128 = Vec<u8>, |n| n.to_be_bytes().to_vec(), |field, w| sixteen(field, &w).map(u128::from_be_bytes));
codec!(Nanos: Duration = u64, |n| nanos(*n), |_field, w| Ok(Duration::from_nanos(w)));
codec!(Ttl: Duration = u64, |n| nanos(*n), |field, w| within(field, w, limits::TTL_MIN..=limits::TTL_MAX));
codec!(Deadline: Duration = u64, |n| nanos(*n), |field, w| {
    within(field, w, Duration::from_nanos(1)..=limits::HANDOFF_DEADLINE_MAX)
});
codec!(Load: f64 = f64, |n| *n, |field, w| {
    if w.is_finite() && w >= 0.0 { Ok(w) } else { Err(WireError::invalid(field, w)) }
});
codec!(Life: Incarnation = u32, |n| u32::from(n.get()), |field, w| {
    Incarnation::new(u64::from(w)).ok_or_else(|| WireError::invalid(field, format_args!("{w} is no incarnation")))
});

impl<const MOST: usize> Codec<String, String> for Text<MOST> {
    fn put(noun: &String) -> String {
        noun.clone()
    }

    fn take(field: &'static str, wire: String) -> Result<String, WireError> {
        bounded_text(field, wire, MOST)
    }
}

impl<const MOST: usize> Codec<Option<String>, Option<String>> for Text<MOST> {
    fn put(noun: &Option<String>) -> Option<String> {
        noun.clone()
    }

    fn take(field: &'static str, wire: Option<String>) -> Result<Option<String>, WireError> {
        wire.map(|text| bounded_text(field, text, MOST)).transpose()
    }
}

impl<N: WireEnum> Codec<N, i32> for Enum {
    fn put(noun: &N) -> i32 {
        noun.to_wire()
    }

    fn take(field: &'static str, wire: i32) -> Result<N, WireError> {
        match N::from_wire(wire) {
            Some(noun) => Ok(noun),
            None if wire == 0 => Err(WireError::missing(field)),
            None => Err(WireError::unknown(field, wire)),
        }
    }
}

impl<N: WireEnum> Codec<Option<N>, Option<i32>> for Enum {
    fn put(noun: &Option<N>) -> Option<i32> {
        noun.map(N::to_wire)
    }

    fn take(field: &'static str, wire: Option<i32>) -> Result<Option<N>, WireError> {
        wire.map(|value| <Enum as Codec<N, i32>>::take(field, value))
            .transpose()
    }
}

impl<N, P, const MOST: usize> Codec<Vec<N>, Vec<P>> for List<MOST>
where
    P: for<'a> From<&'a N>,
    N: TryFrom<P, Error = WireError>,
{
    fn put(noun: &Vec<N>) -> Vec<P> {
        noun.iter().map(P::from).collect()
    }

    fn take(field: &'static str, wire: Vec<P>) -> Result<Vec<N>, WireError> {
        at_most(field, wire.len(), MOST, "items")?;
        wire.into_iter().map(N::try_from).collect()
    }
}

impl<const MOST: usize> Codec<Vec<SessionId>, Vec<u64>> for Ids<MOST> {
    fn put(noun: &Vec<SessionId>) -> Vec<u64> {
        noun.iter().map(|id| id.as_u64()).collect()
    }

    fn take(field: &'static str, wire: Vec<u64>) -> Result<Vec<SessionId>, WireError> {
        at_most(field, wire.len(), MOST, "items")?;
        wire.into_iter()
            .map(|value| session_id(field, value))
            .collect()
    }
}

impl<const MOST: usize> Codec<Box<[SessionId]>, Vec<u64>> for Ids<MOST> {
    fn put(noun: &Box<[SessionId]>) -> Vec<u64> {
        noun.iter().map(|id| id.as_u64()).collect()
    }

    fn take(field: &'static str, wire: Vec<u64>) -> Result<Box<[SessionId]>, WireError> {
        <Self as Codec<Vec<SessionId>, Vec<u64>>>::take(field, wire).map(Vec::into_boxed_slice)
    }
}

/// The conversions of a closed set without data: `wire_enum!(Noun = Wire { Noun variant = Wire variant })`.
macro_rules! wire_enum {
    ($noun:ident = $wire:ident { $($variant:ident = $value:ident),* $(,)? }) => {
        impl $crate::wire::codec::WireEnum for $noun {
            fn to_wire(self) -> i32 {
                match self { $(Self::$variant => $crate::wire::pb::$wire::$value as i32,)* }
            }

            fn from_wire(value: i32) -> Option<Self> {
                match $crate::wire::pb::$wire::try_from(value).ok()? {
                    $($crate::wire::pb::$wire::$value => Some(Self::$variant),)*
                    $crate::wire::pb::$wire::Unspecified => None,
                }
            }
        }
    };
}

/// The conversions of a struct: `message!(Noun = Wire { field: Codec, wire_field = field: Codec })`,
/// and behind a semicolon a function that checks the decoded noun as a whole.
macro_rules! message {
    ($noun:ident = $wire:ident { $($wired:ident $(= $field:ident)?: $codec:ty),* $(,)? } $(; $check:path)?) => {
        impl From<&$noun> for $crate::wire::pb::$wire {
            fn from(noun: &$noun) -> Self {
                let $noun { $($($field:)? $wired),* } = noun;
                Self { $($wired: <$codec as $crate::wire::codec::Codec<_, _>>::put($wired)),* }
            }
        }

        impl TryFrom<$crate::wire::pb::$wire> for $noun {
            type Error = $crate::wire::WireError;

            fn try_from(wire: $crate::wire::pb::$wire) -> Result<Self, Self::Error> {
                $(let $wired = <$codec as $crate::wire::codec::Codec<_, _>>::take(
                    concat!(stringify!($wire), ".", stringify!($wired)), wire.$wired)?;)*
                let noun = Self { $($($field:)? $wired),* };
                $($check(&noun)?;)?
                Ok(noun)
            }
        }
    };
}

/// The conversions of an enum whose variants are structs, each a message of its own:
/// `one_of!(Noun = Wire.field: module::Enum { Variant(Message) { field: Codec } })`.
macro_rules! one_of {
    ($noun:ident = $wire:ident.$oneof:ident: $module:ident::$kind:ident {
        $($variant:ident($message:ident) { $($wired:ident $(= $field:ident)?: $codec:ty),* $(,)? }),* $(,)?
    }) => {
        impl From<&$noun> for $crate::wire::pb::$wire {
            fn from(noun: &$noun) -> Self {
                use $crate::wire::{codec::Codec, pb};
                let kind = match noun {
                    $($noun::$variant { $($($field:)? $wired),* } => pb::$module::$kind::$variant(pb::$message {
                        $($wired: <$codec as Codec<_, _>>::put($wired)),*
                    }),)*
                };
                Self { $oneof: Some(kind) }
            }
        }

        impl TryFrom<$crate::wire::pb::$wire> for $noun {
            type Error = $crate::wire::WireError;

            fn try_from(wire: $crate::wire::pb::$wire) -> Result<Self, Self::Error> {
                use $crate::wire::{codec::Codec, pb};
                let missing = $crate::wire::WireError::missing(concat!(stringify!($wire), ".", stringify!($oneof)));
                Ok(match wire.$oneof.ok_or(missing)? {
                    $(pb::$module::$kind::$variant(wire) => {
                        $(let $wired = <$codec as Codec<_, _>>::take(
                            concat!(stringify!($message), ".", stringify!($wired)), wire.$wired)?;)*
                        $noun::$variant { $($($field:)? $wired),* }
                    })*
                })
            }
        }
    };
}

pub(super) use {message, one_of, wire_enum};
