/* What went wrong, in one line. */
#ifndef ERROR_H
#define ERROR_H

#include <stdbool.h>

/* Keeps the message, on one line, and returns false. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
bool failed(const char *format, ...);

/* The message of the last failure. */
const char *failure(void);

#endif
