// Draws the charts that the page describes as JSON. Colours come from the stylesheet, so they follow
// the admin's light and dark themes. Without this file the tables show the same numbers.
"use strict";

(() => {
  const description = document.getElementById("charts");
  if (!description || typeof Chart === "undefined") return;
  const described = JSON.parse(description.textContent);
  const drawn = [];

  const colour = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

  const styles = {
    bar: (series) => ({ backgroundColor: series, stack: "used" }),
    area: (series) => ({
      backgroundColor: `${series}99`, borderColor: series, borderWidth: 1.5, fill: "stack",
      pointRadius: 0, pointHitRadius: 12, stack: "used",
    }),
    earlier: () => ({
      type: "line", borderColor: colour("--chart-forecast"), borderDash: [3, 3], borderWidth: 1.5,
      fill: false, pointRadius: 0, pointHitRadius: 6, stack: "earlier",
    }),
    limit: () => ({
      borderColor: colour("--chart-limit"), borderDash: [8, 4], borderWidth: 2, fill: false,
      pointRadius: 0, pointHitRadius: 0, stack: "limit",
    }),
    available: () => ({
      borderColor: colour("--chart-available"), borderWidth: 2, fill: false, stepped: true,
      pointRadius: 0, pointHitRadius: 0, stack: "available",
    }),
    forecast: () => ({
      borderColor: colour("--chart-forecast"), borderDash: [3, 3], borderWidth: 2, fill: false,
      pointRadius: 0, pointHitRadius: 6, stack: "forecast",
    }),
  };

  const dataset = (described, index) => ({
    label: described.label,
    data: described.credits,
    shown: described.shown,
    ...styles[described.kind](colour(`--chart-${(index % 6) + 1}`)),
  });

  const axis = (text, more) => ({
    title: { display: Boolean(text), text, color: colour("--body-quiet-color") },
    ticks: { color: colour("--body-quiet-color"), maxRotation: 0, autoSkipPadding: 12 },
    grid: { color: colour("--hairline-color") },
    ...more,
  });

  function draw() {
    drawn.splice(0).forEach((chart) => chart.destroy());
    for (const [id, chart] of Object.entries(described)) {
      const canvas = document.getElementById(id);
      if (!canvas) continue;
      drawn.push(new Chart(canvas, {
        type: chart.kind,
        data: { labels: chart.days, datasets: chart.datasets.map(dataset) },
        options: {
          animation: false,
          maintainAspectRatio: false,
          interaction: { mode: "index", intersect: false },
          scales: {
            x: axis("", { stacked: chart.kind === "bar" }),
            y: axis(chart.unit, { stacked: true, beginAtZero: true, grace: "5%" }),
          },
          plugins: {
            legend: {
              position: "bottom",
              labels: { color: colour("--body-fg"), boxWidth: 14, boxHeight: 2 },
            },
            tooltip: {
              filter: (item) => item.raw !== null,
              callbacks: {
                label: (item) => `${item.dataset.label}: ${item.dataset.shown[item.dataIndex]}`,
              },
            },
          },
        },
      }));
    }
  }

  document.documentElement.classList.add("charts-drawn");
  document.querySelectorAll("details.as-table").forEach((table) => { table.open = false; });
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
})();
