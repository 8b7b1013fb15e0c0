/*
 * What the shim of the fio engine calls. SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * This file is made of the sources in fio-engine/src: change it there, then run
 * BETREE_HEADER=write cargo test -p betree-fio.
 *
 * Functions return a negative errno when they fail, and say why on stderr. A pointer points to what its function says as long as
 * the call lasts; a handle is freed once. Calls about one job come from one thread at a time.
 */

#ifndef BETREE_FIO_ENGINE_H
#define BETREE_FIO_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a request is for.
enum betree_fio_operation {
    // Fills the buffer.
    BETREE_FIO_OPERATION_READ = 0,
    // Writes the buffer.
    BETREE_FIO_OPERATION_WRITE = 1,
    // Makes the bytes read as zeros, and gives their space back.
    BETREE_FIO_OPERATION_TRIM = 2,
    // Makes what was written before durable.
    BETREE_FIO_OPERATION_SYNC = 3,
};

// What files of fio are.
enum betree_fio_interface {
    // Objects of a store.
    BETREE_FIO_INTERFACE_OBJECT = 0,
    // Keys of a dataset.
    BETREE_FIO_INTERFACE_KV = 1,
};

// A file that is open.
struct betree_fio_file;

// A job.
struct betree_fio_job;

// Where a job wants its database.
struct betree_fio_place {
    // File of the configuration; NULL: the one that BETREE_CONFIG names, else the defaults.
    const char *configuration;
    // Number of the job that has the database for itself; 0: jobs with the same place share it.
    uint32_t owner;
    // Whether the files of fio are the devices of the fastest tier.
    bool files_are_devices;
};

// What a job is to be.
struct betree_fio_settings {
    // Its database.
    struct betree_fio_place place;
    // Its name.
    const char *name;
    // What its files are: a number of betree_fio_interface.
    uint32_t interface;
    // Tier that its writes prefer, 0 to 3; any other number: none.
    uint8_t preference;
    // Whether each write is durable before it is done.
    bool durable;
    // Bytes of a block of a file that is keys.
    uint64_t kv_block;
    // Writes from one snapshot to the next; 0: there are none.
    uint64_t snapshot_writes;
    // Snapshots that are held at once.
    uint32_t snapshots_kept;
};

// A request that was served.
struct betree_fio_completion {
    // What it was submitted with.
    void *token;
    // Bytes that were done, or a negative errno.
    int64_t result;
};

// Says that a job at `place` has the file `path`, which needs `bytes` bytes. `direct` is 1 for direct I/O, 0 for none, -1 for what
// the configuration says. To be called for all jobs before the first one is set up.
int betree_fio_wish(const struct betree_fio_place *place,
                    const char *path,
                    uint64_t bytes,
                    int direct);

// Makes a job, and opens its database unless another job has. `*job` is the job; `betree_fio_end` takes it.
int betree_fio_set_up(const struct betree_fio_settings *settings, struct betree_fio_job **job);

// Ends a job; the last one of a database closes it.
int betree_fio_end(struct betree_fio_job *job);

// Closes what is open although the process ends.
int betree_fio_close_all(void);

// Length of the file `name` in bytes; -ENOENT when there is none.
int64_t betree_fio_file_size(const struct betree_fio_job *job, const char *name);

// Makes the file `name` at least `size` bytes long; what was never written reads as zeros.
int betree_fio_extend(const struct betree_fio_job *job, const char *name, uint64_t size);

// Writes `length` bytes at byte `offset` of the file `name`, before jobs run.
int betree_fio_fill(const struct betree_fio_job *job,
                    const char *name,
                    uint64_t offset,
                    void *bytes,
                    size_t length);

// Makes what was filled durable, and waits until the trees have the shape that they keep.
int betree_fio_settle(const struct betree_fio_job *job);

// Forgets what is cached of the database.
int betree_fio_drop_cache(const struct betree_fio_job *job);

// Opens the file `name`, or makes it. With `cold` the cache is dropped the first time. `betree_fio_close` takes `*file`.
int betree_fio_open(struct betree_fio_job *job,
                    const char *name,
                    bool cold,
                    struct betree_fio_file **file);

// Closes a file; NULL is none. Requests that are under way keep it.
void betree_fio_close(struct betree_fio_file *file);

// Removes the file `name`.
int betree_fio_remove(const struct betree_fio_job *job, const char *name);

// Starts what serves up to `depth` requests that are submitted: `threads` threads, and what needs none.
int betree_fio_start(struct betree_fio_job *job, uint32_t depth, uint32_t threads);

// Serves a request in the calling thread; `operation` is a number of betree_fio_operation. Returns how many bytes were done, or a negative errno.
int64_t betree_fio_serve(const struct betree_fio_job *job,
                         const struct betree_fio_file *file,
                         uint32_t operation,
                         uint64_t offset,
                         void *bytes,
                         size_t length);

// Takes a request, which `betree_fio_announce` lets begin; `betree_fio_fetch` gives `token` back when it was served. Or returns 1 when it was served
// at once, with what `betree_fio_serve` would return in `*result`; it is not fetched then.
int betree_fio_submit(struct betree_fio_job *job,
                      const struct betree_fio_file *file,
                      uint32_t operation,
                      uint64_t offset,
                      void *bytes,
                      size_t length,
                      void *token,
                      int64_t *result);

// Lets what was submitted begin.
int betree_fio_announce(struct betree_fio_job *job);

// Waits until nothing that was submitted is under way: until then the buffers of requests are in use.
int betree_fio_drain(struct betree_fio_job *job);

// Waits until `least` requests were served, for `timeout_ns` nanoseconds at most unless that is negative, and puts up to `most` at
// `place`. Returns how many.
int betree_fio_fetch(struct betree_fio_job *job,
                     struct betree_fio_completion *place,
                     uint32_t least,
                     uint32_t most,
                     int64_t timeout_ns);

#endif  /* BETREE_FIO_ENGINE_H */
