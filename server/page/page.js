// The playground: asks the API as any client does, and shows how each token was routed.

import { decodeTrace } from "./trace.js";

const $ = (id) => document.getElementById(id);
const BASE = location.pathname.replace(/playground\/?$/, "");
const SIDES = ["a", "b"];
// Settings that the link holds, by the id of their control.
const FIELDS = ["prompt", "kind", "max_tokens", "temperature", "seed", "color"];
const POLL_MS = 2000;
const WINDOW = 15; // polls that the matrix shows
const HIDDEN = new Set(["mode", "seed", "ban", "force", "bias", "trace", "include"]);

let modes = [];
let presets = [];
let model = "";
let running = null; // AbortController of the requests under way

// --- the API ------------------------------------------------------------------------------

function headers() {
  const key = sessionStorage.getItem("galton-key");
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function call(path, options = {}) {
  const response = await fetch(BASE + path, { headers: headers(), ...options });
  if (response.status === 401) {
    $("key-row").hidden = false;
  }
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw new Error(body?.error?.message ?? `the server answered ${response.status}`);
  }
  return response;
}

const get = async (path) => (await call(path)).json();

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").find((line) => line.startsWith("data: "))?.slice(6);
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

// --- policies -----------------------------------------------------------------------------

function control(key, schema, value) {
  const choices = schema.enum;
  const input = document.createElement(choices ? "select" : "input");
  if (choices) {
    input.append(...choices.map((choice) => new Option(choice, choice)));
  } else {
    const plain = schema.anyOf?.[0] ?? schema; // one value for all layers
    input.type = "number";
    input.step = plain.type === "integer" ? 1 : "any";
    input.min = plain.minimum ?? plain.exclusiveMinimum ?? "";
    input.max = plain.maximum ?? "";
  }
  input.dataset.key = key;
  input.value = value ?? schema.default ?? "";
  input.title = schema.description ?? "";
  const label = document.createElement("label");
  label.append(`${key.replaceAll("_", " ")} `, input);
  return label;
}

function showPolicy(side, chosen, values = {}) {
  const box = $(`policy-${side}`);
  const select = document.createElement("select");
  select.dataset.policy = side;
  for (const [title, options] of [
    ["modes", modes.map((mode) => new Option(mode.id, `mode:${mode.id}`))],
    ["presets", presets.map((preset) => new Option(preset.id, `preset:${preset.id}`))],
  ]) {
    const group = document.createElement("optgroup");
    group.label = title;
    group.append(...options);
    if (options.length) select.append(group);
  }
  select.value = chosen;
  select.addEventListener("change", () => showPolicy(side, select.value));
  const label = document.createElement("label");
  label.append("mode or preset ", select);
  const [type, name] = chosen.split(/:(.*)/s);
  const about = document.createElement("p");
  about.className = "about";
  const rows = [label];
  if (type === "mode") {
    const mode = modes.find((one) => one.id === name);
    about.textContent = mode.description;
    for (const [key, schema] of Object.entries(mode.json_schema.properties)) {
      if (!HIDDEN.has(key)) rows.push(control(key, schema, values[key]));
    }
  } else {
    const preset = presets.find((one) => one.id === name);
    about.textContent = `${preset.description} ${JSON.stringify(preset.policy)}`;
  }
  box.replaceChildren(box.querySelector("legend"), ...rows, about);
}

function values(side) {
  const found = {};
  for (const input of $(`policy-${side}`).querySelectorAll("[data-key]")) {
    if (input.value !== "") {
      found[input.dataset.key] = input.type === "number" ? Number(input.value) : input.value;
    }
  }
  return found;
}

const chosen = (side) => document.querySelector(`[data-policy=${side}]`).value;

/** The request's body, as a client would send it. */
function body(side) {
  const [type, name] = chosen(side).split(/:(.*)/s);
  const text = $("prompt").value;
  const routing = type === "mode" ? { mode: name, ...values(side) } : {};
  const drawsNoise = type === "preset" || "seed" in schemaOf(name);
  if ($("seed").value !== "" && drawsNoise) routing.seed = Number($("seed").value);
  return {
    model: type === "preset" ? `${model}-${name}` : model,
    ...($("kind").value === "chat"
      ? { messages: [{ role: "user", content: text }] }
      : { prompt: text }),
    max_tokens: Number($("max_tokens").value),
    temperature: Number($("temperature").value),
    routing,
  };
}

