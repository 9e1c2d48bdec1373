"use strict";
// Nodes come as [label, tail, name, line, kind, group, x, y, width, peers, onnx, rules, gone], edges as [from, to, bends].
const KINDS = ["operator", "input", "output"], NODE_HEIGHT = 34, STRIP = 44;
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
let colours = {};
let chosen = null; // {view, at}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ground", "raised", "line", "text", "muted", "accent", "node", "node-line", "edge", "hit",
    "fill-light", "fill-line"]) colours[name] = style.getPropertyValue("--" + name).trim();
}

// Hues far apart for groups that are neighbours.
const hue = (group) => (group * 137.508) % 360;
const fill = (node) => node.group < 0 ? colours.node : `hsl(${hue(node.group)} 50% ${colours["fill-light"]})`;
const outline = (node) => node.group < 0 ? colours["node-line"] : `hsl(${hue(node.group)} 45% ${colours["fill-line"]})`;

class View {
  constructor(canvas, graph) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.width = graph.width;
    this.height = graph.height;
    this.nodes = graph.nodes.map(([label, tail, name, line, kind, group, x, y, width, peers, onnx, rules, gone]) =>
      ({ label, tail, name, line, kind, group, x, y, width, peers, onnx, rules, gone,
        text: [label, name, ...onnx].join("\n").toLowerCase() }));
    this.edges = graph.edges.map(([from, to, bends]) => {
      const a = this.nodes[from], b = this.nodes[to];
      const points = [[a.x, a.y + NODE_HEIGHT / 2], ...bends, [b.x, b.y - NODE_HEIGHT / 2]];
      const xs = points.map((point) => point[0]);
      return { from, to, points, left: Math.min(...xs), right: Math.max(...xs), top: points[0][1], bottom: b.y };
    });
    this.hits = new Set();
    this.lit = new Set();
    this.pointers = new Map();
    canvas.dataset.nodes = this.nodes.length;
    canvas.dataset.edges = this.edges.length;
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.up(event));
    canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  resize() {
    const ratio = window.devicePixelRatio || 1, box = this.canvas.getBoundingClientRect();
    this.w = box.width;
    this.h = box.height;
    this.canvas.width = Math.round(box.width * ratio);
    this.canvas.height = Math.round(box.height * ratio);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.scale === undefined) this.start();
    this.draw();
  }

  fitScale() {
    return Math.min((this.w - STRIP) / (this.width + 40), this.h / (this.height + 40));
  }

  fit() {
    this.scale = clamp(this.fitScale(), 0.001, 1);
    this.x = ((this.w - STRIP) - this.width * this.scale) / 2;
    this.y = (this.h - this.height * this.scale) / 2;
    this.draw();
  }

  // The whole graph if it can be read, else its beginning.
  start() {
    if (this.fitScale() > 0.45) return this.fit();
    this.scale = 0.8;
    const first = this.nodes.find((node) => node.kind === 0) || this.nodes[0] || { x: 0 };
    this.x = (this.w - STRIP) / 2 - first.x * this.scale;
    this.y = 12;
  }

  centre(at) {
    const node = this.nodes[at];
    if (!node) return;
    this.scale = Math.max(this.scale, 0.6);
    this.x = (this.w - STRIP) / 2 - node.x * this.scale;
    this.y = this.h / 2 - node.y * this.scale;
  }

  zoom(factor, x = this.w / 2, y = this.h / 2) {
    const scale = clamp(this.scale * factor, Math.min(this.fitScale(), 0.05), 4);
    this.x = x - (x - this.x) * scale / this.scale;
    this.y = y - (y - this.y) * scale / this.scale;
    this.scale = scale;
    this.draw();
  }

  draw() {
    const c = this.context, s = this.scale;
    c.clearRect(0, 0, this.w, this.h);
    const left = -this.x / s, right = (this.w - this.x) / s, top = -this.y / s, bottom = (this.h - this.y) / s;
    c.save();
    c.translate(this.x, this.y);
    c.scale(s, s);
    c.lineWidth = Math.max(1, 0.5 / s);
    for (const edge of this.edges) {
      if (edge.right < left || edge.left > right || edge.bottom < top || edge.top > bottom) continue;
      c.strokeStyle = this.lit.has(edge.from) && this.lit.has(edge.to) ? colours.accent : colours.edge;
      c.beginPath();
      c.moveTo(...edge.points[0]);
      for (let i = 1; i < edge.points.length; i++) {
        const [ax, ay] = edge.points[i - 1], [bx, by] = edge.points[i], middle = (ay + by) / 2;
        c.bezierCurveTo(ax, middle, bx, middle, bx, by);
      }
      c.stroke();
    }
    let drawn = 0;
    const readable = s > 0.4;
    c.textAlign = "center";
    c.textBaseline = "middle";
    for (let at = 0; at < this.nodes.length; at++) {
      const node = this.nodes[at], w = node.width, h = NODE_HEIGHT;
      if (node.x + w / 2 < left || node.x - w / 2 > right || node.y + h / 2 < top || node.y - h / 2 > bottom) continue;
      drawn++;
      const marked = this.hits.has(at) ? colours.hit : this.lit.has(at) ? colours.accent : null;
      c.fillStyle = node.kind ? colours.ground : fill(node);
      c.strokeStyle = marked || outline(node);
      c.lineWidth = (marked ? 3 : 1) * Math.max(1, 0.6 / s);
      c.setLineDash(node.gone ? [4, 3] : []);
      c.beginPath();
      c.roundRect(node.x - w / 2, node.y - h / 2, w, h, node.kind ? h / 2 : 5);
      c.fill();
      c.stroke();
      if (!readable) continue;
      c.fillStyle = colours.text;
      c.font = "600 12px system-ui, 'DejaVu Sans', sans-serif";
      c.fillText(node.label, node.x, node.y - (node.tail ? 6 : 0), w - 8);
      if (!node.tail) continue;
      c.globalAlpha = 0.7;
      c.font = "10px system-ui, 'DejaVu Sans', sans-serif";
      c.fillText(node.tail, node.x, node.y + 8, w - 8);
      c.globalAlpha = 1;
    }
    c.setLineDash([]);
    c.restore();
    this.strip(top, bottom);
    this.canvas.dataset.drawn = drawn;
    this.canvas.dataset.scale = s.toFixed(4);
  }

  // The whole graph at the right edge, with the part that is seen.
  strip(top, bottom) {
    const c = this.context, x = this.w - STRIP, ys = this.h / this.height, xs = (STRIP - 8) / this.width;
    c.fillStyle = colours.raised;
    c.fillRect(x, 0, STRIP, this.h);
    for (let at = 0; at < this.nodes.length; at++) {
      const node = this.nodes[at];
      c.fillStyle = this.hits.has(at) ? colours.hit : this.lit.has(at) ? colours.accent : outline(node);
      const w = Math.max(2, node.width * xs);
      c.fillRect(x + 4 + node.x * xs - w / 2, node.y * ys - 0.5, w, clamp(20 * ys, 1, 4));
    }
    c.strokeStyle = colours.accent;
    c.lineWidth = 1;
    const y = clamp(top * ys, 0, this.h - 2);
    c.strokeRect(x + 1, y + 0.5, STRIP - 2, Math.max(2, clamp(bottom * ys, 0, this.h) - y - 1));
  }

  at(x, y) {
    const gx = (x - this.x) / this.scale, gy = (y - this.y) / this.scale;
    return this.nodes.findIndex((node) =>
      Math.abs(gx - node.x) <= node.width / 2 && Math.abs(gy - node.y) <= NODE_HEIGHT / 2);
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...this.place(event));
  }

  down(event) {
    const [x, y] = this.place(event);
    try { this.canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone */ }
    this.pointers.set(event.pointerId, [x, y]);
    this.moved = 0;
    this.onStrip = x > this.w - STRIP;
    if (this.onStrip) this.jump(y);
  }

  jump(y) {
    this.y = this.h / 2 - y / this.h * this.height * this.scale;
    this.draw();
  }

  move(event) {
    const [x, y] = this.place(event), last = this.pointers.get(event.pointerId);
    if (!last) return this.hover(event, x, y);
    $("tip").hidden = true;
    if (this.onStrip) return this.jump(y);
    const other = [...this.pointers].find(([id]) => id !== event.pointerId);
    this.pointers.set(event.pointerId, [x, y]);
    this.moved += Math.abs(x - last[0]) + Math.abs(y - last[1]);
    this.x += (x - last[0]) / (other ? 2 : 1);
    this.y += (y - last[1]) / (other ? 2 : 1);
    this.canvas.classList.add("dragged");
    if (!other) return this.draw();
    const [ox, oy] = other[1];
    this.zoom(Math.hypot(x - ox, y - oy) / Math.max(1, Math.hypot(last[0] - ox, last[1] - oy)), (x + ox) / 2, (y + oy) / 2);
  }

  up(event) {
    const [x, y] = this.place(event);
    const was = this.pointers.delete(event.pointerId);
    this.canvas.classList.remove("dragged");
    if (event.type !== "pointerup" || !was || this.onStrip || this.moved > 4) return;
    const at = this.at(x, y);
    choose(at < 0 ? null : { view: this, at });
  }

  key(event) {
    const step = 60, moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) {
      this.x += moves[event.key][0];
      this.y += moves[event.key][1];
      this.draw();
    } else if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-") this.zoom(0.8);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }

  hover(event, x, y) {
    const at = x > this.w - STRIP ? -1 : this.at(x, y), tip = $("tip");
    tip.hidden = at < 0;
    if (at < 0) return;
    tip.textContent = describe(this, at, 6);
    const box = tip.getBoundingClientRect();
    tip.style.left = clamp(event.clientX + 14, 0, Math.max(0, innerWidth - box.width - 8)) + "px";
    tip.style.top = clamp(event.clientY + 14, 0, Math.max(0, innerHeight - box.height - 8)) + "px";
  }
}

