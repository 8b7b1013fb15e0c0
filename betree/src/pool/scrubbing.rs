//! Looking at every copy of what is stored: each leg of a mirror, each column of a stripe and its parity.
//!
//! A reader looks at one copy and is content when it is right. Here all of them are read, those who can judge say which bytes
//! of which copy are right, and what differs is written anew. Bytes are judged in *units*, of which several may share a
//! block: a block is put together from the copies in which its units are right, so that mending one never spoils its
//! neighbour. Bytes that nobody can judge follow the copies; where those differ, zeros are taken for right, since that
//! is what padding is. The parity of a row is made to fit once all its data are right, never before: until then it is what a
//! wrong block is made from. What is right nowhere is written nowhere, not even to a member that is filled: it may be the one that
//! has it.

mod stripes;

use super::format::MemberState;
use super::geometry::STRIPE_BLOCKS;
use super::group::Group;
use super::member::Member;
use super::{Pool, PoolError};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::{Generation, VdevId};
use crate::base::sync::atomic::Ordering;
use crate::base::units::BLOCK_BYTES;
use crate::vdev::VdevError;
use std::ops::Range;

/// Data blocks of an extent that are looked at together.
#[derive(Debug)]
pub struct Window<'a> {
    /// The extent.
    pub extent: Extent,
    /// Its first data block that is looked at; on a striped vdev the start of a stripe. The length is that of the buffer,
    /// which on a striped vdev ends with a stripe.
    pub from: u64,
    /// What the first bytes are: a window before made them right.
    pub known: &'a [u8],
    /// Bytes that can be judged: ascending, apart, behind `known`.
    pub units: &'a [Range<usize>],
    /// Bytes that another window judges, or that are right nowhere: every member keeps its own. Ascending.
    pub foreign: &'a [Range<usize>],
    /// Blocks from the start of the window which no later window looks at again.
    pub settled: u64,
}

/// What the copies are looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Every member that holds everything is compared, and mended.
    Check,
    /// As [`Purpose::Check`], and this member, which lacks something, gets its part of everything.
    Fill(usize),
}

/// What came of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    /// Units that no member has right, nor several together.
    pub damaged: Vec<usize>,
    /// Blocks that were wrong, or could not be read, on one member and are right again.
    pub repaired: u64,
    /// Blocks that are wrong on one member, or cannot be read, and could not be written.
    pub unrepaired: u64,
    /// Blocks that the member to be filled got.
    pub filled: u64,
    /// Requests to devices.
    pub requests: u64,
}

/// Who knows which bytes are right.
pub trait Judge {
    /// Whether `bytes` are those of unit `unit`.
    fn is_right(&mut self, unit: usize, bytes: &[u8]) -> bool;

    /// Puts unit `unit`, which no member alone has right, into `out`, if it can be found in any way.
    fn find(&mut self, unit: usize, out: &mut [u8]) -> bool;
}

/// What one member holds.
struct Image {
    leaf: usize,
    /// First block on the member.
    block: u64,
    bytes: AlignedBuffer,
    /// Blocks that could not be read.
    unread: Vec<bool>,
}

fn bytes_of(blocks: Range<usize>) -> Range<usize> {
    blocks.start * BLOCK_BYTES..blocks.end * BLOCK_BYTES
}

/// Whether one of `ranges` has a byte of `range`.
fn touches(ranges: &[Range<usize>], range: &Range<usize>) -> bool {
    ranges.iter().any(|other| other.start < range.end && range.start < other.end)
}

impl Image {
    fn read(member: &Member, leaf: usize, block: u64, blocks: usize) -> Self {
        let mut bytes = AlignedBuffer::recycled(blocks * BLOCK_BYTES);
        let mut unread = vec![false; blocks];
        if member.read(block, &mut bytes).is_err() {
            // A bad sector must not take its neighbours with it.
            for (at, place) in bytes.chunks_exact_mut(BLOCK_BYTES).enumerate() {
                unread[at] = blocks == 1 || member.read(block + at as u64, place).is_err();
                if unread[at] {
                    place.fill(0);
                }
            }
        }
        Self { leaf, block, bytes, unread }
    }

    fn has(&self, bytes: &Range<usize>) -> bool {
        let blocks = bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES);
        !self.unread[blocks].iter().any(|unread| *unread)
    }
}

