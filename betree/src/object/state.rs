//! What all handles of a store share in memory: who may change what, the objects that are open, and tickets.

use super::format::{
    ObjectRecord, RECORD_BYTES, STAGED, TICKETS, chunk_key, custom_key, key_staged, name_key, staged_key,
};
use super::read_ahead::Neighbours;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Mutex, MutexGuard, RwLock};
use crate::database::{Durability, Error, Pair, PairChange, PairWrite, Result, Side};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use xxhash_rust::xxh3::xxh3_64;

const STRIPES: usize = 64;
const SHARDS: usize = 16;
/// Tickets that are reserved at once: the counter on the devices is written, and made durable, once for so many.
const RESERVED: u64 = 1 << 20;

/// State of a store, one per database; it holds no handle.
#[derive(Debug)]
pub(super) struct StoreState {
    /// Held shared by whoever changes something, and alone by who puts another state in its place.
    pub gate: RwLock<()>,
    /// Odd while another state takes the place of what the store holds.
    turns: AtomicU64,
    /// Who changes what a name means holds the stripe of the name.
    stripes: Vec<Mutex<()>>,
    table: Arc<Table>,
    tickets: Mutex<Tickets>,
    /// Who reads whole objects.
    pub neighbours: Neighbours,
}

/// Tickets from `next` to before `bound` may be given out.
#[derive(Debug, Default)]
struct Tickets {
    /// 0 until it is known.
    next: u64,
    bound: u64,
    /// Whether what was being made in another life of the store is removed.
    swept: bool,
}

/// Where another state of a store comes from, which tells what ids mean in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// From this store: an id is of one object for ever.
    Own,
    /// From elsewhere: only ids below this one were given out before both went apart. Those of objects that are gone here may
    /// have been given out there since.
    Shared(u64),
}

impl Past {
    /// Whether `record` is of the object that is open as `state`.
    fn is_same(self, record: &ObjectRecord, state: &ObjectState) -> bool {
        let known = match self {
            Self::Own => true,
            Self::Shared(below) => record.id < below && !state.is_gone(),
        };
        known && record.id == state.id
    }
}

/// The objects that somebody has open.
#[derive(Debug)]
struct Table {
    shards: Vec<Mutex<HashMap<u64, Weak<ObjectState>>>>,
}

impl Table {
    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Weak<ObjectState>>> {
        &self.shards[id as usize % SHARDS]
    }
}

/// An object that is open, shared by its handles.
#[derive(Debug)]
pub(super) struct ObjectState {
    pub id: u64,
    table: Arc<Table>,
    /// Held shared by who writes, and alone by who deletes, renames, truncates.
    pub lock: RwLock<()>,
    name: RwLock<Arc<[u8]>>,
    /// As of the newest commit; `None` until it was read.
    record: Mutex<Option<ObjectRecord>>,
    gone: AtomicBool,
}

impl ObjectState {
    pub fn name(&self) -> Arc<[u8]> {
        Arc::clone(&self.name.read())
    }

