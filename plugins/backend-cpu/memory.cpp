#include "memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "failure.h"

namespace apr::cpu {

Memory::Memory(uint64_t bytes, const char* what) {
  if (bytes == 0) return;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    fail(APR_NO_MEMORY, "cannot get %.1f MiB for %s: %s", static_cast<double>(bytes) / 1048576.0, what,
         std::strerror(errno));
  data_ = p;
  bytes_ = bytes;
#ifdef MADV_HUGEPAGE
  // Fewer TLB misses where the system has large pages; not having them is no fault.
  if (bytes >= (4u << 20)) (void)madvise(p, bytes, MADV_HUGEPAGE);
#endif
}

Memory::~Memory() {
  if (data_) munmap(data_, bytes_);
}

}  // namespace apr::cpu
