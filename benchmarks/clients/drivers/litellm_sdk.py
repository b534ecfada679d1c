import sys

import litellm

base, api = sys.argv[1:]
hi = [{"role": "user", "content": "Hi"}]
try:
    if api == "messages":
        litellm.completion(
            model="anthropic/claude-sonnet-4-6", api_base=base, api_key="token", messages=hi
        )
    elif api == "chat":
        litellm.completion(
            model="openai/gpt-4o", api_base=f"{base}/v1", api_key="token", messages=hi
        )
    else:
        litellm.responses(model="openai/gpt-4o", api_base=f"{base}/v1", api_key="token", input="Hi")
except Exception as error:
    print(error)
