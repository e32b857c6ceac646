// Foundation's values and collections, and blocks.
#include <memory>

#include "host_support.hpp"

TEST(strings_hold_utf8_and_count_utf16) {
  Metal metal;
  auto* text = string("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");  // a, e acute, euro, a face
  REQUIRE(text->length() == 5);
  REQUIRE(text->character(1) == 0xE9 && text->character(2) == 0x20AC);
  REQUIRE(text->character(3) == 0xD83D && text->character(4) == 0xDE00);
  REQUIRE(text->lengthOfBytes(NS::UTF8StringEncoding) == 10);
  REQUIRE(text->isEqualToString(string(text->utf8String())));
  REQUIRE(metal.findings.none());
}

TEST(seeded_encoding_that_is_not_supported) {
  Metal metal;
  string("x")->cString(NS::ShiftJISStringEncoding);
  REQUIRE(metal.findings.only("unsupported", {"not 8"}));
}

TEST(constant_strings_work_like_any_other) {
  Metal metal;
  NS::String* text = MTLSTR("constant");
  REQUIRE(std::strcmp(text->utf8String(), "constant") == 0);
  REQUIRE(text->retain() == text);
  text->release();
  text->release();
  REQUIRE(text->isEqualToString(string("constant")));
  NS::String* wide = MTLSTR("caf\u00e9");  // the compiler keeps this one in UTF-16
  REQUIRE(std::strcmp(wide->utf8String(), "caf\xC3\xA9") == 0);
  REQUIRE(text->stringByAppendingString(MTLSTR("!"))->length() == 9);
  REQUIRE(text->rangeOfString(MTLSTR("stan"), NS::LiteralSearch).location == 3);
  REQUIRE(metal.findings.none());
}

TEST(string_constants_of_the_frameworks_exist) {
  REQUIRE(NS::LocalizedDescriptionKey != nullptr);
  REQUIRE(NS::CocoaErrorDomain != nullptr);
  REQUIRE(MTL::CommonCounterSetTimestamp != nullptr);
}

TEST(numbers_keep_their_value) {
  Metal metal;
  REQUIRE(NS::Number::number(-3)->intValue() == -3);
  REQUIRE(NS::Number::number(1.5f)->floatValue() == 1.5f);
  REQUIRE(NS::Number::number(true)->boolValue());
  REQUIRE(NS::Number::number(7ul)->unsignedIntegerValue() == 7);
  REQUIRE(NS::Number::number(7)->isEqualToNumber(NS::Number::number(7.0)));
  REQUIRE(std::strcmp(NS::Number::number(12)->stringValue()->utf8String(), "12") == 0);
  REQUIRE(metal.findings.none());
}

TEST(arrays_retain_what_they_hold) {
  Metal metal;
  auto* text = NS::String::alloc()->init("x", NS::UTF8StringEncoding);
  const NS::Object* items[] = {text, MTLSTR("y")};
  auto* array = NS::Array::alloc()->init(items, 2);
  REQUIRE(text->retainCount() == 2);
  REQUIRE(array->count() == 2 && array->object(0) == text);
  auto* enumerator = array->objectEnumerator();
  REQUIRE(enumerator->nextObject() == text);
  REQUIRE(enumerator->nextObject() != nullptr && enumerator->nextObject() == nullptr);
  array->release();
  REQUIRE(metal.findings.none());
  array = NS::Array::array(text);
  array->object(1);
  REQUIRE(metal.findings.only("out-of-range", {"index 1 of an array of 1"}));
  text->release();
}

TEST(dictionaries_find_by_value) {
  Metal metal;
  const NS::Object* keys[] = {MTLSTR("a"), MTLSTR("b")};
  const NS::Object* values[] = {NS::Number::number(1), NS::Number::number(2)};
  auto* dictionary = NS::Dictionary::dictionary(values, keys, 2);
  REQUIRE(dictionary->count() == 2);
  REQUIRE(dictionary->object<NS::Number>(string("b"))->intValue() == 2);
  REQUIRE(dictionary->object(string("c")) == nullptr);
  REQUIRE(metal.findings.none());
}

TEST(errors_describe_themselves) {
  Metal metal;
  auto* info = NS::Dictionary::dictionary(MTLSTR("it broke"), NS::LocalizedDescriptionKey);
  auto* error = NS::Error::error(NS::CocoaErrorDomain, 7, info);
  REQUIRE(error->code() == 7);
  REQUIRE(error->domain()->isEqualToString(NS::CocoaErrorDomain));
  REQUIRE(error->localizedDescription()->isEqualToString(MTLSTR("it broke")));
  REQUIRE(metal.findings.none());
}

TEST(the_system_version_can_be_chosen) {
  const Setting system("SOFTMETAL_OS", "14.5");
  Metal metal;
  auto* info = NS::ProcessInfo::processInfo();
  REQUIRE(info->operatingSystemVersion().majorVersion == 14);
  REQUIRE(info->operatingSystemVersion().minorVersion == 5);
  REQUIRE(info->isOperatingSystemAtLeastVersion({14, 0, 0}));
  REQUIRE(!info->isOperatingSystemAtLeastVersion({15, 0, 0}));
  REQUIRE(metal.findings.none());
}

TEST(completed_handlers_run_before_wait_returns) {
  Metal metal;
  std::atomic<int> calls{0};
  auto* commands = metal.queue->commandBuffer();
  __block int captured = 0;
  commands->addCompletedHandler(^(MTL::CommandBuffer* done) {
    captured = done->status() == MTL::CommandBufferStatusCompleted ? 1 : 2;
  });
  commands->addCompletedHandler([&calls](MTL::CommandBuffer*) { ++calls; });
  commands->addScheduledHandler([&calls](MTL::CommandBuffer*) { ++calls; });
  commands->commit();
  commands->waitUntilCompleted();
  REQUIRE(calls == 2);
  REQUIRE(captured == 1);
  REQUIRE(metal.findings.none());
}

TEST(a_captured_value_is_destroyed_with_the_handler) {
  Metal metal;
  auto shared = std::make_shared<int>(1);
  auto* commands = metal.queue->commandBuffer();
  commands->addCompletedHandler([shared](MTL::CommandBuffer*) {});
  REQUIRE(shared.use_count() == 2);
  commands->commit();
  commands->waitUntilCompleted();
  REQUIRE(shared.use_count() == 1);
}

TEST(semaphores_and_queues_of_libdispatch) {
  const Findings findings;
  dispatch_queue_t queue = dispatch_queue_create("q", DISPATCH_QUEUE_SERIAL);
  dispatch_semaphore_t semaphore = dispatch_semaphore_create(0);
  dispatch_async(queue, ^{
    dispatch_semaphore_signal(semaphore);
  });
  REQUIRE(dispatch_semaphore_wait(semaphore, DISPATCH_TIME_FOREVER) == 0);
  REQUIRE(dispatch_semaphore_wait(semaphore, dispatch_time(DISPATCH_TIME_NOW, 1000)) != 0);
  __block int sum = 0;
  dispatch_sync(queue, ^{
    sum = 5;
  });
  REQUIRE(sum == 5);
  dispatch_release(semaphore);
  dispatch_release(queue);
  REQUIRE(findings.none());
}
