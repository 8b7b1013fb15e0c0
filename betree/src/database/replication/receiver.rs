//! Receiving: from a stream to datasets.

use super::error::StreamError;
use super::format::{Base, Entry, Position, Receiving, Section, decode_entries};
use super::reader::{Part, StreamReader};
use super::staging::Stagings;
use crate::base::ids::Uuid;
use crate::base::planted::{Bug, planted};
use crate::base::preference::StoragePreference;
use crate::database::Durability;
use crate::database::catalog::DatasetState;
use crate::database::commit::Write;
use crate::database::core::Core;
use crate::database::database::{Database, Handle};
use crate::database::dataset::known_action;
use crate::database::error::{Error, Result};
use crate::database::naming::check_name;
use crate::database::snapshots::{Change, Identity, Place, Snapshot, Staging, Takeover};
use crate::run::Kind;
use crate::tree::TreeOptions;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What is done with what is in the way.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReceiveOptions {
    /// Goes back to the snapshot that the changes start from: later snapshots and writes are lost. A snapshot that was sent
    /// whole takes the place of a dataset of the same name, with all its snapshots.
    pub force: bool,
}

/// What a stream says of one dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamPart {
    /// The name of the dataset where it was sent.
    pub dataset: Vec<u8>,
    /// The name of its message action.
    pub action: String,
    /// The name of the snapshot.
    pub snapshot: Vec<u8>,
    /// Its guid.
    pub guid: String,
    /// When it was made.
    pub created: SystemTime,
    /// The name and the guid of the snapshot that the changes start from; `None` when the stream has it whole.
    pub base: Option<(Vec<u8>, String)>,
}

/// What a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Its datasets.
    pub parts: Vec<StreamPart>,
    /// Whether it goes on where another one was interrupted.
    pub resumed: bool,
    /// Bytes, to the end.
    pub bytes: u64,
    /// Keys with a value.
    pub puts: u64,
    /// Keys that are to be deleted.
    pub deletes: u64,
}

/// A snapshot that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The name of its dataset.
    pub dataset: Vec<u8>,
    /// Its name.
    pub snapshot: Vec<u8>,
    /// Whether the dataset is new.
    pub created: bool,
}

/// What was received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiveReport {
    /// In the order of the stream.
    pub received: Vec<Received>,
    /// Keys that were set.
    pub puts: u64,
    /// Keys that were deleted.
    pub deletes: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

impl StreamInfo {
    /// Reads a stream to its end, and checks that it is whole. Nothing is received.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(input: impl Read) -> Result<Self> {
        let mut reader = StreamReader::new(input)?;
        let (mut puts, mut deletes) = (0, 0);
        loop {
            match reader.next()? {
                Part::Entries(payload) => {
                    let entries = entries_of(&payload)?;
                    let set = entries.iter().filter(|(_, value)| value.is_some()).count() as u64;
                    puts += set;
                    deletes += entries.len() as u64 - set;
                }
                Part::SectionEnd => {}
                Part::End => break,
            }
        }
        let header = reader.header();
        let part = |section: &Section| StreamPart {
            dataset: section.dataset.clone(),
            action: section.action.clone(),
            snapshot: section.snapshot.clone(),
            guid: section.guid.to_string(),
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(section.created),
            base: section.base.as_ref().map(|base| (base.name.clone(), base.guid.to_string())),
        };
        Ok(Self {
            parts: header.sections.iter().map(part).collect(),
            resumed: header.resumed.is_some(),
            bytes: reader.bytes(),
            puts,
            deletes,
        })
    }
}

fn entries_of(payload: &[u8]) -> Result<Vec<Entry<'_>>> {
    let damaged =
        |error: crate::base::codec::DecodeError| StreamError::Damaged { at: 0, reason: error.to_string() };
    Ok(decode_entries(payload).map_err(damaged)?)
}

/// Where a section goes.
struct Target {
    name: Vec<u8>,
    /// The dataset that there is.
    state: Option<Arc<DatasetState>>,
    /// Its snapshot that the changes start from.
    base: Option<Snapshot>,
}

