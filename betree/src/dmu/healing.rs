//! What was read and is wrong: asking the other members of a vdev, and writing what is right over what is not.
//!
//! Only who reads knows what is right: it has the checksum. So it says so for each thing that the members give together, and
//! the first that is right is given back and goes to every member that held something else. Tried are, in this order:
//!
//! 1. everything with one member (of parity 2: with two members) left out, for each: one device that lies, or lost a write;
//! 2. the same, where it gives not all, with the blocks that it lacks as one or another of the others gives them: a device
//!    that lies, and bad sectors on others;
//! 3. each block as one or another of these gave it: several devices that lie, each about another block.

use super::DmuError;
use super::dmu::Dmu;
use super::sequence::Part;
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::VdevId;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::pool::Pool;
use std::collections::BTreeSet;
use std::ops::Range;

/// Things that are tried before bytes are given up: few enough that a checksum of 32 bits is not met by chance.
const TRIES_MAX: usize = 4096;
/// Bytes of what members gave that are kept, unless the read is longer than a quarter of it.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Looks for what is right in the place of `parts`; whether there is something, which `out` has then. What members hold
/// otherwise of its bytes `verified` is repaired, if the pool may be written: what else is in their blocks is nobody's word.
pub(super) fn recover(
    pool: &Pool,
    parts: &[Part],
    out: &mut [u8],
    verified: &Range<usize>,
    is_right: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<bool, DmuError> {
    let found = search(pool, parts, out, is_right)?;
    if found {
        repair(pool, parts, out, verified)?;
    }
    Ok(found)
}

/// Writes the bytes `verified` of `right` over what members hold otherwise in the place of `parts`, if the pool may be written.
pub(super) fn repair(
    pool: &Pool,
    parts: &[Part],
    right: &[u8],
    verified: &Range<usize>,
) -> Result<(), DmuError> {
    if pool.check_writable().is_err() {
        return Ok(());
    }
    let whole = verified.start.next_multiple_of(BLOCK_BYTES)..verified.end / BLOCK_BYTES * BLOCK_BYTES;
    for part in parts.iter().flat_map(Part::stripes) {
        let Range { start, end } = part.range;
        let block = |byte: usize| part.from + ((byte - start) / BLOCK_BYTES) as u64;
        let sure = whole.start.max(start)..whole.end.min(end);
        if !sure.is_empty() {
            let right = &right[sure.clone()];
            let mut place = AlignedBuffer::zeroed(right.len());
            pool.recover(&part.extent, block(sure.start), &mut place, &mut |bytes| bytes == right)?;
        }
        for at in (start..end).step_by(BLOCK_BYTES).filter(|at| !sure.contains(at)) {
            let bytes = verified.start.max(at)..verified.end.min(at + BLOCK_BYTES);
            if !bytes.is_empty() {
                let verified = bytes.start - at..bytes.end - at;
                pool.patch(&part.extent, block(at), &right[at..at + BLOCK_BYTES], &verified)?;
            }
        }
    }
    Ok(())
}

/// Which version of each block something consists of; `None` where it has none.
type Choice = Vec<Option<usize>>;

/// What members gave for each block, each version once.
struct Versions {
    blocks: Vec<Vec<AlignedBuffer>>,
    /// How many more are kept.
    room: usize,
}

impl Versions {
    fn new(blocks: usize) -> Self {
        let room = (KEPT_BYTES_MAX / BLOCK_BYTES).max(4 * blocks);
        Self { blocks: (0..blocks).map(|_| Vec::new()).collect(), room }
    }

    /// Adds the blocks `bytes` from block `first` on, as far as they are `given`; which versions they are.
    fn add(&mut self, first: usize, bytes: &[u8], given: &[bool]) -> Choice {
        let mut choice = Vec::with_capacity(given.len());
        for (at, (bytes, given)) in bytes.chunks_exact(BLOCK_BYTES).zip(given).enumerate() {
            let versions = &mut self.blocks[first + at];
            let known = versions.iter().position(|version| version[..] == *bytes);
            choice.push(match known {
                _ if !given => None,
                None if self.room == 0 => None,
                None => {
                    self.room -= 1;
                    versions.push(AlignedBuffer::copy_of(bytes));
                    Some(versions.len() - 1)
                }
                known => known,
            });
        }
        choice
    }
}

/// Things are put together for somebody who knows what is right, up to [`TRIES_MAX`] of them.
struct Trial<'a> {
    versions: &'a Versions,
    out: &'a mut [u8],
    is_right: &'a mut dyn FnMut(&[u8]) -> bool,
    tries: usize,
}

