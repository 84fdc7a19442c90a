// Surfaces that are turned by mouse, finger or arrow keys, all of a page together; Home turns them back.
// Each comes in a box made by surfaces.py, where the projection is written down. Nothing moves by itself.
(() => {
  "use strict";
  const view = {};
  let waiting = false;

  const figures = [...document.querySelectorAll("[data-surface]")].map(home => {
    const canvas = home.appendChild(document.createElement("canvas"));
    const figure = { canvas, ...JSON.parse(home.dataset.surface) };
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${home.firstElementChild.getAttribute("aria-label")} The arrow keys turn it.`);
    listen(canvas, figure);
    home.classList.add("turning");
    new ResizeObserver(drawSoon).observe(canvas);
    return figure;
  });
  document.querySelectorAll(".hint").forEach(hint => { hint.hidden = false; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawSoon);
  look(figures[0].turn, figures[0].tilt);

  function look(turn, tilt) {
    view.turn = turn;
    view.tilt = Math.min(Math.PI / 2, Math.max(0.05, tilt));
    drawSoon();
  }

  function drawSoon() {
    if (!waiting) requestAnimationFrame(() => { waiting = false; figures.forEach(draw); });
    waiting = true;
  }

  function listen(canvas, start) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = (right, down) => look(view.turn + right, view.tilt + down);
    let last = null;
    canvas.addEventListener("pointerdown", event => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      last = event;
    });
    canvas.addEventListener("pointermove", event => {
      if (last) move((event.clientX - last.clientX) / 120, (event.clientY - last.clientY) / 120);
      last = last && event;
    });
    canvas.addEventListener("lostpointercapture", () => { last = null; });
    canvas.addEventListener("keydown", event => {
      if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in moves || event.key === "Home")) return;
      event.preventDefault();
      if (event.key === "Home") look(start.turn, start.tilt);
      else move(...moves[event.key].map(step => step / 10));
    });
  }

  function draw({ canvas, x, y, z, half, ends }) {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const ink = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const color = name => style.getPropertyValue(name).trim();
    const [ct, st, cl, sl] = [Math.cos(view.turn), Math.sin(view.turn), Math.cos(view.tilt), Math.sin(view.tilt)];
    const reach = Math.hypot(half[0], half[1]);
    const scale = Math.min(width / reach / 2.4, height / (reach * sl + half[2] * cl) / 2.2);
    const project = (x, y, z) => {
      const across = x * ct - y * st, away = x * st + y * ct;
      return [width / 2 + scale * across, height / 2 - scale * (z * cl + away * sl), scale * (away * cl - z * sl)];
    };
    ink.scale(ratio, ratio);
    ink.font = `11px ${style.fontFamily}`;
    ink.strokeStyle = color("--line");
    ink.fillStyle = color("--muted");
    frame(ink, project, half, ends, st > 0 ? -1 : 1, ct > 0 ? -1 : 1);
    const levels = [1, 2, 3, 4, 5, 6, 7, 8].map(level => parseInt(color(`--level-${level}`).slice(1), 16));
    const points = x.map((x, i) => y.map((y, j) => project(x, y, z[i][j])));
    const patches = x.slice(1).flatMap((_, i) => y.slice(1).map((_, j) => {
      const places = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const mean = value => places.reduce((sum, [i, j]) => sum + value(i, j) / 4, 0);
      const corners = places.map(([i, j]) => points[i][j]), depth = mean((i, j) => points[i][j][2]);
      return { corners, depth, share: mean((i, j) => z[i][j]) / half[2] / 2 + 0.5 };
    }));
    for (const { corners, share } of patches.sort((one, other) => other.depth - one.depth)) {
      ink.fillStyle = ink.strokeStyle = shade(levels, share, corners);
      line(ink, [...corners, corners[0]]);
      ink.fill();
    }
  }

  function line(ink, points) {
    ink.beginPath();
    points.forEach(([across, down]) => ink.lineTo(across, down));
    ink.stroke();
  }

  // The color of a height, a share of the box's, darker where a patch turns away from a light above the reader's left.
  function shade(levels, share, [p, q, r, s]) {
    const [a, b] = [[r, p], [s, q]].map(([to, from]) => to.map((value, axis) => value - from[axis]));
    const normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    const facing = Math.abs(0.4 * normal[0] + 0.6 * normal[1] + 0.7 * normal[2]) / (Math.hypot(...normal) || 1);
    const low = Math.min(6, Math.max(0, Math.floor(7 * share))), rest = 7 * share - low;
    const part = shift => (levels[low] >> shift & 255) * (1 - rest) + (levels[low + 1] >> shift & 255) * rest;
    return `rgb(${[16, 8, 0].map(shift => Math.round((0.7 + 0.3 * facing) * part(shift)))})`;
  }

  // The floor, the edges behind the surface, and beside the edges before it where the axes begin and end; sx and sy
  // say on which side the nearest corner is.
  function frame(ink, project, [a, b, c], ends, sx, sy) {
    const x = sx * a, y = sy * b, beside = value => value + 0.14 * Math.sign(value);
    const edges = [
      [[-a, -b, -c], [a, -b, -c], [a, b, -c], [-a, b, -c], [-a, -b, -c]],
      [[-x, y, -c], [-x, y, c], [-x, -y, c], [x, -y, c], [x, -y, -c]],
      [[-x, -y, -c], [-x, -y, c]],
    ];
    edges.forEach(corners => line(ink, corners.map(corner => project(...corner))));
    const words = (align, baseline, [low, name, high], from, to) => {
      [ink.textAlign, ink.textBaseline] = [align, baseline];
      const middle = from.map((value, axis) => (value + to[axis]) / 2);
      [[low, from], [name, middle], [high, to]].forEach(([text, place]) => {
        const [across, down] = project(...place);
        ink.fillText(text, align === "right" ? Math.max(across, ink.measureText(text).width) : across, down);
      });
    };
    const left = (project(-x, y, 0)[0] < project(x, -y, 0)[0] ? [-x, y] : [x, -y]).map(beside);
    words("center", "top", [ends[0][0], "x", ends[0][1]], [-a, beside(y), -c], [a, beside(y), -c]);
    words("center", "top", [ends[1][0], "y", ends[1][1]], [beside(x), -b, -c], [beside(x), b, -c]);
    words("right", "bottom", [ends[2][0], "z", ends[2][1]], [...left, -c], [...left, c]);
  }
})();
