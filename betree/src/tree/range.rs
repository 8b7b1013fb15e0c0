//! Range reads: one consistent state, forward and backward.

use super::memtable::MemtableCursor;
use super::neighbours::Neighbours;
use super::node::NodeBody;
use super::part::PartRead;
use super::resolve::Resolver;
use super::tree::Path;
use super::value::{Caching, Value};
use super::version::Version;
use super::{Tree, TreeError};
use crate::base::preference::StoragePreference;
use crate::dmu::{Dmu, DmuError, PendingJob};
use crate::run::{EntryCursor, EntryRef, Kind, MergeCursor, ReadMode, Run, RunCursor};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Iterator over keys and values of one consistent state. It owns what it needs: `Send + 'static`.
pub struct Range {
    view: View,
    front: Option<Side>,
    back: Option<Side>,
    /// The side of the leaf behind that of `front`, being prepared.
    coming: Option<PendingJob<Result<Side, TreeError>>>,
    /// Keys not yet returned from the front are at least this.
    low: Vec<u8>,
    /// Keys not yet returned from the back are below this.
    high: Option<Vec<u8>>,
    /// The last key returned from the front, if `returned`.
    last: Vec<u8>,
    returned: bool,
    scratch: Vec<u8>,
    done: bool,
    /// Entries behind the last one returned from the front, whose large values are being read.
    ahead: VecDeque<Ahead>,
    /// Bytes of values in `ahead`.
    ahead_bytes: usize,
    /// Bytes of values to be read ahead: none until large values are met.
    window: usize,
}

/// An entry on its way.
struct Ahead {
    key: Value,
    value: Coming,
    preference: StoragePreference,
    /// Bytes that it counts for.
    bytes: usize,
}

enum Coming {
    Known(Result<Value, TreeError>),
    /// Nobody reads it yet. Whoever reads what a run names holds the run's node.
    Open(Resolver, Vec<Arc<NodeBody>>),
    Reading(PendingJob<Result<Option<Value>, TreeError>>),
    /// With it come those behind it.
    First(PendingJob<Vec<Result<Value, TreeError>>>),
    /// It comes with one before it.
    Behind,
    Read(Result<Value, TreeError>),
}

/// An entry, and where its value was asked to go.
pub type Preferred = (Value, Value, StoragePreference);

/// What the versions of a key come to.
enum Found {
    Value(Value),
    /// The value is still to be read.
    Open(Resolver),
}

/// Large values that a range reads at one time, in bytes: twice what keeps a device busy, because more is asked for when half of it
/// was returned, so that there is something to be read with one request.
const WINDOW_BYTES_MAX: usize = 2 << 20;
/// What an entry counts for beside its value.
const ENTRY_BYTES: usize = 256;

/// A range that has returned this many bytes of a leaf probably goes on into the next one, which is then prepared in the
/// background.
const BYTES_BEFORE_NEXT_LEAF: usize = 256 << 10;
/// Memory that a prepared leaf is taken to need: a window of each of its usual few runs.
const NEXT_LEAF_BYTES: usize = 1 << 20;

/// A held version and a sequence number: what a range, a view and a snapshot in memory are.
#[derive(Debug, Clone)]
pub struct View {
    /// The tree.
    pub tree: Arc<Tree>,
    /// Its held version.
    pub version: Arc<Version>,
    /// The newest sequence number that the view sees.
    pub visible: u64,
}

impl View {
    /// The value of `key`.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, TreeError> {
        self.tree.get_in(&self.version, self.visible, key)
    }

    /// As [`View::get`], with the preference that the value was written with.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn get_preferred(&self, key: &[u8]) -> Result<Option<(Value, StoragePreference)>, TreeError> {
        self.tree.get_preferred_in(&self.version, self.visible, key)
    }

    /// The part of the value of `key` from byte `offset` that fits into `out`.
    ///
    /// # Errors
    /// As [`Tree::get_part_in`].
    pub fn get_part(&self, key: &[u8], offset: u64, out: &mut [u8]) -> Result<Option<PartRead>, TreeError> {
        self.tree.get_part_in(&self.version, self.visible, key, offset, out)
    }

    /// Brings `length` bytes from byte `offset` of the value of `key` into the cache. Whether a device was asked for them.
    ///
    /// # Errors
    /// As [`Tree::read_ahead_in`].
    pub fn read_ahead(&self, key: &[u8], offset: u64, length: usize) -> Result<bool, TreeError> {
        self.tree.read_ahead_in(&self.version, self.visible, key, offset, length)
    }

    /// The entries from `low` (inclusive) to `high` (exclusive; `None`: the end).
    #[must_use]
    pub fn range(&self, low: Vec<u8>, high: Option<Vec<u8>>) -> Range {
        let done = high.as_ref().is_some_and(|high| *high <= low);
        Range {
            view: self.clone(),
            front: None,
            back: None,
            coming: None,
            low,
            high,
            last: Vec::new(),
            returned: false,
            scratch: Vec::new(),
            done,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            window: 0,
        }
    }
}

