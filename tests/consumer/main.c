/* A query that is orthogonal to both keys: their weights are equal, o is the mean of the values. */
#include <ingot/ingot.h>
#include <math.h>
#include <stdio.h>

int main(void) {
  float q[2] = {0.0F, 1.0F};
  float k[2][2] = {{3.0F, 0.0F}, {-5.0F, 0.0F}};
  float v[2][2] = {{1.0F, 10.0F}, {2.0F, 30.0F}};
  float o[2] = {0.0F, 0.0F};
  float lse = 0.0F;

  ingot_problem problem;
  ingot_problem_init(&problem);
  problem.seqlen_q = 1;
  problem.seqlen_k = 2;
  problem.head_dim = 2;
  problem.head_dim_v = 2;

  ingot_forward_args args;
  ingot_forward_args_init(&args);
  const ingot_tensor row = {NULL, {2, 2, 2, 1}};
  const ingot_tensor pair = {NULL, {4, 4, 2, 1}};
  args.q = row;
  args.q.data = q;
  args.k = pair;
  args.k.data = k;
  args.v = pair;
  args.v.data = v;
  args.o = row;
  args.o.data = o;
  args.lse = row;
  args.lse.data = &lse;

  ingot_context* context = NULL;
  ingot_status status = ingot_context_create(NULL, &context);
  if (status == INGOT_OK) status = ingot_attention_forward(context, "cpu", &problem, &args);
  if (status != INGOT_OK) fprintf(stderr, "%s\n", ingot_last_error());
  ingot_context_destroy(context);

  printf("ingot %s: o = %g %g, lse = %g\n", ingot_version(), o[0], o[1], lse);
  const int right =
      fabsf(o[0] - 1.5F) < 1e-5F && fabsf(o[1] - 20.0F) < 1e-4F && fabsf(lse - 0.693147F) < 1e-5F;
  return status == INGOT_OK && right ? 0 : 1;
}
