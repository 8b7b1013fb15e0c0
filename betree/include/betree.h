/*
 * The C interface of betree, a tiered object storage stack.
 *
 * This file is made of the sources in betree/c/src: change it there, then run
 * BETREE_HEADER=write cargo test -p betree-c --test header.
 *
 * RULES THAT HOLD FOR ALL FUNCTIONS
 *
 * Results. A function that returns int returns BETREE_OK (0) when it did what it says, BETREE_NONE (1) when nothing is
 * wrong and there is nothing (no such key, the end of an iterator), and BETREE_FAILED (-1) on error. One that returns a
 * handle returns NULL on error. Out parameters are written on BETREE_OK only, but for byte
 * slices, which are empty otherwise.
 *
 * Errors. The last parameter is `err_t **err`: NULL, or a place for an error. It is written on error only, and never
 * read, so that an error that is still there is lost when the place is used again: free it first, with betree_free_err.
 *
 * Handles. What a function returns is owned by its caller, who frees it once, with the function that its type names. They
 * own what they need: any order of frees is right, also after the database was closed. Freeing NULL does nothing.
 *
 * Bytes. Keys, values, names, paths and text are a pointer and a length, and may hold anything; NULL with a length of 0 is
 * no bytes. What is passed in is copied, or no longer used, when the call returns. What comes out as a byte_slice_t is
 * freed with betree_free_byte_slice. Only where a function says so, text ends with a zero byte.
 *
 * Threads. "Thread-safe" says that a call may be made from any thread, also while other threads use the same handles.
 * Where another phrase stands, the handle that is freed must not be in use, or be used again. After a fork, a database
 * that was opened before belongs to the parent, which has its threads; the child leaves it alone, and may exec.
 *
 * Misuse. NULL where there must be a handle or a place, lengths that cannot be, numbers that are none of an enumeration,
 * places that are not aligned, and bugs of the library are errors (BETREE_ERROR_INVALID_ARGUMENT, BETREE_ERROR_PANIC).
 * What no library can find out is undefined: a pointer to something else, a length beyond what is there, a handle that
 * was freed, two out parameters or buffers that overlap.
 *
 * Numbers that enumerations have never change their meaning.
 */

#ifndef BETREE_H
#define BETREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BETREE_VERSION_MAJOR 0
#define BETREE_VERSION_MINOR 1
#define BETREE_VERSION_PATCH 0

#ifdef __cplusplus
#define BETREE_STORAGE_PREF(number) (storage_pref_t{number})
#else
#define BETREE_STORAGE_PREF(number) ((storage_pref_t){number})
#endif
// Tier 0.
#define STORAGE_PREF_FASTEST BETREE_STORAGE_PREF(0)
// Tier 1.
#define STORAGE_PREF_FAST BETREE_STORAGE_PREF(1)
// Tier 2.
#define STORAGE_PREF_SLOW BETREE_STORAGE_PREF(2)
// Tier 3.
#define STORAGE_PREF_SLOWEST BETREE_STORAGE_PREF(3)
// What the object or dataset prefers, else what the configuration says.
#define STORAGE_PREF_NONE BETREE_STORAGE_PREF(254)

// Done.
#define BETREE_OK 0

// Nothing is wrong, and there is nothing: no such key or object, the end of an iterator. No error is stored.
#define BETREE_NONE 1

// It failed, and `*err` says why.
#define BETREE_FAILED -1

// What an error means to the caller, independent of where it arose. A number is never given to another meaning; there may be
// more of them in later versions.
typedef enum betree_error_kind_t {
    // Something that has no kind of its own in this version. errno: EIO.
    BETREE_ERROR_OTHER = 0,
    // What was named does not exist. errno: ENOENT.
    BETREE_ERROR_NOT_FOUND = 1,
    // It exists already. errno: EEXIST.
    BETREE_ERROR_ALREADY_EXISTS = 2,
    // An argument or a configuration is not legal: NULL, a length, a number that is none of an enumeration. errno: EINVAL.
    BETREE_ERROR_INVALID_ARGUMENT = 3,
    // A key, value or batch is larger than its limit. errno: EFBIG.
    BETREE_ERROR_TOO_LARGE = 4,
    // No room is left where the data may go. errno: ENOSPC.
    BETREE_ERROR_OUT_OF_SPACE = 5,
    // Bytes on a device, or of a stream, are not what was written. errno: EBADMSG.
    BETREE_ERROR_CORRUPT = 6,
    // A device or a callback reported an error. errno: what it reported, else EIO.
    BETREE_ERROR_IO = 7,
    // Another opener, or something that depends on it, is in the way. errno: EBUSY.
    BETREE_ERROR_BUSY = 8,
    // Redundancy is lost and opening was not allowed to go on without. errno: ENODEV.
    BETREE_ERROR_DEGRADED = 9,
    // Opened for reading only, or closed for writing after a failure. errno: EROFS.
    BETREE_ERROR_READ_ONLY = 10,
    // The database was closed. errno: EBADF.
    BETREE_ERROR_CLOSED = 11,
    // The object is not the one that a write was meant for. errno: ECANCELED.
    BETREE_ERROR_CONDITION_FAILED = 12,
    // Not supported here: a kind of vdev, a message action, a newer format. errno: EOPNOTSUPP.
    BETREE_ERROR_UNSUPPORTED = 13,
    // A bug of the library, caught: what the call was to do may have happened in part. Close the database, and open it again.
    // errno: ENOTRECOVERABLE.
    BETREE_ERROR_PANIC = 14,
} betree_error_kind_t;

// What tiers are good at, as their configuration says.
typedef enum betree_access_t {
    // Nothing was said.
    BETREE_ACCESS_UNKNOWN = 0,
    // Reading at random offsets.
    BETREE_ACCESS_RANDOM_READ = 1,
    // Writing at random offsets.
    BETREE_ACCESS_RANDOM_WRITE = 2,
    // Both.
    BETREE_ACCESS_RANDOM_READ_WRITE = 3,
    // Writing from start to end.
    BETREE_ACCESS_SEQUENTIAL_WRITE = 4,
    // Reading from start to end.
    BETREE_ACCESS_SEQUENTIAL_READ = 5,
    // Both.
    BETREE_ACCESS_SEQUENTIAL_READ_WRITE = 6,
} betree_access_t;

// What a database does with the devices that its configuration names.
typedef enum betree_access_mode_t {
    // Opens the database on them; an error without one. The default.
    BETREE_OPEN_IF_EXISTS = 0,
    // Makes a new database; what was on them is lost.
    BETREE_ALWAYS_CREATE_NEW = 1,
    // Opens the database on them, makes a new one where there is none.
    BETREE_OPEN_OR_CREATE = 2,
} betree_access_mode_t;

// How the frames of a stream are compressed.
typedef enum betree_compression_t {
    // Not at all.
    BETREE_COMPRESSION_NONE = 0,
    // LZ4.
    BETREE_COMPRESSION_LZ4 = 1,
    // Zstandard, of a level.
    BETREE_COMPRESSION_ZSTD = 2,
} betree_compression_t;

// What must hold of the object that has a name.
typedef enum betree_condition_kind_t {
    // Nothing.
    BETREE_CONDITION_ANY = 0,
    // There is none; otherwise BETREE_ERROR_ALREADY_EXISTS.
    BETREE_CONDITION_ABSENT = 1,
    // There is one; otherwise BETREE_ERROR_NOT_FOUND.
    BETREE_CONDITION_PRESENT = 2,
    // There is one, and it is of this version; otherwise BETREE_ERROR_CONDITION_FAILED.
    BETREE_CONDITION_MATCHES = 3,
} betree_condition_kind_t;

// What a commit waits for.
typedef enum betree_durability_t {
    // Nothing: a crash may lose the newest commits, never an earlier one before a later one.
    BETREE_BUFFERED = 0,
    // The intent log on its device: the commit, and every one before it, survives a crash.
    BETREE_SYNC = 1,
} betree_durability_t;

// Writes that are seen, and survive a crash, all or not at all. Nothing happens before `betree_batch_commit`. Freed with
// `betree_free_batch`.
typedef struct betree_batch_t betree_batch_t;

// Iterator over the bytes of an object that were written, from one state; after an error it is at its end. Freed with
// `betree_free_chunk_iter`.
typedef struct betree_chunk_iter_t betree_chunk_iter_t;

// What a database is to be. Freed with `betree_free_cfg`; a database that was built of it does not need it any more.
typedef struct cfg_t cfg_t;

// A database. Freed by closing it: `betree_close_db` or `betree_database_close`. What was opened of it may be freed before or
// after that; used after that, it reports BETREE_ERROR_CLOSED. The devices stay locked until all of it is freed.
typedef struct db_t db_t;

