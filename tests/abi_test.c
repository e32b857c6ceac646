/* The interface from C11: the header compiles as C, structures carry their size, NULL is an error
 * and never a crash. */
#include <ingot/ingot.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

static void check(int ok, const char* what, int line) {
  if (ok) return;
  fprintf(stderr, "abi_test.c:%d: %s (last error: \"%s\")\n", line, what, ingot_last_error());
  ++failures;
}
#define CHECK(condition) check((condition), #condition, __LINE__)
#define CHECK_ERROR(call, status, text)             \
  do {                                              \
    CHECK((call) == (status));                      \
    CHECK(strcmp(ingot_last_error(), (text)) == 0); \
  } while (0)

static ingot_problem small_problem(void) {
  ingot_problem p;
  ingot_problem_init(&p);
  p.seqlen_q = 2;
  p.seqlen_k = 3;
  p.head_dim = 4;
  p.head_dim_v = 4;
  return p;
}

static void test_names(void) {
  char version[32];
  snprintf(version, sizeof version, "%d.%d.%d", INGOT_VERSION_MAJOR, INGOT_VERSION_MINOR,
           INGOT_VERSION_PATCH);
  CHECK(strcmp(ingot_version(), version) == 0);
  CHECK(strcmp(ingot_status_name(INGOT_OK), "ok") == 0);
  CHECK(strcmp(ingot_status_name(INGOT_INVALID_ARGUMENT), "invalid_argument") == 0);
  CHECK(strcmp(ingot_status_name(INGOT_UNSUPPORTED), "unsupported") == 0);
  CHECK(strcmp(ingot_status_name(INGOT_OUT_OF_MEMORY), "out_of_memory") == 0);
  CHECK(strcmp(ingot_status_name(INGOT_COMPILE_FAILED), "compile_failed") == 0);
  CHECK(strcmp(ingot_status_name(INGOT_DEVICE_ERROR), "device_error") == 0);
  CHECK(strcmp(ingot_status_name(INGOT_INTERNAL), "internal") == 0);
  CHECK(strcmp(ingot_status_name((ingot_status)99), "unknown") == 0);
}

static void test_defaults(void) {
  ingot_problem p;
  ingot_context_options options;
  memset(&p, 0x5A, sizeof p);
  ingot_problem_init(&p);
  CHECK(p.struct_size == sizeof p);
  CHECK(p.batch == 1 && p.num_heads == 1 && p.num_heads_kv == 1);
  CHECK(p.q_dtype == INGOT_DTYPE_DEFAULT && p.dv_dtype == INGOT_DTYPE_DEFAULT);
  CHECK(p.causal == INGOT_CAUSAL_NONE && p.window_left == -1 && p.window_right == -1);
  CHECK(p.scale == 0.0F && p.softcap == 0.0F && p.precision == INGOT_PRECISION_HIGHEST);
  CHECK(p.alibi == 0 && p.mask == 0 && p.prefix == 0 && p.dropout == 0.0F);
  CHECK(p.bias_dtype == INGOT_DTYPE_DEFAULT && p.dbias_dtype == INGOT_DTYPE_DEFAULT);
  CHECK(p.sinks_dtype == INGOT_DTYPE_DEFAULT && p.dsinks_dtype == INGOT_DTYPE_DEFAULT);
  for (int i = 0; i < 4; ++i) CHECK(p.bias_shape[i] == 0);
  memset(&options, 0x5A, sizeof options);
  ingot_context_options_init(&options);
  CHECK(options.struct_size == sizeof options && options.num_threads == 0);
  CHECK(options.parallel_region == NULL && options.parallel_region_user == NULL);
  ingot_problem_init(NULL);
  ingot_forward_args_init(NULL);
  ingot_backward_args_init(NULL);
  ingot_context_options_init(NULL);
  ingot_context_destroy(NULL);
  ingot_plan_destroy(NULL);
}

static void test_context_errors(void) {
  ingot_context* context = (ingot_context*)&failures;
  ingot_context_options options;
  ingot_context_options_init(&options);
  CHECK_ERROR(ingot_context_create(NULL, NULL), INGOT_INVALID_ARGUMENT,
              "context: must not be NULL");
  options.num_threads = -3;
  CHECK_ERROR(ingot_context_create(&options, &context), INGOT_INVALID_ARGUMENT,
              "num_threads: must be from 0 to 4096, got -3");
  CHECK(context == NULL);
  options.struct_size = 0;
  CHECK(ingot_context_create(&options, &context) == INGOT_INVALID_ARGUMENT);
  CHECK(strncmp(ingot_last_error(), "options.struct_size: must be at least ", 38) == 0);
}

