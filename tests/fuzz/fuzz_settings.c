/* SPDX-License-Identifier: Apache-2.0 */
/* Any file: refused with a problem, or read into settings that print to what reads back
 * to the same. */
#include "base/alloc.h"
#include "base/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const struct settings *s)
{
    struct settings_problems problems;
    struct buf once, twice;
    settings_problems_init(&problems);
    buf_init(&once, 16 << 20);
    buf_init(&twice, 16 << 20);
    settings_print(s, &once);
    /* What is printed may be longer than what a file may be: lists in short form grow. */
    if (buf_len(&once) <= 1 << 20) {
        struct settings *back = settings_parse(buf_slice(&once), "fuzz", &problems);
        INVARIANT(back);
        settings_print(back, &twice);
        INVARIANT(slice_eq(buf_slice(&once), buf_slice(&twice)));
        settings_unref(back);
    }
    buf_fini(&once);
    buf_fini(&twice);
    settings_problems_fini(&problems);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct settings_problems problems;
    settings_problems_init(&problems);
    struct settings *s = settings_parse(slice_make(data, size), "fuzz", &problems);
    INVARIANT((s == NULL) == (problems.count > 0));
    if (s)
        check_round_trip(s);
    settings_unref(s);
    settings_problems_fini(&problems);
    return 0;
}