impl Tree {
    /// The state of the tree now.
    #[must_use]
    pub fn view(self: &Arc<Self>) -> View {
        let version = self.version.load_full();
        View { tree: Arc::clone(self), version, visible: self.visible() }
    }
}

/// One end of a range: the sources that hold keys of one leaf.
struct Side {
    cursor: MergeCursor,
    /// Sources with range deletes.
    tables: Vec<Arc<super::memtable::Memtable>>,
    runs: Vec<Arc<Run>>,
    /// The nodes that the runs came from: whoever uses a run holds its node.
    bodies: Vec<Arc<NodeBody>>,
    low: Vec<u8>,
    high: Option<Vec<u8>>,
    /// Bytes returned so far.
    bytes: usize,
    /// Set while the cursors must not start to read ahead.
    held_back: Arc<AtomicBool>,
}

impl Side {
    fn new(view: &View, path: &Path, mode: ReadMode, held_back: bool) -> Self {
        let held_back = Arc::new(AtomicBool::new(held_back));
        let mut cursors: Vec<Box<dyn EntryCursor>> = Vec::new();
        let (mut tables, mut runs) = (Vec::new(), Vec::new());
        for table in view.version.tables().filter(|table| !table.memtable.is_empty()) {
            cursors.push(Box::new(MemtableCursor::new(Arc::clone(&table.memtable), view.visible)));
            tables.push(Arc::clone(&table.memtable));
        }
        for step in &path.steps {
            let slot = &step.body.slots[step.index];
            for run in &slot.runs {
                let mut cursor = RunCursor::new(Arc::clone(run), mode);
                cursor.hold_back(&held_back);
                cursors.push(Box::new(cursor));
                if run.reference().range_deletes > 0 {
                    runs.push(Arc::clone(run));
                }
            }
        }
        Self {
            cursor: MergeCursor::new(cursors),
            tables,
            runs,
            bodies: path.steps.iter().map(|step| Arc::clone(&step.body)).collect(),
            low: path.slot_low().to_vec(),
            high: path.slot_high().map(<[u8]>::to_vec),
            bytes: 0,
            held_back,
        }
    }

    fn forward(view: &View, key: &[u8], mode: ReadMode, held_back: bool) -> Result<Self, TreeError> {
        let Some(path) = view.tree.locate(&view.version.root, 1, key)? else {
            unreachable!("every tree has level 1");
        };
        let mut side = Self::new(view, &path, mode, held_back);
        for step in &path.steps {
            view.tree.note_range(&step.body.slots[step.index], key, step.body.level);
        }
        side.cursor.seek(key)?;
        Ok(side)
    }

    fn backward(view: &View, key: Option<&[u8]>) -> Result<Self, TreeError> {
        let Some(path) = view.tree.descend(&view.version.root, 1, |body| body.slot_index_before(key))? else {
            unreachable!("every tree has level 1");
        };
        let mut side = Self::new(view, &path, ReadMode::Scan, false);
        side.cursor.seek_before(key)?;
        Ok(side)
    }

    fn deleted_before(&self, key: &[u8], visible: u64) -> Result<u64, TreeError> {
        let mut newest = 0;
        for table in &self.tables {
            newest = newest.max(table.covering_range_delete(key, visible).unwrap_or(0));
        }
        for run in &self.runs {
            newest = newest.max(run.covering(key, visible)?.unwrap_or(0));
        }
        Ok(newest)
    }

    fn has_range_deletes(&self) -> bool {
        !self.runs.is_empty() || self.tables.iter().any(|table| table.has_range_deletes())
    }

    /// Passes all versions of `key`.
    fn skip(&mut self, key: &[u8]) -> Result<(), TreeError> {
        self.cursor.next()?;
        while self.cursor.entry().is_some_and(|entry| entry.key == key) {
            self.cursor.next()?;
        }
        Ok(())
    }

    fn resolver(&self, key: &[u8], visible: u64) -> Result<Resolver, TreeError> {
        let mut resolver = Resolver::new();
        resolver.delete_before(self.deleted_before(key, visible)?);
        Ok(resolver)
    }
}

