//! A read of a part of a value for which nobody waits: what is in memory is had at once, what is not is a request to a device that
//! the caller makes.

use super::TreeError;
use super::part::PartRead;
use super::range::View;
use super::resolve::Resolver;
use super::value::{Caching, LargeValue, PieceRead};
use crate::base::buffer::AlignedBuffer;
use crate::pool::SingleRead;
use crate::vdev::VdevError;

/// What a read comes to without waiting.
#[derive(Debug)]
pub enum Begun {
    /// It was read; `None`: there is no such key.
    Read(Option<PartRead>),
    /// It is what one request to a device would give.
    Request(Box<PartRequest>),
    /// Somebody has to wait for it: blocks of the tree are not in memory, or it takes several requests.
    Waits,
}

/// A part of a value that one request to a device gives.
#[derive(Debug)]
pub struct PartRequest {
    /// Holds what is read.
    view: View,
    value: LargeValue,
    /// The part, in bytes of the value.
    offset: usize,
    length: usize,
    pieces: PieceRead,
    request: SingleRead,
}

impl View {
    /// Begins a read as [`View::get_part`], and waits for no device, unless something is evicted from the cache at this moment, or a key has
    /// more versions than a block. Without `requests`, what is not in memory is for somebody who waits.
    ///
    /// # Errors
    /// As [`View::get_part`].
    pub fn begin_part(
        self,
        key: &[u8],
        offset: u64,
        out: &mut [u8],
        requests: bool,
    ) -> Result<Begun, TreeError> {
        let (tree, mut resolver) = (&self.tree, Resolver::new());
        if !tree.collect_into(&mut resolver, &self.version, self.visible, key, false)? {
            return Ok(Begun::Waits);
        }
        if let Some(value) = resolver.large() {
            // An action may want the whole value.
            if resolver.needs_action() {
                return Ok(Begun::Waits);
            }
            let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(value.length as usize);
            let length = out.len().min(value.length as usize - offset);
            if length > 0 && !value.is_cached(tree.dmu(), offset, length) {
                let value = resolver.into_large().filter(|_| requests);
                let request = value.and_then(|value| self.request(value, offset, length));
                return Ok(request.map_or(Begun::Waits, |request| Begun::Request(Box::new(request))));
            }
        }
        let read = tree.finish_part(resolver, key, offset, out)?;
        Ok(Begun::Read(read))
    }

    /// The read of `length` bytes from byte `offset` of `value`, which has them; `None` when they are not what one request gives.
    fn request(self, value: LargeValue, offset: usize, length: usize) -> Option<PartRequest> {
        let (dmu, caching) = (self.tree.dmu(), Caching::of_part(length));
        let missing = value.missing_pieces(dmu, offset, length, caching)?;
        let (at, bytes) = value.stored_range(&missing);
        let request = dmu.single_read(&value.extents, at, bytes)?;
        let pieces = value.piece_read(dmu, missing, caching);
        Some(PartRequest { view: self, value, offset, length, pieces, request })
    }
}

impl PartRequest {
    /// The request to be made.
    #[must_use]
    pub fn request(&self) -> &SingleRead {
        &self.request
    }

    /// Takes what the request gave, verifies it, and puts the part at the start of `out`, which has room for it. What did not arrive, or is
    /// wrong, is read as [`View::get_part`] would, and repaired.
    ///
    /// # Errors
    /// As [`View::get_part`]; `out` is then unspecified.
    pub fn finish(
        self,
        arrived: Result<AlignedBuffer, VdevError>,
        out: &mut [u8],
    ) -> Result<PartRead, TreeError> {
        let Self { view, value, offset, length, pieces, request } = self;
        let (dmu, out) = (view.tree.dmu(), &mut out[..length]);
        match arrived {
            Ok(buffer) => {
                request.succeeded();
                value.take_pieces(dmu, pieces, buffer, offset, out)?;
            }
            // It may be no more than an interruption: what is wrong with the device is for the next read to find.
            Err(error) => {
                log::warn!("{error}; it is read again");
                drop((pieces, request));
                value.read_part(dmu, offset, out, Caching::of_part(length))?;
            }
        }
        Ok(PartRead { filled: length, value_length: u64::from(value.length) })
    }
}
