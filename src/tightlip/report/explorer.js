// Choose an ε and see what is certified at it; look closer at an example. explorer.py says what stands in place of radii:
// a radius exceeds ε where that is at least ε.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const Z = 1.959963984540054;  // so many standard deviations hold 95 % of a normal distribution
  const SPACE = "\u00a0";

  all(".explorer").forEach(explore);
  const dialog = document.querySelector("dialog");
  if (dialog) look(dialog);

  function explore(section) {
    const [slider, box] = all("input", section), said = section.querySelector("output");
    const ours = selector => all(`${selector}[data-scale="${section.dataset.scale}"]`);
    const runs = all("[data-counted]", section).map(row => ({ row, ...JSON.parse(row.dataset.counted) }));
    const lines = ours(".plot").map(line), tiles = ours(".tile");
    let chosen = box.value;
    const choose = text => {
      chosen = text;
      const eps = Number(text), shares = runs.map(run => show(run, eps)).join(", ");
      slider.value = eps;
      slider.setAttribute("aria-valuetext", text);
      said.value = `ε = ${text}: ${shares} certified`;
      lines.forEach(move => move(eps));
      tiles.forEach(tile => mark(tile, eps, text));
    };
    slider.addEventListener("input", () => choose(box.value = tidy(slider)));
    box.addEventListener("input", () => { if (box.value && box.validity.valid) choose(box.value); });
    box.addEventListener("change", () => { box.value = chosen; });
    choose(chosen);
    section.hidden = false;
  }

  // Steps are powers of ten: no more decimals than they have.
  function tidy(slider) {
    return String(Number(slider.valueAsNumber.toPrecision(4)));
  }

  function show({ row, proven, unbounded, right, inputs }, eps) {
    const certified = unbounded + proven.filter(most => most >= eps).length;
    const [low, high] = wilson(certified, inputs);
    const share = `${percent(certified / inputs, Math.floor).replace(/0$/, "")}${SPACE}%`;
    const interval = `${percent(low, Math.floor)}${SPACE}–${SPACE}${percent(high, Math.ceil)}${SPACE}%`;
    const shown = { share, interval, certified, open: right - certified, wrong: inputs - right };
    all("[data-shows]", row).forEach(cell => {
      const value = shown[cell.dataset.shows];
      cell.textContent = typeof value === "number" ? value.toLocaleString("en-US") : value;
    });
    return row.querySelector("th") ? `${row.dataset.run} ${share}` : share;
  }

  // Of a share, in percent, with two decimals; a product that misses a whole number by its rounding is meant to be it.
  function percent(share, round) {
    const value = 10000 * share, near = Math.round(value);
    return ((Math.abs(value - near) < 1e-9 ? near : round(value)) / 100).toFixed(2);
  }

  function wilson(successes, trials) {
    const share = successes / trials, middle = share + Z * Z / (2 * trials);
    const spread = Z * Math.sqrt(share * (1 - share) / trials + (Z / (2 * trials)) ** 2);
    const [low, high] = [-spread, spread].map(side => (middle + side) / (1 + Z * Z / trials));
    return [successes ? Math.min(low, share) : 0, successes < trials ? Math.max(high, share) : 1];
  }

  // A line across a chart, where ε is.
  function line(plot) {
    const [left, right, top, bottom, low, high] = JSON.parse(plot.dataset.axis);
    const svg = plot.querySelector("svg");
    const drawn = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "line"));
    drawn.setAttribute("class", "chosen");
    drawn.setAttribute("y1", top);
    drawn.setAttribute("y2", bottom);
    return eps => {
      const across = left + (right - left) * (eps - low) / (high - low);
      drawn.style.display = eps < low || eps > high ? "none" : "";
      for (const end of ["x1", "x2"]) drawn.setAttribute(end, across);
    };
  }

  function mark(tile, eps, text) {
    const sure = tile.dataset.proven !== "" && Number(tile.dataset.proven) >= eps;
    const verdict = tile.querySelector(".verdict");
    tile.classList.toggle("certified", sure);
    verdict.textContent = `${sure ? "certified" : "not certified"} at ε = ${text}`;
    verdict.hidden = false;
  }

  function look(dialog) {
    const [title, shown] = ["h2", ".shown"].map(part => dialog.querySelector(part));
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    let tiles = [], place = 0;
    const turn = step => {
      place = (place + step + tiles.length) % tiles.length;
      const tile = tiles[place], facts = tile.querySelector(".closer").cloneNode(true);
      title.textContent = `${tile.dataset.title}, ${place + 1} of ${tiles.length}`;
      facts.hidden = false;
      shown.replaceChildren(tile.querySelector(".pair").cloneNode(true), tile.querySelector(".verdict").cloneNode(true), facts);
    };
    all(".tiles").forEach(list => all(".tile", list).forEach((tile, at, row) => {
      const button = tile.appendChild(document.createElement("button"));
      Object.assign(button, { type: "button", className: "look" });
      button.setAttribute("aria-label", `Look closer at ${tile.dataset.title}`);
      button.setAttribute("aria-haspopup", "dialog");
      button.addEventListener("click", () => {
        [tiles, place] = [row, at];
        turn(0);
        dialog.showModal();
      });
    }));
    dialog.addEventListener("keydown", event => {
      if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      turn(steps[event.key]);
    });
    dialog.addEventListener("click", event => {
      const pressed = event.target.closest("button");
      if (event.target === dialog || pressed && pressed.value === "close") dialog.close();
      else if (pressed) turn(Number(pressed.value));
    });
    dialog.addEventListener("close", () => tiles[place].querySelector(".look").focus());
  }
})();