static void count_region(void* user, int32_t members, void (*body)(void*), void* argument) {
  ++*(int*)user;
  for (int32_t i = 0; i < members; ++i) body(argument);
}

/* The caller's threads do the work of device "cpu"; an older caller's structure ends before. */
static void test_parallel_region(void) {
  static float q[2 * 256 * 64], o[2 * 256 * 64];
  for (size_t i = 0; i < sizeof q / sizeof *q; ++i) q[i] = (float)(i % 7);
  for (int with_region = 0; with_region < 2; ++with_region) {
    int regions = 0;
    ingot_context* context = NULL;
    ingot_context_options options;
    ingot_context_options_init(&options);
    options.num_threads = 2;
    options.parallel_region = count_region;
    options.parallel_region_user = &regions;
    if (!with_region) options.struct_size = offsetof(ingot_context_options, parallel_region);
    CHECK(ingot_context_create(&options, &context) == INGOT_OK);
    ingot_problem p;
    ingot_problem_init(&p);
    p.num_heads = p.num_heads_kv = 2;
    p.seqlen_q = p.seqlen_k = 256;
    p.head_dim = p.head_dim_v = 64;
    ingot_forward_args args;
    ingot_forward_args_init(&args);
    const ingot_tensor x = {q, {2 * 256 * 64, 256 * 64, 64, 1}};
    args.q = args.k = args.v = args.o = x;
    args.o.data = o;
    CHECK(ingot_attention_forward(context, "cpu", &p, &args) == INGOT_OK);
    CHECK(regions == with_region);
    ingot_context_destroy(context);
  }
}

static void test_groups(ingot_context* context) {
  ingot_plan *cpu = NULL, *reference = NULL;
  ingot_problem p;
  ingot_problem_init(&p);
  p.seqlen_q = p.seqlen_k = 2;
  p.head_dim = p.head_dim_v = 2;
  CHECK(ingot_plan_create(context, "cpu", &p, &cpu) == INGOT_OK);
  CHECK(ingot_plan_create(context, "reference", &p, &reference) == INGOT_OK);
  float q[4] = {1, 2, 3, 4}, o[2][4];
  ingot_forward_args args[2];
  for (int i = 0; i < 2; ++i) {
    const ingot_tensor in = {q, {4, 4, 2, 1}}, out = {o[i], {4, 4, 2, 1}};
    ingot_forward_args_init(&args[i]);
    args[i].q = args[i].k = args[i].v = in;
    args[i].o = out;
  }
  const ingot_plan* plans[2] = {cpu, cpu};
  const ingot_forward_args* calls[2] = {&args[0], &args[1]};
  CHECK(ingot_forward_group(plans, calls, 2) == INGOT_OK);
  CHECK(memcmp(o[0], o[1], sizeof o[0]) == 0);
  CHECK(ingot_forward_group(NULL, NULL, 0) == INGOT_OK);
  CHECK(ingot_backward_group(NULL, NULL, 0) == INGOT_OK);
  CHECK_ERROR(ingot_forward_group(plans, calls, -1), INGOT_INVALID_ARGUMENT,
              "count: must not be negative, got -1");
  CHECK_ERROR(ingot_forward_group(NULL, calls, 2), INGOT_INVALID_ARGUMENT,
              "plans: must not be NULL");
  CHECK_ERROR(ingot_forward_group(plans, NULL, 2), INGOT_INVALID_ARGUMENT,
              "args: must not be NULL");
  plans[1] = reference;
  CHECK_ERROR(ingot_forward_group(plans, calls, 2), INGOT_INVALID_ARGUMENT,
              "plans: must be of one device, plan 0 is of cpu, plan 1 of reference");
  plans[1] = NULL;
  CHECK_ERROR(ingot_forward_group(plans, calls, 2), INGOT_INVALID_ARGUMENT,
              "plans[1]: must not be NULL");
  plans[1] = cpu;
  ingot_event* event = NULL;
  args[1].submission.event = &event;
  CHECK_ERROR(ingot_forward_group(plans, calls, 2), INGOT_INVALID_ARGUMENT,
              "args[1].submission.event: must be NULL in a group");
  args[1].submission.event = NULL;
  args[1].k.data = NULL;
  CHECK(ingot_forward_group(plans, calls, 2) == INGOT_INVALID_ARGUMENT);
  CHECK(strncmp(ingot_last_error(), "args[1].k.data: must not be NULL", 32) == 0);
  args[1].k.data = q;
  calls[1] = NULL;
  CHECK_ERROR(ingot_forward_group(plans, calls, 2), INGOT_INVALID_ARGUMENT,
              "args[1]: must not be NULL");
  plans[0] = plans[1] = reference;
  calls[1] = &args[1];
  CHECK(ingot_forward_group(plans, calls, 2) == INGOT_OK);
  ingot_plan_destroy(cpu);
  ingot_plan_destroy(reference);
}

