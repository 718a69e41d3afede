/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/smtp_command.h"

#include "proto/utf8.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool has_control(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if ((c < ' ' && c != '\t') || c == 127)
            return true;
    }
    return false;
}

static enum smtp_line_fault fault_of(struct slice line)
{
    if (slice_trim(line).len == 0 && !has_control(line))
        return SMTP_LINE_EMPTY;
    if (has_control(line))
        return SMTP_LINE_CONTROL;
    if (!ascii_is_alpha(line.ptr[0]))
        return SMTP_LINE_VERB;
    return utf8_is_valid(line) ? SMTP_LINE_OK : SMTP_LINE_UTF8;
}

enum parse smtp_command_parse(
    struct slice line, struct smtp_command *out, enum smtp_line_fault *fault_out)
{
    *fault_out = fault_of(line);
    if (*fault_out != SMTP_LINE_OK)
        return PARSE_BAD;
    size_t end = 0;
    while (end < line.len && !is_blank(line.ptr[end]))
        end++;
    out->verb = slice_head(line, end);
    out->argument = slice_trim(slice_from(line, end));
    return PARSE_DONE;
}

bool smtp_command_keyword(struct slice *argument, struct slice keyword)
{
    if (!slice_starts_nocase(*argument, keyword))
        return false;
    *argument = slice_trim(slice_from(*argument, keyword.len));
    return true;
}

bool smtp_line_is_http(struct slice line)
{
    static const struct slice signs[] = {SLICE_INIT("GET "), SLICE_INIT("POST "),
        SLICE_INIT("HEAD "), SLICE_INIT("PUT "), SLICE_INIT("DELETE "),
        SLICE_INIT("CONNECT "), SLICE_INIT("OPTIONS "), SLICE_INIT("TRACE "),
        SLICE_INIT("PATCH "), SLICE_INIT("PROPFIND "), SLICE_INIT("PRI * HTTP/"),
        SLICE_INIT("HTTP/"), SLICE_INIT("Host:"), SLICE_INIT("User-Agent:"),
        SLICE_INIT("Accept:"), SLICE_INIT("Content-Type:"), SLICE_INIT("Content-Length:"),
        SLICE_INIT("Connection:")};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        if (slice_starts_nocase(line, signs[i]))
            return true;
    }
    return false;
}
