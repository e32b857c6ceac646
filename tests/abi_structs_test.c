/* Every structure of the interface: what its size says is kept to, and what is reserved is looked
 * at. */
#include <ingot/ingot.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

static void check(int ok, const char* what, const char* structure, int line) {
  if (ok) return;
  fprintf(stderr, "abi_structs_test.c:%d: %s: %s (last error: \"%s\")\n", line, structure, what,
          ingot_last_error());
  ++failures;
}
#define CHECK(condition) check((condition), #condition, "", __LINE__)
#define CHECK_OF(structure, condition) check((condition), #condition, (structure), __LINE__)

static ingot_context* context = NULL;
static ingot_plan* plan = NULL; /* one number */
static float one[1] = {1}, out[1];

static int says(const char* start) {
  return strncmp(ingot_last_error(), start, strlen(start)) == 0;
}

/* A structure within larger memory, and the functions that read it. */
union any {
  size_t struct_size;
  ingot_problem problem;
  ingot_forward_args forward;
  ingot_backward_args backward;
  ingot_context_options options;
  ingot_device_info info;
  unsigned char bytes[65536 + 64];
};
static union any any;

static ingot_tensor tensor(void* data) {
  const ingot_tensor t = {data, {1, 1, 1, 1}};
  return t;
}

static void fill_problem(size_t size) {
  ingot_problem_init_sized(&any.problem, size);
  any.problem.seqlen_q = any.problem.seqlen_k = any.problem.head_dim = any.problem.head_dim_v = 1;
}
static ingot_status use_problem(void) {
  ingot_plan* made = NULL;
  const ingot_status status = ingot_plan_create(context, "cpu", &any.problem, &made);
  ingot_plan_destroy(made);
  return status;
}

static void fill_forward(size_t size) {
  ingot_forward_args_init_sized(&any.forward, size);
  any.forward.q = any.forward.k = any.forward.v = tensor(one);
  any.forward.o = tensor(out);
}
static ingot_status use_forward(void) { return ingot_forward(plan, &any.forward); }
static ingot_status use_forward_group(void) {
  const ingot_plan* const plans[1] = {plan};
  const ingot_forward_args* const args[1] = {&any.forward};
  return ingot_forward_group(plans, args, 1);
}
static ingot_status use_attention_forward(void) {
  ingot_problem p;
  ingot_problem_init(&p);
  p.seqlen_q = p.seqlen_k = p.head_dim = p.head_dim_v = 1;
  return ingot_attention_forward(context, "cpu", &p, &any.forward);
}

static void fill_backward(size_t size) {
  ingot_backward_args_init_sized(&any.backward, size);
  any.backward.q = any.backward.k = any.backward.v = any.backward.o = tensor(one);
  any.backward.lse = any.backward.dout = tensor(one);
  any.backward.dq = tensor(out);
}
static ingot_status use_backward(void) { return ingot_backward(plan, &any.backward); }
static ingot_status use_backward_group(void) {
  const ingot_plan* const plans[1] = {plan};
  const ingot_backward_args* const args[1] = {&any.backward};
  return ingot_backward_group(plans, args, 1);
}

static void fill_options(size_t size) {
  ingot_context_options_init_sized(&any.options, size);
  any.options.num_threads = 1;
}
static ingot_status use_options(void) {
  ingot_context* made = NULL;
  const ingot_status status = ingot_context_create(&any.options, &made);
  ingot_context_destroy(made);
  return status;
}

/* Every structure that a caller fills. */
struct structure {
  const char* name; /* of the argument */
  const char* label;
  size_t first, size; /* in version 0.1, and now */
  void (*fill)(size_t size);
  ingot_status (*use)(void);
  size_t reserved; /* where a reserved field lies; 0: it has none */
  const char* reserved_name;
};
static const struct structure structures[] = {
    {"problem", "problem", offsetof(ingot_problem, precision), sizeof(ingot_problem), fill_problem,
     use_problem, offsetof(ingot_problem, reserved), "problem.reserved"},
    {"args", "forward", offsetof(ingot_forward_args, submission), sizeof(ingot_forward_args),
     fill_forward, use_forward, offsetof(ingot_forward_args, submission.reserved),
     "submission.reserved"},
    {"args[0]", "forward_group", offsetof(ingot_forward_args, submission),
     sizeof(ingot_forward_args), fill_forward, use_forward_group,
     offsetof(ingot_forward_args, submission.reserved), "args[0].submission.reserved"},
    {"args", "attention_forward", offsetof(ingot_forward_args, submission),
     sizeof(ingot_forward_args), fill_forward, use_attention_forward,
     offsetof(ingot_forward_args, submission.reserved), "submission.reserved"},
    {"args", "backward", offsetof(ingot_backward_args, submission), sizeof(ingot_backward_args),
     fill_backward, use_backward, offsetof(ingot_backward_args, submission.reserved),
     "submission.reserved"},
    {"args[0]", "backward_group", offsetof(ingot_backward_args, submission),
     sizeof(ingot_backward_args), fill_backward, use_backward_group,
     offsetof(ingot_backward_args, submission.reserved), "args[0].submission.reserved"},
    {"options", "options", offsetof(ingot_context_options, parallel_region),
     sizeof(ingot_context_options), fill_options, use_options, 0, NULL},
};

