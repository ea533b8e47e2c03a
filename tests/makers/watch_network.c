/* Loaded before a program: writes the hosts that it looks up, and its connections beyond this machine, into a file. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *what, const char *which)
{
    FILE *file = fopen(getenv("WATCHED"), "a");
    if (file) {
        fprintf(file, "%s %s\n", what, which);
        fclose(file);
    }
}

typedef int look_up(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    struct in6_addr address;
    char own[256] = "";
    gethostname(own, sizeof own - 1);
    if (node && inet_pton(AF_INET, node, &address) != 1 && inet_pton(AF_INET6, node, &address) != 1 &&
        strcmp(node, "localhost") && strcmp(node, own))
        note("looked up", node);
    return ((look_up *)dlsym(RTLD_NEXT, "getaddrinfo"))(node, service, hints, found);
}

typedef int open_connection(int, const struct sockaddr *, socklen_t);

int connect(int socket, const struct sockaddr *address, socklen_t length)
{
    const struct sockaddr_in *to = (const void *)address;
    int kind = 0;
    getsockopt(socket, SOL_SOCKET, SO_TYPE, &kind, &(socklen_t){sizeof kind});
    /* Connecting a datagram's socket sends nothing: it is how a program learns its own address. */
    if (kind == SOCK_STREAM && address->sa_family == AF_INET && (ntohl(to->sin_addr.s_addr) >> 24) != 127)
        note("connected to", inet_ntoa(to->sin_addr));
    return ((open_connection *)dlsym(RTLD_NEXT, "connect"))(socket, address, length);
}
