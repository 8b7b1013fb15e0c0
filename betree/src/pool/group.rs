//! A top-level vdev: reading and writing extents on whatever members are there.
//!
//! A group makes what a member cannot give from what the others hold, and says which members it lost. It writes no label:
//! who calls it makes a loss durable before anything is acknowledged. What it reads it has not verified, so it repairs
//! nothing by itself; that is for who knows what is right ([`mod@super::healing`]).

use super::format::{MemberState, VdevKind};
use super::geometry::{Column, Geometry, STRIPE_BLOCKS, Stripe};
use super::member::Member;
use super::parity;
use super::shares::{Bridges, Parity, ReadShare};
use super::workers::Workers;
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::Generation;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Mutex, MutexGuard, RwLock};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::vdev::{Operation, VdevError};
use std::ops::Range;
use std::sync::Arc;

/// A piece of an extent of a striped vdev: a stripe, and which of its data blocks are meant.
pub(super) type StripePart = (Stripe, Range<u32>);

/// Bytes from which on a read of several members is worth a thread.
const PARALLEL_BYTES_MIN: usize = 128 << 10;

/// What the labels of a vdev say besides its members.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels {
    /// Whether leaves have label areas.
    pub exist: bool,
    /// Number of the newest; 0 when there is none.
    pub number: u64,
    /// Blocks of each leaf that the vdev uses.
    pub leaf_blocks: u64,
    /// Lengths that leaves have, had or may get, and whose back areas reach below that, ascending.
    pub lengths: Vec<u64>,
}

/// A top-level vdev.
#[derive(Debug)]
pub(super) struct Group {
    kind: VdevKind,
    geometry: Geometry,
    members: Vec<Arc<Member>>,
    workers: Workers,
    /// Held over writing a label.
    labels: Mutex<Labels>,
    /// Held while it is decided whether a member may be lost.
    losing: Mutex<()>,
    /// How often each member was admitted.
    admissions: Vec<AtomicU64>,
    /// Held shared by writes; alone by who lets a member take writes again, so that each write sees it before or after.
    writing: RwLock<()>,
    /// Held while a part of a block is mended.
    pub(super) patching: Mutex<()>,
    /// Changes that a label must tell, and how many of them the newest one tells.
    changes: AtomicU64,
    recorded: AtomicU64,
    /// First generation that a member lacks something of when it is lost now.
    open_generation: AtomicU64,
    /// Whether what is found wrong is written anew.
    repairs: AtomicBool,
}

impl Group {
    /// A vdev of these members, which at most `threads` threads serve beside the caller.
    pub fn new(kind: VdevKind, members: Vec<Member>, labels: Labels, threads: usize) -> Self {
        let geometry = Geometry::of(kind, members.len() as u8);
        // Two requests at a time keep every member busy while the next one is prepared.
        let threads = if members.len() > 1 { threads.min(2 * members.len()) } else { 0 };
        Self {
            kind,
            geometry,
            admissions: members.iter().map(|_| AtomicU64::new(0)).collect(),
            members: members.into_iter().map(Arc::new).collect(),
            workers: Workers::new(threads),
            labels: Mutex::new(labels),
            losing: Mutex::new(()),
            writing: RwLock::new(()),
            patching: Mutex::new(()),
            changes: AtomicU64::new(0),
            recorded: AtomicU64::new(0),
            open_generation: AtomicU64::new(1),
            repairs: AtomicBool::new(true),
        }
    }

    pub fn kind(&self) -> VdevKind {
        self.kind
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    pub fn labels(&self) -> MutexGuard<'_, Labels> {
        self.labels.lock()
    }

    /// Whether nothing of it survives the process.
    pub fn is_volatile(&self) -> bool {
        self.members.iter().all(|member| member.is_volatile())
    }

    /// Whether its members have label areas.
    pub fn is_labelled(&self) -> bool {
        self.labels().exist
    }

    /// Members that must hold everything for anything to be read.
    pub fn needed(&self) -> usize {
        needed(self.kind, self.members.len())
    }

    /// Members that hold everything and keep it, but for `without`; all that hold it in a vdev of memory.
    fn keepers(&self, without: Option<usize>) -> usize {
        let volatile = self.is_volatile();
        let keeps = |(index, member): &(usize, &Arc<Member>)| {
            Some(*index) != without
                && member.state() == MemberState::Online
                && (volatile || !member.is_volatile())
        };
        self.members.iter().enumerate().filter(keeps).count()
    }

