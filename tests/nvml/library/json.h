/* A JSON document as a tree, just enough for descriptions of machines. */
#ifndef JSON_H
#define JSON_H

#include <stddef.h>

typedef enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_TEXT, JSON_LIST, JSON_MAP } JsonKind;

typedef struct Json {
    JsonKind kind;
    char *key;          /* its name in the map that holds it, NULL elsewhere */
    char *text;         /* a number as written, or a string's text in UTF-8 */
    struct Json *first; /* a list's or a map's first member */
    struct Json *next;  /* the member after this one */
} Json;

/* The document in `text`, or NULL with a word on what is wrong in `*error`. Freed with json_free. */
Json *json_parse(const char *text, const char **error);
void json_free(Json *value);

/* A map's member, a list's item, how many there are. Of NULL, or where there is none: NULL, 0. */
const Json *json_get(const Json *map, const char *key);
const Json *json_at(const Json *list, size_t index);
size_t json_count(const Json *value);

/* Whether it says something: there, and not null. */
int json_known(const Json *value);
/* Numbers; true is 1, anything else 0. `json_unsigned` takes negative numbers as C does. */
unsigned long long json_unsigned(const Json *value);
double json_double(const Json *value);

#endif
