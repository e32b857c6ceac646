// The string constants of Foundation and Metal, which metal-cpp looks up by symbol name.
#include <CoreFoundation/CoreFoundation.h>

#define SOFTMETAL_STRING(name, characters)                     \
  extern "C" {                                                 \
  extern CFStringRef name;                                     \
  CFStringRef name = __CFStringMakeConstantString(characters); \
  }

SOFTMETAL_STRING(NSCocoaErrorDomain, "NSCocoaErrorDomain")
SOFTMETAL_STRING(NSPOSIXErrorDomain, "NSPOSIXErrorDomain")
SOFTMETAL_STRING(NSOSStatusErrorDomain, "NSOSStatusErrorDomain")
SOFTMETAL_STRING(NSMachErrorDomain, "NSMachErrorDomain")
SOFTMETAL_STRING(NSUnderlyingErrorKey, "NSUnderlyingError")
SOFTMETAL_STRING(NSLocalizedDescriptionKey, "NSLocalizedDescription")
SOFTMETAL_STRING(NSLocalizedFailureReasonErrorKey, "NSLocalizedFailureReason")
SOFTMETAL_STRING(NSLocalizedRecoverySuggestionErrorKey, "NSLocalizedRecoverySuggestion")
SOFTMETAL_STRING(NSLocalizedRecoveryOptionsErrorKey, "NSLocalizedRecoveryOptions")
SOFTMETAL_STRING(NSDebugDescriptionErrorKey, "NSDebugDescription")
SOFTMETAL_STRING(NSFilePathErrorKey, "NSFilePath")
SOFTMETAL_STRING(NSURLErrorKey, "NSURL")
SOFTMETAL_STRING(MTLBinaryArchiveDomain, "MTLBinaryArchiveDomain")
SOFTMETAL_STRING(MTLCounterErrorDomain, "MTLCounterErrorDomain")
SOFTMETAL_STRING(MTLCommonCounterTimestamp, "GPUTimestamp")
SOFTMETAL_STRING(MTLCommonCounterSetTimestamp, "timestamp")
SOFTMETAL_STRING(MTLLogStateErrorDomain, "MTLLogStateErrorDomain")
SOFTMETAL_STRING(MTLCommandBufferEncoderInfoErrorKey, "MTLCommandBufferEncoderInfoErrorKey")
SOFTMETAL_STRING(MTLDeviceWasAddedNotification, "MTLDeviceWasAdded")
SOFTMETAL_STRING(MTLDeviceRemovalRequestedNotification, "MTLDeviceRemovalRequested")
SOFTMETAL_STRING(MTLDeviceWasRemovedNotification, "MTLDeviceWasRemoved")
