//! Object stores on their way to other pools, alone and with datasets: snapshots of several at one instant, sending,
//! receiving.
//!
//! A store is two sections of a stream. What is received takes the place of both datasets while the store is quiet, as in a
//! rollback.

use super::format::TICKETS;
use super::snapshot::StoreSnapshot;
use super::state::{Past, StoreState, ticket_of};
use super::store::ObjectStore;
use crate::database::{
    Database, Dataset, ReceiveOptions, ReceiveReport, Result, SendOptions, SendReport, SendSection, Snapshot,
    StoreCare, StoreTurn, TakeOver,
};
use std::io::{Read, Write};

/// A snapshot to be sent, and the earlier one that the receiver has; without one it is sent whole.
#[derive(Debug, Clone, Copy)]
pub enum SendPart<'a> {
    /// Of a dataset.
    Dataset {
        /// What is sent.
        snapshot: &'a Snapshot,
        /// What the receiver has.
        from: Option<&'a Snapshot>,
    },
    /// Of an object store.
    ObjectStore {
        /// What is sent.
        snapshot: &'a StoreSnapshot,
        /// What the receiver has.
        from: Option<&'a StoreSnapshot>,
    },
}

impl<'a> SendPart<'a> {
    fn sections(&self) -> Vec<SendSection<'a>> {
        match *self {
            Self::Dataset { snapshot, from } => vec![SendSection { snapshot, from }],
            Self::ObjectStore { snapshot, from } => {
                let (metadata, chunks) = snapshot.datasets();
                let (old_metadata, old_chunks) = from.map(StoreSnapshot::datasets).unzip();
                vec![
                    SendSection { snapshot: metadata, from: old_metadata },
                    SendSection { snapshot: chunks, from: old_chunks },
                ]
            }
        }
    }
}

impl StoreSnapshot {
    /// Writes the snapshot to `output`: whole, or what has to be done to `from` to make this one of it; as
    /// [`Snapshot::send`].
    ///
    /// # Errors
    /// As [`Snapshot::send`].
    pub fn send(
        &self,
        from: Option<&Self>,
        options: &SendOptions<'_>,
        output: &mut (impl Write + ?Sized),
    ) -> Result<SendReport> {
        let sections = SendPart::ObjectStore { snapshot: self, from }.sections();
        self.datasets().0.send_with(&sections, options, output)
    }
}

impl Database {
    /// As [`Snapshot::send`], for several datasets and object stores whose snapshots were made at one instant: the receiver
    /// gets all of them at one instant, too.
    ///
    /// # Errors
    /// As [`Snapshot::send`]; snapshots of different instants, or none.
    pub fn send(
        &self,
        parts: &[SendPart<'_>],
        options: &SendOptions<'_>,
        output: &mut (impl Write + ?Sized),
    ) -> Result<SendReport> {
        let sections: Vec<SendSection<'_>> = parts.iter().flat_map(SendPart::sections).collect();
        self.send_sections(&sections, options, output)
    }

    /// About how many bytes each of `parts` is to read and to send: blocks of the whole snapshot, or those written since the
    /// other one. Only what is known of the snapshots is read.
    ///
    /// # Errors
    /// What [`Database::send`] would refuse; device errors and damage.
    pub fn estimate_send(&self, parts: &[SendPart<'_>]) -> Result<Vec<u64>> {
        let sections: Vec<SendSection<'_>> = parts.iter().flat_map(SendPart::sections).collect();
        let mut each = self.estimate_sections(&sections)?.into_iter();
        Ok(parts.iter().map(|part| each.by_ref().take(part.sections().len()).sum()).collect())
    }

    /// Makes of a stream the dataset or object store `name` with the snapshot that was sent, or the changes to it and the
    /// snapshot. Everybody reads it as it was until the stream is there to its end and found to be whole; then the new state
    /// and the snapshot are there at once, and durable when this returns. The snapshot has the name, the guid and the time of
    /// the one that was sent. Nothing behind the end of the stream is read.
    ///
    /// After an error the dataset or store is what it was. What was received is kept, hidden, for a stream that goes on there
    /// (see [`Database::unfinished_receives`]), until another stream is received into it, or [`Database::abort_receive`] or
    /// [`Database::abort_store_receive`] gives it back; nothing is kept of a stream that is proved wrong by its digest.
    ///
    /// A handle of an object goes on with it when it is there under the same name, and was in the snapshot that the changes
    /// start from; otherwise it reports [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    ///
    /// # Errors
    /// [`Error::Stream`](crate::Error::Stream) says what is wrong with the stream, or with the dataset or store for it;
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) for a snapshot that was sent whole when the dataset or
    /// store is there, or for the name of the snapshot; another message action;
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) while another stream is received into it, or when somebody needs what
    /// `force` would take away; out of space; device errors.
    pub fn receive(
        &self,
        name: impl AsRef<[u8]>,
        options: &ReceiveOptions,
        input: &mut (impl Read + ?Sized),
    ) -> Result<ReceiveReport> {
        self.receive_all(&[name.as_ref()], options, input)
    }

