//! What must come before what, and cycles in it.

use std::collections::VecDeque;

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Edge {
    /// The other appended behind its element.
    WriteWrite,
    /// The other read its element.
    WriteRead,
    /// The other appended what it did not read yet.
    ReadWrite,
    /// It had ended when the other began.
    Time,
}

/// Nodes are numbers; those from `transactions` on only pass on the order of time.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub transactions: usize,
    edges: Vec<Vec<(usize, Edge)>>,
}

/// A step of a cycle: the transaction, and why it comes before the next one.
pub(super) type Step = (usize, Edge);

impl Graph {
    pub(super) fn new(transactions: usize) -> Self {
        Self {
            transactions,
            edges: vec![Vec::new(); transactions],
        }
    }

    pub(super) fn add(&mut self, from: usize, to: usize, edge: Edge) {
        if from != to {
            self.edges[from].push((to, edge));
        }
    }

    /// Adds the order of time: of `(begin, end)` of each transaction, whoever ended before another
    /// began. A chain of ends, to which transactions lead and from which they are led, needs only a
    /// linear number of edges.
    pub(super) fn add_time(&mut self, spans: &[(u64, Option<u64>)]) {
        let mut ends: Vec<(u64, usize)> = Vec::new();
        for (at, (_, end)) in spans.iter().enumerate() {
            ends.extend(end.map(|end| (end, at)));
        }
        ends.sort_unstable();
        let first = self.edges.len();
        for (place, (_, at)) in ends.iter().enumerate() {
            self.edges.push(Vec::new());
            let node = first + place;
            self.edges[*at].push((node, Edge::Time));
            if place > 0 {
                self.edges[node - 1].push((node, Edge::Time));
            }
        }
        for (at, (begin, _)) in spans.iter().enumerate() {
            let before = ends.partition_point(|(end, _)| end < begin);
            if before > 0 {
                self.edges[first + before - 1].push((at, Edge::Time));
            }
        }
    }

    /// A shortest cycle of each strongly connected component, of at most `limit` of them.
    pub(super) fn cycles(&self, limit: usize) -> Vec<Vec<Step>> {
        let component = self.components();
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); component.len()];
        for (node, component) in component.iter().enumerate() {
            if node < self.transactions {
                members[*component].push(node);
            }
        }
        members
            .iter()
            .filter(|members| members.len() > 1)
            .take(limit)
            .filter_map(|members| {
                // Of a large component some will do.
                let tried = members.iter().take(64);
                tried
                    .filter_map(|start| self.shortest_cycle(*start, &component))
                    .min_by_key(Vec::len)
            })
            .collect()
    }

    /// Tarjan, "Depth-first search and linear graph algorithms", SIAM J. Comput. 1972, without
    /// recursion: the component of each node.
    fn components(&self) -> Vec<usize> {
        const NONE: usize = usize::MAX;
        let count = self.edges.len();
        let (mut order, mut low) = (vec![NONE; count], vec![0; count]);
        let mut component = vec![NONE; count];
        let (mut stack, mut path) = (Vec::new(), Vec::new());
        let (mut next_order, mut next_component) = (0, 0);
        for root in 0..count {
            if order[root] != NONE {
                continue;
            }
            path.push((root, 0));
            while let Some((node, edge)) = path.last_mut() {
                let node = *node;
                if *edge == 0 {
                    order[node] = next_order;
                    low[node] = next_order;
                    next_order += 1;
                    stack.push(node);
                }
                if let Some((to, _)) = self.edges[node].get(*edge) {
                    *edge += 1;
                    if order[*to] == NONE {
                        path.push((*to, 0));
                    } else if component[*to] == NONE {
                        low[node] = low[node].min(order[*to]);
                    }
                    continue;
                }
                path.pop();
                if let Some((parent, _)) = path.last() {
                    low[*parent] = low[*parent].min(low[node]);
                }
                if low[node] == order[node] {
                    while let Some(member) = stack.pop() {
                        component[member] = next_component;
                        if member == node {
                            break;
                        }
                    }
                    next_component += 1;
                }
            }
        }
        component
    }

    /// Breadth first from `start` back to it, within its component.
    fn shortest_cycle(&self, start: usize, component: &[usize]) -> Option<Vec<Step>> {
        let mut came: Vec<Option<(usize, Edge)>> = vec![None; self.edges.len()];
        let mut queue = VecDeque::from([start]);
        'search: while let Some(node) = queue.pop_front() {
            for (to, edge) in &self.edges[node] {
                if component[*to] == component[start] && came[*to].is_none() {
                    came[*to] = Some((node, *edge));
                    if *to == start {
                        break 'search;
                    }
                    queue.push_back(*to);
                }
            }
        }
        let mut steps = Vec::new();
        let mut node = start;
        loop {
            let (from, edge) = came[node]?;
            if from < self.transactions {
                steps.push((from, edge));
            }
            node = from;
            if node == start {
                break;
            }
        }
        steps.reverse();
        Some(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_time_alone_has_no_cycle() {
        let mut graph = Graph::new(3);
        graph.add_time(&[(0, Some(5)), (5, Some(9)), (6, None)]);
        assert!(graph.cycles(9).is_empty());
    }

    #[test]
    fn a_cycle_through_time_is_told_by_its_transactions() {
        let mut graph = Graph::new(4);
        graph.add_time(&[(0, Some(5)), (6, Some(9)), (10, Some(11)), (12, None)]);
        graph.add(2, 0, Edge::ReadWrite);
        assert_eq!(
            graph.cycles(9),
            [vec![(0, Edge::Time), (2, Edge::ReadWrite)]]
        );
    }

    #[test]
    fn each_component_has_its_cycle() {
        let mut graph = Graph::new(5);
        for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 4), (4, 2), (1, 2)] {
            graph.add(from, to, Edge::WriteWrite);
        }
        let mut lengths: Vec<usize> = graph.cycles(9).iter().map(Vec::len).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [2, 3]);
    }
}
