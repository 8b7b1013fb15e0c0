// SPDX-License-Identifier: GPL-2.0-only
/*
 * betree as an I/O engine of fio: what fio calls, translated for engine.h.
 *
 * It knows the structures of fio, whose headers it is compiled with, and decides only what depends on them: which size a file
 * has, when it is filled, which requests wait. Everything else is behind engine.h.
 *
 * fio calls, in this order: .setup of all jobs, one after the other, each followed by .prepopulate_file of its files; then for
 * each job, in a thread of its own, .init, .open_file, .queue, .close_file, .cleanup.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fio.h"
#include "optgroup.h"
#include "verify.h"

#include "engine.h"

/* Bytes that are written at once where a file is filled. */
#define FILL_BYTES (1024 * 1024)

/* A request that waits needs no thread of a processor, but one of a device. More would only wait for each other. */
#define WORKERS_MAX 64

struct ioengine_ops ioengine;

/* The options of a job. fio keeps a pointer of its own at the start. */
struct options {
	void *pad;
	char *configuration;
	unsigned int disrespect_files;
	unsigned int disrespect_direct;
	unsigned int disrespect_options;
	unsigned int own_database;
	unsigned int interface;
	unsigned int kv_block;
	unsigned int durable;
	unsigned int preference;
	unsigned int workers;
	unsigned int snapshot_writes;
	unsigned int snapshots_kept;
};

/* What the engine keeps of a job. */
struct shim {
	struct betree_fio_job *job;
	/* Requests that were served; NULL where .queue serves them. */
	struct betree_fio_completion *events;
	unsigned int events_max;
	/* Whether each write is durable when it is done. */
	unsigned int durable;
};

#define OPTION(field) .off1 = offsetof(struct options, field), .category = FIO_OPT_C_ENGINE, .group = FIO_OPT_G_INVALID

static struct fio_option options[] = {
	{
		.name = "configuration",
		.lname = "configuration of the database",
		.type = FIO_OPT_STR_STORE,
		.help = "File with the configuration of the database; else the one that BETREE_CONFIG names, else the defaults",
		OPTION(configuration),
	},
	{
		.name = "disrespect-fio-files",
		.lname = "devices of the configuration",
		.type = FIO_OPT_STR_SET,
		.help = "Keep the devices of the configuration, instead of making the files of fio the devices",
		OPTION(disrespect_files),
	},
	{
		.name = "disrespect-fio-direct",
		.lname = "direct I/O as configured",
		.type = FIO_OPT_STR_SET,
		.help = "Bypass the page cache as the configuration says, instead of as direct= does",
		OPTION(disrespect_direct),
	},
	{
		.name = "disrespect-fio-options",
		.lname = "everything as configured",
		.type = FIO_OPT_STR_SET,
		.help = "Both of the above, and the cache stays when a file is opened: fio only says what is read and written",
		OPTION(disrespect_options),
	},
	{
		.name = "own-database",
		.lname = "database of one job",
		.type = FIO_OPT_STR_SET,
		.help = "The job shares its database with no other",
		OPTION(own_database),
	},
	{
		.name = "interface",
		.lname = "what files are",
		.type = FIO_OPT_STR,
		.help = "What files of fio are in the database",
		.def = "object",
		.posval = {
			{
				.ival = "object",
				.oval = BETREE_FIO_INTERFACE_OBJECT,
				.help = "Objects of a store",
			},
			{
				.ival = "kv",
				.oval = BETREE_FIO_INTERFACE_KV,
				.help = "Keys of a dataset, one for each block",
			},
		},
		OPTION(interface),
	},
	{
		.name = "kv-block",
		.lname = "bytes of a value",
		.type = FIO_OPT_INT,
		.help = "With interface=kv: bytes of a value, from 512 to 1m; fixed when a file is made",
		.def = "4096",
		.minval = 512,
		.maxval = 1024 * 1024,
		OPTION(kv_block),
	},
	{
		.name = "durability",
		.lname = "when a write is durable",
		.type = FIO_OPT_STR,
		.help = "When a write is durable; sync= of fio does the same",
		.def = "buffered",
		.posval = {
			{
				.ival = "buffered",
				.oval = 0,
				.help = "With the next fsync, or when the database syncs by itself",
			},
			{
				.ival = "sync",
				.oval = 1,
				.help = "When it is done",
			},
		},
		OPTION(durable),
	},
	{
		.name = "storage-preference",
		.lname = "tier of what is written",
		.type = FIO_OPT_STR,
		.help = "Tier that writes prefer",
		.def = "none",
		.posval = {
			{ .ival = "none", .oval = 254, .help = "As the configuration says" },
			{ .ival = "fastest", .oval = 0, .help = "Tier 0" },
			{ .ival = "fast", .oval = 1, .help = "Tier 1" },
			{ .ival = "slow", .oval = 2, .help = "Tier 2" },
			{ .ival = "slowest", .oval = 3, .help = "Tier 3" },
		},
		OPTION(preference),
	},
	{
		.name = "workers",
		.lname = "threads of a job",
		.type = FIO_OPT_INT,
		.help = "Threads for what a job with iodepth > 1 has to wait for; 0: as many as its iodepth, at most 64",
		.def = "0",
		.maxval = 1024,
		OPTION(workers),
	},
	{
		.name = "snapshot-writes",
		.lname = "writes between snapshots",
		.type = FIO_OPT_INT,
		.help = "A snapshot is taken each time that the job has written so often; 0: none",
		.def = "0",
		OPTION(snapshot_writes),
	},
	{
		.name = "snapshots-kept",
		.lname = "snapshots that are held",
		.type = FIO_OPT_INT,
		.help = "The newest snapshots that a job holds until it ends",
		.def = "4",
		OPTION(snapshots_kept),
	},
	{
		.name = NULL,
	},
};