    /// As [`Database::receive`], of a stream with several datasets and object stores, each with the name that it gets, in the
    /// order of the stream.
    ///
    /// # Errors
    /// As [`Database::receive`]; another number of names.
    pub fn receive_all(
        &self,
        names: &[&[u8]],
        options: &ReceiveOptions,
        input: &mut (impl Read + ?Sized),
    ) -> Result<ReceiveReport> {
        let turn =
            |stores: &[StoreTurn], take_over: &TakeOver<'_>| take_turns(stores, &mut Vec::new(), take_over);
        self.receive_parts(names, options, &StoreCare { counter: &[TICKETS], turn: &turn }, input)
    }

    /// Makes a snapshot `name` of each of `datasets` and `stores`, all of one instant; as
    /// [`Dataset::create_snapshot`](crate::Dataset::create_snapshot).
    ///
    /// # Errors
    /// As [`Dataset::create_snapshot`](crate::Dataset::create_snapshot): there is none of them then. A dataset or store of
    /// another database, or one that is there twice.
    pub fn create_snapshots<M>(
        &self,
        datasets: &[&Dataset<M>],
        stores: &[&ObjectStore],
        name: impl AsRef<[u8]>,
    ) -> Result<(Vec<Snapshot>, Vec<StoreSnapshot>)> {
        let (name, pairs) = (name.as_ref(), stores.iter().map(|store| &store.pair).collect::<Vec<_>>());
        self.create_all_snapshots(datasets, &pairs, name)?;
        let of_datasets = datasets.iter().map(|dataset| dataset.open_snapshot(name));
        let of_stores = stores.iter().map(|store| store.open_snapshot(name));
        Ok((of_datasets.collect::<Result<_>>()?, of_stores.collect::<Result<_>>()?))
    }
}

