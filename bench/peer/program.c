/*
 * Times QEMU's SMMUv3 from inside: a program for its "virt" board without an operating system and with the CPU's MMU
 * off. DMA comes from QEMU's iommu-testdev, one per register read. Each result is a line "row NAME TICKS COUNT HZ".
 */

typedef unsigned int u32;
typedef unsigned long u64;

enum {
    UART = 0x09000000,
    SMMU = 0x09050000,
    CONFIG_SPACE = 0x3f000000,
    TESTDEV = 0x10000000,
};
/* SMMU registers */
enum {
    CR0 = 0x20, GBPA = 0x44, STRTAB_BASE = 0x80, STRTAB_BASE_CFG = 0x88, CMDQ_BASE = 0x90, CMDQ_PROD = 0x98,
    CMDQ_CONS = 0x9c, EVENTQ_BASE = 0xa0, EVENTQ_PROD = 0x100a8, EVENTQ_CONS = 0x100ac,
};
/* iommu-testdev registers */
enum { TRIGGER = 0, IOVA_LO = 4, IOVA_HI = 8, LENGTH = 0xc, RESULT = 0x10, ARM = 0x14, ATTRS = 0x18, TARGET_LO = 0x1c, TARGET_HI = 0x20 };
enum { TESTDEV_ID = 0x00051b36, RESULT_FAILED = 0xdead0002 };

#define STREAMS 0x48100000ul
#define CONTEXT 0x48140000ul
#define COMMANDS 0x48200000ul
#define EVENTS 0x48400000ul
#define STAGE1 0x48800000ul
#define STAGE2 0x49000000ul
#define TARGET 0x4a000000ul
#define LOG2_ENTRIES 12
#define RING ((1u << LOG2_ENTRIES) - 1)
#define POINTER ((2u << LOG2_ENTRIES) - 1)

enum mode { BYPASS = 4, S1 = 5, S2 = 6, NESTED = 7 };
#define IPA 0x23450000000ul
#define PAGES 4096
#define DMAS 100000
#define ASID 7ul
#define VMID 5ul

enum { OP_CFGI_STE = 0x03, OP_CFGI_RANGE = 0x04, OP_NH_ASID = 0x11, OP_NH_VA = 0x12, OP_S12_VMALL = 0x28, OP_NSNH_ALL = 0x30, OP_SYNC = 0x46 };

static u32 stream, produced, failures;
static u64 free_s1, free_s2;

static void store32(u64 at, u32 value) { *(volatile u32 *)at = value; }
static u32 load32(u64 at) { return *(volatile u32 *)at; }
static void store64(u64 at, u64 value) { *(volatile u64 *)at = value; }
static u64 load64(u64 at) { return *(volatile u64 *)at; }

static void text(const char *s) { for (; *s; s++) store32(UART, *s); }
static void number(u64 n) { if (n > 9) number(n / 10); store32(UART, '0' + n % 10); }

static u64 clock(void) { u64 t; __asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(t)); return t; }
static u64 hertz(void) { u64 f; __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(f)); return f; }

static const char *const PREFIX[] = { [BYPASS] = "dma_ste_bypass", [S1] = "s1_", [S2] = "s2_", [NESTED] = "nested_" };

static void row(const char *prefix, const char *name, u64 ticks, u64 count) {
    text("row "); text(prefix); text(name);
    text(" "); number(ticks); text(" "); number(count); text(" "); number(hertz()); text("\n");
}

static void clear(u64 at, u64 size) { for (u64 end = at + size; at < end; at += 8) store64(at, 0); }

/* One 4 KB page through four levels of tables that begin at level 0. */
static void map(u64 table, u64 *free, u64 from, u64 to, u64 attributes) {
    for (int shift = 39; shift > 12; shift -= 9) {
        u64 at = table + (from >> shift & 511) * 8;
        if (load64(at) == 0) { clear(*free, 4096); store64(at, *free | 3); *free += 4096; }
        table = load64(at) & ~4095ul;
    }
    store64(table + (from >> 12 & 511) * 8, to | attributes | 3);
}

static void queue(u64 low, u64 high) {
    u64 at = COMMANDS + (produced & RING) * 16;
    store64(at, low); store64(at + 8, high);
    produced = (produced + 1) & POINTER;
}
static void ring(void) {
    store32(SMMU + CMDQ_PROD, produced);
    while (load32(SMMU + CMDQ_CONS) != produced) {}
}
static void forget_all(void) { queue(OP_CFGI_RANGE, 31); queue(OP_NSNH_ALL, 0); queue(OP_SYNC, 0); ring(); }

