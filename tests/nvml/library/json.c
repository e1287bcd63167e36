#include "json.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *at;
    const char *error;
} Reader;

static void skip_space(Reader *r)
{
    r->at += strspn(r->at, " \t\r\n");
}

static Json *refuse(Reader *r, const char *error)
{
    if (r->error == NULL)
        r->error = error;
    return NULL;
}

static Json *new_value(JsonKind kind)
{
    Json *value = calloc(1, sizeof *value);
    if (value == NULL)
        abort();
    value->kind = kind;
    return value;
}

static char *put_utf8(char *out, unsigned long code)
{
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3F));
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

/* The four hex digits after \u; -1 where there are not four. */
static long hex4(const char *digits)
{
    char four[5] = {0};
    strncpy(four, digits, 4);
    return strspn(four, "0123456789abcdefABCDEF") == 4 ? strtol(four, NULL, 16) : -1;
}

static char *read_string(Reader *r)
{
    if (*r->at != '"') {
        refuse(r, "a string was expected");
        return NULL;
    }
    r->at++;
    /* No escape is shorter than the bytes it stands for, so the rest of the document is room enough. */
    size_t room = 0;
    for (const char *p = r->at; *p != '\0' && *p != '"'; p++, room++)
        if (*p == '\\' && p[1] != '\0')
            p++, room++;
    char *text = malloc(room + 1), *out = text;
    if (text == NULL)
        abort();
    while (*r->at != '"') {
        if (*r->at == '\0') {
            free(text);
            refuse(r, "a string has no end");
            return NULL;
        }
        if (*r->at != '\\') {
            *out++ = *r->at++;
            continue;
        }
        r->at++;
        const char *found = strchr("\"\\/bfnrt", *r->at);
        if (*r->at != '\0' && found != NULL) {
            *out++ = "\"\\/\b\f\n\r\t"[found - "\"\\/bfnrt"];
            r->at++;
            continue;
        }
        long code = *r->at == 'u' ? hex4(r->at + 1) : -1;
        if (code < 0) {
            free(text);
            refuse(r, "a string has an unknown escape");
            return NULL;
        }
        r->at += 5;
        long low = code >= 0xD800 && code < 0xDC00 && r->at[0] == '\\' && r->at[1] == 'u' ? hex4(r->at + 2) : -1;
        if (low >= 0xDC00 && low < 0xE000) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            r->at += 6;
        }
        out = put_utf8(out, (unsigned long)code);
    }
    r->at++;
    *out = '\0';
    return text;
}

static Json *read_value(Reader *r);

static Json *read_members(Reader *r, JsonKind kind, char end)
{
    Json *holder = new_value(kind), **tail = &holder->first;
    r->at++;
    skip_space(r);
    if (*r->at == end) {
        r->at++;
        return holder;
    }
    for (;;) {
        char *key = NULL;
        skip_space(r);
        if (kind == JSON_MAP) {
            key = read_string(r);
            skip_space(r);
            if (key != NULL && *r->at != ':')
                refuse(r, "a ':' is missing");
            if (r->error == NULL)
                r->at++;
        }
        Json *member = r->error == NULL ? read_value(r) : NULL;
        if (member == NULL) {
            free(key);
            break;
        }
        member->key = key;
        *tail = member;
        tail = &member->next;
        skip_space(r);
        if (*r->at == ',') {
            r->at++;
            continue;
        }
        if (*r->at == end) {
            r->at++;
            return holder;
        }
        refuse(r, "a ',' or a closing bracket is missing");
        break;
    }
    json_free(holder);
    return NULL;
}

static Json *read_word(Reader *r, const char *word, JsonKind kind)
{
    size_t length = strlen(word);
    if (strncmp(r->at, word, length) != 0)
        return refuse(r, "an unknown word");
    r->at += length;
    return new_value(kind);
}

static Json *read_value(Reader *r)
{
    skip_space(r);
    switch (*r->at) {
    case '{':
        return read_members(r, JSON_MAP, '}');
    case '[':
        return read_members(r, JSON_LIST, ']');
    case 't':
        return read_word(r, "true", JSON_TRUE);
    case 'f':
        return read_word(r, "false", JSON_FALSE);
    case 'n':
        return read_word(r, "null", JSON_NULL);
    default:
        break;
    }
    JsonKind kind = *r->at == '"' ? JSON_TEXT : JSON_NUMBER;
    char *text = NULL;
    if (kind == JSON_TEXT) {
        text = read_string(r);
    } else {
        size_t length = strspn(r->at, "+-.0123456789eE");
        if (length == 0)
            return refuse(r, "a value was expected");
        text = strndup(r->at, length);
        r->at += length;
    }
    if (text == NULL)
        return NULL;
    Json *value = new_value(kind);
    value->text = text;
    return value;
}

Json *json_parse(const char *text, const char **error)
{
    Reader r = {text, NULL};
    Json *value = read_value(&r);
    skip_space(&r);
    if (value != NULL && *r.at != '\0') {
        refuse(&r, "something follows the document");
        json_free(value);
        value = NULL;
    }
    *error = r.error;
    return value;
}

void json_free(Json *value)
{
    while (value != NULL) {
        Json *next = value->next;
        json_free(value->first);
        free(value->key);
        free(value->text);
        free(value);
        value = next;
    }
}

const Json *json_get(const Json *map, const char *key)
{
    if (map == NULL || map->kind != JSON_MAP)
        return NULL;
    for (const Json *member = map->first; member != NULL; member = member->next)
        if (strcmp(member->key, key) == 0)
            return member;
    return NULL;
}

const Json *json_at(const Json *list, size_t index)
{
    if (list == NULL || list->kind != JSON_LIST)
        return NULL;
    const Json *item = list->first;
    while (item != NULL && index-- > 0)
        item = item->next;
    return item;
}

size_t json_count(const Json *value)
{
    size_t count = 0;
    for (const Json *member = value == NULL ? NULL : value->first; member != NULL; member = member->next)
        count++;
    return count;
}

int json_known(const Json *value)
{
    return value != NULL && value->kind != JSON_NULL;
}

unsigned long long json_unsigned(const Json *value)
{
    if (value == NULL)
        return 0;
    return value->kind == JSON_NUMBER ? strtoull(value->text, NULL, 10) : value->kind == JSON_TRUE;
}

double json_double(const Json *value)
{
    return value != NULL && value->kind == JSON_NUMBER ? strtod(value->text, NULL) : 0.0;
}
