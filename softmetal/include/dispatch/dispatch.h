// The part of <dispatch/dispatch.h> that compute programs use: semaphores, data, serial queues.
// queues.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dispatch_object_s* dispatch_object_t;
typedef struct dispatch_queue_s* dispatch_queue_t;
typedef struct dispatch_data_s* dispatch_data_t;
typedef struct dispatch_semaphore_s* dispatch_semaphore_t;
typedef struct dispatch_queue_attr_s* dispatch_queue_attr_t;
typedef uint64_t dispatch_time_t;
typedef void (*dispatch_function_t)(void*);
typedef void (^dispatch_block_t)(void);

#define DISPATCH_TIME_NOW ((dispatch_time_t)0)
#define DISPATCH_TIME_FOREVER (~(dispatch_time_t)0)
#define NSEC_PER_SEC 1000000000ull
#define NSEC_PER_MSEC 1000000ull
#define DISPATCH_QUEUE_SERIAL ((dispatch_queue_attr_t)0)
#define DISPATCH_DATA_DESTRUCTOR_DEFAULT ((dispatch_block_t)0)

dispatch_time_t dispatch_time(dispatch_time_t when, int64_t nanoseconds);

dispatch_semaphore_t dispatch_semaphore_create(intptr_t value);
// 0 when the semaphore was decremented, nonzero when `timeout` came first.
intptr_t dispatch_semaphore_wait(dispatch_semaphore_t semaphore, dispatch_time_t timeout);
intptr_t dispatch_semaphore_signal(dispatch_semaphore_t semaphore);

// Copies `size` bytes, then calls `destructor` (if any) for the caller's buffer.
dispatch_data_t dispatch_data_create(const void* buffer, size_t size, dispatch_queue_t queue,
                                     dispatch_block_t destructor);
size_t dispatch_data_get_size(dispatch_data_t data);

dispatch_queue_t dispatch_queue_create(const char* label, dispatch_queue_attr_t attributes);
void dispatch_async(dispatch_queue_t queue, dispatch_block_t block);
void dispatch_sync(dispatch_queue_t queue, dispatch_block_t block);

// Any of the objects above.
void dispatch_retain(void* object);
void dispatch_release(void* object);

#ifdef __cplusplus
}
#endif
