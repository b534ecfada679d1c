// Shows what changes in the setup, and copies a manifest.
"use strict";

(() => {
  const EVERY = 5000; // milliseconds
  const steps = document.getElementById("setup-steps");

  async function refresh() {
    if (document.hidden) return;
    try {
      const answer = await fetch(steps.dataset.source, { credentials: "same-origin", redirect: "error" });
      const text = answer.ok ? await answer.text() : null;
      if (text !== null && text !== steps.dataset.shown) {
        steps.dataset.shown = text;
        steps.innerHTML = text;
      }
    } catch {
      // The server may be restarting with a new setting; the next look finds it.
    }
  }

  async function look() {
    await refresh();
    setTimeout(look, EVERY);
  }

  if (steps) setTimeout(look, EVERY);

  for (const button of document.querySelectorAll("button[data-copies]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copies);
      text.select();
      try {
        await navigator.clipboard.writeText(text.value);
      } catch {
        document.execCommand("copy"); // the clipboard needs https
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
})();
