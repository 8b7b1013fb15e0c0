//! Frozen bytes of the record of an evacuation in the root tree.
//!
//! Key: `9`, 0. There is at most one record: of the newest one. Nobody's data depend on it.
//!
//! Record, little-endian:
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 2 | version | | 1 | format drift |
//! | 2 | 2 | flags | | 0 | unknown additions |
//! | 4 | 1 | state | | 0 running, 1 finished, 2 stopped | |
//! | 5 | 4 | vdev | id | | |
//! | 9 | 8 | started | seconds since 1970 | | |
//! | 17 | 8 | ended | seconds since 1970 | 0 while it is not | |
//! | 25 | 8 | bytes done | bytes | that were copied | |
//! | 33 | 8 | bytes total | bytes | allocated on the vdev when it began | |
//! | 41 | … | by | text | varint length, bytes: who started it | |
//!
//! Why this order: what has one length stands first.
//! History: version 1, the first.

use super::status::EvacuationState;
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::ids::VdevId;

const VERSION: u16 = 1;
const TEXT_BYTES_MAX: usize = 4096;

/// Prefix of the key.
pub(crate) const EVACUATIONS: u8 = 9;

/// The key of the record.
pub(crate) fn evacuation_key() -> Vec<u8> {
    vec![EVACUATIONS, 0]
}

/// What the root tree says of an evacuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EvacuationRecord {
    pub state: EvacuationState,
    pub vdev: VdevId,
    pub started: u64,
    pub ended: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub by: String,
}

impl EvacuationRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u16(VERSION);
        out.u16(0);
        out.u8(self.state as u8);
        out.u32(self.vdev.0);
        [self.started, self.ended, self.bytes_done, self.bytes_total]
            .iter()
            .for_each(|number| out.u64(*number));
        out.bytes(self.by.as_bytes());
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        if input.u16("record version")? != VERSION {
            return Err(input.invalid("record version"));
        }
        input.zeros(2)?;
        let state = EvacuationState::from_u8(input.u8("state")?).ok_or_else(|| input.invalid("state"))?;
        let vdev = VdevId(input.u32("vdev")?);
        let started = input.u64("start")?;
        let ended = input.u64("end")?;
        let bytes_done = input.ordinal("bytes done")?;
        let bytes_total = input.ordinal("bytes total")?;
        let by = input.bytes(TEXT_BYTES_MAX, "who started it")?;
        let by = String::from_utf8(by.to_vec()).map_err(|_| input.invalid("who started it"))?;
        input.finish("record of an evacuation")?;
        Ok(Self { state, vdev, started, ended, bytes_done, bytes_total, by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> EvacuationRecord {
        EvacuationRecord {
            state: EvacuationState::Finished,
            vdev: VdevId(7),
            started: 1,
            ended: 2,
            bytes_done: 0x0102,
            bytes_total: 0x0304,
            by: String::from("me"),
        }
    }

    #[test]
    fn bytes_are_those_of_version_1() {
        let golden = [
            &[1, 0, 0, 0, 1, 7, 0, 0, 0][..],
            &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0],
            &[2, b'm', b'e'],
        ]
        .concat();
        assert_eq!(record().encode(), golden);
        assert_eq!(EvacuationRecord::decode(&golden), Ok(record()));
        for length in 0..golden.len() {
            assert!(EvacuationRecord::decode(&golden[..length]).is_err(), "{length}");
        }
        for (at, value) in [(0, 2), (2, 1), (4, 3), (41, 3), (42, 0xff)] {
            let mut bytes = golden.clone();
            bytes[at] = value;
            assert!(EvacuationRecord::decode(&bytes).is_err(), "{at}");
        }
    }
}
