/* A Fluvio SmartModule written straight against the engine's ABI, so that it
 * builds with nothing but clang and lld (no Rust wasm target needed).
 *
 *   -DSM_FILTER  keeps the records whose value contains the parameter
 *                `contains` (no parameter, or an empty one: keeps them all)
 *   -DSM_MAP     replaces, in every value, each occurrence of the parameter
 *                `from` by the parameter `to` (no `from`: changes nothing)
 *
 * The ABI: the host calls alloc(len), writes the input there, and calls
 * init / filter / map (ptr, len, version). The module hands its output over
 * with env.copy_records(ptr, len), which the host reads once the call has
 * returned; the result is >= 0, or negative for an error. Integers are
 * big-endian, "varint" is the zigzag kind:
 *
 *   init in   u16 n, n x (u16 len, key, u16 len, value), ...
 *   in        i64 base offset, u32 size, records[size], ...
 *   records   u32 n, n x record
 *   record    varint size, then in that size: i8 attributes,
 *             varint timestamp delta, varint offset delta,
 *             u8 has_key [varint len, key], varint len, value, varint headers
 *   out       records, u8 has_error (0)
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

__attribute__((import_module("env"), import_name("copy_records")))
void copy_records(const u8 *ptr, u32 len);

#define EXPORT(name) __attribute__((export_name(name)))
#define MAX_PARAM 256
#define BAD_INPUT (-11) /* SmartModuleTransformErrorStatus::DecodingBaseInput */
#define BAD_PARAMS (-10) /* SmartModuleInitErrorStatus::DecodingInput */

extern u8 __heap_base;

typedef struct { u32 len; u8 bytes[MAX_PARAM]; } Param;
typedef struct { const u8 *at, *end; int bad; } In;

/* Makes sure the linear memory reaches up to `end`. */
static void reserve(const u8 *end) {
    u32 have = __builtin_wasm_memory_size(0), want = ((u32)end + 65535) >> 16;
    if (want > have && __builtin_wasm_memory_grow(0, want - have) == (u32)-1)
        __builtin_trap();
}

/* The host allocates once per call, for the input, and has read the previous
 * output by then: every call can start again at the bottom of the heap. */
EXPORT("alloc") u8 *sm_alloc(u32 len) {
    reserve(&__heap_base + len);
    return &__heap_base;
}

EXPORT("dealloc") void sm_dealloc(u8 *ptr, u32 len) { (void)ptr; (void)len; }

static u8 *put(u8 *to, const u8 *from, u32 len) {
    while (len--) *to++ = *from++;
    return to;
}

static u8 *put_u32(u8 *to, u32 v) {
    for (int shift = 24; shift >= 0; shift -= 8) *to++ = v >> shift;
    return to;
}

/* Skips `len` bytes and returns where they start. */
static const u8 *take(In *in, u64 len) {
    const u8 *start = in->at;
    if (len > (u64)(in->end - in->at)) { in->bad = 1; len = 0; }
    in->at += len;
    return start;
}

static u32 get_be(In *in, int size) {
    const u8 *p = take(in, size);
    u32 v = 0;
    if (!in->bad) while (size--) v = v << 8 | *p++;
    return v;
}

/* A varint that is a length, hence not negative. */
static u64 get_varint(In *in) {
    u64 v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        const u8 *p = take(in, 1);
        if (in->bad) return 0;
        v |= (u64)(*p & 127) << shift;
        if (*p < 128) return v >> 1;
    }
    in->bad = 1;
    return 0;
}

static int equal(const u8 *a, const u8 *b, u32 len) {
    while (len && *a == *b) a++, b++, len--;
    return !len;
}

/* Copies the init parameter called `name` (a C string) to `param`. */
static int get_param(const u8 *ptr, u32 len, const char *name, Param *param) {
    In in = { ptr, ptr + len, 0 };
    u32 name_len = 0;
    while (name[name_len]) name_len++;
    for (u32 n = get_be(&in, 2); n && !in.bad; n--) {
        u32 key_len = get_be(&in, 2);
        const u8 *key = take(&in, key_len);
        u32 value_len = get_be(&in, 2);
        const u8 *value = take(&in, value_len);
        if (in.bad || key_len != name_len || !equal(key, (const u8 *)name, name_len)) continue;
        if (value_len > MAX_PARAM) return BAD_PARAMS;
        put(param->bytes, value, param->len = value_len);
    }
    return in.bad ? BAD_PARAMS : 0;
}

