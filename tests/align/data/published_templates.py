"""Chat templates by hand, after those of published models, and the token that ends an answer (None: there is none)."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_WORDS = """
    <|pad|> <s> </s> <|im_start|> <|im_end|> <|endoftext|> <|user|> <|assistant|> <|system|> <|end|> <|eot_id|>
    <|start_header_id|> <|end_header_id|> <start_of_turn> <end_of_turn> [INST] [/INST] <|START_OF_TURN_TOKEN|>
    <|END_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|> <|start|> <|message|> <|channel|> <|return|>
    <User> <Assistant> <|start_of_role|> <|end_of_role|> <eos>
    [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS] <|call|>
"""
_SPECIAL = _WORDS.split()


@cache
def template_tokenizer(template: str) -> Any:
    """A byte-level tokenizer that has the marks of all these templates, and thoughts as ordinary added tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *letters, "ĊĊ", "Ġf", "ou", "Th"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ"), ("Ġ", "f"), ("o", "u"), ("T", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<eos>",
        pad_token="<|pad|>",
        additional_special_tokens=_SPECIAL,
    )
    fast.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    fast.chat_template = template
    return fast


_STRIP = "{%- if '</think>' in c %}{%- set c = c.split('</think>')[-1].lstrip('\n') %}{%- endif %}"


def _chatml(assistant: str, generation: str, before: str = "") -> str:
    return (
        before
        + "{%- for m in messages %}{%- set c = m.content %}{%- if m.role == 'assistant' %}"
        + assistant
        + "{%- else %}{{- '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '" + generation + "' }}{%- endif %}"
    )


_PLAIN = "{{- '<|im_start|>assistant\n' + c + '<|im_end|>\n' }}"
_OPEN = "<|im_start|>assistant\n"
_ALTERNATE = (
    "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate') }}{%- endif %}"
)

