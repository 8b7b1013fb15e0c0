//! What a reader takes as a whole: memtables and root.

use super::memtable::Memtable;
use super::node::NodeCell;
use crate::base::ids::Generation;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::dmu::Keeper;
use std::sync::Arc;

/// A memtable and what hangs on it.
#[derive(Debug)]
pub struct Table {
    /// The messages.
    pub memtable: Arc<Memtable>,
    /// The generation that was open when the table was frozen; 0 while it is active.
    frozen_in: AtomicU64,
    keeper: Keeper,
}

impl Table {
    /// An empty active table.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            memtable: Arc::new(Memtable::new()),
            frozen_in: AtomicU64::new(0),
            keeper: Keeper::default(),
        })
    }

    /// Marks the table frozen in `generation`.
    pub fn freeze(&self, generation: Generation) {
        self.frozen_in.store(generation.0, Ordering::Release);
    }

    /// The generation that was open when the table was frozen.
    #[must_use]
    pub fn frozen_in(&self) -> Generation {
        Generation(self.frozen_in.load(Ordering::Acquire))
    }

    /// Large values that readers of the table may still look at after its flush.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }
}

/// One consistent state of a tree. Immutable, but that the active memtable is appended to: readers skip what is newer
/// than the sequence number that they took after the version.
#[derive(Debug)]
pub struct Version {
    /// Where writers insert.
    pub active: Arc<Table>,
    /// Waiting to be flushed, newest first.
    pub frozen: Vec<Arc<Table>>,
    /// The tree below.
    pub root: Arc<NodeCell>,
    /// What readers of this version and of older ones may look at, although a snapshot that had it is gone.
    pub era: Arc<Keeper>,
}

impl Version {
    /// Bytes of the active memtable.
    #[must_use]
    pub fn active_bytes(&self) -> usize {
        self.active.memtable.bytes()
    }

    /// Bytes of the frozen memtables.
    #[must_use]
    pub fn frozen_bytes(&self) -> usize {
        self.frozen.iter().map(|table| table.memtable.bytes()).sum()
    }

    /// All tables, newest first.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }
}
