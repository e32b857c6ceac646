# Tests of device cuda:0 on softcuda, a CUDA device in software: the table of cases as a Hopper GPU and as one of the
# sm_80 family, and the tests of src/cuda that a GPU is for. No ptxas, so nothing about registers; and nothing that
# only measures, or that calls a kernel hundreds of times to see the same bits.
add_dependencies(ingot_tests softcuda softcuda_nvrtc)

# ingot_softcuda_test(NAME SHARDS FILTER [VARIABLE=VALUE...])
function(ingot_softcuda_test name shards filter)
  ingot_sharded_test(${name} ${shards} "${filter}"
    "INGOT_LIBCUDA=$<TARGET_FILE:softcuda>" "INGOT_LIBNVRTC=$<TARGET_FILE:softcuda_nvrtc>"
    "INGOT_CACHE_DIR=${PROJECT_BINARY_DIR}/softcuda-cache" ${ARGN})
endfunction()

# Most of a shard's first run is compiling its kernels, which the cache then keeps.
set(table "*.AgreesWithReference/cuda_0_*")
ingot_softcuda_test(softcuda_table_sm90 24 "${table}" SOFTCUDA_DEVICE=sm90)
ingot_softcuda_test(softcuda_table_sm80 16 "${table}" SOFTCUDA_DEVICE=sm80)
# A small part, with copies and products as late as they may be, and with late products of early copies.
ingot_softcuda_test(softcuda_lazy_sm90 4 "${table}" INGOT_TEST_QUICK=1 SOFTCUDA_DEVICE=sm90 SOFTCUDA_LAZY=1)
ingot_softcuda_test(softcuda_late_products_sm90 4 "${table}" INGOT_TEST_QUICK=1 SOFTCUDA_LAZY=products)
ingot_softcuda_test(softcuda_lazy_sm80 2 "${table}" INGOT_TEST_QUICK=1 SOFTCUDA_DEVICE=sm80 SOFTCUDA_LAZY=1)

set(of_ptxas "*CudaCompile*:CudaMmaCompile*")
set(too_many_calls "CudaDevice.CostsOfACallArePrinted:CudaDevice.ManyThreadsAndStreamsGiveTheSameBits:CudaUnfusedSameBits*")
# Sixteen multiprocessors: small problems get the plans of large ones.
ingot_softcuda_test(softcuda_cuda 6 "Cuda*:ConformanceDevices*-${of_ptxas}:${too_many_calls}" SOFTCUDA_MULTIPROCESSORS=16)