/// Blocks to be written to members.
#[derive(Default)]
struct Remedies {
    writes: Vec<(usize, u64, Vec<u8>)>,
}

impl Remedies {
    fn add(&mut self, leaf: usize, block: u64, bytes: &[u8]) {
        if let Some((last, start, more)) = self.writes.last_mut()
            && (*last, *start + (more.len() / BLOCK_BYTES) as u64) == (leaf, block)
        {
            more.extend_from_slice(bytes);
            return;
        }
        self.writes.push((leaf, block, bytes.to_vec()));
    }
}

/// What a window holds, as far as that is known.
struct Verdict {
    /// Bytes that are known to be right. Ascending.
    sure: Vec<Range<usize>>,
    /// Bytes that every member keeps as it has them. Ascending.
    kept: Vec<Range<usize>>,
}

impl Verdict {
    /// The verdict on `window`, whose units `damaged` are right nowhere.
    fn new(window: &Window<'_>, damaged: &[usize]) -> Self {
        let mut sure = Vec::with_capacity(window.units.len() + 1);
        sure.extend((!window.known.is_empty()).then_some(0..window.known.len()));
        let units = window.units.iter().enumerate();
        sure.extend(units.filter(|(index, _)| !damaged.contains(index)).map(|(_, unit)| unit.clone()));
        let mut kept = window.foreign.to_vec();
        kept.extend(damaged.iter().map(|index| window.units[*index].clone()));
        kept.sort_unstable_by_key(|range| range.start);
        Self { sure, kept }
    }

    /// Puts zeros, which padding is, in the place of what is nobody's in block `block` of the window, which nobody gave.
    fn pad(&self, block: usize, buf: &mut [u8]) {
        for gap in gaps(&self.sure, bytes_of(block..block + 1)) {
            for nobodys in gaps(&self.kept, gap) {
                buf[nobodys].fill(0);
            }
        }
    }

    /// Whether every member keeps some of `range`.
    fn keeps(&self, range: &Range<usize>) -> bool {
        touches(&self.kept, range)
    }

    /// Whether all of `range` is known to be right.
    fn is_sure_of(&self, range: &Range<usize>) -> bool {
        gaps(&self.sure, range.clone()).is_empty()
    }
}

/// What of `range` is in none of `ranges`, which are ascending.
fn gaps(ranges: &[Range<usize>], range: Range<usize>) -> Vec<Range<usize>> {
    let (mut gaps, mut from) = (Vec::new(), range.start);
    for other in ranges.iter().filter(|other| touches(std::slice::from_ref(other), &range)) {
        if from < other.start {
            gaps.push(from..other.start);
        }
        from = from.max(other.end);
    }
    if from < range.end {
        gaps.push(from..range.end);
    }
    gaps
}

impl Group {
    /// Looks at every copy of the data blocks of `window`, of which `buf` gets what is right, says `judge`. The caller has seen to it
    /// that nobody else writes there.
    ///
    /// # Errors
    /// The member to be filled took a write no more. What a member that is mended says to that is only counted.
    pub fn scrub(
        &self,
        window: &Window<'_>,
        buf: &mut [u8],
        purpose: Purpose,
        judge: &mut dyn Judge,
    ) -> Result<Scrubbed, VdevError> {
        let mut scrubbed = Scrubbed::default();
        let remedies = match self.geometry().is_plain() {
            true => self.compare_copies_of(window, buf, purpose, judge, &mut scrubbed),
            false => self.compare_stripes(window, buf, purpose, judge, &mut scrubbed),
        };
        scrubbed.requests += remedies.writes.len() as u64;
        for (leaf, block, bytes) in remedies.writes {
            if purpose == Purpose::Fill(leaf) {
                self.fill(leaf, block, &AlignedBuffer::copy_of(&bytes))?;
                scrubbed.filled += (bytes.len() / BLOCK_BYTES) as u64;
            } else {
                self.apply_remedy(leaf, block, &bytes, &mut scrubbed);
            }
        }
        Ok(scrubbed)
    }