fn finish(view: &View, resolver: Resolver, key: &[u8]) -> Result<Option<Value>, TreeError> {
    let action = if resolver.needs_action() { view.tree.action() } else { None };
    resolver.finish(key, &view.tree.dmu, action.as_ref(), view.tree.action_name(), |_| Caching::Pass)
}

impl Range {
    /// The side of the leaf that `low` is in.
    fn open_front(&mut self) -> Result<Side, TreeError> {
        let Some(coming) = self.coming.take() else {
            return Side::forward(&self.view, &self.low, ReadMode::Scan, false);
        };
        let side = coming.wait().map_err(TreeError::from)??;
        side.held_back.store(false, Ordering::Release);
        Ok(side)
    }

    /// Starts to prepare the leaf behind `side`, when the range reaches there.
    fn prepare_next(
        view: &View,
        side: &Side,
        high: Option<&[u8]>,
    ) -> Option<PendingJob<Result<Side, TreeError>>> {
        let bound = side.high.as_deref().filter(|bound| high.is_none_or(|high| high > *bound))?.to_vec();
        let (view, bytes) = (view.clone(), NEXT_LEAF_BYTES);
        let dmu = view.tree.dmu.clone();
        Some(dmu.read_in_background(bytes, move || Ok(Side::forward(&view, &bound, ReadMode::Stream, true))))
    }

    /// The next entry from the front, in which the values behind it are being read when values are large.
    fn next_front(&mut self) -> Result<Option<Preferred>, TreeError> {
        loop {
            if self.ahead_bytes <= self.window / 2
                && let Some(entry) = self.look_ahead()?
            {
                return Ok(Some(entry));
            }
            let Some(Ahead { key, value, preference, bytes }) = self.ahead.pop_front() else {
                return Ok(None);
            };
            self.ahead_bytes -= bytes;
            let value = match value {
                Coming::Known(value) => {
                    // Among small values there is nothing to gain.
                    self.window = self.window.saturating_sub(bytes);
                    Some(value?)
                }
                Coming::Open(resolver, _bodies) => {
                    self.widen(bytes);
                    finish(&self.view, resolver, &key)?
                }
                Coming::Reading(job) => {
                    self.widen(bytes);
                    job.wait().map_err(TreeError::from)??
                }
                Coming::First(job) => {
                    self.widen(bytes);
                    Some(self.take_neighbours(job.wait())?)
                }
                Coming::Read(value) => {
                    self.widen(bytes);
                    Some(value?)
                }
                Coming::Behind => unreachable!("the one that it comes with was before it"),
            };
            if let Some(value) = value {
                return Ok(Some((key, value, preference)));
            }
        }
    }

    /// A range that goes on reads further ahead each time.
    fn widen(&mut self, bytes: usize) {
        self.window = (self.window + bytes).min(WINDOW_BYTES_MAX);
    }

    /// Finds entries and has their values read, until there are enough of them; or the next one, when values are small.
    fn look_ahead(&mut self) -> Result<Option<Preferred>, TreeError> {
        let from = self.ahead.len();
        while self.ahead.is_empty() || self.ahead_bytes < self.window {
            let next = match self.next_found() {
                Ok(Some((key, Found::Value(value), preference))) if self.window == 0 => {
                    return Ok(Some((key, value, preference)));
                }
                Ok(Some((key, found, preference))) => self.found_ahead(key, found, preference),
                Ok(None) => break,
                Err(error) if self.ahead.is_empty() => return Err(error),
                // What was found before it comes first.
                Err(error) => {
                    let (key, preference) = (Value::from(&[][..]), StoragePreference::NONE);
                    Ahead { key, value: Coming::Known(Err(error)), preference, bytes: 0 }
                }
            };
            let failed = matches!(next.value, Coming::Known(Err(_)));
            self.ahead_bytes += next.bytes;
            self.ahead.push_back(next);
            if failed {
                break;
            }
        }
        // The first one is not worth another thread.
        if self.window > 0 {
            self.start_reading(from);
        }
        Ok(None)
    }

    fn found_ahead(&self, key: Value, found: Found, preference: StoragePreference) -> Ahead {
        match found {
            Found::Value(value) => {
                let bytes = ENTRY_BYTES + value.len();
                Ahead { key, value: Coming::Known(Ok(value)), preference, bytes }
            }
            Found::Open(resolver) => {
                let bytes = ENTRY_BYTES + resolver.large_bytes();
                let bodies = self.front.as_ref().map(|side| side.bodies.clone());
                Ahead { key, value: Coming::Open(resolver, bodies.unwrap_or_default()), preference, bytes }
            }
        }
    }

