#!/usr/bin/env python3
"""Renders chat templates with Jinja2 and the settings of transformers, for comparison in CI.

    pip install jinja2
    python3 tests/python/chat_templates.py OUTPUT TEMPLATE...

writes OUTPUT/NAME.json for each template, a .jinja file or one written before: its source, and for
each of the conversations below what Jinja2 renders, or null where the template refuses the
conversation; `prompt` is the text with add_generation_prompt, where it differs. `cargo test -p ssa-text` renders the same with ssa and compares byte by byte;
SSA_CHAT_TEMPLATES=OUTPUT adds a folder of such files.
"""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """{% generation %}: marks model output; for the text it is only a scope."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_caller")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _caller(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.now(timezone.utc).strftime(form)
    return env


def call(name, arguments, id="call_1"):
    return {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}}


TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather of a city; says \"<unknown>\" & more.",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "City, e.g. Zürich"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": ["integer", "null"], "default": 3}}}}},
    {"type": "function", "function": {
        "name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {
            "a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}}},
]

CONVERSATIONS = [
    ([{"role": "user", "content": " Hi <there> & 'you'\n"},
      {"role": "assistant", "content": "Hello, \"friend\"!"},
      {"role": "user", "content": "Bye"},
      {"role": "assistant", "content": "\n\nBye. 再见 🙂"}], None),
    ([{"role": "system", "content": "You are terse.\n"},
      {"role": "user", "content": "2+2?"},
      {"role": "assistant", "content": "<think>\neasy\n</think>\n\n4"},
      {"role": "user", "content": "Sure?"},
      {"role": "assistant", "content": "Yes.", "reasoning_content": "Check: 4."}], None),
    ([{"role": "system", "content": "Use tools."},
      {"role": "user", "content": "Weather in Zürich?"},
      {"role": "assistant", "content": "",
       "tool_calls": [call("get_weather", {"city": "Zürich", "days": 2, "unit": None})]},
      {"role": "tool", "name": "get_weather", "tool_call_id": "call_1",
       "content": "{\"t\": 7.5, \"sky\": \"<b>gray</b>\"}"},
      {"role": "assistant", "content": "7.5 degrees, gray."}], TOOLS),
    ([{"role": "user", "content": "Add and look."},
      {"role": "assistant", "content": None, "reasoning_content": "Two calls.", "tool_calls": [
          call("add", {"a": 1, "b": -2.5, "deep": {"list": [True, None, 1e-7]}}, "abcdefgh1"),
          call("get_weather", {"city": "Rome"}, "abcdefgh2")]},
      {"role": "tool", "name": "add", "tool_call_id": "abcdefgh1", "content": "-1.5"},
      {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefgh2", "content": "sunny"},
      {"role": "assistant", "content": "Done.", "tool_calls": []},
      {"role": "user", "content": "Thanks"},
      {"role": "assistant", "content": "Welcome", "tool_calls": None}], TOOLS),
    ([{"role": "user", "content": [{"type": "text", "text": "What is "},
                                    {"type": "text", "text": "this?"}]},
      {"role": "assistant", "content": [{"type": "text", "text": "A test."}]}], None),
    ([{"role": "developer", "content": "Be brief."},
      {"role": "user", "content": "a"}, {"role": "user", "content": "b"},
      {"role": "assistant", "content": "c"}], []),
    ([{"role": "user", "content": "Look."},
      {"role": "assistant", "content": "",
       "tool_calls": [call("get_weather", "{\"city\": \"Oslo\"}", "123456789")]},
      {"role": "tool", "content": "rain", "tool_call_id": "123456789"},
      {"role": "tool", "content": "more rain", "tool_call_id": "123456789"},
      {"role": "user", "content": "And?"},
      {"role": "assistant", "thinking": "hm", "content": "Rain."}], TOOLS[:1]),
]

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def render(env, source, messages, tools, prompt=False):
    try:
        template = env.from_string(source)
        return template.render(messages=messages, tools=tools, documents=None,
                               add_generation_prompt=prompt, **SPECIAL_TOKENS)
    except Exception as error:  # transformers refuses any error of a template
        print("   ", type(error).__name__, str(error)[:100], file=sys.stderr)
        return None


def case(env, source, messages, tools):
    expected = render(env, source, messages, tools)
    prompt = render(env, source, messages, tools, prompt=True)
    case = {"messages": messages, "tools": tools, "expected": expected}
    return case if prompt == expected else case | {"prompt": prompt}


def main():
    output, *templates = map(Path, sys.argv[1:])
    output.mkdir(parents=True, exist_ok=True)
    env = environment()
    for path in templates:
        source = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            source = json.loads(source)["template"]
        print(path.stem, file=sys.stderr)
        cases = [case(env, source, messages, tools) for messages, tools in CONVERSATIONS]
        golden = {"special_tokens": SPECIAL_TOKENS, "template": source, "cases": cases}
        text = json.dumps(golden, ensure_ascii=False, indent=1)
        (output / (path.stem + ".json")).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