    /// Block `block` of the member to be filled, which gets `right`, of which it keeps what `verdict` says. The block starts at byte
    /// `start` of the window.
    fn refill(
        &self,
        leaf: usize,
        block: u64,
        (right, start): (&[u8], usize),
        verdict: &Verdict,
        remedies: &mut Remedies,
    ) {
        if !verdict.keeps(&(start..start + BLOCK_BYTES)) {
            remedies.add(leaf, block, right);
            return;
        }
        let own = Image::read(&self.members()[leaf], leaf, block, 1);
        if own.unread[0] {
            // It may be the one that has what is kept.
            return;
        }
        if let Some(expected) = expected(right, &own.bytes, start, &verdict.kept) {
            remedies.add(leaf, block, &expected);
        }
    }

    fn apply_remedy(&self, leaf: usize, block: u64, bytes: &[u8], scrubbed: &mut Scrubbed) {
        let blocks = (bytes.len() / BLOCK_BYTES) as u64;
        let member = &self.members()[leaf];
        member.counters.wrong(blocks);
        if self.repair(leaf, block, bytes) {
            scrubbed.repaired += blocks;
        } else {
            scrubbed.unrepaired += blocks;
        }
    }

    /// Members whose copies count.
    fn sources(&self, purpose: Purpose) -> impl Iterator<Item = (usize, &Member)> {
        let counts = move |(leaf, member): &(usize, &Member)| {
            member.state() == MemberState::Online && purpose != Purpose::Fill(*leaf)
        };
        self.members().iter().map(|member| &**member).enumerate().filter(counts)
    }

    fn compare_copies_of(
        &self,
        window: &Window<'_>,
        buf: &mut [u8],
        purpose: Purpose,
        judge: &mut dyn Judge,
        scrubbed: &mut Scrubbed,
    ) -> Remedies {
        let (block, blocks) = (window.extent.block + window.from, buf.len() / BLOCK_BYTES);
        let read = |(leaf, member)| Image::read(member, leaf, block, blocks);
        let mut images: Vec<Image> = self.sources(purpose).map(read).collect();
        scrubbed.requests += images.len() as u64;
        images.sort_by_key(|image| image.unread.iter().filter(|unread| **unread).count());
        let mut given = vec![true; blocks];
        for (at, given) in given.iter_mut().enumerate() {
            let place = bytes_of(at..at + 1);
            match images.iter().find(|image| !image.unread[at]) {
                Some(image) => buf[place.clone()].copy_from_slice(&image.bytes[place]),
                None => {
                    buf[place].fill(0);
                    *given = false;
                }
            }
        }
        buf[..window.known.len()].copy_from_slice(window.known);
        for (index, unit) in window.units.iter().enumerate() {
            let has_right =
                |image: &&Image| image.has(unit) && judge.is_right(index, &image.bytes[unit.clone()]);
            match images.iter().find(has_right) {
                Some(image) => buf[unit.clone()].copy_from_slice(&image.bytes[unit.clone()]),
                None if judge.find(index, &mut buf[unit.clone()]) => {}
                None => scrubbed.damaged.push(index),
            }
        }
        let verdict = Verdict::new(window, &scrubbed.damaged);
        (0..blocks).filter(|at| !given[*at]).for_each(|at| verdict.pad(at, buf));
        clear_gaps(&images, verdict.sure.iter().chain(&verdict.kept).cloned().collect(), buf);
        let mut remedies = Remedies::default();
        for image in &images {
            for at in 0..blocks {
                let place = bytes_of(at..at + 1);
                let (right, own) = (&buf[place.clone()], &image.bytes[place.clone()]);
                match image.unread[at] {
                    // What cannot be read just now may be the only right copy of what nobody is sure of.
                    true if verdict.keeps(&place) => {}
                    true => remedies.add(image.leaf, block + at as u64, right),
                    false => {
                        if let Some(expected) = expected(right, own, place.start, &verdict.kept) {
                            remedies.add(image.leaf, block + at as u64, &expected);
                        }
                    }
                }
            }
        }
        if let Purpose::Fill(leaf) = purpose {
            for at in 0..(window.settled as usize).min(blocks) {
                let place = bytes_of(at..at + 1);
                let right = (&buf[place.clone()], place.start);
                self.refill(leaf, block + at as u64, right, &verdict, &mut remedies);
            }
        }
        remedies
    }
}

