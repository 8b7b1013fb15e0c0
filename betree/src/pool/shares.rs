//! The share of each leaf in a request to stripes: which bytes of the caller it gets or gives.
//!
//! Nothing is copied: what is written is the caller's data with the parity beside it, and what is read goes to where the caller
//! wants it. A leaf has its blocks one behind the other, so that a share is one request, or a few where it has other blocks
//! (parity, mostly) between those that are wanted.

use super::geometry::{Column, STRIPE_BLOCKS};
use super::group::StripePart;
use super::parity;
use crate::base::buffer::AlignedBuffer;
use crate::base::planted::{Bug, planted};
use crate::base::units::BLOCK_BYTES;
use std::io::{IoSlice, IoSliceMut};
use std::sync::LazyLock;

/// Blocks that nobody wants and that are read nevertheless, because a second request costs more.
const BRIDGE_BLOCKS: u64 = 8;

/// What stripes that are not filled are filled up with.
static ZEROS: LazyLock<AlignedBuffer> =
    LazyLock::new(|| AlignedBuffer::zeroed(STRIPE_BLOCKS as usize * BLOCK_BYTES));

/// What a leaf is to write.
pub(super) struct WriteShare<'a> {
    pub leaf: usize,
    /// Its first block.
    pub block: u64,
    /// Whole blocks, from there on.
    pub bytes: Vec<IoSlice<'a>>,
}

/// A run of blocks that a leaf is to read.
pub(super) struct ReadRun<'a> {
    /// The first one.
    pub block: u64,
    /// Where they go.
    pub bytes: Vec<IoSliceMut<'a>>,
    /// The block behind the last one.
    end: u64,
}

/// What a leaf is to read.
pub(super) struct ReadShare<'a> {
    pub leaf: usize,
    pub runs: Vec<ReadRun<'a>>,
}

/// The parity of all stripes of a request, one after the other.
pub(super) struct Parity(AlignedBuffer);

impl Parity {
    /// The parity of `data` in the stripes `parts`, whose columns are `columns`. Where `data` is not enough there are zeros.
    pub fn of(parts: &[StripePart], columns: &[Vec<Column>], data: &[u8]) -> Self {
        let bytes = |(part, columns): (&StripePart, &Vec<Column>)| {
            columns[..part.0.parity()]
                .iter()
                .map(|column| column.blocks as usize * BLOCK_BYTES)
                .sum::<usize>()
        };
        let mut all = AlignedBuffer::recycled(parts.iter().zip(columns).map(bytes).sum());
        let (mut rest, mut data) = (&mut all[..], data);
        for (index, ((stripe, part), columns)) in parts.iter().zip(columns).enumerate() {
            let (mut now, later) = data.split_at(part.len() * BLOCK_BYTES);
            data = later;
            let (parity, columns) = columns.split_at(stripe.parity());
            let slices: Vec<&[u8]> = columns.iter().map(|column| take(&mut now, column)).collect();
            let mut outs = Vec::with_capacity(parity.len());
            for column in parity {
                let (out, later) = rest.split_at_mut(column.blocks as usize * BLOCK_BYTES);
                outs.push(out);
                rest = later;
            }
            parity::encode(&slices, &mut outs);
            if index + 1 == parts.len() && planted(Bug::SkipLastParity) {
                outs[0].fill(0);
            }
        }
        Self(all)
    }

