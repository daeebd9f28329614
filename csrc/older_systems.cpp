// SPDX-License-Identifier: BSD-3-Clause
//
// Definitions that older systems lack, so that a library that is compiled on a
// new Linux runs on every one that torch runs on (glibc 2.28, and the libstdc++
// of GCC 8). build_backend/toolchain.py has the other half, for functions that
// older systems do have, under an older version.
#include <sstream>

#define HIDDEN __attribute__((visibility("hidden")))

// Headers of GCC 9 and newer expect these two in the system's libstdc++.
template HIDDEN std::basic_stringstream<char>::basic_stringstream();
template HIDDEN std::basic_ostringstream<char>::basic_ostringstream();

#ifdef __GLIBC__
// Headers of GCC 11 and newer ask this variable of glibc 2.32 whether a
// reference count may be counted without an atomic operation. It may not.
extern "C" HIDDEN char __libc_single_threaded;
char __libc_single_threaded = 0;
#endif
