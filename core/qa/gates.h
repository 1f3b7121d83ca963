// The gates, one file for each family; core/qa/qa.cpp puts them into the table.
#pragma once

#include "core/qa/qa.h"

namespace apr {

QaResult gate_header(QaSubject& subject);      // file.cpp
QaResult gate_weights(QaSubject& subject);     // file.cpp
QaResult gate_metadata(QaSubject& subject);    // metadata.cpp
QaResult gate_tokenizer(QaSubject& subject);   // tokenizer.cpp
QaResult gate_load(QaSubject& subject);        // session.cpp
QaResult gate_isolation(QaSubject& subject);   // session.cpp
QaResult gate_graph(QaSubject& subject);       // session.cpp
QaResult gate_prefill(QaSubject& subject);     // session.cpp
QaResult gate_golden(QaSubject& subject);      // golden.cpp
QaResult gate_parity(QaSubject& subject);      // compare.cpp
QaResult gate_formats(QaSubject& subject);     // compare.cpp
QaResult gate_speed(QaSubject& subject);       // speed.cpp
QaResult gate_regression(QaSubject& subject);  // speed.cpp
QaResult gate_cache(QaSubject& subject);       // cache.cpp

// The gate's judgement of any tokenizer. Throws NotRunnable where the vocabulary, and not the tokenizer, loses texts.
QaResult judge_tokenizer(const Tokenizer& tokenizer);  // tokenizer.cpp

}  // namespace apr
