/* The toy's kernels, for this machine (see code.rs) and for a GPU (see gpu.rs). An item is a token, a tile or an output. */
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef int i32; typedef unsigned long u64;
#define V 320
#define BLOCK 4096
#ifdef __NVPTX__
#define EACH for (u64 i = begin; i < end; i = end)
/* K(which count of the control block is that of its items, name, ITS ARGUMENTS): one thread for an item */
#define K(count, name, ...) __attribute__((nvptx_kernel)) void name(P(__VA_ARGS__) const u32 *c) { u8 *const a[] = {__VA_ARGS__}; \
    u64 begin = __nvvm_read_ptx_sreg_ctaid_x(), end = begin + (begin < c[count]); name##_items(a, c, begin, end); }
#define P(...) P_(__VA_ARGS__, 5, 4, 3, 2, 1)(__VA_ARGS__)
#define P_(a, b, c, d, e, n, ...) P##n
#define P2(a, b) u8 *a, u8 *b,
#define P3(a, b, c) u8 *a, P2(b, c)
#define P4(a, b, c, d) u8 *a, P3(b, c, d)
#define P5(a, b, c, d, e) u8 *a, P4(b, c, d, e)
#else
#define EACH for (u64 i = begin; i < end; i++)
#define K(count, name, ...) __attribute__((section(".text." #name),noinline,used)) void name(u8 *const *a, const u32 *c, u64 begin, u64 end, u8 *w) { name##_items(a, c, begin, end); }
#endif
#define ITEMS(name) static inline __attribute__((always_inline)) void name##_items(u8 *const *a, const u32 *c, u64 begin, u64 end)
/* pixels [n][12], features [n][1][16]: the first value of a tile is its feature */
ITEMS(see) { EACH { const u16 *p = (const u16 *)a[0] + 12 * i; u16 *f = (u16 *)a[1] + 16 * i; f[0] = p[0]; for (int k = 1; k < 16; k++) f[k] = 0; } }
K(1, see, pixels, features)
/* ids, x [t][64] i32 */
ITEMS(embed) { EACH ((i32 *)a[1])[64 * i] = ((const i32 *)a[0])[i]; }
K(0, embed, ids, x)
/* x, features, image_rows, y: the bits of a feature replace an id */
ITEMS(splice) { EACH { i32 r = ((const i32 *)a[2])[i]; ((i32 *)a[3])[64 * i] = r < 0 ? ((const i32 *)a[0])[64 * i] : ((const u16 *)a[1])[16 * r]; } }
K(0, splice, x, features, image_rows, y)
/* y, rows, page_table, cache */
ITEMS(remember) { EACH { u32 slot = ((const u32 *)a[1])[2 * i], at = ((const u32 *)a[1])[2 * i + 1]; u32 page = ((const u32 *)a[2])[slot * c[3] + at / 64]; ((i32 *)(a[3] + (u64)BLOCK * page))[at % 64] = ((const i32 *)a[0])[64 * i]; } }
K(0, remember, y, rows, page_table, cache)
/* cache, rows, page_table, logits [t][V]: one for the sum of all there is */
static inline __attribute__((always_inline)) void sum(u8 *const *a, const u32 *c, u32 t, u16 *l) { u32 slot = ((const u32 *)a[1])[2 * t], at = ((const u32 *)a[1])[2 * t + 1]; u32 s = 0; for (u32 p = 0; p <= at; p++) { u32 page = ((const u32 *)a[2])[slot * c[3] + p / 64]; s += ((const u32 *)(a[0] + (u64)BLOCK * page))[p % 64]; } for (int k = 0; k < V; k++) l[k] = 0; l[s % V] = 0x3f80; }
ITEMS(recall) { EACH sum(a, c, (u32)i, (u16 *)a[3] + V * i); }
K(0, recall, cache, rows, page_table, logits)
/* cache, rows, page_table, output_rows, logits */
ITEMS(recall_some) { EACH sum(a, c, ((const u32 *)a[3])[i], (u16 *)a[4] + V * i); }
K(2, recall_some, cache, rows, page_table, output_rows, logits)
/* x, y: y[i] = x[i + 1] + 1, around */
ITEMS(shift) { EACH ((i32 *)a[1])[64 * i] = ((const i32 *)a[0])[64 * (((u32)i + 1) % c[0])] + 1; }
K(0, shift, x, y)
/* x [t][64] i32, tap [t][4] f32 */
ITEMS(tap) { EACH for (int k = 0; k < 4; k++) ((float *)a[1])[4 * i + k] = (float)(((const i32 *)a[0])[64 * i] + k); }
K(0, tap, x, tap_)
/* x, x again: spins until the process is told to stop looking at it (for interruption) */
#ifdef __NVPTX__
#define SPIN
#else
#define SPIN for (volatile u32 k = 0; k < 30000000; k++);
#endif
ITEMS(slow) { EACH { SPIN ((i32 *)a[1])[64 * i] = 1; } }
K(0, slow, x, y)
#ifdef __NVPTX__
/* ids, three words, x [t][64] i32: each id with the words added */
ITEMS(weigh) { EACH ((i32 *)a[4])[64 * i] = ((const i32 *)a[0])[i] + *(const i32 *)a[1] + *(const i32 *)a[2] + *(const i32 *)a[3]; }
K(0, weigh, ids, one, two, three, x)
#endif
