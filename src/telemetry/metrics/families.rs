//! Cells that exist once for each server block or backend, found by label when
//! a configuration is taken up, never while a request is served.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Two label values, as (upstream, peer); the second is empty where one is
/// enough.
pub(super) type Labels = (Box<str>, Box<str>);

/// What stands in for labels beyond a family's bound.
const OTHERS: &str = "_others";

/// Cells by label.
#[derive(Debug)]
pub(super) struct Family<T> {
    /// How many label sets are kept apart: a scrape, and what reads it, must
    /// stay small whatever the configuration lists.
    bound: usize,
    cells: Mutex<BTreeMap<Labels, Arc<T>>>,
}

impl<T: Default> Family<T> {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            bound,
            cells: Mutex::default(),
        }
    }

    /// The cells under these labels, or those that all labels beyond the bound
    /// share. They live as long as somebody holds them.
    pub(super) fn get(&self, first: &str, second: &str) -> Arc<T> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (first.into(), second.into());
        if let Some(known) = cells.get(&wanted) {
            return Arc::clone(known);
        }
        // Labels that no configuration in use has any more.
        cells.retain(|_, cell| Arc::strong_count(cell) > 1);
        let labels = if cells.len() < self.bound {
            wanted
        } else {
            (OTHERS.into(), "".into())
        };
        Arc::clone(cells.entry(labels).or_default())
    }

    /// All of them, as they are now.
    pub(super) fn all(&self) -> Vec<(Labels, Arc<T>)> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let each = cells.iter();
        each.map(|(labels, cell)| (labels.clone(), Arc::clone(cell)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::Counter;
    use super::*;

    #[test]
    fn the_number_of_labels_is_bounded() {
        let family: Family<Counter> = Family::new(2);
        let held: Vec<_> = (0..5).map(|n| family.get(&n.to_string(), "")).collect();
        held.iter().for_each(|cell| cell.increment());
        let all = family.all();
        let labels: Vec<_> = all
            .iter()
            .map(|((first, _), cell)| (&**first, cell.get()))
            .collect();
        assert_eq!(labels, [("0", 1), ("1", 1), (OTHERS, 3)]);
    }

    #[test]
    fn labels_that_nobody_uses_any_more_make_room() {
        let family: Family<Counter> = Family::new(2);
        let kept = family.get("kept", "");
        kept.increment();
        drop(family.get("gone", ""));
        let _new = family.get("new", "");
        let all = family.all();
        let labels: Vec<_> = all.iter().map(|((first, _), _)| &**first).collect();
        assert_eq!(labels, ["kept", "new"]);
        assert_eq!(family.get("kept", "").get(), 1);
    }
}