// One consistent state of all datasets, in memory. Freed with `betree_free_database_view`.
typedef struct betree_database_view_t betree_database_view_t;

// An open dataset; all handles of one name are the same dataset. Freed with `betree_close_ds`.
typedef struct ds_t ds_t;

// Iterator over what changed between two states of a dataset, in the order of the keys; after an error it is at its end. Freed
// with `betree_free_diff_iter`.
typedef struct betree_diff_iter_t betree_diff_iter_t;

// Iterator over keys and values, in the order of the keys, from one consistent state; after an error it is at its end. Freed
// with `betree_free_range_iter`.
typedef struct range_iter_t range_iter_t;

// An error: its kind, errno and message. Owned by whoever passed `err`; freed with `betree_free_err`.
typedef struct err_t err_t;

// Iterator over names, in order; of the time when it was made. Freed with `betree_free_name_iter`.
typedef struct name_iter_t name_iter_t;

// An open object: of a store, which can be written to and goes on under another name after a rename; or of a snapshot of a store,
// where everything that writes reports BETREE_ERROR_READ_ONLY. When an object of a store was deleted or replaced, its handles
// report BETREE_ERROR_NOT_FOUND. Freed with `betree_object_close` or `betree_object_delete`.
typedef struct obj_t obj_t;

// Changes of objects that are seen, and survive a crash, all or not at all; made in the order in which they were added, each on
// what those before it left. Nothing happens before `betree_object_batch_commit`. Freed with `betree_free_object_batch`.
typedef struct betree_object_batch_t betree_object_batch_t;

// Iterator over objects, in the order of their names, from one consistent state; after an error it is at its end. Freed with
// `betree_free_object_iter`.
typedef struct betree_object_iter_t betree_object_iter_t;

// A part of a list of objects. Freed with `betree_free_page`.
typedef struct betree_page_t betree_page_t;

// What owns the bytes of a slice.
typedef struct byte_slice_rc_t byte_slice_rc_t;

// An open snapshot of a dataset. It reads what it read when it was opened, also after it was deleted. Freed with
// `betree_close_snapshot`.
typedef struct ss_t ss_t;

// An open object store; all handles of one name are the same store. Freed with `betree_close_object_store`.
typedef struct obj_store_t obj_store_t;

// An open snapshot of an object store. Freed with `betree_close_store_snapshot`.
typedef struct betree_store_snapshot_t betree_store_snapshot_t;

// One consistent state of a dataset, in memory. It keeps the space of what it sees. Freed with `betree_free_view`.
typedef struct betree_view_t betree_view_t;

// Bytes that the library made: `len` of them at `ptr`, which is never NULL but in an empty slice that was freed. They may hold
// anything, zero bytes included, and do not end with one. Owned by whoever got them; freed with `betree_free_byte_slice`.
// They do not change, and do not depend on any other handle.
typedef struct byte_slice_t {
    // The first byte.
    const char *ptr;
    // Number of bytes.
    size_t len;
    // What owns them.
    const struct byte_slice_rc_t *arc;
} byte_slice_t;

// Space of one tier.
typedef struct betree_storage_info_t {
    // Bytes that a write may still use.
    uint64_t free;
    // Bytes in all; 0 of a tier without devices.
    uint64_t total;
} betree_storage_info_t;

// What a verification found to be in order.
typedef struct betree_verify_report_t {
    // The generation that was verified.
    uint64_t generation;
    // Datasets, those being destroyed and those of object stores included.
    uint64_t datasets;
    // Snapshots.
    uint64_t snapshots;
    // Node headers.
    uint64_t nodes;
    // Runs, each read whole.
    uint64_t runs;
    // Messages in them.
    uint64_t messages;
    // Large values that they name; these are not read.
    uint64_t large_values;
    // Blocks of 4 KiB that all of that occupies.
    uint64_t blocks;
    // Objects in object stores, those being made included.
    uint64_t objects;
} betree_verify_report_t;

// The tier that a write prefers: one of STORAGE_PREF_FASTEST, STORAGE_PREF_FAST, STORAGE_PREF_SLOW, STORAGE_PREF_SLOWEST and
// STORAGE_PREF_NONE. Any other number is an error wherever it is passed.
typedef struct storage_pref_t {
    // 0 (fastest) to 3, or 254 for none.
    uint8_t _0;
} storage_pref_t;

// What a migration moved.
typedef struct betree_migrated_t {
    // Keys with a value that lay elsewhere.
    uint64_t entries;
    // Bytes of these values.
    uint64_t bytes;
} betree_migrated_t;

// What there is to say about a snapshot. Bytes are those of whole blocks on the devices.
typedef struct betree_snapshot_info_t {
    // When it was made, in nanoseconds since 1970; to the second.
    uint64_t created_ns;
    // The checkpoint that it is.
    uint64_t generation;
    // Bytes that it reads from.
    uint64_t referenced;
    // Bytes that nothing else has: what deleting it would free.
    uint64_t unique;
    // Bytes that were written since the snapshot before and are in it.
    uint64_t written;
    // Tags that hold it.
    uint64_t holds;
    // Datasets that were cloned from it.
    uint64_t clones;
    // Whether changes to it were received in part.
    bool is_receiving;
    // What names it in every pool that it was sent to: text that ends with a zero byte.
    char guid[40];
} betree_snapshot_info_t;

// How a stream is made. All zeros: not compressed, from the start.
typedef struct betree_send_options_t {
    // One of betree_compression_t.
    uint32_t compression;
    // For BETREE_COMPRESSION_ZSTD: 1 (fast) to 22 (small).
    uint32_t level;
    // The token of the receiver when an earlier stream of the same snapshots was interrupted; NULL for none.
    const void *token;
    // Bytes of the token.
    size_t token_len;
} betree_send_options_t;

// Takes `length` bytes of a stream, at least one, and returns how many it took, or a negative errno; after -EINTR it is called
// again. Called in the thread that sends, with the `context` of the call. It must return: neither longjmp nor an exception may
// leave it.
typedef ptrdiff_t (*betree_write_fn)(void *context, const void *bytes, size_t length);

// What was sent.
typedef struct betree_send_counts_t {
    // Keys with a value.
    uint64_t puts;
    // Keys that are no longer there.
    uint64_t deletes;
    // Bytes of these keys and values.
    uint64_t data;
    // Bytes of the stream.
    uint64_t bytes;
    // Bytes that all devices of the pool read meanwhile, also for others.
    uint64_t read;
} betree_send_counts_t;

// Puts up to `length` bytes of a stream into `buffer`, and returns how many, 0 at the end, or a negative errno; after -EINTR it is
// called again. Called in the thread that receives, with the `context` of the call. It must return: neither longjmp nor an
// exception may leave it.
typedef ptrdiff_t (*betree_read_fn)(void *context, void *buffer, size_t length);

// What was received.
typedef struct betree_receive_counts_t {
    // Snapshots that were made.
    uint64_t snapshots;
    // Keys that were set.
    uint64_t puts;
    // Keys that were deleted.
    uint64_t deletes;
    // Bytes of the stream.
    uint64_t bytes;
} betree_receive_counts_t;

// A condition; where a function takes one, NULL is BETREE_CONDITION_ANY.
typedef struct betree_condition_t {
    // One of betree_condition_kind_t.
    uint32_t kind;
    // For BETREE_CONDITION_MATCHES: `version` of betree_object_info_t.
    uint64_t version;
} betree_condition_t;

// What a store knows of an object.
typedef struct betree_object_info_t {
    // Length in bytes, holes included.
    uint64_t size;
    // When its bytes were changed last, in nanoseconds since 1970.
    uint64_t mtime_ns;
    // When it was created, in nanoseconds since 1970.
    uint64_t created_ns;
    // Which state of its bytes it is in: another number after each write, and never one that any object of the store had before.
    uint64_t version;
    // Its number in the store, which no other object ever had.
    uint64_t id;
    // Where it is written, unless a write says otherwise.
    struct storage_pref_t preference;
} betree_object_info_t;

// Which objects a page lists. All zeros: the first 1000.
typedef struct betree_list_options_t {
    // Only names that start with this.
    const void *prefix;
    // Bytes of the prefix.
    size_t prefix_len;
    // What names with this behind the prefix start with, up to and with it, is listed once instead of them.
    const void *delimiter;
    // Bytes of the delimiter.
    size_t delimiter_len;
    // Only names behind this one.
    const void *start_after;
    // Bytes of that name.
    size_t start_after_len;
    // betree_page_token of the page before; NULL for the first page.
    const void *token;
    // Bytes of the token.
    size_t token_len;
    // Objects and prefixes on the page, at the most; 0 for 1000.
    size_t limit;
} betree_list_options_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What kind of error it is; BETREE_ERROR_OTHER of NULL. Thread-safe.
enum betree_error_kind_t betree_error_kind(const struct err_t *err);