impl Trial<'_> {
    /// Tries `base` with every version of the blocks `varied`; whether one was right, which `out` then has.
    fn vary(&mut self, base: &Choice, varied: &[usize]) -> bool {
        let block = |at: usize| at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES;
        for (at, choice) in base.iter().enumerate() {
            if let Some(version) = choice {
                self.out[block(at)].copy_from_slice(&self.versions.blocks[at][*version]);
            }
        }
        let count = |at: &usize| self.versions.blocks[*at].len();
        let all = varied.iter().map(count).fold(1usize, usize::saturating_mul);
        for choice in 0..all.min(TRIES_MAX - self.tries) {
            let mut left = choice;
            for at in varied {
                let versions = &self.versions.blocks[*at];
                self.out[block(*at)].copy_from_slice(&versions[left % versions.len()]);
                left /= versions.len();
            }
            self.tries += 1;
            if (self.is_right)(self.out) {
                return true;
            }
        }
        false
    }
}

fn search(
    pool: &Pool,
    parts: &[Part],
    out: &mut [u8],
    is_right: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<bool, DmuError> {
    let mut vdevs: Vec<VdevId> = parts.iter().map(|part| part.extent.vdev).collect();
    vdevs.sort_unstable();
    vdevs.dedup();
    let mut exclusions = Vec::with_capacity(vdevs.len());
    for vdev in &vdevs {
        let sets = pool.exclusions(*vdev)?;
        exclusions.push(if sets.is_empty() { vec![Vec::new()] } else { sets });
    }
    if exclusions.iter().all(|sets| sets.len() < 2) {
        return Ok(false);
    }
    let of_vdev = |part: &Part| vdevs.iter().position(|vdev| *vdev == part.extent.vdev).unwrap_or(0);
    // Of each part, what each set of its vdev leaves. Members are read once.
    let mut versions = Versions::new(out.len() / BLOCK_BYTES);
    let mut left: Vec<Vec<Choice>> = Vec::with_capacity(parts.len());
    for part in parts {
        let held = pool.alternatives(&part.extent, part.from, part.range.len() / BLOCK_BYTES)?;
        let mut bytes = AlignedBuffer::zeroed(part.range.len());
        let mut choices = Vec::new();
        for excluded in &exclusions[of_vdev(part)] {
            let given = held.without(excluded, &mut bytes);
            choices.push(versions.add(part.range.start / BLOCK_BYTES, &bytes, &given));
        }
        left.push(choices);
    }
    if versions.blocks.iter().any(Vec::is_empty) {
        return Ok(false);
    }
    let mut trial = Trial { versions: &versions, out, is_right, tries: 0 };
    let mut known = BTreeSet::new();
    let mut incomplete = Vec::new();
    let all = exclusions.iter().map(Vec::len).fold(1usize, usize::saturating_mul);
    for number in 0..all.min(TRIES_MAX) {
        let mut choice = Vec::with_capacity(versions.blocks.len());
        for (part, choices) in parts.iter().zip(&left) {
            let vdev = of_vdev(part);
            let step = exclusions[..vdev].iter().map(Vec::len).fold(1usize, usize::saturating_mul);
            choice.extend_from_slice(&choices[number / step % exclusions[vdev].len()]);
        }
        if !known.insert(choice.clone()) {
            continue;
        }
        if choice.contains(&None) {
            incomplete.push(choice);
        } else if trial.vary(&choice, &[]) {
            return Ok(true);
        }
    }
    for choice in &incomplete {
        let holes: Vec<usize> = (0..choice.len()).filter(|at| choice[*at].is_none()).collect();
        if trial.vary(choice, &holes) {
            return Ok(true);
        }
    }
    let first = vec![Some(0); versions.blocks.len()];
    let doubts: Vec<usize> = (0..first.len()).filter(|at| versions.blocks[*at].len() > 1).collect();
    Ok(trial.vary(&first, &doubts))
}

/// How a read went, for who verifies the bytes.
#[derive(Debug)]
pub enum Reading {
    /// As it should.
    Clean,
    /// A member did not give its part, though none is missing: what of it was verified is for [`Dmu::put_right`].
    Partial,
    /// Not, and the bytes are zero; but the vdev is redundant, so that a piece of it may be recovered by its checksum
    /// ([`Dmu::recover`]). When not, this is why.
    Failed(DmuError),
}

/// The part of `bytes` that is in `range`, counted from its start.
fn within(bytes: &Range<usize>, range: &Range<usize>) -> Range<usize> {
    let at = |byte: usize| byte.clamp(range.start, range.end) - range.start;
    at(bytes.start)..at(bytes.end)
}

impl Dmu {
    /// As [`Dmu::read`], for who can tell whether the bytes `verified` of it are right: what is wrong is looked for elsewhere,
    /// and repaired. The bytes, and whether they are right.
    ///
    /// # Errors
    /// As [`Dmu::read`].
    pub fn read_checked(
        &self,
        extents: &[Extent],
        offset: u64,
        len: usize,
        verified: Range<usize>,
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(AlignedBuffer, bool), DmuError> {
        let parts = self.parts(extents, offset, len)?;
        let mut buffer = AlignedBuffer::recycled(len);
        match self.read_parts(&parts, &mut buffer) {
            Ok(clean) if is_right(&buffer) => {
                if !clean && self.is_whole(&parts) {
                    repair(self.pool(), &parts, &buffer, &verified)?;
                }
            }
            read => {
                // A redundant vdev that does not read has perhaps a member that only a checksum can trust.
                if !self.recover_parts(&parts, &mut buffer, &verified, is_right)? {
                    read?;
                    return Ok((buffer, false));
                }
            }
        }
        self.note_wrong_copies(&parts, &buffer, &verified)?;
        Ok((buffer, true))
    }

    /// Looks for the bytes `range` of the data of `extent` in everything that its members hold, and in what can be made of it; whether
    /// there is something right, which `out` has then. Nothing is repaired.
    #[cold]
    pub(super) fn find(
        &self,
        extent: &Extent,
        range: Range<u64>,
        out: &mut [u8],
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool {
        let start = range.start / BLOCK_BYTES_U64 * BLOCK_BYTES_U64;
        let mut buffer = vec![0; (range.end.next_multiple_of(BLOCK_BYTES_U64) - start) as usize];
        let own = (range.start - start) as usize..(range.end - start) as usize;
        let found = self.parts(std::slice::from_ref(extent), start, buffer.len()).and_then(|parts| {
            search(self.pool(), &parts, &mut buffer, &mut |bytes| is_right(&bytes[own.clone()]))
        });
        match found {
            Ok(true) => {
                out.copy_from_slice(&buffer[own]);
                true
            }
            Ok(false) => false,
            Err(error) => {
                log::debug!("{extent}: {error}");
                false
            }
        }
    }

    /// For who read `out` at byte `offset` of `extents` and found its bytes `verified` wrong: whether other members hold what is right, which
    /// `out` has then. See [`Dmu::read_checked`].
    ///
    /// # Errors
    /// [`DmuError::Corrupt`] when the range is not inside the extents.
    #[cold]
    pub fn recover(
        &self,
        extents: &[Extent],
        offset: u64,
        out: &mut [u8],
        verified: Range<usize>,
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, DmuError> {
        let parts = self.parts(extents, offset, out.len())?;
        self.recover_parts(&parts, out, &verified, is_right)
    }

    /// [`recover`] of what was perhaps read from a copy in memory: then the devices are asked first, and the copy is put right,
    /// too.
    fn recover_parts(
        &self,
        parts: &[Part],
        out: &mut [u8],
        verified: &Range<usize>,
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, DmuError> {
        let Some(copies) = self.copies() else {
            return recover(self.pool(), parts, out, verified, is_right);
        };
        let mut read =
            parts.iter().map(|part| self.pool().read(&part.extent, part.from, &mut out[part.range.clone()]));
        let found = (read.all(|read| read.is_ok()) && is_right(out))
            || recover(self.pool(), parts, out, verified, is_right)?;
        if found && self.pool().check_writable().is_ok() {
            for part in parts {
                copies.patch(part, &out[part.range.clone()], &within(verified, &part.range));
            }
        }
        Ok(found)
    }

    /// Whether no member of the vdevs of `parts` is missing: of who is missing nothing is to be had.
    fn is_whole(&self, parts: &[Part]) -> bool {
        parts.iter().all(|part| self.pool().vdev(part.extent.vdev).is_ok_and(|vdev| vdev.is_whole()))
    }

    /// As [`Dmu::read`], for who verifies the bytes piece by piece.
    ///
    /// # Errors
    /// As [`Dmu::read`], when there is nobody else to ask.
    pub fn read_doubtful(
        &self,
        extents: &[Extent],
        offset: u64,
        len: usize,
    ) -> Result<(AlignedBuffer, Reading), DmuError> {
        let parts = self.parts(extents, offset, len)?;
        let mut buffer = AlignedBuffer::recycled(len);
        let reading = self.read_parts_doubtful(&parts, &mut buffer)?;
        Ok((buffer, reading))
    }

    /// As [`Dmu::read_doubtful`], into `out`, which saves a copy when its address is a multiple of 4096.
    ///
    /// # Errors
    /// As [`Dmu::read_doubtful`]; `out` is then unspecified.
    pub fn read_into(&self, extents: &[Extent], offset: u64, out: &mut [u8]) -> Result<Reading, DmuError> {
        self.read_parts_doubtful(&self.parts(extents, offset, out.len())?, out)
    }

    fn read_parts_doubtful(&self, parts: &[Part], out: &mut [u8]) -> Result<Reading, DmuError> {
        match self.read_parts(parts, out) {
            Ok(clean) if clean || !self.is_whole(parts) => Ok(Reading::Clean),
            Ok(_) => Ok(Reading::Partial),
            Err(error)
                if self.copies().is_some()
                    || parts.iter().any(|part| self.is_redundant(part.extent.vdev)) =>
            {
                out.fill(0);
                Ok(Reading::Failed(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether what cannot be read of `vdev` may be had otherwise.
    #[must_use]
    pub fn is_redundant(&self, vdev: VdevId) -> bool {
        self.pool().exclusions(vdev).is_ok_and(|sets| !sets.is_empty())
    }

    /// For who read `right` from byte `offset` of `extents`, which was [`Reading::Partial`], and verified its bytes `verified`:
    /// repairs what a member could not give of them.
    ///
    /// # Errors
    /// [`DmuError::Corrupt`] when the range is not inside the extents.
    #[cold]
    pub fn put_right(
        &self,
        extents: &[Extent],
        offset: u64,
        right: &[u8],
        verified: &Range<usize>,
    ) -> Result<(), DmuError> {
        repair(self.pool(), &self.parts(extents, offset, right.len())?, right, verified)
    }

    /// Reads the blocks of `extent` from the one at `from` on, each a stripe of its own.
    ///
    /// # Errors
    /// Device errors.
    pub fn read_singles(&self, extent: &Extent, from: u32, blocks: u32) -> Result<AlignedBuffer, DmuError> {
        let mut buffer = AlignedBuffer::recycled(blocks as usize * BLOCK_BYTES);
        self.pool().read_singles(extent, u64::from(from), &mut buffer)?;
        Ok(buffer)
    }

    /// As [`Dmu::recover`], of blocks that are stripes of their own.
    ///
    /// # Errors
    /// A vdev that the pool does not have.
    pub fn recover_singles(
        &self,
        extent: &Extent,
        from: u32,
        out: &mut [u8],
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, DmuError> {
        Ok(self.pool().recover_singles(extent, u64::from(from), out, is_right)?.is_some())
    }

    /// Which of the blocks of `extent` from the one at `from` on, stripes of their own, have copies that differ.
    ///
    /// # Errors
    /// A vdev that the pool does not have.
    pub fn differing_singles(&self, extent: &Extent, from: u32, blocks: u32) -> Result<Vec<bool>, DmuError> {
        Ok(self.pool().differing_singles(extent, u64::from(from), blocks as usize)?)
    }
}

#[cfg(test)]
mod tests;
