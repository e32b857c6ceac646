/* ingot: exact attention (FlashAttention), forward and backward. The flat C interface, the ABI.
 *
 *   O = softmax(score(Q K^T) + mask) V       for every batch entry and head, rows of Q against
 *                                            rows of K and V
 *
 * Rules that hold for every function here:
 *  - Every function that can fail returns an ingot_status. ingot_last_error() then gives one line
 *    that names the argument, the rule and the value. It belongs to the calling thread and lasts
 *    until that thread's next call into ingot.
 *  - Structures start with struct_size and are filled by their *_init function; later versions
 *    append fields. A structure that is too small, one that sets a field which this version does
 *    not know, and a reserved field that is not 0 are errors.
 *  - Handles may be used from several threads at once. Destroying one that is in use is an error
 *    of the caller.
 *  - Nothing prints, nothing aborts, nothing is kept outside the handles (but the text of
 *    ingot_last_error()).
 *  - Enumerations are int32_t, so a value from outside is checked like any other argument.
 *  - Strides and sizes are in elements, never bytes, unless the name says bytes.
 */
#ifndef INGOT_INGOT_H
#define INGOT_INGOT_H

#include <stddef.h>
#include <stdint.h>

#define INGOT_VERSION_MAJOR 0
#define INGOT_VERSION_MINOR 1
#define INGOT_VERSION_PATCH 0

#if defined(_WIN32)
#define INGOT_API __declspec(dllexport)
#else
#define INGOT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t ingot_status;
enum {
  INGOT_OK = 0,
  INGOT_INVALID_ARGUMENT = 1, /* an argument breaks a rule; the text names all three */
  INGOT_UNSUPPORTED = 2, /* the problem is valid, this device cannot run it; the text says why */
  INGOT_OUT_OF_MEMORY = 3,
  INGOT_COMPILE_FAILED = 4, /* the text carries the kernel compiler's log */
  INGOT_DEVICE_ERROR = 5,
  INGOT_INTERNAL = 6,
  INGOT_CANCELLED =
      7 /* the call ended early, as ingot_submission.cancel asked; outputs are undefined */
};

typedef int32_t ingot_dtype;
enum {
  INGOT_DTYPE_DEFAULT = 0, /* see ingot_problem */
  INGOT_F32 = 1,
  INGOT_F16 = 2,
  INGOT_BF16 = 3,
  INGOT_F64 = 4 /* device "reference" only */
};

/* Which keys a query row may see. Positions count from 0; row is a query, col a key. */
typedef int32_t ingot_causal;
enum {
  INGOT_CAUSAL_NONE = 0,
  INGOT_CAUSAL_TOP_LEFT = 1,    /* col <= row: PyTorch's is_causal */
  INGOT_CAUSAL_BOTTOM_RIGHT = 2 /* col <= row + seqlen_k - seqlen_q: flash-attn, cached decoding */
};

/* How exactly products of f32 are computed. A device may always be more exact than asked for. */
typedef int32_t ingot_precision;
enum {
  INGOT_PRECISION_HIGHEST = 0, /* f32 means f32 */
  INGOT_PRECISION_HIGH = 1     /* f32 q, k and v may be sums of two bf16 terms: about 1e-5, relative
                                * (docs/numerics.md), several times faster on tensor cores */
};

typedef int32_t ingot_pass;
enum { INGOT_FORWARD = 0, INGOT_BACKWARD = 1 };

typedef int32_t ingot_format;
enum { INGOT_TEXT = 0, INGOT_JSON = 1 };

typedef struct ingot_context ingot_context; /* devices and their threads */
typedef struct ingot_plan ingot_plan;       /* one problem, prepared for one device */

/* What to compute. Tensors are logically [batch, num_heads, seqlen, head_dim]; where they lie is
 * said per call. */