    /// Whether the members that hold everything are enough to read anything, after the process, too.
    pub fn is_sufficient(&self) -> bool {
        self.keepers(None) >= self.needed()
    }

    /// Whether the others are enough when the member at `index` is lost.
    pub fn can_lose(&self, index: usize) -> bool {
        self.keepers(Some(index)) >= self.needed()
    }

    /// Says from which generation on a member lacks something when it is lost from now on.
    pub fn set_open_generation(&self, generation: Generation) {
        self.open_generation.store(generation.0, Ordering::Release);
    }

    pub fn open_generation(&self) -> Generation {
        Generation(self.open_generation.load(Ordering::Acquire))
    }

    pub fn set_repairs(&self, repairs: bool) {
        self.repairs.store(repairs, Ordering::Release);
    }

    /// Something changed that a label must tell before anything is acknowledged.
    pub fn change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes up to now.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether a change waits to be made durable.
    pub fn is_unrecorded(&self) -> bool {
        self.recorded.load(Ordering::Acquire) < self.changes()
    }

    /// What `tell` makes of the members and of the number of changes up to now, which are all that there are: nobody is lost
    /// or admitted meanwhile.
    pub fn with_changes<T>(&self, tell: impl FnOnce(u64) -> T) -> T {
        let _turn = self.losing.lock();
        tell(self.changes())
    }

    /// The first `changes` changes are durable.
    pub fn set_recorded(&self, changes: u64) {
        self.recorded.fetch_max(changes, Ordering::AcqRel);
    }

    /// Gives up a member whose write or flush failed; whether the others are enough.
    pub fn lose(&self, index: usize, error: &VdevError) -> bool {
        self.leave(index, MemberState::Faulted, || error.to_string())
    }

    /// Takes a member out of use; whether the others are enough. When not, it stays.
    pub fn leave(&self, index: usize, state: MemberState, reason: impl FnOnce() -> String) -> bool {
        let _turn = self.losing.lock();
        if !self.can_lose(index) {
            return false;
        }
        let member = &self.members[index];
        if member.state().is_written() || state == MemberState::Offline {
            let reason = reason();
            log::error!("{reason}; {} is {state}, and the vdev goes on without it", member.name());
            // Before the state: who sees the member gone must see that this is not durable yet. A label is made up before both or
            // after both ([`Group::with_changes`]).
            self.change();
            member.set_state(state, self.open_generation(), Some(reason));
        }
        true
    }

    /// Puts a member for whose state `expected` holds into `state`, in which it takes writes; whether that was so. No write is
    /// under way meanwhile.
    pub fn admit(
        &self,
        index: usize,
        expected: impl FnOnce(MemberState) -> bool,
        state: MemberState,
        reason: Option<&str>,
    ) -> bool {
        let _alone = self.writing.write();
        let _turn = self.losing.lock();
        if !expected(self.members[index].state()) {
            return false;
        }
        self.change();
        self.admissions[index].fetch_add(1, Ordering::AcqRel);
        self.members[index].set_state(state, self.open_generation(), reason.map(str::to_owned));
        true
    }

    /// How often a member was admitted.
    pub fn admissions(&self, index: usize) -> u64 {
        self.admissions[index].load(Ordering::Acquire)
    }

    /// Reads the data blocks of `extent` from `from` on into `buf`; whether every member that was asked gave its part.
    pub fn read(&self, extent: &Extent, from: u64, buf: &mut [u8]) -> Result<bool, VdevError> {
        if self.geometry.is_plain() {
            return self.read_copies(extent.block + from, buf);
        }
        self.read_parts(&self.parts(extent, from, buf.len(), Operation::Read)?, buf)
    }

    /// As [`Group::read`], where every data block is a stripe of its own.
    pub fn read_singles(&self, extent: &Extent, from: u64, buf: &mut [u8]) -> Result<bool, VdevError> {
        if self.geometry.is_plain() {
            return self.read_copies(extent.block + from, buf);
        }
        self.read_parts(&self.singles(extent, from, buf.len(), Operation::Read)?, buf)
    }