// The errno that says the same, never 0; EINVAL of NULL. Thread-safe.
int betree_error_errno(const struct err_t *err);

// What went wrong and why, in UTF-8: `*len` bytes (unless `len` is NULL) and a zero byte, which live as long as the error.
// An empty text of NULL. Thread-safe.
const char *betree_error_message(const struct err_t *err,
                                 size_t *len);

// Prints the message to stderr, with a line feed. NULL prints nothing. Thread-safe.
void betree_print_error(const struct err_t *err);

// Frees an error; NULL is none. No other thread may use it then.
void betree_free_err(struct err_t *err);

// From now on, prints what the library has to say to stderr: errors, or as the environment variable RUST_LOG says. The second
// call and all later ones do nothing. Thread-safe.
void betree_init_env_logger(void);

// Frees the bytes of a slice and makes it empty, so that freeing it again does nothing. NULL is none. Copies of a slice are one
// slice: only one of them may be freed. No other thread may use it then.
void betree_free_byte_slice(struct byte_slice_t *x);

// The defaults, without a tier: one that can be built has at least one (betree_configuration_add_tier). Never NULL.
// Thread-safe.
struct cfg_t *betree_configuration_default(void);

// A configuration with one tier, of words as `zpool create` takes them: "./disk:1GiB", "mirror", "mem:64MiB", ….
// Each of the `cfg_strings_len` strings ends with a zero byte. Everything else is as by default. NULL on error. Thread-safe.
struct cfg_t *betree_parse_configuration(const char *const *cfg_strings,
                                         size_t cfg_strings_len,
                                         struct err_t **err);

// The JSON file that the environment variable BETREE_CONFIG names, or the defaults without one; changed by variables such
// as BETREE__CACHE_SIZE=4GiB. NULL on error. Thread-safe, but for others who change the environment.
struct cfg_t *betree_configuration_from_env(struct err_t **err);

// The JSON file at a path of `len` bytes. NULL on error. Thread-safe.
struct cfg_t *betree_configuration_from_file(const void *path, size_t len, struct err_t **err);

// JSON of `len` bytes. NULL on error. Thread-safe.
struct cfg_t *betree_configuration_from_json(const void *json, size_t len, struct err_t **err);

// Puts the configuration into `json`, as JSON that loads as the same. 0, or -1 on error. Thread-safe.
int betree_configuration_to_json(const struct cfg_t *cfg, struct byte_slice_t *json, struct err_t **err);

// Sets the field of this name to a value, both as in the JSON document: ("cache_size", "64MiB"), ("access_mode",
// "OpenOrCreate"), ("storage.tiers.0.label", "fast"). The value is JSON, or bare text. 0, or -1 on error, and nothing has
// changed. Thread-safe.
int betree_configuration_set(const struct cfg_t *cfg,
                             const void *name,
                             size_t name_len,
                             const void *value,
                             size_t value_len,
                             struct err_t **err);

// Adds a tier behind those that are there, of words as in betree_parse_configuration. 0, or -1 on error. Thread-safe.
int betree_configuration_add_tier(const struct cfg_t *cfg,
                                  const char *const *strings,
                                  size_t count,
                                  struct err_t **err);

// Sets whether files and block devices are opened for direct I/O (`direct` is not 0) or through the page cache (0): all that
// there are now, in all tiers and groups. 0, or -1 when `cfg` is NULL. Thread-safe.
int betree_configuration_set_direct(const struct cfg_t *cfg,
                                    int32_t direct);

// Puts one tier of the `num_disks` files or block devices at `paths` in place of all tiers, through the page cache. Each path
// ends with a zero byte. 0, or -1 on error, and nothing has changed: `cfg`, `paths` or a path is NULL, or there are too many.
// Thread-safe.
int betree_configuration_set_disks(const struct cfg_t *cfg,
                                   const char *const *paths,
                                   size_t num_disks);

// Sets how many requests wait at a device (the field storage.queue_depth_factor). 0, or -1 on error. Thread-safe.
int betree_configuration_set_iodepth(const struct cfg_t *cfg,
                                     uint32_t iodepth);

// Sets what betree_build_db does: one of betree_access_mode_t. 0, or -1 on error. Thread-safe.
int betree_configuration_set_access_mode(const struct cfg_t *cfg, uint32_t mode, struct err_t **err);

// Frees a configuration; NULL is none. No other thread may use it then.
void betree_free_cfg(struct cfg_t *cfg);

// Version of the library, as text that ends with a zero byte. Thread-safe.
const char *betree_version(void);

// Opens or creates the database as the access mode of the configuration says. NULL on error. Thread-safe.
struct db_t *betree_build_db(const struct cfg_t *cfg, struct err_t **err);

// Opens the database that there is on the devices. NULL on error: BETREE_ERROR_NOT_FOUND without one. Thread-safe.
struct db_t *betree_open_db(const struct cfg_t *cfg,
                            struct err_t **err);

// Makes a new database. WHAT IS ON THE DEVICES IS LOST; betree_database_create asks first. NULL on error. Thread-safe.
struct db_t *betree_create_db(const struct cfg_t *cfg,
                              struct err_t **err);

// Opens the database that there is on the devices, or makes a new one where there is none and the devices are empty. NULL on
// error. Thread-safe.
struct db_t *betree_open_or_create_db(const struct cfg_t *cfg,
                                      struct err_t **err);

// Makes a new database. Without `force`, devices that are not provably empty are refused (BETREE_ERROR_ALREADY_EXISTS); with it,
// what is on them is lost. NULL on error. Thread-safe.
struct db_t *betree_database_create(const struct cfg_t *cfg,
                                    bool force,
                                    struct err_t **err);

// Opens the database for reading: no byte of any device changes, and other readers may do the same. NULL on error. Thread-safe.
struct db_t *betree_database_open_read_only(const struct cfg_t *cfg,
                                            struct err_t **err);

// Makes everything durable that returned before. 0, or -1 on error: what was written since the last sync may be lost in a crash,
// and the database takes no more writes. Thread-safe; many callers share one flush.
int betree_sync_db(const struct db_t *db,
                   struct err_t **err);

// Writes a checkpoint, closes the database and frees the handle, also on error. 0, or -1 on error: what was synced is safe, what
// was written since may be lost. NULL is none. No other thread may use `db` then; other handles of it report
// BETREE_ERROR_CLOSED.
int betree_database_close(struct db_t *db,
                          struct err_t **err);

// As betree_database_close, for who only wants to know whether it worked. 0 also of NULL, which is no database; -1 on error.
// No other thread may use it then.
int betree_close_db(struct db_t *db);

// Writes the trees and empties the log; happens by itself too. 0, or -1 on error. Thread-safe.
int betree_database_checkpoint(const struct db_t *db, struct err_t **err);

// Waits until no background work is left. 0, or -1 on error. Thread-safe.
int betree_database_settle(const struct db_t *db, struct err_t **err);

// Drops all cached blocks; the next reads go to the devices. 0, or -1 when `db` is NULL. Thread-safe.
int betree_database_drop_cache(const struct db_t *db, struct err_t **err);

// Puts the space of the four tiers, the fastest first, into the four elements of `tiers`. 0, or -1 on error. Thread-safe.
int betree_database_space(const struct db_t *db,
                          struct betree_storage_info_t (*tiers)[4],
                          struct err_t **err);

// Puts what the database counts into `json`, an object: requests of each vdev, blocks of each tier, the cache, memtables, the
// log. 0, or -1 on error. Thread-safe.
int betree_database_metrics(const struct db_t *db,
                            struct byte_slice_t *json,
                            struct err_t **err);

// Puts the configuration that the database was built with into `json`. 0, or -1 on error. Thread-safe.
int betree_database_configuration(const struct db_t *db, struct byte_slice_t *json, struct err_t **err);

// Checks every invariant of the database and puts what was looked at into `report`, which may be NULL. 0, or -1 on error:
// BETREE_ERROR_CORRUPT names the first thing that is not in order. Thread-safe.
int betree_database_verify(const struct db_t *db,
                           struct betree_verify_report_t *report,
                           struct err_t **err);

// The names of all datasets. NULL on error. Thread-safe.
struct name_iter_t *betree_iter_datasets(const struct db_t *db, struct err_t **err);

// The names of all object stores. NULL on error. Thread-safe.
struct name_iter_t *betree_iter_object_stores(const struct db_t *db, struct err_t **err);

// Gives the dataset `name` another name. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS when that is taken. Thread-safe.
int betree_database_rename_dataset(const struct db_t *db,
                                   const void *name,
                                   size_t name_len,
                                   const void *new_name,
                                   size_t new_name_len,
                                   struct err_t **err);

