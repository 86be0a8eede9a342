//! Histories from a seed, and the definition of linearizability taken at its word.

use leasehold_checkers::history::{Call, End, History, Kind as Line, Op};
use serde_json::{Value, json};

/// Which object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Register,
    Counter,
    List,
}

/// Random numbers (xorshift, Marsaglia 2003) that follow from a seed.
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Gives a read the result of another one that differs.
    pub fn mutate_read(&mut self, history: &mut History) {
        let is_read = |op: &&Op| op.kind == Line::Ok && op.f == "read";
        let reads: Vec<usize> = history
            .0
            .iter()
            .filter(is_read)
            .map(|op| op.index as usize)
            .collect();
        for _ in 0..100 {
            if reads.is_empty() {
                return;
            }
            let pick = |seeded: &mut Self| reads[seeded.below(reads.len() as u64) as usize];
            let (to, from) = (pick(self), pick(self));
            if history.0[to].value != history.0[from].value {
                history.0[to].value = history.0[from].value.clone();
                return;
            }
        }
    }
}

/// An operation under way in a simulated run.
struct UnderWay {
    process: u64,
    f: &'static str,
    argument: Value,
    result: Option<Value>,
    gave_up: bool,
}

fn line(time: u64, process: u64, kind: Line, f: &str, value: Value) -> Op {
    Op {
        index: 0,
        time,
        process,
        kind,
        f: f.to_owned(),
        key: Some("k".to_owned()),
        value,
        node: None,
        epoch: None,
        error: None,
    }
}

fn numbered(lines: Vec<Op>) -> History {
    let numbered = lines.into_iter().enumerate().map(|(at, op)| Op {
        index: at as u64,
        ..op
    });
    History(numbered.collect())
}

/// For people.
pub fn shown(history: &History) -> String {
    let mut text = Vec::new();
    match leasehold_checkers::history::write_text(history, &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => error.to_string(),
    }
}

/// What the simulated object holds.
struct Object {
    value: Value,
    epoch: u64,
    seq: u64,
}

impl Object {
    /// Applies an operation; its result, or `None` for a compare-and-set that does not match.
    fn apply(&mut self, f: &str, argument: &Value, new_owner: bool) -> Option<Value> {
        match f {
            "write" => self.value = argument.clone(),
            "cas" if argument[0] == self.value => self.value = argument[1].clone(),
            "cas" => return None,
            "add" => self.value = json!(self.value.as_i64()? + argument.as_i64()?),
            "append" => self.value.as_array_mut()?.push(argument.clone()),
            _ => {}
        }
        if f != "read" {
            // A new owner writes under a new epoch; the first one has epoch 1.
            if new_owner || self.epoch == 0 {
                self.epoch += 1;
                self.seq = 0;
            }
            self.seq += 1;
        }
        let result = match f {
            "read" => self.value.clone(),
            _ => argument.clone(),
        };
        Some(json!({"value": result, "version": [self.epoch, self.seq]}))
    }
}

/// A run of five clients against an object that applies one operation after the other, each some
/// time between its beginning and its end; some ends are not known, and those may come late.
pub fn simulated(seed: u64, kind: Kind, ops: u64) -> History {
    let mut seeded = Seeded::new(seed);
    let value = match kind {
        Kind::Register => Value::Null,
        Kind::Counter => json!(0),
        Kind::List => json!([]),
    };
    let mut object = Object {
        value,
        epoch: 0,
        seq: 0,
    };
    let (mut under_way, mut lines): (Vec<UnderWay>, Vec<Op>) = (Vec::new(), Vec::new());
    let (mut processes, mut idle, mut begun, mut time) = (5, vec![0, 1, 2, 3, 4], 0, 0);
    while begun < ops || !idle.len().eq(&5) {
        time += seeded.below(3);
        if begun < ops && !idle.is_empty() && seeded.one_in(3) {
            begun += 1;
            let process = idle.swap_remove(seeded.below(idle.len() as u64) as usize);
            let (f, argument) = invocation(kind, begun, &object.value, &mut seeded);
            lines.push(line(time, process, Line::Invoke, f, argument.clone()));
            under_way.push(UnderWay {
                process,
                f,
                argument,
                result: None,
                gave_up: false,
            });
            continue;
        }
        if under_way.is_empty() {
            continue;
        }
        let at = seeded.below(under_way.len() as u64) as usize;
        let op = &mut under_way[at];
        if op.result.is_none() && !seeded.one_in(if op.gave_up { 3 } else { 20 }) {
            let new_owner = seeded.one_in(20);
            op.result = Some(
                object
                    .apply(op.f, &op.argument, new_owner)
                    .unwrap_or(Value::Null),
            );
        } else if op.gave_up {
            under_way.swap_remove(at);
        } else if seeded.one_in(15) {
            lines.push(line(time, op.process, Line::Info, op.f, Value::Null));
            op.gave_up = true;
            idle.push(processes);
            processes += 1;
        } else if let Some(result) = op.result.clone() {
            let end = match op.f == "cas" && result.is_null() {
                true => Line::Fail,
                false => Line::Ok,
            };
            lines.push(line(time, op.process, end, op.f, result));
            idle.push(op.process);
            under_way.swap_remove(at);
        }
    }
    numbered(lines)
}

fn invocation(
    kind: Kind,
    unique: u64,
    current: &Value,
    seeded: &mut Seeded,
) -> (&'static str, Value) {
    let is_read = seeded.one_in(2);
    match kind {
        _ if is_read => ("read", Value::Null),
        Kind::Register if seeded.one_in(3) => ("cas", json!([current, unique])),
        Kind::Register => ("write", json!(unique)),
        Kind::Counter => ("add", json!(1 + seeded.below(3))),
        Kind::List => ("append", json!(unique)),
    }
}

