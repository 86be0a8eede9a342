//! Whether some order of the operations, each at one instant between its beginning and its end,
//! explains all results: linearizability (Herlihy & Wing, ACM TOPLAS 1990).
//!
//! Keys are independent of each other, so each is judged for itself (the locality theorem there,
//! section 3.3; Horn & Kroening, "Faster linearizability checking via P-compositionality", FORTE
//! 2015), on all cores. The search is in `search.rs`. It may take exponential time, so it has a
//! budget; what the budget does not decide is unknown. Where results carry versions,
//! [`version_order`](crate::version_order) decides in any case.
//!
//! A key without an order is explained by a smallest part of its history that has none.

use std::time::{Duration, Instant};

use crate::history::{Call, End, History};
use crate::parallel;
use crate::verdict::{Finding, Outcome};

mod explain;
mod model;
mod search;

pub use model::{Counter, List, Model, Names, Register, Timed};
pub(crate) use model::{amount, total};

use explain::{Window, explain};
use search::{Answer, Limits, search};

/// How much a check may cost. When it is used up the verdict is unknown, never a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For the whole history. Explaining what is wrong may take as long again.
    pub time: Duration,
    /// Steps of a model, for each key.
    pub steps_per_key: u64,
    /// What all searches together may keep in memory, about.
    pub memory_bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(60),
            steps_per_key: 50_000_000,
            memory_bytes: 1 << 30,
        }
    }
}

/// No more keys than these are explained; of the others only the place is told.
const MAX_EXPLAINED: usize = 8;

/// No more operations than these are written out in an explanation.
const MAX_TOLD: usize = 12;

/// Judges the operations that the model knows, each key for itself; others are left out.
pub fn check<M: Model>(history: &History, model: &M, budget: &Budget) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome::valid("linearizable");
    let mut keys: Vec<(&str, Vec<Call<'_>>)> = history.calls_by_key().into_iter().collect();
    // The longest first, so that no thread is left with it alone at the end.
    keys.sort_by_key(|(_, calls)| std::cmp::Reverse(calls.len()));
    let limits = Limits {
        deadline: begun + budget.time,
        steps: budget.steps_per_key,
        memory_bytes: budget.memory_bytes / parallel::threads(keys.len()),
    };
    let mut judged = parallel::map(&keys, |(key, calls)| judge(key, calls, model, &limits));
    judged.sort_by_key(|judged| judged.key);
    let limits = Limits {
        deadline: Instant::now() + budget.time,
        ..limits
    };
    let (mut ops, mut unknown, mut steps, mut valid) = (0u64, 0u64, 0u64, 0u64);
    let mut explained = 0;
    for key in judged {
        ops += key.ops.len() as u64;
        unknown += key.ops.iter().filter(|op| op.return_ns.is_none()).count() as u64;
        steps += key.steps;
        match &key.answer {
            Ok(Answer::Found) => valid += 1,
            Ok(Answer::None(_)) => {
                explained += 1;
                let finding = tell_invalid(history, model, key, &limits, explained);
                outcome.invalid(finding);
            }
            Ok(Answer::Exhausted(limit)) => outcome.unknown(
                Finding::new(format!(
                    "no order of its {} operations was found, nor that there is none, before the \
                     budget of {limit} was used up",
                    key.ops.len()
                ))
                .key(key.key),
            ),
            Err((index, cause)) => outcome.unknown(
                Finding::new(format!("cannot be read as a {}: {cause}", model.name()))
                    .ops([*index])
                    .key(key.key),
            ),
        }
    }
    outcome.count("model", model.name());
    outcome.count("keys", keys.len());
    outcome.count("keys_valid", valid);
    outcome.count("ops", ops);
    outcome.count("ops_unknown", unknown);
    outcome.count("steps", steps);
    outcome
}

/// One key and what was found of it.
struct Judged<'a, M: Model> {
    key: &'a str,
    names: Names,
    initial: M::State,
    ops: Vec<Timed<M::Op>>,
    /// An error has the index of the operation that makes no sense.
    answer: Result<Answer<M::State>, (u64, String)>,
    steps: u64,
}

