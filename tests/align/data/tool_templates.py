"""Chat templates by hand, after those of published models, with tools, calls or thoughts; otherwise as the others."""

from __future__ import annotations

_CALLS = (
    '{%- for t in m.tool_calls or [] %}{{- \'<tool_call>\n{"name": "\' + t.function.name + \'", "arguments": \' }}'
    "{{- t.function.arguments | tojson }}{{- '}\n</tool_call>' }}{%- endfor %}"
)

TOOL_TEMPLATES: dict[str, tuple[str, str | None]] = {
    "ChatML with tools (Hermes)": (
        "{%- if tools %}{{- '<|im_start|>system\nYou may call:' }}"
        "{%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}{{- '<|im_end|>\n' }}{%- endif %}"
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}"
        "{%- if m.role == 'tool' %}{{- '<tool_response>\n' + m.content + '\n</tool_response>' }}"
        "{%- else %}{{- m.content }}" + _CALLS + "{%- endif %}{{- '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}",
        "<|im_end|>",
    ),
    "Qwen3, thoughts after the last question alone": (
        "{%- if tools %}{{- '<|im_start|>system\n' }}"
        "{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}"
        "{{- '# Tools\n\n<tools>' }}{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}"
        "{{- '\n</tools><|im_end|>\n' }}"
        "{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
        "{%- endif %}"
        "{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}"
        "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
        "{%- for m in messages %}{%- set c = m.content if m.content is string else '' %}"
        "{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
        "{{- '<|im_start|>' + m.role + '\n' + c + '<|im_end|>' + '\n' }}"
        "{%- elif m.role == 'assistant' %}{%- set r = '' %}"
        "{%- if m.reasoning_content is string %}{%- set r = m.reasoning_content %}"
        "{%- elif '</think>' in c %}"
        "{%- set r = c.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
        "{%- set c = c.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
        "{%- if loop.index0 > ns.last and (loop.last or r) %}"
        "{{- '<|im_start|>assistant\n<think>\n' + r.strip('\n') + '\n</think>\n\n' + c.lstrip('\n') }}"
        "{%- else %}{{- '<|im_start|>assistant\n' + c }}{%- endif %}"
        "{%- if m.tool_calls and c %}{{- '\n' }}{%- endif %}" + _CALLS + "{{- '<|im_end|>\n' }}"
        "{%- elif m.role == 'tool' %}{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}"
        "{{- '<|im_start|>user' }}{%- endif %}{{- '\n<tool_response>\n' + c + '\n</tool_response>' }}"
        "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}"
        "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
        "{%- endif %}",
        "<|im_end|>",
    ),
    "Llama 3.1, one call in a turn": (
        "{{- bos_token }}{%- if messages[0].role == 'system' %}{%- set s = messages[0].content | trim %}"
        "{%- set rest = messages[1:] %}{%- else %}{%- set s = '' %}{%- set rest = messages %}{%- endif %}"
        "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}"
        "{%- if tools is not none %}{{- 'Environment: ipython\n' }}"
        "{%- endif %}{{- s + '<|eot_id|>' }}"
        "{%- for m in rest %}{%- if m.role == 'tool' %}"
        "{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + (m.content | tojson) + '<|eot_id|>' }}"
        "{%- elif m.tool_calls %}{%- if m.tool_calls | length != 1 %}"
        "{{- raise_exception('This model only supports single tool-calls at once!') }}{%- endif %}"
        "{%- set f = m.tool_calls[0].function %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
        "{{- '{\"name\": \"' + f.name + '\", \"parameters\": ' }}{{- f.arguments | tojson }}{{- '}<|eot_id|>' }}"
        "{%- else %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
        "{%- if loop.first and tools is not none %}{{- 'Given these functions:\n\n' }}"
        "{%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\n\n' }}{%- endfor %}{%- endif %}"
        "{{- m.content | trim + '<|eot_id|>' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}",
        "<|eot_id|>",
    ),
    "Mistral v3, calls with ids": (
        "{{- bos_token }}{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
        "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
        "{%- for m in messages %}{%- if m.role == 'user' %}{%- if tools is not none and loop.index0 == ns.last %}"
        "{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}"
        "{{- '[INST] ' + m.content + '[/INST]' }}"
        "{%- elif m.tool_calls is defined and m.tool_calls %}{{- '[TOOL_CALLS] [' }}{%- for t in m.tool_calls %}"
        "{%- if t.id is not defined or t.id | length != 9 %}{{- raise_exception('ids must be 9 letters or digits') }}"
        "{%- endif %}{%- set out = t.function | tojson %}{{- out[:-1] }}{{- ', \"id\": \"' + t.id + '\"}' }}"
        "{%- if not loop.last %}{{- ', ' }}{%- else %}{{- ']' + eos_token }}{%- endif %}{%- endfor %}"
        "{%- elif m.role == 'tool' %}"
        "{{- '[TOOL_RESULTS] {\"content\": ' + m.content }}"
        "{{- ', \"call_id\": \"' + m.tool_call_id + '\"}[/TOOL_RESULTS]' }}"
        "{%- elif m.role == 'assistant' %}{{- ' ' + m.content + eos_token }}"
        "{%- else %}{{- raise_exception('Only user and assistant roles, with tools') }}{%- endif %}{%- endfor %}",
        "<eos>",
    ),
    "Command R with tools": (
        "{{- bos_token }}{%- if tools %}{{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>## Available Tools\n' }}"
        "{{- (tools | tojson) + '<|END_OF_TURN_TOKEN|>' }}{%- endif %}"
        "{%- for m in messages %}{{- '<|START_OF_TURN_TOKEN|>' }}"
        "{%- if m.role == 'tool' %}{{- '<|SYSTEM_TOKEN|><results>\n' + m.content + '</results>' }}"
        "{%- elif m.role == 'assistant' and m.tool_calls %}{{- '<|CHATBOT_TOKEN|>' }}"
        "{%- if m.content %}{{- 'Plan: ' + m.content + '\n' }}{%- endif %}"
        "{{- 'Action: ' + (m.tool_calls | map(attribute='function') | list | tojson) }}"
        "{%- else %}{%- set r = 'CHATBOT' if m.role == 'assistant' else m.role | upper %}"
        "{{- '<|' + r + '_TOKEN|>' + m.content.strip() }}{%- endif %}{{- '<|END_OF_TURN_TOKEN|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{%- endif %}",
        "<|END_OF_TURN_TOKEN|>",
    ),
    "gpt-oss, thoughts and calls in channels": (
        "{%- if tools %}{{- '<|start|>developer<|message|># Tools\n\nnamespace functions {\n' }}"
        "{%- for tool in tools %}{{- 'type ' + tool.function.name + ' = (_: any) => any;\n' }}{%- endfor %}"
        "{{- '}<|end|>' }}{%- endif %}"
        "{%- for m in messages %}{%- if m.role == 'assistant' %}"
        "{%- if m.thinking and (loop.last or m.tool_calls) %}"
        "{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{%- endif %}"
        "{%- if m.tool_calls %}{%- set f = m.tool_calls[0].function %}"
        "{{- '<|start|>assistant to=functions.' + f.name + '<|channel|>commentary json<|message|>' }}"
        "{{- f.arguments | tojson }}{{- '<|call|>' }}"
        "{%- else %}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
        "{%- if loop.last and not add_generation_prompt %}{{- '<|return|>' }}{%- else %}{{- '<|end|>' }}{%- endif %}"
        "{%- endif %}"
        "{%- elif m.role == 'tool' %}"
        "{{- '<|start|>functions.' + (m.name or '') + ' to=assistant<|channel|>commentary<|message|>' }}"
        "{{- (m.content | tojson) + '<|end|>' }}"
        "{%- else %}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}",
        "<|return|>",
    ),
}