typedef struct ingot_problem {
  size_t struct_size;
  int64_t batch;          /* >= 0 */
  int64_t num_heads;      /* query heads, >= 1 */
  int64_t num_heads_kv;   /* key/value heads; divides num_heads (GQA, MQA) */
  int64_t seqlen_q;       /* >= 0 */
  int64_t seqlen_k;       /* >= 0; with no key at all, o = 0 and lse = -inf */
  int64_t head_dim;       /* of q and k, 1..1024 */
  int64_t head_dim_v;     /* of v and o, 1..1024 */
  ingot_dtype q_dtype;    /* default f32 */
  ingot_dtype k_dtype;    /* default q_dtype */
  ingot_dtype v_dtype;    /* default k_dtype */
  ingot_dtype o_dtype;    /* default q_dtype */
  ingot_dtype dout_dtype; /* default o_dtype */
  ingot_dtype dq_dtype;   /* default q_dtype */
  ingot_dtype dk_dtype;   /* default k_dtype */
  ingot_dtype dv_dtype;   /* default v_dtype */
  ingot_causal causal;    /* default none */
  /* Row sees cols in [p - window_left, p + window_right], where p is the row's own position among
   * the keys: p = row with causal top_left, else p = row + seqlen_k - seqlen_q. -1 (the default):
   * unbounded. */
  int64_t window_left;
  int64_t window_right;
  /* Magnitudes of scale, softcap and scale / softcap: from 1e-37 to 1e37. */
  float scale;   /* score = scale * <q, k>; 0 (the default) means 1 / sqrt(head_dim) */
  float softcap; /* > 0: score = softcap * tanh(scale * <q, k> / softcap); 0 (the default): off */
  ingot_precision precision; /* default highest */
  int32_t alibi;             /* 1: ALiBi with the slopes of the call; 0 (the default): off */
  /* Bytes of memory that a pass may take to be faster, >= 0; 0 (the default): 1.25 GiB. Kernels
   * that would need more, whatever the lengths, give way to slower ones or work piece by piece.
   * What is indispensable (a number or two for every query, partial results of split keys) does not
   * count. */
  int64_t workspace_limit;
  /* Parts of the score and of the softmax that have tensors of their own, which come with each
   * call (ingot_part_tensors). All are off by default. In their order:
   *   score = softcap(scale * <q, k>) - alibi_slope * |col - p| + bias, p as for the window;
   *   -inf if the mask, causal or the window hides the pair;
   *   a sink is one more logit of every row's softmax, without a value: lse counts it;
   *   dropout multiplies the weights that o is summed with by 0 or 1 / (1 - dropout); lse lacks it.
   */
  int32_t mask;             /* 1: a byte for every pair */
  int32_t prefix;           /* 1: cols below the batch entry's prefix_len are visible to every row,
                             * whatever causal says (a prefix LM); window_left must be -1 */
  ingot_dtype bias_dtype;   /* f32, f16 or bf16; 0: no bias */
  ingot_dtype dbias_dtype;  /* default bias_dtype */
  int64_t bias_shape[4];    /* of bias and dbias: batch, num_heads, seqlen_q, seqlen_k, each of
                             * which may be 1 (broadcast: dbias is summed over it); 0 (the default):
                             * not broadcast */
  ingot_dtype sinks_dtype;  /* f32 or q_dtype; 0: no sinks */
  ingot_dtype dsinks_dtype; /* default sinks_dtype */
  float dropout;            /* probability that a weight becomes 0: 0, or from 2^-16 to
                             * 1 - 2^-16; rounded to a multiple of 2^-16 */
  int32_t reserved;         /* 0 */
} ingot_problem;

/* A strided view: element (b, h, s, d) is
 *   data[b * stride[0] + h * stride[1] + s * stride[2] + d * stride[3]].
 * BHSD, BSHD, packed QKV and transposed operands are all strides. lse is f32 and of shape
 * [batch, num_heads, seqlen_q]; its stride[3] is not looked at. Strides of inputs may be 0 or
 * negative; elements of an output may not overlap. */
typedef struct ingot_tensor {
  void* data; /* an address, unless ingot_submission.memory says otherwise */
  int64_t stride[4];
} ingot_tensor;

typedef int32_t ingot_memory;
enum {
  INGOT_MEMORY_ADDRESS = 0,    /* data of every tensor is an address; workspace too */
  INGOT_MEMORY_METAL_SLICE = 1 /* device "metal": data of every tensor, and workspace, points to an
                                * ingot_metal_slice, read during the call */
};

typedef struct ingot_metal_slice {
  void* buffer;  /* an MTLBuffer, any storage mode */
  size_t offset; /* bytes */
} ingot_metal_slice;

/* Where a call runs, and who waits. All zero is the simple case: the results are there on return.
 *  cpu, reference: stream and encoder must be NULL.
 *  metal: `encoder` is an MTLComputeCommandEncoder to encode into (it is not ended), or `stream` an
 *         MTLCommandBuffer (it is not committed). Both NULL: a command buffer of ingot's own.
 *  cuda:  `stream` is a CUstream (cudaStream_t), NULL the default stream. Tensors in device memory
 *         are worked on in its order, and the call does not wait. Tensors in host memory are copied
 *         there and back, and the call waits.
 * With `event` the call never waits; *event is to be waited for and destroyed by the caller. */
