//! What an object does, one operation after the other.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

use serde_json::Value;

use crate::history::Call;

mod counter;
mod list;
mod register;

pub use counter::Counter;
pub(crate) use counter::{amount, total};
pub use list::List;
pub use register::Register;

/// A sequential object: the specification that concurrent operations are compared with.
pub trait Model: Sync {
    /// What the object holds.
    type State: Clone + Eq + Hash + Debug + Send;
    /// An operation and its result, as far as it is known.
    type Op: Clone + Eq + Hash + Debug + Send + Sync;

    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// What it holds before the first operation.
    fn initial(&self, names: &mut Names) -> Self::State;

    /// Reads an operation; `None` if it says nothing of the object: unknown reads, and operations
    /// that the model does not know. Never called with an operation that failed.
    ///
    /// Fails when a value has the wrong form; the check is then unknown.
    fn op(&self, call: &Call<'_>, names: &mut Names) -> Result<Option<Self::Op>, String>;

    /// What the object holds afterwards; `None` if the operation cannot have had its result.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// Whether leaving it out makes a history only easier to explain, as that of a read does.
    fn is_read(&self, op: &Self::Op) -> bool;

    /// Whether every order in which `next` comes directly after the unknown operation `unknown` can
    /// be left out without changing the verdict, because `unknown` could as well come later or
    /// never.
    fn is_idle(&self, unknown: &Self::Op, next: &Self::Op, next_is_unknown: bool) -> bool {
        let _ = (unknown, next, next_is_unknown);
        false
    }

    /// Takes out unknown operations of which no other operation can tell that they took effect;
    /// that must not change the verdict.
    fn drop_unseen(&self, ops: &mut Vec<Timed<Self::Op>>) {
        let _ = ops;
    }

    /// How much memory a state takes, about.
    fn state_bytes(&self, state: &Self::State) -> usize {
        size_of_val(state)
    }

    /// A state, for people.
    fn show(&self, state: &Self::State, names: &Names) -> String;

    /// What an operation needs that `state` is not, for people.
    fn needs(&self, op: &Self::Op, state: &Self::State, names: &Names) -> String;
}

/// An operation and when it took effect: at one instant of a closed interval, or, without an end,
/// at any later time or never.
#[derive(Clone, Debug)]
pub struct Timed<O> {
    /// The operation.
    pub op: O,
    /// When it began.
    pub call_ns: u64,
    /// When it ended; `None` if it is unknown whether and when it took effect.
    pub return_ns: Option<u64>,
    /// `index` of its invocation in the history.
    pub index: u64,
}

/// Values as small numbers, the same number for equal values; 0 is `null`.
#[derive(Debug)]
pub struct Names {
    numbers: HashMap<i64, u32>,
    others: HashMap<String, u32>,
    values: Vec<Value>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            others: HashMap::new(),
            values: vec![Value::Null],
        }
    }
}

impl Names {
    /// The number of a value.
    pub fn number(&mut self, value: &Value) -> u32 {
        let next = self.values.len() as u32;
        let number = match (value, value.as_i64()) {
            (Value::Null, _) => return 0,
            (_, Some(integer)) => *self.numbers.entry(integer).or_insert(next),
            _ => *self.others.entry(value.to_string()).or_insert(next),
        };
        if number == next {
            self.values.push(value.clone());
        }
        number
    }

    /// The value of a number.
    pub fn value(&self, number: u32) -> &Value {
        self.values.get(number as usize).unwrap_or(&Value::Null)
    }
}