static void refill(const struct structure* s, size_t size) {
  memset(&any, 0, sizeof any);
  s->fill(size);
}

/* Status invalid_argument, with a text about the size. */
static void check_size_error(const struct structure* s, size_t size, const char* rule) {
  char text[128];
  refill(s, s->size);
  any.struct_size = size;
  snprintf(text, sizeof text, "%s.struct_size: must be %s", s->name, rule);
  CHECK_OF(s->label, s->use() == INGOT_INVALID_ARGUMENT);
  CHECK_OF(s->label, says(text));
}

static void test_sizes(const struct structure* s) {
  for (size_t size = 0; size < s->first; ++size) check_size_error(s, size, "at least ");
  check_size_error(s, 65544, "at most 65536");
  check_size_error(s, (size_t)-8, "at most 65536");
  for (size_t size = s->first; size <= s->size + 64; ++size) {
    if (size % 8 != 0) {
      check_size_error(s, size, "a multiple of 8");
      continue;
    }
    memset(&any, 0x5A, sizeof any); /* what lies behind is not the caller's */
    s->fill(size);
    CHECK_OF(s->label, s->use() == INGOT_OK);
    CHECK_OF(s->label, any.bytes[size] == 0x5A);
  }
}

static void test_fields_of_later_versions(const struct structure* s) {
  char text[128];
  snprintf(text, sizeof text, "%s: sets a field that this version does not know", s->name);
  for (size_t at = s->size; at < s->size + 64; ++at) {
    refill(s, s->size + 64);
    any.bytes[at] = 1;
    CHECK_OF(s->label, s->use() == INGOT_UNSUPPORTED);
    CHECK_OF(s->label, says(text));
  }
}

static void test_reserved(const struct structure* s) {
  char text[128];
  const int32_t values[] = {1, -1, 12345};
  for (size_t i = 0; s->reserved != 0 && i < sizeof values / sizeof *values; ++i) {
    refill(s, s->size);
    memcpy(any.bytes + s->reserved, &values[i], sizeof *values);
    snprintf(text, sizeof text, "%s: must be 0, got %d", s->reserved_name, (int)values[i]);
    CHECK_OF(s->label, s->use() == INGOT_INVALID_ARGUMENT);
    CHECK_OF(s->label, strcmp(ingot_last_error(), text) == 0);
  }
}

/* What the caller has no room for is not written. */
static void test_device_info(void) {
  const size_t least = offsetof(ingot_device_info, description);
  ingot_device_info whole;
  ingot_device_info_init(&whole);
  CHECK(ingot_device_info_get(context, 0, &whole) == INGOT_OK && whole.struct_size == sizeof whole);
  CHECK(strlen(whole.name) > 0 && strlen(whole.description) > 0);
  for (size_t size = 0; size < sizeof whole + 64; ++size) {
    memset(&any, 0x5A, sizeof any);
    any.struct_size = size;
    const ingot_status status = ingot_device_info_get(context, 0, &any.info);
    if (size > 0 && size < least) {
      CHECK(status == INGOT_INVALID_ARGUMENT && says("info.struct_size: must be at least 40, got"));
      CHECK(any.struct_size == size && any.bytes[sizeof(size_t)] == 0x5A);
      continue;
    }
    const size_t room = size == 0 || size > sizeof whole ? sizeof whole : size;
    CHECK(status == INGOT_OK && any.struct_size == room);
    CHECK(strcmp(any.info.name, whole.name) == 0);
    for (size_t i = room; i < sizeof whole + 64; ++i) CHECK(any.bytes[i] == 0x5A);
    if (room == least) continue;
    CHECK(memchr(any.info.description, 0, room - least) != NULL);
    CHECK(strncmp(any.info.description, whole.description, strlen(any.info.description)) == 0);
  }
  ingot_device_info_init(NULL);
}

int main(void) {
  CHECK(ingot_context_create(NULL, &context) == INGOT_OK);
  fill_problem(sizeof(ingot_problem));
  CHECK(ingot_plan_create(context, "cpu", &any.problem, &plan) == INGOT_OK);
  if (context == NULL || plan == NULL) return EXIT_FAILURE;
  for (size_t i = 0; i < sizeof structures / sizeof *structures; ++i) {
    test_sizes(&structures[i]);
    test_fields_of_later_versions(&structures[i]);
    test_reserved(&structures[i]);
  }
  test_device_info();
  ingot_plan_destroy(plan);
  ingot_context_destroy(context);
  if (failures != 0) fprintf(stderr, "%d checks failed\n", failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