typedef struct ingot_event ingot_event;
typedef struct ingot_submission {
  void* stream;
  void* encoder;
  ingot_event** event;
  const int32_t*
      cancel; /* cpu, reference: looked at once a tile; nonzero ends the call. May be NULL */
  ingot_memory memory;
  int32_t reserved; /* 0 */
} ingot_submission;

/* Inputs of the parts that the problem turns on. data of all others must be NULL. Strides may be 0,
 * which repeats elements. */
typedef struct ingot_part_tensors {
  ingot_tensor alibi_slopes; /* f32 [batch, num_heads]: stride[0] and stride[1] are looked at */
  ingot_tensor bias;         /* bias_shape */
  ingot_tensor mask;         /* bytes, [batch, num_heads, seqlen_q, seqlen_k]; 0: not visible */
  ingot_tensor sinks;        /* [num_heads]: stride[1] is looked at */
  ingot_tensor prefix_len;   /* int32 [batch]: stride[0] is looked at; cut to 0 .. seqlen_k */
  /* Which weights dropout takes is a function of these two and of the place (batch, head, row,
   * col), the same on every device (docs/numerics.md); the backward pass needs the forward pass's.
   */
  uint64_t dropout_seed;
  uint64_t dropout_offset;
  const uint64_t* dropout_state; /* cuda: {seed, offset} in device memory, read when the call runs,
                                  * instead of the two above; else NULL */
} ingot_part_tensors;

typedef struct ingot_forward_args {
  size_t struct_size;
  ingot_tensor q, k, v;   /* in */
  ingot_tensor o;         /* out */
  ingot_tensor lse;       /* out, f32: log(sum of exp(score)), natural; NULL: not wanted */
  void* workspace;        /* 64-byte aligned, in the device's memory; NULL: ingot's own */
  size_t workspace_bytes; /* at least ingot_plan_workspace_bytes(plan, INGOT_FORWARD) */
  ingot_submission submission;
  ingot_part_tensors parts; /* in */
} ingot_forward_args;

typedef struct ingot_backward_args {
  size_t struct_size;
  ingot_tensor q, k, v, o, lse, dout; /* in; o and lse as the forward pass wrote them */
  ingot_tensor dq, dk, dv;            /* out; data NULL: not wanted (one of the five must be) */
  void* workspace;                    /* as above, with INGOT_BACKWARD */
  size_t workspace_bytes;
  ingot_submission submission;
  ingot_part_tensors parts; /* in, as the forward pass had them */
  ingot_tensor dbias;       /* out, bias_shape; data NULL: not wanted */
  ingot_tensor dsinks;      /* out, [num_heads]: stride[1] is looked at; data NULL: not wanted */
} ingot_backward_args;

/* A parallel region of the caller's own threads, as OpenMP has it: calls body(argument) on up to
 * `members` threads at once, the calling one among them, and returns when all calls have. Fewer
 * calls are right, too; without a single one ingot's own threads do the work, which all contexts
 * share. body throws nothing. */
typedef void (*ingot_parallel_region)(void* user, int32_t members, void (*body)(void* argument),
                                      void* argument);

typedef struct ingot_context_options {
  size_t struct_size;
  int32_t num_threads; /* of device "cpu", the caller's own included; 0 (the default): all that
                        * this process may use */
  ingot_parallel_region parallel_region; /* threads for device "cpu" where the program has some
                                          * already; NULL (the default): ingot's own */
  void* parallel_region_user;            /* handed to it */
} ingot_context_options;

/* Filled as far as the caller's struct_size reaches; struct_size then says how far that was. */
typedef struct ingot_device_info {
  size_t struct_size;    /* 0: that of version 0.1, this one */
  char name[32];         /* what ingot_plan_create takes: "cpu", "reference", "cuda:0", "metal:0" */
  char description[224]; /* the hardware and what is used of it, one line */
} ingot_device_info;

INGOT_API const char* ingot_version(void);                    /* "0.1.0" */
INGOT_API const char* ingot_status_name(ingot_status status); /* "invalid_argument" */
INGOT_API const char* ingot_last_error(void);                 /* "" after a call that succeeded */

/* Defaults, for a structure of the size that the caller's header knows: bindings call these, C and
 * C++ the functions without a size below. */
INGOT_API void ingot_problem_init_sized(ingot_problem* problem, size_t struct_size);
INGOT_API void ingot_forward_args_init_sized(ingot_forward_args* args, size_t struct_size);
INGOT_API void ingot_backward_args_init_sized(ingot_backward_args* args, size_t struct_size);
INGOT_API void ingot_context_options_init_sized(ingot_context_options* options, size_t struct_size);
INGOT_API void ingot_device_info_init_sized(ingot_device_info* info, size_t struct_size);

