/*
 * Every function of betree.h, from C: what it does, and what it says to arguments that are wrong.
 *
 * Takes a folder for pool files, which is empty. Prints nothing unless something is not as it should be.
 */

#include <betree.h>

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *folder;
static const storage_pref_t ANY = {254};
static const storage_pref_t WRONG = {7};

static void fail(int line, const char *what, err_t *err)
{
    fprintf(stderr, "line %d: %s\n", line, what);
    betree_print_error(err);
    exit(EXIT_FAILURE);
}

#define CHECK(holds)                                                                                                   \
    do {                                                                                                               \
        if (!(holds))                                                                                                  \
            fail(__LINE__, #holds, NULL);                                                                              \
    } while (0)

/* `call` uses `&err`, and does what it says. */
#define RETURNS(expected, call)                                                                                        \
    do {                                                                                                               \
        err_t *err = NULL;                                                                                             \
        if ((call) != (expected) || err != NULL)                                                                       \
            fail(__LINE__, #call, err);                                                                                \
    } while (0)
#define OK(call) RETURNS(BETREE_OK, call)
#define NONE(call) RETURNS(BETREE_NONE, call)

/* `place = call`, which uses `&err`, is a handle. */
#define MAKE(place, call)                                                                                              \
    do {                                                                                                               \
        err_t *err = NULL;                                                                                             \
        (place) = (call);                                                                                              \
        if ((place) == NULL || err != NULL)                                                                            \
            fail(__LINE__, #call, err);                                                                                \
    } while (0)

static void check_error(int line, const char *what, err_t *err, betree_error_kind_t kind)
{
    size_t len = 0;
    if (err == NULL || betree_error_kind(err) != kind || betree_error_errno(err) == 0)
        fail(line, what, err);
    const char *message = betree_error_message(err, &len);
    if (len == 0 || strlen(message) != len || betree_error_message(err, NULL) != message)
        fail(line, "the message of the error", err);
    betree_free_err(err);
}

/* `call`, which uses `&err`, fails with an error of this kind. */
#define FAILS(kind, call)                                                                                              \
    do {                                                                                                               \
        err_t *err = NULL;                                                                                             \
        if ((call) != BETREE_FAILED)                                                                                   \
            fail(__LINE__, #call, err);                                                                                \
        check_error(__LINE__, #call, err, BETREE_ERROR_##kind);                                                        \
    } while (0)

/* As FAILS, of a call that makes a handle. */
#define MAKES_NONE(kind, call)                                                                                         \
    do {                                                                                                               \
        err_t *err = NULL;                                                                                             \
        if ((call) != NULL)                                                                                            \
            fail(__LINE__, #call, err);                                                                                \
        check_error(__LINE__, #call, err, BETREE_ERROR_##kind);                                                        \
    } while (0)

/* A text and its length. */
#define T(text) (text), strlen(text)

/* `slice` holds `text`; frees it. */
static bool is(byte_slice_t *slice, const char *text)
{
    bool same = slice->ptr != NULL && slice->len == strlen(text) && memcmp(slice->ptr, text, slice->len) == 0;
    betree_free_byte_slice(slice);
    return same;
}

/* `slice` has `part` somewhere; frees it. */
static bool has(byte_slice_t *slice, const char *part)
{
    bool found = memmem(slice->ptr, slice->len, part, strlen(part)) != NULL;
    betree_free_byte_slice(slice);
    return found;
}

/* The names that are left, each with a comma behind; frees the iterator. */
static bool names_are(name_iter_t *iter, const char *expected)
{
    char all[1024] = "";
    byte_slice_t name;
    int next;
    while ((next = betree_name_iter_next(iter, &name, NULL)) == BETREE_OK) {
        strncat(all, name.ptr, name.len);
        strcat(all, ",");
        betree_free_byte_slice(&name);
    }
    CHECK(next == BETREE_NONE);
    NONE(betree_name_iter_next(iter, &name, &err));
    betree_free_name_iter(iter);
    return strcmp(all, expected) == 0;
}

/* The entries that are left, as key=value, each with a comma behind; frees the iterator. */
static bool entries_are(range_iter_t *iter, const char *expected)
{
    char all[1024] = "";
    byte_slice_t key, value;
    int next;
    while ((next = betree_range_iter_next(iter, &key, &value, NULL)) == BETREE_OK) {
        strncat(all, key.ptr, key.len);
        strcat(all, "=");
        strncat(all, value.ptr, value.len);
        strcat(all, ",");
        betree_free_byte_slice(&key);
        betree_free_byte_slice(&value);
    }
    CHECK(next == BETREE_NONE);
    /* The end stays the end, from either side. */
    NONE(betree_range_iter_next(iter, &key, &value, &err));
    NONE(betree_range_iter_next_back(iter, &key, &value, &err));
    betree_free_range_iter(iter);
    return strcmp(all, expected) == 0;
}

static bool objects_are(betree_object_iter_t *iter, const char *expected)
{
    char all[1024] = "";
    byte_slice_t name;
    betree_object_info_t info;
    int next;
    while ((next = betree_object_iter_next(iter, &name, &info, NULL)) == BETREE_OK) {
        strncat(all, name.ptr, name.len);
        sprintf(all + strlen(all), "=%d,", (int)info.size);
        betree_free_byte_slice(&name);
    }
    CHECK(next == BETREE_NONE);
    NONE(betree_object_iter_next_back(iter, &name, &info, &err));
    betree_free_object_iter(iter);
    return strcmp(all, expected) == 0;
}

static bool differences_are(betree_diff_iter_t *iter, const char *expected)
{
    char all[1024] = "";
    byte_slice_t key, value;
    bool is_deleted;
    int next;
    while ((next = betree_diff_iter_next(iter, &key, &value, &is_deleted, NULL)) == BETREE_OK) {
        strcat(all, is_deleted ? "-" : "+");
        strncat(all, key.ptr, key.len);
        strcat(all, ",");
        CHECK(!is_deleted || value.len == 0);
        betree_free_byte_slice(&key);
        betree_free_byte_slice(&value);
    }
    CHECK(next == BETREE_NONE);
    NONE(betree_diff_iter_next(iter, &key, &value, &is_deleted, &err));
    betree_free_diff_iter(iter);
    return strcmp(all, expected) == 0;
}

/* A configuration of two tiers: a file in the folder, and memory. */
static cfg_t *configuration(const char *file)
{
    char disk[4096];
    snprintf(disk, sizeof disk, "file:%s/%s:48MiB:direct=false", folder, file);
    const char *words[] = {disk};
    const char *memory[] = {"mem:16MiB"};
    cfg_t *cfg;
    MAKE(cfg, betree_parse_configuration(words, 1, &err));
    OK(betree_configuration_add_tier(cfg, memory, 1, &err));
    OK(betree_configuration_set(cfg, T("segment_size"), T("512KiB"), &err));
    OK(betree_configuration_set(cfg, T("cache_size"), T("8MiB"), &err));
    OK(betree_configuration_set(cfg, T("memtable_size"), T("1MiB"), &err));
    return cfg;
}

static db_t *database(const char *file)
{
    cfg_t *cfg = configuration(file);
    db_t *db;
    MAKE(db, betree_database_create(cfg, false, &err));
    betree_free_cfg(cfg);
    return db;
}

static void test_configurations(void)
{
    cfg_t *cfg = betree_configuration_default();
    byte_slice_t json;
    CHECK(cfg != NULL);
    OK(betree_configuration_to_json(cfg, &json, &err));
    cfg_t *same;
    MAKE(same, betree_configuration_from_json(json.ptr, json.len, &err));
    betree_free_byte_slice(&json);
    /* Freeing again does nothing. */
    betree_free_byte_slice(&json);
    betree_free_byte_slice(NULL);
    betree_free_cfg(same);

    OK(betree_configuration_set(cfg, T("access_mode"), T("OpenOrCreate"), &err));
    OK(betree_configuration_to_json(cfg, &json, &err));
    CHECK(has(&json, "\"OpenOrCreate\""));
    FAILS(INVALID_ARGUMENT, betree_configuration_set(cfg, T("no_such_field"), T("1"), &err));
    FAILS(INVALID_ARGUMENT, betree_configuration_set(cfg, T("cache_size"), T("many"), &err));
    FAILS(INVALID_ARGUMENT, betree_configuration_set(cfg, T(""), T("1"), &err));
    FAILS(INVALID_ARGUMENT, betree_configuration_set(NULL, T("cache_size"), T("1MiB"), &err));
    FAILS(INVALID_ARGUMENT, betree_configuration_set(cfg, "\xff", 1, T("1"), &err));
    OK(betree_configuration_set_access_mode(cfg, BETREE_OPEN_IF_EXISTS, &err));
    FAILS(INVALID_ARGUMENT, betree_configuration_set_access_mode(cfg, 3, &err));

    const char *disks[] = {"/tmp/no/a", "/tmp/no/b"}, *holes[] = {"/tmp/no/a", NULL};
    CHECK(betree_configuration_set_disks(cfg, disks, 2) == BETREE_OK);
    CHECK(betree_configuration_set_disks(cfg, holes, 2) == BETREE_FAILED);
    CHECK(betree_configuration_set_disks(cfg, NULL, 1) == BETREE_FAILED);
    CHECK(betree_configuration_set_disks(cfg, disks, SIZE_MAX) == BETREE_FAILED);
    CHECK(betree_configuration_set_disks(NULL, disks, 2) == BETREE_FAILED);
    CHECK(betree_configuration_set_direct(cfg, 1) == BETREE_OK);
    OK(betree_configuration_to_json(cfg, &json, &err));
    CHECK(!has(&json, "\"direct\": false"));
    CHECK(betree_configuration_set_direct(cfg, 0) == BETREE_OK);
    CHECK(betree_configuration_set_direct(NULL, 0) == BETREE_FAILED);
    CHECK(betree_configuration_set_iodepth(cfg, 32) == BETREE_OK);
    CHECK(betree_configuration_set_iodepth(NULL, 32) == BETREE_FAILED);
    OK(betree_configuration_to_json(cfg, &json, &err));
    byte_slice_t again;
    OK(betree_configuration_to_json(cfg, &again, &err));
    CHECK(has(&again, "\"queue_depth_factor\": 32") && has(&json, "\"direct\": false"));
    FAILS(INVALID_ARGUMENT, betree_configuration_to_json(cfg, NULL, &err));
    MAKES_NONE(NOT_FOUND, betree_open_db(cfg, &err));
    betree_free_cfg(cfg);

    const char *wrong[] = {"mirror", "mem:1MiB"};
    MAKES_NONE(INVALID_ARGUMENT, betree_parse_configuration(wrong, 2, &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_parse_configuration(NULL, 2, &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_configuration_from_json(T("{\"cache\": 1}"), &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_configuration_from_json(NULL, 3, &err));

    char path[4096];
    snprintf(path, sizeof path, "%s/betree.json", folder);
    MAKES_NONE(INVALID_ARGUMENT, betree_configuration_from_file(T(path), &err));
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs("{\"cache_size\": \"3MiB\"}", file) >= 0 && fclose(file) == 0);
    MAKE(cfg, betree_configuration_from_file(T(path), &err));
    betree_free_cfg(cfg);
    CHECK(setenv("BETREE_CONFIG", path, 1) == 0 && setenv("BETREE__SYNC_INTERVAL_MS", "77", 1) == 0);
    MAKE(cfg, betree_configuration_from_env(&err));
    OK(betree_configuration_to_json(cfg, &json, &err));
    OK(betree_configuration_to_json(cfg, &again, &err));
    CHECK(has(&json, "3145728") && has(&again, "\"sync_interval_ms\": 77"));
    betree_free_cfg(cfg);
    CHECK(setenv("BETREE__SYNC_INTERVAL_MS", "never", 1) == 0);
    MAKES_NONE(INVALID_ARGUMENT, betree_configuration_from_env(&err));
    CHECK(unsetenv("BETREE_CONFIG") == 0 && unsetenv("BETREE__SYNC_INTERVAL_MS") == 0);
    betree_free_cfg(NULL);
}

static void test_errors(void)
{
    err_t *err = NULL;
    CHECK(betree_build_db(NULL, NULL) == NULL);
    CHECK(betree_build_db(NULL, &err) == NULL && err != NULL);
    CHECK(betree_error_kind(err) == BETREE_ERROR_INVALID_ARGUMENT && betree_error_errno(err) == EINVAL);
    CHECK(strstr(betree_error_message(err, NULL), "cfg") != NULL);
    betree_free_err(err);
    betree_free_err(NULL);
    size_t len = 9;
    CHECK(betree_error_kind(NULL) == BETREE_ERROR_OTHER && betree_error_errno(NULL) == EINVAL);
    CHECK(*betree_error_message(NULL, &len) == 0 && len == 0);
    betree_print_error(NULL);
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", BETREE_VERSION_MAJOR, BETREE_VERSION_MINOR, BETREE_VERSION_PATCH);
    CHECK(strcmp(betree_version(), version) == 0);
}

static void test_databases(void)
{
    cfg_t *cfg = configuration("databases.img");
    db_t *db, *other;
    MAKES_NONE(NOT_FOUND, betree_open_db(cfg, &err));
    MAKES_NONE(NOT_FOUND, betree_database_open_read_only(cfg, &err));
    MAKE(db, betree_open_or_create_db(cfg, &err));
    MAKES_NONE(BUSY, betree_open_db(cfg, &err));
    OK(betree_create_ds(db, T("a"), ANY, &err));
    ds_t *ds;
    MAKE(ds, betree_open_ds(db, T("a"), ANY, &err));
    OK(betree_dataset_insert(ds, T("k"), T("v"), ANY, &err));
    OK(betree_sync_db(db, &err));
    OK(betree_database_checkpoint(db, &err));
    OK(betree_database_settle(db, &err));
    OK(betree_database_drop_cache(db, &err));
    betree_storage_info_t tiers[4];
    OK(betree_database_space(db, &tiers, &err));
    CHECK(tiers[0].total > 0 && tiers[0].free < tiers[0].total && tiers[1].total > 0 && tiers[2].total == 0);
    byte_slice_t json;
    OK(betree_database_metrics(db, &json, &err));
    CHECK(has(&json, "\"durable_generation\":"));
    OK(betree_database_configuration(db, &json, &err));
    CHECK(has(&json, "databases.img"));
    betree_verify_report_t report = {0};
    OK(betree_database_verify(db, &report, &err));
    CHECK(report.datasets == 1 && report.messages >= 1 && report.blocks > 0);
    OK(betree_database_verify(db, NULL, &err));

    OK(betree_database_rename_dataset(db, T("a"), T("b"), &err));
    FAILS(NOT_FOUND, betree_database_rename_dataset(db, T("a"), T("b"), &err));
    name_iter_t *names;
    MAKE(names, betree_iter_datasets(db, &err));
    CHECK(names_are(names, "b,"));

    /* NULL, one after the other. */
    FAILS(INVALID_ARGUMENT, betree_sync_db(NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_database_space(db, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_database_space(NULL, &tiers, &err));
    FAILS(INVALID_ARGUMENT, betree_database_metrics(db, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_database_rename_dataset(db, NULL, 1, T("b"), &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_iter_datasets(NULL, &err));
    OK(betree_database_close(NULL, &err));
    CHECK(betree_close_db(NULL) == BETREE_OK);

    /* Closing writes what nobody synced. Closed while a dataset is open: it says so, and its pool is free when it is gone. */
    OK(betree_dataset_insert(ds, T("late"), T("w"), ANY, &err));
    OK(betree_database_close(db, &err));
    byte_slice_t value;
    FAILS(CLOSED, betree_dataset_get(ds, T("k"), &value, &err));
    MAKES_NONE(CLOSED, betree_dataset_view(ds, &err));
    MAKES_NONE(BUSY, betree_build_db(cfg, &err));
    OK(betree_close_ds(NULL, ds, &err));

    MAKE(db, betree_database_open_read_only(cfg, &err));
    MAKE(other, betree_database_open_read_only(cfg, &err));
    MAKE(ds, betree_open_ds(db, T("b"), ANY, &err));
    OK(betree_dataset_get(ds, T("k"), &value, &err));
    CHECK(is(&value, "v"));
    OK(betree_dataset_get(ds, T("late"), &value, &err));
    CHECK(is(&value, "w"));
    FAILS(READ_ONLY, betree_dataset_insert(ds, T("k"), T("w"), ANY, &err));
    OK(betree_close_ds(db, ds, &err));
    CHECK(betree_close_db(db) == BETREE_OK && betree_close_db(other) == BETREE_OK);

    MAKES_NONE(ALREADY_EXISTS, betree_database_create(cfg, false, &err));
    MAKE(db, betree_build_db(cfg, &err));
    OK(betree_database_destroy_dataset(db, T("b"), &err));
    FAILS(NOT_FOUND, betree_database_destroy_dataset(db, T("b"), &err));
    CHECK(betree_close_db(db) == BETREE_OK);
    MAKE(db, betree_create_db(cfg, &err));
    MAKE(names, betree_iter_datasets(db, &err));
    CHECK(names_are(names, ""));
    CHECK(betree_close_db(db) == BETREE_OK);
    betree_free_cfg(cfg);
}

static void test_datasets(void)
{
    db_t *db = database("datasets.img");
    ds_t *ds, *other;
    byte_slice_t value, key;
    OK(betree_create_ds(db, T("a"), STORAGE_PREF_FAST, &err));
    FAILS(ALREADY_EXISTS, betree_create_ds(db, T("a"), ANY, &err));
    FAILS(INVALID_ARGUMENT, betree_create_ds(db, T("w"), WRONG, &err));
    FAILS(INVALID_ARGUMENT, betree_create_ds(db, NULL, 0, ANY, &err));
    OK(betree_create_ds_with(db, T("c"), T("{\"block_size\": 8192}"), &err));
    FAILS(INVALID_ARGUMENT, betree_create_ds_with(db, T("d"), T("{\"block\": 1}"), &err));
    MAKES_NONE(NOT_FOUND, betree_open_ds(db, T("nowhere"), ANY, &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_open_ds(db, T("a"), WRONG, &err));
    MAKE(ds, betree_open_ds(db, T("a"), ANY, &err));
    MAKE(other, betree_open_or_create_ds(db, T("c"), STORAGE_PREF_FASTEST, &err));

    OK(betree_dataset_insert(ds, T("ada"), T("1815"), STORAGE_PREF_FASTEST, &err));
    OK(betree_dataset_upsert(ds, T("ada"), T("!"), 4, ANY, &err));
    OK(betree_dataset_get(ds, T("ada"), &value, &err));
    CHECK(is(&value, "1815!") && value.ptr == NULL && value.len == 0);
    NONE(betree_dataset_get(ds, T("nobody"), &value, &err));
    /* Without a place for the error, too. */
    CHECK(betree_dataset_get(ds, T("nobody"), &value, NULL) == BETREE_NONE);
    CHECK(betree_dataset_get(NULL, T("nobody"), &value, NULL) == BETREE_FAILED);
    char part[4];
    size_t n_read = 0;
    uint64_t value_len = 0;
    OK(betree_dataset_get_part(ds, T("ada"), 3, part, sizeof part, &n_read, &value_len, &err));
    CHECK(n_read == 2 && value_len == 5 && memcmp(part, "5!", 2) == 0);
    OK(betree_dataset_get_part(ds, T("ada"), 0, NULL, 0, NULL, NULL, &err));
    NONE(betree_dataset_get_part(ds, T("nobody"), 0, part, sizeof part, &n_read, &value_len, &err));
    FAILS(INVALID_ARGUMENT, betree_dataset_get_part(ds, T("ada"), 0, NULL, 4, NULL, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_dataset_get(ds, NULL, 1, &value, &err));
    FAILS(INVALID_ARGUMENT, betree_dataset_get(ds, "k", SIZE_MAX, &value, &err));
    FAILS(INVALID_ARGUMENT, betree_dataset_get(ds, "k", (size_t)PTRDIFF_MAX + 1, &value, &err));
    FAILS(INVALID_ARGUMENT, betree_dataset_get(ds, "k", 1, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_dataset_insert(ds, T("k"), NULL, 1, ANY, &err));
    FAILS(INVALID_ARGUMENT, betree_dataset_insert(ds, T("k"), T("v"), WRONG, &err));
    char *large = calloc(1, 128 << 10);
    CHECK(large != NULL);
    FAILS(TOO_LARGE, betree_dataset_insert(ds, large, 128 << 10, T("v"), ANY, &err));
    /* The empty key and the empty value are like any other. */
    OK(betree_dataset_insert(ds, NULL, 0, NULL, 0, ANY, &err));
    OK(betree_dataset_get(ds, "", 0, &value, &err));
    CHECK(is(&value, ""));
    OK(betree_dataset_delete(ds, NULL, 0, &err));
    FAILS(INVALID_ARGUMENT, betree_dataset_delete(ds, NULL, 1, &err));
    /* A large value, with zero bytes, has its length. */
    OK(betree_dataset_insert(ds, T("large"), large, 128 << 10, ANY, &err));
    OK(betree_dataset_get(ds, T("large"), &value, &err));
    CHECK(value.len == 128 << 10 && memcmp(value.ptr, large, value.len) == 0);
    betree_free_byte_slice(&value);
    OK(betree_dataset_delete(ds, T("large"), &err));
    free(large);

    for (char name[] = "a"; name[0] <= 'f'; name[0]++)
        OK(betree_dataset_insert(other, T(name), name, 1, ANY, &err));
    range_iter_t *iter;
    MAKE(iter, betree_dataset_range(other, T("b"), T("d"), &err));
    CHECK(entries_are(iter, "b=b,c=c,"));
    MAKE(iter, betree_dataset_range(other, T("b"), NULL, 0, &err));
    OK(betree_range_iter_next_back(iter, &key, &value, &err));
    CHECK(is(&key, "f") && is(&value, "f"));
    FAILS(INVALID_ARGUMENT, betree_range_iter_next(iter, NULL, &value, &err));
    FAILS(INVALID_ARGUMENT, betree_range_iter_next(iter, &key, NULL, &err));
    /* It keeps its state: what is written meanwhile is not in it. */
    OK(betree_dataset_delete(other, T("c"), &err));
    CHECK(entries_are(iter, "b=b,c=c,d=d,e=e,"));
    /* An empty bound is one, NULL is none. */
    MAKE(iter, betree_dataset_range(other, NULL, 0, "", 0, &err));
    CHECK(entries_are(iter, ""));
    MAKE(iter, betree_dataset_prefix(other, T("e"), &err));
    CHECK(entries_are(iter, "e=e,"));
    MAKES_NONE(INVALID_ARGUMENT, betree_dataset_range(other, NULL, 1, NULL, 0, &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_dataset_prefix(NULL, T("e"), &err));
    FAILS(INVALID_ARGUMENT, betree_range_iter_next(NULL, &key, &value, &err));
    OK(betree_dataset_range_delete(other, T("b"), T("e"), &err));
    MAKE(iter, betree_dataset_range(other, NULL, 0, NULL, 0, &err));
    CHECK(entries_are(iter, "a=a,e=e,f=f,"));

    OK(betree_database_checkpoint(db, &err));
    betree_migrated_t moved = {0, 0};
    OK(betree_dataset_migrate(other, NULL, 0, NULL, 0, STORAGE_PREF_FAST, &moved, &err));
    FAILS(INVALID_ARGUMENT, betree_dataset_migrate(other, NULL, 0, NULL, 0, STORAGE_PREF_SLOWEST, NULL, &err));
    OK(betree_dataset_stats(other, &value, &err));
    CHECK(has(&value, "\"levels\":"));

    size_t len = 0;
    const char *before = betree_dataset_name(ds, &len);
    CHECK(len == 1 && strcmp(before, "a") == 0);
    OK(betree_database_rename_dataset(db, T("a"), T("renamed"), &err));
    const char *after = betree_dataset_name(ds, NULL);
    CHECK(strcmp(after, "renamed") == 0 && strcmp(before, "a") == 0 && betree_dataset_name(ds, &len) == after && len == 7);
    CHECK(betree_dataset_name(NULL, NULL) == NULL);

    /* Views are of one instant, and outlive what they are of. */
    betree_view_t *view, *of_all;
    betree_database_view_t *all;
    MAKE(view, betree_dataset_view(other, &err));
    MAKE(all, betree_database_view(db, &err));
    OK(betree_dataset_delete(other, T("a"), &err));
    MAKE(of_all, betree_database_view_dataset(all, T("c"), &err));
    MAKES_NONE(NOT_FOUND, betree_database_view_dataset(all, T("nowhere"), &err));
    OK(betree_view_get(of_all, T("a"), &value, &err));
    CHECK(is(&value, "a"));
    NONE(betree_view_get(view, T("b"), &value, &err));
    MAKE(iter, betree_view_prefix(of_all, T("f"), &err));
    CHECK(entries_are(iter, "f=f,"));
    betree_free_database_view(all);
    MAKES_NONE(INVALID_ARGUMENT, betree_view_range(NULL, NULL, 0, NULL, 0, &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_database_view(NULL, &err));

    /* Freed in the wrong order on purpose; what was read stays what it was, whatever becomes of the key and the database. */
    byte_slice_t kept;
    OK(betree_dataset_get(ds, T("ada"), &kept, &err));
    OK(betree_dataset_insert(ds, T("ada"), T("1852."), ANY, &err));
    OK(betree_database_drop_cache(db, &err));
    MAKE(iter, betree_view_range(view, T("a"), T("f"), &err));
    OK(betree_close_ds(db, other, &err));
    OK(betree_close_ds(db, ds, &err));
    OK(betree_close_ds(db, NULL, &err));
    CHECK(betree_close_db(db) == BETREE_OK);
    betree_free_view(of_all);
    betree_free_view(view);
    CHECK(entries_are(iter, "a=a,e=e,"));
    CHECK(is(&kept, "1815!"));
    betree_free_view(NULL);
    betree_free_database_view(NULL);
    betree_free_range_iter(NULL);
    betree_free_name_iter(NULL);
}

static void test_batches(void)
{
    db_t *db = database("batches.img"), *stranger = database("stranger.img");
    ds_t *ds, *foreign;
    betree_batch_t *batch;
    range_iter_t *iter;
    MAKE(ds, betree_open_or_create_ds(db, T("a"), ANY, &err));
    MAKE(foreign, betree_open_or_create_ds(stranger, T("a"), ANY, &err));
    MAKE(batch, betree_batch_new(db, &err));
    OK(betree_batch_insert(batch, ds, T("a"), T("1"), ANY, &err));
    OK(betree_batch_insert(batch, ds, T("b"), T("2"), STORAGE_PREF_FAST, &err));
    OK(betree_batch_insert(batch, ds, T("c"), T("3"), ANY, &err));
    OK(betree_batch_upsert(batch, ds, T("a"), T("0"), 1, &err));
    OK(betree_batch_delete(batch, ds, T("b"), &err));
    OK(betree_batch_range_delete(batch, ds, T("c"), T("d"), &err));
    MAKE(iter, betree_dataset_range(ds, NULL, 0, NULL, 0, &err));
    CHECK(entries_are(iter, ""));
    FAILS(INVALID_ARGUMENT, betree_batch_commit(batch, 2, &err));
    OK(betree_batch_commit(batch, BETREE_SYNC, &err));
    MAKE(iter, betree_dataset_range(ds, NULL, 0, NULL, 0, &err));
    CHECK(entries_are(iter, "a=10,"));
    /* It is empty now, and may be filled again; what is wrong with one write is wrong with all. */
    OK(betree_batch_commit(batch, BETREE_BUFFERED, &err));
    OK(betree_batch_insert(batch, ds, T("x"), T("y"), ANY, &err));
    OK(betree_batch_insert(batch, foreign, T("x"), T("y"), ANY, &err));
    FAILS(INVALID_ARGUMENT, betree_batch_commit(batch, BETREE_BUFFERED, &err));
    byte_slice_t value;
    NONE(betree_dataset_get(ds, T("x"), &value, &err));
    OK(betree_batch_insert(batch, ds, T("x"), T("y"), ANY, &err));
    OK(betree_batch_commit(batch, BETREE_BUFFERED, &err));
    OK(betree_dataset_get(ds, T("x"), &value, &err));
    CHECK(is(&value, "y"));
    FAILS(INVALID_ARGUMENT, betree_batch_insert(NULL, ds, T("x"), T("y"), ANY, &err));
    FAILS(INVALID_ARGUMENT, betree_batch_insert(batch, NULL, T("x"), T("y"), ANY, &err));
    FAILS(INVALID_ARGUMENT, betree_batch_insert(batch, ds, NULL, 5, T("y"), ANY, &err));
    FAILS(INVALID_ARGUMENT, betree_batch_commit(NULL, BETREE_SYNC, &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_batch_new(NULL, &err));
    /* What was not committed goes with the batch. */
    OK(betree_batch_insert(batch, ds, T("lost"), T("y"), ANY, &err));
    betree_free_batch(batch);
    betree_free_batch(NULL);
    NONE(betree_dataset_get(ds, T("lost"), &value, &err));
    OK(betree_close_ds(db, ds, &err));
    OK(betree_close_ds(stranger, foreign, &err));
    CHECK(betree_close_db(db) == BETREE_OK && betree_close_db(stranger) == BETREE_OK);
}

static void test_snapshots(void)
{
    db_t *db = database("snapshots.img");
    ds_t *ds, *second, *clone;
    ss_t *monday, *tuesday;
    byte_slice_t value, name;
    name_iter_t *names;
    range_iter_t *iter;
    betree_diff_iter_t *diff;
    MAKE(ds, betree_open_or_create_ds(db, T("a"), ANY, &err));
    MAKE(second, betree_open_or_create_ds(db, T("b"), ANY, &err));
    OK(betree_dataset_insert(ds, T("k"), T("old"), ANY, &err));
    OK(betree_dataset_insert(ds, T("gone"), T("x"), ANY, &err));
    OK(betree_create_snapshot(db, ds, T("monday"), &err));
    FAILS(ALREADY_EXISTS, betree_create_snapshot(db, ds, T("monday"), &err));
    FAILS(INVALID_ARGUMENT, betree_create_snapshot(db, ds, T("a@b"), &err));
    OK(betree_dataset_insert(ds, T("k"), T("new"), ANY, &err));
    OK(betree_dataset_delete(ds, T("gone"), &err));
    const ds_t *both[] = {ds, second}, *hole[] = {ds, NULL};
    OK(betree_create_snapshots(db, both, 2, NULL, 0, T("tuesday"), &err));
    FAILS(INVALID_ARGUMENT, betree_create_snapshots(db, hole, 2, NULL, 0, T("x"), &err));
    FAILS(INVALID_ARGUMENT, betree_create_snapshots(db, NULL, 2, NULL, 0, T("x"), &err));
    OK(betree_dataset_insert(ds, T("later"), T("x"), ANY, &err));
    MAKES_NONE(NOT_FOUND, betree_open_snapshot(ds, T("sunday"), &err));
    MAKE(monday, betree_open_snapshot(ds, T("monday"), &err));
    MAKE(tuesday, betree_open_snapshot(ds, T("tuesday"), &err));
    OK(betree_snapshot_get(monday, T("k"), &value, &err));
    CHECK(is(&value, "old"));
    NONE(betree_snapshot_get(tuesday, T("gone"), &value, &err));
    MAKE(iter, betree_snapshot_range(monday, NULL, 0, NULL, 0, &err));
    CHECK(entries_are(iter, "gone=x,k=old,"));
    MAKE(iter, betree_snapshot_prefix(monday, T("g"), &err));
    CHECK(entries_are(iter, "gone=x,"));
    MAKE(diff, betree_snapshot_diff(monday, tuesday, &err));
    CHECK(differences_are(diff, "-gone,+k,"));
    MAKE(diff, betree_dataset_changes_since(ds, tuesday, &err));
    CHECK(differences_are(diff, "+later,"));
    MAKES_NONE(INVALID_ARGUMENT, betree_snapshot_diff(monday, NULL, &err));
    betree_snapshot_info_t info;
    OK(betree_dataset_snapshot_info(ds, T("monday"), &info, &err));
    CHECK(info.created_ns > 0 && info.generation > 0 && info.holds == 0 && !info.is_receiving);
    CHECK(strlen(info.guid) == 36 || strlen(info.guid) == 32);
    FAILS(NOT_FOUND, betree_dataset_snapshot_info(ds, T("sunday"), &info, &err));

    OK(betree_hold_snapshot(ds, T("monday"), T("backup"), &err));
    FAILS(ALREADY_EXISTS, betree_hold_snapshot(ds, T("monday"), T("backup"), &err));
    MAKE(names, betree_iter_holds(ds, T("monday"), &err));
    CHECK(names_are(names, "backup,"));
    FAILS(BUSY, betree_delete_snapshot(db, ds, T("monday"), &err));
    OK(betree_release_snapshot(ds, T("monday"), T("backup"), &err));
    FAILS(NOT_FOUND, betree_release_snapshot(ds, T("monday"), T("backup"), &err));
    OK(betree_rename_snapshot(ds, T("tuesday"), T("friday"), &err));
    MAKE(names, betree_iter_snapshots(db, ds, &err));
    CHECK(names_are(names, "monday,friday,"));

    MAKE(clone, betree_clone_snapshot(db, monday, T("clone"), &err));
    MAKES_NONE(ALREADY_EXISTS, betree_clone_snapshot(db, monday, T("clone"), &err));
    OK(betree_dataset_origin(clone, &name, &value, &err));
    CHECK(is(&name, "a") && is(&value, "monday"));
    NONE(betree_dataset_origin(ds, &name, &value, &err));
    MAKE(names, betree_iter_clones(ds, T("monday"), &err));
    CHECK(names_are(names, "clone,"));
    FAILS(INVALID_ARGUMENT, betree_dataset_promote(ds, &err));
    OK(betree_dataset_promote(clone, &err));
    MAKE(names, betree_iter_snapshots(NULL, clone, &err));
    CHECK(names_are(names, "monday,"));

    FAILS(NOT_FOUND, betree_rollback_snapshot(ds, T("monday"), false, &err));
    OK(betree_rollback_snapshot(ds, T("friday"), false, &err));
    NONE(betree_dataset_get(ds, T("later"), &value, &err));
    OK(betree_delete_snapshot(NULL, ds, T("friday"), &err));
    /* Who has it open still reads it. */
    OK(betree_snapshot_get(tuesday, T("k"), &value, &err));
    CHECK(is(&value, "new"));
    FAILS(INVALID_ARGUMENT, betree_delete_snapshot(db, NULL, T("friday"), &err));
    OK(betree_close_ds(db, clone, &err));
    OK(betree_close_ds(db, ds, &err));
    OK(betree_close_ds(db, second, &err));
    CHECK(betree_close_db(db) == BETREE_OK);
    FAILS(CLOSED, betree_snapshot_get(tuesday, T("k"), &value, &err));
    betree_close_snapshot(monday);
    betree_close_snapshot(tuesday);
    betree_close_snapshot(NULL);
    betree_free_diff_iter(NULL);
}

/* A stream in memory; fails once `limit` bytes went through. */
typedef struct {
    char *bytes;
    size_t len, at, limit;
} pipe_t;

static ptrdiff_t pipe_write(void *context, const void *bytes, size_t length)
{
    pipe_t *pipe = context;
    if (pipe->len + length > pipe->limit)
        return -EPIPE;
    /* Less than was offered, as pipes do. */
    length = length > 1000 ? 1000 : length;
    pipe->bytes = realloc(pipe->bytes, pipe->len + length);
    CHECK(pipe->bytes != NULL);
    memcpy(pipe->bytes + pipe->len, bytes, length);
    pipe->len += length;
    return (ptrdiff_t)length;
}

static ptrdiff_t pipe_read(void *context, void *buffer, size_t length)
{
    pipe_t *pipe = context;
    if (pipe->at >= pipe->limit)
        return -ECONNRESET;
    size_t left = pipe->len - pipe->at;
    length = length > left ? left : length;
    memcpy(buffer, pipe->bytes + pipe->at, length);
    pipe->at += length;
    return (ptrdiff_t)length;
}

/* Says that it did more than it was asked for. */
static ptrdiff_t liar(void *context, void *buffer, size_t length)
{
    (void)context;
    (void)buffer;
    return (ptrdiff_t)length + 1;
}

static void test_streams(void)
{
    db_t *db = database("sender.img"), *backup = database("receiver.img");
    ds_t *ds, *copy;
    ss_t *one, *two;
    byte_slice_t value, token;
    pipe_t whole = {NULL, 0, 0, SIZE_MAX}, changes = {NULL, 0, 0, SIZE_MAX}, broken = {NULL, 0, 0, 10};
    MAKE(ds, betree_open_or_create_ds(db, T("a"), ANY, &err));
    for (char name[] = "k0"; name[1] <= '9'; name[1]++)
        OK(betree_dataset_insert(ds, T(name), T("one"), ANY, &err));
    OK(betree_create_snapshot(db, ds, T("one"), &err));
    OK(betree_dataset_insert(ds, T("k1"), T("two"), ANY, &err));
    OK(betree_dataset_delete(ds, T("k2"), &err));
    OK(betree_create_snapshot(db, ds, T("two"), &err));
    MAKE(one, betree_open_snapshot(ds, T("one"), &err));
    MAKE(two, betree_open_snapshot(ds, T("two"), &err));

    betree_send_counts_t sent;
    betree_receive_counts_t received;
    betree_send_options_t options = {BETREE_COMPRESSION_ZSTD, 3, NULL, 0};
    OK(betree_snapshot_send(one, NULL, &options, pipe_write, &whole, &sent, &err));
    CHECK(sent.puts == 10 && sent.deletes == 0 && sent.bytes == whole.len);
    OK(betree_snapshot_send(two, one, NULL, pipe_write, &changes, &sent, &err));
    CHECK(sent.puts == 1 && sent.deletes == 1 && sent.bytes == changes.len);
    err_t *failure = NULL;
    CHECK(betree_snapshot_send(two, NULL, NULL, pipe_write, &broken, NULL, &failure) == BETREE_FAILED);
    CHECK(betree_error_kind(failure) == BETREE_ERROR_IO && betree_error_errno(failure) == EPIPE);
    betree_free_err(failure);
    options.compression = 9;
    FAILS(INVALID_ARGUMENT, betree_snapshot_send(one, NULL, &options, pipe_write, &broken, NULL, &err));
    options.compression = BETREE_COMPRESSION_ZSTD;
    options.level = 99;
    FAILS(INVALID_ARGUMENT, betree_snapshot_send(one, NULL, &options, pipe_write, &broken, NULL, &err));
    options = (betree_send_options_t){BETREE_COMPRESSION_LZ4, 0, "no token", 8};
    FAILS(INVALID_ARGUMENT, betree_snapshot_send(one, NULL, &options, pipe_write, &broken, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_snapshot_send(one, NULL, NULL, NULL, NULL, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_snapshot_send(NULL, NULL, NULL, pipe_write, &broken, NULL, &err));

    /* Half of it, and the rest. */
    NONE(betree_receive_token(backup, T("copy"), &token, &err));
    whole.limit = whole.len - 40;
    pipe_t half = {whole.bytes, whole.len - 40, 0, whole.len - 40};
    failure = NULL;
    CHECK(betree_receive(backup, T("copy"), false, pipe_read, &half, &received, &failure) == BETREE_FAILED);
    CHECK(betree_error_kind(failure) == BETREE_ERROR_IO && betree_error_errno(failure) == ECONNRESET);
    betree_free_err(failure);
    MAKES_NONE(NOT_FOUND, betree_open_ds(backup, T("copy"), ANY, &err));
    OK(betree_receive_token(backup, T("copy"), &token, &err));
    pipe_t rest = {NULL, 0, 0, SIZE_MAX};
    options = (betree_send_options_t){BETREE_COMPRESSION_ZSTD, 3, token.ptr, token.len};
    OK(betree_snapshot_send(one, NULL, &options, pipe_write, &rest, NULL, &err));
    betree_free_byte_slice(&token);
    OK(betree_receive(backup, T("copy"), false, pipe_read, &rest, &received, &err));
    CHECK(received.snapshots == 1 && rest.at == rest.len);
    free(rest.bytes);

    OK(betree_receive(backup, T("copy"), false, pipe_read, &changes, NULL, &err));
    MAKE(copy, betree_open_ds(backup, T("copy"), ANY, &err));
    OK(betree_dataset_get(copy, T("k1"), &value, &err));
    CHECK(is(&value, "two"));
    NONE(betree_dataset_get(copy, T("k2"), &value, &err));
    /* It is there: again only by force. */
    whole.limit = SIZE_MAX;
    FAILS(ALREADY_EXISTS, betree_receive(backup, T("copy"), false, pipe_read, &whole, NULL, &err));
    whole.at = 0;
    OK(betree_receive(backup, T("copy"), true, pipe_read, &whole, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_receive(backup, T("copy"), true, NULL, NULL, NULL, &err));
    FAILS(IO, betree_receive(backup, T("other"), true, liar, NULL, NULL, &err));
    OK(betree_close_ds(backup, copy, &err));

    /* By file descriptor; a stream that is damaged changes nothing. */
    FILE *file = tmpfile();
    CHECK(file != NULL);
    int fd = fileno(file);
    OK(betree_snapshot_send_fd(two, NULL, NULL, fd, &sent, &err));
    CHECK(lseek(fd, 0, SEEK_CUR) == (off_t)sent.bytes && lseek(fd, 0, SEEK_SET) == 0);
    OK(betree_receive_fd(backup, T("by-file"), false, fd, &received, &err));
    CHECK(received.puts == 9 && received.bytes == sent.bytes);
    CHECK(pwrite(fd, "damage", 6, (off_t)sent.bytes / 2) == 6 && lseek(fd, 0, SEEK_SET) == 0);
    FAILS(CORRUPT, betree_receive_fd(backup, T("damaged"), false, fd, NULL, &err));
    MAKES_NONE(NOT_FOUND, betree_open_ds(backup, T("damaged"), ANY, &err));
    failure = NULL;
    if (betree_abort_receive(backup, T("damaged"), &failure) == BETREE_FAILED)
        check_error(__LINE__, "abort", failure, BETREE_ERROR_NOT_FOUND);
    FAILS(NOT_FOUND, betree_abort_receive(backup, T("damaged"), &err));
    FAILS(INVALID_ARGUMENT, betree_snapshot_send_fd(two, NULL, NULL, -1, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_receive_fd(backup, T("x"), false, -1, NULL, &err));
    CHECK(fclose(file) == 0);
    FAILS(IO, betree_snapshot_send_fd(two, NULL, NULL, fd, NULL, &err));

    /* An object store, and it with a dataset at one instant. */
    const obj_store_t *stores[1];
    const ds_t *datasets[1] = {ds};
    obj_store_t *os, *there;
    betree_store_snapshot_t *three;
    pipe_t of_store = {NULL, 0, 0, SIZE_MAX};
    MAKE(os, betree_create_object_store(db, T("o"), ANY, &err));
    stores[0] = os;
    OK(betree_store_put(os, T("b"), T("four"), ANY, NULL, NULL, &err));
    OK(betree_create_snapshots(db, datasets, 1, stores, 1, T("three"), &err));
    FAILS(ALREADY_EXISTS, betree_create_snapshots(db, NULL, 0, stores, 1, T("three"), &err));
    FAILS(INVALID_ARGUMENT, betree_create_snapshots(db, datasets, 1, NULL, 1, T("x"), &err));
    MAKE(three, betree_store_open_snapshot(os, T("three"), &err));
    OK(betree_store_snapshot_send(three, NULL, NULL, pipe_write, &of_store, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_store_snapshot_send(NULL, NULL, NULL, pipe_write, &of_store, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_store_snapshot_send_fd(three, NULL, NULL, -1, NULL, &err));
    OK(betree_receive(backup, T("o"), false, pipe_read, &of_store, NULL, &err));
    MAKE(there, betree_open_object_store(backup, T("o"), &err));
    OK(betree_store_get(there, T("b"), &value, &err));
    CHECK(is(&value, "four"));
    FAILS(NOT_FOUND, betree_abort_store_receive(backup, T("o"), &err));
    betree_close_store_snapshot(three);
    betree_close_object_store(there);
    betree_close_object_store(os);
    free(of_store.bytes);

    free(whole.bytes);
    free(changes.bytes);
    betree_close_snapshot(one);
    betree_close_snapshot(two);
    OK(betree_close_ds(db, ds, &err));
    CHECK(betree_close_db(db) == BETREE_OK && betree_close_db(backup) == BETREE_OK);
}

static void test_stores(void)
{
    db_t *db = database("stores.img");
    obj_store_t *os, *other;
    byte_slice_t data, name;
    betree_object_info_t info, changed;
    name_iter_t *names;
    MAKE(os, betree_create_object_store(db, T("photos"), STORAGE_PREF_NONE, &err));
    MAKE(other, betree_create_object_store(db, T("photos"), STORAGE_PREF_NONE, &err));
    betree_close_object_store(other);
    MAKES_NONE(ALREADY_EXISTS, betree_create_new_object_store(db, T("photos"), ANY, &err));
    MAKE(other, betree_create_new_object_store(db, T("music"), STORAGE_PREF_FAST, &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_create_object_store(db, T("x"), WRONG, &err));
    MAKES_NONE(NOT_FOUND, betree_open_object_store(db, T("nowhere"), &err));
    MAKE(names, betree_iter_object_stores(db, &err));
    CHECK(names_are(names, "music,photos,"));
    OK(betree_database_rename_object_store(db, T("music"), T("songs"), &err));
    OK(betree_store_name(other, &name, &err));
    CHECK(is(&name, "songs"));
    betree_close_object_store(other);
    OK(betree_database_destroy_object_store(db, T("songs"), &err));
    FAILS(NOT_FOUND, betree_database_destroy_object_store(db, T("songs"), &err));

    OK(betree_store_put(os, T("a/1"), T("one"), STORAGE_PREF_FASTEST, NULL, &info, &err));
    CHECK(info.size == 3 && info.mtime_ns > 0 && info.created_ns > 0 && info.preference._0 == 0);
    OK(betree_store_put(os, T("a/2"), T("three"), ANY, NULL, NULL, &err));
    OK(betree_store_put(os, T("b"), T("four"), ANY, NULL, NULL, &err));
    OK(betree_store_get(os, T("a/1"), &data, &err));
    CHECK(is(&data, "one"));
    NONE(betree_store_get(os, T("z"), &data, &err));
    OK(betree_store_info(os, T("a/2"), &info, &err));
    CHECK(info.size == 5);
    NONE(betree_store_info(os, T("z"), &info, &err));
    RETURNS(5, betree_object_get_size(os, T("a/2"), &err));
    FAILS(NOT_FOUND, betree_object_get_size(os, T("z"), &err));
    FAILS(INVALID_ARGUMENT, betree_object_get_size(NULL, T("z"), &err));
    CHECK(betree_object_get_size(NULL, T("z"), NULL) == -1);

    betree_condition_t absent = {BETREE_CONDITION_ABSENT, 0}, matches = {BETREE_CONDITION_MATCHES, info.version};
    betree_condition_t present = {BETREE_CONDITION_PRESENT, 0}, wrong = {17, 0};
    FAILS(ALREADY_EXISTS, betree_store_put(os, T("b"), T("x"), ANY, &absent, NULL, &err));
    FAILS(NOT_FOUND, betree_store_put(os, T("c"), T("x"), ANY, &present, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_store_put(os, T("c"), T("x"), ANY, &wrong, NULL, &err));
    OK(betree_store_put(os, T("a/2"), T("x"), ANY, &matches, &changed, &err));
    CHECK(changed.version != info.version);
    FAILS(CONDITION_FAILED, betree_store_put(os, T("a/2"), T("y"), ANY, &matches, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_store_put(os, NULL, 0, T("y"), ANY, NULL, NULL, &err));

    OK(betree_store_copy(os, T("b"), T("c"), NULL, &info, &err));
    CHECK(info.size == 4);
    FAILS(ALREADY_EXISTS, betree_store_copy(os, T("b"), T("c"), &absent, NULL, &err));
    OK(betree_store_rename(os, T("c"), T("d"), &absent, &err));
    FAILS(NOT_FOUND, betree_store_rename(os, T("c"), T("d"), NULL, &err));
    betree_object_iter_t *iter;
    MAKE(iter, betree_store_list(os, NULL, 0, T("d"), &err));
    FAILS(INVALID_ARGUMENT, betree_object_iter_next(iter, NULL, &info, &err));
    FAILS(INVALID_ARGUMENT, betree_object_iter_next(iter, &name, NULL, &err));
    OK(betree_object_iter_next_back(iter, &name, &info, &err));
    CHECK(is(&name, "b"));
    CHECK(objects_are(iter, "a/1=3,a/2=1,"));
    MAKE(iter, betree_store_list_prefix(os, T("d"), &err));
    CHECK(objects_are(iter, "d=4,"));
    MAKES_NONE(INVALID_ARGUMENT, betree_store_list(NULL, NULL, 0, NULL, 0, &err));

    /* Two pages of "directories" and objects. */
    betree_list_options_t options = {.delimiter = "/", .delimiter_len = 1, .limit = 2};
    betree_page_t *page;
    size_t objects = 9, prefixes = 9;
    MAKE(page, betree_store_list_page(os, &options, &err));
    OK(betree_page_count(page, &objects, &prefixes, &err));
    CHECK(objects == 1 && prefixes == 1);
    OK(betree_page_next_prefix(page, &name, &err));
    CHECK(is(&name, "a/"));
    NONE(betree_page_next_prefix(page, &name, &err));
    OK(betree_page_next_object(page, &name, &info, &err));
    CHECK(is(&name, "b") && info.size == 4);
    NONE(betree_page_next_object(page, &name, &info, &err));
    byte_slice_t token;
    OK(betree_page_token(page, &token, &err));
    betree_free_page(page);
    options.token = token.ptr;
    options.token_len = token.len;
    MAKE(page, betree_store_list_page(os, &options, &err));
    betree_free_byte_slice(&token);
    OK(betree_page_next_object(page, &name, &info, &err));
    CHECK(is(&name, "d"));
    NONE(betree_page_token(page, &token, &err));
    betree_free_page(page);
    betree_free_page(NULL);
    options.token = "?";
    options.token_len = 1;
    MAKES_NONE(INVALID_ARGUMENT, betree_store_list_page(os, &options, &err));
    FAILS(INVALID_ARGUMENT, betree_page_token(NULL, &token, &err));
    MAKE(page, betree_store_list_page(os, NULL, &err));
    betree_free_page(page);

    FAILS(CONDITION_FAILED, betree_store_delete(os, T("d"), &matches, &err));
    OK(betree_store_delete(os, T("d"), NULL, &err));
    FAILS(NOT_FOUND, betree_store_delete(os, T("d"), &present, &err));

    /* Snapshots. */
    betree_store_snapshot_t *ss;
    betree_snapshot_info_t about;
    OK(betree_store_create_snapshot(os, T("monday"), &err));
    FAILS(ALREADY_EXISTS, betree_store_create_snapshot(os, T("monday"), &err));
    OK(betree_store_delete(os, T("b"), NULL, &err));
    MAKES_NONE(NOT_FOUND, betree_store_open_snapshot(os, T("sunday"), &err));
    MAKE(ss, betree_store_open_snapshot(os, T("monday"), &err));
    OK(betree_store_snapshot_get(ss, T("b"), &data, &err));
    CHECK(is(&data, "four"));
    NONE(betree_store_snapshot_get(ss, T("z"), &data, &err));
    OK(betree_store_snapshot_object_info(ss, T("b"), &info, &err));
    CHECK(info.size == 4);
    MAKE(iter, betree_store_snapshot_list(ss, T("a/2"), NULL, 0, &err));
    CHECK(objects_are(iter, "a/2=1,b=4,"));
    MAKE(page, betree_store_snapshot_list_page(ss, NULL, &err));
    OK(betree_page_count(page, &objects, &prefixes, &err));
    CHECK(objects == 3 && prefixes == 0);
    betree_free_page(page);
    obj_t *old;
    char buf[8];
    size_t n = 0;
    MAKES_NONE(NOT_FOUND, betree_store_snapshot_open_object(ss, T("z"), &err));
    MAKE(old, betree_store_snapshot_open_object(ss, T("b"), &err));
    OK(betree_object_read_at(old, buf, sizeof buf, 1, &n, &err));
    CHECK(n == 3 && memcmp(buf, "our", 3) == 0);
    RETURNS(4, betree_object_size(old, &err));
    FAILS(READ_ONLY, betree_object_write_at(old, "x", 1, 0, NULL, &err));
    FAILS(READ_ONLY, betree_object_delete(old, &err));
    OK(betree_store_snapshot_info(os, T("monday"), &about, &err));
    CHECK(about.created_ns > 0);
    OK(betree_store_hold_snapshot(os, T("monday"), T("tag"), &err));
    FAILS(BUSY, betree_store_delete_snapshot(os, T("monday"), &err));
    OK(betree_store_release_snapshot(os, T("monday"), T("tag"), &err));
    OK(betree_store_rename_snapshot(os, T("monday"), T("tuesday"), &err));
    MAKE(names, betree_iter_store_snapshots(os, &err));
    CHECK(names_are(names, "tuesday,"));
    MAKE(other, betree_clone_store_snapshot(db, ss, T("clone"), &err));
    OK(betree_store_origin(other, &name, &data, &err));
    CHECK(is(&name, "photos") && is(&data, "tuesday"));
    NONE(betree_store_origin(os, &name, &data, &err));
    OK(betree_store_promote(other, &err));
    FAILS(NOT_FOUND, betree_store_rollback(os, T("tuesday"), false, &err));
    OK(betree_store_delete(other, T("b"), NULL, &err));
    OK(betree_store_rollback(other, T("tuesday"), false, &err));
    OK(betree_store_get(other, T("b"), &data, &err));
    CHECK(is(&data, "four"));
    betree_close_store_snapshot(ss);
    betree_close_store_snapshot(NULL);
    OK(betree_database_destroy_object_store(db, T("photos"), &err));
    OK(betree_store_delete_snapshot(other, T("tuesday"), &err));
    OK(betree_database_verify(db, NULL, &err));
    betree_close_object_store(other);
    betree_close_object_store(os);
    betree_close_object_store(NULL);
    CHECK(betree_close_db(db) == BETREE_OK);
}

static void test_objects(void)
{
    db_t *db = database("objects.img");
    obj_store_t *os;
    obj_t *obj, *same;
    char buf[16];
    size_t n = 0;
    uint64_t offset = 0;
    byte_slice_t value;
    betree_object_info_t info;
    betree_migrated_t moved;
    MAKE(os, betree_create_object_store(db, T("s"), ANY, &err));
    MAKES_NONE(NOT_FOUND, betree_object_open(os, T("o"), ANY, &err));
    MAKE(obj, betree_object_create(os, T("o"), STORAGE_PREF_FASTEST, &err));
    MAKES_NONE(ALREADY_EXISTS, betree_object_create(os, T("o"), ANY, &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_object_create(os, T("p"), WRONG, &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_object_create(NULL, T("p"), ANY, &err));
    MAKE(same, betree_object_open(os, T("o"), STORAGE_PREF_FAST, &err));
    OK(betree_object_write_at(obj, "0123456789", 10, 300000, &n, &err));
    CHECK(n == 10);
    OK(betree_object_write_at(same, "x", 1, 300001, NULL, &err));
    OK(betree_object_read_at(obj, buf, 4, 299999, &n, &err));
    CHECK(n == 4 && memcmp(buf, "\0" "0x2", 4) == 0);
    OK(betree_object_read_at(obj, buf, sizeof buf, 300008, &n, &err));
    CHECK(n == 2);
    OK(betree_object_read_at(obj, buf, sizeof buf, UINT64_MAX, &n, &err));
    CHECK(n == 0);
    RETURNS(300010, betree_object_size(obj, &err));
    OK(betree_object_append(obj, T("end"), &offset, &err));
    OK(betree_object_append(obj, T("."), NULL, &err));
    CHECK(offset == 300010);
    betree_chunk_iter_t *chunks;
    MAKE(chunks, betree_object_chunks(obj, 0, UINT64_MAX, &err));
    OK(betree_chunk_iter_next(chunks, &offset, &value, &err));
    CHECK(offset == 262144 && value.len == 300014 - 262144);
    betree_free_byte_slice(&value);
    NONE(betree_chunk_iter_next(chunks, &offset, &value, &err));
    FAILS(INVALID_ARGUMENT, betree_chunk_iter_next(chunks, NULL, &value, &err));
    betree_free_chunk_iter(chunks);
    betree_free_chunk_iter(NULL);
    OK(betree_object_punch_hole(obj, 300000, 4, &err));
    OK(betree_object_read_at(obj, buf, 5, 300000, &n, &err));
    CHECK(memcmp(buf, "\0\0\0\0" "4", 5) == 0);
    OK(betree_object_truncate(obj, 300004, &err));
    OK(betree_object_info(obj, &info, &err));
    CHECK(info.size == 300004 && info.id > 0 && info.preference._0 == 0);
    OK(betree_object_set_preference(obj, STORAGE_PREF_FAST, &err));
    OK(betree_object_migrate(obj, STORAGE_PREF_FASTEST, &moved, &err));
    OK(betree_object_migrate_down(obj, NULL, &err));
    OK(betree_object_migrate_up(obj, NULL, &err));
    OK(betree_object_migrate_range(obj, 0, UINT64_MAX, STORAGE_PREF_FASTEST, &moved, &err));
    FAILS(INVALID_ARGUMENT, betree_object_migrate(obj, STORAGE_PREF_SLOW, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_object_migrate(obj, WRONG, NULL, &err));

    FAILS(INVALID_ARGUMENT, betree_object_read_at(obj, NULL, 4, 0, &n, &err));
    FAILS(INVALID_ARGUMENT, betree_object_read_at(obj, buf, SIZE_MAX, 0, &n, &err));
    FAILS(INVALID_ARGUMENT, betree_object_read_at(obj, buf, 4, 0, NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_object_read_at(NULL, buf, 4, 0, &n, &err));
    FAILS(INVALID_ARGUMENT, betree_object_write_at(obj, NULL, 4, 0, &n, &err));
    FAILS(INVALID_ARGUMENT, betree_object_write_at(obj, "x", SIZE_MAX, 0, &n, &err));
    FAILS(TOO_LARGE, betree_object_write_at(obj, "x", 1, UINT64_MAX, &n, &err));
    FAILS(INVALID_ARGUMENT, betree_object_size(NULL, &err));
    /* No bytes are no write. */
    OK(betree_object_write_at(obj, NULL, 0, 0, &n, &err));
    CHECK(n == 0);

    range_iter_t *iter;
    OK(betree_object_set_metadata(obj, T("camera"), T("X100"), &err));
    OK(betree_object_set_metadata(obj, T("lens"), T("23"), &err));
    OK(betree_object_get_metadata(obj, T("camera"), &value, &err));
    CHECK(is(&value, "X100"));
    MAKE(iter, betree_object_iter_metadata(obj, &err));
    CHECK(entries_are(iter, "camera=X100,lens=23,"));
    OK(betree_object_delete_metadata(obj, T("camera"), &err));
    NONE(betree_object_get_metadata(obj, T("camera"), &value, &err));

    OK(betree_object_rename(obj, T("p"), &err));
    OK(betree_object_name(same, &value, &err));
    CHECK(is(&value, "p"));
    OK(betree_object_close(same, &err));
    OK(betree_object_close(NULL, &err));
    FAILS(INVALID_ARGUMENT, betree_object_delete(NULL, &err));
    MAKE(same, betree_object_open_or_create(os, T("p"), ANY, &err));
    OK(betree_object_delete(obj, &err));
    FAILS(NOT_FOUND, betree_object_size(same, &err));
    FAILS(NOT_FOUND, betree_object_delete(same, &err));
    MAKE(obj, betree_object_open_or_create(os, T("p"), STORAGE_PREF_FAST, &err));
    OK(betree_object_append(obj, T("bytes"), NULL, &err));
    MAKE(same, betree_object_replace(os, T("p"), &err));
    RETURNS(0, betree_object_size(same, &err));
    FAILS(NOT_FOUND, betree_object_size(obj, &err));
    OK(betree_object_close(obj, &err));
    OK(betree_object_close(same, &err));
    MAKE(obj, betree_object_create_with_access(os, T("q"), BETREE_ACCESS_RANDOM_READ, &err));
    OK(betree_object_close(obj, &err));
    MAKES_NONE(INVALID_ARGUMENT, betree_object_create_with_access(os, T("r"), 7, &err));

    betree_object_batch_t *batch;
    betree_condition_t absent = {BETREE_CONDITION_ABSENT, 0};
    MAKE(batch, betree_object_batch_new(os, &err));
    OK(betree_object_batch_require(batch, T("new"), &absent, &err));
    OK(betree_object_batch_put(batch, T("new"), T("abc"), ANY, &err));
    OK(betree_object_batch_write_at(batch, T("new"), T("X"), 1, &err));
    OK(betree_object_batch_set_metadata(batch, T("new"), T("m"), T("1"), &err));
    OK(betree_object_batch_set_metadata(batch, T("new"), T("n"), T("2"), &err));
    OK(betree_object_batch_delete_metadata(batch, T("new"), T("m"), &err));
    OK(betree_object_batch_rename(batch, T("p"), T("moved"), &err));
    OK(betree_object_batch_delete(batch, T("q"), &err));
    FAILS(INVALID_ARGUMENT, betree_object_batch_commit(batch, 5, &err));
    OK(betree_object_batch_commit(batch, BETREE_SYNC, &err));
    OK(betree_store_get(os, T("new"), &value, &err));
    CHECK(is(&value, "aXc"));
    betree_object_iter_t *list;
    MAKE(list, betree_store_list(os, NULL, 0, NULL, 0, &err));
    CHECK(objects_are(list, "moved=0,new=3,"));
    /* The requirement does not hold: nothing happens. */
    OK(betree_object_batch_delete(batch, T("moved"), &err));
    OK(betree_object_batch_require(batch, T("new"), &absent, &err));
    FAILS(ALREADY_EXISTS, betree_object_batch_commit(batch, BETREE_BUFFERED, &err));
    RETURNS(0, betree_object_get_size(os, T("moved"), &err));
    FAILS(INVALID_ARGUMENT, betree_object_batch_put(NULL, T("new"), T("abc"), ANY, &err));
    betree_free_object_batch(batch);
    betree_free_object_batch(NULL);
    betree_free_object_iter(NULL);

    /* An object outlives its store's handle and its database, and says that it is closed. */
    MAKE(obj, betree_object_open(os, T("new"), ANY, &err));
    betree_close_object_store(os);
    OK(betree_object_read_at(obj, buf, 3, 0, &n, &err));
    CHECK(betree_close_db(db) == BETREE_OK);
    FAILS(CLOSED, betree_object_read_at(obj, buf, 3, 0, &n, &err));
    OK(betree_object_close(obj, &err));
}

#define THREADS 4
#define WRITES 100

typedef struct {
    ds_t *ds;
    range_iter_t *iter;
    betree_batch_t *batch;
    int number, seen;
} worker_t;

static void *work(void *argument)
{
    worker_t *worker = argument;
    byte_slice_t key, value;
    while (betree_range_iter_next(worker->iter, &key, &value, NULL) == BETREE_OK) {
        worker->seen++;
        betree_free_byte_slice(&key);
        betree_free_byte_slice(&value);
    }
    for (int i = 0; i < WRITES; i++) {
        char text[32];
        snprintf(text, sizeof text, "%d/%d", worker->number, i);
        OK(betree_dataset_insert(worker->ds, T(text), T(text), ANY, &err));
        OK(betree_dataset_get(worker->ds, T(text), &value, &err));
        CHECK(is(&value, text));
        snprintf(text, sizeof text, "batch %d/%d", worker->number, i);
        OK(betree_batch_insert(worker->batch, worker->ds, T(text), T(text), ANY, &err));
        if (i % 10 == 9)
            OK(betree_batch_commit(worker->batch, BETREE_BUFFERED, &err));
    }
    return NULL;
}

/* Handles are shared: each entry of an iterator goes to one thread, each write into one commit. */
static void test_threads(void)
{
    db_t *db = database("threads.img");
    ds_t *ds;
    range_iter_t *iter;
    betree_batch_t *batch;
    MAKE(ds, betree_open_or_create_ds(db, T("a"), ANY, &err));
    for (int i = 0; i < 1000; i++)
        OK(betree_dataset_insert(ds, &i, sizeof i, T("x"), ANY, &err));
    MAKE(iter, betree_dataset_range(ds, NULL, 0, NULL, 0, &err));
    OK(betree_dataset_range_delete(ds, NULL, 0, NULL, 0, &err));
    MAKE(batch, betree_batch_new(db, &err));
    pthread_t threads[THREADS];
    worker_t workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker_t){ds, iter, batch, i, 0};
        CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    int seen = 0;
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        seen += workers[i].seen;
    }
    CHECK(seen == 1000);
    betree_free_range_iter(iter);
    OK(betree_batch_commit(batch, BETREE_BUFFERED, &err));
    betree_free_batch(batch);
    int found = 0;
    byte_slice_t key, value;
    MAKE(iter, betree_dataset_range(ds, NULL, 0, NULL, 0, &err));
    while (betree_range_iter_next(iter, &key, &value, NULL) == BETREE_OK) {
        found++;
        betree_free_byte_slice(&key);
        betree_free_byte_slice(&value);
    }
    CHECK(found == 2 * THREADS * WRITES);
    betree_free_range_iter(iter);
    OK(betree_close_ds(db, ds, &err));
    CHECK(betree_close_db(db) == BETREE_OK);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return EXIT_FAILURE;
    }
    folder = argv[1];
    betree_init_env_logger();
    betree_init_env_logger();
    test_errors();
    test_configurations();
    test_databases();
    test_datasets();
    test_batches();
    test_snapshots();
    test_streams();
    test_stores();
    test_objects();
    test_threads();
    return EXIT_SUCCESS;
}
