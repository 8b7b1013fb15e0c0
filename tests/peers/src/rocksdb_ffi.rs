//! The few functions of `rocksdb/c.h` (RocksDB 7.8) that the benchmark calls.

use std::ffi::{c_char, c_double, c_int, c_uchar};

/// Declares types that are only ever handled by pointer.
macro_rules! opaque {
    ($($name:ident),*) => {$(
        #[doc = concat!("`", stringify!($name), "` of `rocksdb/c.h`.")]
        #[repr(C)]
        pub struct $name { _private: [u8; 0] }
    )*};
}

opaque!(
    rocksdb_t,
    rocksdb_options_t,
    rocksdb_readoptions_t,
    rocksdb_writeoptions_t,
    rocksdb_iterator_t,
    rocksdb_pinnableslice_t,
    rocksdb_block_based_table_options_t,
    rocksdb_filterpolicy_t,
    rocksdb_cache_t
);

/// `rocksdb_no_compression`.
pub const NO_COMPRESSION: c_int = 0;

#[link(name = "rocksdb")]
unsafe extern "C" {
    pub fn rocksdb_open(
        options: *const rocksdb_options_t,
        name: *const c_char,
        errptr: *mut *mut c_char,
    ) -> *mut rocksdb_t;
    pub fn rocksdb_close(db: *mut rocksdb_t);
    pub fn rocksdb_put(
        db: *mut rocksdb_t,
        options: *const rocksdb_writeoptions_t,
        key: *const c_char,
        key_len: usize,
        value: *const c_char,
        value_len: usize,
        errptr: *mut *mut c_char,
    );
    pub fn rocksdb_get_pinned(
        db: *mut rocksdb_t,
        options: *const rocksdb_readoptions_t,
        key: *const c_char,
        key_len: usize,
        errptr: *mut *mut c_char,
    ) -> *mut rocksdb_pinnableslice_t;
    pub fn rocksdb_pinnableslice_value(
        slice: *const rocksdb_pinnableslice_t,
        len: *mut usize,
    ) -> *const c_char;
    pub fn rocksdb_pinnableslice_destroy(slice: *mut rocksdb_pinnableslice_t);
    pub fn rocksdb_flush_wal(db: *mut rocksdb_t, sync: c_uchar, errptr: *mut *mut c_char);
    pub fn rocksdb_free(pointer: *mut std::ffi::c_void);

    pub fn rocksdb_create_iterator(
        db: *mut rocksdb_t,
        options: *const rocksdb_readoptions_t,
    ) -> *mut rocksdb_iterator_t;
    pub fn rocksdb_iter_destroy(iterator: *mut rocksdb_iterator_t);
    pub fn rocksdb_iter_valid(iterator: *const rocksdb_iterator_t) -> c_uchar;
    pub fn rocksdb_iter_seek(iterator: *mut rocksdb_iterator_t, key: *const c_char, key_len: usize);
    pub fn rocksdb_iter_next(iterator: *mut rocksdb_iterator_t);
    pub fn rocksdb_iter_key(iterator: *const rocksdb_iterator_t, len: *mut usize) -> *const c_char;
    pub fn rocksdb_iter_value(iterator: *const rocksdb_iterator_t, len: *mut usize) -> *const c_char;
    pub fn rocksdb_iter_get_error(iterator: *const rocksdb_iterator_t, errptr: *mut *mut c_char);

    pub fn rocksdb_options_create() -> *mut rocksdb_options_t;
    pub fn rocksdb_options_destroy(options: *mut rocksdb_options_t);
    pub fn rocksdb_options_set_create_if_missing(options: *mut rocksdb_options_t, value: c_uchar);
    pub fn rocksdb_options_set_compression(options: *mut rocksdb_options_t, value: c_int);
    pub fn rocksdb_options_set_use_direct_reads(options: *mut rocksdb_options_t, value: c_uchar);
    pub fn rocksdb_options_set_block_based_table_factory(
        options: *mut rocksdb_options_t,
        table: *mut rocksdb_block_based_table_options_t,
    );
    pub fn rocksdb_block_based_options_create() -> *mut rocksdb_block_based_table_options_t;
    pub fn rocksdb_block_based_options_destroy(table: *mut rocksdb_block_based_table_options_t);
    /// Takes the policy over.
    pub fn rocksdb_block_based_options_set_filter_policy(
        table: *mut rocksdb_block_based_table_options_t,
        policy: *mut rocksdb_filterpolicy_t,
    );
    /// Shares the cache: the caller still destroys its handle.
    pub fn rocksdb_block_based_options_set_block_cache(
        table: *mut rocksdb_block_based_table_options_t,
        cache: *mut rocksdb_cache_t,
    );
    pub fn rocksdb_filterpolicy_create_bloom(bits_per_key: c_double) -> *mut rocksdb_filterpolicy_t;
    pub fn rocksdb_cache_create_lru(capacity: usize) -> *mut rocksdb_cache_t;
    pub fn rocksdb_cache_destroy(cache: *mut rocksdb_cache_t);

    pub fn rocksdb_readoptions_create() -> *mut rocksdb_readoptions_t;
    pub fn rocksdb_readoptions_destroy(options: *mut rocksdb_readoptions_t);
    pub fn rocksdb_writeoptions_create() -> *mut rocksdb_writeoptions_t;
    pub fn rocksdb_writeoptions_destroy(options: *mut rocksdb_writeoptions_t);
    pub fn rocksdb_writeoptions_set_sync(options: *mut rocksdb_writeoptions_t, value: c_uchar);
}