    /// What each of `leaves` leaves is to write, where that is something: `data` and this.
    pub fn shares<'a>(
        &'a self,
        parts: &[StripePart],
        columns: &[Vec<Column>],
        data: &'a [u8],
        leaves: usize,
    ) -> Vec<WriteShare<'a>> {
        let mut shares: Vec<(WriteShare<'a>, u64)> =
            (0..leaves).map(|leaf| (WriteShare { leaf, block: 0, bytes: Vec::new() }, 0)).collect();
        let mut add = |column: &Column, bytes: &'a [u8]| {
            let (share, end) = &mut shares[column.leaf];
            if share.bytes.is_empty() {
                (share.block, *end) = (column.block, column.block);
            }
            // What is taken to fill up a stripe, and what a column is longer than its data.
            share.zeros((column.block - *end) as usize * BLOCK_BYTES);
            if !bytes.is_empty() {
                share.bytes.push(IoSlice::new(bytes));
            }
            share.zeros(column.blocks as usize * BLOCK_BYTES - bytes.len());
            *end = column.block + u64::from(column.blocks);
        };
        let (mut parity, mut data) = (&self.0[..], data);
        for ((stripe, part), columns) in parts.iter().zip(columns) {
            let (mut now, later) = data.split_at(part.len() * BLOCK_BYTES);
            data = later;
            for column in &columns[..stripe.parity()] {
                add(column, take(&mut parity, column));
            }
            for column in &columns[stripe.parity()..] {
                add(column, take(&mut now, column));
            }
        }
        shares.into_iter().map(|(share, _)| share).filter(|share| !share.bytes.is_empty()).collect()
    }
}

impl WriteShare<'_> {
    fn zeros(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let now = bytes.min(ZEROS.len());
            self.bytes.push(IoSlice::new(&ZEROS[..now]));
            bytes -= now;
        }
    }
}

/// The bytes of `column`, or as many as there are, from the front of `bytes`.
fn take<'a>(bytes: &mut &'a [u8], column: &Column) -> &'a [u8] {
    let (now, later) = bytes.split_at((column.blocks as usize * BLOCK_BYTES).min(bytes.len()));
    *bytes = later;
    now
}

/// Where blocks go that are read and not wanted.
pub(super) struct Bridges(AlignedBuffer);

impl Bridges {
    /// For the shares of `leaves` leaves in a read of `parts`, whose columns are `columns`.
    pub fn of(parts: &[StripePart], columns: &[Vec<Column>], leaves: usize) -> Self {
        let (mut ends, mut blocks) = (vec![None; leaves], 0);
        for ((stripe, part), columns) in parts.iter().zip(columns) {
            for (column, wanted) in stripe.wanted(columns, part) {
                blocks += bridge(ends[column.leaf], wanted.start).unwrap_or(0);
                ends[column.leaf] = Some(wanted.end);
            }
        }
        Self(AlignedBuffer::recycled(blocks as usize * BLOCK_BYTES))
    }

    /// What each leaf is to read so that `buf` has the data of `parts`, where that is something.
    pub fn shares<'a>(
        &'a mut self,
        parts: &[StripePart],
        columns: &[Vec<Column>],
        buf: &'a mut [u8],
        leaves: usize,
    ) -> Vec<ReadShare<'a>> {
        let mut shares: Vec<ReadShare<'a>> =
            (0..leaves).map(|leaf| ReadShare { leaf, runs: Vec::new() }).collect();
        let (mut bridges, mut rest) = (&mut self.0[..], buf);
        for ((stripe, part), columns) in parts.iter().zip(columns) {
            for (column, wanted) in stripe.wanted(columns, part) {
                let (now, later) = rest.split_at_mut((wanted.end - wanted.start) as usize * BLOCK_BYTES);
                rest = later;
                let runs = &mut shares[column.leaf].runs;
                let between = bridge(runs.last().map(|run| run.end), wanted.start);
                match (between, runs.last_mut()) {
                    (Some(blocks), Some(run)) => {
                        if blocks > 0 {
                            let (bridge, later) = bridges.split_at_mut(blocks as usize * BLOCK_BYTES);
                            run.bytes.push(IoSliceMut::new(bridge));
                            bridges = later;
                        }
                        run.bytes.push(IoSliceMut::new(now));
                        run.end = wanted.end;
                    }
                    _ => runs.push(ReadRun {
                        block: wanted.start,
                        bytes: vec![IoSliceMut::new(now)],
                        end: wanted.end,
                    }),
                }
            }
        }
        shares.retain(|share| !share.runs.is_empty());
        shares
    }
}

/// How many blocks to read and drop between a run that ends at `end` and `next`; `None` when that begins another run.
fn bridge(end: Option<u64>, next: u64) -> Option<u64> {
    Some(next - end?).filter(|blocks| *blocks <= BRIDGE_BLOCKS)
}