    /// Starts to read the values of the entries from `at` on: neighbours among them with one request.
    fn start_reading(&mut self, mut at: usize) {
        let dmu = self.view.tree.dmu.clone();
        while at < self.ahead.len() {
            let mut neighbours = Neighbours::default();
            let joins = |entry: &&Ahead| match &entry.value {
                Coming::Open(resolver, _) if !resolver.needs_action() => {
                    resolver.large().is_some_and(|value| neighbours.add(&dmu, value))
                }
                _ => false,
            };
            let count = self.ahead.range(at..).take_while(joins).count();
            if count > 1 {
                self.start_neighbours(&dmu, at, neighbours);
            } else {
                self.start_one(&dmu, at);
            }
            at += count.max(1);
        }
    }

    /// Starts to read the value of the entry `at`, if nobody does.
    fn start_one(&mut self, dmu: &Dmu, at: usize) {
        let Ahead { key, value, bytes, .. } = &mut self.ahead[at];
        *value = match std::mem::replace(value, Coming::Behind) {
            Coming::Open(resolver, bodies) => {
                let (view, key) = (self.view.clone(), key.clone());
                let read = move || {
                    let value = finish(&view, resolver, &key);
                    drop(bodies);
                    Ok(value)
                };
                Coming::Reading(dmu.read_in_background(*bytes, read))
            }
            value => value,
        };
    }

    /// Starts to read `neighbours`, which are the values of the entries from `at` on.
    fn start_neighbours(&mut self, dmu: &Dmu, at: usize, neighbours: Neighbours) {
        let (mut bytes, mut held) = (0, Vec::new());
        for entry in self.ahead.range_mut(at..at + neighbours.len()) {
            bytes += entry.bytes;
            if let Coming::Open(_, bodies) = std::mem::replace(&mut entry.value, Coming::Behind) {
                held.push(bodies);
            }
        }
        let (view, of) = (self.view.clone(), dmu.clone());
        let read = move || {
            let values = neighbours.read(&of);
            drop((held, view));
            Ok(values)
        };
        self.ahead[at].value = Coming::First(dmu.read_in_background(bytes, read));
    }

    /// The first of the values that were `read` with one request; those behind it are with their entries then.
    fn take_neighbours(
        &mut self,
        read: Result<Vec<Result<Value, TreeError>>, DmuError>,
    ) -> Result<Value, TreeError> {
        let mut values = match read {
            Ok(values) => values.into_iter(),
            Err(error) => {
                let behind = self.ahead.iter_mut().take_while(|entry| matches!(entry.value, Coming::Behind));
                behind.for_each(|entry| entry.value = Coming::Read(Err(error.clone().into())));
                return Err(error.into());
            }
        };
        let first = values.next();
        for (entry, value) in self.ahead.iter_mut().zip(values) {
            entry.value = Coming::Read(value);
        }
        first.unwrap_or_else(|| unreachable!("each of them has a value or an error"))
    }

    /// Takes back what was found ahead and not returned: the other end may come to it first.
    fn forget_ahead(&mut self) {
        let Some(first) = self.ahead.front() else { return };
        match first.value {
            // It has no key; what comes behind the last one returned fails again.
            Coming::Known(Err(_)) if self.returned => self.low = [&self.last[..], &[0]].concat(),
            Coming::Known(Err(_)) => {}
            _ => self.low = first.key.to_vec(),
        }
        self.front = None;
        self.coming = None;
        self.end_reading();
    }

    /// Waits for what is being read: it holds the devices, which a caller may want to open again at once.
    fn end_reading(&mut self) {
        for Ahead { value, .. } in std::mem::take(&mut self.ahead) {
            match value {
                Coming::Reading(job) => drop(job.wait()),
                Coming::First(job) => drop(job.wait()),
                Coming::Known(_) | Coming::Open(..) | Coming::Behind | Coming::Read(_) => {}
            }
        }
        (self.ahead_bytes, self.window) = (0, 0);
    }