// Destroys the dataset `name` and its snapshots. 0, or -1 on error: BETREE_ERROR_BUSY when somebody holds a snapshot of it or has
// cloned one. Thread-safe.
int betree_database_destroy_dataset(const struct db_t *db,
                                    const void *name,
                                    size_t name_len,
                                    struct err_t **err);

// Gives the object store `name` another name. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS when that is taken. Thread-safe.
int betree_database_rename_object_store(const struct db_t *db,
                                        const void *name,
                                        size_t name_len,
                                        const void *new_name,
                                        size_t new_name_len,
                                        struct err_t **err);

// Destroys the object store `name` and its snapshots. 0, or -1 on error: BETREE_ERROR_BUSY when somebody holds a snapshot of it or
// has cloned one. Thread-safe.
int betree_database_destroy_object_store(const struct db_t *db,
                                         const void *name,
                                         size_t name_len,
                                         struct err_t **err);

// Makes the dataset `name`, whose data prefers `storage_pref`. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS. Thread-safe.
int betree_create_ds(const struct db_t *db,
                     const void *name,
                     size_t len,
                     struct storage_pref_t storage_pref,
                     struct err_t **err);

// Makes the dataset `name` with a configuration of its own: JSON as in the field default_dataset of the configuration. 0, or
// -1 on error. Thread-safe.
int betree_create_ds_with(const struct db_t *db,
                          const void *name,
                          size_t len,
                          const void *json,
                          size_t json_len,
                          struct err_t **err);

// Opens the dataset `name`. What it prefers was stored when it was made; `storage_pref` has no effect. NULL on error:
// BETREE_ERROR_NOT_FOUND. Thread-safe.
struct ds_t *betree_open_ds(const struct db_t *db,
                            const void *name,
                            size_t len,
                            struct storage_pref_t storage_pref,
                            struct err_t **err);

// Opens the dataset `name`, or makes it with a preference. NULL on error. Thread-safe: of several who do so at once, one makes it.
struct ds_t *betree_open_or_create_ds(const struct db_t *db,
                                      const void *name,
                                      size_t len,
                                      struct storage_pref_t storage_pref,
                                      struct err_t **err);

// Frees a handle of a dataset, which goes on. `db` says nothing and may be NULL or closed. NULL is none. 0. No other thread may use `ds`
// then.
int betree_close_ds(const struct db_t *db,
                    struct ds_t *ds,
                    struct err_t **err);

// The name: the new one after a rename. `*len` bytes (unless `len` is NULL) and a zero byte, which live as long as the handle,
// whatever happens to the dataset. NULL when `ds` is NULL. Thread-safe.
const char *betree_dataset_name(const struct ds_t *ds,
                                size_t *len);

// Puts the value of `key` into `value`, which is then freed with betree_free_byte_slice. 0; 1 when there is none; -1 on error.
// Thread-safe: sees every write that returned before, from any thread.
int betree_dataset_get(const struct ds_t *ds,
                       const void *key,
                       size_t len,
                       struct byte_slice_t *value,
                       struct err_t **err);

// Reads the part of the value of `key` from byte `offset` that fits into the `buf_len` bytes of `buf`. Puts how many bytes that
// are into `n_read` and the length of the whole value into `value_len`, both of which may be NULL. 0; 1 when there is no value;
// -1 on error: what is in `buf` then says nothing. Thread-safe.
int betree_dataset_get_part(const struct ds_t *ds,
                            const void *key,
                            size_t len,
                            uint64_t offset,
                            void *buf,
                            size_t buf_len,
                            size_t *n_read,
                            uint64_t *value_len,
                            struct err_t **err);

// Sets the value of `key`. 0, or -1 on error: nothing was changed. Thread-safe.
int betree_dataset_insert(const struct ds_t *ds,
                          const void *key,
                          size_t key_len,
                          const void *data,
                          size_t data_len,
                          struct storage_pref_t storage_pref,
                          struct err_t **err);

// Writes `data` at byte `offset` of the value of `key` without reading it; the value grows with zeros as needed. 0, or -1 on
// error: nothing was changed. Thread-safe.
int betree_dataset_upsert(const struct ds_t *ds,
                          const void *key,
                          size_t key_len,
                          const void *data,
                          size_t data_len,
                          uint32_t offset,
                          struct storage_pref_t storage_pref,
                          struct err_t **err);

// Deletes `key`, whether it exists or not. 0, or -1 on error: nothing was changed. Thread-safe.
int betree_dataset_delete(const struct ds_t *ds, const void *key, size_t len, struct err_t **err);

// Deletes every key from `low_key` on (NULL: from the first), up to `high_key` (NULL: to the last) and without that: one message,
// however many there are. 0, or -1 on error: nothing was changed. Thread-safe.
int betree_dataset_range_delete(const struct ds_t *ds,
                                const void *low_key,
                                size_t low_key_len,
                                const void *high_key,
                                size_t high_key_len,
                                struct err_t **err);

// The entries from `low_key` on (NULL: from the first), up to `high_key` (NULL: to the last) and without that, from one
// consistent state. NULL on error. Thread-safe.
struct range_iter_t *betree_dataset_range(const struct ds_t *ds,
                                          const void *low_key,
                                          size_t low_key_len,
                                          const void *high_key,
                                          size_t high_key_len,
                                          struct err_t **err);

// The entries whose keys start with `prefix`, from one consistent state. NULL on error. Thread-safe.
struct range_iter_t *betree_dataset_prefix(const struct ds_t *ds,
                                           const void *prefix,
                                           size_t len,
                                           struct err_t **err);

// Moves what is from `low_key` on (NULL: from the first), up to `high_key` (NULL: to the last) and without that, to the tier that
// `storage_pref` names; says how much that was in `moved`, which may be NULL. 0, or -1 on error. Thread-safe.
int betree_dataset_migrate(const struct ds_t *ds,
                           const void *low_key,
                           size_t low_key_len,
                           const void *high_key,
                           size_t high_key_len,
                           struct storage_pref_t storage_pref,
                           struct betree_migrated_t *moved,
                           struct err_t **err);

// Puts shape and size of the tree into `json`, an object. 0, or -1 on error. Thread-safe.
int betree_dataset_stats(const struct ds_t *ds, struct byte_slice_t *json, struct err_t **err);

// Puts the names of the dataset and of the snapshot that this one was cloned from into `dataset` and `snapshot`. 0; 1 when it is
// no clone; -1 on error. Thread-safe.
int betree_dataset_origin(const struct ds_t *ds,
                          struct byte_slice_t *dataset,
                          struct byte_slice_t *snapshot,
                          struct err_t **err);

// Makes a clone the owner of the snapshots up to the one that it was cloned from; the dataset that had them becomes a clone of
// this one. 0, or -1 on error. Thread-safe.
int betree_dataset_promote(const struct ds_t *ds,
                           struct err_t **err);

// The names of all snapshots of the dataset, oldest first. `db` says nothing and may be NULL. NULL on error. Thread-safe.
struct name_iter_t *betree_iter_snapshots(const struct db_t *db,
                                          const struct ds_t *ds,
                                          struct err_t **err);

// Puts the next name into `name`, which is then freed with betree_free_byte_slice. 0; 1 at the end, then and forever; -1 on
// error. Thread-safe: each name goes to one caller.
int betree_name_iter_next(const struct name_iter_t *name_iter,
                          struct byte_slice_t *name,
                          struct err_t **err);

// Frees an iterator over names; NULL is none. No other thread may use it then.
void betree_free_name_iter(struct name_iter_t *name_iter);

// Puts the next key and its value into `key` and `value`, which are then freed with betree_free_byte_slice. 0; 1 at the end,
// then and forever; -1 on error. Thread-safe: each entry goes to one caller.
int betree_range_iter_next(const struct range_iter_t *range_iter,
                           struct byte_slice_t *key,
                           struct byte_slice_t *value,
                           struct err_t **err);

// As betree_range_iter_next, from the other end: both may be mixed, and meet in between. Thread-safe.
int betree_range_iter_next_back(const struct range_iter_t *range_iter,
                                struct byte_slice_t *key,
                                struct byte_slice_t *value,
                                struct err_t **err);

// Frees an iterator over entries; NULL is none. No other thread may use it then.
void betree_free_range_iter(struct range_iter_t *range_iter);

// Puts the next key that changed into `key`, and its value in the later state into `value`; or, when the later state does not
// have the key, true into `is_deleted` and no bytes into `value`. Both slices are then freed with betree_free_byte_slice. 0; 1
// at the end, then and forever; -1 on error. Thread-safe: each change goes to one caller.
int betree_diff_iter_next(const struct betree_diff_iter_t *diff_iter,
                          struct byte_slice_t *key,
                          struct byte_slice_t *value,
                          bool *is_deleted,
                          struct err_t **err);