impl Database {
    /// Makes of a stream the dataset `name` with the snapshot that was sent, or the changes to that dataset and the snapshot.
    /// Everybody reads the dataset as it was until the stream is there to its end and found to be whole; then the new state
    /// and the snapshot are there at once, and durable when this returns. The snapshot has the name, the guid and the time of
    /// the one that was sent. Nothing behind the end of the stream is read.
    ///
    /// After an error the dataset is what it was. What was received is kept, hidden, for a stream that goes on there (see
    /// [`Database::unfinished_receives`]), until another stream is received into the dataset, or
    /// [`Database::abort_receive`] gives it back; nothing is kept of a stream that is proved wrong by its digest.
    ///
    /// # Errors
    /// [`Error::Stream`] says what is wrong with the stream, or with the dataset for it; [`Error::AlreadyExists`] for a snapshot
    /// that was sent whole when the dataset is there, or for the name of the snapshot; [`Error::WrongAction`];
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

    /// As [`Database::receive`], of a stream with several datasets, each with the name that it gets, in the order of the
    /// stream.
    ///
    /// # Errors
    /// As [`Database::receive`]; another number of names.
    pub fn receive_all(
        &self,
        names: &[&[u8]],
        options: &ReceiveOptions,
        input: &mut (impl Read + ?Sized),
    ) -> Result<ReceiveReport> {
        let core = self.core();
        core.check_writable()?;
        let mut reader = StreamReader::new(input)?;
        let sections = reader.header().sections.clone();
        if sections.len() != names.len() {
            let reason = format!("the stream has {}, and there are {} names", sections.len(), names.len());
            return Err(Error::InvalidArgument { what: "datasets", reason });
        }
        names.iter().try_for_each(|name| check_name(name))?;
        let _claimed = core.receives.claim(names)?;
        let target = |(name, section)| self.target(name, section, options);
        let targets = names.iter().copied().zip(&sections).map(target).collect::<Result<Vec<_>>>()?;
        let stagings = self.stagings_for(&targets, &reader)?;
        let done = self.read_in(&stagings, &targets, &mut reader, options);
        match &done {
            Ok(_) => {}
            // Nothing can be made of it, or there is nothing yet.
            Err(_) if reader.is_tainted() || core.has_nothing_of(&stagings) => self.forget(&stagings),
            Err(error) => {
                log::info!("a stream was interrupted: {error}");
                if let Err(error) = core.checkpoint(true) {
                    log::warn!("how far a stream was received is not durable: {error}");
                }
            }
        }
        let (puts, deletes) = done?;
        let received = targets.into_iter().zip(sections).map(|(target, section)| Received {
            dataset: target.name,
            snapshot: section.snapshot,
            created: target.state.is_none(),
        });
        Ok(ReceiveReport { received: received.collect(), puts, deletes, bytes: reader.bytes() })
    }

    fn forget(&self, stagings: &Stagings) {
        if let Err(error) = self.core().discard(stagings) {
            log::warn!("what was received of a stream is still there: {error}");
        }
    }

    /// Looks whether a section can go into the dataset `name`.
    fn target(&self, name: &[u8], section: &Section, options: &ReceiveOptions) -> Result<Target> {
        let core = self.core();
        let found = core.dataset(name);
        let (state, base) = match (&section.base, found) {
            (None, Err(Error::NotFound { .. })) => (None, None),
            (None, Ok(_)) if !options.force => {
                let name = name.escape_ascii().to_string();
                return Err(Error::AlreadyExists { what: "dataset", name });
            }
            (None, found) => (Some(found?), None),
            (Some(base), found) => {
                let state = found?;
                let snapshot = find_base(self.handle(), &state, base, section, options)?;
                (Some(state), Some(snapshot))
            }
        };
        if let Some(state) = &state {
            let stored = state.tree.action_name().to_owned();
            if stored != section.action {
                let wanted = section.action.clone();
                return Err(Error::WrongAction { dataset: state.display_name(), stored, wanted });
            }
        }
        Ok(Target { name: name.to_vec(), state, base })
    }

