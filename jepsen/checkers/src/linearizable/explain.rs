//! Why there is no order: the smallest part of a history that has none.
//!
//! A part is weaker than the whole: an operation outside it is left out if it is a read, and else
//! may take effect at any time after it began, or never. So whatever has no order in part has none
//! as a whole, and adding operations to a part never gives it an order. That makes binary search
//! possible: the shortest prefix of the candidates that has no order ends in an operation that is
//! needed; keep it and go on with those before it (Junker, "QuickXplain", AAAI 2004, has the same
//! idea). What is left is minimal: none of it can go.

use super::model::{Model, Timed};
use super::search::{Answer, Limits, Stuck, search};

/// A smallest part without an order.
pub(super) struct Window<S> {
    /// Its operations, in the order in which they began.
    pub kept: Vec<usize>,
    /// How many operations beside it might have taken effect at any time or never.
    pub loose: usize,
    /// The operation whose return no order gets past, and the states before.
    pub blocked: usize,
    pub states: Vec<S>,
    /// Whether the limits kept it from being smaller.
    pub is_cut_short: bool,
}

/// Finds a smallest part. `stuck` is where the search of all `ops` ended.
pub(super) fn explain<M: Model>(
    model: &M,
    initial: &M::State,
    ops: &[Timed<M::Op>],
    stuck: Stuck<M::State>,
    limits: &Limits,
) -> Window<M::State> {
    let part = Part::before(model, initial, ops, stuck.blocked, limits);
    let mut newest_first = part.known.clone();
    newest_first.sort_by_key(|at| std::cmp::Reverse(ops[*at].call_ns));
    let mut oldest_first = newest_first.clone();
    oldest_first.reverse();
    let mut is_cut_short = false;
    let mut best: Option<Window<M::State>> = None;
    for order in [newest_first, oldest_first] {
        match part.smallest(order) {
            Some(window)
                if best
                    .as_ref()
                    .is_none_or(|best| window.kept.len() < best.kept.len()) =>
            {
                best = Some(window);
            }
            Some(_) => {}
            None => is_cut_short = true,
        }
    }
    match best {
        Some(window) => Window {
            is_cut_short,
            ..window
        },
        None => {
            let mut kept = part.known;
            kept.sort_by_key(|at| ops[*at].call_ns);
            Window {
                loose: 0,
                kept,
                blocked: stuck.blocked,
                states: stuck.states,
                is_cut_short: true,
            }
        }
    }
}

struct Part<'a, M: Model> {
    model: &'a M,
    initial: &'a M::State,
    ops: &'a [Timed<M::Op>],
    /// Operations that may be kept: those that returned by the time that is not got past.
    known: Vec<usize>,
    end_ns: u64,
    limits: &'a Limits,
    steps: std::cell::Cell<u64>,
}

impl<'a, M: Model> Part<'a, M> {
    /// Up to the return of `blocked`: what came after cannot have helped.
    fn before(
        model: &'a M,
        initial: &'a M::State,
        ops: &'a [Timed<M::Op>],
        blocked: usize,
        limits: &'a Limits,
    ) -> Self {
        let end_ns = ops[blocked].return_ns.unwrap_or(u64::MAX);
        let returned = |at: &usize| ops[*at].return_ns.is_some_and(|at_ns| at_ns <= end_ns);
        Self {
            model,
            initial,
            ops,
            known: (0..ops.len()).filter(returned).collect(),
            end_ns,
            limits,
            steps: std::cell::Cell::new(0),
        }
    }

    /// The weaker history that keeps these; each operation with its place in `ops`.
    fn keeping(&self, kept: &[usize]) -> Vec<Timed<M::Op>> {
        let mut is_kept = vec![false; self.ops.len()];
        for at in kept {
            is_kept[*at] = true;
        }
        let began = |timed: &&Timed<M::Op>| timed.call_ns <= self.end_ns;
        let mut part: Vec<Timed<M::Op>> = Vec::new();
        for (at, timed) in self.ops.iter().enumerate() {
            if began(&timed) && (is_kept[at] || !self.model.is_read(&timed.op)) {
                part.push(Timed {
                    return_ns: timed.return_ns.filter(|_| is_kept[at]),
                    index: at as u64,
                    ..timed.clone()
                });
            }
        }
        self.model.drop_unseen(&mut part);
        part
    }

    /// Where the search of a part gets stuck; `None` if there is an order or the limits are reached.
    fn stuck(&self, part: &[Timed<M::Op>]) -> Option<Stuck<M::State>> {
        let mut steps = self.steps.get();
        let limits = Limits {
            steps: self.limits.steps.saturating_sub(steps) / 8,
            ..*self.limits
        };
        let answer = search(self.model, self.initial, part, &limits, &mut steps);
        self.steps.set(steps);
        match answer {
            Answer::None(stuck) => Some(stuck),
            Answer::Found | Answer::Exhausted(_) => None,
        }
    }

    fn smallest(&self, mut candidates: Vec<usize>) -> Option<Window<M::State>> {
        let mut needed: Vec<usize> = Vec::new();
        loop {
            let has_none = |count: usize| {
                let mut kept = needed.clone();
                kept.extend_from_slice(&candidates[..count]);
                self.stuck(&self.keeping(&kept)).is_some()
            };
            if has_none(0) {
                break;
            }
            // Fewer than `low` are too few, `high` are enough.
            let (mut low, mut high) = (1, candidates.len());
            if high == 0 {
                return None;
            }
            while low < high {
                let middle = (low + high) / 2;
                match has_none(middle) {
                    true => high = middle,
                    false => low = middle + 1,
                }
            }
            needed.push(candidates[high - 1]);
            candidates.truncate(high - 1);
        }
        needed.sort_by_key(|at| (self.ops[*at].call_ns, *at));
        let part = self.keeping(&needed);
        let stuck = self.stuck(&part)?;
        Some(Window {
            loose: part.len() - needed.len(),
            kept: needed,
            blocked: part[stuck.blocked].index as usize,
            states: stuck.states,
            is_cut_short: false,
        })
    }
}
