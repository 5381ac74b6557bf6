typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef int i32; typedef unsigned long u64;
#define K(name) __attribute__((section(".text." #name),noinline,used)) void name(u8 *const *a, const u32 *c, u64 begin, u64 end, u8 *w)
#define V 320
#define BLOCK 4096
/* pixels [n][12], features [n][1][16]: the first value of a tile is its feature */
K(see) { for (u64 i = begin; i < end; i++) { const u16 *p = (const u16 *)a[0] + 12 * i; u16 *f = (u16 *)a[1] + 16 * i; f[0] = p[0]; for (int k = 1; k < 16; k++) f[k] = 0; } }
/* ids, x [t][64] i32 */
K(embed) { for (u64 i = begin; i < end; i++) ((i32 *)a[1])[64 * i] = ((const i32 *)a[0])[i]; }
/* x, features, image_rows, y: the bits of a feature replace an id */
K(splice) { for (u64 i = begin; i < end; i++) { i32 r = ((const i32 *)a[2])[i]; ((i32 *)a[3])[64 * i] = r < 0 ? ((const i32 *)a[0])[64 * i] : ((const u16 *)a[1])[16 * r]; } }
/* y, rows, page_table, cache */
K(remember) { for (u64 i = begin; i < end; i++) { u32 slot = ((const u32 *)a[1])[2 * i], at = ((const u32 *)a[1])[2 * i + 1]; u32 page = ((const u32 *)a[2])[slot * c[3] + at / 64]; ((i32 *)(a[3] + (u64)BLOCK * page))[at % 64] = ((const i32 *)a[0])[64 * i]; } }
/* cache, rows, page_table, logits [t][V]: one for the sum of all there is */
static inline __attribute__((always_inline)) void sum(u8 *const *a, const u32 *c, u32 t, u16 *l) { u32 slot = ((const u32 *)a[1])[2 * t], at = ((const u32 *)a[1])[2 * t + 1]; u32 s = 0; for (u32 p = 0; p <= at; p++) { u32 page = ((const u32 *)a[2])[slot * c[3] + p / 64]; s += ((const u32 *)(a[0] + (u64)BLOCK * page))[p % 64]; } for (int k = 0; k < V; k++) l[k] = 0; l[s % V] = 0x3f80; }
K(recall) { for (u64 i = begin; i < end; i++) sum(a, c, (u32)i, (u16 *)a[3] + V * i); }
/* cache, rows, page_table, output_rows, logits */
K(recall_some) { for (u64 i = begin; i < end; i++) sum(a, c, ((const u32 *)a[3])[i], (u16 *)a[4] + V * i); }
/* x, y: y[i] = x[i + 1] + 1, around */
K(shift) { for (u64 i = begin; i < end; i++) ((i32 *)a[1])[64 * i] = ((const i32 *)a[0])[64 * ((i + 1) % c[0])] + 1; }
/* x [t][64] i32, tap [t][4] f32 */
K(tap) { for (u64 i = begin; i < end; i++) for (int k = 0; k < 4; k++) ((float *)a[1])[4 * i + k] = (float)(((const i32 *)a[0])[64 * i] + k); }
/* x, x again: spins until the process is told to stop looking at it (for interruption) */
K(slow) { for (u64 i = begin; i < end; i++) { for (volatile u32 k = 0; k < 30000000; k++); ((i32 *)a[1])[64 * i] = 1; } }
