//! What is read in order is read ahead: it comes into the cache while its reader works on what it has.
//!
//! As in a file system, it is the reads that tell. Within an object, one that goes on where the last one of its handle ended
//! doubles what is asked for, any other one begins anew. From object to object, it is the order in which they were made, as
//! ids tell it, and in which their chunks lie. A read of more than a chunk keeps the device busy by itself. Nothing is kept
//! here but places: what was read ahead is found in the cache by name, so it is never older than what a read would get.
//!
//! A job holds what it reads from, devices included. Whoever asked for it waits for it before it goes.

use super::format::{CHUNK_BYTES, ObjectRecord};
use super::reader::Reader;
use crate::base::sync::Mutex;
use crate::database::PendingReadAhead;
use std::collections::VecDeque;
use std::ops::Range;

/// The most that is asked for ahead of a reader, in bytes.
const AHEAD_BYTES_MAX: u64 = 8 * CHUNK_BYTES;
/// A stream begins when so many bytes were read in order: two reads of a record are none.
const STREAM_BYTES_MIN: u64 = 32 << 10;
/// Ends are rounded up to this: what one checksum of a chunk covers is read whole.
const ROUND_BYTES: u64 = 16 << 10;
/// Part of the cache that one reader may fill ahead of itself.
const CACHE_SHARE: usize = 16;
/// The farthest that the ids of two objects lie apart that are read as neighbours.
const STRIDE_MAX: u64 = 8;
/// A shorter object lies in one block with others, and comes with them.
const ALONE_BYTES_MIN: u64 = 16 << 10;
/// Where neighbours are in the cache already, one in so many is asked for to see whether that goes on.
const PROBE_EVERY: u64 = 16;

/// Bytes that one reader may ask for ahead of itself; `None` where the cache is too small for that.
fn most_ahead(reader: &Reader) -> Option<u64> {
    let most = AHEAD_BYTES_MAX.min((reader.chunks.cache_bytes_max() / CACHE_SHARE) as u64);
    (most >= CHUNK_BYTES).then_some(most)
}

/// What is under way, by the byte or the id at which it starts.
#[derive(Debug, Default)]
struct Coming {
    jobs: VecDeque<(u64, PendingReadAhead)>,
    /// What nobody wants any more, and may not be done yet.
    left: Vec<PendingReadAhead>,
}

impl Coming {
    /// Waits for what starts before `end`. Whether a device had to be asked for some of it.
    fn wait(&mut self, end: u64) -> Option<bool> {
        let mut was_read = None;
        while self.jobs.front().is_some_and(|(start, _)| *start < end)
            && let Some((_, job)) = self.jobs.pop_front()
        {
            was_read = Some(job.wait() || was_read == Some(true));
        }
        was_read
    }

    /// Nobody wants any of it.
    fn leave(&mut self) {
        self.left.retain(|job| !job.is_done());
        for (_, job) in self.jobs.drain(..) {
            job.cancel();
            self.left.push(job);
        }
    }
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
    coming: Coming,
}

/// Each clone follows a stream of its own.
impl Clone for ReadAhead {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl ReadAhead {
    /// The bytes in `range` of an object are read next: what is under way of them is waited for, and when they go on where the
    /// last reads ended, what follows them is asked for.
    pub fn follow(&self, reader: &Reader, record: &ObjectRecord, range: Range<u64>) {
        // Two threads that read through one handle are no stream.
        let Some(mut stream) = self.stream.try_lock() else { return };
        if !stream.goes_on(&range) {
            return stream.begin(&range);
        }
        let length = range.end - range.start;
        stream.end = range.end;
        stream.length = stream.length.saturating_add(length);
        if stream.length >= STREAM_BYTES_MIN
            && let Some(most) = most_ahead(reader)
        {
            stream.ask(reader, record, most);
        }
        stream.coming.wait(range.end);
    }

    /// Notes a read that nobody waits for, unless it goes on where the last one ended: whether it does not. If it does,
    /// [`ReadAhead::follow`] is for it.
    pub fn passes(&self, range: Range<u64>) -> bool {
        let Some(mut stream) = self.stream.try_lock() else { return true };
        let goes_on = stream.goes_on(&range);
        if !goes_on {
            stream.begin(&range);
        }
        !goes_on
    }
}

impl Stream {
    /// Whether a read of `range` goes on where the last one ended.
    fn goes_on(&self, range: &Range<u64>) -> bool {
        range.start == self.end && range.end > range.start && range.end - range.start <= CHUNK_BYTES
    }

    fn begin(&mut self, range: &Range<u64>) {
        self.coming.leave();
        (self.end, self.length, self.asked) = (range.end, range.end.saturating_sub(range.start), 0);
    }