static void test_devices(ingot_context* context) {
  int32_t count = 0;
  ingot_device_info info;
  char text[80];
  CHECK(ingot_device_count(context, &count) == INGOT_OK && count >= 2);
  CHECK(strcmp(ingot_last_error(), "") == 0);
  for (int32_t i = 0; i < count; ++i) {
    ingot_device_info_init(&info);
    CHECK(ingot_device_info_get(context, i, &info) == INGOT_OK);
    CHECK(info.struct_size == sizeof info && strlen(info.name) > 0 && strlen(info.description) > 0);
  }
  CHECK(strcmp(info.name, "reference") == 0);
  snprintf(text, sizeof text, "index: must be from 0 to %d, got %d", (int)count - 1, (int)count);
  CHECK_ERROR(ingot_device_info_get(context, count, &info), INGOT_INVALID_ARGUMENT, text);
  CHECK_ERROR(ingot_device_count(NULL, &count), INGOT_INVALID_ARGUMENT,
              "context: must not be NULL");
  CHECK_ERROR(ingot_device_count(context, NULL), INGOT_INVALID_ARGUMENT, "count: must not be NULL");
  CHECK_ERROR(ingot_device_info_get(context, 0, NULL), INGOT_INVALID_ARGUMENT,
              "info: must not be NULL");
}

static void test_struct_size(ingot_context* context) {
  struct {
    ingot_problem problem;
    int64_t field_of_a_later_version;
  } later;
  ingot_problem p = small_problem();
  ingot_plan* plan = NULL;
  char text[160];
  const size_t first = offsetof(ingot_problem, precision); /* the size in version 0.1 */
  p.struct_size = first - 8;
  snprintf(text, sizeof text,
           "problem.struct_size: must be at least %zu, got %zu (use its _init function)", first,
           first - 8);
  CHECK_ERROR(ingot_plan_create(context, "cpu", &p, &plan), INGOT_INVALID_ARGUMENT, text);
  CHECK(plan == NULL);

  memset(&p, 0x5A, sizeof p); /* a caller that knows no precision: what lies behind is not his */
  ingot_problem_init_sized(&p, first);
  CHECK(p.struct_size == first && p.batch == 1 && p.window_left == -1 && p.precision == 0x5A5A5A5A);
  p.seqlen_q = p.seqlen_k = p.head_dim = p.head_dim_v = 4;
  CHECK(ingot_plan_create(context, "cpu", &p, &plan) == INGOT_OK);
  ingot_plan_destroy(plan);
  plan = NULL;

  memset(&later, 0, sizeof later);
  later.problem = small_problem();
  later.problem.struct_size = sizeof later;
  CHECK(ingot_plan_create(context, "cpu", &later.problem, &plan) == INGOT_OK);
  ingot_plan_destroy(plan);
  later.field_of_a_later_version = 7;
  snprintf(text, sizeof text,
           "problem: sets a field that this version does not know, struct_size %zu, known %zu",
           sizeof later, sizeof p);
  CHECK_ERROR(ingot_plan_create(context, "cpu", &later.problem, &plan), INGOT_UNSUPPORTED, text);
}

