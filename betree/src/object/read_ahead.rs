//! What is read in order is read ahead: it comes into the cache while its reader works on what it has.
//!
//! As in a file system, it is the reads that tell. Within an object, one that goes on where the last one of its handle ended
//! doubles what is asked for, any other one begins anew. From object to object, it is the order in which they were made, as
//! ids tell it, and in which their chunks lie. A read of more than a chunk keeps the device busy by itself. Nothing is kept
//! here but places: what was read ahead is found in the cache by name, so it is never older than what a read would get.

use super::format::{CHUNK_BYTES, ObjectRecord};
use super::reader::Reader;
use crate::base::sync::Mutex;
use crate::database::PendingReadAhead;
use std::collections::VecDeque;
use std::ops::Range;

/// The most that is asked for ahead of a reader, in bytes.
const AHEAD_BYTES_MAX: u64 = 8 * CHUNK_BYTES;
/// Part of the cache that one reader may fill ahead of itself.
const CACHE_SHARE: usize = 16;
/// The farthest that the ids of two objects lie apart that are read as neighbours.
const STRIDE_MAX: u64 = 8;
/// A shorter object lies in one block with others, and comes with them.
const ALONE_BYTES_MIN: u64 = 16 << 10;

/// Bytes that one reader may ask for ahead of itself.
fn most_ahead(reader: &Reader) -> u64 {
    AHEAD_BYTES_MAX.min((reader.chunks.cache_bytes_max() / CACHE_SHARE) as u64)
}

/// How far the reads of one handle got.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    stream: Mutex<Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    /// Where the last read ended.
    end: u64,
    /// Bytes that were read in order up to there.
    length: u64,
    /// Up to here was asked for.
    asked: u64,
    /// What is under way, by the byte at which it starts.
    coming: VecDeque<(u64, PendingReadAhead)>,
}

/// Each clone follows a stream of its own.
impl Clone for ReadAhead {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl ReadAhead {
    /// The bytes in `range` of an object are read next: what is under way of them is waited for, and when they go on where the
    /// last read ended, what follows them is asked for.
    pub fn follow(&self, reader: &Reader, record: &ObjectRecord, range: Range<u64>) {
        // Two threads that read through one handle are no stream.
        let Some(mut stream) = self.stream.try_lock() else { return };
        let length = range.end.saturating_sub(range.start);
        if range.start != stream.end || length == 0 || length > CHUNK_BYTES {
            *stream = Stream { end: range.end, length, ..Stream::default() };
            return;
        }
        let goes_on = stream.length > 0;
        stream.end = range.end;
        stream.length = stream.length.saturating_add(length);
        let most = most_ahead(reader);
        if goes_on && most >= CHUNK_BYTES {
            let end = range.end.saturating_add(most.min(stream.length)).min(record.size);
            let mut at = stream.asked.max(range.end);
            while at < end {
                stream.coming.push_back((at, reader.read_ahead(record.id, at)));
                at = (at / CHUNK_BYTES + 1) * CHUNK_BYTES;
            }
            stream.asked = at;
        }
        while stream.coming.front().is_some_and(|(start, _)| *start < range.end)
            && let Some((_, job)) = stream.coming.pop_front()
        {
            // What failed is read again by whoever needs it, and fails there.
            job.wait();
        }
    }
}

/// How far somebody got who reads whole objects of a store.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    row: Mutex<Row>,
}

#[derive(Debug, Default)]
struct Row {
    /// The object that was read last.
    id: u64,
    /// What its id was more than that of the one before.
    stride: u64,
    /// Up to this id was asked for.
    asked: u64,
    /// What is under way, by id.
    coming: VecDeque<(u64, PendingReadAhead)>,
}