static bool respects_files(const struct options *o)
{
	return !o->disrespect_files && !o->disrespect_options;
}

static struct betree_fio_place place_of(const struct thread_data *td)
{
	const struct options *o = td->eo;

	return (struct betree_fio_place) {
		.configuration = o->configuration,
		.owner = o->own_database ? td->thread_number : 0,
		.files_are_devices = respects_files(o),
	};
}

/* Bytes that a file needs, as far as options say it before sizes are known: it decides how large a device is made. */
static uint64_t bytes_wanted(struct thread_data *td)
{
	const struct thread_options *o = &td->o;
	uint64_t size = o->file_size_high;

	if (!size && o->nr_files)
		size = o->size / o->nr_files + td_max_bs(td);
	return o->start_offset + td->subjob_number * o->offset_increment + size;
}

/* Tells which files each job has, before the first database is opened: jobs share it, and its devices may be their files. */
static int tell_wishes(void)
{
	unsigned int number;

	for (number = 0; number < thread_number; number++) {
		struct thread_data *td = tnumber_to_td(number);
		const struct options *o = td->eo;
		struct betree_fio_place place;
		struct fio_file *f;
		unsigned int i;
		int direct = -1;

		/* Another engine, or another copy of this one: a job with wrong offsets would be neither. */
		if (td->io_ops != &ioengine || !o)
			continue;
		if (!o->disrespect_direct && !o->disrespect_options)
			direct = td->o.odirect != 0;
		place = place_of(td);
		for_each_file(td, f, i) {
			int ret = betree_fio_wish(&place, f->file_name, bytes_wanted(td), direct);

			if (ret < 0)
				return ret;
		}
	}
	return 0;
}