static void test_plan(ingot_context* context) {
  const ingot_problem p = small_problem();
  ingot_plan* plan = NULL;
  size_t needed = 0, bytes = 0;
  char small[6];
  CHECK_ERROR(ingot_plan_create(NULL, "cpu", &p, &plan), INGOT_INVALID_ARGUMENT,
              "context: must not be NULL");
  CHECK_ERROR(ingot_plan_create(context, "cpu", NULL, &plan), INGOT_INVALID_ARGUMENT,
              "problem: must not be NULL");
  CHECK_ERROR(ingot_plan_create(context, "cpu", &p, NULL), INGOT_INVALID_ARGUMENT,
              "plan: must not be NULL");
  CHECK(ingot_plan_create(context, NULL, &p, &plan) == INGOT_OK && plan != NULL);
  ingot_plan_destroy(plan);
  CHECK(ingot_plan_create(context, "auto", &p, &plan) == INGOT_OK && plan != NULL);

  CHECK(ingot_plan_explain(plan, INGOT_TEXT, NULL, 0, &needed) == INGOT_OK &&
        needed > sizeof small);
  memset(small, 'x', sizeof small);
  CHECK(ingot_plan_explain(plan, INGOT_JSON, small, sizeof small, &needed) == INGOT_OK);
  CHECK(small[0] == '{' && small[5] == '\0');
  CHECK(ingot_plan_explain(plan, INGOT_TEXT, NULL, 0, NULL) == INGOT_OK);
  CHECK_ERROR(ingot_plan_explain(plan, INGOT_TEXT, NULL, 4, &needed), INGOT_INVALID_ARGUMENT,
              "text: must not be NULL with capacity 4");
  CHECK_ERROR(ingot_plan_explain(plan, (ingot_format)2, NULL, 0, &needed), INGOT_INVALID_ARGUMENT,
              "format: must be an ingot_format (0 or 1), got 2");
  CHECK_ERROR(ingot_plan_explain(NULL, INGOT_TEXT, NULL, 0, &needed), INGOT_INVALID_ARGUMENT,
              "plan: must not be NULL");
  CHECK(ingot_plan_workspace_bytes(plan, INGOT_FORWARD, &bytes) == INGOT_OK);
  CHECK_ERROR(ingot_plan_workspace_bytes(plan, (ingot_pass)2, &bytes), INGOT_INVALID_ARGUMENT,
              "pass: must be an ingot_pass (0 or 1), got 2");
  CHECK_ERROR(ingot_plan_workspace_bytes(plan, INGOT_FORWARD, NULL), INGOT_INVALID_ARGUMENT,
              "bytes: must not be NULL");
  CHECK_ERROR(ingot_forward(plan, NULL), INGOT_INVALID_ARGUMENT, "args: must not be NULL");
  CHECK_ERROR(ingot_backward(plan, NULL), INGOT_INVALID_ARGUMENT, "args: must not be NULL");
  CHECK_ERROR(ingot_forward(NULL, NULL), INGOT_INVALID_ARGUMENT, "plan: must not be NULL");
  CHECK_ERROR(ingot_backward(NULL, NULL), INGOT_INVALID_ARGUMENT, "plan: must not be NULL");
  ingot_plan_destroy(plan);
}

static ingot_tensor packed(float* data, int64_t rows, int64_t dim) {
  const ingot_tensor t = {data, {rows * dim, rows * dim, dim, 1}};
  return t;
}

/* Two equal keys: every output is the mean of the two values. */
static void test_compute(ingot_context* context, const char* device) {
  float q[2] = {1, 2}, k[4] = {3, 4, 3, 4}, v[2] = {10, 20}, o[1] = {-1}, lse[1] = {-1};
  float dout[1] = {2}, dq[2] = {-1, -1}, dk[4] = {-1, -1, -1, -1}, dv[2] = {-1, -1};
  ingot_problem p;
  ingot_forward_args f;
  ingot_backward_args g;
  ingot_problem_init(&p);
  p.seqlen_q = 1;
  p.seqlen_k = 2;
  p.head_dim = 2;
  p.head_dim_v = 1;
  p.scale = 1;
  ingot_forward_args_init(&f);
  f.q = packed(q, 1, 2);
  f.k = packed(k, 2, 2);
  f.v = packed(v, 2, 1);
  f.o = packed(o, 1, 1);
  f.lse = packed(lse, 1, 1);
  CHECK(ingot_attention_forward(context, device, &p, &f) == INGOT_OK);
  CHECK(fabsf(o[0] - 15) < 1e-5F && fabsf(lse[0] - (11 + logf(2))) < 1e-5F);
  ingot_backward_args_init(&g);
  g.q = f.q;
  g.k = f.k;
  g.v = f.v;
  g.o = f.o;
  g.lse = f.lse;
  g.dout = packed(dout, 1, 1);
  g.dq = packed(dq, 1, 2);
  g.dk = packed(dk, 2, 2);
  g.dv = packed(dv, 2, 1);
  CHECK(ingot_attention_backward(context, device, &p, &g) == INGOT_OK);
  CHECK(fabsf(dv[0] - 1) < 1e-6F && fabsf(dv[1] - 1) < 1e-6F);
  CHECK(fabsf(dq[0]) < 1e-4F && fabsf(dq[1]) < 1e-4F);
  CHECK(fabsf(dk[0] + 5) < 1e-4F && fabsf(dk[1] + 10) < 1e-4F && fabsf(dk[2] - 5) < 1e-4F);
  f.struct_size = 3;
  CHECK(ingot_attention_forward(context, device, &p, &f) == INGOT_INVALID_ARGUMENT);
  CHECK(strncmp(ingot_last_error(), "args.struct_size: must be at least ", 35) == 0);
}

