"""The rehearsal provider: a server that answers like OpenAI, Azure, Anthropic and OpenRouter, and keeps a bill."""
