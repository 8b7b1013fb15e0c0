/* A shelf of books: a dataset, an atomic batch, an object, a snapshot. Takes the path of a pool file, which it makes. */

#include <betree.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static err_t *err;

/* Says what went wrong and ends the program. */
static void must(int worked)
{
    if (!worked) {
        betree_print_error(err);
        betree_free_err(err);
        exit(EXIT_FAILURE);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s POOL-FILE\n", argv[0]);
        return EXIT_FAILURE;
    }
    /* A colon in a path would start an option. */
    char disk[4096];
    if (strchr(argv[1], ':') || snprintf(disk, sizeof disk, "file:%s:64MiB:direct=false", argv[1]) >= (int)sizeof disk)
        return EXIT_FAILURE;
    const char *words[] = {disk};
    cfg_t *cfg = betree_parse_configuration(words, 1, &err);
    must(cfg != NULL);
    must(betree_configuration_set_access_mode(cfg, BETREE_OPEN_OR_CREATE, &err) == BETREE_OK);
    db_t *db = betree_build_db(cfg, &err);
    must(db != NULL);
    betree_free_cfg(cfg);

    ds_t *books = betree_open_or_create_ds(db, "books", 5, STORAGE_PREF_NONE, &err);
    must(books != NULL);
    betree_batch_t *batch = betree_batch_new(db, &err);
    must(batch != NULL);
    must(betree_batch_insert(batch, books, "emma", 4, "1815", 4, STORAGE_PREF_NONE, &err) == BETREE_OK);
    must(betree_batch_insert(batch, books, "persuasion", 10, "1817", 4, STORAGE_PREF_NONE, &err) == BETREE_OK);
    must(betree_batch_commit(batch, BETREE_SYNC, &err) == BETREE_OK);
    betree_free_batch(batch);

    range_iter_t *all = betree_dataset_range(books, NULL, 0, NULL, 0, &err);
    must(all != NULL);
    byte_slice_t key, value;
    int next;
    while ((next = betree_range_iter_next(all, &key, &value, &err)) == BETREE_OK) {
        printf("%.*s: %.*s\n", (int)key.len, key.ptr, (int)value.len, value.ptr);
        betree_free_byte_slice(&key);
        betree_free_byte_slice(&value);
    }
    must(next == BETREE_NONE);
    betree_free_range_iter(all);

    obj_store_t *covers = betree_create_object_store(db, "covers", 6, STORAGE_PREF_NONE, &err);
    must(covers != NULL);
    obj_t *cover = betree_object_open_or_create(covers, "emma.txt", 8, STORAGE_PREF_NONE, &err);
    must(cover != NULL);
    must(betree_object_write_at(cover, "blue", 4, 0, NULL, &err) == BETREE_OK);
    printf("a cover of %lld bytes\n", (long long)betree_object_size(cover, &err));
    must(betree_object_close(cover, &err) == BETREE_OK);
    betree_close_object_store(covers);

    must(betree_close_ds(db, books, &err) == BETREE_OK);
    must(betree_database_close(db, &err) == BETREE_OK);
    return EXIT_SUCCESS;
}