/* A caller built against version 0.1, whose arguments ended before `submission`. */
static void test_earlier_version(ingot_context* context) {
  const size_t size_0_1 = offsetof(ingot_forward_args, submission);
  float q[1] = {1}, k[1] = {1}, v[1] = {3};
  float o[1] = {-1};
  ingot_problem p;
  ingot_forward_args f;
  ingot_problem_init(&p);
  p.seqlen_q = p.seqlen_k = p.head_dim = p.head_dim_v = 1;
  memset(&f, 0x5A, sizeof f); /* what lies behind is not the caller's */
  ingot_forward_args_init_sized(&f, size_0_1);
  CHECK(((const unsigned char*)&f)[size_0_1] == 0x5A && f.struct_size == size_0_1);
  f.q = packed(q, 1, 1);
  f.k = packed(k, 1, 1);
  f.v = packed(v, 1, 1);
  f.o = packed(o, 1, 1);
  CHECK(ingot_attention_forward(context, "cpu", &p, &f) == INGOT_OK);
  CHECK(o[0] == 3);
}

static void test_submission(ingot_context* context, const char* device) {
  float q[1] = {1}, k[1] = {1}, v[1] = {3};
  float o[1] = {-1};
  char text[160];
  int32_t done = 0;
  double seconds = -1;
  ingot_event* event = NULL;
  ingot_problem p;
  ingot_forward_args f;
  ingot_problem_init(&p);
  p.seqlen_q = p.seqlen_k = p.head_dim = p.head_dim_v = 1;
  ingot_forward_args_init(&f);
  f.q = packed(q, 1, 1);
  f.k = packed(k, 1, 1);
  f.v = packed(v, 1, 1);
  f.o = packed(o, 1, 1);
  f.submission.event = &event;
  CHECK(ingot_attention_forward(context, device, &p, &f) == INGOT_OK && event != NULL);
  CHECK(ingot_event_wait(event, &seconds) == INGOT_OK && seconds >= 0);
  CHECK(ingot_event_done(event, &done) == INGOT_OK && done == 1 && o[0] == 3);
  ingot_event_destroy(event);
  ingot_event_destroy(NULL);
  f.submission.event = NULL;
  f.submission.stream = o;
  snprintf(text, sizeof text,
           "submission.stream: must be NULL, device %s works on host memory and has no queue",
           device);
  CHECK_ERROR(ingot_attention_forward(context, device, &p, &f), INGOT_INVALID_ARGUMENT, text);
  f.submission.stream = NULL;
  f.submission.memory = 7;
  CHECK_ERROR(ingot_attention_forward(context, device, &p, &f), INGOT_INVALID_ARGUMENT,
              "submission.memory: must be an ingot_memory (0 or 1), got 7");
}

int main(void) {
  ingot_context* context = NULL;
  test_names();
  test_defaults();
  test_context_errors();
  test_parallel_region();
  CHECK(ingot_context_create(NULL, &context) == INGOT_OK && context != NULL);
  if (context == NULL) return EXIT_FAILURE;
  test_devices(context);
  test_groups(context);
  test_struct_size(context);
  test_plan(context);
  test_compute(context, "cpu");
  test_compute(context, "reference");
  test_earlier_version(context);
  test_submission(context, "cpu");
  test_submission(context, "reference");
  ingot_context_destroy(context);
  if (failures != 0) fprintf(stderr, "%d checks failed\n", failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