    /// The versions of the next key from the front that may have a value.
    fn next_found(&mut self) -> Result<Option<(Value, Found, StoragePreference)>, TreeError> {
        loop {
            if self.front.is_none() {
                self.front = Some(self.open_front()?);
            }
            let Some(side) = &mut self.front else { return Ok(None) };
            let inside = |key: &[u8]| side.high.as_deref().is_none_or(|high| key < high);
            let Some(entry) = side.cursor.entry().filter(|entry| inside(entry.key)) else {
                // The leaf is done; what follows begins at its upper bound.
                let Some(bound) = side.high.take() else {
                    return Ok(None);
                };
                if self.high.as_ref().is_some_and(|high| *high <= bound) {
                    return Ok(None);
                }
                self.low = bound;
                self.front = None;
                continue;
            };
            if self.high.as_deref().is_some_and(|high| entry.key >= high) {
                return Ok(None);
            }
            let visible = self.view.visible;
            if entry.kind == Kind::Put && entry.sequence <= visible && !side.has_range_deletes() {
                // By far the most frequent case: the newest version says it all.
                let preference = entry.preference;
                let (key, value) = Value::pair(entry.key, entry.payload, &mut self.scratch);
                side.bytes += self.scratch.len();
                side.skip(&key)?;
                if side.bytes >= BYTES_BEFORE_NEXT_LEAF && self.coming.is_none() {
                    self.coming = Self::prepare_next(&self.view, side, self.high.as_deref());
                }
                return Ok(Some((key, Found::Value(value), preference)));
            }
            let key = Value::from(entry.key);
            let mut resolver = side.resolver(&key, visible)?;
            let mut open = true;
            while let Some(entry) = side.cursor.entry().filter(|entry| *entry.key == *key) {
                if open && entry.sequence <= visible {
                    open = resolver.push(entry) == ControlFlow::Continue(());
                }
                side.cursor.next()?;
            }
            let preference = resolver.preference();
            if resolver.large_bytes() > 0 {
                return Ok(Some((key, Found::Open(resolver), preference)));
            }
            if let Some(value) = finish(&self.view, resolver, &key)? {
                return Ok(Some((key, Found::Value(value), preference)));
            }
        }
    }

    fn next_back_entry(&mut self) -> Result<Option<(Value, Value)>, TreeError> {
        self.forget_ahead();
        loop {
            let side = match &mut self.back {
                Some(side) => side,
                None => self.back.insert(Side::backward(&self.view, self.high.as_deref())?),
            };
            let Some(key) = side.cursor.entry().map(|entry| entry.key).filter(|key| *key >= &side.low[..])
            else {
                let bound = std::mem::take(&mut side.low);
                if bound <= self.low {
                    return Ok(None);
                }
                self.high = Some(bound);
                self.back = None;
                continue;
            };
            if key < &self.low[..] || (self.returned && key <= &self.last[..]) {
                return Ok(None);
            }
            let key = Value::from(key);
            let visible = self.view.visible;
            // Backward the oldest version comes first.
            let mut versions: Vec<(u64, Kind, Vec<u8>)> = Vec::new();
            while let Some(entry) = side.cursor.entry().filter(|entry| *entry.key == *key) {
                if entry.sequence <= visible {
                    if entry.kind != Kind::Upsert {
                        versions.clear();
                    }
                    versions.push((entry.sequence, entry.kind, entry.payload.to_vec()));
                }
                side.cursor.prev()?;
            }
            let mut resolver = side.resolver(&key, visible)?;
            for (sequence, kind, payload) in versions.iter().rev() {
                let preference = StoragePreference::NONE;
                let entry = EntryRef { key: &key, sequence: *sequence, kind: *kind, preference, payload };
                if resolver.push(entry).is_break() {
                    break;
                }
            }
            if let Some(value) = finish(&self.view, resolver, &key)? {
                return Ok(Some((key, value)));
            }
        }
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        self.end_reading();
    }
}

impl Range {
    /// The next entry from the front, with the preference that its value was written with.
    pub fn next_preferred(&mut self) -> Option<Result<Preferred, TreeError>> {
        if self.done {
            return None;
        }
        let next = self.next_front().transpose();
        match &next {
            Some(Ok((key, _, _))) => {
                self.last.clear();
                self.last.extend_from_slice(key);
                self.returned = true;
            }
            _ => self.done = true,
        }
        next
    }
}

impl Iterator for Range {
    type Item = Result<(Value, Value), TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_preferred().map(|next| next.map(|(key, value, _)| (key, value)))
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_back_entry().transpose();
        match &next {
            Some(Ok((key, _))) => self.high = Some(key.to_vec()),
            _ => self.done = true,
        }
        next
    }
}

impl std::fmt::Debug for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Range").field("low", &self.low).field("high", &self.high).finish_non_exhaustive()
    }
}