TEMPLATES: dict[str, tuple[str, str | None]] = {
    "ChatML": (_chatml(_PLAIN, _OPEN), "<|im_end|>"),
    "Qwen2.5, with a default system prompt": (
        _chatml(
            _PLAIN,
            _OPEN,
            "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{%- endif %}",
        ),
        "<|im_end|>",
    ),
    "Qwen3": (
        _chatml(
            "{%- set r = '' %}{%- if '</think>' in c %}"
            "{%- set r = c.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
            "{%- set c = c.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
            "{%- if loop.last %}{{- '<|im_start|>assistant\n<think>\n' + r.strip('\n') + '\n</think>\n\n' + c }}"
            "{%- else %}{{- '<|im_start|>assistant\n' + c }}{%- endif %}{{- '<|im_end|>\n' }}",
            _OPEN,
        ),
        "<|im_end|>",
    ),
    "an empty thought in every turn": (
        _chatml("{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + c + '<|im_end|>\n' }}", _OPEN),
        "<|im_end|>",
    ),
    "an empty thought in the prompt too": (
        _chatml(
            "{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + c + '<|im_end|>\n' }}",
            _OPEN + "<think>\n\n</think>\n\n",
        ),
        "<|im_end|>",
    ),
    "QwQ": (_chatml(_STRIP + _PLAIN, _OPEN + "<think>\n"), "<|im_end|>"),
    "Nemotron": (_chatml(_STRIP + _PLAIN, _OPEN + "<think>"), "<|im_end|>"),
    "R1": (
        "{{- bos_token }}{%- for m in messages %}{%- set c = m.content %}{%- if m.role == 'system' %}{{- c }}"
        "{%- elif m.role == 'user' %}{{- '<User>' + c }}{%- else %}" + _STRIP + "{{- '<Assistant>' + c + eos_token }}"
        "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<Assistant><think>\n' }}{%- endif %}",
        "<eos>",
    ),
    "Llama 3": (
        "{{- bos_token }}{%- set date = strftime_now('%Y') %}"
        "{%- if messages[0].role == 'system' %}{%- set s = messages[0].content | trim %}{%- set rest = messages[1:] %}"
        "{%- else %}{%- set s = '' %}{%- set rest = messages %}{%- endif %}"
        "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date + '\n\n' + s + '<|eot_id|>' }}"
        "{%- if tools is not none and tools %}{{- 'Tools: ' + (tools | tojson) }}{%- endif %}"
        "{%- for m in rest %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim }}"
        "{{- '<|eot_id|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}",
        "<|eot_id|>",
    ),
    "Gemma": (
        "{{- bos_token }}{%- if messages[0].role == 'system' %}{{- raise_exception('System role not supported') }}"
        "{%- endif %}{%- for m in messages %}"
        + _ALTERNATE
        + "{%- set role = 'model' if m.role == 'assistant' else m.role %}"
        "{{- '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif %}",
        "<end_of_turn>",
    ),
    "Mistral v1": (
        "{{- bos_token }}{%- if messages[0].role == 'system' %}{%- set s = messages[0].content + '\n\n' %}"
        "{%- set rest = messages[1:] %}{%- else %}{%- set s = '' %}{%- set rest = messages %}{%- endif %}"
        "{%- for m in rest %}" + _ALTERNATE + "{%- if m.role == 'user' %}"
        "{{- '[INST] ' + (s if loop.first else '') + m.content + ' [/INST]' }}"
        "{%- else %}{{- ' ' + m.content | trim + eos_token }}{%- endif %}{%- endfor %}",
        "<eos>",
    ),
    "Mistral v3": (
        "{{- bos_token }}{%- if messages[0].role == 'system' %}{%- set s = messages[0].content %}"
        "{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}"
        "{%- for m in rest %}" + _ALTERNATE + "{%- if m.role == 'user' %}{%- if loop.last and s is defined %}"
        "{{- '[INST] ' + s + '\n\n' + m.content + '[/INST]' }}{%- else %}"
        "{{- '[INST] ' + m.content + '[/INST]' }}{%- endif %}"
        "{%- else %}{{- ' ' + m.content + eos_token }}{%- endif %}{%- endfor %}",
        "<eos>",
    ),
    "Phi 3": (
        "{%- for m in messages %}{{- '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- else %}{{- eos_token }}{%- endif %}",
        "<|end|>",
    ),
    "Zephyr": (
        "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n"
        "{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n"
        "{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n' + m['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
        "<eos>",
    ),
    "Command R": (
        "{{- bos_token }}{%- for m in messages %}{{- '<|START_OF_TURN_TOKEN|>' }}"
        "{{- {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[m.role] }}"
        "{{- m.content.strip() + '<|END_OF_TURN_TOKEN|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{%- endif %}",
        "<|END_OF_TURN_TOKEN|>",
    ),
    "GLM 4, without an end": (
        "{%- for m in messages %}{{- '<|' + m.role + '|>\n' + m.content }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}",
        None,
    ),
    "GLM 4.5": (
        "{%- for m in messages %}{%- set c = m.content %}{%- if m.role == 'assistant' %}"
        + _STRIP
        + "{{- '<|assistant|>\n<think></think>\n' + c.strip() }}{%- else %}"
        "{{- '<|' + m.role + '|>\n' + c }}{%- endif %}"
        "{%- endfor %}{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}",
        None,
    ),
    "SmolLM3, with marks of what is generated": (
        "{{- '<|im_start|>system\n## Metadata\n\n' + strftime_now('%Y') + '\n\n' }}"
        "{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- endif %}{{- '<|im_end|>\n' }}"
        "{%- for m in messages %}{%- if m.role == 'user' %}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
        "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant\n' }}"
        "{% generation %}{{- m.content.lstrip('\n') + '<|im_end|>\n' }}{% endgeneration %}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}",
        "<|im_end|>",
    ),
    "gpt-oss": (
        "{%- for m in messages %}{%- if m.role == 'assistant' %}"
        "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
        "{%- if loop.last %}{{- '<|return|>' }}{%- else %}{{- '<|end|>' }}{%- endif %}"
        "{%- else %}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}",
        "<|return|>",
    ),
    "Granite": (
        "{%- for m in messages %}{{- '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + eos_token + '\n' }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}",
        "<eos>",
    ),
    "Alpaca, without an end": (
        "{%- for m in messages %}{%- if m.role == 'user' %}{{- '### Instruction:\n' + m.content + '\n\n' }}"
        "{%- elif m.role == 'assistant' %}{{- '### Response:\n' + m.content + '\n\n' }}"
        "{%- else %}{{- m.content + '\n\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '### Response:\n' }}{%- endif %}",
        None,
    ),
    "a system turn is needed": (
        "{%- if messages[0].role != 'system' %}{{- raise_exception('begin with a system turn') }}{%- endif %}"
        + _chatml(_PLAIN, _OPEN),
        "<|im_end|>",
    ),
    "an end between turns only": (
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content }}"
        "{%- if not loop.last %}{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_end|>\n<|im_start|>assistant\n' }}{%- endif %}",
        None,
    ),
    "no generation prompt": (
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}",
        "<|im_end|>",
    ),
    "a template that joins pieces": (
        "{%- set ns = namespace(text='') %}{%- for m in messages %}"
        "{%- set ns.text = ns.text ~ '<|' ~ m.role ~ '|>' %}"
        "{%- set ns.text = ns.text ~ (m.content if m.content is string else m.content[0].text) %}"
        "{%- if m.role == 'assistant' %}{%- set ns.text = ns.text ~ '</s>' %}{%- endif %}{%- endfor %}{{- ns.text }}"
        "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}",
        "</s>",
    ),
}
