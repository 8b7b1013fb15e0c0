//! A file of fio as keys of a dataset: one for each block of it.
//!
//! ```text
//!   0 name             → number, bytes of a block, bytes of the file     its header
//!   1 number, block    → the block                                       none: zeros; shorter: zeros behind it
//! ```
//!
//! Numbers are big-endian in keys, so that the blocks of a file stand in order, and little-endian in values.

use crate::target::Begun;
use betree::{BegunRead, Database, Dataset, Durability, Error, ReadQueue, Result, StoragePreference};
use parking_lot::Mutex;

const HEADER: u8 = 0;
const BLOCK: u8 = 1;
/// Up to so many blocks are read one by one; more of them by a range, which reads ahead.
const SINGLE_READS_MAX: u64 = 8;
/// Up to so many blocks are deleted one by one: a range delete is looked at by every read that comes near.
const SINGLE_DELETES_MAX: u64 = 16;
/// Smallest and largest block.
pub const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 512..=1 << 20;

/// A file as keys.
#[derive(Debug)]
pub struct Keys {
    database: Database,
    dataset: Dataset,
    name: Vec<u8>,
    number: u64,
    block_bytes: u64,
    /// Its length; locked while the header is written.
    size: Mutex<u64>,
}

fn header_key(name: &[u8]) -> Vec<u8> {
    [&[HEADER], name].concat()
}

/// What the header of a file says: its number, bytes of a block, its length.
fn parse(header: &[u8]) -> Result<(u64, u64, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
    match (number(0), number(8), number(16)) {
        (Some(file), Some(block), Some(size)) if header.len() == 24 && BLOCK_BYTES.contains(&block) => {
            Ok((file, block, size))
        }
        _ => Err(Error::Corrupt { what: "header of a file of fio", reason: String::from("not one of ours") }),
    }
}

/// A part of a block: its number, where in it the part begins, and how many bytes it has.
struct Part {
    block: u64,
    from: u64,
    length: u64,
}

impl Keys {
    /// The file `name`; `None` when there is none. Nobody else may make one of that name meanwhile.
    pub fn open(database: &Database, dataset: &Dataset, name: &[u8]) -> Result<Option<Self>> {
        let Some(header) = dataset.get(header_key(name))? else { return Ok(None) };
        let (number, block_bytes, size) = parse(&header)?;
        let (database, dataset) = (database.clone(), dataset.clone());
        Ok(Some(Self { database, dataset, name: name.to_vec(), number, block_bytes, size: Mutex::new(size) }))
    }

