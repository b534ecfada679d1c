import sys

import openai

client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="token")
try:
    if sys.argv[2] == "chat":
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    else:
        client.responses.create(model="gpt-4o", input="Hi")
except openai.OpenAIError as error:
    print(error)
