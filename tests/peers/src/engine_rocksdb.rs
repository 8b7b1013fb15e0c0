//! RocksDB through its C interface: defaults, but for no compression, a bloom filter and the given cache.

use crate::engine::{Engine, Settings};
use crate::error::Error;
use crate::rocksdb_ffi::{self as ffi, rocksdb_t};
use std::ffi::{CStr, CString, c_char};
use std::ops::ControlFlow;
use std::path::Path;
use std::ptr::null_mut;

/// Bits of the bloom filter per key: the value that RocksDB's own benchmarks use, about 1 % false positives.
const BLOOM_BITS: f64 = 10.0;

/// An open RocksDB.
pub struct RocksDb {
    db: *mut rocksdb_t,
    reads: *mut ffi::rocksdb_readoptions_t,
    writes: *mut ffi::rocksdb_writeoptions_t,
    durable_writes: *mut ffi::rocksdb_writeoptions_t,
}

// SAFETY: RocksDB's database handle may be used by several threads at once without locking (its documentation,
// "Concurrency"), and the option objects are only read after `open`.
unsafe impl Sync for RocksDb {}

/// Calls `call` with a place for an error and returns the error that it left there.
fn checked<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Result<T, Error> {
    let mut message: *mut c_char = null_mut();
    let result = call(&raw mut message);
    if message.is_null() {
        return Ok(result);
    }
    // SAFETY: RocksDB left a zero-terminated string there, which is ours to free, and is used for the last time.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        ffi::rocksdb_free(message.cast());
        text
    };
    Err(Error::RocksDb(text))
}

impl RocksDb {
    fn put_with(
        &self,
        options: *const ffi::rocksdb_writeoptions_t,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Error> {
        // SAFETY: database and options live as long as self; both slices outlive the call, which copies them.
        checked(|error| unsafe {
            ffi::rocksdb_put(
                self.db,
                options,
                key.as_ptr().cast(),
                key.len(),
                value.as_ptr().cast(),
                value.len(),
                error,
            );
        })
    }
}

impl Engine for RocksDb {
    fn open(folder: &Path, settings: &Settings) -> Result<Self, Error> {
        let name = CString::new(folder.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::RocksDb("a zero byte in the path".into()))?;
        let cache_bytes = usize::try_from(settings.cache_bytes)
            .map_err(|_| Error::Arguments("the cache exceeds the address space".into()))?;
        // SAFETY: the objects are created, used and destroyed here in the order that c.h asks for: the table factory
        // copies the table options, the table options take the filter policy over and share the cache, and the
        // database copies the options.
        unsafe {
            let table = ffi::rocksdb_block_based_options_create();
            let cache = ffi::rocksdb_cache_create_lru(cache_bytes);
            ffi::rocksdb_block_based_options_set_block_cache(table, cache);
            let bloom = ffi::rocksdb_filterpolicy_create_bloom(BLOOM_BITS);
            ffi::rocksdb_block_based_options_set_filter_policy(table, bloom);

            let options = ffi::rocksdb_options_create();
            ffi::rocksdb_options_set_create_if_missing(options, 1);
            ffi::rocksdb_options_set_compression(options, ffi::NO_COMPRESSION);
            ffi::rocksdb_options_set_use_direct_reads(options, u8::from(settings.direct));
            ffi::rocksdb_options_set_block_based_table_factory(options, table);

            let db = checked(|error| ffi::rocksdb_open(options, name.as_ptr(), error));
            ffi::rocksdb_options_destroy(options);
            ffi::rocksdb_block_based_options_destroy(table);
            ffi::rocksdb_cache_destroy(cache);
            let db = db?;

            let durable_writes = ffi::rocksdb_writeoptions_create();
            ffi::rocksdb_writeoptions_set_sync(durable_writes, 1);
            Ok(Self {
                db,
                reads: ffi::rocksdb_readoptions_create(),
                writes: ffi::rocksdb_writeoptions_create(),
                durable_writes,
            })
        }
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.put_with(self.writes, key, value)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.put_with(self.durable_writes, key, value)
    }

    fn get<T>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> T) -> Result<T, Error> {
        // SAFETY: database and options live as long as self; the key outlives the call.
        let slice = checked(|error| unsafe {
            ffi::rocksdb_get_pinned(self.db, self.reads, key.as_ptr().cast(), key.len(), error)
        })?;
        if slice.is_null() {
            return Ok(read(None));
        }
        let mut len = 0;
        // SAFETY: the slice is not null; its bytes stay valid until it is destroyed below, after the last use.
        let value = unsafe {
            let bytes = ffi::rocksdb_pinnableslice_value(slice, &raw mut len);
            std::slice::from_raw_parts(bytes.cast::<u8>(), len)
        };
        let result = read(Some(value));
        // SAFETY: ours, and destroyed once.
        unsafe { ffi::rocksdb_pinnableslice_destroy(slice) };
        Ok(result)
    }

    fn scan(
        &self,
        from: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        // SAFETY: database and options live as long as self, and the iterator dies before them.
        let iterator = Iterator(unsafe { ffi::rocksdb_create_iterator(self.db, self.reads) });
        // SAFETY: the iterator is alive; the key outlives the call.
        unsafe { ffi::rocksdb_iter_seek(iterator.0, from.as_ptr().cast(), from.len()) };
        while let Some((key, value)) = iterator.entry() {
            if each(key, value)?.is_break() {
                return Ok(());
            }
            // SAFETY: alive, and valid, for it had an entry. Key and value are not used after this.
            unsafe { ffi::rocksdb_iter_next(iterator.0) };
        }
        // SAFETY: alive.
        checked(|error| unsafe { ffi::rocksdb_iter_get_error(iterator.0, error) })
    }

    fn sync(&self) -> Result<(), Error> {
        // SAFETY: the database lives as long as self.
        checked(|error| unsafe { ffi::rocksdb_flush_wal(self.db, 1, error) })
    }

    fn used_bytes(&self) -> Option<u64> {
        None
    }

    fn close(self) -> Result<(), Error> {
        Ok(())
    }
}

impl Drop for RocksDb {
    fn drop(&mut self) {
        // SAFETY: all four are alive and destroyed once; the database first, for it uses none of the others by then.
        unsafe {
            ffi::rocksdb_close(self.db);
            ffi::rocksdb_readoptions_destroy(self.reads);
            ffi::rocksdb_writeoptions_destroy(self.writes);
            ffi::rocksdb_writeoptions_destroy(self.durable_writes);
        }
    }
}

struct Iterator(*mut ffi::rocksdb_iterator_t);

impl Iterator {
    /// The entry where the iterator stands, valid until it is moved.
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        let (mut key_len, mut value_len) = (0, 0);
        // SAFETY: the iterator is alive; key and value are asked for only when it is valid, and their bytes stay
        // until it moves, which `scan` does only after their last use.
        unsafe {
            if ffi::rocksdb_iter_valid(self.0) == 0 {
                return None;
            }
            let key = ffi::rocksdb_iter_key(self.0, &raw mut key_len).cast::<u8>();
            let value = ffi::rocksdb_iter_value(self.0, &raw mut value_len).cast::<u8>();
            Some((std::slice::from_raw_parts(key, key_len), std::slice::from_raw_parts(value, value_len)))
        }
    }
}

impl Drop for Iterator {
    fn drop(&mut self) {
        // SAFETY: alive, and destroyed once.
        unsafe { ffi::rocksdb_iter_destroy(self.0) };
    }
}
