import sys

import anthropic

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="token")
try:
    client.messages.create(
        model="claude-sonnet-4-6", max_tokens=100, messages=[{"role": "user", "content": "Hi"}]
    )
except anthropic.APIError as error:
    print(error)
