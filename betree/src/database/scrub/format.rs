//! Frozen bytes of the records of scrubs in the root tree.
//!
//! Keys: `8`, kind u8 (0 scrub, 1 resilver). There is at most one record of each kind: of the newest one.
//!
//! Record, little-endian:
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 2 | version | | 1 | format drift |
//! | 2 | 2 | flags | | bit 0: goes on by itself at the next opening | unknown additions |
//! | 4 | 1 | state | | 0 running, 1 paused, 2 finished, 3 stopped | |
//! | 5 | 8 | started | seconds since 1970 | | |
//! | 13 | 8 | ended | seconds since 1970 | 0 while it is not | |
//! | 21 | 8 | active | milliseconds | that it ran, over all openings | |
//! | 29 | 8 | generation | checkpoint | what is born later is not looked at | younger extents taken for seen |
//! | 37 | 8 | bytes done | bytes | | |
//! | 45 | 8 | bytes total | bytes | allocated when it began | |
//! | 53 | 8 | units | count | that were judged | |
//! | 61 | 8 | repaired | 4 KiB blocks | wrong on one member, and mended | |
//! | 69 | 8 | unrepaired | 4 KiB blocks | wrong on one member, and still so | |
//! | 77 | 8 | damaged | count | units that are right nowhere, and what could not be visited | |
//! | 85 | 8 | filled | 4 KiB blocks | written to the member that lacked them | |
//! | 93 | 1 | ground | | 1: done | |
//! | 94 | 1 | round | | 0 first, 1 datasets that got something of others | |
//! | 95 | 8 | dataset | id | those below it are done | |
//! | 103 | 8 | seen | generation | what was born up to then in that dataset is done | |
//! | 111 | 8 | tree | generation | snapshot that the key is in; 2^64 − 1 the head, 0 none | a key taken for one of another tree |
//! | 119 | … | key | | varint length, bytes: leaves below it are done | |
//! | … | … | again | ids | varint count, each u64: datasets for the second round | a move between datasets missed |
//! | … | … | by | text | varint length, bytes: who started it | |
//! | … | … | subject | text | varint length, bytes: what is resilvered; empty for a scrub | |
//!
//! Why this order: what has one length stands first.
//! History: version 1, the first.

use super::status::ScrubState;
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::ids::{DatasetId, Generation};

const VERSION: u16 = 1;
const CONTINUES: u16 = 1;
const TEXT_BYTES_MAX: usize = 4096;
/// Longest key of a position: that of a tree.
const KEY_BYTES_MAX: usize = crate::run::KEY_BYTES_MAX;
const AGAIN_MAX: usize = 1 << 20;

/// Prefix of the keys.
pub(crate) const SCRUBS: u8 = 8;

/// The key of the record of a scrub, or of a resilver.
pub(crate) fn scrub_key(is_resilver: bool) -> Vec<u8> {
    vec![SCRUBS, u8::from(is_resilver)]
}

/// The tree that a position is in, when it is the head.
pub(super) const HEAD: Generation = Generation(u64::MAX);

/// How far a walk is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub ground: bool,
    /// The second round, of the datasets that got something of others.
    pub second: bool,
    pub dataset: DatasetId,
    /// What was born up to then in `dataset` is done.
    pub seen: Generation,
    /// The snapshot that `key` is in, or [`HEAD`]; 0: none was begun.
    pub tree: Generation,
    pub key: Vec<u8>,
}

/// What was done and found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub units: u64,
    pub repaired: u64,
    pub unrepaired: u64,
    pub damaged: u64,
    pub filled: u64,
}

/// What the root tree says of a scrub or resilver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScrubRecord {
    /// It goes on by itself at the next opening.
    pub continues: bool,
    pub state: ScrubState,
    pub started: u64,
    pub ended: u64,
    pub active_ms: u64,
    pub generation: Generation,
    pub counts: Counts,
    pub position: Position,
    pub again: Vec<DatasetId>,
    pub by: String,
    pub subject: String,
}

