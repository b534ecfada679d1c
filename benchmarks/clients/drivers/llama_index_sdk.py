import sys

base, api = sys.argv[1:]
if api == "messages":
    from llama_index.llms.anthropic import Anthropic

    model = Anthropic("claude-sonnet-4-5", base_url=base, api_key="token", max_tokens=100)
else:
    from llama_index.llms.openai import OpenAI

    model = OpenAI("gpt-4o", api_base=f"{base}/v1", api_key="token")
try:
    model.complete("Hi")
except Exception as error:
    print(error)