#ifdef SM_FILTER
static Param contains;

EXPORT("init") int sm_init(const u8 *ptr, u32 len, int version) {
    (void)version;
    return get_param(ptr, len, "contains", &contains);
}

/* Writes the record [record, end) to `out`, or nothing to drop it. */
static u8 *transform(u8 *out, const u8 *record, const u8 *end, const u8 *body, const u8 *value, u32 value_len) {
    (void)body;
    for (u32 i = 0; i + contains.len <= value_len; i++)
        if (equal(value + i, contains.bytes, contains.len)) {
            reserve(out + (end - record));
            return put(out, record, end - record);
        }
    return out;
}

EXPORT("filter")
#else
static Param from, to;

EXPORT("init") int sm_init(const u8 *ptr, u32 len, int version) {
    (void)version;
    int failed = get_param(ptr, len, "from", &from);
    return failed ? failed : get_param(ptr, len, "to", &to);
}

static int matches(const u8 *at, u32 left) {
    return from.len && from.len <= left && equal(at, from.bytes, from.len);
}

static u8 *put_varint(u8 *to, u32 len) {
    u64 v = (u64)len << 1;
    for (; v > 127; v >>= 7) *to++ = v | 128;
    *to++ = v;
    return to;
}

/* Writes the record to `out` with its value rewritten. `body` is where the
 * record's contents start; its key ends where the value's length starts. */
static u8 *transform(u8 *out, const u8 *record, const u8 *end, const u8 *body, const u8 *value, u32 value_len) {
    (void)record;
    u32 new_len = value_len, old_size = 1, new_size = 1;
    for (u32 i = 0; i < value_len;)
        if (matches(value + i, value_len - i)) new_len += to.len - from.len, i += from.len;
        else i++;
    for (u64 v = (u64)value_len << 1; v > 127; v >>= 7) old_size++;
    for (u64 v = (u64)new_len << 1; v > 127; v >>= 7) new_size++;
    u32 head = value - old_size - body, tail = end - value - value_len;
    reserve(out + head + new_len + tail + 32);
    out = put_varint(out, head + new_size + new_len + tail);
    out = put(out, body, head);
    out = put_varint(out, new_len);
    for (u32 i = 0; i < value_len;)
        if (matches(value + i, value_len - i)) out = put(out, to.bytes, to.len), i += from.len;
        else *out++ = value[i++];
    return put(out, value + value_len, tail);
}

EXPORT("map")
#endif
int sm_transform(const u8 *ptr, u32 len, int version) {
    (void)version;
    In in = { ptr, ptr + len, 0 };
    take(&in, 8);
    u32 size = get_be(&in, 4);
    const u8 *records = take(&in, size);
    if (in.bad) return BAD_INPUT;
    in.at = records, in.end = records + size;

    u8 *out = (u8 *)ptr + len, *at = out + 4;
    u32 kept = 0;
    for (u32 n = get_be(&in, 4); n && !in.bad; n--) {
        const u8 *record = in.at;
        u64 body_len = get_varint(&in);
        const u8 *body = take(&in, body_len);
        In r = { body, in.at, in.bad };
        take(&r, 1);
        get_varint(&r);
        get_varint(&r);
        if (get_be(&r, 1)) take(&r, get_varint(&r));
        u64 value_len = get_varint(&r);
        const u8 *value = take(&r, value_len);
        if (r.bad) return BAD_INPUT;
        u8 *next = transform(at, record, in.at, body, value, value_len);
        kept += next != at;
        at = next;
    }
    if (in.bad) return BAD_INPUT;
    reserve(at + 1);
    put_u32(out, kept);
    *at++ = 0;
    copy_records(out, at - out);
    return kept;
}
