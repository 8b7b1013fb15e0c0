//! The log as a checker and a salvage see it: read as far as it goes, with what is missing behind that.

use super::replay::{Chain, Reader, Records, search, too_long};
use super::{LogError, LogHead, Verdict};
use crate::base::extent::Extent;
use crate::base::ids::{Uuid, VdevId};
use crate::dmu::Dmu;

/// How far a log could be read.
#[derive(Debug, Clone)]
pub(crate) struct LogReading {
    /// Extents of the log, the one named next included.
    pub(crate) extents: Vec<Extent>,
    /// Where the frame after the last good one is: vdev and block.
    pub(crate) end: (VdevId, u64),
    /// Position after the last good frame.
    pub(crate) lsn: u64,
    /// The highest position that is known to have been flushed: damage, when it is above `lsn`.
    pub(crate) durable_lsn: u64,
    /// Whether frames of this log lie behind the last good one: a tail that a crash tore, when nothing of it was durable.
    pub(crate) tail: bool,
    /// A frame whose `durable_lsn` is below that of a frame before it.
    pub(crate) backward: bool,
    /// Frames that were durable and that not every member of their vdev holds.
    pub(crate) differing: Vec<(VdevId, u64)>,
}

/// Reads the log of pool `pool` from `head` as far as it is whole, without regard to damage behind that. First
/// `measure` is told how far that is, then each record goes to `visit`: bytes, position after it, whether it was
/// durable.
///
/// # Errors
/// Device errors, a record longer than its limit, and what `visit` returns; records before it were visited.
pub(crate) fn read_log(
    dmu: &Dmu,
    pool: Uuid,
    head: &LogHead,
    measure: impl FnOnce(&LogReading),
    mut visit: impl FnMut(&[u8], u64, bool) -> Result<Verdict, LogError>,
) -> Result<(), LogError> {
    let mut reader = Reader { dmu, pool, epoch: head.epoch, window: None };
    let mut chain = Chain::new(head);
    let mut extents = vec![head.extent];
    let mut backward = false;
    let mut differing = Vec::new();
    loop {
        if let Some(next) = chain.next
            && extents.last() != Some(&next)
        {
            extents.push(next);
        }
        let before = chain.durable_lsn;
        match chain.advance(&mut reader)? {
            Some(header) => {
                backward |= header.durable_lsn < before;
                if reader.differs(&chain.extent, chain.offset - header.blocks, header.blocks)? {
                    differing.push((header.end_lsn(), (header.vdev, header.block)));
                }
            }
            None => break,
        }
    }
    let (evidence, tail) = search(&mut reader, &chain)?;
    let durable_lsn = evidence.max(chain.durable_lsn).max(head.durable_lsn);
    let end = chain.lsn;
    differing.retain(|(end, _)| *end <= durable_lsn);
    measure(&LogReading {
        extents,
        end: (chain.extent.vdev, dmu.single_block(&chain.extent, chain.offset)),
        lsn: end,
        durable_lsn,
        tail,
        backward,
        differing: differing.into_iter().map(|(_, place)| place).collect(),
    });
    let mut chain = Chain::new(head);
    let mut records = Records { partial: Vec::new(), lsn: head.lsn };
    while chain.lsn < end {
        let Some(header) = chain.advance(&mut reader)? else { break };
        let illegal = |lsn| too_long(dmu, &header, lsn);
        let payload = reader.payload(&header);
        if records.take(payload, durable_lsn, illegal, &mut visit)? == Verdict::Cut {
            break;
        }
    }
    Ok(())
}