/* One f32 head without mask; the sizes remain to be set. */
static inline void ingot_problem_init(ingot_problem* problem) {
  ingot_problem_init_sized(problem, sizeof *problem);
}
static inline void ingot_forward_args_init(ingot_forward_args* args) {
  ingot_forward_args_init_sized(args, sizeof *args);
}
static inline void ingot_backward_args_init(ingot_backward_args* args) {
  ingot_backward_args_init_sized(args, sizeof *args);
}
static inline void ingot_context_options_init(ingot_context_options* options) {
  ingot_context_options_init_sized(options, sizeof *options);
}
static inline void ingot_device_info_init(ingot_device_info* info) {
  ingot_device_info_init_sized(info, sizeof *info);
}

/* options NULL: the defaults. */
INGOT_API ingot_status ingot_context_create(const ingot_context_options* options,
                                            ingot_context** context);
/* NULL is allowed; the context's plans must be gone. */
INGOT_API void ingot_context_destroy(ingot_context* context);

INGOT_API ingot_status ingot_device_count(const ingot_context* context, int32_t* count);
INGOT_API ingot_status ingot_device_info_get(const ingot_context* context, int32_t index,
                                             ingot_device_info* info);

/* Checks the problem and prepares it for one device. A plan is immutable: make it once, run it many
 * times, from any number of threads. device NULL or "auto": the first of ingot_device_info_get.
 * Costs microseconds on a CPU. */
INGOT_API ingot_status ingot_plan_create(ingot_context* context, const char* device,
                                         const ingot_problem* problem, ingot_plan** plan);
INGOT_API void ingot_plan_destroy(ingot_plan* plan); /* NULL is allowed */

/* Bytes a caller-supplied workspace needs: a few tiles per thread, and for the backward pass at
 * most O(seqlen_k * head_dim) per thread besides. */
INGOT_API ingot_status ingot_plan_workspace_bytes(const ingot_plan* plan, ingot_pass pass,
                                                  size_t* bytes);

/* Which kernel runs, its blocks and memory, and why. Writes at most capacity bytes including the
 * final NUL into text (may be NULL with capacity 0); *needed is the size of the whole text with its
 * NUL. */
INGOT_API ingot_status ingot_plan_explain(const ingot_plan* plan, ingot_format format, char* text,
                                          size_t capacity, size_t* needed);

/* The kernel text a just-in-time back end compiles. Fails with INGOT_UNSUPPORTED where kernels are
 * compiled ahead of time (cpu, reference). Same protocol as ingot_plan_explain. */
INGOT_API ingot_status ingot_plan_source(const ingot_plan* plan, ingot_pass pass, char* text,
                                         size_t capacity, size_t* needed);

/* Same inputs, same device: same bits, whatever the number of threads. A row that sees no key has
 * o = 0, lse = -inf and gradient 0. Inputs may not overlap outputs. */
INGOT_API ingot_status ingot_forward(const ingot_plan* plan, const ingot_forward_args* args);
INGOT_API ingot_status ingot_backward(const ingot_plan* plan, const ingot_backward_args* args);

/* Calls that belong together, such as the sequences of a batch with padding: `count` of plans[i]
 * with args[i], of one device, in any order or at the same time (on a CPU small ones side by side,
 * on as many threads as there are). No memory that one writes may be another's. All arguments are
 * checked first; what else fails ends the group, some of its calls done and some not. */
INGOT_API ingot_status ingot_forward_group(const ingot_plan* const* plans,
                                           const ingot_forward_args* const* args, int32_t count);
INGOT_API ingot_status ingot_backward_group(const ingot_plan* const* plans,
                                            const ingot_backward_args* const* args, int32_t count);

/* Waits for the call behind an event. INGOT_DEVICE_ERROR and the like: what went wrong in it.
 * gpu_seconds (may be NULL): its time on the device, 0 where the device has no clock. */
INGOT_API ingot_status ingot_event_wait(ingot_event* event, double* gpu_seconds);
INGOT_API ingot_status ingot_event_done(ingot_event* event, int32_t* done); /* does not wait */
/* Waits first where need be. NULL is allowed. */
INGOT_API void ingot_event_destroy(ingot_event* event);

/* Plan and run in one call. */
INGOT_API ingot_status ingot_attention_forward(ingot_context* context, const char* device,
                                               const ingot_problem* problem,
                                               const ingot_forward_args* args);
INGOT_API ingot_status ingot_attention_backward(ingot_context* context, const char* device,
                                                const ingot_problem* problem,
                                                const ingot_backward_args* args);

#ifdef __cplusplus
}
#endif
#endif /* INGOT_INGOT_H */
