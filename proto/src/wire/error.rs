//! Why bytes or a message could not be decoded.

use std::fmt;

/// A message outside its format or bounds: which field, and what was wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct WireError {
    field: &'static str,
    problem: Problem,
}

/// What was wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It must be present.
    #[error("is missing")]
    Missing,
    /// It is outside a closed set, perhaps of a newer version.
    #[error("has the unknown value {0}")]
    Unknown(i32),
    /// It is beyond a bound of `limits`.
    #[error("has {found} {unit}; at most {most} are accepted")]
    TooMuch {
        /// How much there is.
        found: usize,
        /// How much there may be.
        most: usize,
        /// Of what.
        unit: &'static str,
    },
    /// It must have one exact length.
    #[error("has {found} bytes; exactly {wanted} are accepted")]
    WrongLength {
        /// The length found.
        found: usize,
        /// The only one accepted.
        wanted: usize,
    },
    /// Anything else.
    #[error("is not valid: {0}")]
    Invalid(String),
}

impl WireError {
    pub(super) fn new(field: &'static str, problem: Problem) -> Self {
        Self { field, problem }
    }

    pub(super) fn missing(field: &'static str) -> Self {
        Self::new(field, Problem::Missing)
    }

    pub(super) fn unknown(field: &'static str, value: i32) -> Self {
        Self::new(field, Problem::Unknown(value))
    }

    pub(super) fn invalid(field: &'static str, why: impl fmt::Display) -> Self {
        Self::new(field, Problem::Invalid(why.to_string()))
    }

    /// The field, as `Message.field`.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// What was wrong with it.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}
