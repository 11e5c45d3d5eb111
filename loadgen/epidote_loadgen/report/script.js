"use strict";
(() => {
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.classList.contains("dark") ||
      (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
    root.classList.toggle("dark", !dark);
    root.classList.toggle("light", dark);
  });

  const tip = document.getElementById("tip");
  const time = (s) => s < 60 ? s.toFixed(1) + " s"
    : Math.floor(s / 60) + ":" + String(Math.floor(s % 60)).padStart(2, "0");
  const value = (v, unit) => {
    if (unit === "s") return v < 1 ? (1000 * v).toPrecision(3) + " ms" : v.toPrecision(3) + " s";
    if (unit === "share") return (100 * v).toFixed(2) + " %";
    return (Math.round(100 * v) / 100) + unit;
  };
  const nearest = (at, x) => {
    let low = 0, high = at.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (at[middle] <= x) low = middle; else high = middle;
    }
    return Math.abs(at[high] - x) < Math.abs(at[low] - x) ? high : low;
  };
  const timed = [];
  for (const svg of document.querySelectorAll("svg[data-series]")) {
    const d = svg.dataset, left = +d.left, right = +d.right, low = +d.low, high = +d.high;
    const log = d.log === "1", series = JSON.parse(d.series);
    const cursor = svg.querySelector(".cursor");
    const toValue = (x) => {
      const share = (x - left) / (right - left);
      return log ? low * Math.pow(high / low, share) : low + share * (high - low);
    };
    const put = (x) => {
      cursor.classList.toggle("on", x !== null);
      if (x !== null) { cursor.setAttribute("x1", x); cursor.setAttribute("x2", x); }
    };
    if (!log) timed.push(put);
    const move = log ? put : (x) => timed.forEach((set) => set(x));
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * +d.width;
      if (x < left || x > right || !series.length) return;
      move(x);
      const at = toValue(x);
      tip.replaceChildren();
      const head = document.createElement("b");
      head.textContent = log ? value(at, "s") : time(at);
      tip.append(head);
      for (const s of series) {
        const v = s.values[nearest(s.at, at)];
        if (v === null || v === undefined) continue;
        const row = document.createElement("div");
        row.className = s.colour;
        row.textContent = s.name + " " + value(v, s.unit);
        tip.append(row);
      }
      tip.style.display = "block";
      tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
      tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
    });
    svg.addEventListener("pointerleave", () => { tip.style.display = "none"; move(null); });
  }
})();
