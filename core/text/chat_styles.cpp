// Sources: the chat_template of each family's tokenizer_config.json on huggingface.co; for Mistral also
// https://github.com/mistralai/cookbook (concept-deep-dive/tokenization/chat_templates.md), for Llama 2
// https://huggingface.co/blog/llama2#how-to-prompt-llama-2. The texts that tell families apart are, where one
// is enough, those of llama.cpp (src/llama-chat.cpp).
#include "core/text/chat_styles.h"

namespace apr {

namespace {

constexpr ChatSign kPhi4[] = {{{"<|im_start|>", "<|im_sep|>"}, {}}};
// SmolVLM has <|im_start|> as its BOS, and turns of another form.
constexpr ChatSign kChatMl[] = {{{"<|im_start|>", "<|im_end|>"}, "<end_of_utterance>"}};
constexpr ChatSign kMistral7[] = {{{"[INST]", "[SYSTEM_PROMPT] "}, {}}};
constexpr ChatSign kMistral7Tekken[] = {{{"[INST]", "[SYSTEM_PROMPT]"}, {}}};
constexpr ChatSign kMistral1[] = {{{"' [INST] '"}, {}}};
constexpr ChatSign kMistral3Tekken[] = {{{"'[INST]'", "[AVAILABLE_TOOLS]"}, {}}};
constexpr ChatSign kMistral3[] = {{{"[INST]", "[AVAILABLE_TOOLS]"}, {}}};
constexpr ChatSign kLlama2[] = {{{"[INST]", "<<SYS>>"}, {}}};
constexpr ChatSign kMistralPlain[] = {{{"[INST]"}, {}}};
constexpr ChatSign kPhi4Mini[] = {{{"<|end|>", "'|>' + message['content'] + '<|end|>'"}, {}}};
constexpr ChatSign kPhi3[] = {{{"<|assistant|>", "<|end|>"}, {}}};
constexpr ChatSign kZephyr[] = {{{"'<|user|>\n' + message['content'] + eos_token"}, {}}};
constexpr ChatSign kGemma[] = {{{"<start_of_turn>", "<end_of_turn>"}, {}}};
constexpr ChatSign kCommandR[] = {{{"<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"}, "<|START_RESPONSE|>"}};
constexpr ChatSign kLlama3[] = {{{"<|start_header_id|>", "<|end_header_id|>"}, {}}};
constexpr ChatSign kLlama4[] = {{{"<|header_start|>", "<|header_end|>"}, {}}};
constexpr ChatSign kDeepSeekCoder[] = {{{"### Instruction:", "<|EOT|>"}, {}}};
constexpr ChatSign kDeepSeek2[] = {{{"'Assistant: ' + message['content'] + eos_token"}, {}}};
constexpr ChatSign kDeepSeek3[] = {{{"<｜Assistant｜>", "<｜User｜>", "<｜end▁of▁sentence｜>"}, {}}};
constexpr ChatSign kGranite[] = {{{"<|start_of_role|>", "<|end_of_role|>"}, {}}};

constexpr ChatStyle kStyles[] = {
    {"phi4",
     kPhi4,
     false,
     {"<|im_start|>system<|im_sep|>", "<|im_end|>", false},
     {"<|im_start|>user<|im_sep|>", "<|im_end|>", false},
     {"<|im_start|>assistant<|im_sep|>", "<|im_end|>", false},
     "<|im_start|>assistant<|im_sep|>"},
    {"chatml",
     kChatMl,
     false,
     {"<|im_start|>system\n", "<|im_end|>\n", false},
     {"<|im_start|>user\n", "<|im_end|>\n", false},
     {"<|im_start|>assistant\n", "<|im_end|>\n", false},
     "<|im_start|>assistant\n"},
    {"mistral-v7",
     kMistral7,
     false,
     {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]", false},
     {"[INST] ", "[/INST]", false},
     {" ", "{eos}", false},
     ""},
    {"mistral-v7-tekken",
     kMistral7Tekken,
     false,
     {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", false},
     {"[INST]", "[/INST]", false},
     {"", "{eos}", false},
     ""},
    {"mistral-v1",
     kMistral1,
     true,
     {"", "\n\n", false},
     {" [INST] ", " [/INST]", false},
     {" ", "{eos}", false},
     ""},
    {"mistral-v3-tekken",
     kMistral3Tekken,
     true,
     {"", "\n\n", false},
     {"[INST]", "[/INST]", false},
     {"", "{eos}", false},
     ""},
    {"mistral-v3",
     kMistral3,
     true,
     {"", "\n\n", false},
     {"[INST] ", "[/INST]", false},
     {" ", "{eos}", true},
     ""},
    {"llama2",
     kLlama2,
     true,
     {"<<SYS>>\n", "\n<</SYS>>\n\n", false},
     {"{bos}[INST] ", " [/INST]", true},
     {" ", " {eos}", true},
     ""},
    // Mistral's first instruct models, which had no system prompt.
    {"mistral-v0",
     kMistralPlain,
     true,
     {"", "\n", false},
     {"[INST] ", " [/INST]", false},
     {"", "{eos}", false},
     ""},
    {"phi4-mini",
     kPhi4Mini,
     false,
     {"<|system|>", "<|end|>", false},
     {"<|user|>", "<|end|>", false},
     {"<|assistant|>", "<|end|>", false},
     "<|assistant|>"},
    {"phi3",
     kPhi3,
     false,
     {"<|system|>\n", "<|end|>\n", false},
     {"<|user|>\n", "<|end|>\n", false},
     {"<|assistant|>\n", "<|end|>\n", false},
     "<|assistant|>\n"},
    {"zephyr",
     kZephyr,
     false,
     {"<|system|>\n", "{eos}\n", false},
     {"<|user|>\n", "{eos}\n", false},
     {"<|assistant|>\n", "{eos}\n", false},
     "<|assistant|>\n"},
    {"gemma",
     kGemma,
     true,
     {"", "\n\n", true},
     {"<start_of_turn>user\n", "<end_of_turn>\n", true},
     {"<start_of_turn>model\n", "<end_of_turn>\n", true},
     "<start_of_turn>model\n"},
    {"command-r",
     kCommandR,
     false,
     {"<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>", false},
     {"<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>", true},
     {"<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>", true},
     "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"},
    {"llama3",
     kLlama3,
     false,
     {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>", true},
     {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>", true},
     {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", true},
     "<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"llama4",
     kLlama4,
     false,
     {"<|header_start|>system<|header_end|>\n\n", "<|eot|>", true},
     {"<|header_start|>user<|header_end|>\n\n", "<|eot|>", true},
     {"<|header_start|>assistant<|header_end|>\n\n", "<|eot|>", true},
     "<|header_start|>assistant<|header_end|>\n\n"},
    {"deepseek-coder",
     kDeepSeekCoder,
     false,
     {"", "", false},
     {"### Instruction:\n", "\n", false},
     {"### Response:\n", "\n<|EOT|>\n", false},
     "### Response:\n"},
    {"deepseek2",
     kDeepSeek2,
     false,
     {"", "\n\n", false},
     {"User: ", "\n\n", false},
     {"Assistant: ", "{eos}", false},
     "Assistant:"},
    {"deepseek3",
     kDeepSeek3,
     false,
     {"", "", false},
     {"<｜User｜>", "", false},
     {"<｜Assistant｜>", "<｜end▁of▁sentence｜>", false},
     "<｜Assistant｜>"},
    {"granite",
     kGranite,
     false,
     {"<|start_of_role|>system<|end_of_role|>", "<|end_of_text|>\n", false},
     {"<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n", false},
     {"<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>\n", false},
     "<|start_of_role|>assistant<|end_of_role|>"},
};

}  // namespace

std::span<const ChatStyle> chat_styles() { return kStyles; }

}  // namespace apr
