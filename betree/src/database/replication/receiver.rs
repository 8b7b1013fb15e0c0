//! Receiving: from a stream to datasets.

use super::error::StreamError;
use super::format::{Base, Entry, Position, Receiving, Section, decode_entries};
use super::reader::{Part, StreamReader};
use super::staging::Stagings;
use crate::base::ids::Uuid;
use crate::base::planted::{Bug, planted};
use crate::database::Durability;
use crate::database::catalog::DatasetState;
use crate::database::commit::Write;
use crate::database::core::Core;
use crate::database::database::{Database, Handle};
use crate::database::dataset::{Dataset, known_action};
use crate::database::error::{Error, Result};
use crate::database::format::Role;
use crate::database::naming::check_name;
use crate::database::pair::Pair;
use crate::database::snapshots::{Change, Identity, Place, Snapshot, Staging, Takeover};
use crate::run::Kind;
use crate::tree::{TreeOptions, Value};
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

/// What a part of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StreamKind {
    /// A dataset.
    Dataset,
    /// An object store.
    ObjectStore,
}

impl StreamKind {
    /// What a section of `role` belongs to.
    pub(super) fn of(role: Role) -> Self {
        match role {
            Role::Dataset => Self::Dataset,
            Role::Metadata | Role::Chunks => Self::ObjectStore,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Dataset => Role::Dataset.noun(),
            Self::ObjectStore => Role::Metadata.noun(),
        }
    }
}

/// What a stream says of one dataset or object store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamPart {
    /// What it is.
    pub kind: StreamKind,
    /// Its name where it was sent.
    pub name: Vec<u8>,
    /// The name of its message action.
    pub action: String,
    /// The name of the snapshot.
    pub snapshot: Vec<u8>,
    /// Its guid; of an object store, that of the metadata.
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
    /// Its datasets and object stores.
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
    /// What it is of.
    pub kind: StreamKind,
    /// The name of its dataset or object store.
    pub name: Vec<u8>,
    /// Its own name.
    pub snapshot: Vec<u8>,
    /// Whether the dataset or store is new.
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
                    let set = entries.iter().filter(|entry| entry.value.is_some()).count() as u64;
                    puts += set;
                    deletes += entries.len() as u64 - set;
                }
                Part::SectionEnd => {}
                Part::End => break,
            }
        }
        let header = reader.header();
        let part = |section: &Section| StreamPart {
            kind: StreamKind::of(section.role),
            name: section.dataset.clone(),
            action: section.action.clone(),
            snapshot: section.snapshot.clone(),
            guid: section.guid.to_string(),
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(section.created),
            base: section.base.as_ref().map(|base| (base.name.clone(), base.guid.to_string())),
        };
        Ok(Self {
            parts: header.sections.iter().filter(|section| section.is_first()).map(part).collect(),
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

/// What the layer above does for object stores that become what was received.
pub(crate) struct StoreCare<'a> {
    /// The key of the metadata that is no content: what stands there may be another than in the snapshot that changes start
    /// from.
    pub counter: &'a [u8],
    /// Calls what takes over while nobody changes the stores, with what is to stand under that key in each, where it is not
    /// what was received.
    pub turn: &'a dyn Fn(&[StoreTurn], &TakeOver<'_>) -> Result<()>,
}

/// An object store that becomes what was received.
pub(crate) struct StoreTurn {
    pub pair: Pair,
    /// The counter as it was received.
    pub arrived: Option<Value>,
    /// The counter in the snapshot that changes start from; `None` when all is new.
    pub base: Option<Value>,
}

/// Lets stagings take their places; the values are those of the counters that stay, one for each store.
pub(crate) type TakeOver<'a> = dyn Fn(&[Option<Vec<u8>>]) -> Result<()> + 'a;

/// Where a section goes.
struct Target {
    role: Role,
    name: Vec<u8>,
    /// The dataset that there is.
    state: Option<Arc<DatasetState>>,
    /// Its snapshot that the changes start from.
    base: Option<Snapshot>,
}

