#include "error.h"

#include <stdarg.h>
#include <stdio.h>

static char message[1024];

bool failed(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);
    char *to = message;
    for (const char *from = message; *from; from++) /* engines write paragraphs */
        if (*from != '\n' && *from != '\r' && *from != '\t')
            *to++ = *from;
        else if (to > message && to[-1] != ' ')
            *to++ = ' ';
    *to = '\0';
    return false;
}

const char *failure(void)
{
    return message;
}
