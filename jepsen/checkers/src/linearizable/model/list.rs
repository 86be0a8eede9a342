//! A list: `append`, `read`.

use std::collections::HashSet;

use super::{Model, Names, Timed};
use crate::history::{Call, Versioned};

/// A list that begins empty. Versions do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List;

/// An operation on a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListOp {
    /// Appends.
    Append(u32),
    /// Reads the whole.
    Read(Vec<u32>),
}

impl Model for List {
    type State = Vec<u32>;
    type Op = ListOp;

    fn name(&self) -> &'static str {
        "list"
    }

    fn initial(&self, _names: &mut Names) -> Vec<u32> {
        Vec::new()
    }

    fn op(&self, call: &Call<'_>, names: &mut Names) -> Result<Option<ListOp>, String> {
        match (call.f(), call.ok()) {
            ("append", _) => Ok(Some(ListOp::Append(names.number(&call.invoke.value)))),
            ("read", Some(ok)) => {
                let result = Versioned::of(&ok.value).value;
                if result.is_null() {
                    return Ok(Some(ListOp::Read(Vec::new())));
                }
                let values = result
                    .as_array()
                    .ok_or_else(|| format!("a read of {}, not an array", ok.value))?;
                let numbers = values.iter().map(|value| names.number(value)).collect();
                Ok(Some(ListOp::Read(numbers)))
            }
            _ => Ok(None),
        }
    }

    fn step(&self, state: &Vec<u32>, op: &ListOp) -> Option<Vec<u32>> {
        match op {
            ListOp::Append(value) => {
                let mut longer = Vec::with_capacity(state.len() + 1);
                longer.extend_from_slice(state);
                longer.push(*value);
                Some(longer)
            }
            ListOp::Read(values) => (values == state).then(|| state.clone()),
        }
    }

    fn is_read(&self, op: &ListOp) -> bool {
        matches!(op, ListOp::Read(_))
    }

    /// A read shows the whole list, so no read can come after an append that no read shows.
    fn drop_unseen(&self, ops: &mut Vec<Timed<ListOp>>) {
        let mut seen = HashSet::new();
        for timed in ops.iter() {
            if let ListOp::Read(values) = &timed.op {
                seen.extend(values.iter().copied());
            }
        }
        ops.retain(|timed| match &timed.op {
            ListOp::Append(value) => timed.return_ns.is_some() || seen.contains(value),
            ListOp::Read(_) => true,
        });
    }

    fn state_bytes(&self, state: &Vec<u32>) -> usize {
        size_of_val(state) + size_of_val(state.as_slice())
    }

    fn show(&self, state: &Vec<u32>, names: &Names) -> String {
        let values: Vec<String> = state
            .iter()
            .map(|number| names.value(*number).to_string())
            .collect();
        format!("[{}]", values.join(", "))
    }

    fn needs(&self, op: &ListOp, state: &Vec<u32>, names: &Names) -> String {
        match op {
            ListOp::Read(values) => format!(
                "needs {} where {} is",
                self.show(values, names),
                self.show(state, names)
            ),
            ListOp::Append(_) => String::from("always fits"),
        }
    }
}
