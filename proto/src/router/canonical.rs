//! What decides a Router's future.

use super::Router;
use crate::canonical::{Canonical, Visitor};

impl Canonical for Router {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.view.visit(visitor);
        visitor.plain(self.hints.len() as u64);
        for hint in self.hints.values() {
            hint.visit(visitor);
        }
    }
}
