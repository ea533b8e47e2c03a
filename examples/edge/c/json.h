/* As much of JSON as a bundle.json needs. NULL stands for a value that is not there. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

/* What should stand at the byte `stop` to make the text one JSON object, or NULL where it is one already. Quotes and
 * brackets are looked at, and what stands between them is not. */
const char *json_object_lacks(const char *text, size_t size, size_t *stop);

/* The value of a key of the object that `json` begins with. */
const char *json_value(const char *json, const char *key);

/* Copies a string without escapes; false where there is none, or one that is too long. */
bool json_text(const char *json, char *text, size_t room);

/* A whole number; 0 where there is none, or one above `largest`. */
size_t json_number(const char *json, size_t largest);

/* A number; `missing` where there is none. */
double json_decimal(const char *json, double missing);

/* The last of a list of numbers, as `json_number` reads it. */
size_t json_last_number(const char *list, size_t largest);

#endif