// Frees an iterator over differences; NULL is none. No other thread may use it then.
void betree_free_diff_iter(struct betree_diff_iter_t *diff_iter);

// An empty batch. NULL on error. Thread-safe.
struct betree_batch_t *betree_batch_new(const struct db_t *db, struct err_t **err);

// Adds: set the value of `key`. 0, or -1 on error; what only the database can judge (lengths, a dataset of another database),
// the commit reports. Thread-safe.
int betree_batch_insert(const struct betree_batch_t *batch,
                        const struct ds_t *ds,
                        const void *key,
                        size_t key_len,
                        const void *data,
                        size_t data_len,
                        struct storage_pref_t storage_pref,
                        struct err_t **err);

// Adds: write `data` at byte `offset` of the value of `key`. As betree_batch_insert. Thread-safe.
int betree_batch_upsert(const struct betree_batch_t *batch,
                        const struct ds_t *ds,
                        const void *key,
                        size_t key_len,
                        const void *data,
                        size_t data_len,
                        uint32_t offset,
                        struct err_t **err);

// Adds: delete `key`. As betree_batch_insert. Thread-safe.
int betree_batch_delete(const struct betree_batch_t *batch,
                        const struct ds_t *ds,
                        const void *key,
                        size_t key_len,
                        struct err_t **err);

// Adds: delete every key of a range, as in betree_dataset_range_delete. As betree_batch_insert. Thread-safe.
int betree_batch_range_delete(const struct betree_batch_t *batch,
                              const struct ds_t *ds,
                              const void *low_key,
                              size_t low_key_len,
                              const void *high_key,
                              size_t high_key_len,
                              struct err_t **err);

// Commits all writes at one instant; `durability` is one of betree_durability_t. The batch is empty then, also on error but for a
// `durability` that is none, and may be filled again. 0, or -1 on error: nothing was changed; only where the sync itself failed,
// the writes are visible and may be lost in a crash. Thread-safe.
int betree_batch_commit(const struct betree_batch_t *batch,
                        uint32_t durability,
                        struct err_t **err);

// Frees a batch, and what was not committed with it; NULL is none. No other thread may use it then.
void betree_free_batch(struct betree_batch_t *batch);

// The state of the dataset now. NULL on error. Thread-safe.
struct betree_view_t *betree_dataset_view(const struct ds_t *ds, struct err_t **err);

// The state of all datasets now. NULL on error. Thread-safe.
struct betree_database_view_t *betree_database_view(const struct db_t *db, struct err_t **err);

// The state of the dataset that had the name `name` then. NULL on error: BETREE_ERROR_NOT_FOUND when there was none. Thread-safe.
struct betree_view_t *betree_database_view_dataset(const struct betree_database_view_t *view,
                                                   const void *name,
                                                   size_t len,
                                                   struct err_t **err);

// Frees a view of all datasets; NULL is none. No other thread may use it then.
void betree_free_database_view(struct betree_database_view_t *view);

// As betree_dataset_get, of the state that the view is of. Thread-safe.
int betree_view_get(const struct betree_view_t *view,
                    const void *key,
                    size_t len,
                    struct byte_slice_t *value,
                    struct err_t **err);

// As betree_dataset_range, of the state that the view is of. Thread-safe.
struct range_iter_t *betree_view_range(const struct betree_view_t *view,
                                       const void *low_key,
                                       size_t low_key_len,
                                       const void *high_key,
                                       size_t high_key_len,
                                       struct err_t **err);

// As betree_dataset_prefix, of the state that the view is of. Thread-safe.
struct range_iter_t *betree_view_prefix(const struct betree_view_t *view,
                                        const void *prefix,
                                        size_t len,
                                        struct err_t **err);

// Frees a view; NULL is none. No other thread may use it then.
void betree_free_view(struct betree_view_t *view);

// Makes the snapshot `name` of the dataset: durable, with everything that was written before this call. `db` says nothing and may
// be NULL. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS. Thread-safe.
int betree_create_snapshot(const struct db_t *db,
                           const struct ds_t *ds,
                           const void *name,
                           size_t len,
                           struct err_t **err);

// Makes a snapshot `name` of each of the `count` datasets and the `store_count` object stores, all of one instant. An array of none
// may be NULL. 0, or -1 on error: there is none of them then. Thread-safe.
int betree_create_snapshots(const struct db_t *db,
                            const struct ds_t *const *datasets,
                            size_t count,
                            const struct obj_store_t *const *stores,
                            size_t store_count,
                            const void *name,
                            size_t len,
                            struct err_t **err);

// Deletes the snapshot `name`; who has it open still reads it. `db` says nothing and may be NULL. 0, or -1 on error:
// BETREE_ERROR_BUSY names its clones or holds. Thread-safe.
int betree_delete_snapshot(const struct db_t *db,
                           const struct ds_t *ds,
                           const void *name,
                           size_t len,
                           struct err_t **err);

// Opens the snapshot `name`. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
struct ss_t *betree_open_snapshot(const struct ds_t *ds, const void *name, size_t len, struct err_t **err);

// Frees a handle of a snapshot, which stays; NULL is none. No other thread may use it then.
void betree_close_snapshot(struct ss_t *ss);

// As betree_dataset_get, of the state that the snapshot is. Thread-safe.
int betree_snapshot_get(const struct ss_t *ss,
                        const void *key,
                        size_t len,
                        struct byte_slice_t *value,
                        struct err_t **err);

// As betree_dataset_range, of the state that the snapshot is. Thread-safe.
struct range_iter_t *betree_snapshot_range(const struct ss_t *ss,
                                           const void *low_key,
                                           size_t low_key_len,
                                           const void *high_key,
                                           size_t high_key_len,
                                           struct err_t **err);

// As betree_dataset_prefix, of the state that the snapshot is. Thread-safe.
struct range_iter_t *betree_snapshot_prefix(const struct ss_t *ss,
                                            const void *prefix,
                                            size_t len,
                                            struct err_t **err);

// Puts what there is to say about the snapshot `name` into `info`. 0, or -1 on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
int betree_dataset_snapshot_info(const struct ds_t *ds,
                                 const void *name,
                                 size_t len,
                                 struct betree_snapshot_info_t *info,
                                 struct err_t **err);

// The tags that hold the snapshot `name`. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
struct name_iter_t *betree_iter_holds(const struct ds_t *ds,
                                      const void *name,
                                      size_t len,
                                      struct err_t **err);

// The names of the datasets that were cloned from the snapshot `name`. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
struct name_iter_t *betree_iter_clones(const struct ds_t *ds,
                                       const void *name,
                                       size_t len,
                                       struct err_t **err);

// Gives the snapshot `name` another name. 0, or -1 on error. Thread-safe.
int betree_rename_snapshot(const struct ds_t *ds,
                           const void *name,
                           size_t len,
                           const void *new_name,
                           size_t new_len,
                           struct err_t **err);

// Keeps the snapshot `name` from being deleted until `tag` is released. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS for a tag
// that holds it already. Thread-safe.
int betree_hold_snapshot(const struct ds_t *ds,
                         const void *name,
                         size_t len,
                         const void *tag,
                         size_t tag_len,
                         struct err_t **err);

// Takes a hold back. 0, or -1 on error: BETREE_ERROR_NOT_FOUND for the snapshot or the tag. Thread-safe.
int betree_release_snapshot(const struct ds_t *ds,
                            const void *name,
                            size_t len,
                            const void *tag,
                            size_t tag_len,
                            struct err_t **err);

// Makes the dataset what it was in the snapshot `name`: everything since is lost. With `force`, later snapshots are deleted;
// without, they are in the way (BETREE_ERROR_BUSY). 0, or -1 on error. Thread-safe.
int betree_rollback_snapshot(const struct ds_t *ds,
                             const void *name,
                             size_t len,
                             bool force,
                             struct err_t **err);

// Makes the dataset `name` of a snapshot: writable, and sharing its space until it is overwritten. NULL on error. Thread-safe.
struct ds_t *betree_clone_snapshot(const struct db_t *db,
                                   const struct ss_t *ss,
                                   const void *name,
                                   size_t len,
                                   struct err_t **err);

// What has to be done to make the state of `later` of that of `ss`; reads only what the two do not share. NULL on error.
// Thread-safe.
struct betree_diff_iter_t *betree_snapshot_diff(const struct ss_t *ss,
                                                const struct ss_t *later,
                                                struct err_t **err);