    /// Makes the empty file `name`, with blocks of `block_bytes` bytes. Nobody else may make any file meanwhile.
    pub fn create(database: &Database, dataset: &Dataset, name: &[u8], block_bytes: u64) -> Result<Self> {
        if !BLOCK_BYTES.contains(&block_bytes) {
            return Err(Error::InvalidArgument {
                what: "kv-block",
                reason: format!(
                    "{block_bytes} bytes are not from {} to {}",
                    BLOCK_BYTES.start(),
                    BLOCK_BYTES.end()
                ),
            });
        }
        let mut number = 0;
        for entry in dataset.prefix([HEADER]) {
            number = number.max(parse(&entry?.1)?.0 + 1);
        }
        let (database, dataset) = (database.clone(), dataset.clone());
        let file = Self { database, dataset, name: name.to_vec(), number, block_bytes, size: Mutex::new(0) };
        file.write_header(0)?;
        Ok(file)
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    fn write_header(&self, size: u64) -> Result<()> {
        let header: Vec<u8> =
            [self.number, self.block_bytes, size].iter().flat_map(|n| n.to_le_bytes()).collect();
        self.dataset.insert(header_key(&self.name), header)
    }

    fn key(&self, block: u64) -> [u8; 17] {
        let mut key = [BLOCK; 17];
        key[1..9].copy_from_slice(&self.number.to_be_bytes());
        key[9..].copy_from_slice(&block.to_be_bytes());
        key
    }

    fn parts(&self, offset: u64, length: u64) -> impl Iterator<Item = Part> {
        let (block_bytes, end) = (self.block_bytes, offset.saturating_add(length));
        let mut at = offset;
        std::iter::from_fn(move || {
            let from = at % block_bytes;
            let length = (end - at).min(block_bytes - from);
            let part = Part { block: at / block_bytes, from, length };
            at += length;
            (length > 0).then_some(part)
        })
    }

    /// Its length, in bytes.
    pub fn size(&self) -> u64 {
        *self.size.lock()
    }

    /// Makes it at least `size` bytes long.
    pub fn extend(&self, size: u64) -> Result<()> {
        let mut known = self.size.lock();
        if *known < size {
            self.write_header(size)?;
            *known = size;
        }
        Ok(())
    }

    /// Reads into `buffer` from byte `offset` on; returns how many bytes the file has there.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let buffer = &mut buffer[..length];
        let blocks = (offset + length as u64).div_ceil(self.block_bytes) - offset / self.block_bytes;
        if blocks > SINGLE_READS_MAX {
            self.read_range(buffer, offset)?;
        } else {
            let mut rest = buffer;
            for part in self.parts(offset, length as u64) {
                let (place, behind) = rest.split_at_mut(part.length as usize);
                let read = self.dataset.get_part(self.key(part.block), part.from, place)?;
                place[read.map_or(0, |read| read.filled)..].fill(0);
                rest = behind;
            }
        }
        Ok(length)
    }

    /// Begins to read into `buffer` from byte `offset` on, when that is of one block.
    pub fn begin(&self, queue: &mut ReadQueue, buffer: &mut [u8], offset: u64, tag: u64) -> Result<Begun> {
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let mut parts = self.parts(offset, length as u64);
        let (Some(part), None) = (parts.next(), parts.next()) else { return Ok(Begun::Waits) };
        let place = &mut buffer[..length];
        Ok(match queue.begin(&self.dataset, self.key(part.block), part.from, place, tag)? {
            BegunRead::Read(read) => {
                place[read.map_or(0, |read| read.filled)..].fill(0);
                Begun::Read(length)
            }
            BegunRead::UnderWay => Begun::UnderWay(Some(length)),
            BegunRead::Waits => Begun::Waits,
        })
    }

    fn read_range(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let (first, last) =
            (offset / self.block_bytes, (offset + buffer.len() as u64 - 1) / self.block_bytes);
        let mut entries = self.dataset.range(self.key(first)..=self.key(last));
        let mut next = entries.next().transpose()?;
        let mut rest = buffer;
        for part in self.parts(offset, rest.len() as u64) {
            let (place, behind) = rest.split_at_mut(part.length as usize);
            rest = behind;
            let mut filled = 0;
            if let Some((_, value)) = next.take_if(|(key, _)| **key == self.key(part.block)) {
                let there = value.get(part.from as usize..).unwrap_or_default();
                filled = there.len().min(place.len());
                place[..filled].copy_from_slice(&there[..filled]);
                next = entries.next().transpose()?;
            }
            place[filled..].fill(0);
        }
        Ok(())
    }