    /// The stagings that `reader` goes on with, or new ones.
    fn stagings_for<R: Read>(&self, targets: &[Target], reader: &StreamReader<R>) -> Result<Stagings> {
        let core = self.core();
        let names: Vec<&[u8]> = targets.iter().map(|target| target.name.as_slice()).collect();
        let found = core.stagings_of(&names);
        let header = reader.header();
        if let Some(position) = &header.resumed {
            let no = |reason: &str| StreamError::NotResumed { reason: reason.to_owned() };
            let [found] = &found[..] else {
                return Err(no("nothing is there of it that it could go on with").into());
            };
            let names_match = found.iter().map(|(state, _)| state.name.read().clone()).eq(names);
            if !names_match || found[0].1.stream != header.stream() {
                return Err(no("what is there is of another stream").into());
            }
            if found[0].1.position != *position {
                return Err(no("it goes on elsewhere than where the one before ended").into());
            }
            for (state, _) in found {
                // One that was interrupted behind its end.
                for info in core.snapshots_of(state)? {
                    core.change(&[Change::Delete { dataset: state, name: &info.name }])?;
                }
            }
            return Ok(found.clone());
        }
        for one in &found {
            log::info!("what was received of an earlier stream is given back");
            core.discard(one)?;
        }
        let stream = header.stream();
        let receiving = |(index, section): (usize, &Section)| Receiving {
            stream,
            section: index as u32,
            sections: header.sections.len() as u32,
            guid: section.guid,
            base: section.base.as_ref().map_or(Uuid::default(), |base| base.guid),
            snapshot: section.snapshot.clone(),
            position: Position::default(),
        };
        let receivings: Vec<Receiving> = header.sections.iter().enumerate().map(receiving).collect();
        let staging = |((target, section), receiving)| staging_of(core, target, section, receiving);
        let stagings: Vec<Staging<'_>> =
            targets.iter().zip(&header.sections).zip(&receivings).map(staging).collect();
        core.stage(&stagings)?;
        let made = core.stagings_of(&names).pop().filter(|made| made.len() == targets.len());
        made.ok_or_else(|| Error::NotFound {
            what: "staging of dataset",
            name: names[0].escape_ascii().to_string(),
        })
    }

    /// Reads the stream to its end, and lets the stagings take their places. Returns how many keys were set and deleted.
    fn read_in<R: Read>(
        &self,
        stagings: &Stagings,
        targets: &[Target],
        reader: &mut StreamReader<R>,
        options: &ReceiveOptions,
    ) -> Result<(u64, u64)> {
        let core = self.core();
        let (mut puts, mut deletes) = (0, 0);
        loop {
            let section = reader.position().section as usize;
            match reader.next()? {
                Part::Entries(payload) => {
                    let Some((staging, _)) = stagings.get(section) else { continue };
                    let entries = entries_of(&payload)?;
                    let (set, deleted) = apply(core, staging, &entries)?;
                    puts += set;
                    deletes += deleted;
                }
                Part::SectionEnd => {}
                Part::End => break,
            }
            core.note_received(&stagings[0].0, reader.position());
        }
        self.take_over(stagings, targets, &reader.header().sections, options)?;
        Ok((puts, deletes))
    }