// What is said of a node: at most so many names in each list.
function describe(view, at, most) {
  const node = view.nodes[at], other = view === before ? after : before;
  const list = (items) => items.slice(0, most).join("\n    ") + (items.length > most ? `\n    and ${items.length - most} more` : "");
  const lines = [`${node.kind ? KINDS[node.kind] + " " : ""}${node.label}  ${node.name}`];
  if (node.onnx.length) lines.push("ONNX: " + list(node.onnx));
  const peers = node.peers.map((peer) => `${other.nodes[peer].label}  ${other.nodes[peer].name}`);
  if (view === before && peers.length) lines.push("became: " + list(peers));
  if (node.gone) lines.push("gone: " + node.gone);
  if (node.rules.length) lines.push("rewrites: " + node.rules.join(", "));
  if (node.line) lines.push(node.line);
  return lines.join("\n");
}

function choose(choice) {
  chosen = choice;
  for (const view of views) view.lit.clear();
  $("chosen").hidden = !choice;
  if (choice) {
    const { view, at } = choice, other = view === before ? after : before;
    view.lit.add(at);
    for (const peer of view.nodes[at].peers) other.lit.add(peer);
    // All that became the same.
    for (const peer of view.nodes[at].peers) for (const twin of other.nodes[peer].peers) view.lit.add(twin);
    if (view.nodes[at].peers.length) other.centre(view.nodes[at].peers[0]);
    $("chosen").textContent = describe(view, at, 1000);
  }
  for (const view of views) view.draw();
}

