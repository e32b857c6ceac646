/* A program that was compiled before the parts of the score came into the header: its structures
 * are shorter, lie in the same places, and what is behind them is not the library's. */
#include <ingot/ingot.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

static void check(int ok, const char* what, int line) {
  if (ok) return;
  fprintf(stderr, "old_caller_test.c:%d: %s (last error: \"%s\")\n", line, what,
          ingot_last_error());
  ++failures;
}
#define CHECK(condition) check((condition), #condition, __LINE__)

/* The structures of then. */
typedef struct old_problem {
  size_t struct_size;
  int64_t batch, num_heads, num_heads_kv, seqlen_q, seqlen_k, head_dim, head_dim_v;
  int32_t q_dtype, k_dtype, v_dtype, o_dtype, dout_dtype, dq_dtype, dk_dtype, dv_dtype;
  int32_t causal;
  int64_t window_left, window_right;
  float scale, softcap;
  int32_t precision;
  int32_t reserved;
  int64_t workspace_limit;
} old_problem;

typedef struct old_tensor {
  void* data;
  int64_t stride[4];
} old_tensor;

typedef struct old_submission {
  void *stream, *encoder;
  ingot_event** event;
  const int32_t* cancel;
  int32_t memory, reserved;
} old_submission;

typedef struct old_forward_args {
  size_t struct_size;
  old_tensor q, k, v, o, lse;
  void* workspace;
  size_t workspace_bytes;
  old_submission submission;
} old_forward_args;

typedef struct old_backward_args {
  size_t struct_size;
  old_tensor q, k, v, o, lse, dout, dq, dk, dv;
  void* workspace;
  size_t workspace_bytes;
  old_submission submission;
} old_backward_args;

