// The part of Apple's <objc/message.h> that metal-cpp uses.
//
// metal-cpp sends each message as reinterpret_cast<SendMessageProc>(&objc_msgSend), where the alias
// names the function type of that one call. On a Mac objc_msgSend is a single assembly routine.
// Here it is a class template's entry, one per function type, so that the call is ordinary C++ and
// the types of receiver, arguments and result can be checked against the method.
#pragma once

#include <objc/runtime.h>

#ifdef __APPLE__
#ifdef __cplusplus
extern "C" {
#endif
void objc_msgSend(void);
void objc_msgSend_stret(void);
void objc_msgSend_fpret(void);
#ifdef __cplusplus
}
#endif
#else
#include <softmetal/abi.hpp>
#define objc_msgSend ::softmetal::abi::Send<SendMessageProc>::entry
#define objc_msgSend_fpret ::softmetal::abi::Send<SendMessageProcFpret>::entry
#define objc_msgSend_stret ::softmetal::abi::SendStructure<SendMessageProcStret>::entry
#endif