static int make_job(struct thread_data *td)
{
	static bool wishes_are_told;
	const struct options *o = td->eo;
	struct betree_fio_settings settings = {
		.interface = o->interface,
		.preference = o->preference,
		.durable = o->durable || td->o.sync_io,
		.kv_block = o->kv_block,
		.snapshot_writes = o->snapshot_writes,
		.snapshots_kept = o->snapshots_kept,
	};
	struct shim *shim;
	char name[256];
	int ret;

	if (!wishes_are_told) {
		ret = tell_wishes();
		if (ret < 0) {
			td_verror(td, -ret, "betree: files");
			return 1;
		}
		wishes_are_told = true;
	}
	settings.place = place_of(td);
	/* Clones of a job have its name. */
	snprintf(name, sizeof(name), "%s.%u", td->o.name ?: "job", td->subjob_number);
	settings.name = name;
	shim = calloc(1, sizeof(*shim));
	if (!shim) {
		td_verror(td, ENOMEM, "betree: job");
		return 1;
	}
	ret = betree_fio_set_up(&settings, &shim->job);
	if (ret < 0) {
		free(shim);
		td_verror(td, -ret, "betree: opening the database");
		return 1;
	}
	td->io_ops_data = shim;
	return 0;
}

static int betree_setup(struct thread_data *td)
{
	struct fio_file *f;
	unsigned int i;
	struct shim *shim;

	if (td->io_ops != &ioengine) {
		log_err("betree: the structures of this fio are others than those that the engine was built for\n");
		return 1;
	}
	if (td->o.fsync_on_close || td->o.pre_read) {
		/* fio does these on the descriptor of a file, which there is none of. */
		log_err("betree: fsync_on_close and pre_read are not supported\n");
		td_verror(td, EINVAL, "betree: options");
		return 1;
	}
	/* Jobs share databases, which live in one process. fio looks at this before it starts a job. */
	td->o.use_thread = 1;
	if (!td->io_ops_data && make_job(td))
		return 1;
	shim = td->io_ops_data;
	/* As for plain files: the size that there is. What is missing is made in .prepopulate_file, where fio has done its sums. */
	for_each_file(td, f, i) {
		int64_t size = betree_fio_file_size(shim->job, f->file_name);

		if (size < 0 && size != -ENOENT) {
			td_verror(td, -size, "betree: size of a file");
			return 1;
		}
		f->real_file_size = size < 0 ? 0 : size;
		f->filetype = FIO_TYPE_FILE;
	}
	return 0;
}

static int fill(struct thread_data *td, struct fio_file *f, uint64_t size)
{
	struct shim *shim = td->io_ops_data;
	uint64_t at;
	void *bytes;
	int ret = 0;

	bytes = malloc(FILL_BYTES);
	if (!bytes)
		return -ENOMEM;
	for (at = 0; at < size && !ret && !td->terminate; at += FILL_BYTES) {
		uint64_t length = min((uint64_t) FILL_BYTES, size - at);

		fill_io_buffer(td, bytes, length, length);
		ret = betree_fio_fill(shim->job, f->file_name, at, bytes, length);
	}
	free(bytes);
	return ret ?: betree_fio_settle(shim->job);
}

/* What fio does for plain files that are shorter than they are to be: it lays them out. */
static int betree_prepopulate_file(struct thread_data *td, struct fio_file *f)
{
	const struct thread_options *o = &td->o;
	struct shim *shim = td->io_ops_data;
	uint64_t size = f->file_offset + f->io_size;
	bool is_new = f->real_file_size == 0;
	int ret;

	if (size <= f->real_file_size)
		return 0;
	if (is_new && !o->allow_create) {
		td_verror(td, ENOENT, "betree: allow_file_create is off");
		return 1;
	}
	f->real_file_size = size;
	/* What is only verified was written before, or the job is to fail. */
	if (o->verify_only || (o->verify != VERIFY_NONE && td_read(td) && !td_write(td)))
		return 0;
	if (td_read(td) || o->overwrite)
		ret = fill(td, f, size);
	else
		ret = betree_fio_extend(shim->job, f->file_name, size);
	if (ret < 0) {
		td_verror(td, -ret, "betree: laying out a file");
		return 1;
	}
	return 0;
}