    /// The stripes of `bytes` bytes from data block `from` of `extent` on.
    pub(super) fn parts(
        &self,
        extent: &Extent,
        from: u64,
        bytes: usize,
        operation: Operation,
    ) -> Result<Vec<StripePart>, VdevError> {
        let end = from.saturating_add((bytes / BLOCK_BYTES) as u64);
        if end > self.geometry.capacity(u64::from(extent.blocks)) {
            return Err(self.outside(operation, extent, from, bytes));
        }
        Ok(self.geometry.stripes(extent, from..end).collect())
    }

    /// As [`Group::parts`], where every data block is a stripe of its own.
    pub(super) fn singles(
        &self,
        extent: &Extent,
        from: u64,
        bytes: usize,
        operation: Operation,
    ) -> Result<Vec<StripePart>, VdevError> {
        let end = from.saturating_add((bytes / BLOCK_BYTES) as u64);
        if end > u64::from(extent.blocks / self.geometry.granule()) {
            return Err(self.outside(operation, extent, from, bytes));
        }
        Ok(self.geometry.singles(extent, from..end).map(|stripe| (stripe, 0..1)).collect())
    }

    fn outside(&self, operation: Operation, extent: &Extent, from: u64, bytes: usize) -> VdevError {
        let blocks = self.geometry.capacity(u64::from(extent.blocks));
        VdevError::OutOfBounds {
            device: self.members[0].name(),
            operation,
            offset: from.saturating_mul(BLOCK_BYTES_U64),
            length: bytes as u64,
            device_bytes: blocks.saturating_mul(BLOCK_BYTES_U64),
        }
    }

    /// Members that hold everything, the one to ask first at the front: who goes on where it read last, unless others
    /// have less to do; among equals by place, so that all of them are read and none twice in a row for neighbours.
    fn readers(&self, block: u64) -> Vec<usize> {
        let online = |index: &usize| self.members[*index].state() == MemberState::Online;
        let mut readers: Vec<usize> = (0..self.members.len()).filter(online).collect();
        if readers.len() > 1 {
            const TURN_BLOCKS: u64 = 256;
            let turn = (block / TURN_BLOCKS) as usize % readers.len();
            readers.rotate_left(turn);
            readers.sort_by_key(|index| {
                let (reading, sequential) = self.members[*index].load(block);
                2 * reading + u32::from(!sequential)
            });
        }
        readers
    }

    /// The member that [`Group::read_copies`] would ask first, when it would ask no other one at the same time.
    pub(super) fn only_reader(&self, block: u64, bytes: usize) -> Option<usize> {
        if !self.geometry.is_plain() {
            return None;
        }
        if self.members.len() == 1 {
            return Some(0);
        }
        let readers = self.readers(block);
        (bytes < 2 * PARALLEL_BYTES_MIN).then(|| readers.first().copied()).flatten()
    }

    fn read_copies(&self, block: u64, buf: &mut [u8]) -> Result<bool, VdevError> {
        if let [only] = &self.members[..] {
            return only.read_alone(block, buf).map(|()| true);
        }
        let readers = self.readers(block);
        if buf.len() >= 2 * PARALLEL_BYTES_MIN && readers.len() > 1 && self.workers.is_parallel() {
            return self.read_shares(&readers, block, buf);
        }
        self.read_copy(&readers, block, buf)
    }

    /// Reads from the first of `readers` that can.
    fn read_copy(&self, readers: &[usize], block: u64, buf: &mut [u8]) -> Result<bool, VdevError> {
        let mut first_error = None;
        for index in readers {
            match self.members[*index].read(block, buf) {
                Ok(()) => return Ok(first_error.is_none()),
                Err(error) => {
                    log::warn!("{error}; another copy serves");
                    first_error.get_or_insert(error);
                }
            }
        }
        // No copy is readable as a whole: block by block there may be one for each.
        if readers.len() > 1 && buf.len() > BLOCK_BYTES {
            for (at, bytes) in (block..).zip(buf.chunks_exact_mut(BLOCK_BYTES)) {
                self.read_copy(readers, at, bytes)?;
            }
            return Ok(false);
        }
        Err(first_error.unwrap_or_else(|| self.members[0].gone(Operation::Read, block)))
    }