/// Where images differ outside of `judged`, and one of them has zeros, zeros are right.
fn clear_gaps(images: &[Image], mut judged: Vec<Range<usize>>, buf: &mut [u8]) {
    if images.len() < 2 {
        return;
    }
    judged.sort_unstable_by_key(|range| range.start);
    let mut from = 0;
    judged.push(buf.len()..buf.len());
    for range in judged {
        while from < range.start {
            let place = from..range.start.min((from / BLOCK_BYTES + 1) * BLOCK_BYTES);
            from = place.end;
            let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
            let zero = |image: &Image| image.has(&place) && is_zero(&image.bytes[place.clone()]);
            if !is_zero(&buf[place.clone()]) && images.iter().any(zero) {
                buf[place].fill(0);
            }
        }
        from = from.max(range.end);
    }
}

/// The block `right`, which starts at byte `start`, with the bytes of `kept` as `own` has them; `None` when that is what `own` is.
fn expected(right: &[u8], own: &[u8], start: usize, kept: &[Range<usize>]) -> Option<Vec<u8>> {
    if right == own {
        return None;
    }
    let mut bytes = right.to_vec();
    for range in kept {
        let from = range.start.max(start).min(start + bytes.len()) - start;
        let to = range.end.max(start).min(start + bytes.len()) - start;
        bytes[from..to.max(from)].copy_from_slice(&own[from..to.max(from)]);
    }
    (bytes != own).then_some(bytes)
}

/// A member that lacks something, and is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The vdev.
    pub vdev: VdevId,
    /// Its number in the vdev.
    pub member: usize,
    /// What it is called.
    pub name: String,
    /// The first generation that it lacks.
    pub since: Generation,
}

impl Pool {
    /// Requests so far that no scrub made.
    #[must_use]
    pub fn requests_of_others(&self) -> u64 {
        let all = self.metrics().iter().map(|vdev| vdev.reads.requests + vdev.writes.requests).sum::<u64>();
        all.saturating_sub(self.scrub_requests().load(Ordering::Relaxed))
    }

    /// The members that lack something, and are written.
    #[must_use]
    pub fn lacking(&self) -> Vec<Lacking> {
        let mut lacking = Vec::new();
        for vdev in self.present() {
            for (member, one) in vdev.group.members().iter().enumerate() {
                if one.state() == MemberState::Resilvering {
                    let (vdev, name, since) = (vdev.id, one.name(), one.standing().missed_from);
                    lacking.push(Lacking { vdev, member, name, since });
                }
            }
        }
        lacking
    }

    /// A member lacks everything from now on.
    #[cfg(test)]
    pub(crate) fn set_lacking(&self, vdev: VdevId, member: usize) {
        self.set_member(vdev, member, MemberState::Resilvering);
    }

    /// Sets the state of a member, which nobody is told.
    #[cfg(test)]
    pub(crate) fn set_member(&self, vdev: VdevId, member: usize, state: MemberState) {
        self.vdev(vdev).unwrap().group.members()[member].set_state(state, Generation(1), None);
    }

    /// Looks at every copy of the data blocks of `window`, of which `buf` gets what is right, and mends those that are wrong.
    /// `judge` knows the bytes of a unit. The caller holds the extent: nobody writes to it meanwhile.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`]; [`PoolError::Vdev`] when the member to be filled fails, which is given up then.
    pub fn scrub(
        &self,
        window: &Window<'_>,
        buf: &mut [u8],
        purpose: Purpose,
        judge: &mut dyn Judge,
    ) -> Result<Scrubbed, PoolError> {
        let position = self.position(window.extent.vdev)?;
        let group = &self.vdevs()[position].group;
        let geometry = group.geometry();
        let capacity = geometry.capacity(u64::from(window.extent.blocks));
        let end = window.from + (buf.len() / BLOCK_BYTES) as u64;
        let stripe = u64::from(STRIPE_BLOCKS);
        let whole = geometry.is_plain()
            || (window.from.is_multiple_of(stripe) && (end.is_multiple_of(stripe) || end == capacity));
        assert!(end <= capacity && whole, "a window is made of whole stripes inside of its extent");
        let result = group.scrub(window, buf, purpose, judge);
        let requests = result.as_ref().map_or(1, |scrubbed| scrubbed.requests);
        self.scrub_requests().fetch_add(requests, Ordering::Relaxed);
        self.note_written(position);
        result.map_err(|error| {
            if let Purpose::Fill(member) = purpose {
                group.lose(member, &error);
            }
            error.into()
        })
    }
}
