"""A local model provider with scripted answers, in the shapes of Anthropic and OpenAI."""