    /// Reads an equal share from each of `readers`, at the same time.
    fn read_shares(&self, readers: &[usize], block: u64, buf: &mut [u8]) -> Result<bool, VdevError> {
        let share = (buf.len() / BLOCK_BYTES).div_ceil(readers.len()) * BLOCK_BYTES;
        let start = |index: usize| block + (index * share / BLOCK_BYTES) as u64;
        let shares = buf.chunks_mut(share).enumerate().collect();
        let given = self
            .workers
            .each(shares, |(index, bytes)| self.members[readers[index]].read(start(index), bytes));
        let mut clean = true;
        for (index, (bytes, given)) in buf.chunks_mut(share).zip(given).enumerate() {
            if !matches!(given, Some(Ok(()))) {
                clean = false;
                // All others first; block by block the first one may have what they lack.
                let mut rest = readers.to_vec();
                rest.rotate_left(index + 1);
                self.read_copy(&rest, start(index), bytes)?;
            }
        }
        Ok(clean)
    }

    fn read_parts(&self, parts: &[StripePart], buf: &mut [u8]) -> Result<bool, VdevError> {
        let columns: Vec<Vec<Column>> = parts.iter().map(|(stripe, _)| stripe.columns()).collect();
        let online: Vec<bool> =
            self.members.iter().map(|member| member.state() == MemberState::Online).collect();
        if self.read_where_they_are(parts, &columns, &online, buf) {
            return Ok(true);
        }
        // With all that others hold: of several stripes at once, then of each, then block by block.
        let mut whole = Spans::new(self.members.len());
        for column in columns.iter().flatten().filter(|column| online[column.leaf]) {
            whole.add(column.leaf, column.block..column.block + u64::from(column.blocks));
        }
        let held = self.read_spans(&whole);
        let mut rest = buf;
        for ((stripe, part), columns) in parts.iter().zip(&columns) {
            let (now, later) = rest.split_at_mut(part.len() * BLOCK_BYTES);
            let of_column = |column: &Column| whole.slice(&held, column);
            let given: Vec<Option<&[u8]>> = columns.iter().map(of_column).collect();
            if !rebuild_part(stripe, &given, part, now) {
                self.read_rows(stripe, columns, part, now)?;
            }
            rest = later;
        }
        Ok(online.iter().zip(&self.members).all(|(online, _)| *online) && held_all(&whole, &held))
    }