static int betree_init(struct thread_data *td)
{
	const struct options *o = td->eo;
	struct shim *shim;
	int ret;

	if (!td->io_ops_data) {
		log_err("betree: create_serialize=0 cannot be: jobs share a database, which the first of them opens\n");
		td_verror(td, EINVAL, "betree: create_serialize");
		return 1;
	}
	shim = td->io_ops_data;
	shim->durable = o->durable || td->o.sync_io;
	if (td->o.iodepth <= 1 || (!td_read(td) && td->o.verify == VERIFY_NONE && !shim->durable)) {
		/* .queue serves requests, and their time is completion latency; the flags of the engine are those of all jobs. */
		td->flags |= (unsigned long long) FIO_SYNCIO << TD_ENG_FLAG_SHIFT;
		return 0;
	}
	shim->events_max = td->o.iodepth;
	shim->events = calloc(shim->events_max, sizeof(*shim->events));
	if (!shim->events) {
		td_verror(td, ENOMEM, "betree: iodepth");
		return 1;
	}
	ret = betree_fio_start(shim->job, td->o.iodepth,
			       o->workers ?: min(td->o.iodepth, (unsigned int) WORKERS_MAX));
	if (ret < 0) {
		td_verror(td, -ret, "betree: threads");
		return 1;
	}
	return 0;
}

static int betree_open_file(struct thread_data *td, struct fio_file *f)
{
	const struct options *o = td->eo;
	struct shim *shim = td->io_ops_data;
	struct betree_fio_file *file = NULL;
	int ret;

	/* fio asks for the cache to be dropped where it has a disk only. */
	ret = betree_fio_open(shim->job, f->file_name, td->o.invalidate_cache && !o->disrespect_options, &file);
	if (ret < 0) {
		td_verror(td, -ret, "betree: opening a file");
		return 1;
	}
	FILE_SET_ENG_DATA(f, file);
	return 0;
}

static int betree_close_file(struct thread_data *td, struct fio_file *f)
{
	betree_fio_close(FILE_ENG_DATA(f));
	FILE_SET_ENG_DATA(f, NULL);
	return 0;
}

static int betree_invalidate(struct thread_data *td, struct fio_file *f)
{
	const struct options *o = td->eo;
	struct shim *shim = td->io_ops_data;

	return o->disrespect_options || !shim ? 0 : betree_fio_drop_cache(shim->job);
}

static int betree_unlink_file(struct thread_data *td, struct fio_file *f)
{
	struct shim *shim = td->io_ops_data;

	return -betree_fio_remove(shim->job, f->file_name);
}

static uint32_t operation_of(enum fio_ddir ddir)
{
	switch (ddir) {
	case DDIR_READ:
		return BETREE_FIO_OPERATION_READ;
	case DDIR_WRITE:
		return BETREE_FIO_OPERATION_WRITE;
	case DDIR_TRIM:
		return BETREE_FIO_OPERATION_TRIM;
	case DDIR_SYNC:
	case DDIR_DATASYNC:
	case DDIR_SYNC_FILE_RANGE:
		return BETREE_FIO_OPERATION_SYNC;
	default:
		/* None, which is an error. */
		return UINT32_MAX;
	}
}

/* What became of a request, as fio wants to know it. */
static void note_result(struct io_u *io_u, int64_t result)
{
	if (result < 0)
		io_u->error = -result;
	else if (io_u->ddir == DDIR_READ && !result && io_u->xfer_buflen)
		/* Behind the end there is nothing to verify: the buffer still has what was there before. */
		io_u->error = EIO;
	else if (!ddir_sync(io_u->ddir) && (uint64_t) result < io_u->xfer_buflen)
		io_u->resid = io_u->xfer_buflen - result;
}

static enum fio_q_status betree_queue(struct thread_data *td, struct io_u *io_u)
{
	struct shim *shim = td->io_ops_data;
	struct betree_fio_file *file = FILE_ENG_DATA(io_u->file);
	const uint32_t operation = operation_of(io_u->ddir);
	int64_t result;
	int ret;

