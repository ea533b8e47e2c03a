#include "json.h"

#include <stdlib.h>
#include <string.h>

static const char BLANKS[] = " \t\r\n";

const char *json_object_lacks(const char *text, size_t size, size_t *stop)
{
    size_t depth = 0, place = strspn(text, BLANKS);
    bool quoted = false;
    *stop = place;
    if (text[place] != '{')
        return "'{'";
    do {
        char sign = text[place];
        if (quoted)
            place += sign == '\\' && place + 1 < size;
        else
            depth = depth + (sign == '{' || sign == '[') - (sign == '}' || sign == ']');
        quoted ^= sign == '"';
    } while (++place < size && depth > 0);
    *stop = place;
    if (depth > 0)
        return "'}'";
    *stop += strspn(text + place, BLANKS);
    return *stop < size ? "nothing" : NULL;
}

const char *json_value(const char *json, const char *key)
{
    size_t length = strlen(key), depth = 0;
    if (json)
        json += strspn(json, BLANKS);
    if (!json || *json != '{')
        return NULL;
    for (; *json; json++) {
        depth += *json == '{' || *json == '[';
        depth -= *json == '}' || *json == ']';
        if (depth == 0)
            return NULL;
        if (*json != '"')
            continue;
        const char *text = json + 1;
        for (json = text; *json && *json != '"'; json++)
            json += *json == '\\' && json[1];
        if (!*json)
            return NULL;
        const char *colon = json + 1 + strspn(json + 1, BLANKS);
        if (depth == 1 && *colon == ':' && (size_t)(json - text) == length && memcmp(text, key, length) == 0)
            return colon + 1 + strspn(colon + 1, BLANKS);
    }
    return NULL;
}

bool json_text(const char *json, char *text, size_t room)
{
    size_t length = json && *json == '"' ? strcspn(++json, "\"\\") : 0;
    if (length == 0 || json[length] != '"' || length >= room)
        return false;
    memcpy(text, json, length);
    text[length] = '\0';
    return true;
}

size_t json_number(const char *json, size_t largest)
{
    unsigned long number = json && *json >= '0' && *json <= '9' ? strtoul(json, NULL, 10) : 0;
    return number <= largest ? number : 0;
}

double json_decimal(const char *json, double missing)
{
    return json && *json >= '0' && *json <= '9' ? strtod(json, NULL) : missing;
}

size_t json_last_number(const char *list, size_t largest)
{
    const char *end = list && *list == '[' ? strchr(list, ']') : NULL;
    if (!end)
        return 0;
    while (end > list + 1 && strchr(BLANKS, end[-1]))
        end--;
    while (end > list + 1 && end[-1] >= '0' && end[-1] <= '9')
        end--;
    return json_number(end, largest);
}
