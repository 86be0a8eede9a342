//! Lists that are only appended to, alone or in transactions over several lists of one slice.
//!
//! Kingsbury & Alvaro, "Elle: inferring isolation anomalies from experimental observations", VLDB
//! 2020, sections 4 and 5: as each element is unique and a read shows all elements in order, reads
//! tell which write came after which. From that follow the dependencies between transactions, and
//! with the order of time added (strict serializability) these must have no cycle. Linear in the
//! length of what was read.
//!
//! `append` and `read` are transactions of one step. Operations of different `key` are independent:
//! a slice promises nothing about another.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::history::{Call, End, History, Versioned};
use crate::linearizable::Names;
use crate::verdict::{Finding, MAX_FINDINGS, Outcome};

mod graph;

use graph::{Edge, Graph, Step};

const NAME: &str = "list_append";

/// Judges `append`, `read` and `txn`, by key. Nothing read is unknown.
pub fn check(history: &History) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let (mut transactions, mut reads, mut elements) = (0u64, 0u64, 0u64);
    for (key, calls) in history.calls_by_key() {
        let mut group = Group::new(key);
        let wrong = calls.iter().find_map(|call| {
            let cause = group.add(call).err()?;
            Some(Finding::new(cause).ops([call.invoke.index]).key(key))
        });
        if let Some(finding) = wrong {
            // Nothing can be inferred from such values.
            outcome.unknown(finding);
            continue;
        }
        transactions += group.transactions.len() as u64;
        reads += group.check_each(&mut outcome);
        let orders = group.orders(&mut outcome);
        elements += orders.values().map(|order| order.len() as u64).sum::<u64>();
        group.check_elements(&orders, &mut outcome);
        group.check_cycles(&orders, &mut outcome);
    }
    if reads == 0 {
        outcome.unknown(Finding::new("nothing was read"));
    }
    outcome.count("transactions", transactions);
    outcome.count("reads", reads);
    outcome.count("elements_read", elements);
    outcome
}

/// A list within a group, and an element, by number.
type List = u32;
type Element = u32;

#[derive(Debug, PartialEq)]
enum Micro {
    Append(List, Element),
    /// What was read is not known when the outcome is not.
    Read(List, Option<Vec<Element>>),
}

struct Transaction<'a> {
    call: Call<'a>,
    steps: Vec<Micro>,
}

struct Group<'a> {
    key: &'a str,
    lists: Names,
    elements: Names,
    transactions: Vec<Transaction<'a>>,
    /// Who appended an element, and whether it appended more to that list afterwards.
    appended: HashMap<(List, Element), (usize, Option<Element>)>,
}

impl<'a> Group<'a> {
    fn new(key: &'a str) -> Self {
        Self {
            key,
            lists: Names::default(),
            elements: Names::default(),
            transactions: Vec::new(),
            appended: HashMap::new(),
        }
    }

    fn add(&mut self, call: &Call<'a>) -> Result<(), String> {
        let result = call.ok().map(|ok| Versioned::of(&ok.value).value);
        let mut steps = Vec::new();
        match call.f() {
            "append" => steps.push(Micro::Append(0, self.elements.number(&call.invoke.value))),
            "read" => steps.push(Micro::Read(0, self.read(result)?)),
            "txn" => {
                let value = result.unwrap_or(&call.invoke.value);
                let micro = value.as_array().ok_or("a txn that is no array")?;
                for step in micro {
                    steps.push(self.step(step, result.is_some())?);
                }
            }
            _ => return Ok(()),
        }
        let at = self.transactions.len();
        let mut later: HashMap<List, Element> = HashMap::new();
        for step in steps.iter().rev() {
            if let Micro::Append(list, element) = step {
                let next = later.insert(*list, *element);
                if let Some((_, _)) = self.appended.insert((*list, *element), (at, next)) {
                    let value = self.elements.value(*element);
                    return Err(format!("{value} was appended twice: values must be unique"));
                }
            }
        }
        self.transactions.push(Transaction { call: *call, steps });
        Ok(())
    }

    fn step(&mut self, step: &Value, is_known: bool) -> Result<Micro, String> {
        let wrong = || format!("a step {step}, not [\"append\" or \"r\", list, value]");
        let [f, list, value] = step.as_array().map(Vec::as_slice).ok_or_else(wrong)? else {
            return Err(wrong());
        };
        let list = self.lists.number(list);
        match f.as_str() {
            Some("append") => Ok(Micro::Append(list, self.elements.number(value))),
            Some("r") => Ok(Micro::Read(list, self.read(is_known.then_some(value))?)),
            _ => Err(wrong()),
        }
    }