	/*
	 * As with libaio, syncs and trims are done here: their number is exact, and a trim never comes behind a later write. So are
	 * writes that need not be durable when they are done: they go to memory, and a thread to hand them to would cost more.
	 */
	if (!shim->events || ddir_sync(io_u->ddir) || io_u->ddir == DDIR_TRIM ||
	    (io_u->ddir == DDIR_WRITE && !shim->durable)) {
		note_result(io_u, betree_fio_serve(shim->job, file, operation, io_u->offset,
						   io_u->xfer_buf, io_u->xfer_buflen));
		if (shim->events) {
			io_u_mark_submit(td, 1);
			io_u_mark_complete(td, 1);
		}
		return FIO_Q_COMPLETED;
	}
	ret = betree_fio_submit(shim->job, file, operation, io_u->offset, io_u->xfer_buf, io_u->xfer_buflen, io_u, &result);
	if (!ret)
		return FIO_Q_QUEUED;
	if (ret < 0)
		result = ret;
	note_result(io_u, result);
	io_u_mark_submit(td, 1);
	io_u_mark_complete(td, 1);
	return FIO_Q_COMPLETED;
}

static int betree_commit(struct thread_data *td)
{
	struct shim *shim = td->io_ops_data;

	if (!shim->events)
		return 0;
	if (td->io_u_queued)
		io_u_mark_submit(td, td->io_u_queued);
	return betree_fio_announce(shim->job);
}

static int betree_getevents(struct thread_data *td, unsigned int least, unsigned int most, const struct timespec *t)
{
	struct shim *shim = td->io_ops_data;
	int64_t timeout_ns = t ? t->tv_sec * 1000000000LL + t->tv_nsec : -1;

	if (!shim->events)
		return 0;
	return betree_fio_fetch(shim->job, shim->events, least, min(most, shim->events_max), timeout_ns);
}

static struct io_u *betree_event(struct thread_data *td, int event)
{
	struct shim *shim = td->io_ops_data;
	struct io_u *io_u = shim->events[event].token;

	note_result(io_u, shim->events[event].result);
	return io_u;
}

/* A job that ends early leaves requests under way, and fio frees their buffers. */
static void betree_io_u_free(struct thread_data *td, struct io_u *io_u)
{
	struct shim *shim = td->io_ops_data;

	if (shim && shim->events)
		betree_fio_drain(shim->job);
}

static int betree_iomem_alloc(struct thread_data *td, size_t total_mem)
{
	void *mem;

	if (posix_memalign(&mem, page_size, total_mem))
		return 1;
	td->orig_buffer = mem;
	return 0;
}

static void betree_iomem_free(struct thread_data *td)
{
	betree_io_u_free(td, NULL);
	free(td->orig_buffer);
}

static void betree_cleanup(struct thread_data *td)
{
	struct shim *shim = td->io_ops_data;
	int ret;

	if (!shim)
		return;
	ret = betree_fio_end(shim->job);
	if (ret < 0)
		td_verror(td, -ret, "betree: closing the database");
	free(shim->events);
	free(shim);
}

struct ioengine_ops ioengine = {
	.name = "betree",
	.version = FIO_IOOPS_VERSION,
	.flags = FIO_DISKLESSIO | FIO_NODISKUTIL | FIO_ASYNCIO_SYNC_TRIM | FIO_NO_OFFLOAD,
	.setup = betree_setup,
	.prepopulate_file = betree_prepopulate_file,
	.init = betree_init,
	.open_file = betree_open_file,
	.close_file = betree_close_file,
	.invalidate = betree_invalidate,
	.unlink_file = betree_unlink_file,
	.queue = betree_queue,
	.commit = betree_commit,
	.getevents = betree_getevents,
	.event = betree_event,
	.io_u_free = betree_io_u_free,
	.iomem_alloc = betree_iomem_alloc,
	.iomem_free = betree_iomem_free,
	.cleanup = betree_cleanup,
	.option_struct_size = sizeof(struct options),
	.options = options,
};

/* fio compares a number that several of its releases share, while structures change with each: compare the release. */
__attribute__((constructor)) static void check_version(void)
{
	if (strcmp(fio_version_string, SHIM_FIO_VERSION)) {
		log_err("betree: built for %s, loaded by %s; rebuild it for this fio\n", SHIM_FIO_VERSION, fio_version_string);
		ioengine.version = -1;
	}
}

/* Jobs that were set up and never ran are not cleaned up by fio. */
__attribute__((destructor)) static void close_all(void)
{
	betree_fio_close_all();
}