// What has to be done to make of the snapshot what the dataset holds now. NULL on error. Thread-safe.
struct betree_diff_iter_t *betree_dataset_changes_since(const struct ds_t *ds,
                                                        const struct ss_t *ss,
                                                        struct err_t **err);

// Writes a snapshot to `write`: whole, or, unless `from` is NULL, what has to be done to `from` to make this one of it. `options`
// may be NULL, as may `counts`, which says what was sent. 0, or -1 on error: the stream ends early then. Thread-safe.
int betree_snapshot_send(const struct ss_t *ss,
                         const struct ss_t *from,
                         const struct betree_send_options_t *options,
                         betree_write_fn write,
                         void *context,
                         struct betree_send_counts_t *counts,
                         struct err_t **err);

// As betree_snapshot_send, to a file descriptor, which stays open. Writing to a pipe or socket that nobody reads raises SIGPIPE
// unless the program ignores that. Thread-safe.
int betree_snapshot_send_fd(const struct ss_t *ss,
                            const struct ss_t *from,
                            const struct betree_send_options_t *options,
                            int fd,
                            struct betree_send_counts_t *counts,
                            struct err_t **err);

// As betree_snapshot_send, of a snapshot of an object store. Thread-safe.
int betree_store_snapshot_send(const struct betree_store_snapshot_t *ss,
                               const struct betree_store_snapshot_t *from,
                               const struct betree_send_options_t *options,
                               betree_write_fn write,
                               void *context,
                               struct betree_send_counts_t *counts,
                               struct err_t **err);

// As betree_snapshot_send_fd, of a snapshot of an object store. Thread-safe.
int betree_store_snapshot_send_fd(const struct betree_store_snapshot_t *ss,
                                  const struct betree_store_snapshot_t *from,
                                  const struct betree_send_options_t *options,
                                  int fd,
                                  struct betree_send_counts_t *counts,
                                  struct err_t **err);

// Reads a stream from `read` and makes of it the dataset or object store `name`, whichever was sent, or changes that; nothing
// behind the end of the stream is read. With `force`, what was written since the snapshot that changes start from is lost, and a
// snapshot that was sent whole takes the place of what has that name. `counts` may be NULL. 0, or -1 on error: the dataset or store
// is what it was, and what came is kept for a stream that goes on there (betree_receive_token). Thread-safe.
int betree_receive(const struct db_t *db,
                   const void *name,
                   size_t len,
                   bool force,
                   betree_read_fn read,
                   void *context,
                   struct betree_receive_counts_t *counts,
                   struct err_t **err);

// As betree_receive, from a file descriptor, which stays open. Thread-safe.
int betree_receive_fd(const struct db_t *db,
                      const void *name,
                      size_t len,
                      bool force,
                      int fd,
                      struct betree_receive_counts_t *counts,
                      struct err_t **err);

// Puts what the sender needs to go on into `token`, text, when a stream into the dataset or object store `name` was interrupted
// (into the dataset, when both have one). 0; 1 when there is nothing to go on with; -1 on error. Thread-safe.
int betree_receive_token(const struct db_t *db,
                         const void *name,
                         size_t len,
                         struct byte_slice_t *token,
                         struct err_t **err);

// Gives back what came of a stream into the dataset `name` that was interrupted. 0, or -1 on error: BETREE_ERROR_NOT_FOUND without one.
// Thread-safe.
int betree_abort_receive(const struct db_t *db,
                         const void *name,
                         size_t len,
                         struct err_t **err);

// As betree_abort_receive, of the object store `name`. Thread-safe.
int betree_abort_store_receive(const struct db_t *db, const void *name, size_t len, struct err_t **err);

// Opens the object store `name`, or makes it, with objects that prefer `storage_pref`. NULL on error. Thread-safe: of several who
// do so at once, one makes it.
struct obj_store_t *betree_create_object_store(const struct db_t *db,
                                               const void *name,
                                               size_t name_len,
                                               struct storage_pref_t storage_pref,
                                               struct err_t **err);

// Makes the object store `name`. NULL on error: BETREE_ERROR_ALREADY_EXISTS. Thread-safe.
struct obj_store_t *betree_create_new_object_store(const struct db_t *db,
                                                   const void *name,
                                                   size_t name_len,
                                                   struct storage_pref_t storage_pref,
                                                   struct err_t **err);

// Opens the object store `name`. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
struct obj_store_t *betree_open_object_store(const struct db_t *db,
                                             const void *name,
                                             size_t name_len,
                                             struct err_t **err);

// Frees a handle of an object store, which goes on; NULL is none. No other thread may use it then.
void betree_close_object_store(struct obj_store_t *os);

// Puts the name into `name`: the new one after a rename. 0, or -1 on error. Thread-safe.
int betree_store_name(const struct obj_store_t *os, struct byte_slice_t *name, struct err_t **err);

// Makes `data` the object `key`, in place of one that has that name: whole or not at all, whatever the length. `condition` may be
// NULL, as may `info`, which says what the object is then. 0, or -1 on error: nothing was changed. Thread-safe.
int betree_store_put(const struct obj_store_t *os,
                     const void *key,
                     size_t key_len,
                     const void *data,
                     size_t data_len,
                     struct storage_pref_t storage_pref,
                     const struct betree_condition_t *condition,
                     struct betree_object_info_t *info,
                     struct err_t **err);

// Puts all bytes of the object `key` into `data`, which is then freed with betree_free_byte_slice. 0; 1 when there is none; -1 on
// error. Thread-safe.
int betree_store_get(const struct obj_store_t *os,
                     const void *key,
                     size_t key_len,
                     struct byte_slice_t *data,
                     struct err_t **err);

// Puts what there is to say about the object `key` into `info`. 0; 1 when there is none; -1 on error. Thread-safe.
int betree_store_info(const struct obj_store_t *os,
                      const void *key,
                      size_t key_len,
                      struct betree_object_info_t *info,
                      struct err_t **err);

// Deletes the object `key`; `condition` may be NULL. 0, or -1 on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
int betree_store_delete(const struct obj_store_t *os,
                        const void *key,
                        size_t key_len,
                        const struct betree_condition_t *condition,
                        struct err_t **err);

// Gives the object `key` another name, in place of one that has it; `condition`, which may be NULL, is of that one. 0, or -1 on
// error. Thread-safe.
int betree_store_rename(const struct obj_store_t *os,
                        const void *key,
                        size_t key_len,
                        const void *new_key,
                        size_t new_key_len,
                        const struct betree_condition_t *condition,
                        struct err_t **err);

// Makes the object `new_key` with bytes, preference and custom metadata of the object `key`, in place of one that has that name:
// whole or not at all. `condition`, which may be NULL, is of that one; `info` may be NULL. 0, or -1 on error. Thread-safe.
int betree_store_copy(const struct obj_store_t *os,
                      const void *key,
                      size_t key_len,
                      const void *new_key,
                      size_t new_key_len,
                      const struct betree_condition_t *condition,
                      struct betree_object_info_t *info,
                      struct err_t **err);

// The objects from the name `low_key` on (NULL: from the first), up to `high_key` (NULL: to the last) and without that. NULL on
// error. Thread-safe.
struct betree_object_iter_t *betree_store_list(const struct obj_store_t *os,
                                               const void *low_key,
                                               size_t low_key_len,
                                               const void *high_key,
                                               size_t high_key_len,
                                               struct err_t **err);

// The objects whose names start with `prefix`. NULL on error. Thread-safe.
struct betree_object_iter_t *betree_store_list_prefix(const struct obj_store_t *os,
                                                      const void *prefix,
                                                      size_t len,
                                                      struct err_t **err);

// One page of a list of objects; `options` may be NULL. NULL on error. Thread-safe: each page is of one state, of its own time.
struct betree_page_t *betree_store_list_page(const struct obj_store_t *os,
                                             const struct betree_list_options_t *options,
                                             struct err_t **err);

// The names of all snapshots of the store, oldest first. NULL on error. Thread-safe.
struct name_iter_t *betree_iter_store_snapshots(const struct obj_store_t *os, struct err_t **err);

// Puts what there is to say about the snapshot `name` into `info`. 0, or -1 on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
int betree_store_snapshot_info(const struct obj_store_t *os,
                               const void *name,
                               size_t len,
                               struct betree_snapshot_info_t *info,
                               struct err_t **err);

// Makes the snapshot `name` of the store: durable, with everything that was written before this call. 0, or -1 on error:
// BETREE_ERROR_ALREADY_EXISTS. Thread-safe.
int betree_store_create_snapshot(const struct obj_store_t *os,
                                 const void *name,
                                 size_t len,
                                 struct err_t **err);