const schemaOf = (name) => modes.find((mode) => mode.id === name).json_schema.properties;
const path = () => ($("kind").value === "chat" ? "v1/chat/completions" : "v1/completions");

// --- an answer ----------------------------------------------------------------------------

class Answer {
  constructor(side) {
    this.box = $(`answer-${side}`);
    this.tokens = this.box.querySelector(".tokens");
    this.meta = this.box.querySelector(".meta");
    this.tokens.replaceChildren();
    this.meta.textContent = "…";
    this.routing = new Map(); // by position: entropy, overlap, experts
    this.next = null; // position of the next token
    this.count = 0;
    this.began = performance.now();
  }

  add(event) {
    const choice = event.choices?.[0];
    const prompt = event.prompt_token_ids ?? choice?.prompt_token_ids;
    if (prompt && this.next === null) this.next = prompt.length;
    const text = choice?.delta?.content ?? choice?.text ?? "";
    const count = choice?.token_ids?.length ?? 0;
    if (text || count) this.append(text, count);
    if (event.routing) this.learn(event.routing);
    if (event.error) throw new Error(event.error.message);
  }

  append(text, count) {
    const span = document.createElement("span");
    span.className = "token";
    span.role = "button";
    span.tabIndex = this.tokens.childElementCount ? -1 : 0;
    span.setAttribute("aria-pressed", "false");
    span.textContent = text;
    if (!text.trim()) span.setAttribute("aria-label", "a token without letters");
    span.dataset.first = this.next ?? "";
    span.dataset.count = count;
    for (const kind of ["pointerenter", "focus", "click"]) {
      span.addEventListener(kind, () => this.show(span));
    }
    this.tokens.append(span);
    this.next += count;
    this.count += count;
    const seconds = (performance.now() - this.began) / 1000;
    this.meta.textContent = `${this.count} tokens, ${(this.count / seconds).toFixed(1)} per second`;
  }

  learn(routing) {
    for (const part of routing.tokens ?? []) {
      part.positions.forEach((position, i) => {
        this.at(position).entropy = part.entropy_nats[i];
        this.at(position).overlap = part.own_overlap_ratio[i];
      });
    }
    for (const part of routing.trace ?? []) {
      for (const row of decodeTrace(part.data)) Object.assign(this.at(row.position), row);
    }
    if (routing.policy) this.policy = routing;
    this.paint();
  }

  at(position) {
    if (!this.routing.has(position)) this.routing.set(position, {});
    return this.routing.get(position);
  }

  of(span) {
    const first = Number(span.dataset.first);
    return [...Array(Number(span.dataset.count)).keys()]
      .map((i) => this.routing.get(first + i))
      .filter(Boolean);
  }

  paint() {
    const byOverlap = $("color").value === "overlap";
    for (const span of this.tokens.children) {
      const rows = this.of(span).filter((row) => row.entropy !== undefined);
      if (!rows.length) continue;
      const mean = (key) => rows.reduce((sum, row) => sum + row[key], 0) / rows.length;
      const heat = byOverlap ? 1 - mean("overlap") : mean("entropy") / Math.log(experts || 2);
      span.style.setProperty("--heat", Math.min(heat, 1).toFixed(3));
    }
  }

  show(span) {
    for (const one of document.querySelectorAll(".token[aria-pressed=true]")) {
      one.setAttribute("aria-pressed", "false");
    }
    span.setAttribute("aria-pressed", "true");
    showToken(span.textContent, this.of(span));
  }

  end(note) {
    const policy = this.policy ? JSON.stringify(this.policy.policy) : "";
    this.meta.textContent += ` ${note} ${policy}`;
  }
}

let answers = [];
let experts = 0;

for (const side of SIDES) {
  $(`answer-${side}`).querySelector(".tokens").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const here = event.target.closest(".token");
    if (!step || !here) return;
    const there = step > 0 ? here.nextElementSibling : here.previousElementSibling;
    if (!there) return;
    here.tabIndex = -1;
    there.tabIndex = 0;
    there.focus();
    event.preventDefault();
  });
}