impl Database {
    /// Makes of a stream the datasets and object stores `names`, in the order of the stream; `stores` is what these need.
    pub(crate) fn receive_parts(
        &self,
        names: &[&[u8]],
        options: &ReceiveOptions,
        stores: &StoreCare<'_>,
        input: &mut (impl Read + ?Sized),
    ) -> Result<ReceiveReport> {
        let core = self.core();
        core.check_writable()?;
        let mut reader = StreamReader::new(input)?;
        let sections = reader.header().sections.clone();
        let parts = sections.iter().filter(|section| section.is_first()).count();
        if parts != names.len() {
            let reason = format!("the stream has {parts}, and there are {} names", names.len());
            return Err(Error::InvalidArgument { what: "names of datasets and object stores", reason });
        }
        names.iter().try_for_each(|name| check_name(name))?;
        // Both sections of a store have its name.
        let mut rest = names.iter().copied();
        let mut name = &[][..];
        let mut all: Vec<(Role, &[u8])> = Vec::with_capacity(sections.len());
        for section in &sections {
            if section.is_first() {
                name = rest.next().unwrap_or_default();
            }
            all.push((section.role, name));
        }
        let _claimed = core.receives.claim(&all)?;
        let target = |((_, name), section): (&(Role, &[u8]), _)| self.target(name, section, options, stores);
        let targets = all.iter().zip(&sections).map(target).collect::<Result<Vec<_>>>()?;
        let stagings = self.stagings_for(&targets, &reader)?;
        let done = self
            .read_in(&stagings, &mut reader)
            .and_then(|read| self.take_over(&stagings, &targets, &sections, options, stores).map(|()| read));
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
        let received = targets.into_iter().zip(sections).filter(|(_, section)| section.is_first());
        let received = received.map(|(target, section)| Received {
            kind: StreamKind::of(section.role),
            name: target.name,
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

    /// Looks whether a section can go into the dataset of its role and the name `name`.
    fn target(
        &self,
        name: &[u8],
        section: &Section,
        options: &ReceiveOptions,
        stores: &StoreCare<'_>,
    ) -> Result<Target> {
        let (core, role) = (self.core(), section.role);
        let found = core.named(role, name);
        let (state, base) = match (&section.base, found) {
            (None, Err(Error::NotFound { .. })) => (None, None),
            (None, Ok(_)) if !options.force => {
                let name = name.escape_ascii().to_string();
                return Err(Error::AlreadyExists { what: role.noun(), name });
            }
            (None, found) => (Some(found?), None),
            (Some(base), found) => {
                let state = found?;
                let snapshot =
                    find_base(self.handle(), &state, base, section, options, passed(role, stores))?;
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
        Ok(Target { role, name: name.to_vec(), state, base })
    }

    /// The stagings that `reader` goes on with, or new ones.
    fn stagings_for<R: Read>(&self, targets: &[Target], reader: &StreamReader<R>) -> Result<Stagings> {
        let core = self.core();
        let names: Vec<(Role, &[u8])> =
            targets.iter().map(|target| (target.role, target.name.as_slice())).collect();
        let found = core.stagings_of(&names);
        let header = reader.header();
        if let Some(position) = &header.resumed {
            let no = |reason: &str| StreamError::NotResumed { reason: reason.to_owned() };
            let [found] = &found[..] else {
                return Err(no("nothing is there of it that it could go on with").into());
            };
            let names_match = found
                .iter()
                .map(|(state, _)| (state.role, state.name.read().clone()))
                .eq(names.iter().map(|(role, name)| (*role, name.to_vec())));
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
            name: names[0].1.escape_ascii().to_string(),
        })
    }

    /// Reads the stream to its end. Returns how many keys were set and deleted.
    fn read_in<R: Read>(&self, stagings: &Stagings, reader: &mut StreamReader<R>) -> Result<(u64, u64)> {
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
        Ok((puts, deletes))
    }

    /// The object stores that are there already, and their counters. What was received is the head of each staging.
    fn turns_of(
        &self,
        stagings: &Stagings,
        targets: &[Target],
        stores: &StoreCare<'_>,
    ) -> Result<Vec<StoreTurn>> {
        let open = |state: &Arc<DatasetState>| Dataset::new(Arc::clone(self.handle()), Arc::clone(state));
        let mut turns = Vec::new();
        for (at, target) in targets.iter().enumerate().filter(|(_, target)| target.role == Role::Metadata) {
            let chunks = targets.get(at + 1).and_then(|target| target.state.as_ref());
            let (Some(metadata), Some(chunks)) = (&target.state, chunks) else { continue };
            let staging = &stagings[at].0;
            let arrived = staging.tree.view().get(stores.counter).map_err(|error| staging.error(error))?;
            let base = match &target.base {
                Some(base) => base.get(stores.counter)?,
                None => None,
            };
            turns.push(StoreTurn {
                pair: Pair { metadata: open(metadata), chunks: open(chunks) },
                arrived,
                base,
            });
        }
        Ok(turns)
    }

    /// The stagings get their snapshots, and then their places.
    fn take_over(
        &self,
        stagings: &Stagings,
        targets: &[Target],
        sections: &[Section],
        options: &ReceiveOptions,
        stores: &StoreCare<'_>,
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
        let take_over = |counters: &[Option<Vec<u8>>]| {
            let mut counters = counters.iter();
            let mut takeovers: Vec<Takeover<'_>> = Vec::with_capacity(targets.len());
            for ((staging, _), target) in stagings.iter().zip(targets) {
                let place = match &target.state {
                    None => Place::New,
                    Some(dataset) => {
                        let (base, force) = (target.base.as_ref(), options.force);
                        let passed = passed(target.role, stores);
                        let keep = passed.and_then(|key| Some((key, counters.next()?.as_deref()?)));
                        Place::Of { dataset, base, force, passed, keep }
                    }
                };
                takeovers.push(Takeover { staging, place });
            }
            core.change(&[Change::TakeOver { takeovers: &takeovers }])
        };
        let turns = self.turns_of(stagings, targets, stores)?;
        (stores.turn)(&turns, &take_over)?;
        if core.has_threads() { Ok(()) } else { core.drain_jobs() }
    }
}

/// The key that may differ in a dataset of `role`.
fn passed<'a>(role: Role, stores: &StoreCare<'a>) -> Option<&'a [u8]> {
    (role == Role::Metadata).then_some(stores.counter)
}

/// The snapshot of `dataset` that changes start from; what is later must be in nobody's way.
fn find_base(
    handle: &Arc<Handle>,
    dataset: &Arc<DatasetState>,
    base: &Base,
    section: &Section,
    options: &ReceiveOptions,
    passed: Option<&[u8]>,
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
        snapshot.check_unchanged(dataset, passed)?;
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
        role: target.role,
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
    let mut writes = Vec::with_capacity(entries.len());
    for Entry { key, value, preference } in entries {
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        if kind == Kind::Delete && planted(Bug::ForgetDeletes) {
            continue;
        }
        let payload = value.unwrap_or_default();
        writes.push(Write::Message { dataset: staging, kind, preference: *preference, key, payload });
    }
    core.write(&writes, Durability::Buffered)?;
    let set = entries.iter().filter(|entry| entry.value.is_some()).count() as u64;
    Ok((set, entries.len() as u64 - set))
}