static u64 first_iova(enum mode mode) { return mode == S2 ? 0x12340000000ul : 0x123440000000ul; }

static void set_up(enum mode mode, u32 pages) {
    const u64 S1_PAGE = 0xf60, S2_PAGE = 0x7fc;
    u64 iova = first_iova(mode), ste = STREAMS + 64 * stream;
    store32(SMMU + CR0, 0); store32(SMMU + GBPA, 1u << 31);
    clear(STREAMS, 64 * 256); clear(STAGE1, 4096); clear(STAGE2, 4096);
    free_s1 = STAGE1 + 4096; free_s2 = STAGE2 + 4096;
    for (u64 i = 0; i < pages * 4096ul; i += 4096) {
        if (mode == S1) map(STAGE1, &free_s1, iova + i, TARGET + i, S1_PAGE);
        if (mode == S2) map(STAGE2, &free_s2, iova + i, TARGET + i, S2_PAGE);
        if (mode == NESTED) { map(STAGE1, &free_s1, iova + i, IPA + i, S1_PAGE); map(STAGE2, &free_s2, IPA + i, TARGET + i, S2_PAGE); }
    }
    if (mode == NESTED) {
        map(STAGE2, &free_s2, CONTEXT, CONTEXT, S2_PAGE);
        for (u64 at = STAGE1; at < free_s1; at += 4096) map(STAGE2, &free_s2, at, at, S2_PAGE);
    }
    /* STE: V, Config, S1ContextPtr; S2VMID, S2T0SZ=20, S2SL0=2, S2PS=44 bits, S2AA64, S2R; S2TTB */
    store64(ste, 1 | (u64)mode << 1 | (mode & 1 ? CONTEXT : 0));
    store64(ste + 16, VMID | 20ul << 32 | 2ul << 38 | 4ul << 48 | 1ul << 51 | 1ul << 58);
    store64(ste + 24, STAGE2);
    /* CD: T0SZ=16, EPD1, V, IPS=44 bits, AA64, R, A, ASID; TTB0; MAIR */
    store64(CONTEXT, 16 | 1ul << 30 | 1ul << 31 | 4ul << 32 | 1ul << 41 | 1ul << 45 | 1ul << 46 | ASID << 48);
    store64(CONTEXT + 8, STAGE1); store64(CONTEXT + 16, 0); store64(CONTEXT + 24, 0xff);
    store64(SMMU + STRTAB_BASE, STREAMS); store32(SMMU + STRTAB_BASE_CFG, 8);
    store64(SMMU + CMDQ_BASE, COMMANDS | LOG2_ENTRIES); store32(SMMU + CMDQ_PROD, 0); store32(SMMU + CMDQ_CONS, 0);
    store64(SMMU + EVENTQ_BASE, EVENTS | LOG2_ENTRIES); store32(SMMU + EVENTQ_PROD, 0); store32(SMMU + EVENTQ_CONS, 0);
    produced = 0;
    store32(SMMU + CR0, 8); forget_all(); store32(SMMU + CR0, 0xd);
}

static void dma(u64 iova, u32 arm) {
    store32(TESTDEV + IOVA_LO, (u32)iova); store32(TESTDEV + ARM, arm); (void)load32(TESTDEV + TRIGGER);
}
static u64 dmas(u64 iova, u32 pages, u32 count, u32 arm) {
    store32(TESTDEV + IOVA_HI, iova >> 32);
    u64 begin = clock();
    for (u32 i = 0, page = 0; i < count; i++) { dma(iova + page * 4096, arm); if (++page == pages) page = 0; }
    return clock() - begin;
}
static void expect(int success, const char *what) {
    if ((load32(TESTDEV + RESULT) != RESULT_FAILED) == success) return;
    failures++; text("wrong: "); text(what); text("\n");
}

static void translations(enum mode mode) {
    static const struct { const char *name; u32 pages; } SETS[] = { { "ws1", 1 }, { "ws64", 64 }, { "ws256", 256 }, { "ws4096", 4096 } };
    u64 iova = first_iova(mode), begin;
    const char *prefix = PREFIX[mode];
    set_up(mode, PAGES);
    for (int i = 0; i < 4; i++) { forget_all(); row(prefix, SETS[i].name, dmas(iova, SETS[i].pages, DMAS, 1), DMAS); expect(1, prefix); }
    store32(TESTDEV + IOVA_HI, iova >> 32);
    begin = clock();
    for (u32 i = 0; i < DMAS; i++) {
        if (i % 64 == 0) { queue(OP_NSNH_ALL, 0); queue(OP_SYNC, 0); ring(); }
        dma(iova + i % 64 * 4096, 1);
    }
    row(prefix, "ws64_inv64", clock() - begin, DMAS); expect(1, prefix);
    begin = clock();
    for (u32 i = 0; i < DMAS / 4; i++) {
        u64 at = iova + i % 64 * 4096;
        if (mode == S1) queue(OP_NH_VA | VMID << 32 | ASID << 48, at | 1); else queue(OP_S12_VMALL | VMID << 32, 0);
        queue(OP_SYNC, 0); ring(); dma(at, 1);
    }
    row(prefix, "ws64_inv1", clock() - begin, DMAS / 4); expect(1, prefix);
}

