// Entry points of the commands; each lives in a file of its name.
#pragma once

#include <string>
#include <vector>

namespace apr::ctl {

using Arguments = std::vector<std::string>;

int bench_main(const Arguments& args);
int cache_main(const Arguments& args);
int diff_main(const Arguments& args);
int doctor_main(const Arguments& args);
int eval_main(const Arguments& args);
int inspect_main(const Arguments& args);
int kernels_main(const Arguments& args);
int logits_main(const Arguments& args);
int parity_main(const Arguments& args);
int plugins_main(const Arguments& args);
int plugins_check_main(const Arguments& args);  // `plugins check ...`
int plugins_new_main(const Arguments& args);    // `plugins new ...`
int probes_main(const Arguments& args);
int qa_main(const Arguments& args);
int quantize_main(const Arguments& args);
int run_main(const Arguments& args);
int tokenize_main(const Arguments& args);
int tune_main(const Arguments& args);

}  // namespace apr::ctl