    pub fn set_name(&self, name: &[u8]) {
        *self.name.write() = name.into();
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    pub fn not_found(&self) -> Error {
        not_found(&self.name())
    }

    pub fn check(&self) -> Result<()> {
        if self.is_gone() { Err(self.not_found()) } else { Ok(()) }
    }

    /// The record as of the newest commit. The state was loaded.
    pub fn record(&self) -> Result<ObjectRecord> {
        (*self.record.lock()).ok_or_else(|| self.not_found())
    }

    pub fn set_record(&self, record: ObjectRecord) {
        *self.record.lock() = Some(record);
    }

    /// The write of the record as `change` makes it of that of the newest commit: under the commit lock, and known here when
    /// it is committed.
    pub fn write_record<'a>(&'a self, change: impl Fn(&mut ObjectRecord) + 'a) -> PairWrite<'a> {
        let compute = move || {
            let mut record = *self.record.lock();
            record.iter_mut().for_each(&change);
            // Only a loaded state is written to.
            record.map_or_else(Vec::new, |record| record.encode())
        };
        let committed = |bytes: &[u8]| {
            if let Ok(record) = ObjectRecord::decode(bytes) {
                self.set_record(record);
            }
        };
        PairWrite::Compute {
            side: Side::Metadata,
            key: name_key(&self.name()),
            bytes: RECORD_BYTES,
            compute: Box::new(compute),
            committed: Box::new(committed),
        }
    }
}

impl Drop for ObjectState {
    fn drop(&mut self) {
        let mut shard = self.table.shard(self.id).lock();
        // Another one may have taken its place.
        if shard.get(&self.id).is_some_and(|state| std::ptr::eq(state.as_ptr(), self)) {
            shard.remove(&self.id);
        }
    }
}

pub(super) fn not_found(name: &[u8]) -> Error {
    Error::NotFound { what: "object", name: name.escape_ascii().to_string() }
}

/// The record of the object `name`.
pub(super) fn read_record(pair: &Pair, name: &[u8]) -> Result<Option<ObjectRecord>> {
    let value = pair.metadata.get(name_key(name))?;
    value.map(|value| decode_record(name, &value)).transpose()
}

pub(super) fn decode_record(name: &[u8], bytes: &[u8]) -> Result<ObjectRecord> {
    ObjectRecord::decode(bytes).map_err(|error| Error::Corrupt {
        what: "object record",
        reason: format!("{}: {error}", name.escape_ascii()),
    })
}

impl StoreState {
    pub fn new() -> Self {
        Self {
            gate: RwLock::new(()),
            turns: AtomicU64::new(0),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            table: Arc::new(Table { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }),
            tickets: Mutex::default(),
            neighbours: Neighbours::default(),
        }
    }