impl Neighbours {
    /// All of an object is read next. When it is as far behind the last one as that was behind the one before, what follows in
    /// the same steps is asked for, whether or not it is there.
    pub fn follow(&self, reader: &Reader, record: &ObjectRecord) {
        let Some(mut row) = self.row.try_lock() else { return };
        let stride = record.id.wrapping_sub(row.id);
        if stride != row.stride || stride > STRIDE_MAX || record.size > CHUNK_BYTES {
            *row = Row { id: record.id, stride, ..Row::default() };
            return;
        }
        row.id = record.id;
        if stride == 0 || record.size < ALONE_BYTES_MIN {
            return;
        }
        let objects = most_ahead(reader) / record.size;
        let end = record.id.saturating_add(objects.saturating_mul(stride));
        let mut id = row.asked.max(record.id);
        while id < end {
            id += stride;
            row.coming.push_back((id, reader.read_ahead(id, 0)));
        }
        row.asked = id;
        while row.coming.front().is_some_and(|(id, _)| *id <= record.id)
            && let Some((_, job)) = row.coming.pop_front()
        {
            job.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{Database, DatabaseConfiguration};
    use crate::object::{ObjectHandle, ObjectStore};
    use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration};
    use std::io::Read;

    const CHUNKS: u64 = 32;

    fn store(cache_size: usize) -> ObjectStore {
        let storage = StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![LeafVdev::memory(64 << 20).into()])],
            ..StoragePoolConfiguration::default()
        };
        let configuration = DatabaseConfiguration {
            storage,
            cache_size,
            segment_size: 1 << 19,
            ..DatabaseConfiguration::default()
        };
        Database::create_with(configuration, false).unwrap().create_object_store("s").unwrap()
    }

    fn bytes() -> Vec<u8> {
        (0..CHUNKS * CHUNK_BYTES).map(|at| (at / 4096) as u8 ^ (at % 251) as u8).collect()
    }

    /// An object of which nothing is in the cache but what leads to it.
    fn cold(store: &ObjectStore) -> ObjectHandle {
        store.put("o", bytes()).unwrap();
        let object = store.open_object("o").unwrap().unwrap();
        store.database().settle().unwrap();
        store.database().checkpoint().unwrap();
        store.database().drop_cache();
        object.read_at(&mut [0], 3 * CHUNK_BYTES).unwrap();
        object
    }

    /// Requests and bytes that were read from the devices.
    fn read(store: &ObjectStore) -> (u64, u64) {
        let metrics = store.database().metrics();
        metrics.vdevs.iter().fold((0, 0), |sum, vdev| (sum.0 + vdev.reads.requests, sum.1 + vdev.reads.bytes))
    }

    #[test]
    fn a_stream_of_small_reads_reads_each_chunk_at_once() {
        let store = store(64 << 20);
        let object = cold(&store);
        let before = read(&store);
        let mut streamed = Vec::new();
        let mut buffer = [0; 5000];
        let mut cursor = object.cursor();
        loop {
            let length = cursor.read(&mut buffer).unwrap();
            if length == 0 {
                break;
            }
            streamed.extend_from_slice(&buffer[..length]);
        }
        assert!(streamed == bytes());
        let after = read(&store);
        assert!(after.0 - before.0 <= 2 * CHUNKS, "{} requests", after.0 - before.0);
        assert!(after.1 - before.1 <= (CHUNKS + 1) * CHUNK_BYTES, "{} bytes", after.1 - before.1);
        // A view follows a stream of its own.
        store.database().drop_cache();
        let before = read(&store);
        let mut streamed = Vec::new();
        object.view().unwrap().cursor().read_to_end(&mut streamed).unwrap();
        assert!(streamed == bytes());
        let after = read(&store);
        assert!(after.0 - before.0 <= 2 * CHUNKS + 8, "{} requests", after.0 - before.0);
    }

    #[test]
    fn reads_here_and_there_read_nothing_ahead() {
        let store = store(64 << 20);
        let object = cold(&store);
        let before = read(&store);
        let mut buffer = [0; 4096];
        for chunk in (1..CHUNKS).rev() {
            assert_eq!(object.read_at(&mut buffer, chunk * CHUNK_BYTES + 20_000).unwrap(), 4096);
        }
        let after = read(&store);
        assert!(after.1 - before.1 <= CHUNKS * (32 << 10), "{} bytes", after.1 - before.1);
    }

    #[test]
    fn a_small_cache_is_not_filled_ahead() {
        let store = store(1 << 20);
        let object = cold(&store);
        let (mut at, mut buffer) = (0, [0; 4096]);
        while at < CHUNK_BYTES {
            at += object.read_at(&mut buffer, at).unwrap() as u64;
        }
        assert_eq!(object.ahead.stream.lock().asked, 0);
    }

    #[test]
    fn what_was_read_ahead_is_never_older_than_the_last_write() {
        let store = store(64 << 20);
        let object = cold(&store);
        let (mut expected, mut streamed) = (bytes(), Vec::new());
        let mut buffer = [0; 10_000];
        while streamed.len() < expected.len() {
            let at = streamed.len();
            let length = object.read_at(&mut buffer, at as u64).unwrap();
            streamed.extend_from_slice(&buffer[..length]);
            // Behind the reader, where it asked already.
            let (write, from) = ([streamed.len() as u8; 700], at + length + 50_000);
            if from + write.len() <= expected.len() {
                object.write_at(&write, from as u64).unwrap();
                expected[from..from + write.len()].copy_from_slice(&write);
            }
        }
        assert!(streamed == expected);
    }

    #[test]
    fn neighbours_come_while_one_is_read() {
        let store = store(64 << 20);
        let length = 64 << 10;
        let bytes = |number: u8| vec![number; length];
        for number in 0..40 {
            store.put([number], bytes(number)).unwrap();
        }
        store.database().settle().unwrap();
        store.database().checkpoint().unwrap();
        store.database().drop_cache();
        let coming = || store.state.neighbours.row.lock().coming.len();
        (0..3).for_each(|number| assert!(store.get([number]).unwrap().unwrap() == bytes(number)));
        for number in 3..40 {
            assert_eq!(coming(), 16);
            // Also of one that was written to since it was asked for.
            let last = store.open_object([number]).unwrap().unwrap();
            last.write_at(b"new", 1000).unwrap();
            let read = last.read_all().unwrap();
            assert_eq!((&read[..1000], &read[1000..1003]), (&bytes(number)[..1000], &b"new"[..]));
        }
        let before = read(&store);
        let again = store.get([20]).unwrap().unwrap();
        assert_eq!((again.len(), read(&store), coming()), (length, before, 0));
    }
}