    /// Reads data from the leaves that have them; whether that worked.
    fn read_where_they_are(
        &self,
        parts: &[StripePart],
        columns: &[Vec<Column>],
        online: &[bool],
        buf: &mut [u8],
    ) -> bool {
        let is_long = buf.len() >= PARALLEL_BYTES_MIN;
        let mut bridges = Bridges::of(parts, columns, self.members.len());
        let shares = bridges.shares(parts, columns, buf, self.members.len());
        if shares.iter().any(|share| !online[share.leaf]) {
            return false;
        }
        let read = |share: ReadShare<'_>| {
            let member = &self.members[share.leaf];
            share.runs.into_iter().try_for_each(|mut run| member.read_vectored(run.block, &mut run.bytes))
        };
        let given = if is_long {
            self.workers.each(shares, read)
        } else {
            shares.into_iter().map(|share| Some(read(share))).collect()
        };
        for error in given.iter().flatten().filter_map(|given| given.as_ref().err()) {
            log::warn!("{error}; the others serve");
        }
        given.iter().all(|given| matches!(given, Some(Ok(()))))
    }

    /// Reads each leaf's span with one request, at the same time; `None` where that failed.
    fn read_spans(&self, spans: &Spans) -> Vec<Option<AlignedBuffer>> {
        let leaves: Vec<usize> = spans.leaves().collect();
        let given = self.workers.each(leaves.clone(), |leaf| {
            let span = spans.of(leaf);
            read_into_new(&self.members[leaf], span.start, (span.end - span.start) as usize * BLOCK_BYTES)
        });
        let mut held: Vec<Option<AlignedBuffer>> = self.members.iter().map(|_| None).collect();
        for (leaf, given) in leaves.into_iter().zip(given) {
            match given {
                Some(Ok(bytes)) => held[leaf] = Some(bytes),
                Some(Err(error)) => log::warn!("{error}; the others serve"),
                None => {}
            }
        }
        held
    }

    /// Reads data of a stripe on which several members fail, though not all in the same row.
    fn read_rows(
        &self,
        stripe: &Stripe,
        columns: &[Column],
        part: &Range<u32>,
        buf: &mut [u8],
    ) -> Result<(), VdevError> {
        let (held, error) = self.read_blocks(columns);
        for (block, bytes) in part.clone().zip(buf.chunks_exact_mut(BLOCK_BYTES)) {
            let (column, row) = stripe.place_of(block);
            let of_row = stripe.columns_in(row);
            let given: Vec<Option<&[u8]>> =
                held[..of_row].iter().map(|column| column[row as usize].as_deref()).collect();
            let missing: Vec<usize> = (0..of_row).filter(|index| given[*index].is_none()).collect();
            let index = stripe.parity() + column;
            if let Some(here) = given[index] {
                bytes.copy_from_slice(here);
                continue;
            }
            let mut made = vec![vec![0; BLOCK_BYTES]; missing.len()];
            let present: Vec<&[u8]> = given.iter().map(|given| given.unwrap_or_default()).collect();
            let mut outs: Vec<&mut [u8]> = made.iter_mut().map(Vec::as_mut_slice).collect();
            if !parity::rebuild(&present, stripe.parity(), &missing, &mut outs) {
                let first = &columns[index];
                return Err(error.unwrap_or_else(|| {
                    self.members[first.leaf].gone(Operation::Read, first.block + u64::from(row))
                }));
            }
            if let Some(at) = missing.iter().position(|missing| *missing == index) {
                bytes.copy_from_slice(&made[at]);
            }
        }
        Ok(())
    }

    /// Every block of `columns` that members which hold everything can give, and why the first could not.
    pub(super) fn read_blocks(
        &self,
        columns: &[Column],
    ) -> (Vec<Vec<Option<AlignedBuffer>>>, Option<VdevError>) {
        let mut first_error = None;
        let mut held = Vec::with_capacity(columns.len());
        for column in columns {
            let member = &self.members[column.leaf];
            let mut blocks: Vec<Option<AlignedBuffer>> = (0..column.blocks).map(|_| None).collect();
            if member.state() == MemberState::Online {
                match read_into_new(member, column.block, column.blocks as usize * BLOCK_BYTES) {
                    Ok(bytes) => {
                        for (block, bytes) in blocks.iter_mut().zip(bytes.chunks_exact(BLOCK_BYTES)) {
                            *block = Some(AlignedBuffer::copy_of(bytes));
                        }
                    }
                    Err(error) if column.blocks == 1 => drop(first_error.get_or_insert(error)),
                    Err(error) => {
                        first_error.get_or_insert(error);
                        for (at, block) in (column.block..).zip(&mut blocks) {
                            *block = read_into_new(member, at, BLOCK_BYTES).ok();
                        }
                    }
                }
            } else {
                first_error.get_or_insert_with(|| member.gone(Operation::Read, column.block));
            }
            held.push(blocks);
        }
        (held, first_error)
    }

    /// Writes to a member what it lacks.
    pub(super) fn fill(&self, index: usize, block: u64, bytes: &[u8]) -> Result<(), VdevError> {
        let _shared = self.writing.read();
        self.members[index].write(block, bytes)
    }

    /// Writes what is right over what was wrong on a member; whether that worked.
    pub(super) fn repair(&self, index: usize, block: u64, right: &[u8]) -> bool {
        let _shared = self.writing.read();
        let member = &self.members[index];
        if !self.repairs.load(Ordering::Acquire) || !member.state().is_written() {
            return false;
        }
        match member.write(block, &AlignedBuffer::copy_of(right)) {
            Ok(()) => {
                let blocks = right.len() / BLOCK_BYTES;
                member.counters.repaired(blocks as u64);
                log::warn!("{}: {blocks} blocks from {block} were wrong and are repaired", member.name());
                true
            }
            // The next write that matters finds out.
            Err(error) => {
                log::error!("{error}; what is wrong there stays");
                false
            }
        }
    }

    /// Writes `buf` at the data blocks of `extent` from `from` on, which must start a stripe; a stripe that is not filled is
    /// filled with zeros. A member that fails is given up as long as the others are enough.
    pub fn write(&self, extent: &Extent, from: u64, buf: &[u8]) -> Result<(), VdevError> {
        if self.geometry.is_plain() {
            return self.write_copies(extent.block + from, buf);
        }
        if !from.is_multiple_of(u64::from(STRIPE_BLOCKS)) {
            return Err(self.outside(Operation::Write, extent, from, buf.len()));
        }
        self.write_parts(&self.parts(extent, from, buf.len(), Operation::Write)?, buf)
    }

    /// Writes `buf` at the data blocks of `extent` from `from` on, every one of which is a stripe of its own.
    pub fn write_singles(&self, extent: &Extent, from: u64, buf: &[u8]) -> Result<(), VdevError> {
        if self.geometry.is_plain() {
            return self.write_copies(extent.block + from, buf);
        }
        self.write_parts(&self.singles(extent, from, buf.len(), Operation::Write)?, buf)
    }

    fn write_copies(&self, block: u64, buf: &[u8]) -> Result<(), VdevError> {
        let _shared = self.writing.read();
        let written: Vec<usize> = self.written().collect();
        if written.is_empty() {
            return Err(self.members[0].gone(Operation::Write, block));
        }
        let given = self.workers.each(written.clone(), |index| self.members[index].write(block, buf));
        self.settle_all(written, given)
    }

    fn write_parts(&self, parts: &[StripePart], buf: &[u8]) -> Result<(), VdevError> {
        if parts.is_empty() {
            return Ok(());
        }
        let columns: Vec<Vec<Column>> = parts.iter().map(|(stripe, _)| stripe.columns()).collect();
        let parity = Parity::of(parts, &columns, buf);
        let mut shares = parity.shares(parts, &columns, buf, self.members.len());
        let _shared = self.writing.read();
        shares.retain(|share| self.members[share.leaf].state().is_written());
        if shares.is_empty() {
            return Err(self.members[0].gone(Operation::Write, 0));
        }
        let leaves = shares.iter().map(|share| share.leaf).collect();
        let given = self
            .workers
            .each(shares, |share| self.members[share.leaf].write_vectored(share.block, &share.bytes));
        self.settle_all(leaves, given)
    }

    fn written(&self) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(|index| self.members[*index].state().is_written())
    }

    /// What a failed write or flush of member `index` means: nothing, as long as the others are enough.
    fn settle(&self, index: usize, result: Result<(), VdevError>) -> Result<(), VdevError> {
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.is_out_of_space() => Err(error),
            Err(error) if self.lose(index, &error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// As [`Group::settle`], of several; a part that panicked failed.
    fn settle_all(
        &self,
        members: Vec<usize>,
        given: Vec<Option<Result<(), VdevError>>>,
    ) -> Result<(), VdevError> {
        let mut first_error = Ok(());
        for (index, result) in members.into_iter().zip(given) {
            let result = result.unwrap_or_else(|| Err(self.members[index].gone(Operation::Write, 0)));
            let settled = self.settle(index, result);
            if first_error.is_ok() || settled.as_ref().is_err_and(|error| !error.is_out_of_space()) {
                first_error = settled;
            }
        }
        first_error
    }

    /// Makes completed writes durable on every member that takes them. A full host file system is a failure here.
    pub fn flush(&self) -> Result<(), VdevError> {
        let written: Vec<usize> = self.written().collect();
        if written.is_empty() {
            return Err(self.members[0].gone(Operation::Flush, 0));
        }
        let given = self.workers.each(written.clone(), |index| self.members[index].flush());
        let mut result = Ok(());
        for (index, given) in written.into_iter().zip(given) {
            let given = given.unwrap_or_else(|| Err(self.members[index].gone(Operation::Flush, 0)));
            if let Err(error) = given
                && !self.lose(index, &error)
                && result.is_ok()
            {
                result = Err(error);
            }
        }
        result
    }

    /// Nothing refers to `blocks` blocks from `block` on any more.
    pub fn discard(&self, block: u64, blocks: u64) {
        let columns = u64::from(self.geometry.columns());
        for index in self.written() {
            let of_leaf = |raw: u64| match self.geometry.is_plain() {
                true => raw,
                false => (raw + columns - 1 - index as u64) / columns,
            };
            let (first, end) = (of_leaf(block), of_leaf(block + blocks));
            if first < end {
                self.members[index].discard(first, end - first);
            }
        }
    }
}

/// Members of a vdev of `kind` with `count` members that must hold everything for anything to be read.
pub(super) const fn needed(kind: VdevKind, count: usize) -> usize {
    match kind {
        VdevKind::Leaf => count,
        VdevKind::Mirror => 1,
        VdevKind::Parity1 => count - 1,
        VdevKind::Parity2 => count - 2,
    }
}

fn read_into_new(member: &Member, block: u64, bytes: usize) -> Result<AlignedBuffer, VdevError> {
    let mut buf = AlignedBuffer::recycled(bytes);
    member.read(block, &mut buf).map(|()| buf)
}

fn held_all(spans: &Spans, held: &[Option<AlignedBuffer>]) -> bool {
    spans.leaves().all(|leaf| held[leaf].is_some())
}

/// For each leaf the blocks from the first that is wanted to the last.
struct Spans(Vec<Option<Range<u64>>>);

impl Spans {
    fn new(leaves: usize) -> Self {
        Self(vec![None; leaves])
    }

    fn add(&mut self, leaf: usize, blocks: Range<u64>) {
        self.0[leaf] = Some(match &self.0[leaf] {
            None => blocks,
            Some(span) => span.start.min(blocks.start)..span.end.max(blocks.end),
        });
    }

    /// Leaves of which something is wanted.
    fn leaves(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len()).filter(|leaf| self.0[*leaf].is_some())
    }

    fn of(&self, leaf: usize) -> Range<u64> {
        self.0[leaf].clone().unwrap_or_default()
    }

    /// Where `blocks` of `leaf` are in the bytes of its span.
    fn place(&self, leaf: usize, blocks: &Range<u64>) -> Range<usize> {
        let at = |block: u64| (block - self.of(leaf).start) as usize * BLOCK_BYTES;
        at(blocks.start)..at(blocks.end)
    }

    fn slice<'a>(&self, held: &'a [Option<AlignedBuffer>], column: &Column) -> Option<&'a [u8]> {
        let bytes = held[column.leaf].as_ref()?;
        let blocks = column.block..column.block + u64::from(column.blocks);
        Some(&bytes[self.place(column.leaf, &blocks)])
    }
}