// Deletes the snapshot `name`; who has it open still reads it. 0, or -1 on error: BETREE_ERROR_BUSY names its clones or holds.
// Thread-safe.
int betree_store_delete_snapshot(const struct obj_store_t *os,
                                 const void *name,
                                 size_t len,
                                 struct err_t **err);

// Gives the snapshot `name` another name. 0, or -1 on error. Thread-safe.
int betree_store_rename_snapshot(const struct obj_store_t *os,
                                 const void *name,
                                 size_t len,
                                 const void *new_name,
                                 size_t new_len,
                                 struct err_t **err);

// Keeps the snapshot `name` from being deleted until `tag` is released. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS for a tag
// that holds it already. Thread-safe.
int betree_store_hold_snapshot(const struct obj_store_t *os,
                               const void *name,
                               size_t len,
                               const void *tag,
                               size_t tag_len,
                               struct err_t **err);

// Takes a hold back. 0, or -1 on error: BETREE_ERROR_NOT_FOUND for the snapshot or the tag. Thread-safe.
int betree_store_release_snapshot(const struct obj_store_t *os,
                                  const void *name,
                                  size_t len,
                                  const void *tag,
                                  size_t tag_len,
                                  struct err_t **err);

// Makes the store what it was in the snapshot `name`: everything since is lost. With `force`, later snapshots are deleted; without,
// they are in the way (BETREE_ERROR_BUSY). 0, or -1 on error. Thread-safe: waits for writes in progress.
int betree_store_rollback(const struct obj_store_t *os,
                          const void *name,
                          size_t len,
                          bool force,
                          struct err_t **err);

// Makes a clone the owner of the snapshots up to the one that it was cloned from. 0, or -1 on error. Thread-safe.
int betree_store_promote(const struct obj_store_t *os,
                         struct err_t **err);

// Puts the names of the store and of the snapshot that this one was cloned from into `store` and `snapshot`. 0; 1 when it is no
// clone; -1 on error. Thread-safe.
int betree_store_origin(const struct obj_store_t *os,
                        struct byte_slice_t *store,
                        struct byte_slice_t *snapshot,
                        struct err_t **err);

// Puts the name of the next object into `name`, which is then freed with betree_free_byte_slice, and what is known of it into
// `info`. 0; 1 at the end, then and forever; -1 on error. Thread-safe: each object goes to one caller.
int betree_object_iter_next(const struct betree_object_iter_t *object_iter,
                            struct byte_slice_t *name,
                            struct betree_object_info_t *info,
                            struct err_t **err);

// As betree_object_iter_next, from the other end. Thread-safe.
int betree_object_iter_next_back(const struct betree_object_iter_t *object_iter,
                                 struct byte_slice_t *name,
                                 struct betree_object_info_t *info,
                                 struct err_t **err);

// Frees an iterator over objects; NULL is none. No other thread may use it then.
void betree_free_object_iter(struct betree_object_iter_t *object_iter);

// Puts the next object of the page into `name`, which is then freed with betree_free_byte_slice, and `info`. 0; 1 when there are no
// more; -1 on error. Thread-safe: each object goes to one caller.
int betree_page_next_object(const struct betree_page_t *page,
                            struct byte_slice_t *name,
                            struct betree_object_info_t *info,
                            struct err_t **err);

// Puts the next prefix of the page, what names with a delimiter start with, into `prefix`, which is then freed with
// betree_free_byte_slice. 0; 1 when there are no more; -1 on error. Thread-safe: each prefix goes to one caller.
int betree_page_next_prefix(const struct betree_page_t *page,
                            struct byte_slice_t *prefix,
                            struct err_t **err);

// Puts what the next page starts with into `token`, which is then freed with betree_free_byte_slice. 0; 1 when this is the last
// page; -1 on error. Thread-safe.
int betree_page_token(const struct betree_page_t *page,
                      struct byte_slice_t *token,
                      struct err_t **err);

// Puts how many objects and prefixes the page has into `objects` and `prefixes`. 0, or -1 on error. Thread-safe.
int betree_page_count(const struct betree_page_t *page,
                      size_t *objects,
                      size_t *prefixes,
                      struct err_t **err);

// Frees a page; NULL is none. No other thread may use it then.
void betree_free_page(struct betree_page_t *page);

// Makes the empty object `key`, which prefers `storage_pref`. NULL on error: BETREE_ERROR_ALREADY_EXISTS. Thread-safe.
struct obj_t *betree_object_create(const struct obj_store_t *os,
                                   const void *key,
                                   size_t key_len,
                                   struct storage_pref_t storage_pref,
                                   struct err_t **err);

// As betree_object_create, on the fastest tier that is configured for `access`, one of betree_access_t; without a preference when
// there is none. Thread-safe.
struct obj_t *betree_object_create_with_access(const struct obj_store_t *os,
                                               const void *key,
                                               size_t key_len,
                                               uint32_t access,
                                               struct err_t **err);

// Opens the object `key`. What is written through this handle prefers `storage_pref`, or, with STORAGE_PREF_NONE, what the
// object prefers. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
struct obj_t *betree_object_open(const struct obj_store_t *os,
                                 const void *key,
                                 size_t key_len,
                                 struct storage_pref_t storage_pref,
                                 struct err_t **err);

// Opens the object `key`, or makes it; what is written through the handle prefers `storage_pref`. NULL on error. Thread-safe: of
// several who do so at once, one makes it.
struct obj_t *betree_object_open_or_create(const struct obj_store_t *os,
                                           const void *key,
                                           size_t key_len,
                                           struct storage_pref_t storage_pref,
                                           struct err_t **err);

// Makes the empty object `key` in place of one that has that name. NULL on error. Thread-safe.
struct obj_t *betree_object_replace(const struct obj_store_t *os,
                                    const void *key,
                                    size_t key_len,
                                    struct err_t **err);

// Frees a handle of an object, which stays; NULL is none. 0. No other thread may use it then.
int betree_object_close(struct obj_t *obj, struct err_t **err);

// Deletes the object and frees the handle, also on error. 0, or -1 on error. No other thread may use `obj` then; other handles
// of the object report BETREE_ERROR_NOT_FOUND.
int betree_object_delete(struct obj_t *obj,
                         struct err_t **err);

// Puts the name into `name`: the new one after a rename. 0, or -1 on error. Thread-safe.
int betree_object_name(const struct obj_t *obj, struct byte_slice_t *name, struct err_t **err);

// Puts what there is to say about the object into `info`. 0, or -1 on error. Thread-safe.
int betree_object_info(const struct obj_t *obj, struct betree_object_info_t *info, struct err_t **err);

// Length of the object in bytes, holes included, or -1 on error. Thread-safe.
int64_t betree_object_size(const struct obj_t *obj, struct err_t **err);

// Length in bytes of the object `key` of the store, or -1 on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
int64_t betree_object_get_size(const struct obj_store_t *os,
                               const void *key,
                               size_t key_len,
                               struct err_t **err);

// Reads up to `buf_len` bytes from `offset` on into `buf`, of one state of the object, and puts how many there were into
// `n_read`: fewer only at the end of the object. What was never written reads as zeros. 0, or -1 on error: what is in `buf` then
// says nothing, and `n_read` is as it was. Thread-safe.
int betree_object_read_at(const struct obj_t *obj,
                          void *buf,
                          size_t buf_len,
                          uint64_t offset,
                          size_t *n_read,
                          struct err_t **err);

// Writes `buf_len` bytes at `offset`; the object grows as needed. `n_written` may be NULL and says `buf_len`. Up to 16 MiB are
// seen, and survive a crash, all or not at all. 0, or -1 on error: nothing was written, or of a longer write the first pieces of
// 16 MiB. Thread-safe.
int betree_object_write_at(const struct obj_t *obj,
                           const void *buf,
                           size_t buf_len,
                           uint64_t offset,
                           size_t *n_written,
                           struct err_t **err);

// Writes `buf_len` bytes behind the end, on the tier that the object prefers, not the handle; puts where that was into `offset`,
// which may be NULL. 0, or -1 on error. Thread-safe: of several who append at once, each writes behind the others.
int betree_object_append(const struct obj_t *obj,
                         const void *buf,
                         size_t buf_len,
                         uint64_t *offset,
                         struct err_t **err);

// Makes the object `size` bytes long: what is behind is gone, what is added reads as zeros. 0, or -1 on error. Thread-safe.
int betree_object_truncate(const struct obj_t *obj,
                           uint64_t size,
                           struct err_t **err);

// Makes `length` bytes from `offset` on read as zeros, and gives back their space; the size stays. 0, or -1 on error. Thread-safe.
int betree_object_punch_hole(const struct obj_t *obj,
                             uint64_t offset,
                             uint64_t length,
                             struct err_t **err);