    /// The stagings get their snapshots, and then their places.
    fn take_over(
        &self,
        stagings: &Stagings,
        targets: &[Target],
        sections: &[Section],
        options: &ReceiveOptions,
    ) -> Result<()> {
        let core = self.core();
        let datasets: Vec<Arc<DatasetState>> = stagings.iter().map(|(state, _)| Arc::clone(state)).collect();
        let identities: Vec<Identity> = sections
            .iter()
            .map(|section| Identity { guid: section.guid, created: section.created })
            .collect();
        let name = sections.first().map_or(&[][..], |section| &section.snapshot);
        core.admit_metadata()?;
        core.change(&[Change::Create { datasets: &datasets, name, identities: Some(&identities) }])?;
        // What the other checkpoint needs is free, or becomes so here, where failing changes nothing.
        core.checkpoint(true)?;
        core.admit_metadata()?;
        let takeovers: Vec<Takeover<'_>> = stagings
            .iter()
            .zip(targets)
            .map(|((staging, _), target)| Takeover {
                staging,
                place: match &target.state {
                    None => Place::New,
                    Some(dataset) => Place::Of { dataset, base: target.base.as_ref(), force: options.force },
                },
            })
            .collect();
        core.change(&[Change::TakeOver { takeovers: &takeovers }])?;
        if core.has_threads() { Ok(()) } else { core.drain_jobs() }
    }
}

/// The snapshot of `dataset` that changes start from; what is later must be in nobody's way.
fn find_base(
    handle: &Arc<Handle>,
    dataset: &Arc<DatasetState>,
    base: &Base,
    section: &Section,
    options: &ReceiveOptions,
) -> Result<Snapshot> {
    let core = handle.core();
    let all = core.snapshots_of(dataset)?;
    let escaped = |name: &[u8]| name.escape_ascii().to_string();
    let Some(at) = all.iter().position(|info| info.guid == base.guid.to_string()) else {
        let newest = match all.last() {
            Some(info) => format!("its newest snapshot is {:?} with guid {}", escaped(&info.name), info.guid),
            None => String::from("it has no snapshots"),
        };
        let (dataset, base, guid) = (dataset.display_name(), escaped(&base.name), base.guid.to_string());
        return Err(StreamError::NoBase { dataset, base, guid, newest }.into());
    };
    if let Some(later) = all.get(at + 1).filter(|_| !options.force) {
        let by = match later.guid == section.guid.to_string() {
            true => format!("it has the snapshot {:?} that the stream brings", escaped(&later.name)),
            false => format!("it has the later snapshot {:?}", escaped(&later.name)),
        };
        let (dataset, base) = (dataset.display_name(), escaped(&all[at].name));
        return Err(StreamError::Changed { dataset, base, by }.into());
    }
    if let Some(info) = all[..=at].iter().find(|info| info.name == section.snapshot) {
        let name = format!("{}@{}", dataset.display_name(), escaped(&info.name));
        return Err(Error::AlreadyExists { what: "snapshot", name });
    }
    let snapshot = Snapshot::open(handle, dataset, &all[at].name)?;
    // The same is looked at when the stream is there; but then all of it would have been received in vain.
    if !options.force {
        snapshot.check_unchanged(dataset)?;
    }
    Ok(snapshot)
}

fn staging_of<'a>(
    core: &Core,
    target: &'a Target,
    section: &'a Section,
    receiving: &'a Receiving,
) -> Staging<'a> {
    let options = match &target.state {
        Some(state) => state.tree.options().clone(),
        None => TreeOptions {
            compression: section.compression,
            preference: section.preference,
            ..core.scale.tree_options(&core.configuration, &core.configuration.default_dataset)
        },
    };
    let action = target.state.as_ref().and_then(|state| state.tree.action());
    Staging {
        name: &target.name,
        action_name: &section.action,
        action: action.or_else(|| known_action(&section.action)),
        options,
        base: target.base.as_ref(),
        receiving,
    }
}

/// Applies entries to a staging, as one batch. Returns how many keys were set and deleted.
fn apply(core: &Core, staging: &Arc<DatasetState>, entries: &[Entry<'_>]) -> Result<(u64, u64)> {
    let preference = StoragePreference::NONE;
    let mut writes = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        if kind == Kind::Delete && planted(Bug::ForgetDeletes) {
            continue;
        }
        let payload = value.unwrap_or_default();
        writes.push(Write::Message { dataset: staging, kind, preference, key, payload });
    }
    core.write(&writes, Durability::Buffered)?;
    let set = entries.iter().filter(|(_, value)| value.is_some()).count() as u64;
    Ok((set, entries.len() as u64 - set))
}