/// Calls `take_over` while nobody changes any of `stores`.
fn take_turns(
    stores: &[StoreTurn],
    counters: &mut Vec<Option<Vec<u8>>>,
    take_over: &TakeOver<'_>,
) -> Result<()> {
    let Some((store, rest)) = stores.split_first() else { return take_over(counters) };
    let state = store.pair.companion(StoreState::new)?;
    let (arrived, shared) = (ticket_of(store.arrived.as_deref())?, ticket_of(store.base.as_deref())?);
    state.become_other(&store.pair, Past::Shared(shared), |next| {
        // What was received may have been given out further there than here.
        counters.push((next > arrived).then(|| next.to_le_bytes().to_vec()));
        take_turns(rest, counters, take_over)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{DatabaseConfiguration, ErrorKind};
    use crate::object::format::name_key;
    use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration};

    const PLAIN: ReceiveOptions = ReceiveOptions { force: false };
    const FORCE: ReceiveOptions = ReceiveOptions { force: true };

    fn database() -> Database {
        let storage = StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![LeafVdev::memory(16 << 20).into()])],
            ..StoragePoolConfiguration::default()
        };
        let configuration =
            DatabaseConfiguration { storage, segment_size: 1 << 19, ..DatabaseConfiguration::default() };
        Database::create_with(configuration, false).unwrap()
    }

    fn sent(snapshot: &StoreSnapshot, from: Option<&StoreSnapshot>) -> Vec<u8> {
        let mut stream = Vec::new();
        snapshot.send(from, &SendOptions::default(), &mut stream).unwrap();
        stream
    }

    /// Two stores in two databases, with a snapshot of one instant.
    fn two_stores(database: &Database) -> ([ObjectStore; 2], Vec<StoreSnapshot>) {
        let stores = ["a", "b"].map(|name| database.create_object_store(name).unwrap());
        for store in &stores {
            store.put("x", store.name()).unwrap();
        }
        let none: [&Dataset; 0] = [];
        let (_, snapshots) = database.create_snapshots(&none, &[&stores[0], &stores[1]], "s1").unwrap();
        (stores, snapshots)
    }

    fn sent_together(database: &Database, new: &[StoreSnapshot], old: Option<&[StoreSnapshot]>) -> Vec<u8> {
        let part = |(at, snapshot)| SendPart::ObjectStore { snapshot, from: old.map(|old| &old[at]) };
        let parts: Vec<SendPart<'_>> = new.iter().enumerate().map(part).collect();
        let mut stream = Vec::new();
        database.send(&parts, &SendOptions::default(), &mut stream).unwrap();
        stream
    }

    /// A record in one of the stores that cannot be read says nothing of handles of the other.
    #[test]
    fn handles_follow_whatever_another_store_received() {
        let (first, second) = (database(), database());
        let (stores, old) = two_stores(&first);
        second.receive_all(&[b"a", b"b"], &PLAIN, &mut &sent_together(&first, &old, None)[..]).unwrap();
        let handles = ["a", "b"].map(|name| {
            let store = second.open_object_store(name).unwrap();
            (store.open_object("x").unwrap().unwrap(), store)
        });
        let object = stores[0].open_object("x").unwrap().unwrap();
        object.write_at(b"longer", 10).unwrap();
        stores[1].pair.metadata.insert(name_key(b"x"), "no record").unwrap();
        let none: [&Dataset; 0] = [];
        let (_, new) = first.create_snapshots(&none, &[&stores[0], &stores[1]], "s2").unwrap();
        let stream = sent_together(&first, &new, Some(&old));
        second.receive_all(&[b"a", b"b"], &PLAIN, &mut &stream[..]).unwrap();
        assert_eq!(handles[0].0.size().unwrap(), 16);
        assert_eq!(handles[1].0.size().unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// The sender gives ids out that the receiver gave out, too, below what it had reserved when it sent.
    #[test]
    fn who_lost_an_object_does_not_find_another() {
        let (first, second) = (database(), database());
        let store = first.create_object_store("o").unwrap();
        store.put("k", "k").unwrap();
        let base = store.create_snapshot("base").unwrap();
        second.receive("o", &PLAIN, &mut &sent(&base, None)[..]).unwrap();
        // From here on it takes tickets from where the snapshot's end.
        store.rollback("base", false).unwrap();
        store.put("a", "a").unwrap();
        let changed = store.create_snapshot("changed").unwrap();
        let replica = second.open_object_store("o").unwrap();
        replica.put("x", "x").unwrap();
        replica.put("p", "mine").unwrap();
        let lost = replica.open_object("p").unwrap().unwrap();
        second.receive("o", &FORCE, &mut &sent(&changed, Some(&base))[..]).unwrap();
        assert_eq!(lost.size().unwrap_err().kind(), ErrorKind::NotFound);
        store.put("p", "of another").unwrap();
        let id = |store: &ObjectStore| store.open_object("p").unwrap().unwrap().state.id;
        assert_eq!(id(&store), lost.state.id, "else this shows nothing");
        let more = store.create_snapshot("more").unwrap();
        second.receive("o", &PLAIN, &mut &sent(&more, Some(&changed))[..]).unwrap();
        assert_eq!(replica.get("p").unwrap().unwrap(), b"of another");
        assert_eq!(lost.size().unwrap_err().kind(), ErrorKind::NotFound);
    }
}
