import OpenAI from "openai";

const [base, api] = process.argv.slice(1);
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "token" });
try {
  if (api === "chat") {
    await client.chat.completions.create({
      model: "gpt-4o",
      messages: [{ role: "user", content: "Hi" }],
    });
  } else {
    await client.responses.create({ model: "gpt-4o", input: "Hi" });
  }
} catch (error) {
  console.log(error.message);
}