    /// Writes `bytes` at byte `offset`, at one instant. Parts of blocks, where there are several, go where their block is.
    pub fn write(&self, bytes: &[u8], offset: u64, preference: StoragePreference) -> Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        if self.size() < end {
            self.extend(end)?;
        }
        let mut parts = self.parts(offset, bytes.len() as u64);
        let (Some(first), second) = (parts.next(), parts.next()) else { return Ok(()) };
        if second.is_none() {
            let key = self.key(first.block);
            return if first.length == self.block_bytes {
                self.dataset.insert_with_pref(key, bytes, preference)
            } else {
                self.dataset.upsert_with_pref(key, bytes, first.from as u32, preference)
            };
        }
        let mut batch = self.database.batch();
        let mut rest = bytes;
        for part in self.parts(offset, bytes.len() as u64) {
            let (bytes, behind) = rest.split_at(part.length as usize);
            rest = behind;
            let key = self.key(part.block);
            batch = if part.length == self.block_bytes {
                batch.insert_with_pref(&self.dataset, key, bytes, preference)
            } else {
                batch.upsert(&self.dataset, key, bytes, part.from as u32)
            };
        }
        batch.commit(Durability::Buffered)
    }

    /// Makes `length` bytes from byte `offset` on read as zeros.
    pub fn trim(&self, offset: u64, length: u64) -> Result<()> {
        let length = length.min(self.size().saturating_sub(offset));
        let zeros = vec![0; self.block_bytes as usize];
        let end = offset + length;
        let (first, last) = (offset.div_ceil(self.block_bytes), end / self.block_bytes);
        let by_range = last.saturating_sub(first) > SINGLE_DELETES_MAX;
        let mut batch = self.database.batch();
        for part in self.parts(offset, length) {
            let key = self.key(part.block);
            if part.length < self.block_bytes {
                batch = batch.upsert(&self.dataset, key, &zeros[..part.length as usize], part.from as u32);
            } else if !by_range {
                batch = batch.delete(&self.dataset, key);
            }
        }
        if by_range {
            batch = batch.range_delete(&self.dataset, self.key(first)..self.key(last));
        }
        batch.commit(Durability::Buffered)
    }

    /// Removes the file.
    pub fn remove(&self) -> Result<()> {
        let blocks = self.key(0)..=self.key(u64::MAX);
        self.database
            .batch()
            .delete(&self.dataset, header_key(&self.name))
            .range_delete(&self.dataset, blocks)
            .commit(Durability::Buffered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::database;

    /// Any writes and trims read back as those of a vector, of which each part is read.
    #[test]
    fn a_file_of_keys_reads_as_a_vector() {
        let database = database();
        let dataset = database.create_dataset("d").unwrap();
        let other = Keys::create(&database, &dataset, b"a", 512).unwrap();
        let file = Keys::create(&database, &dataset, b"ab", 512).unwrap();
        other.write(&[9; 100_000], 0, StoragePreference::NONE).unwrap();
        let mut model = vec![0; 40_000];
        file.extend(model.len() as u64).unwrap();
        let mut seed = 1u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for step in 0..300 {
            let at = random(model.len());
            let length = 1 + random([512, 3000, 20_000][step % 3]).min(model.len() - at - 1);
            let at = if step % 2 == 0 { at - at % 512 } else { at };
            if step % 5 == 4 {
                file.trim(at as u64, length as u64).unwrap();
                model[at..at + length].fill(0);
            } else {
                let bytes: Vec<u8> = (0..length).map(|i| (i + step) as u8 | 1).collect();
                file.write(&bytes, at as u64, StoragePreference::NONE).unwrap();
                model[at..at + length].copy_from_slice(&bytes);
            }
            let (at, length) = (random(model.len()), 1 + random(20_000));
            let mut read = vec![7; length];
            let there = file.read(&mut read, at as u64).unwrap();
            assert_eq!(read[..there], model[at..model.len().min(at + length)], "step {step}");
        }
        let again = Keys::open(&database, &dataset, b"ab").unwrap().unwrap();
        assert_eq!((again.size(), again.block_bytes()), (40_000, 512));
        assert_eq!(again.read(&mut [0; 10], 50_000).unwrap(), 0);
        file.remove().unwrap();
        assert!(Keys::open(&database, &dataset, b"ab").unwrap().is_none());
        assert_eq!(dataset.range::<&[u8]>(..).count(), 197, "the other file is whole");
    }

    #[test]
    fn what_is_no_header_is_damage() {
        let database = database();
        let dataset = database.create_dataset("d").unwrap();
        for header in [&b""[..], &[0; 24], &[1; 25]] {
            dataset.insert(header_key(b"a"), header).unwrap();
            assert!(Keys::open(&database, &dataset, b"a").is_err());
        }
        assert!(Keys::create(&database, &dataset, b"b", 511).is_err());
    }
}
