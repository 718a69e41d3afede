/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of commands. */
#include <inttypes.h>

#include "node/control/control.h"

bool control_arg_text(
    struct control_request *req, json_t *args, const char *key, const char **out)
{
    json_t *value = json_object_get(args, key);
    *out = NULL;
    if (!value || json_is_null(value))
        return true;
    if (json_is_string(value)) {
        *out = json_string_value(value);
        return true;
    }
    control_fail(req, 1, NULL, "%s must be a text", key);
    return false;
}

bool control_arg_int(struct control_request *req, json_t *args, const char *key,
    int64_t min, int64_t max, int64_t *out)
{
    json_t *value = json_object_get(args, key);
    if (!value || json_is_null(value))
        return true;
    if (json_is_integer(value) && json_integer_value(value) >= min &&
        json_integer_value(value) <= max) {
        *out = json_integer_value(value);
        return true;
    }
    control_fail(req, 1, NULL, "%s must be a whole number from %" PRId64 " to %" PRId64,
        key, min, max);
    return false;
}

bool control_arg_bool(
    struct control_request *req, json_t *args, const char *key, bool *out)
{
    json_t *value = json_object_get(args, key);
    if (!value || json_is_null(value))
        return true;
    if (json_is_boolean(value)) {
        *out = json_is_true(value);
        return true;
    }
    control_fail(req, 1, NULL, "%s must be true or false", key);
    return false;
}