impl ScrubRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u16(VERSION);
        out.u16(if self.continues { CONTINUES } else { 0 });
        out.u8(self.state as u8);
        let Counts { bytes_done, bytes_total, units, repaired, unrepaired, damaged, filled } = self.counts;
        let counts = [bytes_done, bytes_total, units, repaired, unrepaired, damaged, filled];
        for number in [self.started, self.ended, self.active_ms, self.generation.0].iter().chain(&counts) {
            out.u64(*number);
        }
        let Position { ground, second, dataset, seen, tree, key } = &self.position;
        out.u8(u8::from(*ground));
        out.u8(u8::from(*second));
        out.u64(dataset.0);
        out.u64(seen.0);
        out.u64(tree.0);
        out.bytes(key);
        out.varint(self.again.len() as u64);
        self.again.iter().for_each(|dataset| out.u64(dataset.0));
        out.bytes(self.by.as_bytes());
        out.bytes(self.subject.as_bytes());
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        if input.u16("version")? != VERSION {
            return Err(input.invalid("version"));
        }
        let flags = input.u16("flags")?;
        if flags & !CONTINUES != 0 {
            return Err(input.invalid("flags"));
        }
        let state = ScrubState::from_u8(input.u8("state")?).ok_or_else(|| input.invalid("state"))?;
        let started = input.ordinal("started")?;
        let ended = input.ordinal("ended")?;
        let active_ms = input.ordinal("active")?;
        let generation = input.generation("generation")?;
        let counts = Counts {
            bytes_done: input.ordinal("bytes done")?,
            bytes_total: input.ordinal("bytes total")?,
            units: input.ordinal("units")?,
            repaired: input.ordinal("repaired")?,
            unrepaired: input.ordinal("unrepaired")?,
            damaged: input.ordinal("damaged")?,
            filled: input.ordinal("filled")?,
        };
        let flag = |input: &mut Decoder<'_>, field| match input.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(input.invalid(field)),
        };
        let position = Position {
            ground: flag(&mut input, "ground")?,
            second: flag(&mut input, "round")?,
            dataset: DatasetId(input.u64("dataset")?),
            seen: Generation(input.u64("seen")?),
            tree: Generation(input.u64("tree")?),
            key: input.bytes(KEY_BYTES_MAX, "key")?.to_vec(),
        };
        let count = input.varint("again")?;
        if count > AGAIN_MAX as u64 || count * 8 > input.remaining() as u64 {
            return Err(input.invalid("again"));
        }
        let again = (0..count).map(|_| input.u64("again").map(DatasetId)).collect::<Result<_, _>>()?;
        let mut text = |field| {
            let bytes = input.bytes(TEXT_BYTES_MAX, field)?.to_vec();
            String::from_utf8(bytes).map_err(|_| input.invalid(field))
        };
        let (by, subject) = (text("by")?, text("subject")?);
        input.finish("scrub record")?;
        Ok(Self {
            continues: flags & CONTINUES != 0,
            state,
            started,
            ended,
            active_ms,
            generation,
            counts,
            position,
            again,
            by,
            subject,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ScrubRecord {
        ScrubRecord {
            continues: true,
            state: ScrubState::Paused,
            started: 1,
            ended: 2,
            active_ms: 3,
            generation: Generation(4),
            counts: Counts {
                bytes_done: 5,
                bytes_total: 6,
                units: 7,
                repaired: 8,
                unrepaired: 9,
                damaged: 10,
                filled: 11,
            },
            position: Position {
                ground: true,
                second: false,
                dataset: DatasetId(12),
                seen: Generation(13),
                tree: HEAD,
                key: b"key".to_vec(),
            },
            again: vec![DatasetId(14)],
            by: String::from("me"),
            subject: String::new(),
        }
    }

    #[test]
    fn records_have_golden_bytes_and_refuse_damage() {
        let mut golden = vec![1, 0, 1, 0, 1];
        (1..=11u64).for_each(|number| golden.extend(number.to_le_bytes()));
        golden.extend([1, 0]);
        [12, 13, u64::MAX].iter().for_each(|number| golden.extend(number.to_le_bytes()));
        golden.extend(b"\x03key\x01");
        golden.extend(14u64.to_le_bytes());
        golden.extend(b"\x02me\x00");
        assert_eq!(record().encode(), golden);
        assert_eq!(ScrubRecord::decode(&golden), Ok(record()));
        for cut in 0..golden.len() {
            assert!(ScrubRecord::decode(&golden[..cut]).is_err());
        }
        for (at, value) in [(0, 2), (2, 3), (4, 4), (93, 2), (94, 2)] {
            let mut damaged = golden.clone();
            damaged[at] = value;
            assert!(ScrubRecord::decode(&damaged).is_err(), "{at}");
        }
        let mut longer = golden.clone();
        longer.push(0);
        assert!(ScrubRecord::decode(&longer).is_err());
        assert_eq!(scrub_key(true), [8, 1]);
    }
}