static void commands(void) {
    const u64 other = VMID << 32 | 9ul << 48;
    const struct { const char *name; u64 low, high, step; } TYPES[] = {
        { "cmd_tlbi_nh_va", OP_NH_VA | other, 1, 4096 },
        { "cmd_tlbi_nh_va_ril", OP_NH_VA | 3ul << 12 | other, 1 | 1 << 10, 4096 },
        { "cmd_tlbi_nh_asid", OP_NH_ASID | other, 0, 0 },
        { "cmd_tlbi_nsnh_all", OP_NSNH_ALL, 0, 0 },
        { "cmd_cfgi_ste", OP_CFGI_STE | (u64)stream << 32, 1, 0 },
        { "cmd_sync", OP_SYNC, 0, 0 },
    };
    enum { ROUNDS = 6 };
    set_up(S1, 64);
    for (u32 k = 0; k < sizeof TYPES / sizeof *TYPES; k++)
        for (int filled = 0; filled < 2; filled++) {
            u64 ticks = 0;
            for (int round = 0; round < ROUNDS; round++) {
                forget_all();
                if (filled) dmas(first_iova(S1), 64, 64, 1);
                for (u64 i = 0; i < 2047; i++) queue(TYPES[k].low, TYPES[k].high + i * TYPES[k].step);
                queue(OP_SYNC, 0);
                u64 begin = clock(); ring(); ticks += clock() - begin;
            }
            row(TYPES[k].name, filled ? "@64" : "@0", ticks, 2048 * ROUNDS);
        }
}

/* DMAs that fault, and the queue emptied every 2048 without timing that. */
static void events(const char *name, u64 iova) {
    enum { BURST = 2048, BURSTS = 10 };
    u64 ticks = 0; u32 recorded = 0;
    for (int i = 0; i < BURSTS; i++) {
        ticks += dmas(iova, 1, BURST, 1);
        u32 prod = load32(SMMU + EVENTQ_PROD);
        recorded += (prod - load32(SMMU + EVENTQ_CONS)) & POINTER;
        store32(SMMU + EVENTQ_CONS, prod);
    }
    row(name, "", ticks, BURST * BURSTS); expect(0, name);
    if (recorded != BURST * BURSTS) { failures++; text("wrong: number of events\n"); }
}

void main(void) {
    for (u64 device = 0; device < 32; device++) {
        u64 config = CONFIG_SPACE + (device << 15);
        if (load32(config) != TESTDEV_ID) continue;
        stream = device << 3;
        store32(config + 0x10, TESTDEV); store32(config + 4, 6);
    }
    if (stream == 0) { text("wrong: no iommu-testdev\nfailed\n"); return; }
    store32(TESTDEV + LENGTH, 4); store32(TESTDEV + ATTRS, 0xa);
    store32(TESTDEV + TARGET_LO, TARGET); store32(TESTDEV + TARGET_HI, 0);
    for (int again = 0; again < REPEATS; again++) {
        row("mmio_empty", "", dmas(0, 1, DMAS, 0), DMAS);
        store32(SMMU + CR0, 0); store32(SMMU + GBPA, 1u << 31);
        row("dma_smmu_off", "", dmas(TARGET, 64, DMAS, 1), DMAS); expect(1, "off");
        set_up(BYPASS, 0);
        row(PREFIX[BYPASS], "", dmas(TARGET, 64, DMAS, 1), DMAS); expect(1, "bypass");
        for (enum mode mode = S1; mode <= NESTED; mode++) translations(mode);
        commands();
        set_up(S1, 64); events("event_s1", first_iova(S1) + 4096 * 100);
        set_up(S2, 64); events("event_s2", first_iova(S2) + 4096 * 100);
        set_up(NESTED, 64); events("event_nested", first_iova(NESTED) + 4096 * 100);
        set_up(S1, 1); store64(STREAMS + 64 * stream, 0); forget_all(); events("event_bad_ste", first_iova(S1));
    }
    text(failures ? "failed\n" : "done\n");
}