fn judge<'a, M: Model>(
    key: &'a str,
    calls: &[Call<'_>],
    model: &M,
    limits: &Limits,
) -> Judged<'a, M> {
    let mut names = Names::default();
    let initial = model.initial(&mut names);
    let mut ops = Vec::with_capacity(calls.len());
    let mut steps = 0;
    let mut wrong = None;
    for call in calls {
        let return_ns = match call.end {
            End::Fail(_) => continue,
            End::Ok(op) => Some(op.time),
            End::Unknown(_) => None,
        };
        match model.op(call, &mut names) {
            Ok(Some(op)) => ops.push(Timed {
                op,
                call_ns: call.call_ns(),
                return_ns,
                index: call.invoke.index,
            }),
            Ok(None) => {}
            Err(cause) => {
                wrong = Some((call.invoke.index, cause));
                break;
            }
        }
    }
    let answer = match wrong {
        Some(wrong) => Err(wrong),
        None => {
            model.drop_unseen(&mut ops);
            Ok(search(model, &initial, &ops, limits, &mut steps))
        }
    };
    Judged {
        key,
        names,
        initial,
        ops,
        answer,
        steps,
    }
}

fn tell_invalid<M: Model>(
    history: &History,
    model: &M,
    key: Judged<'_, M>,
    limits: &Limits,
    explained: usize,
) -> Finding {
    let Ok(Answer::None(stuck)) = key.answer else {
        return Finding::new("").key(key.key);
    };
    if explained > MAX_EXPLAINED {
        let blocked = &key.ops[stuck.blocked];
        return Finding::new("no order of its operations gets past the end of this one")
            .ops([blocked.index])
            .time(blocked.call_ns, blocked.return_ns.unwrap_or(u64::MAX))
            .key(key.key);
    }
    let window = explain(model, &key.initial, &key.ops, stuck, limits);
    let kept = window.kept.iter().map(|at| &key.ops[*at]);
    let from_ns = kept.clone().map(|op| op.call_ns).min().unwrap_or(0);
    let to_ns = kept.clone().filter_map(|op| op.return_ns).max();
    let text = tell_window(history, model, &key.names, &key.ops, &window);
    Finding::new(text)
        .ops(kept.map(|op| op.index))
        .time(from_ns, to_ns.unwrap_or(u64::MAX))
        .key(key.key)
}

fn tell_window<M: Model>(
    history: &History,
    model: &M,
    names: &Names,
    ops: &[Timed<M::Op>],
    window: &Window<M::State>,
) -> String {
    let told: Vec<String> = window
        .kept
        .iter()
        .rev()
        .take(MAX_TOLD)
        .rev()
        .map(|at| tell_op(history, ops[*at].index))
        .collect();
    let states: Vec<String> = window
        .states
        .iter()
        .map(|state| model.show(state, names))
        .collect();
    let blocked = &ops[window.blocked];
    let mut reasons: Vec<String> = Vec::new();
    let pending =
        window.kept.iter().map(|at| &ops[*at]).filter(|op| {
            Some(op.call_ns) <= blocked.return_ns && op.return_ns >= blocked.return_ns
        });
    for op in pending {
        for state in &window.states {
            if model.step(state, &op.op).is_none() && reasons.len() < MAX_TOLD {
                let need = model.needs(&op.op, state, names);
                reasons.push(format!("{} {need}", tell_op(history, op.index)));
            }
        }
    }
    let dots = match told.len() < window.kept.len() {
        true => "…, ",
        false => "",
    };
    let told = told.join(", ");
    let (states, reasons) = (states.join(" or "), reasons.join("; "));
    let name = model.name();
    let mut text = match window.kept.len() {
        1 => format!("nothing explains the result of this operation: {told}."),
        count => {
            format!("no order of these {count} operations explains their results: {dots}{told}.")
        }
    };
    text.push_str(&format!(
        " Before the last of them ends the {name} can only hold {states}: {reasons}."
    ));
    if window.loose > 0 {
        text.push_str(&format!(
            " This is so even if {} other operations take effect at any time after they began, or \
             never.",
            window.loose
        ));
    }
    if window.is_cut_short {
        text.push_str(" The budget kept this from being made smaller.");
    }
    text
}

/// An operation for people: process, what, result, from when to when.
fn tell_op(history: &History, index: u64) -> String {
    let at = index as usize;
    let Some(begin) = history.0.get(at) else {
        return format!("operation {index}");
    };
    let end = history.0[at + 1..]
        .iter()
        .find(|op| op.process == begin.process);
    let shown = match begin.value.is_null() {
        true => end.map_or(&begin.value, |end| &end.value),
        false => &begin.value,
    };
    let mut shown = shown.to_string();
    if let Some((cut, _)) = shown.char_indices().nth(80) {
        shown.truncate(cut);
        shown.push('…');
    }
    format!(
        "{} {shown} by process {} [{} ns, {}]",
        begin.f,
        begin.process,
        begin.time,
        end.map_or("no end".to_owned(), |end| format!("{} ns", end.time)),
    )
}

#[cfg(test)]
mod tests;