#define SAME_PLACE(old, now, field) \
  _Static_assert(offsetof(old, field) == offsetof(now, field), #old "." #field " has moved")
SAME_PLACE(old_problem, ingot_problem, head_dim_v);
SAME_PLACE(old_problem, ingot_problem, dv_dtype);
SAME_PLACE(old_problem, ingot_problem, causal);
SAME_PLACE(old_problem, ingot_problem, window_right);
SAME_PLACE(old_problem, ingot_problem, softcap);
SAME_PLACE(old_problem, ingot_problem, precision);
SAME_PLACE(old_problem, ingot_problem, workspace_limit);
SAME_PLACE(old_forward_args, ingot_forward_args, lse);
SAME_PLACE(old_forward_args, ingot_forward_args, workspace_bytes);
SAME_PLACE(old_forward_args, ingot_forward_args, submission);
SAME_PLACE(old_backward_args, ingot_backward_args, dv);
SAME_PLACE(old_backward_args, ingot_backward_args, workspace_bytes);
SAME_PLACE(old_backward_args, ingot_backward_args, submission);
_Static_assert(sizeof(old_submission) == sizeof(ingot_submission), "ingot_submission has grown");
_Static_assert(sizeof(old_problem) == offsetof(ingot_problem, mask), "the first new field");
_Static_assert(sizeof(old_forward_args) == offsetof(ingot_forward_args, parts), "the new field");
_Static_assert(sizeof(old_backward_args) == offsetof(ingot_backward_args, parts), "a new field");

enum { rows = 3, keys = 5, dim = 4 };
static float q[rows * dim], k[keys * dim], v[keys * dim], dout[rows * dim];
static float o[rows * dim], lse[rows], dq[rows * dim], dk[keys * dim], dv[keys * dim];

static old_tensor tensor(float* data, int64_t length) {
  const old_tensor t = {data, {length * dim, length * dim, dim, 1}};
  return t;
}

/* Each structure with foreign memory behind it. */
static struct {
  old_problem problem;
  unsigned char behind_problem[512];
  old_forward_args forward;
  unsigned char behind_forward[512];
  old_backward_args backward;
  unsigned char behind_backward[512];
} memory;

static void fill(void) {
  memset(&memory, 0x5A, sizeof memory);
  ingot_problem_init_sized((ingot_problem*)&memory.problem, sizeof memory.problem);
  memory.problem.seqlen_q = rows;
  memory.problem.seqlen_k = keys;
  memory.problem.head_dim = memory.problem.head_dim_v = dim;
  old_forward_args* f = &memory.forward;
  ingot_forward_args_init_sized((ingot_forward_args*)f, sizeof *f);
  f->q = tensor(q, rows), f->k = tensor(k, keys), f->v = tensor(v, keys), f->o = tensor(o, rows);
  f->lse.data = lse, f->lse.stride[2] = 1;
  old_backward_args* b = &memory.backward;
  ingot_backward_args_init_sized((ingot_backward_args*)b, sizeof *b);
  b->q = f->q, b->k = f->k, b->v = f->v, b->o = f->o, b->lse = f->lse;
  b->dout = tensor(dout, rows), b->dq = tensor(dq, rows);
  b->dk = tensor(dk, keys), b->dv = tensor(dv, keys);
}

static void check_behind(const unsigned char* bytes) {
  for (size_t i = 0; i < sizeof memory.behind_problem; ++i) CHECK(bytes[i] == 0x5A);
}

/* Queries of zeros weigh all keys alike. */
static void check_numbers(void) {
  for (int d = 0; d < dim; ++d) {
    float mean = 0, sum = 0;
    for (int key = 0; key < keys; ++key) mean += v[key * dim + d] / keys;
    for (int row = 0; row < rows; ++row) {
      sum += dout[row * dim + d];
      CHECK(fabsf(o[row * dim + d] - mean) < 1e-5F);
      CHECK(fabsf(lse[row] - logf(keys)) < 1e-5F);
    }
    for (int key = 0; key < keys; ++key) CHECK(fabsf(dv[key * dim + d] - sum / keys) < 1e-5F);
  }
}

static void test_device(ingot_context* context, const char* device) {
  fill();
  const ingot_problem* problem = (const ingot_problem*)&memory.problem;
  const ingot_forward_args* forward = (const ingot_forward_args*)&memory.forward;
  const ingot_backward_args* backward = (const ingot_backward_args*)&memory.backward;
  ingot_plan* plan = NULL;
  CHECK(ingot_plan_create(context, device, problem, &plan) == INGOT_OK);
  memset(o, 0x5A, sizeof o), memset(lse, 0x5A, sizeof lse), memset(dv, 0x5A, sizeof dv);
  CHECK(ingot_forward(plan, forward) == INGOT_OK);
  CHECK(ingot_backward(plan, backward) == INGOT_OK);
  check_numbers();
  const ingot_plan* const plans[1] = {plan};
  memset(o, 0x5A, sizeof o), memset(dv, 0x5A, sizeof dv);
  CHECK(ingot_forward_group(plans, &forward, 1) == INGOT_OK);
  CHECK(ingot_backward_group(plans, &backward, 1) == INGOT_OK);
  check_numbers();
  memset(o, 0x5A, sizeof o), memset(dv, 0x5A, sizeof dv);
  CHECK(ingot_attention_forward(context, device, problem, forward) == INGOT_OK);
  CHECK(ingot_attention_backward(context, device, problem, backward) == INGOT_OK);
  check_numbers();
  check_behind(memory.behind_problem);
  check_behind(memory.behind_forward);
  check_behind(memory.behind_backward);
  ingot_plan_destroy(plan);
}

int main(void) {
  for (int i = 0; i < keys * dim; ++i) {
    k[i] = (float)(i % 7) - 3;
    v[i] = (float)(i % 5) / 4;
    if (i < rows * dim) dout[i] = (float)(i % 3) - 1;
  }
  ingot_context* context = NULL;
  CHECK(ingot_context_create(NULL, &context) == INGOT_OK);
  test_device(context, "cpu");
  test_device(context, "reference");
  ingot_context_destroy(context);
  if (failures != 0) fprintf(stderr, "%d checks failed\n", failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