function cell(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function showToken(text, rows) {
  const known = rows.find((row) => row.layers);
  if (!known) {
    $("token").replaceChildren(
      cell("p", `“${text}”: not routed. An answer's last token is sampled, and never computed.`),
    );
    return;
  }
  const table = document.createElement("table");
  const caption = `“${text}”, position ${known.position}: ` +
    (known.native ? "the model's own choice" : "chosen by the policy") +
    (known.entropy === undefined
      ? ""
      : `; entropy ${known.entropy.toFixed(2)} nats, ${Math.round(known.overlap * 100)} % of the ` +
        "model's own experts");
  table.append(cell("caption", caption));
  known.layers.forEach((layer, i) => {
    const row = document.createElement("tr");
    const head = cell("th", `layer ${layer}`);
    head.scope = "row";
    row.append(head);
    for (const { id, weight } of known.experts[i]) {
      const made = cell("td", weight === null ? `${id}` : `${id}: ${weight.toFixed(2)}`);
      made.style.setProperty("--weight", weight ?? 0);
      row.append(made);
    }
    table.append(row);
  });
  $("token").replaceChildren(table);
}

async function ask(side, signal) {
  const answer = new Answer(side);
  answers.push(answer);
  const asked = body(side);
  const response = await call(path(), {
    method: "POST",
    signal,
    body: JSON.stringify({
      ...asked,
      stream: true,
      return_token_ids: true,
      routing: { ...asked.routing, include: ["trace", "weights", "tokens"] },
    }),
  });
  try {
    for await (const event of events(response)) answer.add(event);
    answer.end("·");
  } catch (error) {
    answer.end(error.name === "AbortError" ? "· stopped ·" : "· broken ·");
    if (error.name !== "AbortError") throw error;
  }
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  answers = [];
  $("problem").textContent = "";
  $("said").textContent = "asking";
  $("stop").disabled = false;
  const sides = $("compare").checked ? SIDES : ["a"];
  const ended = await Promise.allSettled(sides.map((side) => ask(side, signal)));
  const failed = ended.find((one) => one.status === "rejected" && one.reason.name !== "AbortError");
  if (failed) $("problem").textContent = failed.reason.message;
  if (running?.signal === signal) {
    $("stop").disabled = true;
    $("said").textContent = failed ? "" : signal.aborted ? "stopped" : "answered";
  }
});
$("stop").addEventListener("click", () => running?.abort());
$("color").addEventListener("change", () => answers.forEach((answer) => answer.paint()));
$("compare").addEventListener("change", showSides);
$("key").addEventListener("change", async () => {
  sessionStorage.setItem("galton-key", $("key").value);
  await start();
});

function showSides() {
  const both = $("compare").checked;
  for (const id of ["policy-b", "answer-b"]) $(id).hidden = !both;
  for (const columns of document.querySelectorAll(".columns")) columns.classList.toggle("one", !both);
}

// --- taking it along ------------------------------------------------------------------------

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    $("said").textContent = `${what} copied`;
  } catch {
    $("said").textContent = "the browser does not let this page copy: ";
    const box = document.createElement("textarea");
    box.value = text;
    box.setAttribute("aria-label", what);
    $("said").append(box);
    box.select();
  }
}

/** As Python writes it. */
function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const items = Object.entries(value).map(([name, item]) => `${literal(name)}: ${literal(item)}`);
  return `{${items.join(", ")}}`;
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const key = () => (sessionStorage.getItem("galton-key") ? " -H \"Authorization: Bearer $KEY\"" : "");

$("curl").addEventListener("click", () =>
  copy(
    `curl ${location.origin}${BASE}${path()} -H 'Content-Type: application/json'${key()} ` +
      `-d ${quoted(JSON.stringify(body("a"), null, 2))}`,
    "the request A as curl",
  ));
$("python").addEventListener("click", () => {
  const { routing, ...rest } = body("a");
  const given = Object.entries(rest).map(([name, value]) => `    ${name}=${literal(value)},`);
  const create = $("kind").value === "chat" ? "chat.completions.create" : "completions.create";
  copy(
    [
      "from openai import OpenAI",
      "",
      `client = OpenAI(base_url="${location.origin}${BASE}v1", api_key="KEY")`,
      `answer = client.${create}(`,
      ...given,
      `    extra_body={"routing": ${literal(routing)}},`,
      ")",
      "print(answer)",
    ].join("\n"),
    "the request A as Python",
  );
});