    /// Holds the stripes of `names`.
    pub fn lock_names<'a>(&self, names: impl Iterator<Item = &'a [u8]>) -> Vec<MutexGuard<'_, ()>> {
        let mut stripes: Vec<usize> = names.map(|name| xxh3_64(name) as usize % STRIPES).collect();
        stripes.sort_unstable();
        stripes.dedup();
        stripes.into_iter().map(|stripe| self.stripes[stripe].lock()).collect()
    }

    /// The state of object `id`, which has the name `name` or had it a moment ago.
    fn acquire(&self, id: u64, name: &[u8]) -> Arc<ObjectState> {
        let mut shard = self.table.shard(id).lock();
        // One that is gone, and came back by a rollback under another name, is replaced; dropping it takes this lock.
        let old = shard.get(&id).and_then(Weak::upgrade);
        let old = match old {
            Some(state) if !state.is_gone() => return state,
            old => old,
        };
        let state = Arc::new(ObjectState {
            id,
            table: Arc::clone(&self.table),
            lock: RwLock::new(()),
            name: RwLock::new(name.into()),
            record: Mutex::new(None),
            gone: AtomicBool::new(false),
        });
        shard.insert(id, Arc::downgrade(&state));
        drop(shard);
        drop(old);
        state
    }

    /// The state of the object `name`.
    pub fn open(&self, pair: &Pair, name: &[u8]) -> Result<Option<Arc<ObjectState>>> {
        while let Some(found) = read_record(pair, name)? {
            let state = self.acquire(found.id, name);
            let mut record = state.record.lock();
            if record.is_none() {
                // What was read before the state was there for all to see may be of yesterday.
                match read_record(pair, name)? {
                    Some(again) if again.id == found.id => *record = Some(again),
                    _ => {
                        drop(record);
                        continue;
                    }
                }
            }
            drop(record);
            if !state.is_gone() {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// The state of an object that was just created under a stripe that is still held.
    pub fn open_new(&self, record: ObjectRecord, name: &[u8]) -> Arc<ObjectState> {
        let state = self.acquire(record.id, name);
        let mut known = state.record.lock();
        if known.is_none() {
            *known = Some(record);
        }
        drop(known);
        state
    }

    /// A number that none of the store was before.
    pub fn ticket(&self, pair: &Pair) -> Result<u64> {
        let mut tickets = self.tickets.lock();
        if tickets.next == tickets.bound {
            if !tickets.swept {
                remove_staged(pair)?;
                tickets.swept = true;
            }
            reserve(pair, &mut tickets)?;
        }
        tickets.next += 1;
        Ok(tickets.next - 1)
    }

    /// Counts the times that the store became another: even when it is not about to.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    /// Puts the snapshot `name` in place of what the store holds.
    pub fn go_back(&self, pair: &Pair, name: &[u8], force: bool) -> Result<()> {
        self.become_other(pair, Past::Own, |next| {
            let counter = next.to_le_bytes();
            pair.change(PairChange::Rollback { name, force, keep: (&[TICKETS], &counter) })
        })
    }

    /// Lets `change` put another state in place of what the store holds, and looks what became of the open objects. `change`
    /// is told the ticket from which on none was taken here. An error is that of `change`: nothing is another state then.
    pub fn become_other(
        &self,
        pair: &Pair,
        past: Past,
        change: impl FnOnce(u64) -> Result<()>,
    ) -> Result<()> {
        let _gate = self.gate.write();
        let mut tickets = self.tickets.lock();
        // The counter does not go back, or numbers were taken again that were taken since the snapshot.
        tickets.next = tickets.next.max(stored_ticket(pair)?);
        // The next one who wants a ticket writes the counter, also when this fails.
        tickets.bound = tickets.next;
        self.turns.fetch_add(1, Ordering::AcqRel);
        let changed = change(tickets.next);
        self.turns.fetch_add(1, Ordering::AcqRel);
        changed?;
        tickets.swept = false;
        drop(tickets);
        for shard in &self.table.shards {
            let states: Vec<Arc<ObjectState>> = shard.lock().values().filter_map(Weak::upgrade).collect();
            for state in states {
                match read_record(pair, &state.name()) {
                    Ok(Some(record)) if past.is_same(&record, &state) => {
                        state.set_record(record);
                        state.gone.store(false, Ordering::Release);
                    }
                    Ok(_) => state.set_gone(),
                    // With its record from before it would write over what is there now.
                    Err(error) => {
                        log::error!("{error}; who has that object open has lost it");
                        state.set_gone();
                    }
                }
            }
        }
        Ok(())
    }
}

/// Writes a counter that lets more tickets be given out.
fn reserve(pair: &Pair, tickets: &mut Tickets) -> Result<()> {
    let next = tickets.next.max(stored_ticket(pair)?);
    let bound = next.checked_add(RESERVED).filter(|bound| *bound < u64::MAX);
    let bound = bound.ok_or_else(|| damaged_tickets("none are left"))?;
    let (side, key, value) = (Side::Metadata, vec![TICKETS], bound.to_le_bytes().to_vec());
    // Durable before one is seen: a crash must not let it be given out for other bytes.
    pair.commit(&[PairWrite::PutOwned { side, key, value }], Durability::Sync)?;
    (tickets.next, tickets.bound) = (next, bound);
    Ok(())
}

fn damaged_tickets(reason: &str) -> Error {
    Error::Corrupt { what: "tickets of an object store", reason: reason.to_owned() }
}

/// The ticket from which on none was taken, as the store has it.
fn stored_ticket(pair: &Pair) -> Result<u64> {
    ticket_of(pair.metadata.get([TICKETS])?.as_deref())
}

/// The ticket from which on none was taken, of a store with this counter.
pub(super) fn ticket_of(counter: Option<&[u8]>) -> Result<u64> {
    let Some(value) = counter else { return Ok(1) };
    let bytes = value.try_into().map_err(|_| damaged_tickets("not a number"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Removes what was being made when the process ended.
fn remove_staged(pair: &Pair) -> Result<()> {
    for entry in pair.metadata.prefix([STAGED]) {
        let (key, _) = entry?;
        let damaged = || Error::Corrupt { what: "object store", reason: String::from("a key is cut short") };
        let id = key_staged(&key).ok_or_else(damaged)?;
        pair.commit(&remove_writes(id), Durability::Buffered)?;
    }
    Ok(())
}

/// The writes that remove object `id`, which has no name, and the mark that it is being made.
pub(super) fn remove_writes(id: u64) -> [PairWrite<'static>; 3] {
    let end = |key: Vec<u8>| Some(key);
    [
        PairWrite::RangeDelete {
            side: Side::Chunks,
            start: chunk_key(id, 0),
            end: end(chunk_key(id.saturating_add(1), 0)),
        },
        PairWrite::RangeDelete {
            side: Side::Metadata,
            start: custom_key(id, b""),
            end: end(custom_key(id.saturating_add(1), b"")),
        },
        PairWrite::RangeDelete {
            side: Side::Metadata,
            start: staged_key(id),
            end: end([&staged_key(id)[..], &[0]].concat()),
        },
    ]
}