/// Makes the data blocks `part` of a stripe from the columns that are there; whether these were enough.
pub(super) fn rebuild_part(
    stripe: &Stripe,
    given: &[Option<&[u8]>],
    part: &Range<u32>,
    buf: &mut [u8],
) -> bool {
    let parity = stripe.parity();
    let missing: Vec<usize> = (parity..given.len()).filter(|index| given[*index].is_none()).collect();
    let rows = stripe.rows() as usize * BLOCK_BYTES;
    let mut made = vec![Vec::new(); missing.len()];
    if !missing.is_empty() {
        let lost: Vec<usize> = (0..given.len()).filter(|index| given[*index].is_none()).collect();
        let present: Vec<&[u8]> = given.iter().map(|given| given.unwrap_or_default()).collect();
        let mut all: Vec<AlignedBuffer> = lost.iter().map(|_| AlignedBuffer::recycled(rows)).collect();
        for (index, bytes) in lost.iter().zip(&mut all) {
            bytes.truncate(stripe.blocks_of(*index) as usize * BLOCK_BYTES);
        }
        let mut outs: Vec<&mut [u8]> = all.iter_mut().map(|bytes| &mut bytes[..]).collect();
        if !parity::rebuild(&present, parity, &lost, &mut outs) {
            return false;
        }
        let data = lost.iter().zip(all).filter(|(index, _)| **index >= parity);
        made = data.map(|(_, bytes)| bytes.to_vec()).collect();
    }
    let mut made = made.iter();
    let mut rest = buf;
    for (index, given) in given[parity..].iter().enumerate() {
        let bytes = match given {
            Some(bytes) => *bytes,
            None => made.next().map_or(&[][..], Vec::as_slice),
        };
        let first = stripe.first_of(index);
        let end = first + stripe.blocks_of(parity + index);
        let wanted = first.max(part.start)..end.min(part.end);
        if !wanted.is_empty() {
            let at = |block: u32| (block - first) as usize * BLOCK_BYTES;
            let from = &bytes[at(wanted.start)..at(wanted.end)];
            let (now, later) = rest.split_at_mut(from.len());
            now.copy_from_slice(from);
            rest = later;
        }
    }
    true
}
