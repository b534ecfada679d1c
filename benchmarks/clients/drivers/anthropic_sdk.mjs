import Anthropic from "@anthropic-ai/sdk";

const [base] = process.argv.slice(1);
const client = new Anthropic({ baseURL: base, apiKey: "token" });
try {
  await client.messages.create({
    model: "claude-sonnet-4-6",
    max_tokens: 100,
    messages: [{ role: "user", content: "Hi" }],
  });
} catch (error) {
  console.log(error.message);
}