// Gives the object another name, in place of one that has it. All its handles go on. 0, or -1 on error. Thread-safe.
int betree_object_rename(const struct obj_t *obj,
                         const void *new_key,
                         size_t new_key_len,
                         struct err_t **err);

// Sets where the object is written from now on, by handles without a preference; what is there stays where it is. 0, or -1 on
// error. Thread-safe.
int betree_object_set_preference(const struct obj_t *obj,
                                 struct storage_pref_t storage_pref,
                                 struct err_t **err);

// Moves the object to the tier that `storage_pref` names, which it prefers from now on; says how much was moved in `moved`, which
// may be NULL. 0, or -1 on error. Thread-safe.
int betree_object_migrate(const struct obj_t *obj,
                          struct storage_pref_t storage_pref,
                          struct betree_migrated_t *moved,
                          struct err_t **err);

// As betree_object_migrate, to the next faster tier that has devices. Thread-safe.
int betree_object_migrate_up(const struct obj_t *obj, struct betree_migrated_t *moved, struct err_t **err);

// As betree_object_migrate, to the next slower tier that has devices. Thread-safe.
int betree_object_migrate_down(const struct obj_t *obj, struct betree_migrated_t *moved, struct err_t **err);

// Moves the chunks of 128 KiB that hold the `length` bytes from `offset` on (UINT64_MAX: to the end) to the tier that
// `storage_pref` names; what the object prefers stays. As betree_object_migrate. Thread-safe.
int betree_object_migrate_range(const struct obj_t *obj,
                                uint64_t offset,
                                uint64_t length,
                                struct storage_pref_t storage_pref,
                                struct betree_migrated_t *moved,
                                struct err_t **err);

// Sets the custom metadata `name`. The version of the object stays. 0, or -1 on error. Thread-safe.
int betree_object_set_metadata(const struct obj_t *obj,
                               const void *name,
                               size_t name_len,
                               const void *value,
                               size_t value_len,
                               struct err_t **err);

// Puts the custom metadata `name` into `value`, which is then freed with betree_free_byte_slice. 0; 1 when there is none; -1 on
// error. Thread-safe.
int betree_object_get_metadata(const struct obj_t *obj,
                               const void *name,
                               size_t name_len,
                               struct byte_slice_t *value,
                               struct err_t **err);

// Deletes the custom metadata `name`, whether there is any or not. 0, or -1 on error. Thread-safe.
int betree_object_delete_metadata(const struct obj_t *obj,
                                  const void *name,
                                  size_t name_len,
                                  struct err_t **err);

// All custom metadata, in the order of the names, of one state. NULL on error. Thread-safe.
struct range_iter_t *betree_object_iter_metadata(const struct obj_t *obj, struct err_t **err);

// The chunks of 128 KiB that are there, of the numbers from `first` up to `end` and without that (UINT64_MAX: all). NULL on error.
// Thread-safe.
struct betree_chunk_iter_t *betree_object_chunks(const struct obj_t *obj,
                                                 uint64_t first,
                                                 uint64_t end,
                                                 struct err_t **err);

// Puts the bytes of the next chunk that is there into `chunk`, which is then freed with betree_free_byte_slice, and where in the
// object they are into `offset`; what is between chunks reads as zeros. 0; 1 at the end, then and forever; -1 on error.
// Thread-safe: each chunk goes to one caller.
int betree_chunk_iter_next(const struct betree_chunk_iter_t *chunk_iter,
                           uint64_t *offset,
                           struct byte_slice_t *chunk,
                           struct err_t **err);

// Frees an iterator over chunks; NULL is none. No other thread may use it then.
void betree_free_chunk_iter(struct betree_chunk_iter_t *chunk_iter);

// An empty batch. NULL on error. Thread-safe.
struct betree_object_batch_t *betree_object_batch_new(const struct obj_store_t *os, struct err_t **err);

// Adds: fail the whole batch unless `condition` holds of the object `key`, as the changes before leave it. 0, or -1 on error; what
// only the store can judge (lengths, what is there), the commit reports. Thread-safe.
int betree_object_batch_require(const struct betree_object_batch_t *batch,
                                const void *key,
                                size_t key_len,
                                const struct betree_condition_t *condition,
                                struct err_t **err);

// Adds: make `data` the object `key`, in place of one that has that name. As betree_object_batch_require. Thread-safe.
int betree_object_batch_put(const struct betree_object_batch_t *batch,
                            const void *key,
                            size_t key_len,
                            const void *data,
                            size_t data_len,
                            struct storage_pref_t storage_pref,
                            struct err_t **err);

// Adds: write `data` at byte `offset` of the object `key`, which must be there. As betree_object_batch_require. Thread-safe.
int betree_object_batch_write_at(const struct betree_object_batch_t *batch,
                                 const void *key,
                                 size_t key_len,
                                 const void *data,
                                 size_t data_len,
                                 uint64_t offset,
                                 struct err_t **err);

// Adds: delete the object `key`, which must be there. As betree_object_batch_require. Thread-safe.
int betree_object_batch_delete(const struct betree_object_batch_t *batch,
                               const void *key,
                               size_t key_len,
                               struct err_t **err);

// Adds: give the object `key`, which must be there, another name, in place of one that has it. As betree_object_batch_require.
// Thread-safe.
int betree_object_batch_rename(const struct betree_object_batch_t *batch,
                               const void *key,
                               size_t key_len,
                               const void *new_key,
                               size_t new_key_len,
                               struct err_t **err);

// Adds: set the custom metadata `name` of the object `key`, which must be there. As betree_object_batch_require. Thread-safe.
int betree_object_batch_set_metadata(const struct betree_object_batch_t *batch,
                                     const void *key,
                                     size_t key_len,
                                     const void *name,
                                     size_t name_len,
                                     const void *value,
                                     size_t value_len,
                                     struct err_t **err);

// Adds: delete the custom metadata `name` of the object `key`, which must be there. As betree_object_batch_require. Thread-safe.
int betree_object_batch_delete_metadata(const struct betree_object_batch_t *batch,
                                        const void *key,
                                        size_t key_len,
                                        const void *name,
                                        size_t name_len,
                                        struct err_t **err);

// Commits all changes at one instant; `durability` is one of betree_durability_t. The batch is empty then, also on error but for a
// `durability` that is none, and may be filled again. 0, or -1 on error: nothing was changed; only where the sync itself failed,
// the changes are visible and may be lost in a crash. Thread-safe.
int betree_object_batch_commit(const struct betree_object_batch_t *batch,
                               uint32_t durability,
                               struct err_t **err);

// Frees a batch, and what was not committed with it; NULL is none. No other thread may use it then.
void betree_free_object_batch(struct betree_object_batch_t *batch);

// Opens the snapshot `name`. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
struct betree_store_snapshot_t *betree_store_open_snapshot(const struct obj_store_t *os,
                                                           const void *name,
                                                           size_t len,
                                                           struct err_t **err);

// Frees a handle of a snapshot, which stays; NULL is none. No other thread may use it then.
void betree_close_store_snapshot(struct betree_store_snapshot_t *ss);

// As betree_store_get, of the state that the snapshot is. Thread-safe.
int betree_store_snapshot_get(const struct betree_store_snapshot_t *ss,
                              const void *key,
                              size_t key_len,
                              struct byte_slice_t *data,
                              struct err_t **err);

// As betree_store_info, of the state that the snapshot is. Thread-safe.
int betree_store_snapshot_object_info(const struct betree_store_snapshot_t *ss,
                                      const void *key,
                                      size_t key_len,
                                      struct betree_object_info_t *info,
                                      struct err_t **err);

// Opens the object `key` as it was then, for reading. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
struct obj_t *betree_store_snapshot_open_object(const struct betree_store_snapshot_t *ss,
                                                const void *key,
                                                size_t key_len,
                                                struct err_t **err);

// As betree_store_list, of the state that the snapshot is. Thread-safe.
struct betree_object_iter_t *betree_store_snapshot_list(const struct betree_store_snapshot_t *ss,
                                                        const void *low_key,
                                                        size_t low_key_len,
                                                        const void *high_key,
                                                        size_t high_key_len,
                                                        struct err_t **err);

// As betree_store_list_page, of the state that the snapshot is. Thread-safe.
struct betree_page_t *betree_store_snapshot_list_page(const struct betree_store_snapshot_t *ss,
                                                      const struct betree_list_options_t *options,
                                                      struct err_t **err);

// Makes the object store `name` of a snapshot: writable, and sharing its space until it is overwritten. NULL on error. Thread-safe.
struct obj_store_t *betree_clone_store_snapshot(const struct db_t *db,
                                                const struct betree_store_snapshot_t *ss,
                                                const void *name,
                                                size_t len,
                                                struct err_t **err);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BETREE_H */