    fn read(&mut self, result: Option<&Value>) -> Result<Option<Vec<Element>>, String> {
        match result {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(Vec::new())),
            Some(Value::Array(values)) => {
                let numbers = values.iter().map(|value| self.elements.number(value));
                Ok(Some(numbers.collect()))
            }
            Some(other) => Err(format!("a read of {other}, not an array")),
        }
    }

    /// Known reads: transaction, list, elements.
    fn reads(&self) -> impl Iterator<Item = (usize, List, &Vec<Element>)> {
        self.transactions.iter().enumerate().flat_map(|(at, txn)| {
            txn.steps.iter().filter_map(move |step| match step {
                Micro::Read(list, Some(elements)) => Some((at, *list, elements)),
                _ => None,
            })
        })
    }

    /// Within a transaction: no element twice in a read, and each read shows what the one before it
    /// did and what the transaction appended since. How many reads there are.
    fn check_each(&self, outcome: &mut Outcome) -> u64 {
        let mut reads = 0;
        for (at, txn) in self.transactions.iter().enumerate() {
            let mut own: HashMap<List, Vec<Element>> = HashMap::new();
            let mut known: HashMap<List, Vec<Element>> = HashMap::new();
            for step in &txn.steps {
                match step {
                    Micro::Append(list, element) => own.entry(*list).or_default().push(*element),
                    Micro::Read(_, None) => {}
                    Micro::Read(list, Some(elements)) => {
                        reads += 1;
                        let mut sorted = elements.clone();
                        sorted.sort_unstable();
                        if let Some(two) = sorted.windows(2).find(|two| two[0] == two[1]) {
                            let what = format!("{} is in a list twice", self.show(two[0]));
                            outcome.invalid(self.finding(what, &[at]));
                        }
                        let own = own.remove(list).unwrap_or_default();
                        let fits = match known.get(list) {
                            Some(known) => *elements == [known.as_slice(), &own].concat(),
                            None => elements.ends_with(&own),
                        };
                        if !fits {
                            let what = "a transaction does not see what it read or appended before";
                            outcome.invalid(self.finding(what.to_owned(), &[at]));
                        }
                        known.insert(*list, elements.clone());
                    }
                }
            }
        }
        reads
    }

    /// The order of each list: its longest read, of which every other must be a beginning.
    fn orders(&self, outcome: &mut Outcome) -> BTreeMap<List, Vec<Element>> {
        let mut longest: BTreeMap<List, (usize, &Vec<Element>)> = BTreeMap::new();
        for (at, list, elements) in self.reads() {
            let best = longest.entry(list).or_insert((at, elements));
            if elements.len() > best.1.len() {
                *best = (at, elements);
            }
        }
        for (at, list, elements) in self.reads() {
            let Some((other, order)) = longest.get(&list) else {
                continue;
            };
            if !order.starts_with(elements) {
                let differs = order.iter().zip(elements).position(|(a, b)| a != b);
                let place = differs.unwrap_or(0);
                let what = format!(
                    "two reads have different orders: at place {place} {} and {}",
                    self.show(elements[place]),
                    self.show(order[place])
                );
                outcome.invalid(self.finding(what, &[*other, at]));
            }
        }
        longest
            .into_iter()
            .map(|(list, (_, order))| (list, order.clone()))
            .collect()
    }

    /// What was read was appended, by a transaction that did not fail, and not seen half done; what
    /// was acknowledged is seen by every read that began afterwards.
    fn check_elements(&self, orders: &BTreeMap<List, Vec<Element>>, outcome: &mut Outcome) {
        let mut last_read: HashMap<List, usize> = HashMap::new();
        for (at, list, elements) in self.reads() {
            let latest = last_read.entry(list).or_insert(at);
            let began = |at: usize| self.transactions[at].call.call_ns();
            if began(at) > began(*latest) {
                *latest = at;
            }
            for element in elements {
                match self.appended.get(&(list, *element)) {
                    None => {
                        let what = format!("{} was read and never appended", self.show(*element));
                        outcome.invalid(self.finding(what, &[at]));
                    }
                    Some((writer, _))
                        if matches!(self.transactions[*writer].call.end, End::Fail(_)) =>
                    {
                        let what =
                            format!("{} was read, but its append failed", self.show(*element));
                        outcome.invalid(self.finding(what, &[*writer, at]));
                    }
                    Some(_) => {}
                }
            }
            let last = elements.last().map(|last| (*last, (list, *last)));
            if let Some((last, name)) = last
                && let Some((writer, Some(_))) = self.appended.get(&name)
                && *writer != at
            {
                let what = format!("{} was read from within its transaction", self.show(last));
                outcome.invalid(self.finding(what, &[*writer, at]));
            }
        }
        let seen: HashSet<(List, Element)> = orders
            .iter()
            .flat_map(|(list, order)| order.iter().map(|element| (*list, *element)))
            .collect();
        let mut lost: Vec<(usize, usize, Element)> = Vec::new();
        for ((list, element), (writer, _)) in &self.appended {
            let call = &self.transactions[*writer].call;
            let (Some(_), Some(reader)) = (call.ok(), last_read.get(list)) else {
                continue;
            };
            let is_seen = seen.contains(&(*list, *element));
            if call.precedes(&self.transactions[*reader].call) && !is_seen {
                lost.push((*writer, *reader, *element));
            }
        }
        lost.sort_unstable();
        for (writer, reader, element) in lost {
            let what = format!("{} was acknowledged and is lost", self.show(element));
            outcome.invalid(self.finding(what, &[writer, reader]));
        }
    }

    fn check_cycles(&self, orders: &BTreeMap<List, Vec<Element>>, outcome: &mut Outcome) {
        let mut graph = Graph::new(self.transactions.len());
        let writer = |list: List, element: Element| {
            let (writer, _) = self.appended.get(&(list, element))?;
            Some(*writer)
        };
        let mut is_seen = vec![false; self.transactions.len()];
        for (list, order) in orders {
            for element in order {
                if let Some(at) = writer(*list, *element) {
                    is_seen[at] = true;
                }
            }
            for two in order.windows(2) {
                if let (Some(a), Some(b)) = (writer(*list, two[0]), writer(*list, two[1])) {
                    graph.add(a, b, Edge::WriteWrite);
                }
            }
        }
        for (at, list, elements) in self.reads() {
            let last = elements.last().and_then(|last| writer(list, *last));
            if let Some(last) = last {
                graph.add(last, at, Edge::WriteRead);
            }
            let next = orders
                .get(&list)
                .and_then(|order| order.get(elements.len()));
            if let Some(next) = next.and_then(|next| writer(list, *next)) {
                graph.add(at, next, Edge::ReadWrite);
            }
        }
        let spans: Vec<(u64, Option<u64>)> = self
            .transactions
            .iter()
            .zip(&is_seen)
            .map(|(txn, is_seen)| match txn.call.end {
                End::Ok(op) => (txn.call.call_ns(), Some(op.time)),
                // It did happen, after it began.
                End::Unknown(_) if *is_seen => (txn.call.call_ns(), None),
                _ => (0, None),
            })
            .collect();
        graph.add_time(&spans);
        for cycle in graph.cycles(MAX_FINDINGS) {
            outcome.invalid(self.tell_cycle(&cycle));
        }
    }

    /// Named as by Adya, "Weak consistency", 1999, and by Elle.
    fn tell_cycle(&self, cycle: &[Step]) -> Finding {
        let count = |edge: Edge| cycle.iter().filter(|step| step.1 == edge).count();
        let name = match (count(Edge::ReadWrite), count(Edge::WriteRead)) {
            (0, 0) => "G0",
            (0, _) => "G1c",
            (1, _) => "G-single",
            _ => "G2",
        };
        let time = match count(Edge::Time) {
            0 => "",
            _ => "-realtime",
        };
        let steps: Vec<String> = cycle
            .iter()
            .map(|(at, edge)| {
                let why = match edge {
                    Edge::WriteWrite => "appended before",
                    Edge::WriteRead => "was read by",
                    Edge::ReadWrite => "did not see the append of",
                    Edge::Time => "ended before the beginning of",
                };
                format!("{} {why}", self.transactions[*at].call.invoke.index)
            })
            .collect();
        let first = cycle.first().map_or(0, |(at, _)| *at);
        let what = format!(
            "{name}{time}: {} {}",
            steps.join(" "),
            self.transactions[first].call.invoke.index
        );
        let members: Vec<usize> = cycle.iter().map(|(at, _)| *at).collect();
        self.finding(what, &members)
    }

    fn show(&self, element: Element) -> String {
        self.elements.value(element).to_string()
    }

    fn finding(&self, what: String, members: &[usize]) -> Finding {
        let calls = members.iter().map(|at| &self.transactions[*at].call);
        let from_ns = calls.clone().map(Call::call_ns).min().unwrap_or(0);
        let ends = calls.clone().filter_map(Call::ok).map(|op| op.time);
        Finding::new(what)
            .ops(calls.clone().map(|call| call.invoke.index))
            .time(from_ns, ends.max().unwrap_or(from_ns))
            .key(self.key)
    }
}

#[cfg(test)]
mod tests;
