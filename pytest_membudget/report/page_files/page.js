"use strict";
// Draws the table of tests a hundred rows at a time, sorts and filters it. Texts only ever become text nodes.
(() => {
  const holder = document.getElementById("data");
  const table = document.getElementById("test-table");
  if (!table) return;
  const { rows, caveats } = JSON.parse(holder.textContent);
  holder.textContent = "";
  const PAGE = 100;
  const [INDEX, NAME, VERDICT, CELLS, KEYS, MESSAGE, CAVEATS, OUTCOME, FINDING] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const TONES = { over: "bad", killed: "bad", crashed: "bad", leak: "bad", regressed: "bad", over_upper: "doubt", inconclusive: "doubt", within: "good", clean: "good" };
  const body = table.tBodies[0];
  const nameInput = document.getElementById("filter-name");
  const verdictSelect = document.getElementById("filter-verdict");
  const shown = document.getElementById("shown");
  const largest = rows.reduce((most, row) => Math.max(most, row[KEYS][0]), 1);
  const failing = (row) => TONES[row[VERDICT]] === "bad";
  let order = { key: null, down: true };
  let visible = rows;
  let drawn = 0;

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const drawRow = (row) => {
    const line = element("tr", "row");
    const name = element("td", "name");
    const open = element("button");
    // A name may be broken after its separators rather than within a word.
    row[NAME].match(/[^_\/:\[.-]*[_\/:\[.-]*/g).forEach((part) => open.append(part, document.createElement("wbr")));
    open.type = "button";
    open.setAttribute("aria-expanded", "false");
    name.append(open);
    line.append(name);
    row[CELLS].forEach((text, column) => {
      const cell = element("td", [column === 3 || column === 8 ? "" : "number", column > 3 ? "extra" : ""].join(" ").trim());
      const tone = column === 3 ? TONES[row[VERDICT]] : undefined;
      if (tone) cell.append(element("span", "badge " + tone, text));
      else cell.textContent = text;
      if (column === 0 && row[KEYS][0] > 0) {
        const meter = element("span", "meter");
        meter.style.width = (100 * row[KEYS][0]) / largest + "%";
        cell.append(meter);
      }
      line.append(cell);
    });
    line.addEventListener("click", () => toggle(line, open, row));
    return line;
  };

  const toggle = (line, open, row) => {
    const next = line.nextElementSibling;
    if (next && next.classList.contains("more")) {
      next.remove();
      open.setAttribute("aria-expanded", "false");
      return;
    }
    open.setAttribute("aria-expanded", "true");
    const more = element("tr", "more");
    const cell = element("td");
    cell.colSpan = 10;
    const picture = document.querySelector("#timeline-" + row[INDEX] + " svg");
    if (picture) cell.append(picture.cloneNode(true));
    const [peak, budget, used, , total, retained, time, processes, how] = row[CELLS];
    cell.append(element("p", "", `${row[OUTCOME]}; peak ${peak}, budget ${budget} (${used}), total ${total}, retained ${retained}; ${time}, processes: ${processes}; obtained: ${how}`));
    if (row[MESSAGE]) {
      const message = element("pre", "", row[MESSAGE]);
      message.tabIndex = 0;
      cell.append(message);
    }
    row[CAVEATS].forEach((index) => cell.append(element("p", "notes", caveats[index])));
    more.append(cell);
    line.after(more);
  };

  const drawMore = () => {
    const fresh = document.createDocumentFragment();
    visible.slice(drawn, drawn + PAGE).forEach((row) => fresh.append(drawRow(row)));
    drawn = Math.min(visible.length, drawn + PAGE);
    body.append(fresh);
    end.hidden = drawn >= visible.length;
  };

  const compare = (a, b) => {
    if (order.key === null) return failing(b) - failing(a) || b[KEYS][0] - a[KEYS][0];
    const sign = order.down ? -1 : 1;
    if (order.key === "name") return sign * (a[NAME] < b[NAME] ? -1 : a[NAME] > b[NAME] ? 1 : 0);
    if (order.key === "verdict") return sign * (a[CELLS][3] < b[CELLS][3] ? -1 : a[CELLS][3] > b[CELLS][3] ? 1 : 0) || b[KEYS][0] - a[KEYS][0];
    return sign * (a[KEYS][+order.key] - b[KEYS][+order.key]);
  };

  const refresh = () => {
    const words = nameInput.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = verdictSelect.value;
    visible = rows.filter((row) => (!wanted || row[VERDICT] === wanted || row[FINDING] === wanted || row[OUTCOME] === wanted) && words.every((word) => row[NAME].toLowerCase().includes(word)));
    visible.sort(compare);
    body.textContent = "";
    drawn = 0;
    drawMore();
    shown.textContent = `${visible.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} tests`;
  };

  const end = element("div", "sentinel");
  end.style.height = "1px";
  table.parentElement.after(end);
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && drawn < visible.length) drawMore();
  }, { rootMargin: "800px" }).observe(end);

  const kinds = [...new Set(rows.flatMap((row) => [row[VERDICT], row[OUTCOME], row[FINDING]]))].filter((kind) => kind && kind !== "none" && kind !== "same");
  kinds.sort().forEach((kind) => {
    const option = element("option", "", kind);
    option.value = kind;
    verdictSelect.append(option);
  });
  table.querySelectorAll("th[data-key]").forEach((heading) => {
    const button = element("button", "", heading.textContent);
    button.type = "button";
    heading.textContent = "";
    heading.append(button);
    button.addEventListener("click", () => {
      const key = heading.dataset.key;
      order = { key, down: order.key === key ? !order.down : key !== "name" && key !== "verdict" };
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      refresh();
    });
  });
  document.querySelectorAll("button[data-filter]").forEach((tile) => {
    tile.addEventListener("click", () => {
      verdictSelect.value = tile.dataset.filter;
      refresh();
      document.getElementById("tests").scrollIntoView();
    });
  });
  nameInput.addEventListener("input", refresh);
  verdictSelect.addEventListener("change", refresh);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  document.querySelector(".filters").hidden = false;
  refresh();
})();