function settings() {
  const fields = Object.fromEntries(FIELDS.map((id) => [id, $(id).value]));
  const policies = SIDES.map((side) => [chosen(side), values(side)]);
  return { ...fields, compare: $("compare").checked, policies };
}

$("share").addEventListener("click", () => {
  const packed = encodeURIComponent(JSON.stringify(settings()));
  history.replaceState(null, "", `#${packed}`);
  copy(location.href, "the link");
});

function restore() {
  let shared = {};
  try {
    shared = JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
  } catch {
    $("said").textContent = "the link's settings cannot be read";
  }
  for (const id of FIELDS) if (typeof shared[id] === "string") $(id).value = shared[id];
  if (typeof shared.compare === "boolean") $("compare").checked = shared.compare;
  const known = new Set([...modes.map((m) => `mode:${m.id}`), ...presets.map((p) => `preset:${p.id}`)]);
  ["mode:top_k", "mode:sample"].forEach((usual, i) => {
    const [wanted, given] = shared.policies?.[i] ?? [usual, {}];
    showPolicy(SIDES[i], known.has(wanted) ? wanted : usual, given ?? {});
  });
  showSides();
}

// --- the server's experts -------------------------------------------------------------------

const RAMP = [[0, 32, 36, 43], [0.5, 47, 111, 208], [1, 88, 179, 104], [1.8, 242, 163, 58], [3, 208, 52, 44]];

function colorOf(ratio) {
  const at = Math.min(ratio, 3);
  const upper = Math.max(1, RAMP.findIndex(([from]) => at <= from));
  const [[low, ...from], [high, ...to]] = [RAMP[upper - 1], RAMP[upper]];
  const part = (at - low) / (high - low);
  return from.map((channel, i) => Math.round(channel + part * (to[i] - channel)));
}

function drawLoad(layers) {
  const canvas = $("load");
  const [width, height] = [layers[0].assignments.length, layers.length];
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  canvas.style.aspectRatio = `${width} / ${Math.max(height, width / 6)}`;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  let hottest = { ratio: 0 };
  let dead = 0;
  layers.forEach(({ layer, assignments }, y) => {
    const total = assignments.reduce((sum, count) => sum + count, 0);
    assignments.forEach((count, x) => {
      const ratio = total ? (count * width) / total : 0;
      if (ratio > hottest.ratio) hottest = { ratio, layer, expert: x };
      if (total && !count) dead += 1;
      image.data.set([...colorOf(ratio), 255], 4 * (y * width + x));
    });
  });
  context.putImageData(image, 0, 0);
  const said = hottest.ratio
    ? `${height} layers down, ${width} experts across. Busiest: expert ${hottest.expert} of layer ` +
      `${hottest.layer}, ${hottest.ratio.toFixed(1)} times its fair share. ${dead} without load.`
    : "Nothing was routed in the last half minute.";
  $("load-said").textContent = said;
  canvas.setAttribute("aria-label", `Load of every expert. ${said}`);
}

const marks = [];

async function poll() {
  if (!document.hidden && model) {
    try {
      const since = marks.length ? `?since=${marks[0]}` : "";
      const told = await get(`v1/routing/stats${since}`);
      if (marks.length) drawLoad(told.layers);
      experts = told.layers[0].assignments.length;
      marks.push(told.mark);
      if (marks.length > WINDOW) marks.shift();
    } catch {
      marks.length = 0; // restarted, or gone: begin anew
    }
  }
  setTimeout(poll, POLL_MS);
}

async function start() {
  try {
    [modes, presets] = (
      await Promise.all([get("v1/routing/policies"), get("v1/routing/presets")])
    ).map((list) => list.data);
    modes = modes.filter((mode) => !mode.json_schema.required.includes("trace"));
    model = (await get("v1/models")).data[0].id;
  } catch (error) {
    $("problem").textContent = error.message;
    return;
  }
  $("problem").textContent = "";
  $("key-row").hidden = true;
  restore();
}

await start();
poll();
