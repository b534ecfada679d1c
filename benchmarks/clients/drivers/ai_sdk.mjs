import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText } from "ai";

const [base, api] = process.argv.slice(1);
const options = { baseURL: `${base}/v1`, apiKey: "token" };
const model = {
  messages: () => createAnthropic(options)("claude-sonnet-4-6"),
  chat: () => createOpenAI(options).chat("gpt-4o"),
  responses: () => createOpenAI(options).responses("gpt-4o"),
}[api]();
try {
  await generateText({ model, prompt: "Hi" });
} catch (error) {
  console.log(error.message);
}