let hitList = [], hitAt = -1;
function find(text) {
  const wanted = text.trim().toLowerCase();
  hitList = [];
  hitAt = -1;
  for (const view of views) {
    view.hits.clear();
    if (wanted) view.nodes.forEach((node, at) => {
      if (node.text.includes(wanted)) { view.hits.add(at); hitList.push({ view, at }); }
    });
    view.draw();
  }
  $("hits").textContent = wanted ? `${before.hits.size} before, ${after.hits.size} after` : "";
}

function next() {
  if (!hitList.length) return;
  hitAt = (hitAt + 1) % hitList.length;
  const hit = hitList[hitAt];
  hit.view.centre(hit.at);
  choose(hit);
}

const before = new View($("before"), data.before), after = new View($("after"), data.after), views = [before, after];
readColours();
for (const view of views) view.resize();
new ResizeObserver(() => views.forEach((view) => view.resize())).observe($("before"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); views.forEach((view) => view.draw()); });
$("find").addEventListener("input", () => find($("find").value));
$("find").addEventListener("keydown", (event) => { if (event.key === "Enter") next(); });
$("next").addEventListener("click", next);
$("fit").addEventListener("click", () => views.forEach((view) => view.fit()));
$("in").addEventListener("click", () => views.forEach((view) => view.zoom(1.4)));
$("out").addEventListener("click", () => views.forEach((view) => view.zoom(1 / 1.4)));
for (const item of document.querySelectorAll("[data-node]")) item.addEventListener("click", (event) => {
  event.preventDefault();
  const at = before.nodes.findIndex((node) => node.onnx.includes(item.dataset.node));
  if (at < 0) return;
  before.centre(at);
  choose({ view: before, at });
  $("before").scrollIntoView({ block: "nearest" });
});
// report.html#find=conv opens with a search.
const asked = new URLSearchParams(location.hash.slice(1)).get("find");
if (asked) { $("find").value = asked; find(asked); next(); }
document.documentElement.dataset.ready = "yes";