/// Up to seven operations with few values at random times: some linearizable, most not.
pub fn arbitrary(seed: u64, kind: Kind, versioned: bool) -> History {
    let mut seeded = Seeded::new(seed);
    let count = 1 + seeded.below(7);
    let mut timed: Vec<(u64, bool, Op)> = Vec::new();
    for process in 0..count {
        let from = seeded.below(12);
        let to = from + seeded.below(8);
        let (f, argument, result) = match kind {
            _ if seeded.one_in(2) => ("read", Value::Null, read_of(kind, &mut seeded)),
            Kind::Register if !versioned && seeded.one_in(3) => {
                let pair = json!([small(&mut seeded), seeded.below(3)]);
                ("cas", pair.clone(), pair)
            }
            Kind::Register => {
                let value = json!(seeded.below(3));
                ("write", value.clone(), value)
            }
            Kind::Counter => ("add", json!(1 + seeded.below(2)), Value::Null),
            Kind::List => ("append", json!(process), Value::Null),
        };
        timed.push((from, false, line(from, process, Line::Invoke, f, argument)));
        let kind = match seeded.below(8) {
            0 | 1 => Line::Info,
            2 if f != "read" => Line::Fail,
            _ => Line::Ok,
        };
        let result = match kind {
            Line::Ok if versioned && !result.is_null() => {
                json!({"value": result, "version": [1, 1 + seeded.below(4)]})
            }
            Line::Ok => result,
            _ => Value::Null,
        };
        timed.push((to, true, line(to, process, kind, f, result)));
    }
    timed.sort_by_key(|(time, is_end, _)| (*time, *is_end));
    numbered(timed.into_iter().map(|(_, _, op)| op).collect())
}

fn small(seeded: &mut Seeded) -> Value {
    match seeded.below(4) {
        3 => Value::Null,
        value => json!(value),
    }
}

fn read_of(kind: Kind, seeded: &mut Seeded) -> Value {
    match kind {
        Kind::Register => small(seeded),
        Kind::Counter => json!(seeded.below(6)),
        Kind::List => {
            let from = seeded.below(4);
            let all: Vec<u64> = (from..from + seeded.below(3)).collect();
            json!(all)
        }
    }
}

/// The history in which operations other than these are left out if they are reads, and else may
/// have taken effect at any time.
pub fn weakened(history: &History, kept: &[u64]) -> History {
    let mut lines = Vec::new();
    for call in history.calls() {
        let is_kept = kept.contains(&call.invoke.index);
        let Call { invoke, end } = call;
        match end {
            End::Fail(_) => {}
            _ if !is_kept && invoke.f == "read" => {}
            End::Ok(op) if is_kept => lines.extend([invoke.clone(), op.clone()]),
            _ => lines.push(invoke.clone()),
        }
    }
    lines.sort_by_key(|op| op.index);
    numbered(lines)
}

/// Tries every order of every choice of unknown operations.
pub fn brute_force(history: &History, kind: Kind) -> bool {
    let calls = history.calls();
    let calls: Vec<&Call<'_>> = calls
        .iter()
        .filter(|call| !matches!(call.end, End::Fail(_)))
        .filter(|call| call.f() != "read" || call.ok().is_some())
        .collect();
    let mut order = Vec::new();
    try_orders(&calls, &mut order, kind)
}

fn try_orders(calls: &[&Call<'_>], order: &mut Vec<usize>, kind: Kind) -> bool {
    if !explains(calls, order, kind) {
        return false;
    }
    let is_done = |at: usize| order.contains(&at) || calls[at].is_unknown();
    if (0..calls.len()).all(is_done) {
        return true;
    }
    for at in 0..calls.len() {
        let follows_time = |before: &usize| !calls[at].precedes(calls[*before]);
        if !order.contains(&at) && order.iter().all(follows_time) {
            order.push(at);
            if try_orders(calls, order, kind) {
                return true;
            }
            order.pop();
        }
    }
    false
}

/// Whether an object that does these one after the other gives the results that were seen, and
/// versions rise with each write.
fn explains(calls: &[&Call<'_>], order: &[usize], kind: Kind) -> bool {
    let mut value = match kind {
        Kind::Register => Value::Null,
        Kind::Counter => json!(0),
        Kind::List => json!([]),
    };
    // The least version that the object can have, and whether it is known for certain.
    let (mut version, mut is_certain) = (0, true);
    for at in order {
        let call = calls[*at];
        let argument = &call.invoke.value;
        let result = call.ok().map(|op| &op.value).unwrap_or(&Value::Null);
        let told = result.get("version").and_then(|pair| pair[1].as_u64());
        let result = match told {
            Some(_) => &result["value"],
            None => result,
        };
        let fits = match call.f() {
            "read" => {
                let fits = *result == value
                    && told.is_none_or(|told| match is_certain {
                        true => told == version,
                        false => told > version,
                    });
                if let Some(told) = told {
                    (version, is_certain) = (told, true);
                }
                fits
            }
            f => {
                let before = value.clone();
                match f {
                    "add" => value = json!(number(&value) + number(argument)),
                    "append" => value = longer(&value, argument),
                    "cas" => value = argument[1].clone(),
                    _ => value = argument.clone(),
                }
                let rises = told.is_none_or(|told| told > version);
                is_certain = told.is_some();
                version = told.unwrap_or(version);
                rises && (f != "cas" || argument[0] == before)
            }
        };
        if !fits {
            return false;
        }
    }
    true
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn longer(list: &Value, element: &Value) -> Value {
    let elements = list.as_array().into_iter().flatten();
    elements.chain([element]).cloned().collect()
}
