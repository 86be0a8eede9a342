//! A store that writes only the records that `apply` names as touched holds the table.
//!
//! proto's `table` module: a node that is started anew reads its table from these records.

use leasehold_proto::table::{LeaseTable, Outcome, Record, RecordKey};
use std::collections::BTreeMap;

use super::{Broken, Judged};

/// Commits between two comparisons: reading the whole table back is not cheap.
const EVERY: u64 = 16;

#[derive(Default)]
pub struct Records {
    stored: BTreeMap<RecordKey, Record>,
    commits: u64,
}

impl Records {
    pub fn invariant_records_describe_the_table(
        &mut self,
        outcome: &Outcome,
        master: &LeaseTable,
    ) -> Judged {
        for key in &outcome.touched {
            match master.record(key) {
                Some(record) => self.stored.insert(key.clone(), record),
                None => self.stored.remove(key),
            };
        }
        self.commits += 1;
        if self.commits.is_multiple_of(EVERY) {
            self.compare(master)
        } else {
            Ok(())
        }
    }

    pub fn compare(&self, master: &LeaseTable) -> Judged {
        let what = match LeaseTable::from_records(self.stored.values().cloned()) {
            Ok(loaded) if loaded == *master => return Ok(()),
            Ok(_) => "the stored records describe another table".into(),
            Err(error) => error.to_string(),
        };
        Err(Broken {
            invariant: "the records describe the table",
            what,
        })
    }

    pub fn restored(&mut self, backup: &LeaseTable) {
        self.stored = backup
            .records()
            .map(|record| (record.key(), record))
            .collect();
    }
}
