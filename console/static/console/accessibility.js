// What Django's admin lacks for people who use a screen reader or no mouse.
"use strict";

(() => {
  // Name each picker by its label, followed by its value.
  const namePickers = (within) => {
    for (const select of within.querySelectorAll("select.admin-autocomplete")) {
      const label = document.querySelector(`label[for="${CSS.escape(select.id)}"]`);
      const chosen = document.getElementById(`select2-${select.id}-container`);
      if (!label || !chosen) continue;
      label.id ||= `${select.id}_label`;
      for (const element of [chosen, chosen.closest("[role=combobox]")]) {
        element?.setAttribute("aria-labelledby", `${label.id} ${chosen.id}`);
      }
    }
  };
  window.django?.jQuery?.(() => namePickers(document)); // after Django's own script has made them
  document.addEventListener("formset:added", (event) => setTimeout(namePickers, 0, event.target));

  document.getElementById("searchbar")?.setAttribute("aria-label", "Search");

  // A table that scrolls can be scrolled with the arrow keys.
  const scrolling = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  for (const group of document.querySelectorAll(".inline-group")) scrolling.observe(group);
})();
