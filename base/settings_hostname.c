/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine is called, without asking DNS: a name that comes from an answer over
 * the network would change with the network. */
#include <stdio.h>
#include <unistd.h>

#include "base/settings_internal.h"

static bool starts_with_label(struct slice name, struct slice label)
{
    return name.len > label.len && slice_starts_nocase(name, label) &&
           name.ptr[label.len] == '.';
}

/* Names that distributions write into /etc/hosts and that mean nothing to anybody else.
 */
static bool is_placeholder(struct slice name)
{
    return slice_ends_nocase(name, SLICE(".localdomain")) ||
           slice_ends_nocase(name, SLICE(".localhost")) ||
           slice_ends_nocase(name, SLICE(".local")) ||
           slice_ends_nocase(name, SLICE(".invalid"));
}

static bool take_name(struct slice name, char out[256])
{
    if (slice_find(name, '.') == name.len || !domain_is_sound(name) ||
        is_placeholder(name))
        return false;
    for (size_t i = 0; i < name.len; i++)
        out[i] = ascii_lower(name.ptr[i]);
    out[name.len] = '\0';
    return true;
}

static struct slice next_word(struct slice *line)
{
    size_t start = 0, end;
    while (start < line->len && (line->ptr[start] == ' ' || line->ptr[start] == '\t'))
        start++;
    for (end = start; end < line->len; end++)
        if (line->ptr[end] == ' ' || line->ptr[end] == '\t')
            break;
    struct slice word = slice_make(line->ptr + start, end - start);
    *line = slice_from(*line, end);
    return word;
}

/* "127.0.1.1 mx1.example.net mx1": the full name of a line that has a name of ours. */
static bool from_hosts_line(struct slice line, struct slice host, char out[256])
{
    line = slice_trim(slice_head(line, slice_find(line, '#')));
    next_word(&line);
    for (struct slice word = next_word(&line); word.len; word = next_word(&line))
        if (starts_with_label(word, host) && take_name(word, out))
            return true;
    return false;
}

static bool search(const char *path, bool hosts, struct slice host, char out[256])
{
    char text[1024];
    bool found = false;
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (!found && fgets(text, sizeof(text), file)) {
        struct slice line = slice_trim(slice_str(text));
        found = hosts ? from_hosts_line(line, host, out)
                      : starts_with_label(line, host) && take_name(line, out);
    }
    fclose(file);
    return found;
}

bool hostname_from(
    struct slice host, const char *hosts_file, const char *mailname_file, char out[256])
{
    if (slice_find(host, '.') < host.len)
        return take_name(host, out);
    return host.len && (search(hosts_file, true, host, out) ||
                           search(mailname_file, false, host, out));
}

bool settings_find_hostname(char out[256])
{
    char host[256] = "";
    if (gethostname(host, sizeof(host) - 1) != 0)
        return false;
    return hostname_from(slice_str(host), "/etc/hosts", "/etc/mailname", out);
}
