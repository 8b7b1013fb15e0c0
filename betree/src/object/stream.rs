//! Object stores on their way to other pools, alone and with datasets: snapshots of several at one instant, sending,
//! receiving.
//!
//! A store is two sections of a stream. What is received takes the place of both datasets while the store is quiet, as in a
//! rollback.

use super::format::TICKETS;
use super::snapshot::StoreSnapshot;
use super::state::{StoreState, ticket_of};
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
    state.become_other(&store.pair, shared, |next| {
        // What was received may have been given out further there than here.
        counters.push((next > arrived).then(|| next.to_le_bytes().to_vec()));
        take_turns(rest, counters, take_over)
    })
}