    /// Asks for as much as was read in order, up to `most` bytes, when half of that is used up.
    fn ask(&mut self, reader: &Reader, record: &ObjectRecord, most: u64) {
        let window = most.min(self.length);
        let mut at = self.asked.max(self.end);
        if (at - self.end) * 2 > window {
            return;
        }
        let end = self.end.saturating_add(window);
        // Chunks are read whole once there are several of them.
        let round = if window >= 2 * CHUNK_BYTES { CHUNK_BYTES } else { ROUND_BYTES };
        let end = end.next_multiple_of(round).min(record.size);
        while at < end {
            let next = ((at / CHUNK_BYTES + 1) * CHUNK_BYTES).min(end);
            self.coming.jobs.push_back((at, reader.read_ahead(record.id, at, (next - at) as usize)));
            at = next;
        }
        self.asked = at;
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
    /// Objects that were read in these steps.
    objects: u64,
    /// Up to this id was asked for.
    asked: u64,
    /// Whether the last ones that came were in the cache.
    is_cached: bool,
    coming: Coming,
}

impl Neighbours {
    /// All of an object is read next. When it is as far behind the last one as that was behind the one before, what follows in
    /// the same steps is asked for, whether or not it is there: as many as were read so.
    pub fn follow(&self, reader: &Reader, record: &ObjectRecord) {
        let Some(mut row) = self.row.try_lock() else { return };
        let stride = record.id.wrapping_sub(row.id);
        row.id = record.id;
        if stride != row.stride || stride > STRIDE_MAX || record.size > CHUNK_BYTES {
            row.coming.leave();
            (row.stride, row.objects, row.asked, row.is_cached) = (stride, 0, 0, false);
            return;
        }
        row.objects += 1;
        // What is shorter lies in the blocks of its neighbours; and somebody may read one object again and again.
        if stride == 0 || record.size < ALONE_BYTES_MIN {
            return;
        }
        let is_probe = row.objects.is_multiple_of(PROBE_EVERY);
        if let Some(most) = most_ahead(reader).filter(|_| !row.is_cached || is_probe) {
            row.ask(reader, record, most);
        }
        if let Some(was_read) = row.coming.wait(record.id.saturating_add(1)) {
            row.is_cached = !was_read;
        }
    }
}

impl Row {
    /// Asks for as many objects as were read in order, up to `most` bytes of such as `record`; for one to see whether it is in
    /// the cache as those before.
    fn ask(&mut self, reader: &Reader, record: &ObjectRecord, most: u64) {
        let objects = if self.is_cached { 1 } else { (most / record.size).min(self.objects) };
        let end = self.id.saturating_add(objects.saturating_mul(self.stride));
        let mut id = self.asked.max(self.id);
        while id < end {
            id = id.saturating_add(self.stride);
            self.coming.jobs.push_back((id, reader.read_ahead(id, 0, record.size as usize)));
        }
        self.asked = id;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{Database, DatabaseConfiguration};
    use crate::object::{ObjectHandle, ObjectStore};
    use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration, Vdev};
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
        let coming = || store.state.neighbours.row.lock().coming.jobs.len();
        (0..3).for_each(|number| assert!(store.get([number]).unwrap().unwrap() == bytes(number)));
        for number in 3..40 {
            // One more each time, up to a MiB.
            let objects = store.state.neighbours.row.lock().objects as usize;
            assert!(objects >= usize::from(number) - 2);
            assert_eq!(coming(), objects.min(16));
            // Also of one that was written to since it was asked for.
            let last = store.open_object([number]).unwrap().unwrap();
            last.write_at(b"new", 1000).unwrap();
            let read = last.read_all().unwrap();
            assert_eq!((&read[..1000], &read[1000..1003]), (&bytes(number)[..1000], &b"new"[..]));
        }
        let before = read(&store);
        let again = store.get([20]).unwrap().unwrap();
        assert_eq!((again.len(), read(&store), coming()), (length, before, 0));
        // What is in the cache is not asked for, but for one now and then.
        for number in 0..40 {
            store.get([number]).unwrap();
            assert!(number < 20 || coming() <= 1, "{number}: {}", coming());
        }
    }

    #[test]
    fn two_reads_of_a_record_are_no_stream() {
        let store = store(64 << 20);
        let object = cold(&store);
        let before = read(&store);
        let mut buffer = [0; 5000];
        for chunk in (1..CHUNKS).rev() {
            object.read_at(&mut buffer[..16], chunk * CHUNK_BYTES + 20_000).unwrap();
            object.read_at(&mut buffer, chunk * CHUNK_BYTES + 20_016).unwrap();
            assert_eq!(object.ahead.stream.lock().asked, 0);
        }
        let after = read(&store);
        assert!(after.1 - before.1 <= CHUNKS * (32 << 10), "{} bytes", after.1 - before.1);
    }

    /// Jobs hold the devices; they are waited for when the last handle goes, so that the pool can be opened again.
    #[test]
    fn nothing_is_under_way_when_a_database_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool");
        let configuration = || {
            let mut tier = TierConfiguration::parse_zfs_like([format!("{}:32MiB", path.display())]).unwrap();
            if let Some(Vdev::Leaf(LeafVdev::File(file))) = tier.top_level_vdevs.first_mut() {
                file.direct = false;
            }
            let storage =
                StoragePoolConfiguration { tiers: vec![tier], ..StoragePoolConfiguration::default() };
            DatabaseConfiguration { storage, segment_size: 1 << 19, ..DatabaseConfiguration::default() }
        };
        let database = Database::create_with(configuration(), false).unwrap();
        let store = database.create_object_store("s").unwrap();
        for number in 0..40 {
            store.put([number], vec![number; 64 << 10]).unwrap();
        }
        drop(store);
        database.close().unwrap();
        for _ in 0..30 {
            let database = Database::open_with(configuration()).unwrap();
            let store = database.open_object_store("s").unwrap();
            (0..20).for_each(|number| drop(store.get([number]).unwrap()));
            database.close().unwrap();
        }
    }
}
