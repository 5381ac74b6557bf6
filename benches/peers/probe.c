// Bytes that all threads together read from memory in a second: `probe THREADS` prints GB/s.
//
// The best of five passes over 512 MiB in large pages, each thread its own part in ascending order,
// as `sail bench` measures the same limit: a limit is what was reached once.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MAX_THREADS = 256, PASSES = 5 };
static const size_t BYTES = (size_t)512 << 20, LARGE_PAGE = (size_t)2 << 20;

typedef int64_t line __attribute__((vector_size(64)));

static const line *memory;
static long threads;
static pthread_barrier_t barrier;
static double seconds[MAX_THREADS][PASSES];
static volatile int64_t sink[MAX_THREADS];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int64_t touch(const line *at, const line *end) {
    line sums[4] = {0};
    for (; at < end; at += 4)
        for (int i = 0; i < 4; i++) sums[i] |= at[i];
    line all = sums[0] | sums[1] | sums[2] | sums[3];
    int64_t sum = 0;
    for (int i = 0; i < 8; i++) sum |= all[i];
    return sum;
}

static void *measure(void *argument) {
    long thread = (long)(intptr_t)argument;
    size_t part = BYTES / sizeof(line) / (size_t)threads / 4 * 4; // whole groups of four lines
    const line *start = memory + (size_t)thread * part;
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&barrier);
        double begin = now();
        sink[thread] = touch(start, start + part);
        pthread_barrier_wait(&barrier);
        seconds[thread][pass] = now() - begin;
    }
    return NULL;
}

int main(int count, char **words) {
    threads = count == 2 ? strtol(words[1], NULL, 10) : 0;
    if (threads < 1 || threads > MAX_THREADS) {
        fprintf(stderr, "probe takes a number of threads, 1 to %d\n", MAX_THREADS);
        return 2;
    }
    char *raw = mmap(NULL, BYTES + LARGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) {
        perror("probe: no memory");
        return 1;
    }
    char *aligned = (char *)(((uintptr_t)raw + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1));
    madvise(aligned, BYTES, MADV_HUGEPAGE);
    memset(aligned, 1, BYTES);
    memory = (const line *)aligned;

    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    pthread_t handles[MAX_THREADS];
    for (long i = 0; i < threads; i++) {
        if (pthread_create(&handles[i], NULL, measure, (void *)(intptr_t)i) != 0) {
            fprintf(stderr, "probe: cannot start thread %ld\n", i);
            return 1;
        }
    }
    for (long i = 0; i < threads; i++) pthread_join(handles[i], NULL);

    double best = 1e30;
    for (int pass = 0; pass < PASSES; pass++) {
        double slowest = 0; // a pass lasts as long as its slowest thread
        for (long i = 0; i < threads; i++)
            if (seconds[i][pass] > slowest) slowest = seconds[i][pass];
        if (slowest < best) best = slowest;
    }
    size_t read = BYTES / sizeof(line) / (size_t)threads / 4 * 4 * sizeof(line) * (size_t)threads;
    printf("%.3f\n", (double)read / best / 1e9);
    return 0;
}
