import sys

import dspy

base, api = sys.argv[1:]
model, base = {
    "messages": ("anthropic/claude-sonnet-4-6", base),
    "chat": ("openai/gpt-4o", f"{base}/v1"),
}[api]
dspy.configure(lm=dspy.LM(model, api_base=base, api_key="token", cache=False))
try:
    dspy.Predict("question -> answer")(question="Hi")
except Exception as error:
    print(error)
